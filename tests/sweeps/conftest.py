"""What the tests of the sweeps share: what a tiny default run has made, and a place to work."""

import pickle
from pathlib import Path

import pytest

from pipeline.reporting import page
from sweeps import runner
from sweeps.parallel import Event, one_line
from tests.tiny_run import make_artifacts


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory):
    """Those of a tiny default run. Not to be changed."""
    root = tmp_path_factory.mktemp("artifacts")
    make_artifacts(root)
    return root


@pytest.fixture
def workspace(tmp_path, artifacts, work_root, monkeypatch):
    """A workspace whose page, which needs the records of a whole run, is not drawn."""
    monkeypatch.chdir(tmp_path)
    Path("artifacts").symlink_to(artifacts)
    monkeypatch.setattr(page, "write_report", lambda reports, **_: reports / "index.html")
    return tmp_path


@pytest.fixture
def one_process(monkeypatch):
    """Tasks one after another in this process, which need not import everything again."""
    monkeypatch.setattr(runner, "in_parallel", one_after_another)


def one_after_another(run, tasks, *, num_processes):
    """In the place of `in_parallel`: the same events; tasks and results still pass through pickle."""
    for index, task in enumerate(tasks):
        shares = []
        try:
            result = run(pickle.loads(pickle.dumps(task)), lambda *said, shares=shares: shares.append(said[0]))
        except Exception as error:
            yield Event(index, failure=one_line(error), is_last=True)
        else:
            yield from (Event(index, share) for share in shares)
            yield Event(index, 1.0, pickle.loads(pickle.dumps(result)), is_last=True)

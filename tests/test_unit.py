"""Units: the fingerprint, the products, the curve, the lock."""

import json
import logging
import subprocess
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field

import pytest

from pipeline import unit
from pipeline.interfaces import Progress
from pipeline.unit import (
    PROJECT,
    as_plain,
    digest_of,
    keep_rows_before,
    revision_of,
    run_unit,
    single_writer,
    sources_of,
)
from pipeline.workspace import make_workspace


@dataclass(frozen=True)
class Sizes:
    width: int = 3


@dataclass(frozen=True)
class Count:
    """Counts to num_steps, and remembers how far it came."""

    num_steps: int = 5
    sizes: Sizes = field(default_factory=Sizes)

    def run(self, directory, inputs) -> Generator[Progress, None, dict]:
        memory = directory / "memory"
        start = int(memory.read_text()) if memory.exists() else 0
        for step in range(start + 1, self.num_steps + 1):
            yield Progress(step, self.num_steps, {"value": step * 1.5})
            memory.write_text(str(step))
        return {"last": self.num_steps}


@dataclass(frozen=True)
class Keep:
    """Writes two products and a picture, and keeps a checkpoint; the metrics say whether it found one."""

    def run(self, directory, inputs) -> Generator[Progress, None, dict]:
        resumed = (directory / "checkpoints" / "1").exists()
        for name in ("checkpoints/1", "out/weights", "out/more/levels", "show/picture"):
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        yield Progress(1, 1, {"value": 1.0})
        return {"resumed": resumed}


def stop(progress):
    raise KeyboardInterrupt


def git(directory, *arguments):
    subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *arguments], cwd=directory, check=True)


def commit(directory, text):
    (directory / "code.py").write_text(text)
    git(directory, "add", ".")
    git(directory, "commit", "-qm", text)
    return subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=directory, text=True).strip()


def test_a_unit_leaves_its_description_curve_time_and_metrics(work_root):
    directory = run_unit("count", Count(), {})
    assert directory.parent == work_root / "count"
    assert json.loads((directory / "metrics.json").read_text()) == {"last": 5}
    rows = [json.loads(line) for line in (directory / "curve.jsonl").read_text().splitlines()]
    assert rows == [{"step": k, "value": 1.5 * k} for k in range(1, 6)]
    assert json.loads((directory / "timing.json").read_text())["seconds"] >= 0
    assert json.loads((directory / "unit.json").read_text())["work"]["sizes"]["width"] == 3


def test_a_resumed_unit_repeats_no_row_of_its_curve(work_root):
    def stop_at_3(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_unit("count", Count(), {}, on_progress=stop_at_3)
    directory = run_unit("count", Count(), {})
    steps = [json.loads(line)["step"] for line in (directory / "curve.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5]


def test_a_finished_unit_is_not_made_again(work_root, caplog):
    directory = run_unit("keep", Keep(), {})
    assert run_unit("keep", Keep(), {}, on_progress=stop) == directory
    assert not caplog.records


@pytest.mark.parametrize("name", ["out/weights", "out/more/levels", "show/picture", "out/other", "products.json"])
@pytest.mark.parametrize("damage", ["overwritten", "lost"])
def test_a_unit_whose_products_changed_is_named_and_made_anew(name, damage, work_root, caplog):
    directory = run_unit("keep", Keep(), {})
    made = digest_of(directory / "out"), digest_of(directory / "show"), digest_of(directory / "products.json")
    path = directory / name
    if damage == "overwritten":
        path.write_text("other")
    else:
        path.unlink(missing_ok=True)
    is_changed = (name, damage) != ("out/other", "lost")  # it was never there
    assert run_unit("keep", Keep(), {}) == directory
    assert made == (
        digest_of(directory / "out"),
        digest_of(directory / "show"),
        digest_of(directory / "products.json"),
    )
    assert (f"{path} is not what its unit made" in caplog.text) == is_changed
    assert (directory / "curve.jsonl").read_text() == '{"step": 1, "value": 1.0}\n'
    assert json.loads((directory / "metrics.json").read_text()) == {"resumed": False}


def test_checkpoints_stay_until_the_unit_is_finished(work_root, monkeypatch):
    def killed(path, value, write=unit.write_json):
        if path.name == "metrics.json":
            raise KeyboardInterrupt
        write(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(unit, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            run_unit("keep", Keep(), {})
    directory = run_unit("keep", Keep(), {})
    assert json.loads((directory / "metrics.json").read_text()) == {"resumed": True}
    assert not (directory / "checkpoints").exists()


def test_checkpoints_that_a_kill_left_behind_go_with_the_next_start(work_root):
    directory = run_unit("keep", Keep(), {})
    (directory / "checkpoints").mkdir()
    run_unit("keep", Keep(), {}, on_progress=stop)
    assert not (directory / "checkpoints").exists()


def test_a_unit_keeps_the_revision_that_made_it(work_root, tmp_path, monkeypatch):
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.setattr(unit, "PROJECT", project)
    assert json.loads((run_unit("keep", Keep(), {}) / "unit.json").read_text())["revision"] is None
    git(project, "init", "-q")
    first = commit(project, "X = 1")
    assert json.loads((run_unit("keep", Keep(), {}) / "unit.json").read_text())["revision"] is None
    directory = run_unit("count", Count(), {})
    commit(project, "X = 2")
    (project / "code.py").write_text("X = 3")
    assert run_unit("count", Count(), {}) == directory  # no part of the fingerprint
    assert json.loads((directory / "unit.json").read_text())["revision"] == {"commit": first, "dirty": False}


def test_a_revision_is_dirty_where_code_changed_and_not_where_results_did(tmp_path):
    assert revision_of(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert revision_of(tmp_path) is None  # no commit yet
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "grid.csv").write_text("1\n")
    first = commit(tmp_path, "X = 1")
    (tmp_path / "reports" / "grid.csv").write_text("2\n")
    assert revision_of(tmp_path) == {"commit": first, "dirty": False}
    (tmp_path / "code.py").write_text("X = 2")
    assert revision_of(tmp_path) == {"commit": first, "dirty": True}
    assert revision_of(tmp_path / "reports") is None  # the repository is not its own


def test_a_second_writer_waits_for_the_first(work_root, caplog):
    with pytest.raises(KeyboardInterrupt):
        run_unit("count", Count(), {}, on_progress=stop)
    (directory,) = (work_root / "count").iterdir()
    second = threading.Thread(target=run_unit, args=("count", Count(), {}), daemon=True)
    with caplog.at_level(logging.WARNING), single_writer(directory):
        second.start()
        deadline = time.monotonic() + 60
        while "waiting for another writer" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        assert f"waiting for another writer of {directory}" in caplog.text
        assert second.is_alive()
        assert not (directory / "memory").exists()
    second.join(60)
    assert json.loads((directory / "metrics.json").read_text()) == {"last": 5}


def test_a_path_with_a_space_is_a_path(tmp_path, monkeypatch):
    root = tmp_path / "my work"
    monkeypatch.setenv("FORCING_GRID_WORK", str(root))
    workspace = make_workspace("smoke")
    assert workspace == root / "profiles" / "smoke"
    assert (workspace / "pipeline" / "unit.py").read_bytes() == (PROJECT / "pipeline" / "unit.py").read_bytes()
    project = tmp_path / "my project"
    project.mkdir()
    git(project, "init", "-q")
    first = commit(project, "X = 1")
    monkeypatch.setattr(unit, "PROJECT", project)
    directory = run_unit("keep", Keep(), {"parameters": workspace / "params.yaml"})
    assert directory.is_relative_to(root / "keep")
    assert json.loads((directory / "unit.json").read_text())["revision"] == {"commit": first, "dirty": False}
    assert run_unit("keep", Keep(), {"parameters": workspace / "params.yaml"}, on_progress=stop) == directory


def test_a_row_that_was_cut_short_is_dropped(tmp_path):
    curve = tmp_path / "curve.jsonl"
    curve.write_text('{"step": 1}\n{"step": 2}\n{"st')
    keep_rows_before(curve, 9)
    assert curve.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_equal_fields_of_two_classes_are_two_fingerprints():
    @dataclass(frozen=True)
    class Other:
        width: int = 3

    assert as_plain(Sizes()) != as_plain(Other())


def test_a_parameter_that_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="must be plain values or dataclasses, got set"):
        as_plain({"a": {1, 2}})


def test_sources_follow_imports_and_stop_at_registries_that_nobody_names():
    dmd = sources_of({"pipeline.losses.dmd"})
    assert {"pipeline.losses.dmd", "pipeline.diffusion.denoising", "pipeline.models.backbone"} <= set(dmd)
    assert "pipeline.losses.gan" not in dmd
    cell = sources_of({"pipeline.training.cell"})
    assert "pipeline.losses.gan" not in cell, "a new loss must not make the results of the others stale"
    assert not any(name.startswith(("pipeline.reporting", "pipeline.tracking", "pipeline.config")) for name in cell)
    assert {"pipeline.losses.gan", "pipeline.losses.dmd"} <= set(sources_of({"pipeline.losses"}))


def test_changed_code_never_meets_an_old_result(work_root, monkeypatch):
    first = run_unit("count", Count(), {})
    original = unit.sources_of
    monkeypatch.setattr(unit, "sources_of", lambda names: {**original(names), "tests.test_unit": "edited"})
    assert run_unit("count", Count(), {}) != first


def test_an_edit_of_a_used_module_changes_its_source_digest(tmp_path, monkeypatch):
    for name, text in {"a": "from inner import b\n", "inner/__init__": "", "inner/b": "X = 1\n"}.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(unit, "PROJECT", tmp_path)
    before = sources_of({"a"})
    (tmp_path / "inner" / "b.py").write_text("X = 2\n")
    after = sources_of({"a"})
    assert set(before) == {"a", "inner.b"}
    assert before["a"] == after["a"]
    assert before["inner.b"] != after["inner.b"]


def test_a_digest_sees_names_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    first = digest_of(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = digest_of(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, digest_of(tmp_path)}) == 3


def test_a_missing_input_is_named(work_root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"an input of a unit must exist: .*nowhere"):
        run_unit("count", Count(), {"clips": tmp_path / "nowhere"})

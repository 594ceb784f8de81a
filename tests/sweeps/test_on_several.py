"""A unit by several workers of Ray Train, from the driver and inside a trial of Tune, on a cluster of our own."""

import json
import os
from pathlib import Path

import pytest

from sweeps.cluster import Resources, cluster
from sweeps.on_ray import on_ray
from sweeps.on_several import run_on_several
from tests.cells import make_latents
from tests.sweeps.several_tasks import NUM_STEPS, share, work

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where units, inputs and processes are."""
    root = tmp_path_factory.mktemp("several")
    make_latents(root / "codec")
    before = {name: os.environ.get(name) for name in ("FORCING_GRID_WORK", "RAY_ADDRESS")}
    os.environ["FORCING_GRID_WORK"] = str(root / "work")
    os.environ.pop("RAY_ADDRESS", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.cpu_count", lambda: 3)
        with cluster(Resources()):
            yield root
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def test_two_workers_make_one_unit(place):
    steps = []
    inputs = {"codec": place / "codec"}
    unit = run_on_several("cell", work(), inputs, resources=Resources(), on_progress=lambda p: steps.append(p.step))
    assert steps == [0, 2, 4, 6]
    metrics = json.loads((unit / "metrics.json").read_text())
    assert metrics["clips_seen"] == 8 * NUM_STEPS
    assert (unit / "out" / "student.safetensors").exists()
    assert [path.name for path in unit.parent.iterdir()] == [unit.name]
    assert not list((place / "work").glob(".train-*"))


def test_a_trial_of_tune_begins_workers(place):
    events = list(on_ray(share, {"a": {"codec": place / "codec"}}, resources=Resources(), max_failures=0))
    assert events[-1].failure is None
    assert json.loads((Path(events[-1].result) / "metrics.json").read_text())["clips_seen"] == 4 * NUM_STEPS


def test_what_a_worker_raises_is_raised_here(place):
    with pytest.raises(FileNotFoundError, match="an input of a unit must exist"):
        run_on_several("cell", work(), {"codec": place / "nowhere"}, resources=Resources())


def test_who_listens_can_stop_the_workers(place):
    def listen(progress):
        raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        run_on_several(
            "cell", work(batch_size=16), {"codec": place / "codec"}, resources=Resources(), on_progress=listen
        )

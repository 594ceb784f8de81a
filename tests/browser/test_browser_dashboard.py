"""The pages of MLflow that the README leads to, in a browser, over a store filled from the tracked results."""

import csv
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from playwright.sync_api import Browser, expect

from pipeline import dashboard
from pipeline.clip_files import Layout, write_gif
from pipeline.environment import QUIET
from pipeline.saved_view import RANKED
from pipeline.sweep_runs import ANIMATION
from pipeline.tracking import EXPERIMENT, track
from tests.browser.conftest import PROJECT, Watched

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

PATIENCE = 90_000  # milliseconds that a page of MLflow may take, with other tests beside it
OTHER_SWEEPS = ("laboratory", "ablation", "cells", "causal_forcing", "*.html")  # they would only take their time
CELL = "self_forcing-gan"
# What MLflow's own pages say is wrong, and then work: they ask who is logged in, of which a server without logins,
# like this one, knows nothing.
KNOWN = (
    "Failed to load resource: the server responded with a status of 404 (Not Found) "
    "at /ajax-api/2.0/mlflow/users/current",
)

SHOWS_PICTURE = """
([width, height]) => [...document.images].some((one) => one.naturalWidth === width && one.naturalHeight === height)
"""


@dataclass(frozen=True)
class Served:
    """A server with the tracked results: its address, the page of the view, and two of its runs."""

    origin: str
    view: str
    sweep: Run
    trial: Run
    size: tuple[int, int]  # of the clips that play, among the trial's artifacts

    def address(self, run: Run, page: str = "") -> str:
        return f"{self.origin}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}{page}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[Served]:
    workspace = tmp_path_factory.mktemp("served")
    shutil.copytree(PROJECT / "reports", workspace / "reports", ignore=shutil.ignore_patterns(*OTHER_SWEEPS))
    shutil.copyfile(PROJECT / "dvc.lock", workspace / "dvc.lock")
    shutil.copyfile(migrated, workspace / "mlflow.db")
    size = write_animation(workspace)
    tracked = track(workspace, workspace / "work")
    assert (tracked.pending, tracked.damaged, tracked.reason) == ((), (), "")
    store = f"sqlite:///{workspace / 'mlflow.db'}"
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    (sweep,) = client.search_runs([experiment], "tags.kind = 'sweep' and tags.sweep = 'grid'")
    (trial,) = client.search_runs([experiment], f"tags.kind = 'trial' and tags.animation = '{ANIMATION}'")
    with socket.socket() as probe:
        probe.bind((dashboard.HOST, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", *dashboard.server_command(workspace, store, port)]
    env = {
        **os.environ,
        **QUIET,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }  # as `pipeline dashboard` starts it
    with dashboard.in_background(command, workspace, env) as server:
        assert dashboard.wait_until_healthy(port, server)
        origin = f"http://{dashboard.HOST}:{port}"
        yield Served(origin, f"{origin}{tracked.page}", sweep, trial, size)


def write_animation(workspace: Path) -> tuple[int, int]:
    """That of a tuned cell, where its evaluation leaves it: units are not tracked, the clips of the cells are.

    Returns its width and height.
    """
    grid = workspace / "reports" / "grid"
    with (grid / "trials.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["phase"], row["seed"]) == ("tuned", "1")]
    (fingerprint,) = (row["evaluate_fingerprint"] for row in rows if f"{row['method']}-{row['loss']}" == CELL)
    directory = workspace / "work" / "evaluate" / fingerprint / "show"
    directory.mkdir(parents=True)
    clips = np.load(grid / "samples.npz")[CELL]
    frames = np.moveaxis(clips, (1, 2), (0, 4))  # (N, T, C, H, W) -> (T, N, H, W, C)
    write_gif(iter(np.ascontiguousarray(frames)), directory / ANIMATION, Layout(num_frames=len(frames)))
    with Image.open(directory / ANIMATION) as image:
        return image.size


@pytest.fixture
def visited(browser: Browser, served: Served) -> Iterator[Watched]:
    """Opens pages of the server that must ask for nothing elsewhere; judged at the end of the test."""
    pages = Watched(browser, origin=served.origin, known=KNOWN)
    yield pages
    pages.close()


def test_the_view_of_the_experiment_compares_the_cells(
    visited: Watched, served: Served, keep: Callable[..., Path]
) -> None:
    page = visited.open(served.view)
    for name in ("B-L2", "TF-L2", "DF-L2", "SF-GAN"):
        expect(page.get_by_text(f"Group: {name}")).to_be_visible(timeout=PATIENCE)
    for metric in RANKED:
        expect(page.get_by_text(metric, exact=True).first).to_be_visible(timeout=PATIENCE)
    expect(page.locator("svg.main-svg").first).to_be_visible(timeout=PATIENCE)  # of plotly
    keep(page, "mlflow_view")


def test_the_run_of_the_sweep_has_its_note_and_its_numbers(
    visited: Watched, served: Served, keep: Callable[..., Path]
) -> None:
    name = f"tuned.{CELL}.excess"
    page = visited.open(served.address(served.sweep))
    expect(page.get_by_role("heading", name="The sweep grid")).to_be_visible(timeout=PATIENCE)
    page.get_by_placeholder("Search metrics").fill(name)
    expect(page.get_by_text(name, exact=True)).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text(str(served.sweep.data.metrics[name]), exact=True)).to_be_visible(timeout=PATIENCE)
    keep(page, "mlflow_sweep")


def test_the_artifacts_of_a_trial_show_its_clips(
    visited: Watched, served: Served, keep: Callable[..., Path]
) -> None:
    page = visited.open(served.address(served.trial, "/artifacts"))
    page.get_by_text(ANIMATION, exact=True).first.click(timeout=PATIENCE)
    page.wait_for_function(SHOWS_PICTURE, arg=served.size, timeout=PATIENCE)
    keep(page, "mlflow_artifacts")

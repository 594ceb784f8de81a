"""What DVC shows of two revisions: the numbers of reports/, plots with titles, and nothing that did not change."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from pipeline.config import load_params
from pipeline.reporting.metrics import write_metrics
from pipeline.unit import PROJECT

CHANGED, EXCESS = "reports/metrics/checkpoint/rollout-gan.json", 2.5
CURVE = "reports/rollout/gan/curve.csv"


def plots() -> dict[str, dict[str, Any]]:
    """Those of dvc.yaml, by name."""
    declared = YAML(typ="safe", pure=True).load((PROJECT / "dvc.yaml").read_text())["plots"]
    return {name: plot for entry in declared for name, plot in entry.items()}


def run(project: Path, *command: str) -> str:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "true"}
    env |= {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(command, cwd=project, env=env, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A clone whose person has changed the seed, and got another student."""
    project = tmp_path_factory.mktemp("clone")
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copyfile(PROJECT / name, project / name)
    shutil.copytree(PROJECT / "reports", project / "reports", ignore=shutil.ignore_patterns("figures", "*.html"))
    shutil.copytree(PROJECT / ".dvc", project / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "*.local"))
    write_metrics(project / "reports")
    run(project, "git", "init", "-q")
    run(project, "git", "add", ".")
    run(project, "git", "commit", "-qm", "before")
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("seed: 0", "seed: 7", 1))
    numbers = json.loads((project / CHANGED).read_text())
    (project / CHANGED).write_text(json.dumps({**numbers, "excess": EXCESS}))
    curve = pd.read_csv(project / CURVE)
    curve.assign(student_loss=curve["student_loss"] + 1).to_csv(project / CURVE, index=False)
    return project


def shown_metrics(project: Path) -> dict[str, dict[str, float]]:
    """Of the working tree, by what each file is of."""
    (shown,) = json.loads(run(project, "dvc", "metrics", "show", "--json")).values()
    paths = {name.removeprefix("reports/metrics/").removesuffix(".json"): of for name, of in shown["data"].items()}
    return {name: of["data"] for name, of in paths.items()}


@pytest.mark.slow
def test_metrics_are_a_handful_of_numbers_of_every_checkpoint_cell_and_verdict(project):
    shown = shown_metrics(project)
    assert max(map(len, shown.values())) <= 6
    assert shown.pop("checkpoint/rollout-gan")["excess"] == EXCESS
    cells = pd.read_csv(project / "reports" / "grid" / "cells.csv").set_index(["method", "loss", "phase", "metric"])
    for name, numbers in shown.items():
        kind, _, item = name.partition("/")
        if kind == "checkpoint":
            record = json.loads((project / "reports" / "evaluate" / item / "record.json").read_text())
            measured = record["metrics"]
            assert numbers["excess"] == measured["fvd"]["excess"]
            assert [numbers["excess_low"], numbers["excess_high"]] == measured["fvd"]["interval"]
            assert numbers["recall"] == measured["coverage"]["recall"]
            assert numbers["agreement_last"] == measured["identity"]["first_to_last"]
            assert ("bits" in numbers) == ("bits_per_dim" in measured)
        elif kind == "cell":
            method, loss = item.split("-")
            for column, phase, metric in (
                ("excess", "tuned", "excess"),
                ("excess_untuned", "default", "excess"),
                ("recall", "tuned", "recall"),
                ("agreement_last", "tuned", "first_to_last"),
            ):
                assert numbers[column] == pytest.approx(cells.loc[(method, loss, phase, metric), "mean"], rel=1e-12)
    claims = pd.read_csv(project / "reports" / "laboratory" / "claims.csv")
    for reading in ("table", "text"):
        counts = Counter(claims[claims["reading"] == reading]["verdict"])
        assert shown[f"laboratory/claims_of_{reading}"] == {
            name: counts[name] for name in ("confirmed", "refuted", "undecided")
        }
    kinds = Counter(name.partition("/")[0] for name in shown)
    tuned = {(row[0], row[1]) for row in cells.index if row[2] == "tuned"}
    assert kinds == {
        "checkpoint": len(load_params(PROJECT / "params.yaml").checkpoints) - 1,
        "cell": len(tuned),
        "laboratory": 3,
    }


@pytest.mark.slow
def test_the_difference_of_metrics_is_what_changed_alone(project):
    found = json.loads(run(project, "dvc", "metrics", "diff", "--json"))
    assert list(found) == [CHANGED]
    assert list(found[CHANGED]) == ["excess"]
    assert found[CHANGED]["excess"]["new"] == EXCESS


@pytest.mark.slow
def test_experiments_show_the_parameter_that_changed_and_what_came_of_it(project):
    lines = run(project, "dvc", "exp", "show", "--csv", "--only-changed").splitlines()
    assert lines[0] == f"rev,Created,{CHANGED}:excess,seed"
    assert lines[1] == f"workspace,,{EXCESS},7"
    assert lines[2].endswith(",0")


def fields_in(spec: Any) -> Iterator[str]:
    """Columns that a template reads."""
    if isinstance(spec, dict):
        if isinstance(spec.get("field"), str):
            yield spec["field"]
        for value in spec.values():
            yield from fields_in(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from fields_in(value)


@pytest.mark.slow
def test_every_plot_lays_revisions_over_each_other_under_its_title(project):
    answer = json.loads(run(project, "dvc", "plots", "diff", "HEAD", "--json"))
    assert answer.get("errors", []) == []
    assert set(answer["data"]) == set(plots())
    num_frames = load_params(PROJECT / "params.yaml").prepare.num_frames
    for name, declared in plots().items():
        (plot,) = answer["data"][name]
        spec = plot["content"]
        rows = spec["data"]["values"]
        assert plot["revisions"] == ["workspace", "HEAD"]
        assert spec["title"]["text"] == declared["title"].replace("${prepare.num_frames}", str(num_frames))
        assert "<DVC_METRIC" not in json.dumps(spec)
        made = {transform["as"] for transform in spec.get("transform", []) if "as" in transform}
        assert set(fields_in({**spec, "data": None})) <= set(rows[0]) | made
        expected = sum(len(pd.read_csv(project / path)) for path in declared["y"])
        assert Counter(row["rev"] for row in rows) == {"workspace": expected, "HEAD": expected}
    (plot,) = answer["data"]["training_of_students"]
    after, before = (
        [float(row["student_loss"]) for row in plot["content"]["data"]["values"] if row["rev"] == revision]
        for revision in ("workspace", "HEAD")
    )
    assert sorted({round(new - old, 6) for new, old in zip(after, before, strict=True)}) == [0.0, 1.0]


@pytest.mark.slow
def test_the_page_of_plots_says_what_it_is_and_what_it_needs(project):
    run(project, "dvc", "plots", "show", "-o", "shown")
    page = (project / "shown" / "index.html").read_text()
    assert "this page takes vega from cdn.jsdelivr.net" in page
    assert page.count("vegaEmbed('#") == len(plots())
    assert all(f'"{plot["x_label"]}"' in page for plot in plots().values())


def test_plots_are_of_the_checkpoints_and_losses_of_the_parameters():
    params, declared = load_params(PROJECT / "params.yaml"), plots()
    assert set(declared["drift"]["y"]) == {f"reports/evaluate/{name}/windows.csv" for name in params.checkpoints}
    students = [(stage, loss) for stage in ("distill", "rollout") for loss in params.students(stage).losses]
    curves = {f"reports/{stage}/{loss}/curve.csv" for stage, loss in students}
    assert set(declared["training_of_students"]["y"]) == curves
    learned = {
        f"reports/{stage}/{loss}/curve.csv"
        for stage, loss in students
        if params.students(stage).losses[loss].critic_updates
    }
    assert set(declared["training_of_critics"]["y"]) == learned

"""The comparison pages of the MLflow dashboard, as the experiment tags in which MLflow 3.17 keeps saved views.

Not a public interface of MLflow: where it changes, the page opens without these charts, and nothing else breaks.
"""

import json
from collections.abc import Collection
from typing import Any

VIEW_NAME = "mlflow.sharedViewState.{key}"
UNITS, RUNNING, SWEEP = "forcing-grid", "forcing-grid-running", "forcing-grid-{phase}"  # keys of the views
VIEW_PATH = (
    "/#/experiments/{experiment}/runs?viewStateShareKey={key}&compareRunsMode=CHART&workflowType=machine_learning"
)
NOTE = """# forcing-grid

One run a unit of work: a stage of the pipeline, or one item of it, under one parent run a profile.
A sweep is a run with a child a trial: of the laboratory, what a cell settled on and the verdicts on it, as tags;
of the sweep `grid`, a training of a cell (method x loss) with one seed, whose own note says what its tags are.
`final.*` are the unit's results; the other metrics are its training curves. Steps are updates of the student.

Where things are. The matrix of method x loss, its figures and what is missing: the run `sweep grid`. Clips that
play: `samples.gif`, among the artifacts of a trial and of each `evaluate@...`. Models of the cells: *Models*; the
best is registered as `forcing-grid`, alias `best`: mlflow.pyfunc.load_model("models:/forcing-grid@best").

From a run to where it comes from: the tags `dvc.stage` (`dvc repro STAGE` makes it again), `dvc.lock` (sha256 of
its entry), `git.revision` (the code), `fingerprint` (of the unit: work/*/FINGERPRINT). And back: search for
``tags.`dvc.stage` = "rollout@gan" and tags.current = "true"``, or look the id up in mlartifacts/runs.json.

Everything here is read from `reports/`, from units below `work/` and from running ones, and can be deleted:
`python3 -m pipeline track` writes it anew. Runs with the tag `current = false` belong to parameters or code that
are no longer those of the project. Numbers of the profile `smoke` mean nothing.
"""
COMPARED = (  # a bar each
    "final.fvd.excess",
    "final.identity.first_to_second",
    "final.identity.first_to_last",
    "final.coverage.precision",
    "final.coverage.recall",
    "final.drift_slope",
    "final.bits_per_dim.teacher_forcing.value",
    "final.psnr",
)
FOLLOWED = (
    "student_loss",
    "critic_loss",
    "loss",
    "final.windows.fvd",
    "final.frames.distance",
)  # a line chart each


RANKED = ("excess", "first_to_last")  # a bar each, large; the others small, below
SWEPT = ("recall", "coverage", "precision", "tflop")
CURVES = ("student_loss", "critic_loss", "grad_norm")
RESULTS, CELLS, MORE = "results", "cells", "more"  # sections


def units_view(measured: Collection[str]) -> str:
    """The tag's value: charts of those metrics that are compared or followed, and were measured."""
    bars = [name for name in COMPARED if name in measured]
    charts = [_bar(name) for name in bars] + [_line(name) for name in FOLLOWED if name in measured]
    if bars:
        charts.append(_chart("parallel", type="PARALLEL", selectedParams=["seed"], selectedMetrics=bars))
    shown = "tags.current = 'true' and tags.kind != 'trial'"
    return _envelope("Units compared", [_section(RESULTS, "Results and curves")], charts, shown)


def running_view() -> str:
    """The tag's value: the curves of what is at work now."""
    charts = [_line(name, in_section=RESULTS) for name in (*CURVES, "loss")]
    return _envelope("Running now", [_section(RESULTS, "Curves")], charts, "tags.kind = 'running'")


def sweep_view(phase: str, cells: Collection[str]) -> str:
    """The tag's value: a bar a cell of that phase, the mean over its seeds; `cells` by their short names."""
    charts = [
        *(_bar(name, in_section=CELLS) for name in RANKED),
        *(_bar(name, in_section=MORE) for name in SWEPT),
        *(_line(name, in_section=MORE) for name in CURVES[:2]),
    ]
    sections = [
        _section(CELLS, "Method x loss, mean over seeds", columns=2, cardHeight=460),
        _section(MORE, "More of the same cells, and their training"),
    ]
    shown = f"tags.current = 'true' and tags.phase = '{phase}'"
    grouped = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "short"}]}
    folded = {f"tag.short.{cell}": False for cell in sorted(cells)}
    return _envelope(f"Method x loss, {phase}", sections, charts, shown, groupBy=grouped, groupsExpanded=folded)


def _envelope(
    name: str, sections: list[dict[str, Any]], charts: list[dict[str, Any]], shown: str, **more: Any
) -> str:
    state = {
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "searchFilter": shown,
        "orderByKey": "tags.`mlflow.runName`",  # by time, it would fold the runs below their parent, out of sight
        "orderByAsc": True,
        "runsHiddenMode": "SHOWALL",
        "groupBy": None,
        **more,
    }
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})


def _section(uuid: str, name: str, **look: int) -> dict[str, Any]:
    always = {"display": True, "isReordered": False, "deleted": False, "isGenerated": False}
    return {"uuid": uuid, "name": name, **always, **look}


def _chart(uuid: str, *, in_section: str = RESULTS, **what: Any) -> dict[str, Any]:
    always = {"runsCountToCompare": 60, "metricSectionId": in_section, "deleted": False, "isGenerated": False}
    return {"uuid": uuid, **always, **what}


def _bar(name: str, in_section: str = RESULTS) -> dict[str, Any]:
    return _chart(f"bar-{name}", in_section=in_section, type="BAR", metricKey=name)


def _line(name: str, in_section: str = RESULTS) -> dict[str, Any]:
    axes = {"xAxisKey": "step", "selectedXAxisMetricKey": "", "xAxisScaleType": "linear", "scaleType": "linear"}
    look = {"lineSmoothness": 0, "useGlobalLineChartConfig": False, "range": {}}
    what = {"type": "LINE", "metricKey": name, "selectedMetricKeys": [name]}
    return _chart(f"line-{name}", in_section=in_section, **what, **axes, **look)

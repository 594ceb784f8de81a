"""The comparison page of the MLflow dashboard, as the experiment tag in which MLflow 3.17 keeps a saved view.

Not a public interface of MLflow: where it changes, the page opens without these charts, and nothing else breaks.
"""

import json
from collections.abc import Collection
from typing import Any

VIEW_NAME = "mlflow.sharedViewState.forcing-grid"
VIEW_PATH = (
    "/#/experiments/{experiment}/runs?viewStateShareKey=forcing-grid&compareRunsMode=CHART"
    "&workflowType=machine_learning"
)
NOTE = """# forcing-grid

One run a unit of work: a stage of the pipeline, or one item of it, under one parent run a profile.
A sweep is a run with a child a trial: of the laboratory, what a cell settled on and the verdicts on it, as tags.
`final.*` are the unit's results; the other metrics are its training curves, by step.

Everything here is read from `reports/` and from running units, and can be deleted: `python3 -m pipeline track`
writes it anew. Runs with the tag `current = false` belong to parameters or code that are no longer those of the
project. Numbers of the profile `smoke` mean nothing.
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


def view_envelope(measured: Collection[str]) -> str:
    """The tag's value: charts of those metrics that are compared or followed, and were measured."""
    bars = [name for name in COMPARED if name in measured]
    charts = [_bar(name) for name in bars] + [_line(name) for name in FOLLOWED if name in measured]
    if bars:
        charts.append(_chart("parallel", type="PARALLEL", selectedParams=["seed"], selectedMetrics=bars))
    section = {"uuid": "results", "name": "Results and curves", "display": True, "isReordered": False}
    state = {
        "compareRunCharts": charts,
        "compareRunSections": [{**section, "deleted": False, "isGenerated": False}],
        "searchFilter": "tags.current = 'true'",
        "orderByKey": "tags.`mlflow.runName`",  # by time, it would fold the runs below their parent, out of sight
        "orderByAsc": True,
        "runsHiddenMode": "SHOWALL",
        "groupBy": None,
    }
    return json.dumps({"name": "Units compared", "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})


def _chart(uuid: str, **what: Any) -> dict[str, Any]:
    always = {"runsCountToCompare": 40, "metricSectionId": "results", "deleted": False, "isGenerated": False}
    return {"uuid": uuid, **always, **what}


def _bar(name: str) -> dict[str, Any]:
    return _chart(f"bar-{name}", type="BAR", metricKey=name)


def _line(name: str) -> dict[str, Any]:
    axes = {"xAxisKey": "step", "selectedXAxisMetricKey": "", "xAxisScaleType": "linear", "scaleType": "linear"}
    look = {"lineSmoothness": 0, "useGlobalLineChartConfig": False, "range": {}}
    return _chart(f"line-{name}", type="LINE", metricKey=name, selectedMetricKeys=[name], **axes, **look)

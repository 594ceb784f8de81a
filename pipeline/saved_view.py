"""The comparison page of the MLflow dashboard, as the experiment tag in which MLflow 3.17 keeps a saved view.

Not a public interface of MLflow: where it changes, the page opens without these charts, and nothing else breaks.
"""

import json
from collections.abc import Iterable
from typing import Any

VIEW_NAME = "mlflow.sharedViewState.forcing-grid"
VIEW_PATH = (
    "/#/experiments/{experiment}/runs?viewStateShareKey=forcing-grid&compareRunsMode=CHART"
    "&workflowType=machine_learning"
)
NOTE = """# forcing-grid

One run a unit of work: a stage of the pipeline, or one item of it, under one parent run a profile.
`final.*` are the unit's results; the other metrics are its training curves, by step.

Everything here is read from `reports/` and from running units, and can be deleted: `python3 -m pipeline track`
writes it anew. Runs with the tag `current = false` belong to parameters or code that are no longer those of the
project. Numbers of the profile `smoke` mean nothing.
"""
COMPARED = ("fvd", "agreement", "drift", "psnr")  # final metrics whose names hold one of these get a bar chart
MAX_BARS, MAX_LINES = 6, 6


def view_envelope(finals: Iterable[str], curves: Iterable[str]) -> str:
    """The tag's value: bar charts of the compared results, a line chart a loss, and parallel coordinates."""
    compared = [name for word in COMPARED for name in sorted(finals) if word in name]
    bars = list(dict.fromkeys(compared))[:MAX_BARS]
    lines = [name for name in sorted(curves) if "loss" in name][:MAX_LINES]
    charts = [_bar(name) for name in bars] + [_line(name) for name in lines]
    if bars:
        charts.append(_chart("parallel", type="PARALLEL", selectedParams=["seed"], selectedMetrics=bars))
    section = {"uuid": "results", "name": "Results and curves", "display": True, "isReordered": False}
    state = {
        "compareRunCharts": charts,
        "compareRunSections": [{**section, "deleted": False, "isGenerated": False}],
        "searchFilter": "tags.kind != 'profile' and tags.current != 'false'",
        "orderByKey": "attributes.start_time",
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

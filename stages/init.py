"""Make the weights from which causal students start: python -m stages.init

As the section `init` says: none, the causal teacher's, or those of a first regression on a teacher.
"""

from collections.abc import Mapping
from pathlib import Path

from pipeline.config import Params
from pipeline.training.init import Unit, make_all
from pipeline.unit import run_unit
from stages.entry import ARTIFACTS, publish, stage
from stages.progress import Line


def main(params: Params) -> None:
    *before, last = params.init_units()
    given = {"codec": ARTIFACTS / "codec"}
    given |= {name: ARTIFACTS / "teacher" / name for name in ("causal", "bidirectional")}
    products = make_all(before, given, make)
    publish(params, last.kind, "", last.work, last.inputs(products))


def make(unit: Unit, inputs: Mapping[str, Path]) -> Path:
    """What the last unit reads is kept as a unit, and is no artifact."""
    with Line(unit.name) as line:
        return run_unit(unit.kind, unit.work, inputs, on_progress=line.follow)


if __name__ == "__main__":
    stage(main)

"""Make the weights from which causal students start: python -m stages.init

As the section `init` says: none, the causal teacher's, or those of a first regression on a teacher.
"""

from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from pipeline.config import Params
from pipeline.interfaces import Progress
from pipeline.training.init import Unit, make_all
from pipeline.unit import run_unit
from stages.entry import ARTIFACTS, publish, stage


def main(params: Params) -> None:
    *before, last = params.init_units()
    given = {"codec": ARTIFACTS / "codec"}
    given |= {name: ARTIFACTS / "teacher" / name for name in ("causal", "bidirectional")}
    products = make_all(before, given, make)
    publish(params, last.kind, "", last.work, last.inputs(products))


def make(unit: Unit, inputs: Mapping[str, Path]) -> Path:
    """What the last unit reads is kept as a unit, and is no artifact."""
    with tqdm(desc=unit.name, unit="batch", disable=None, dynamic_ncols=True) as bar:

        def show(progress: Progress) -> None:
            bar.total = progress.num_steps
            bar.update(progress.step - bar.n)

        return run_unit(unit.kind, unit.work, inputs, on_progress=show)


if __name__ == "__main__":
    stage(main)

"""Measure a checkpoint against the test clips: python -m stages.evaluate STAGE ITEM"""

from pipeline.config import Params
from pipeline.unit import PROJECT
from stages.entry import ARTIFACTS, publish, stage


def main(params: Params, trained_by: str, item: str) -> None:
    inputs = {
        "clips": ARTIFACTS / "prepare",
        "features": ARTIFACTS / "features",
        "codec": ARTIFACTS / "codec",
        "student": ARTIFACTS / trained_by / item,
    }
    work = params.evaluate_unit(trained_by, item)
    if work.i3d_path is not None:
        inputs["i3d"] = PROJECT / work.i3d_path
    publish(params, "evaluate", f"{trained_by}-{item}", work, inputs)


if __name__ == "__main__":
    stage(main)

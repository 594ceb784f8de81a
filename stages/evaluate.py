"""Measure a checkpoint against the test clips: python -m stages.evaluate CHECKPOINT"""

from pipeline.config import Params
from pipeline.rules import one_of
from pipeline.unit import PROJECT
from stages.entry import ARTIFACTS, publish, stage


def main(params: Params, name: str) -> None:
    one_of(params.checkpoints, checkpoint=name)
    checkpoint = params.checkpoints[name]
    inputs = {
        "clips": ARTIFACTS / "prepare",
        "features": ARTIFACTS / "features",
        "codec": ARTIFACTS / "codec",
        "student": ARTIFACTS / checkpoint.stage / checkpoint.item,
    }
    work = params.evaluate_unit(checkpoint)
    if work.i3d_path is not None:
        inputs["i3d"] = PROJECT / work.i3d_path
    publish(params, "evaluate", name, work, inputs)


if __name__ == "__main__":
    stage(main)

"""Train the networks that FVD and the digit reading see with: python -m stages.features"""

from pipeline.config import Params
from stages.entry import ARTIFACTS, publish, stage


def main(params: Params) -> None:
    publish(params, "features", "", params.features, {"clips": ARTIFACTS / "prepare"})


if __name__ == "__main__":
    stage(main)

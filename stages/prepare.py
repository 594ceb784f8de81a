"""Draw the clips of every split: python -m stages.prepare"""

from pipeline.config import Params
from stages.entry import publish, stage


def main(params: Params) -> None:
    publish(params, "prepare", "", params.prepare, {})


if __name__ == "__main__":
    stage(main)

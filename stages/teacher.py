"""Train a teacher, (diffusion_forcing, l2): python -m stages.teacher causal|bidirectional

The bidirectional one, whose full attention gives the real score of whole clips, starts from the causal one.
"""

from pipeline.config import Params
from stages.entry import ARTIFACTS, publish, stage


def main(params: Params, attention: str) -> None:
    inputs = {"codec": ARTIFACTS / "codec"}
    if attention == "bidirectional":
        inputs["init"] = ARTIFACTS / "teacher" / "causal"
    publish(params, "teacher", attention, params.teacher_unit(attention), inputs)


if __name__ == "__main__":
    stage(main)

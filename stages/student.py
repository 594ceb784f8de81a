"""Train a student: python -m stages.student distill|rollout LOSS

distill: (its method, LOSS), from where init begins. rollout: (self_forcing, LOSS), from the distilled student.
"""

from pathlib import Path

from pipeline.config import Params
from pipeline.rules import one_of
from stages.entry import ARTIFACTS, publish, stage


def main(params: Params, name: str, loss: str) -> None:
    one_of(params.students(name).losses, loss=loss)
    origin = {"distill": Path("init"), "rollout": Path("distill", loss)}[name]
    inputs = {"codec": ARTIFACTS / "codec", "init": ARTIFACTS / origin}
    teacher = params.student_teacher(name, loss)
    if teacher is not None:
        inputs["teacher"] = ARTIFACTS / "teacher" / teacher
    publish(params, name, loss, params.student_unit(name, loss), inputs, kind="cell")  # as trials of sweeps are


if __name__ == "__main__":
    stage(main)

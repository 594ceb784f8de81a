"""What the default run sets out to reach, each beside what it reached."""

from dataclasses import dataclass

from pipeline.reporting.read import Checkpoint, Study, lookup

LEAST_SECOND, LEAST_LAST = 0.90, 0.80  # share of clips whose digit is still that of frame 1


@dataclass(frozen=True)
class Goal:
    """A claim, whether it holds, and the number that says so."""

    claim: str
    measured: str
    is_reached: bool


def best_student(study: Study) -> Checkpoint | None:
    """Of the checkpoints that a teacher taught, the one with the least excess FVD; None when there is none."""
    students = [checkpoint for checkpoint in study.checkpoints if "teacher" in checkpoint.trained.inputs]
    return min(students, key=excess_of, default=None)


def excess_of(checkpoint: Checkpoint) -> float:
    return lookup(checkpoint.measured, "metrics.fvd.excess")


def goals(study: Study) -> list[Goal]:
    """For the first causal teacher and the best student; nothing of those that the study has not."""
    teachers = (c for c in study.checkpoints if "teacher" not in c.trained.inputs and c.attention == "causal")
    teacher, student = next(teachers, None), best_student(study)  # by name: sampled in its own way first
    found = [goal for checkpoint in (teacher, student) if checkpoint for goal in _identity_goals(checkpoint)]
    origin = study.origin_of(student) if student else None
    if student and origin:
        excess, before = excess_of(student), excess_of(origin)
        claim = f"{student.name}: less excess FVD than {origin.name}, from which it started"
        found.append(Goal(claim, f"{excess:.1f} and {before:.1f}", excess < before))
    return found


def _identity_goals(checkpoint: Checkpoint) -> list[Goal]:
    ends = (("second", "frame 2", LEAST_SECOND), ("last", "the last frame", LEAST_LAST))
    found = []
    for name, frame, least in ends:
        share = lookup(checkpoint.measured, f"metrics.identity.first_to_{name}")
        claim = f"{checkpoint.name}: the digit of {frame} is that of frame 1 in at least {least:.0%} of clips"
        found.append(Goal(claim, f"{share:.1%}", share >= least))
    return found

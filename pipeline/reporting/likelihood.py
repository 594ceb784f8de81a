"""Bits per dimension of a checkpoint: the bound along each path, the least of them, or why there is none."""

from typing import NamedTuple

from pipeline.reporting.read import Checkpoint, lookup

PATHS = ("teacher_forcing", "pyramid", "lockstep")
UNDEFINED, UNMEASURED = "not defined", "not measured"


class Bits(NamedTuple):
    """Of held-out clips, per dimension of their latents."""

    path: str
    value: float
    standard_error: float


class Absence(NamedTuple):
    """Why a checkpoint has no bits per dimension."""

    kind: str
    reason: str


def absence(checkpoint: Checkpoint) -> Absence | None:
    """None where there is a bound."""
    undefined = checkpoint.cell.likelihood_undefined
    if undefined:
        return Absence(UNDEFINED, undefined)
    if lookup(checkpoint.measured, "work.bits") is None:
        if checkpoint.name != checkpoint.trained.name:
            return Absence(UNMEASURED, f"no sampler moves the bound: see {checkpoint.trained.name}")
        return Absence(UNMEASURED, "evaluate.bits is null")
    return None


def bounds(checkpoint: Checkpoint) -> list[Bits]:
    """One a path, in the order of PATHS; none where there is no bound."""
    if absence(checkpoint):
        return []
    found = {path: lookup(checkpoint.measured, f"metrics.bits_per_dim.{path}") for path in PATHS}
    return [Bits(path, part["value"], part["standard_error"]) for path, part in found.items()]


def least_bound(checkpoint: Checkpoint) -> Bits | None:
    """The one that counts: all are bounds on the same code length."""
    return min(bounds(checkpoint), key=lambda bits: bits.value, default=None)

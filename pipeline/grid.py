"""The grid: every method with every loss, and why a cell is excluded. `python -m pipeline.grid` prints it."""

import sys
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.losses import LOSSES
from pipeline.losses.loss import Loss
from pipeline.methods import METHODS
from pipeline.methods.method import Method

PAPERS = {
    ("bidirectional", "l2"): "Video Diffusion Models, arXiv:2204.03458",
    ("bidirectional", "dmd"): "DMD2, arXiv:2405.14867",
    ("bidirectional", "gan"): "Diffusion-GAN, arXiv:2206.02262",
    ("bidirectional", "sid"): "SiD, arXiv:2404.04057",
    ("bidirectional", "add"): "ADD, arXiv:2311.17042",
    ("bidirectional", "f_distill"): "f-distill, arXiv:2502.15681",
    ("bidirectional", "kd"): "Knowledge distillation, arXiv:2101.02388",
    ("bidirectional", "consistency_distillation"): "Consistency Models, arXiv:2303.01469",
    ("bidirectional", "consistency_training"): "Improved consistency training, arXiv:2310.14189",
    ("bidirectional", "mean_flow"): "Mean Flows, arXiv:2505.13447",
    ("bidirectional", "pagoda"): "PaGoDA, arXiv:2405.14822",
    ("teacher_forcing", "l2"): "ACDiT, arXiv:2412.07720",
    ("teacher_forcing", "kd"): "Causal Forcing, arXiv:2602.02214",
    ("teacher_forcing", "consistency_distillation"): "Causal Forcing++, arXiv:2605.15141",
    ("diffusion_forcing", "l2"): "Diffusion Forcing, arXiv:2407.01392",
    ("diffusion_forcing", "dmd"): "CausVid, arXiv:2412.07772",
    ("diffusion_forcing", "kd"): "CausVid, arXiv:2412.07772",
    ("self_forcing", "dmd"): "Self-Forcing, arXiv:2506.08009",
    ("self_forcing", "sid"): "Self-Forcing, arXiv:2506.08009",
    ("self_forcing", "gan"): "Self-Forcing, arXiv:2506.08009",
}


class Cell(NamedTuple):
    """One point of the grid, by the names of its axes; what it says of itself holds for parameters left alone."""

    method: str
    loss: str

    def __str__(self) -> str:
        return f"{self.method} x {self.loss}"

    @staticmethod
    def of(method: Method, loss: Loss) -> "Cell":
        """Where a method and a loss with their parameters stand."""
        axes = ((method, METHODS), (loss, LOSSES))
        return Cell(*(next(n for n, kind in axis.items() if isinstance(entry, kind)) for entry, axis in axes))

    @property
    def excluded(self) -> str | None:
        """Why this cell cannot be trained; None when it can."""
        if LOSSES[self.loss].needs_target and not METHODS[self.method].provides_target:
            return f"{self.loss} needs a target, and a frame that {self.method} lets run free has none"
        return None

    @property
    def likelihood_undefined(self) -> str | None:
        """Why its student has no bound on the likelihood, whatever it started from; None when it has one."""
        if self.excluded or LOSSES[self.loss].bounds_likelihood:
            return self.excluded
        return (
            f"{self.loss} trains the frames that a few steps make, and no longer a denoiser at every level: the "
            f"student answers a noisy frame with one of its choice, not with the mean of all that may lie beneath, "
            f"on which the transitions of a bound rest"
        )

    @property
    def attention(self) -> str:
        """Of its student: causal or full."""
        return METHODS[self.method].attention

    @property
    def teacher(self) -> str | None:
        """Which teacher its loss asks: causal or bidirectional; None when it asks none.

        A loss on laws asks the one that judges the method's frames. One that regresses the teacher's flow has no
        single answer where the student sees less than the teacher: a causal student follows the causal one. Causal
        Forcing, arXiv:2602.02214.
        """
        loss = LOSSES[self.loss]
        if not loss.needs_teacher:
            return None
        return "causal" if loss.follows_flow and self.attention == "causal" else METHODS[self.method].teacher

    @property
    def divergence(self) -> str:
        """What the sources say that the loss minimises."""
        return LOSSES[self.loss].divergence

    @property
    def derived(self) -> str | None:
        """What it minimises; None when it is excluded."""
        return None if self.excluded else derived_divergence(METHODS[self.method](), LOSSES[self.loss]())

    @property
    def paper(self) -> str | None:
        """Where this cell was published; of bidirectional ones also where only single frames were made."""
        return PAPERS.get((self.method, self.loss))


def derived_divergence(method: Method, loss: Loss) -> str:
    """What a loss minimises under a method, with the parameters of both: composed of what both say."""
    return loss.measure.format(judged=method.judged, denoised=method.denoised)


def cells() -> Iterator[Cell]:
    """Every point of the product, excluded ones too."""
    return (Cell(method, loss) for method in METHODS for loss in LOSSES)


def table() -> str:
    """Every cell in a row of a Markdown table."""
    rows = [("method", "loss", "paper", "divergence claimed", "divergence derived", "runs"), ("---",) * 6]
    for cell in cells():
        runs = f"no: {cell.excluded}" if cell.excluded else "yes"
        rows.append((*cell, cell.paper or "", cell.divergence, cell.derived or "", runs))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    sys.stdout.write(table())

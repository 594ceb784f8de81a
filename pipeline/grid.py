"""The grid: every method with every loss, and why a cell is excluded."""

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.losses import LOSSES
from pipeline.losses.loss import Loss
from pipeline.methods import METHODS
from pipeline.methods.method import Method

PAPERS = {
    ("diffusion_forcing", "l2"): "Diffusion Forcing, arXiv:2407.01392",
    ("diffusion_forcing", "dmd"): "CausVid, arXiv:2412.07772",
    ("self_forcing", "dmd"): "Self-Forcing, arXiv:2506.08009",
    ("self_forcing", "gan"): "Self-Forcing, arXiv:2506.08009",
}


class Cell(NamedTuple):
    """One point of the grid, by the names of its axes."""

    method: str
    loss: str

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
    def divergence(self) -> str:
        """What the sources say that the loss minimises."""
        return LOSSES[self.loss].divergence

    @property
    def derived(self) -> str:
        """What the loss, as it is by default, minimises under the method."""
        return derived_divergence(METHODS[self.method](), LOSSES[self.loss]())

    @property
    def paper(self) -> str | None:
        """Where this cell was published."""
        return PAPERS.get((self.method, self.loss))


def derived_divergence(method: Method, loss: Loss) -> str:
    """What a loss minimises under a method, composed of what both say of themselves."""
    return loss.measure.format(judged=method.judged, denoised=method.denoised)


def cells() -> Iterator[Cell]:
    """Every point of the product, excluded ones too."""
    return (Cell(method, loss) for method in METHODS for loss in LOSSES)

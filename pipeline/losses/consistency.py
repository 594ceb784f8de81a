"""What consistency distillation and training share: two points of one path must lead to one end."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from pipeline.diffusion.flow_map import Discretisation, Pair, lead_to
from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.interfaces import NoiseLevel, Rollout, Scalar, Video
from pipeline.rules import one_of

HUBER = 0.00054  # c / sqrt(D) of the pseudo-Huber metric. arXiv:2310.14189, section 3.3

METRICS: dict[str, Callable[[Video], NoiseLevel]] = {
    "l2": lambda error: error.square().mean(dim=(2, 3, 4)),
    "pseudo_huber": lambda error: pseudo_huber(error, HUBER * error[0, 0].numel() ** 0.5),
}
# Of sigma / alpha at the upper and at the lower level. arXiv:2310.14189, table 1.
WEIGHTS: dict[str, Callable[[NoiseLevel, NoiseLevel], NoiseLevel]] = {
    "uniform": lambda upper, lower: torch.ones_like(upper),  # noqa: ARG005
    "inverse_step": lambda upper, lower: 1 / (upper - lower),
}


def draw_upper(
    grid: Discretisation, rollout: Rollout, x0: Video, eps: Video, *, schedule: Schedule, rng: Generator
) -> tuple[Pair, Video]:
    """Levels for the frames that count, and these frames at the upper ones; the context is as it was."""
    pair = grid.draw(rollout.t, rollout.counts > 0, schedule=schedule, rng=rng)
    return pair, torch.where(moved(rollout), add_noise(schedule, x0, eps, pair.t), rollout.x_t)


def compare(
    rollout: Rollout,
    pair: Pair,
    x_t: Video,
    x_next: Video,
    *,
    schedule: Schedule,
    metric: str,
    weight: str,
    rng: Generator,
) -> Scalar:
    """Mean over frames, each as often as it counts, of weight d(f(x_t, t), sg[f(x_next, t_next)]).

    Without the stopped gradient the two ends would meet halfway, at what is no end of any path.
    """
    found = lead_to(schedule, x_t, pair.t, pair.boundary, rollout.denoise, rng)
    with torch.no_grad():
        wanted = lead_to(schedule, x_next, pair.t_next, pair.boundary, rollout.denoise, rng)
    upper, lower = ((c.sigma / c.alpha)[:, :, 0, 0, 0] for c in map(schedule.at, (pair.t, pair.t_next)))
    counts = rollout.counts
    factor = (counts * WEIGHTS[weight](upper, lower)).masked_fill(counts == 0, 0)
    return (factor * METRICS[metric](found - wanted)).sum() / counts.sum().clamp_min(torch.finfo(counts.dtype).tiny)


def pseudo_huber(error: Video, c: float) -> Float[Tensor, "B T"]:
    """sqrt(|error|^2 + c^2) - c of every frame."""
    return (error.square().sum(dim=(2, 3, 4)) + c**2).sqrt() - c


def moved(rollout: Rollout) -> Tensor:
    """The frames that count, shaped to choose between videos."""
    return (rollout.counts > 0)[:, :, None, None, None]


def check_comparison(grid: Discretisation, metric: str, weight: str) -> None:
    """Raises ValueError for an unknown choice, or for a weight that leaves out where sampling begins."""
    one_of(METRICS, metric=metric)
    one_of(WEIGHTS, weight=weight)
    if weight == "inverse_step" and grid.spacing.range[0] == -torch.inf:
        raise ValueError(
            f"weight must not be inverse_step, which is 0 at pure noise, where grid.spacing begins there: "
            f"weight={weight}, spacing={grid.spacing}"
        )

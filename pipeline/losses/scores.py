"""The two scores that losses compare: of data, frozen, and of the student's frames, which is trained beside it."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Generator, nn

from pipeline.diffusion.denoising import denoising_loss
from pipeline.diffusion.noise_levels import independent_levels, shared_levels
from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.diffusion.weighting import Weighting
from pipeline.interfaces import Labels, NoiseLevel, Rollout, Scalar, Video
from pipeline.models.denoiser import Denoiser
from pipeline.rules import one_of
from pipeline.streams import noise_like

MIN_SCALE = 1e-6
CLIP, FRAME = (1, 2, 3, 4), (2, 3, 4)  # what a normaliser averages over
SCORE_LEVELS = {"shared": shared_levels, "independent": independent_levels}


class Scores(nn.Module):
    """The frozen score of data (the teacher), and the trained score of the student's frames, begun from it.

    Both are denoisers: their prediction scales what they answer, as a learnt score needs at low noise.
    """

    def __init__(self, teacher: Denoiser) -> None:
        super().__init__()
        self.real = real_score(teacher)
        self.fake = copy.deepcopy(teacher).train().requires_grad_(True)


def real_score(teacher: Denoiser) -> Denoiser:
    """A copy of the teacher that never learns."""
    return copy.deepcopy(teacher).eval().requires_grad_(False)


@dataclass(frozen=True)
class Guided:
    """u + s (c - u): of a network that is told a class, the answer c away from its answer u without. s = 1 is c.

    Classifier-free guidance, arXiv:2207.12598, eq. 6, where s is 1 + w.
    """

    network: Denoiser  # bound to no classes
    scale: float
    labels: Labels | None = None

    def given(self, labels: Labels) -> "Guided":
        """Told the class of every clip."""
        return replace(self, labels=labels)

    def __call__(self, x_t: Video, t: NoiseLevel) -> Video:
        """Without classes c is u."""
        without = self.network(x_t, t)
        return without if self.labels is None else self._between(without, self.network.given(self.labels)(x_t, t))

    def beside(self, x_t: Video, t: NoiseLevel, context: Video) -> Video:
        """Every chunk after the clean frames `context` of the chunks before it."""
        without = self.network.beside(x_t, t, context)
        if self.labels is None:
            return without
        return self._between(without, self.network.given(self.labels).beside(x_t, t, context))

    def _between(self, without: Video, told: Video) -> Video:
        return without + self.scale * (told - without)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass through what the network answers meanwhile, and none reaches its parameters."""
    trained = [p for p in network.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def check_score_levels(score_level: str, level_min: float, level_max: float) -> None:
    """Raises ValueError for an unknown law, or levels at which there is no noise or no signal."""
    one_of(SCORE_LEVELS, score_level=score_level)
    if not 0 < level_min < level_max < 1:
        raise ValueError(f"0 < level_min < level_max < 1 must hold, got {level_min} and {level_max}")


def draw_score_levels(
    x0: Video, *, score_level: str, level_min: float, level_max: float, rng: Generator
) -> NoiseLevel:
    """Noise levels at which scores are asked about x0."""
    return SCORE_LEVELS[score_level](*x0.shape[:2], low=level_min, high=level_max, rng=rng).to(x0)


def fake_score_loss(
    rollout: Rollout,
    critics: Scores,
    t: NoiseLevel,
    *,
    schedule: Schedule,
    weighting: Weighting,
    rng: Generator,
) -> Scalar:
    """The denoising loss of the fake score on the student's frames, at levels t."""
    x0 = rollout.x0_hat.detach()
    x_t = add_noise(schedule, x0, noise_like(x0, rng), t)
    return denoising_loss(
        rollout.judge(critics.fake, x_t, t),
        x0,
        t,
        schedule=schedule,
        weighting=weighting,
        counts=torch.ones_like(t),
    )


def dmd_gradient(
    fake_x0: Video,
    real_x0: Video,
    x0_hat: Video,
    *,
    entropy_weight: float = 0.0,
    normalised_over: tuple[int, ...] = CLIP,
) -> Video:
    """Gradient of KL + beta H at the student's frames; descending it moves fake towards real.

    (fake_x0 - real_x0 - beta (fake_x0 - x0_hat)) / mean|x0_hat - real_x0|, the mean over the dimensions
    `normalised_over`; none: undivided. Dimensionless where normalised. The term of beta is the fake score,
    fake_x0 - x_t / alpha, without the noise of x_t, whose mean is 0 whatever x0_hat is.
    DMD, arXiv:2311.18828, eq. 7 (direction), eq. 8 (normaliser).
    """
    direction = fake_x0 - real_x0 - entropy_weight * (fake_x0 - x0_hat)
    if not normalised_over:
        return direction
    scale = (x0_hat - real_x0).abs().mean(dim=normalised_over, keepdim=True)
    return direction / scale.clamp_min(MIN_SCALE)


def pseudo_target_loss(x0_hat: Video, gradient: Video) -> Scalar:
    """1/2 mean|x0_hat - sg[x0_hat - gradient]|^2, whose gradient at x0_hat is gradient / numel."""
    target = (x0_hat - gradient).detach()
    return 0.5 * F.mse_loss(x0_hat, target)

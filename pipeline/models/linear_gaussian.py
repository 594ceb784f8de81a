"""Students too small to fit: Gaussians whose few parameters say what a loss minimises."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from pipeline.diffusion.schedule import FlowMatching, Schedule
from pipeline.interfaces import NoiseLevel, Video
from pipeline.rules import at_least, one_of


@dataclass(frozen=True)
class Chain:
    """x_1 = m1 + s1 z_1, x_f = c x_{f-1} + m2 + s2 z_f with z ~ N(0, I). The sign of s1 and s2 means nothing."""

    m1: Tensor
    s1: Tensor
    c: Tensor
    m2: Tensor
    s2: Tensor

    def mean(self, num_frames: int) -> Float[Tensor, " F"]:
        """Of every frame."""
        frames = [self.m1]
        while len(frames) < num_frames:
            frames.append(self.c * frames[-1] + self.m2)
        return torch.stack(frames)

    def factor(self, num_frames: int) -> Float[Tensor, "F F"]:
        """Lower triangular L with x = mean + L z; the covariance is L L^T."""
        lag = torch.arange(num_frames)[:, None] - torch.arange(num_frames)
        powers = torch.where(lag >= 0, self.c ** lag.clamp_min(0), torch.zeros_like(self.c))
        entering = torch.stack([self.s1.abs()] + [self.s2.abs()] * (num_frames - 1))
        return powers * entering

    def next_mean(self, previous: Tensor) -> Tensor:
        """E[x_f | x_{f-1}]."""
        return self.c * previous + self.m2


@dataclass(frozen=True)
class Form:
    """A student's parameters by name, and the chain that they stand for."""

    names: tuple[str, ...]
    chain: Callable[..., Chain]  # of the parameters, in order
    num_frames: int | None  # that it can have; None: any number from two

    def values(self, chain: Mapping[str, float]) -> list[float]:
        """The parameters nearest to those of a chain."""
        alias = {"m": "m1", "s": "s1"} if self.num_frames == 1 else {"s": "s2"}
        return [chain[alias.get(name, name)] for name in self.names]


def _one_frame(m: Tensor, s: Tensor) -> Chain:
    nothing = torch.zeros_like(m)
    return Chain(m1=m, s1=s, c=nothing, m2=nothing, s2=s)


def _tied(s1: Tensor, c: Tensor, s: Tensor) -> Chain:
    nothing = torch.zeros_like(s1)
    return Chain(m1=nothing, s1=s1, c=c, m2=nothing, s2=s)


STUDENTS = {
    "gaussian": Form(("m", "s"), _one_frame, num_frames=1),
    "frame_by_frame": Form(("m1", "s1", "c", "m2", "s2"), Chain, num_frames=None),
    "tied": Form(("s1", "c", "s"), _tied, num_frames=None),  # of mean 0
}


def check_student(student: str, num_frames: int) -> Form:
    """The form of a student for clips of this length.

    Raises:
        ValueError: an unknown student, or one that cannot have this many frames.
    """
    one_of(STUDENTS, student=student)
    form = STUDENTS[student]
    if form.num_frames is None:
        at_least(2, num_frames=num_frames)
    elif num_frames != form.num_frames:
        raise ValueError(f"num_frames must be {form.num_frames} for the student {student}, got {num_frames}")
    return form


@dataclass(frozen=True)
class LinearGaussianSpec:
    """Which student, of how many frames, and the schedule of the levels it is asked about."""

    student: str = "gaussian"
    num_frames: int = 1
    schedule: Schedule = field(default_factory=FlowMatching)

    def __post_init__(self) -> None:
        check_student(self.student, self.num_frames)


class LinearGaussianStudent(nn.Module):
    """A Gaussian chain at every pixel, the same at all, in float64; `forward` is its exact denoiser."""

    def __init__(self, spec: LinearGaussianSpec, **values: float) -> None:
        """Raises ValueError unless `values` are the student's parameters, all of them."""
        super().__init__()
        self.spec = spec
        names = STUDENTS[spec.student].names
        if set(values) != set(names):
            raise ValueError(
                f"parameters of the student {spec.student} must be {', '.join(names)}, got {', '.join(values)}"
            )
        self.values = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(values[name], dtype=torch.float64)) for name in names}
        )

    @property
    def chain(self) -> Chain:
        """With the gradient of the parameters."""
        form = STUDENTS[self.spec.student]
        return form.chain(*(self.values[name] for name in form.names))

    def mean(self) -> Float[Tensor, " F"]:
        """Of every frame of a pixel."""
        return self.chain.mean(self.spec.num_frames)

    def covariance(self) -> Float[Tensor, "F F"]:
        """Between the frames of a pixel."""
        factor = self.chain.factor(self.spec.num_frames)
        return factor @ factor.mT

    def sample(self, num_clips: int, frame_shape: tuple[int, int, int], rng: Generator) -> Video:
        """Clips that carry the parameters' gradient: x = mean + L z."""
        F = self.spec.num_frames
        z = torch.randn(num_clips, *frame_shape, F, generator=rng, dtype=torch.float64)
        return (self.mean() + z @ self.chain.factor(F).mT).movedim(-1, 1)

    def next_frame(self, previous: Video, rng: Generator) -> Video:
        """A frame after `previous`, (B, 1, C, H, W) both, carrying the parameters' gradient."""
        z = torch.randn(previous.shape, generator=rng, dtype=torch.float64)
        return self.chain.next_mean(previous) + self.chain.s2.abs() * z

    def forward(self, x_t: Video, t: NoiseLevel) -> Video:
        """E[x_0 | x_t] if x_0 is the student's own: m + P A (A P A + S^2)^-1 (x_t - A m)."""
        alpha, sigma = (c[:, None, None, None, :, 0, 0, 0] for c in self.spec.schedule.at(t.double()))
        mean, covariance = self.mean(), self.covariance()
        noised = alpha[..., :, None] * covariance * alpha[..., None, :] + torch.diag_embed(sigma.square())
        apart = x_t.double().movedim(1, -1) - alpha * mean
        whitened = torch.linalg.solve(noised, apart[..., None])[..., 0]
        return (mean + (alpha * whitened) @ covariance).movedim(-1, 1).to(x_t.dtype)

"""Students that lead every noised frame to its end by a line: of a grid's levels, and between any two levels."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.diffusion.flow_map import Discretisation
from pipeline.interfaces import NoiseLevel, Video
from pipeline.laboratory.denoisers import ClosedForm
from pipeline.models.denoiser import Context, noise_share

Frame = Float[Tensor, "B 1 C H W"]


class Lines(nn.Module):
    """gains_n . (x_1, ..., x_f) + shift_n, a line of its own at every level of a grid but the lowest.

    The lowest leads frame f to itself. Begun from the best linear denoiser of data whose frames have these
    coefficients.
    """

    def __init__(self, data: GaussianMixture, alpha: Float[Tensor, "N F"], sigma: Float[Tensor, "N F"]) -> None:
        super().__init__()
        noised = data.noised(alpha, sigma)
        gains = torch.linalg.solve(noised.covariance, alpha * data.covariance[-1])
        self.gains = nn.Parameter(gains)
        self.shifts = nn.Parameter(data.mean[-1] - (gains * noised.mean).sum(-1))

    def forward(self, index: Int[Tensor, " B"], frames: Video) -> Frame:
        """The end of the last of these frames, each clip by the line of its index."""
        itself = nn.functional.one_hot(torch.tensor([frames.shape[1] - 1]), frames.shape[1]).to(self.gains)
        gains, shifts = torch.cat([itself, self.gains]), torch.cat([0 * self.shifts[:1], self.shifts])
        led = (gains[index][:, :, None, None, None] * frames).sum(1, keepdim=True)
        return led + shifts[index][:, None, None, None, None]

    def highest(self) -> tuple[list[float], float]:
        """Gains and shift at the highest level."""
        return self.gains[-1].tolist(), self.shifts[-1].item()


class LineByLevel(ClosedForm):
    """x0_hat_f = a_n x_f,t + c_n x_f-1 + b_n of clips of one frame or two, asked at the levels of a grid alone.

    After a clean frame a frame has other lines than after one that is noised to its own level, which only a method
    that noises contexts has it meet; no frame meets a context of another level. float64.
    """

    levels: Tensor

    def __init__(
        self, grid: Discretisation, data: GaussianMixture, attention: str, *, noises_contexts: bool = False
    ) -> None:
        super().__init__(attention)
        self.num_frames = data.num_frames
        levels = grid.levels(self.spec.schedule)
        self.register_buffer("levels", levels)
        alpha, sigma = (c[:, 0, 0, 0] for c in self.spec.schedule.at(levels[1:, None]))
        self.first = Lines(data.first(1), alpha, sigma)
        if data.num_frames > 1:
            self.after_clean = Lines(data, _beside(1.0, alpha), _beside(0.0, sigma))
        if noises_contexts:
            self.after_noised = Lines(data, alpha.expand(-1, 2), sigma.expand(-1, 2))

    def forward(self, x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> Video:
        assert end is None
        index = self._index(t)
        first = self.first(index[:, 0], x_t[:, :1])
        if x_t.shape[1] == 1:
            return first
        context, own = index.unbind(1)
        assert ((context == 0) | (own == 0) | (context == own)).all(), (
            "a context is clean, or as noisy as the frame"
        )
        clean = (context == 0)[:, None, None, None, None]
        return torch.cat([first, self.after_clean(own, x_t).where(clean, self.after_noised(own, x_t))], 1)

    def beside(self, x_t: Video, t: NoiseLevel, context: Video, end: NoiseLevel | None = None) -> Video:
        """Every frame after the clean one before it."""
        assert end is None
        index = self._index(t)
        later = self.after_clean(index[:, 1], torch.cat([context[:, :1], x_t[:, 1:]], 1))
        return torch.cat([self.first(index[:, 0], x_t[:, :1]), later], 1)

    def denoise_chunk(
        self, x_t: Video, t: NoiseLevel, cache: Context | None, end: NoiseLevel | None = None
    ) -> Video:
        """One frame, after the clean one in the cache."""
        if cache is None:
            return self.forward(x_t, t, end)
        assert end is None
        frames, levels = cache.followed_by(x_t, t)
        assert (levels[:, 0] == 0).all(), "the context of a rollout is clean"
        return self.after_clean(self._index(t)[:, 0], frames)

    def extend(self, cache: Context | None, x: Video, t: NoiseLevel, *, window: int) -> Context:  # noqa: ARG002
        """The last frame is all that a line looks at."""
        return Context((cache.num_frames if cache else 0) + x.shape[1], None, x[:, -1:], t[:, -1:])

    def of_noise(self) -> dict[str, float]:
        """The chain of what it makes of noise of the highest level, a later frame after a clean one."""
        (gain,), shift = self.first.highest()
        if self.num_frames == 1:
            return {"m": shift, "s": abs(gain)}
        (slope, later), shift_later = self.after_clean.highest()
        return {"m1": shift, "s1": abs(gain), "c": slope, "m2": shift_later, "s2": abs(later)}

    def _index(self, t: NoiseLevel) -> Int[Tensor, "B T"]:
        index = torch.searchsorted(self.levels, t.contiguous())
        assert torch.equal(self.levels[index], t), "a student of a line a level knows the levels of its grid alone"
        return index


class GaussianFlow(ClosedForm):
    """The probability flow of a Gaussian chain, from any level to any other: a line, whose parameters learn.

    A frame follows N(m1, s1^2), or given the one before it N(c E[x] + m2, s2^2 + c^2 Var[x]): mean and variance of
    that one given what is seen of it, which is all of it where it is clean. With such a mean m and variance v,
    z = x_t / (alpha + sigma), of noise share h = sigma / (alpha + sigma), has the mean (1 - h) m and the variance
    v_h = (1 - h)^2 v + h^2; the flow keeps how many standard deviations it is from the mean. The average velocity
    from h down to r is u = -m + (v_h - v_r) / ((h - r) (sd_h + sd_r) sd_h) (z - (1 - h) m), in which h - r divides
    out: at r = h it is the velocity itself. x0_hat = z - h u. Begun from N(0, I), of one frame or two.
    """

    def __init__(self, num_frames: int, attention: str) -> None:
        super().__init__(attention)
        self.names = {1: ("m", "s"), 2: ("m1", "s1", "c", "m2", "s2")}[num_frames]
        begun = (torch.tensor(float(name.startswith("s")), dtype=torch.float64) for name in self.names)
        self.values = nn.ParameterList(nn.Parameter(value) for value in begun)

    def forward(self, x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> Video:
        mean, variance = self.values[0], self.values[1].square()
        alpha, sigma = self.spec.schedule.at(t[:, :1])
        gain = variance * alpha / (alpha.square() * variance + sigma.square())
        seen = mean + gain * (x_t[:, :1] - alpha * mean)
        return self._flow(x_t, t, end, seen, variance * (1 - gain * alpha))

    def beside(self, x_t: Video, t: NoiseLevel, context: Video, end: NoiseLevel | None = None) -> Video:
        """Every frame after the clean one before it."""
        return self._flow(x_t, t, end, context[:, :1], torch.zeros_like(context[:, :1]))

    def of_noise(self) -> dict[str, float]:
        """The chain of what it makes of pure noise, a later frame after a clean one."""
        values = dict(zip(self.names, (value.item() for value in self.values), strict=True))
        return {name: abs(value) if name.startswith("s") else value for name, value in values.items()}

    def _flow(self, x_t: Video, t: NoiseLevel, end: NoiseLevel | None, seen: Frame, unknown: Frame) -> Video:
        """seen, unknown: mean and variance of the first frame, as the second one knows it."""
        first, std, *later = self.values
        mean, variance = first.expand_as(seen), std.square().expand_as(seen)
        if later:
            slope, shift, std = later
            mean = torch.cat([mean, slope * seen + shift], 1)
            variance = torch.cat([variance, std.square() + slope.square() * unknown], 1)
        return self._lead(x_t, t, torch.zeros_like(t) if end is None else end, mean, variance)

    def _lead(self, x_t: Video, t: NoiseLevel, end: NoiseLevel, mean: Video, variance: Video) -> Video:
        at, to = self.spec.schedule.at(t), self.spec.schedule.at(end)
        h, r = (noise_share(c)[:, :, None, None, None] for c in (at, to))
        std, std_end = (((1 - share).square() * variance + share.square()).sqrt() for share in (h, r))
        slope = (h + r - (2 - h - r) * variance) / ((std + std_end) * std)
        z = x_t / (at.alpha + at.sigma)
        return z - h * (slope * (z - (1 - h) * mean) - mean)


def _beside(context: float, frame: Float[Tensor, "N 1"]) -> Float[Tensor, "N 2"]:
    """Coefficients of a frame of any level after one of this one."""
    return torch.cat([torch.full_like(frame, context), frame], 1)

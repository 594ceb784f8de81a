"""Bits per dimension of held-out clips under a teacher: the variational bound along three paths, and its spread."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.likelihood import Bound, Chain, Levels, bits_per_dim, log_snr_levels
from pipeline.diffusion.reconstruction import PIXEL_BINS, Bins
from pipeline.diffusion.schedule import Schedule
from pipeline.interfaces import Video
from pipeline.models.codec import FrameCodec, Latents, PixelCodec
from pipeline.models.denoiser import Denoiser
from pipeline.rules import above, at_least, within
from pipeline.streams import stream

BATCH = 128  # clips in one call


@dataclass(frozen=True)
class BitsPerDimension:
    """How the bound is measured: on the code length of the latents, which are pixels only where there is no codec.

    The latents of a codec are rounded to bins first. The number depends on the codec and on the bins: it compares
    teachers of one codec, and nothing else. Without a codec it is what the literature calls bits per dimension.

    num_clips: held-out clips. num_levels: K, at evenly spaced log-SNRs from log_snr_max down to log_snr_min; more
    make the bound tighter and cost nothing. num_draws: denoiser calls a clip on each path, which stand for all of
    its moves. bin_width: of latents, whose channels have standard deviation 1. At log_snr_max the noise should be
    about a third of a bin: with more, the last step blurs what the network knows better; with less, noise is paid
    for that no bin can tell. pyramid_lag: the share of its way by which a frame is behind the one before it.
    """

    num_clips: int = 512
    num_levels: int = 1024
    num_draws: int = 6
    log_snr_max: float = 9.0
    log_snr_min: float = -8.5
    bin_width: float = 1 / 32
    pyramid_lag: float = 0.25

    def __post_init__(self) -> None:
        at_least(2, num_clips=self.num_clips, num_levels=self.num_levels, num_draws=self.num_draws)
        above(self.log_snr_min, log_snr_max=self.log_snr_max)
        above(0, bin_width=self.bin_width)
        within(0, 1, open_low=True, open_high=True, pyramid_lag=self.pyramid_lag)

    def levels(self, schedule: Schedule) -> Levels:
        """Of a teacher of this schedule. Raises ValueError where the schedule does not reach the log-SNRs."""
        ends = {"log_snr_max": self.log_snr_max, "log_snr_min": self.log_snr_min}
        return log_snr_levels(schedule, self.num_levels, **ends)

    @torch.no_grad()
    def measure(self, teacher: Denoiser, codec: FrameCodec, clips: Video, *, seed: int) -> dict[str, Any]:
        """The bound for clips of pixels in [-1, 1], in bits per dimension of their latents: JSON data.

        Each path has its value, the standard error of that over the clips, and its three parts. spread is the
        highest value less the lowest, up to a few of its errors for a teacher that stands for one density; a causal
        mask, which costs only where frames are noisy together, adds to it.

        Raises:
            ValueError: the teacher's schedule does not reach the log-SNRs.
        """
        latents, bins = binned_latents(codec, clips, self.bin_width)
        levels = self.levels(teacher.spec.schedule)
        chain = Chain(teacher.spec.schedule, levels, levels.first_std, bins)
        num_levels, num_dims = len(levels.t), latents[0].numel()
        lags = {
            "lockstep": 0,
            "pyramid": math.ceil(self.pyramid_lag * num_levels),
            "teacher_forcing": num_levels,
        }
        nats, result = {}, {}
        for name, lag in lags.items():
            bound = self._along(chain, teacher, latents, lag, name=name, seed=seed)
            nats[name] = bound.nats
            result[name] = {
                **mean_bits(bound.nats, num_dims),
                "prior": mean_bits(bound.prior, num_dims)["value"],
                "transitions": mean_bits(bound.transitions, num_dims)["value"],
                "reconstruction": mean_bits(bound.reconstruction, num_dims)["value"],
            }
        low, *_, high = sorted(nats.values(), key=lambda path: path.mean().item())
        return {
            **result,
            "spread": mean_bits(high - low, num_dims),
            "num_clips": len(latents),
            "num_levels": num_levels,
            "num_dims": num_dims,
        }

    def _along(self, chain: Chain, teacher: Denoiser, latents: Video, lag: int, *, name: str, seed: int) -> Bound:
        rows = chain.path(latents.shape[1], lag)
        bounds = [
            chain.estimate(teacher, part, rows, num_draws=self.num_draws, rng=stream(seed, f"bits/{name}", index))
            for index, part in enumerate(latents.split(BATCH))
        ]
        parts = ([getattr(bound, part) for bound in bounds] for part in ("prior", "transitions", "reconstruction"))
        return Bound(*(torch.cat(values) for values in parts))


@torch.no_grad()
def binned_latents(codec: FrameCodec, clips: Video, bin_width: float) -> tuple[Latents, Bins]:
    """The latents that are coded, each the middle of its bin.

    Without a codec they are pixels, standardised: their bins are those of the pixel's 256 values, by channel.
    """
    latents = torch.cat([codec.encode(part) for part in clips.split(BATCH)])
    if isinstance(codec, PixelCodec):
        low, high = ((end - codec.mean) / codec.std for end in (PIXEL_BINS.low, PIXEL_BINS.high))
        return latents, Bins(PIXEL_BINS.width / codec.std, low, high)
    return (latents / bin_width).round() * bin_width, Bins(bin_width)


def mean_bits(nats: Float[Tensor, " B"], num_dims: int) -> dict[str, float]:
    """Mean over the clips in bits per dimension, and its standard error."""
    bits = bits_per_dim(nats, num_dims)
    return {"value": bits.mean().item(), "standard_error": bits.std().item() / math.sqrt(len(bits))}

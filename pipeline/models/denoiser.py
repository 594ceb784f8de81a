"""The denoiser: a backbone behind the narrow waist D(x_t, t) -> x0_hat, in parallel or chunk by chunk.

The backbone is asked in terms of the log-SNR alone: its frames are scaled to variance 1, and its condition is the
noise share sigma / (alpha + sigma). One network therefore answers alike under every schedule; and in every family,
but for the predictions v and score, whose size depends on the family that it was trained in.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.diffusion.log_snr import Coefficients
from pipeline.diffusion.prediction import PREDICTIONS
from pipeline.diffusion.schedule import SCHEDULES, FlowMatching, Schedule
from pipeline.interfaces import NoiseLevel, Video
from pipeline.models.backbone import Backbone, BackboneSpec, LayerCache
from pipeline.models.files import load_network, save_network
from pipeline.rules import above, one_of

STEM = "student"  # of the names of its files
MIN_SIGNAL = 1e-4  # alpha at t = 1 from which a frame follows from its noise


@dataclass(frozen=True)
class DenoiserSpec:
    """A backbone, what its output means, and the schedule it was trained on."""

    backbone: BackboneSpec = field(default_factory=BackboneSpec)
    prediction: str = "flow_velocity"
    schedule: Schedule = field(default_factory=FlowMatching)
    sigma_data: float = 1.0  # standard deviation of the latents, which the prediction edm asks for

    def __post_init__(self) -> None:
        one_of(PREDICTIONS, prediction=self.prediction)
        above(0, sigma_data=self.sigma_data)
        signal = self.schedule.at(torch.ones(1, 1)).alpha.item()
        if PREDICTIONS[self.prediction].needs_signal and signal < MIN_SIGNAL:
            raise ValueError(
                f"prediction must give finite frames from pure noise, and {self.prediction} divides by alpha(1), "
                f"which must be at least {MIN_SIGNAL}: prediction={self.prediction}, alpha(1)={signal:.1g} of "
                f"{self.schedule}"
            )


class Context(NamedTuple):
    """What a denoiser keeps of finished frames: keys and values under causal attention, else the frames."""

    num_frames: int  # finished so far, also those that left the window
    layers: list[LayerCache] | None
    frames: Video | None
    t: NoiseLevel | None

    def followed_by(self, x: Video, t: NoiseLevel) -> tuple[Tensor, Tensor]:
        """The frames of the context and then these, with their levels."""
        assert self.frames is not None
        assert self.t is not None
        return torch.cat([self.frames, x], 1), torch.cat([self.t, t], 1)


class Denoiser(nn.Module):
    """D(x_t, t) -> x0_hat for a whole clip, and for one chunk in the context of finished ones."""

    def __init__(self, spec: DenoiserSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = Backbone(spec.backbone)

    def forward(self, x_t: Video, t: NoiseLevel) -> Video:
        """All frames in parallel, each at its own level."""
        at = self.spec.schedule.at(t)
        return self._to_x0(self.backbone(*network_input(x_t, at)), x_t, at)

    def beside(self, x_t: Video, t: NoiseLevel, context: Video) -> Video:
        """All frames in parallel, every chunk as if alone after the clean frames `context` of the chunks before it.

        Raises:
            ValueError: attention is full.
        """
        at = self.spec.schedule.at(t)
        clean = network_input(context, self.spec.schedule.at(torch.zeros_like(t)))
        return self._to_x0(self.backbone.beside(*network_input(x_t, at), *clean), x_t, at)

    def denoise_chunk(self, x_t: Video, t: NoiseLevel, cache: Context | None) -> Video:
        """One chunk in the context of the cached frames; the cache is not changed."""
        if self.spec.backbone.attention == "causal":
            layers, first = (cache.layers, cache.num_frames) if cache else (None, 0)
            at = self.spec.schedule.at(t)
            return self._to_x0(self.backbone.chunk(*network_input(x_t, at), layers, first)[0], x_t, at)
        if cache is None:
            return self(x_t, t)
        return self(*cache.followed_by(x_t, t))[:, -x_t.shape[1] :]

    def extend(self, cache: Context | None, x: Video, t: NoiseLevel, *, window: int) -> Context:
        """The context with a chunk added, at most `window` frames long. One call of the backbone if causal."""
        num_frames = (cache.num_frames if cache else 0) + x.shape[1]
        if self.spec.backbone.attention == "causal":
            old = cache.layers if cache else None
            scaled, share = network_input(x, self.spec.schedule.at(t))
            added = self.backbone.chunk(scaled, share, old, num_frames - x.shape[1])[1]
            layers = [_append(o, a) for o, a in zip(old, added, strict=True)] if old else added
            num_tokens = window * self.spec.backbone.tokens_per_frame
            return Context(
                num_frames, [LayerCache(*(p[:, :, -num_tokens:] for p in o)) for o in layers], None, None
            )
        if cache is not None:
            x, t = cache.followed_by(x, t)
        return Context(num_frames, None, x[:, -window:], t[:, -window:])

    def _to_x0(self, output: Video, x_t: Video, at: Coefficients) -> Video:
        return PREDICTIONS[self.spec.prediction].to_x0(output, x_t, at, self.spec.sigma_data)


def network_input(x_t: Video, at: Coefficients) -> tuple[Video, NoiseLevel]:
    """Frames scaled to the variance 1 that standardised data have at every level, and their noise shares."""
    alpha, sigma = at
    share = (sigma / (alpha + sigma))[:, :, 0, 0, 0]
    return x_t * torch.rsqrt(alpha**2 + sigma**2), share


def _append(old: LayerCache, new: LayerCache) -> LayerCache:
    return LayerCache(torch.cat([old.keys, new.keys], 2), torch.cat([old.values, new.values], 2))


def save_denoiser(denoiser: Denoiser, directory: Path, *, latents: str) -> None:
    """Write student.safetensors and student.json. `latents` is the digest of the codec whose latents it speaks."""
    spec = {**dataclasses.asdict(denoiser.spec), "latents": latents}
    name = next(name for name, kind in SCHEDULES.items() if type(denoiser.spec.schedule) is kind)
    spec["schedule"] = {"name": name, **spec["schedule"]}
    save_network(denoiser, directory, STEM, spec)


def load_denoiser(directory: Path, *, latents: str) -> Denoiser:
    """The denoiser of a checkpoint.

    Raises:
        ValueError: it was trained on the latents of another codec.
    """

    def build(spec: dict[str, Any]) -> Denoiser:
        if spec["latents"] != latents:
            raise ValueError(
                f"a checkpoint must speak the latents of the codec: {directory} was trained on "
                f"{spec['latents'][:12]}, the codec is {latents[:12]}"
            )
        schedule = SCHEDULES[spec["schedule"].pop("name")](**spec["schedule"])
        backbone = BackboneSpec(**spec["backbone"])
        return Denoiser(DenoiserSpec(backbone, spec["prediction"], schedule, spec["sigma_data"]))

    return load_network(directory, STEM, build)

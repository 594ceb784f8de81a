"""The denoiser: a backbone behind the narrow waist D(x_t, t) -> x0_hat, in parallel or chunk by chunk.

The backbone is asked in terms of the log-SNR alone: its frames are scaled to variance 1, and its condition is the
noise share sigma / (alpha + sigma). One network therefore answers alike under every schedule; and in every family,
but for the predictions v and score, whose size depends on the family that it was trained in.

A network with an end level is also told where a step ends. Euler's step from t to that end, by its x0_hat, is then
that of the flow itself: with the end 0, for which None stands, x0_hat is where the flow leads.
"""

import copy
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.diffusion.log_snr import Coefficients
from pipeline.diffusion.prediction import PREDICTIONS
from pipeline.diffusion.schedule import SCHEDULES, FlowMatching, Schedule
from pipeline.interfaces import Labels, NoiseLevel, Video
from pipeline.models.backbone import Backbone, BackboneSpec, LayerCache
from pipeline.models.files import load_network, save_network
from pipeline.rules import above, one_of

STEM = "student"  # of the names of its files
STEP = "backbone.step."  # of the names of the weights that an end level adds
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

    def given(self, labels: Labels) -> "Denoiser":
        """The same denoiser, told the classes of the clips that it is asked about; it shares every parameter.

        Without it, and for the label num_classes, it answers for clips of any class.

        Raises:
            ValueError: a network without classes.
        """
        told = copy.copy(self)
        told._modules = {**self._modules, "backbone": self.backbone.given(labels)}  # a copy shares the dictionary
        return told

    def forward(self, x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> Video:
        """All frames in parallel, each at its own level.

        Raises:
            ValueError: an end for a network without end level.
        """
        at = self.spec.schedule.at(t)
        return self._to_x0(self.backbone(*network_input(x_t, at), self._share(end)), x_t, at)

    def beside(self, x_t: Video, t: NoiseLevel, context: Video, end: NoiseLevel | None = None) -> Video:
        """All frames in parallel, every chunk as if alone after the clean frames `context` of the chunks before it.

        Raises:
            ValueError: attention is full, or an end for a network without end level.
        """
        at = self.spec.schedule.at(t)
        clean = network_input(context, self.spec.schedule.at(torch.zeros_like(t)))
        return self._to_x0(self.backbone.beside(*network_input(x_t, at), *clean, self._share(end)), x_t, at)

    def denoise_chunk(
        self, x_t: Video, t: NoiseLevel, cache: Context | None, end: NoiseLevel | None = None
    ) -> Video:
        """One chunk in the context of the cached frames; the cache is not changed.

        Raises:
            ValueError: an end for a network without end level.
        """
        if self.spec.backbone.attention == "causal":
            layers, first = (cache.layers, cache.num_frames) if cache else (None, 0)
            at = self.spec.schedule.at(t)
            output, _ = self.backbone.chunk(*network_input(x_t, at), layers, first, self._share(end))
            return self._to_x0(output, x_t, at)
        if cache is None:
            return self(x_t, t, end)
        clip, levels = cache.followed_by(x_t, t)
        if end is not None:
            end = F.pad(end, (clip.shape[1] - x_t.shape[1], 0))  # of the context at 0, as in a cache
        return self(clip, levels, end)[:, -x_t.shape[1] :]

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

    def start_from(self, origin: "Denoiser") -> None:
        """Take over all weights of `origin`; an end level that it lacks stays as built, which changes no answer.

        Raises:
            RuntimeError: the sizes differ, or `origin` alone has an end level.
        """
        built = self.state_dict()
        own = {} if origin.spec.backbone.end_level else {n: p for n, p in built.items() if n.startswith(STEP)}
        self.load_state_dict({**own, **origin.state_dict()})

    def _share(self, end: NoiseLevel | None) -> NoiseLevel | None:
        return None if end is None else noise_share(self.spec.schedule.at(end))

    def _to_x0(self, output: Video, x_t: Video, at: Coefficients) -> Video:
        return PREDICTIONS[self.spec.prediction].to_x0(output, x_t, at, self.spec.sigma_data)


def network_input(x_t: Video, at: Coefficients) -> tuple[Video, NoiseLevel]:
    """Frames scaled to the variance 1 that standardised data have at every level, and their noise shares."""
    alpha, sigma = at
    return x_t * torch.rsqrt(alpha**2 + sigma**2), noise_share(at)


def noise_share(at: Coefficients) -> NoiseLevel:
    """sigma / (alpha + sigma) of every frame: the level of the straight path that has its log-SNR."""
    alpha, sigma = at
    return (sigma / (alpha + sigma))[:, :, 0, 0, 0]


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

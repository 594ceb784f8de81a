"""Objectives that compare laws: of whole clips, of next frames, of restored data, and of what denoisers answer."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.diffusion.noise_levels import Independent
from pipeline.laboratory import fields
from pipeline.laboratory.divergences import Clips, Comparison, Divergence, Fisher, NextFrame, Restored, value_of
from pipeline.laboratory.objective import Build, Value
from pipeline.laboratory.quadrature import Levels, Precision, clean, independent, normal_nodes
from pipeline.models.linear_gaussian import Chain

MakeLevels = Callable[[int, Precision], Levels]
TRAINED = (1e-4, 1 - 1e-4)  # levels over which a denoiser is trained


def at_clean(num_frames: int, precision: Precision) -> Levels:  # noqa: ARG001
    """No noise at all."""
    return clean(num_frames)


def averaged(make: Callable[..., Levels], weight: Callable[[Tensor, Tensor], Tensor]) -> MakeLevels:
    """Levels of one number a clip, with a time weight."""
    return lambda num_frames, precision: make(num_frames, precision.num_shared).weighted(weight)


def at_independent(num_frames: int, precision: Precision) -> Levels:
    """A level a frame."""
    return independent(num_frames, precision.num_levels(num_frames))


def of_clips(divergence: Divergence | Fisher, levels: MakeLevels) -> Build:
    """A divergence between whole clips: of bidirectional students, and of self forcing."""

    def build(data: GaussianMixture, precision: Precision) -> Value:
        clips = _clips(data, levels, precision, quadratic=divergence.quadratic)
        return lambda chain, _: value_of(divergence, clips, chain)

    return build


def after_true_frames(divergence: Divergence | Fisher, later: MakeLevels) -> Build:
    """Summed over frames, each beside its true context: of teacher forcing. The first frame has none."""

    def build(data: GaussianMixture, precision: Precision) -> Value:
        quadratic = divergence.quadratic and data.num_components == 1
        compared: list[Comparison] = []
        for num_frames in range(1, data.num_frames + 1):
            kind = Clips if num_frames == 1 else NextFrame
            nodes = normal_nodes(num_frames, precision, quadratic=quadratic)
            compared.append(kind(data.first(num_frames), later(num_frames, precision), nodes))
        return lambda chain, _: torch.stack([value_of(divergence, c, chain) for c in compared]).sum()

    return build


def of_restored(divergence: Divergence | Fisher, levels: MakeLevels, cleaned: Independent) -> Build:
    """A divergence of what the student makes of data of which some frames are noise, as often as `cleaned` says."""

    def build(data: GaussianMixture, precision: Precision) -> Value:
        nodes = normal_nodes(data.num_frames, precision)
        clips = Restored(data, levels(data.num_frames, precision), nodes, cleaned)
        return lambda chain, _: value_of(divergence, clips, chain)

    return build


def of_field(
    field: Callable[[GaussianMixture, Clips, Chain, Chain], Tensor], levels: MakeLevels, *, quadratic: bool = True
) -> Build:
    """A function of pipeline/laboratory/fields.py at levels. quadratic: in the frames, where data are Gaussian."""

    def build(data: GaussianMixture, precision: Precision) -> Value:
        clips = _clips(data, levels, precision, quadratic=quadratic)
        return lambda chain, frozen: field(data, clips, chain, frozen)

    return build


def denoising(c: Callable[[Tensor], Tensor], make: Callable[..., Levels], *, causal: bool) -> Build:
    """E[sum_f c(t_f) |eps - eps_hat|^2] above the least that a linear denoiser can have.

    c: a function of the level. causal: each frame is denoised from the frames up to it, else from all.
    """

    def build(data: GaussianMixture, precision: Precision) -> Value:
        terms: list[Callable[[Chain], Tensor]] = []
        for num_frames in range(1, data.num_frames + 1) if causal else [data.num_frames]:
            num_nodes = precision.num_levels(num_frames) if make is independent else precision.num_shared
            levels = make(num_frames, num_nodes, low=TRAINED[0], high=TRAINED[1])
            counts = torch.zeros(num_frames, dtype=torch.float64)
            counts[-1 if causal else slice(None)] = 1
            weights = c(levels.t).where(levels.t > 0, 0) * levels.weights[:, None] * counts
            terms.append(partial(fields.denoising_excess, data.first(num_frames), levels, weights))
        return lambda chain, _: torch.stack([term(chain) for term in terms]).sum()

    return build


def _clips(data: GaussianMixture, levels: MakeLevels, precision: Precision, *, quadratic: bool) -> Clips:
    nodes = normal_nodes(data.num_frames, precision, quadratic=quadratic and data.num_components == 1)
    return Clips(data, levels(data.num_frames, precision), nodes)

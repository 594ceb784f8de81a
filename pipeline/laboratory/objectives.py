"""What is minimised, by name: every divergence, clean and averaged over noise, and what the methods make of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.diffusion.noise_levels import Independent
from pipeline.laboratory import fields
from pipeline.laboratory.divergences import (
    FORWARD_KL,
    JENSEN_SHANNON,
    REVERSE_KL,
    SOFTENED_REVERSE_KL,
    Clips,
    Comparison,
    Divergence,
    NextFrame,
    Restored,
    entropy_weighted,
    value_of,
)
from pipeline.laboratory.quadrature import (
    TIME_WEIGHTS,
    Levels,
    Precision,
    after_clean,
    clean,
    independent,
    normal_nodes,
    shared,
)
from pipeline.laboratory.wasserstein import squared_wasserstein
from pipeline.models.linear_gaussian import Chain

# Of a student and of the same student without gradient; only fields tell them apart.
Value = Callable[[Chain, Chain], Tensor]
MakeLevels = Callable[[int, Precision], Levels]


@dataclass(frozen=True)
class Objective:
    """A number to minimise, or a field to follow, once data and precision are chosen."""

    build: Callable[[GaussianMixture, Precision], Value]
    is_field: bool = False  # its zeros are fixed points of training, and need be the optimum of nothing
    applies: Callable[[GaussianMixture], bool] = lambda data: True  # noqa: ARG005
    easier: str | None = None  # the objective at whose optima the search starts too


def several_frames(data: GaussianMixture) -> bool:
    return data.num_frames > 1


def _clean(num_frames: int, precision: Precision) -> Levels:  # noqa: ARG001
    return clean(num_frames)


def averaged(make: Callable[..., Levels], weight: Callable[[Tensor, Tensor], Tensor]) -> MakeLevels:
    """Levels of one number a clip, with a time weight."""
    return lambda num_frames, precision: make(num_frames, precision.num_shared).weighted(weight)


def _independent(num_frames: int, precision: Precision) -> Levels:
    return independent(num_frames, precision.num_levels(num_frames))


def of_clips(divergence: Divergence, levels: MakeLevels) -> Callable[[GaussianMixture, Precision], Value]:
    """A divergence between whole clips: of bidirectional students, and of self forcing."""

    def build(data: GaussianMixture, precision: Precision) -> Value:
        clips = _clips(data, levels, precision, quadratic=divergence.quadratic)
        return lambda chain, _: value_of(divergence, clips, chain)

    return build


def after_true_frames(divergence: Divergence, later: MakeLevels) -> Callable[[GaussianMixture, Precision], Value]:
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


def of_restored(divergence: Divergence, levels: MakeLevels) -> Callable[[GaussianMixture, Precision], Value]:
    """A divergence of what the student makes of data whose frames are noise or clean, by chance."""

    def build(data: GaussianMixture, precision: Precision) -> Value:
        nodes = normal_nodes(data.num_frames, precision)
        clips = Restored(data, levels(data.num_frames, precision), nodes, CLEANED)
        return lambda chain, _: value_of(divergence, clips, chain)

    return build


def of_field(
    field: Callable[[GaussianMixture, Clips, Chain, Chain], Tensor], levels: MakeLevels, *, quadratic: bool = True
) -> Callable[[GaussianMixture, Precision], Value]:
    """A function of pipeline/laboratory/fields.py at levels. quadratic: in the frames, where data are Gaussian."""

    def build(data: GaussianMixture, precision: Precision) -> Value:
        clips = _clips(data, levels, precision, quadratic=quadratic)
        return lambda chain, frozen: field(data, clips, chain, frozen)

    return build


def denoising(
    c: Callable[[Tensor], Tensor], make: Callable[..., Levels], *, causal: bool
) -> Callable[[GaussianMixture, Precision], Value]:
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


def _add(data: GaussianMixture, precision: Precision) -> Value:
    """Twice the cross-entropy, whose gradient the squared distance to a stopped answer has, and an adversary."""
    clips = _clips(data, averaged(shared, TIME_WEIGHTS["score"]), precision, quadratic=False)
    parts = (2.0, entropy_weighted(1.0)), (ADD_WEIGHT, SOFTENED_REVERSE_KL)
    return lambda chain, _: sum(
        (c * value_of(divergence, clips, chain) for c, divergence in parts), torch.tensor(0)
    )


def _pagoda(data: GaussianMixture, precision: Precision) -> Value:
    """On the line, where the flow of data keeps the order: its inverse is the best coupling with noise."""
    clips = _clips(data, averaged(shared, TIME_WEIGHTS["score"]), precision, quadratic=False)
    distance = squared_wasserstein(data, normal_nodes(1, precision))
    return lambda chain, _: distance(chain) + 2 * PAGODA_WEIGHT * value_of(JENSEN_SHANNON, clips, chain)


def _wasserstein(data: GaussianMixture, precision: Precision) -> Value:
    nodes = normal_nodes(1, precision) if data.num_frames == 1 else None
    distance = squared_wasserstein(data, nodes)
    return lambda chain, _: distance(chain)


DIVERGENCES = {
    "forward_kl": FORWARD_KL,
    "reverse_kl": REVERSE_KL,
    "jensen_shannon": JENSEN_SHANNON,
    "softened_reverse_kl": SOFTENED_REVERSE_KL,
}
ENTROPY_WEIGHTS = (-0.5, -0.2, 0.2, 0.5, 0.8, 1.0)
ADD_WEIGHT, PAGODA_WEIGHT = 0.4, 0.1  # of their adversaries
CLEANED = Independent(
    clean_probability=0.5, first_clean_probability=0.25
)  # frames that a few-step student is given
RESTORED = "diffusion_forcing_"  # begins the names of divergences of what a student makes of such clips
SID_ALPHAS = (0.0, 1.0, 1.2)  # where its field is no gradient; at 1/2 it descends the Fisher divergence
TRAINED = (1e-4, 1 - 1e-4)  # levels over which a denoiser is trained
AVERAGES = {"averaged": TIME_WEIGHTS["score"], "averaged_x0": TIME_WEIGHTS["x0"]}
# c(t) on |eps - eps_hat|^2 under flow matching's schedule
DENOISING: Mapping[str, Callable[[Tensor], Tensor]] = {
    "elbo": lambda t: 1 / (t * (1 - t)),
    "eps": torch.ones_like,
    "flow": lambda t: 1 / (1 - t) ** 2,
}
FORCINGS = {
    "bidirectional": (shared, False),
    "teacher_forcing": (after_clean, True),
    "diffusion_forcing": (independent, False),
    "diffusion_forcing_causal": (independent, True),
}


def _x0_size(alpha: Tensor, sigma: Tensor) -> Tensor:
    return sigma**4 / alpha**2  # |difference of x0_hat|^2 over |difference of scores|^2


def _fisher(data: GaussianMixture, clips: Clips, chain: Chain, frozen: Chain) -> Tensor:  # noqa: ARG001
    return fields.fisher(clips, chain)


def _detached(data: GaussianMixture, clips: Clips, chain: Chain, frozen: Chain) -> Tensor:  # noqa: ARG001
    return fields.dmd(clips, chain, frozen, detached_context=True)


OBJECTIVES: dict[str, Objective] = {
    **{name: Objective(of_clips(divergence, _clean)) for name, divergence in DIVERGENCES.items()},
    **{
        f"{name}_{suffix}": Objective(of_clips(divergence, averaged(shared, weight)), easier=name)
        for name, divergence in DIVERGENCES.items()
        for suffix, weight in AVERAGES.items()
    },
    **{
        f"{name}_averaged_independent": Objective(
            of_clips(DIVERGENCES[name], _independent), applies=several_frames, easier=name
        )
        for name in ("forward_kl", "reverse_kl")
    },
    **{f"entropy_{beta:g}": Objective(of_clips(entropy_weighted(beta), _clean)) for beta in ENTROPY_WEIGHTS},
    **{
        f"entropy_{beta:g}_averaged": Objective(
            of_clips(entropy_weighted(beta), averaged(shared, TIME_WEIGHTS["score"])), easier=f"entropy_{beta:g}"
        )
        for beta in ENTROPY_WEIGHTS
    },
    "fisher": Objective(of_field(_fisher, _clean)),
    **{
        f"fisher_{suffix}": Objective(of_field(_fisher, averaged(shared, weight)))
        for suffix, weight in (("averaged", TIME_WEIGHTS["score"]), ("averaged_x0", _x0_size))
    },
    **{
        f"sid_{alpha:g}": Objective(
            of_field(partial(fields.sid, alpha), averaged(shared, TIME_WEIGHTS["score"])),
            is_field=True,
            easier="fisher_averaged_x0",
        )
        for alpha in SID_ALPHAS
    },
    "dmd_normalised": Objective(
        of_field(fields.dmd_normalised, averaged(shared, TIME_WEIGHTS["x0"]), quadratic=False),
        is_field=True,
        easier="reverse_kl_averaged_x0",
    ),
    "add": Objective(_add, applies=lambda data: data.num_frames == 1),
    "pagoda": Objective(_pagoda, applies=lambda data: data.num_frames == 1),
    "wasserstein": Objective(_wasserstein, applies=lambda data: data.num_frames == 1 or data.num_components == 1),
    **{
        f"teacher_forcing_{name}": Objective(
            after_true_frames(divergence, _clean), applies=several_frames, easier=name
        )
        for name, divergence in DIVERGENCES.items()
    },
    **{
        f"teacher_forcing_{name}_{suffix}": Objective(
            after_true_frames(divergence, averaged(after_clean, weight)),
            applies=several_frames,
            easier=f"teacher_forcing_{name}",
        )
        for name, divergence in DIVERGENCES.items()
        for suffix, weight in AVERAGES.items()
    },
    f"{RESTORED}reverse_kl_averaged": Objective(
        of_restored(REVERSE_KL, averaged(shared, TIME_WEIGHTS["score"])),
        applies=lambda data: data.num_frames == 2,  # of more, minutes
        easier="reverse_kl_averaged",
    ),
    **{
        f"self_forcing_detached_reverse_kl{suffix}": Objective(
            of_field(_detached, levels), is_field=True, applies=several_frames, easier=f"reverse_kl{suffix}"
        )
        for suffix, levels in (
            ("", _clean),
            *((f"_{suffix}", averaged(shared, weight)) for suffix, weight in AVERAGES.items()),
        )
    },
    **{
        f"l2_{weighting}_{forcing}": Objective(
            denoising(c, make, causal=causal),
            applies=several_frames if forcing != "bidirectional" else lambda data: True,  # noqa: ARG005
            easier="forward_kl",
        )
        for weighting, c in DENOISING.items()
        for forcing, (make, causal) in FORCINGS.items()
    },
}

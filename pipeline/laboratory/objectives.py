"""What is minimised, by name: every divergence, clean and averaged over noise, and what the methods make of it."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.diffusion.noise_levels import Independent
from pipeline.laboratory import fields
from pipeline.laboratory.divergences import (
    FISHER,
    FORWARD_KL,
    JENSEN_SHANNON,
    REVERSE_KL,
    SOFTENED_REVERSE_KL,
    Clips,
    Divergence,
    distilled,
    entropy_weighted,
)
from pipeline.laboratory.objective import Build, Objective, Value, per_frame, several_frames, weighted_sum
from pipeline.laboratory.of_laws import (
    after_true_frames,
    at_clean,
    at_independent,
    averaged,
    denoising,
    of_clips,
    of_field,
    of_restored,
)
from pipeline.laboratory.quadrature import TIME_WEIGHTS, Precision, after_clean, independent, shared
from pipeline.laboratory.regressions import after_own_frames_regressed, after_true_frames_regressed, regressed
from pipeline.laboratory.wasserstein import has_wasserstein, squared_wasserstein
from pipeline.models.linear_gaussian import Chain

DIVERGENCES = {
    "forward_kl": FORWARD_KL,
    "reverse_kl": REVERSE_KL,
    "jensen_shannon": JENSEN_SHANNON,
    "softened_reverse_kl": SOFTENED_REVERSE_KL,
}
ENTROPY_WEIGHTS = (-0.5, -0.2, 0.2, 0.5, 0.8, 1.0)
ADD_WEIGHT, PAGODA_WEIGHT = 0.4, 3.0  # of their adversaries; a lighter one of PaGoDA's hardly moves its optimum
CLEANED = Independent(
    clean_probability=0.5, first_clean_probability=0.25
)  # frames that a few-step student is given
RESTORED = "diffusion_forcing_"  # begins the names of divergences of what a student makes of such clips
MAX_FRAMES, MAX_MODES = 6, 8  # where every frame has a level of its own
SID_ALPHAS = (0.0, 1.0, 1.2)  # where its field is no gradient; at 1/2 it descends the Fisher divergence
AVERAGES = {"averaged": TIME_WEIGHTS["score"], "averaged_x0": TIME_WEIGHTS["x0"]}


def _few_levels(data: GaussianMixture) -> bool:
    """At a level a frame, of which all combinations have to fit into memory."""
    return 1 < data.num_frames <= MAX_FRAMES


def _few_levels_and_nodes(data: GaussianMixture) -> bool:
    """The same at all nodes of a mixture; of one Gaussian few are exact."""
    if data.num_components == 1:
        return _few_levels(data)
    return data.num_frames == 2 and data.num_components <= MAX_MODES


# c(t) on |eps - eps_hat|^2 under flow matching's schedule
DENOISING: Mapping[str, Callable[[Tensor], Tensor]] = {
    "elbo": lambda t: 1 / (t * (1 - t)),
    "eps": torch.ones_like,
    "flow": lambda t: 1 / (1 - t) ** 2,
}
FORCINGS = {
    "bidirectional": (shared, False, lambda data: True),  # noqa: ARG005
    "teacher_forcing": (after_clean, True, several_frames),
    "diffusion_forcing": (independent, False, _few_levels),
    "diffusion_forcing_causal": (independent, True, _few_levels),
}


def _x0_size(alpha: Tensor, sigma: Tensor) -> Tensor:
    return sigma**4 / alpha**2  # |difference of x0_hat|^2 over |difference of scores|^2


def _detached(data: GaussianMixture, clips: Clips, chain: Chain, frozen: Chain) -> Tensor:  # noqa: ARG001
    return fields.dmd_detached(clips, chain, frozen)


def _wasserstein(data: GaussianMixture, precision: Precision) -> Value:
    distance = squared_wasserstein(data, precision)
    return lambda chain, _: distance(chain)


def _of_clips(divergence: Divergence) -> Build:
    return of_clips(divergence, averaged(shared, TIME_WEIGHTS["score"]))


def _after_true_frames(divergence: Divergence) -> Build:
    return per_frame(after_true_frames(divergence, averaged(after_clean, TIME_WEIGHTS["score"])))


def _of_restored(divergence: Divergence) -> Build:
    return of_restored(divergence, averaged(shared, TIME_WEIGHTS["score"]), CLEANED)


def _add(judged: Callable[[Divergence], Build]) -> Build:
    """Of whole clips: the squared distance to a stopped answer descends twice the cross-entropy.

    It is a mean over clips and frames, where the adversary's loss is one over clips alone.
    """
    return lambda data, precision: judged(distilled(2 / data.num_frames, ADD_WEIGHT))(data, precision)


def _pagoda(regression: Build, jensen_shannon: Build) -> Build:
    """The saturating adversary descends twice the Jensen-Shannon divergence."""
    return weighted_sum((1.0, regression), (2 * PAGODA_WEIGHT, jensen_shannon))


def _of_two_frames(data: GaussianMixture) -> bool:
    return data.num_frames == 2


def _of_two_modes(data: GaussianMixture) -> bool:
    return data.num_frames == data.num_components == 2  # of more, minutes


def _of_one_frame_or_two_modes(data: GaussianMixture) -> bool:
    return data.num_frames == 1 or _of_two_modes(data)


OBJECTIVES: dict[str, Objective] = {
    **{name: Objective(of_clips(divergence, at_clean)) for name, divergence in DIVERGENCES.items()},
    **{
        f"{name}_{suffix}": Objective(of_clips(divergence, averaged(shared, weight)), easier=name)
        for name, divergence in DIVERGENCES.items()
        for suffix, weight in AVERAGES.items()
    },
    **{
        f"{name}_averaged_independent": Objective(
            of_clips(DIVERGENCES[name], at_independent), applies=_few_levels_and_nodes, easier=name
        )
        for name in ("forward_kl", "reverse_kl")
    },
    **{f"entropy_{beta:g}": Objective(of_clips(entropy_weighted(beta), at_clean)) for beta in ENTROPY_WEIGHTS},
    **{
        f"entropy_{beta:g}_averaged": Objective(
            of_clips(entropy_weighted(beta), averaged(shared, TIME_WEIGHTS["score"])), easier=f"entropy_{beta:g}"
        )
        for beta in ENTROPY_WEIGHTS
    },
    "fisher": Objective(of_clips(FISHER, at_clean)),
    **{
        f"fisher_{suffix}": Objective(of_clips(FISHER, averaged(shared, weight)))
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
    "wasserstein": Objective(_wasserstein, applies=has_wasserstein, easier="forward_kl"),
    **{
        f"teacher_forcing_{name}": Objective(
            after_true_frames(divergence, at_clean), applies=several_frames, easier=name
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
    "teacher_forcing_fisher_averaged_x0": Objective(
        after_true_frames(FISHER, averaged(after_clean, _x0_size)),
        applies=_of_two_frames,
        easier="teacher_forcing_reverse_kl",
    ),
    f"{RESTORED}reverse_kl_averaged": Objective(
        _of_restored(REVERSE_KL), applies=_of_two_frames, easier="reverse_kl_averaged"
    ),
    **{
        f"{RESTORED}{name}": Objective(
            of_restored(divergence, averaged(shared, weight), CLEANED), applies=_of_two_modes, easier=easier
        )
        for name, divergence, weight, easier in (
            ("jensen_shannon_averaged", JENSEN_SHANNON, TIME_WEIGHTS["score"], "jensen_shannon_averaged"),
            (
                "softened_reverse_kl_averaged",
                SOFTENED_REVERSE_KL,
                TIME_WEIGHTS["score"],
                "softened_reverse_kl_averaged",
            ),
            ("fisher_averaged_x0", FISHER, _x0_size, "fisher_averaged_x0"),
        )
    },
    "add": Objective(_add(_of_clips), applies=_of_one_frame_or_two_modes),
    "teacher_forcing_add": Objective(_after_true_frames(distilled(2.0, ADD_WEIGHT)), applies=_of_two_modes),
    f"{RESTORED}add": Objective(_add(_of_restored), applies=_of_two_modes, easier="add"),
    "kd": Objective(regressed(None, upwards=False), applies=_of_two_modes),
    "teacher_forcing_kd": Objective(after_true_frames_regressed, applies=_of_two_frames),
    f"{RESTORED}kd": Objective(regressed(CLEANED, upwards=False), applies=_of_two_modes),
    "self_forcing_detached_kd": Objective(
        after_own_frames_regressed, is_field=True, applies=_of_two_frames, easier="teacher_forcing_kd"
    ),
    "pagoda": Objective(
        _pagoda(regressed(None, upwards=True), _of_clips(JENSEN_SHANNON)), applies=_of_one_frame_or_two_modes
    ),
    "teacher_forcing_pagoda": Objective(
        _pagoda(after_true_frames_regressed, _after_true_frames(JENSEN_SHANNON)), applies=_of_two_modes
    ),
    f"{RESTORED}pagoda": Objective(
        _pagoda(regressed(CLEANED, upwards=True), _of_restored(JENSEN_SHANNON)),
        applies=_of_two_modes,
        easier=f"{RESTORED}kd",
    ),
    **{
        f"self_forcing_detached_reverse_kl{suffix}": Objective(
            of_field(_detached, levels), is_field=True, applies=several_frames, easier=f"reverse_kl{suffix}"
        )
        for suffix, levels in (
            ("", at_clean),
            *((f"_{suffix}", averaged(shared, weight)) for suffix, weight in AVERAGES.items()),
        )
    },
    **{
        f"l2_{weighting}_{forcing}": Objective(
            denoising(c, make, causal=causal),
            applies=applies,
            easier="forward_kl",
        )
        for weighting, c in DENOISING.items()
        for forcing, (make, causal, applies) in FORCINGS.items()
    },
}

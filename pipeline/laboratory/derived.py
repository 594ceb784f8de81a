"""What is said of a cell: by the sources, and by derivation, as the name of a predicted objective."""

from dataclasses import replace

from pipeline.diffusion.noise_levels import Independent
from pipeline.diffusion.weighting import Elbo, PredictionL2, Weighting, is_monotone
from pipeline.grid import Cell
from pipeline.laboratory.flow_map import FlowMapLoss, flow_map_name
from pipeline.laboratory.objectives import (
    ADD_WEIGHT,
    CLEANED,
    DIVERGENCES,
    OBJECTIVES,
    PAGODA_WEIGHT,
    RESTORED,
    SID_ALPHAS,
)
from pipeline.laboratory.quadrature import HIGHEST, LOWEST
from pipeline.losses.add import Add
from pipeline.losses.dmd import Dmd
from pipeline.losses.f_distill import FDistill
from pipeline.losses.gan import Gan
from pipeline.losses.kd import Kd
from pipeline.losses.l2 import L2
from pipeline.losses.loss import Loss
from pipeline.losses.pagoda import Pagoda
from pipeline.losses.sid import EXACT_ALPHA, Sid
from pipeline.methods.bidirectional import Bidirectional
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.method import Method
from pipeline.methods.self_forcing import SelfForcing
from pipeline.methods.teacher_forcing import TeacherForcing

CLEAN = 1e-3  # levels up to here are as good as none
FINE_STEPS = 16  # of Heun's method, with which a flow ends where it is predicted to
FREE_RATIO = 1e6  # of densities, up to which f-distill must not cut it
NONE = "none"  # claimed: of no divergence between the student's clips and data
READINGS = ("table", "text")  # of the claims: divergences of clean clips, and averaged over noise
WEIGHTINGS: dict[Weighting, str] = {
    Elbo(): "elbo",
    PredictionL2("eps"): "eps",
    PredictionL2("flow_velocity"): "flow",
}
GAN_OBJECTIVES = {"saturating": "jensen_shannon", "non_saturating": "softened_reverse_kl"}


def claimed(method: Method, loss: Loss, reading: str) -> str | None:
    """What "Everything is KL minimization" (Ogata) claims of a cell, as an objective; None where it says nothing.

    reading: its table names divergences of clean clips. Its text says that they are expected over noise levels,
    which is said of no loss that asks for clean frames alone. It leaves SiD "under construction".
    """
    table = _in_the_table(method, loss)
    if reading == "table" or table in (None, NONE):
        return table
    if isinstance(loss, Dmd | Gan):
        return _averaged(table, loss) if _is_averaged(loss) else None
    if isinstance(method, DiffusionForcing):
        return "forward_kl_averaged_independent"
    assert isinstance(loss, L2)
    # L2 of a monotone weighting is such an expectation, which one the weighting says: arXiv:2303.00848, theorem 1
    return _of_l2(method, loss, num_frames=2) if is_monotone(loss.weighting) else "forward_kl_averaged"


def _in_the_table(method: Method, loss: Loss) -> str | None:
    match method, loss:
        case (Bidirectional() | TeacherForcing() | DiffusionForcing(), L2()):
            return "forward_kl"
        case (SelfForcing(), Dmd()):
            return "reverse_kl"
        case (DiffusionForcing(), Dmd()):
            return NONE
        case (SelfForcing(), Gan()):
            return "jensen_shannon"
        case _:
            return None


def row_of_claims(method: Method, loss: Loss) -> str:
    """Which measurements speak of one claim together: method and loss, and the switches that decide what it is."""
    cell = Cell.of(method, loss)
    whole = (
        " (gradient through the context)" if isinstance(method, SelfForcing) and not method.detach_context else ""
    )
    kind = None
    if isinstance(loss, Gan | L2):
        kind = loss.objective if isinstance(loss, Gan) else WEIGHTINGS.get(loss.weighting)
    return f"{cell.method}{whole} x {cell.loss}{f' ({kind})' if kind else ''}"


def derived(method: Method, loss: Loss, num_frames: int, *, tied: bool) -> str | None:
    """The objective whose optimum or fixed point the cell has by derivation; None where none is predicted.

    tied: whether frames after the first share parameters, which is where a detached context tells.
    """
    if isinstance(loss, L2):
        return _of_l2(method, loss, num_frames)
    if isinstance(loss, FlowMapLoss):
        return None if tied else flow_map_name(method, loss, num_frames)
    if isinstance(loss, Kd | Pagoda):
        return _of_regression(method, loss, num_frames)
    name = _of_law(loss)
    if name is None or num_frames == 1:
        return name
    match method:
        case Bidirectional() | SelfForcing(detach_context=False):
            return name
        case SelfForcing():
            is_known = isinstance(loss, Dmd) and name.startswith("reverse_kl")
            return f"self_forcing_detached_{name}" if is_known else None if tied else name
        case DiffusionForcing(noise_levels=levels) if levels == Independent():
            return name
        case _:
            return _of_data_beside(method, name, num_frames)


def _of_data_beside(method: Method, name: str, num_frames: int) -> str | None:
    """Where the student's frames stand beside frames of data."""
    match method:
        case TeacherForcing():
            found = f"teacher_forcing_{name}"
        case DiffusionForcing(noise_levels=levels) if (levels, num_frames) == (CLEANED, 2):
            found = f"{RESTORED}{name}"
        case _:
            return None
    return found if found in OBJECTIVES else None


def _of_regression(method: Method, loss: Kd | Pagoda, num_frames: int) -> str | None:
    """Where the steps along the flow are too fine to tell, and an adversary has the weight that is predicted."""
    if loss.solver != "heun" or loss.num_steps < FINE_STEPS:
        return None
    if isinstance(loss, Pagoda):
        plain = Gan(objective="saturating")
        adversary = replace(loss.gan, critic_updates=plain.critic_updates)
        if (loss.gan_weight, adversary) != (PAGODA_WEIGHT, plain):
            return None
        name = "pagoda"
    else:
        name = "wasserstein" if num_frames == 1 else "kd"
    match method:
        case _ if num_frames == 1:
            return name
        case Bidirectional():
            return name
        case SelfForcing(detach_context=True):
            return f"self_forcing_detached_{name}"
        case _:
            return _of_data_beside(method, name, num_frames)


def _of_l2(method: Method, loss: L2, num_frames: int) -> str | None:
    weighting = WEIGHTINGS.get(loss.weighting)
    if weighting is None or loss.first_weight != 1:
        return None
    match method:
        case _ if num_frames == 1:
            return f"l2_{weighting}_bidirectional"
        case Bidirectional():
            return f"l2_{weighting}_bidirectional"
        case TeacherForcing():
            return f"l2_{weighting}_teacher_forcing"
        case DiffusionForcing(noise_levels=levels) if levels == Independent():
            return f"l2_{weighting}_diffusion_forcing_causal"
        case _:
            return None


def _of_law(loss: Loss) -> str | None:
    """Where the whole law of the student's clips is judged, at one level a clip, or at none."""
    match loss:
        case Dmd() | Gan() | FDistill() if not (_is_averaged(loss) or loss.level_max <= CLEAN):
            return None
        case Add() | Sid() if not _is_averaged(loss):
            return None
        case Dmd(normaliser=False, guidance=1.0, regression_weight=0.0, score_level="shared"):
            return _averaged(f"entropy_{loss.entropy_weight:g}" if loss.entropy_weight else "reverse_kl", loss)
        case Gan(score_level="shared", r1_weight=0.0, r2_weight=0.0) if loss.objective in GAN_OBJECTIVES:
            return _averaged(GAN_OBJECTIVES[loss.objective], loss)
        case FDistill(normaliser=False, score_level="shared") if loss.f_divergence in DIVERGENCES:
            is_free = loss.ratio_min <= 1 / FREE_RATIO and loss.ratio_max >= FREE_RATIO
            return _averaged(loss.f_divergence, loss) if is_free else None
        case Add(score_level="shared", level_weight="score", gan_weight=weight, gan=adversary):
            plain = replace(Gan(objective="non_saturating"), critic_updates=adversary.critic_updates)
            return "add" if (weight, adversary) == (ADD_WEIGHT, plain) else None
        case Sid(normaliser=False, score_level="shared"):
            if loss.alpha == EXACT_ALPHA:
                return "fisher_averaged_x0"
            return f"sid_{loss.alpha:g}" if loss.alpha in SID_ALPHAS else None
        case _:
            return None


def _is_averaged(loss: Dmd | Gan | FDistill | Add | Sid) -> bool:
    """Whether it asks at the levels over which predictions are averaged."""
    return (loss.level_min, loss.level_max) == (LOWEST, HIGHEST)


def _averaged(name: str, loss: Dmd | Gan | FDistill) -> str:
    if loss.level_max <= CLEAN:
        return name
    space = "score" if isinstance(loss, Gan) else loss.space
    return f"{name}_averaged{'_x0' if space == 'x0' else ''}"

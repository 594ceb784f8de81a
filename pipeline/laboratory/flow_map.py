"""Where students that are lines end under the losses that regress a flow map: in closed form, or by quadrature.

Consistency training and distillation compare answers at neighbouring levels of a grid; mean flow compares steps
between any two levels.
"""

from typing import Any

from pipeline.data.processes import Process
from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.flow_map import Discretisation
from pipeline.diffusion.noise_levels import Independent
from pipeline.laboratory.flow_map_lines import ends, ends_on_own_frames
from pipeline.laboratory.moments import of_moments
from pipeline.laboratory.optima import Optimum, Prediction
from pipeline.laboratory.quadrature import CHECK, FINE, Precision
from pipeline.laboratory.reached import Standing
from pipeline.losses.consistency_distillation import ConsistencyDistillation
from pipeline.losses.consistency_training import ConsistencyTraining
from pipeline.losses.loss import Loss
from pipeline.losses.mean_flow import MeanFlow
from pipeline.methods.bidirectional import Bidirectional
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.method import Method
from pipeline.methods.self_forcing import SelfForcing
from pipeline.methods.teacher_forcing import TeacherForcing
from pipeline.models.linear_gaussian import STUDENTS

FlowMapLoss = ConsistencyTraining | ConsistencyDistillation | MeanFlow
AnyLoss = Loss | FlowMapLoss  # the same to people; a type checker wants the ClassVars of a protocol
STUDENT = {1: "gaussian", 2: "frame_by_frame"}  # whose law the frames have that lines make of pure noise
METHODS: dict[int, tuple[type, ...]] = {
    1: (Bidirectional,),
    2: (TeacherForcing, DiffusionForcing, SelfForcing),
}  # by the number of frames
GRID = Discretisation(8)  # so few levels that their errors set the losses apart; of many, all keep data's moments
TRAINING, DISTILLATION = ConsistencyTraining(GRID, metric="l2"), ConsistencyDistillation(GRID)
VELOCITY = MeanFlow(power=0.0)
Cell = tuple[Any, FlowMapLoss]  # a method, of which a type checker wants the ClassVars of a protocol, too
PREDICTED: dict[int, dict[str, Cell]] = {  # by the number of frames of a process
    1: {
        "consistency_training": (Bidirectional(), TRAINING),
        "consistency_distillation": (Bidirectional(), DISTILLATION),
        "mean_flow": (Bidirectional(), VELOCITY),
    },
    2: {
        "teacher_forcing_consistency_training": (TeacherForcing(), TRAINING),
        "teacher_forcing_consistency_distillation": (TeacherForcing(), DISTILLATION),
        "teacher_forcing_mean_flow": (TeacherForcing(), VELOCITY),
        "self_forcing_consistency_distillation": (SelfForcing(Sampler(num_steps=1)), DISTILLATION),
    },
}


def predict_flow_map(
    process: Process, method: Method, loss: AnyLoss, *, precision: Precision = FINE
) -> dict[str, float]:
    """Mean and standard deviation of the answers at the highest level, and of two frames how they hang together.

    Only second moments count. Under consistency training s is the standard deviation of data times the correlations
    of all neighbouring levels, which lose a little at every step. Mean flow finds the flow of a Gaussian with the
    moments of data, which keeps them: with z and its context its mean and variance change as those of data, and
    what is left of the velocity has no correlation with them. Under diffusion forcing that is so in a context of
    any noise, and lines end where those of teacher forcing do.

    Raises:
        ValueError: a loss and a method whose fixed point is not known.
        NoOptimumError: a student's own frames, which lead back to no student.
    """
    check_flow_map(method, loss, process.num_frames)
    law, form = process.law, STUDENTS[STUDENT[process.num_frames]]
    match loss:
        case MeanFlow():
            found = of_moments(law, form)
        case ConsistencyDistillation() if isinstance(method, SelfForcing):
            found = form.values(ends_on_own_frames(law, loss, precision))
        case ConsistencyTraining() | ConsistencyDistillation():
            found = form.values(ends(law, law, loss, precision))
        case _:
            raise AssertionError(loss)
    return dict(zip(form.names, found, strict=True))


def check_flow_map(method: Method, loss: AnyLoss, num_frames: int) -> None:
    """Raises ValueError for what has no known fixed point among lines."""
    refusal = _against(loss) or _against_method(method, loss, num_frames)
    if refusal is not None:
        raise ValueError(refusal)


def _against(loss: AnyLoss) -> str | None:
    match loss:
        case ConsistencyTraining() | ConsistencyDistillation():
            if loss.metric != "l2":
                return f"metric must be l2, whose best lines are known, got {loss.metric!r}"
            if (loss.grid.curriculum, loss.grid.segments) != ("constant", 1):
                return (
                    f"grid must stay as it is and have one segment here: curriculum={loss.grid.curriculum}, "
                    f"segments={loss.grid.segments}"
                )
        case MeanFlow():
            if loss.power != 0:
                return f"power must be 0, whose best lines are known, got {loss.power}"
        case _:
            known = "ConsistencyTraining, ConsistencyDistillation, MeanFlow"
            return f"loss must be one of {known}, got {type(loss).__name__}"
    return None


def _against_method(method: Method, loss: AnyLoss, num_frames: int) -> str | None:
    if num_frames not in METHODS:
        return f"num_frames must be 1 or 2 for a flow map of lines, got {num_frames}"
    if not isinstance(method, METHODS[num_frames]):
        known = ", ".join(kind.__name__ for kind in METHODS[num_frames])
        return f"method must be {known} for num_frames={num_frames}, got {type(method).__name__}"
    if loss.needs_target and not method.provides_target:
        return f"method must provide a target for {type(loss).__name__}, got {type(method).__name__}"
    match method:
        case TeacherForcing() | DiffusionForcing() if method.chunk_len != 1:
            return f"chunk_len must be 1, a line a frame, got {method.chunk_len}"
        case DiffusionForcing() if not _shows_clean_first(method) and not isinstance(loss, MeanFlow):
            return (
                f"noise_levels must be independent and leave first frames clean, after which frames are made, got "
                f"{method.noise_levels}"
            )
        case SelfForcing() if not method.detach_context:
            return "detach_context must be on, where fixed points are known, got False"
        case SelfForcing() if (method.sampler.num_steps, method.sampler.context_noise) != (1, 0):
            return f"sampler must have one step and clean context, got {method.sampler}"
        case _:
            return None


def _shows_clean_first(method: DiffusionForcing) -> bool:
    levels = method.noise_levels
    if not isinstance(levels, Independent):
        return False
    first = levels.first_clean_probability
    return (levels.clean_probability if first is None else first) > 0


def flow_map_name(method: Method, loss: AnyLoss, num_frames: int) -> str | None:
    """Of the prediction that holds for a loss: consistency has one with its parameters alone, mean flow with all.

    Diffusion forcing has that of teacher forcing.
    """
    if _against(loss) or _against_method(method, loss, num_frames):
        return None
    if isinstance(loss, MeanFlow):
        loss = VELOCITY  # whatever its levels: its lines have the moments of data
    kind = TeacherForcing if isinstance(method, DiffusionForcing) else type(method)
    known = PREDICTED[num_frames].items()
    return next((name for name, (of, same) in known if isinstance(of, kind) and same == loss), None)


def flow_maps_for(process: Process, student: str) -> dict[str, Cell]:
    """The losses in PREDICTED of such frames; none for other students than lines have."""
    return PREDICTED[process.num_frames] if student == STUDENT.get(process.num_frames) else {}


def flow_map_optimum(process: Process, name: str, *, num_pixels: int = 1) -> Prediction:
    """Of one loss in PREDICTED, in the form of the other predictions.

    The gradient of its targets is stopped, so that no function is minimised: a fixed point, as of a field.
    num_pixels: independent ones, with which divergences grow.

    Raises:
        NoOptimumError: a student's own frames, which lead back to no student.
    """
    method, loss = PREDICTED[process.num_frames][name]
    standing = Standing(process.law, num_pixels=num_pixels)
    found, rougher = (predict_flow_map(process, method, loss, precision=precision) for precision in (FINE, CHECK))
    reached = standing.of(STUDENTS[STUDENT[process.num_frames]], found)
    return Prediction(
        best=Optimum(found, None),
        others=(),
        is_field=True,
        integration_error=max(abs(found[name] - rougher[name]) for name in found),
        flat=False,
        forward_kl=reached.forward_kl,
        reverse_kl=reached.reverse_kl,
        kept=reached.kept,
    )

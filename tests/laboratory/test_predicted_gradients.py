"""What is predicted of a cell has the slope of its loss: that of the objective is the mean over rollouts."""

import pytest
import torch

from pipeline.data.processes_mixture import IndependentPixels
from pipeline.diffusion.autoregress import Sampler
from pipeline.grid import Cell
from pipeline.laboratory.critics import Solved, exact_critics
from pipeline.laboratory.derived import derived
from pipeline.laboratory.laws import detached, judged_law
from pipeline.laboratory.measure import ONE_STEP
from pipeline.laboratory.objectives import CLEANED, OBJECTIVES, PAGODA_WEIGHT
from pipeline.laboratory.quadrature import CHECK
from pipeline.laboratory.students import GeneratingStudent
from pipeline.losses.add import Add
from pipeline.losses.f_distill import FDistill
from pipeline.losses.gan import Gan
from pipeline.losses.kd import Kd
from pipeline.losses.loss import CriticLoss
from pipeline.losses.pagoda import Pagoda
from pipeline.losses.sid import Sid
from pipeline.methods.bidirectional import Bidirectional
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.self_forcing import SelfForcing
from pipeline.methods.teacher_forcing import TeacherForcing
from pipeline.models.linear_gaussian import STUDENTS, LinearGaussianSpec, LinearGaussianStudent
from tests.processes import PROCESSES

DATA = PROCESSES["D"].law
FORM = STUDENTS["frame_by_frame"]
AT = {"m1": 0.3, "s1": 0.7, "c": 0.6, "m2": 0.1, "s2": 0.5}
METHODS = {
    "bidirectional": Bidirectional(ONE_STEP),
    "teacher_forcing": TeacherForcing(sampler=ONE_STEP),
    "diffusion_forcing": DiffusionForcing(noise_levels=CLEANED, sampler=ONE_STEP),
    "self_forcing": SelfForcing(Sampler(num_steps=1)),
    "self_forcing_full": SelfForcing(Sampler(num_steps=1), detach_context=False),
}
LOSSES = {
    "sid": Sid(normaliser=False),
    "add": Add(level_weight="score"),
    "f_jensen_shannon": FDistill(space="score", normaliser=False, ratio_min=1e-6, ratio_max=1e6),
    "gan_saturating": Gan(objective="saturating"),
    "gan_non_saturating": Gan(),
    "kd": Kd(num_steps=24),
    "pagoda": Pagoda(num_steps=24, gan_weight=PAGODA_WEIGHT),
}
OF_TWO_FRAMES = {  # the gradient of the loss over that of the objective
    "sid": 1 / 4,  # a mean over frames, of half the Fisher divergence
    "f_jensen_shannon": 1,  # a mean over frames, of twice the divergence
    "gan_saturating": 2,  # of whole clips, of twice the divergence
}
NUM_CLIPS, NUM_BATCHES = 2**13, 32
FEW_CLIPS = 2**10  # of losses that solve the flow at every clip


def gradients_of_the_loss(method, loss, num_clips):
    """One a batch."""
    own = LinearGaussianStudent(LinearGaussianSpec("frame_by_frame", DATA.num_frames), **AT)
    student = GeneratingStudent(own, method.attention)
    attention = "causal" if Cell.of(method, loss).teacher == "causal" else "full"
    critics = exact_critics(loss, DATA, lambda: judged_law(method, detached(own.chain), DATA), attention=attention)
    found, schedule = [], student.spec.schedule
    for seed in range(NUM_BATCHES):
        rng = torch.Generator().manual_seed(seed)
        clips = IndependentPixels(DATA).sample(num_clips, rng)
        rollout = method.rollout(student, clips, schedule=schedule, rng=rng)
        solved = Solved(loss) if isinstance(loss, CriticLoss) else loss
        value = solved.student_loss(rollout, clips, critics, schedule=schedule, rng=rng)
        found.append(torch.stack(torch.autograd.grad(value, [own.values[name] for name in FORM.names])))
    return torch.stack(found)


def slope_of_the_objective(name):
    parameters = [torch.tensor(AT[name], dtype=torch.float64, requires_grad=True) for name in FORM.names]
    frozen = FORM.chain(*(parameter.detach() for parameter in parameters))
    value = OBJECTIVES[name].build(DATA, CHECK)(FORM.chain(*parameters), frozen)
    return torch.stack(torch.autograd.grad(value, parameters))


def agree(method, loss, *, slack=0.0):
    """Within four standard errors, and the slack of a discretised flow."""
    objective = derived(METHODS[method], LOSSES[loss], DATA.num_frames, tied=False)
    assert objective is not None
    found = gradients_of_the_loss(METHODS[method], LOSSES[loss], FEW_CLIPS if slack else NUM_CLIPS)
    expected = OF_TWO_FRAMES.get(loss, 1) * slope_of_the_objective(objective)
    error = found.std(0) / NUM_BATCHES**0.5
    return bool(((found.mean(0) - expected).abs() < 4 * error + slack).all())


@pytest.mark.parametrize(
    ("method", "loss"),
    [
        ("teacher_forcing", "sid"),
        ("teacher_forcing", "add"),
        ("teacher_forcing", "f_jensen_shannon"),
        ("diffusion_forcing", "sid"),
        ("diffusion_forcing", "add"),
        ("diffusion_forcing", "f_jensen_shannon"),
        ("diffusion_forcing", "gan_saturating"),
        ("diffusion_forcing", "gan_non_saturating"),
        ("bidirectional", "add"),
        ("self_forcing_full", "add"),
        ("self_forcing_full", "f_jensen_shannon"),
    ],
)
def test_a_loss_on_laws_has_the_gradient_that_is_predicted(method, loss):
    assert agree(method, loss)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "loss"),
    [
        ("bidirectional", "kd"),
        ("bidirectional", "pagoda"),
        ("teacher_forcing", "kd"),
        ("teacher_forcing", "pagoda"),
        ("diffusion_forcing", "kd"),
        ("diffusion_forcing", "pagoda"),
        ("self_forcing", "kd"),
    ],
)
def test_a_regression_of_the_flow_has_the_gradient_that_is_predicted(method, loss):
    assert agree(method, loss, slack=0.01)

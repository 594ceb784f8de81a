"""f-distill: h turns the gradient of the reverse KL into that of another divergence, exactly."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pipeline.losses.dmd import Dmd
from pipeline.losses.f_distill import F_DIVERGENCES, FDistill, FDistillCritics
from tests.closed_forms import SKEWED, flow, gaussian, gradient, noise_average
from tests.losses.line import MEAN, SCHEDULE, STD, ExactLogit, ExactScores, Nodes, fixed_point, rollout_of
from tests.losses.reach import reached

NODES = Nodes()
EXACT = FDistill(space="score", normaliser=False, ratio_min=1e-300, ratio_max=1e300)
F = {  # E_p[f(q / p)], with the constants that the weights h leave out
    "reverse_kl": lambda r: -r.log(),
    "forward_kl": lambda r: r * r.log(),
    "jensen_shannon": lambda r: r * r.log() - (1 + r) * ((1 + r) / 2).log(),  # twice
    "softened_reverse_kl": lambda r: (1 + r) * ((1 + r) / (2 * r)).log(),  # twice
    "squared_hellinger": lambda r: 2 * (1 - r.sqrt()) ** 2,  # twice
    "jeffreys": lambda r: (r - 1) * r.log(),
    "neyman": lambda r: (1 - r) ** 2 / (2 * r),  # half
}


class ExactCritics(FDistillCritics):
    """Both scores and the best discriminator, in closed form."""

    def __init__(self, mean, std):
        nn.Module.__init__(self)
        self.scores = ExactScores.of(mean, std)
        self.discriminator = ExactLogit(SKEWED, gaussian(mean, std))


class Told(nn.Module):
    """Answers with these logits."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, x_t, t):
        return self.logits


def told(logits):
    """Exact scores, and a discriminator that is told what to say."""
    critics = ExactCritics(MEAN, STD)
    critics.discriminator = Told(torch.as_tensor(logits, dtype=torch.float64))
    return critics


def field(loss):
    """What descending the loss with exact critics does to a student's mean and standard deviation."""

    def at(mean, std):
        x0_hat, x_t = NODES.frames(mean, std)
        critics = ExactCritics(mean, std)
        return NODES.field(loss.gradient(rollout_of(x0_hat), critics, x_t, NODES.t, schedule=SCHEDULE))

    return at


@pytest.mark.parametrize("name", F_DIVERGENCES)
def test_the_weight_makes_the_gradient_that_of_its_divergence(name):
    def divergence(mean, std):
        def at(t):
            p, q = (flow(law, t) for law in (gaussian(mean, std), SKEWED))
            return p.mean_of(lambda x: F[name]((q.log_density(x) - p.log_density(x)).exp()))

        return noise_average(at)

    found = field(replace(EXACT, f_divergence=name))(MEAN, STD)
    assert found == pytest.approx(gradient(divergence, MEAN, STD), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "optimum"),
    [
        ("reverse_kl", (0.3225, 0.7862)),
        ("forward_kl", (0.5, 1.0897)),  # the moments of data
        ("jensen_shannon", (0.4444, 0.9727)),
        ("softened_reverse_kl", (0.2083, 0.6657)),
    ],
)
def test_the_divergence_decides_where_the_student_rests(name, optimum):
    assert fixed_point(field(replace(EXACT, f_divergence=name)), (0.4, 0.9)) == pytest.approx(optimum, abs=1e-4)


def clips(rng, num_frames=4):
    x0_hat, x_t = torch.randn(2, 3, num_frames, 1, 2, 2, generator=rng, dtype=torch.float64)
    t = torch.rand(3, 1, generator=rng, dtype=torch.float64).clamp(0.1, 0.9).expand(3, num_frames).contiguous()
    return rollout_of(x0_hat), x_t, t


@pytest.mark.parametrize("normaliser", [False, True])
@pytest.mark.parametrize("space", ["score", "x0"])
def test_the_reverse_kl_is_dmd_whatever_the_discriminator_says(space, normaliser, rng):
    rollout, x_t, t = clips(rng)
    critics, fields = told([5.0, -3.0, 0.2]), {"space": space, "normaliser": normaliser}
    found = FDistill(f_divergence="reverse_kl", **fields).gradient(rollout, critics, x_t, t, schedule=SCHEDULE)
    assert torch.equal(found, Dmd(**fields).gradient(rollout, critics.scores, x_t, t, schedule=SCHEDULE))


def test_the_ratio_of_a_clip_is_kept_within_its_bounds(rng):
    rollout, x_t, t = clips(rng)
    loss = FDistill(f_divergence="forward_kl", ratio_min=0.5, ratio_max=4.0)
    critics = told([-1000.0, 0.7, 1000.0])
    found = loss.gradient(rollout, critics, x_t, t, schedule=SCHEDULE)
    plain = loss.dmd.gradient(rollout, critics.scores, x_t, t, schedule=SCHEDULE)
    ratios = torch.tensor([0.5, torch.tensor(0.7).exp().item(), 4.0], dtype=torch.float64)
    assert torch.allclose(found, ratios[:, None, None, None, None] * plain, rtol=1e-6)


def test_a_logit_of_a_chunk_weighs_its_frames(rng):
    """Teacher forcing judges every chunk beside a context of its own."""
    rollout, x_t, t = clips(rng)
    loss, logits = replace(EXACT, f_divergence="forward_kl"), torch.randn(3, 2, generator=rng).double()
    found = loss.gradient(rollout, told(logits), x_t, t, schedule=SCHEDULE)
    plain = loss.dmd.gradient(rollout, told(logits).scores, x_t, t, schedule=SCHEDULE)
    for frame in range(4):
        weight = logits[:, frame // 2].exp()[:, None, None, None]
        assert torch.allclose(found[:, frame], weight * plain[:, frame], rtol=1e-9)


def test_the_loss_has_this_gradient_and_the_discriminator_learns_where_it_is_asked(rng):
    loss = FDistill(level_min=0.3, level_max=0.6, critic_updates=2, score_level="independent")
    for part in (loss.gan, loss.dmd):
        assert (part.level_min, part.level_max, part.critic_updates) == (0.3, 0.6, 2)
        assert part.score_level == "independent"
    x0_hat = clips(rng)[0].x0_hat.requires_grad_(True)
    critics, again = told([0.3, -0.4, 0.1]), torch.Generator().manual_seed(4)
    value = loss.student_loss(rollout_of(x0_hat), x0_hat, critics, schedule=SCHEDULE, rng=again)
    (slope,) = torch.autograd.grad(value, x0_hat)
    again = torch.Generator().manual_seed(4)
    t = loss.dmd.score_levels(x0_hat, again)
    assert ((t >= 0.3) & (t <= 0.6)).all()
    alpha, sigma = SCHEDULE.at(t)
    x_t = alpha * x0_hat + sigma * torch.randn(x0_hat.shape, generator=again).double()
    expected = loss.gradient(rollout_of(x0_hat), critics, x_t, t, schedule=SCHEDULE)
    assert torch.allclose(slope, expected / x0_hat.numel(), rtol=1e-6, atol=1e-12)


def test_gradients_reach_the_student_alone_and_both_critics_alone():
    assert reached(FDistill()) == ({"student"}, {"scores.fake", "discriminator"})


def test_f_distill_says_which_divergence_it_minimises():
    assert FDistill(f_divergence="forward_kl").measure == "forward KL, averaged over noise, of {judged}"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"f_divergence": "pearson"}, "f_divergence must be one of reverse_kl, forward_kl, .*, got 'pearson'"),
        ({"ratio_min": 0.0}, "ratio_min must be above 0, got 0.0"),
        ({"ratio_min": 2.0, "ratio_max": 1.0}, "ratio_max must be above 2.0, got 1.0"),
        ({"critic_updates": 0}, "critic_updates must be at least 1, got 0"),
        ({"level_max": 1.0}, "0 < level_min < level_max < 1 must hold, got 0.02 and 1.0"),
        ({"space": "eps"}, "space must be one of x0, score, got 'eps'"),
    ],
)
def test_f_distill_refuses_impossible_parameters(fields, says):
    with pytest.raises(ValueError, match=says):
        FDistill(**fields)

"""DMD: its gradient, exactly; with exact scores, the divergence it descends and where a student comes to rest."""

import pytest
import torch
from torch import nn

from pipeline.diffusion.schedule import FlowMatching
from pipeline.interfaces import Rollout
from pipeline.losses.add import Add, AddCritics
from pipeline.losses.dmd import Dmd
from pipeline.losses.kd import Kd
from pipeline.losses.scores import dmd_gradient, pseudo_target_loss
from tests.closed_forms import SKEWED, cross_entropy, flow, gaussian, gradient, noise_average
from tests.losses.flow_ends import Exact as FlowOfSkewed
from tests.losses.line import MEAN, SCHEDULE, STD, Exact, ExactScores, Nodes, fixed_point, rollout_of
from tests.losses.reach import reached

NODES = Nodes()
PEER_NORMALISED = [  # of Self-Forcing's model/dmd.py with guidance, two clips of three frames
    [0.00249440153, -0.259095073, -0.56030792, -0.424144655, -0.481240302, -0.801479042],
    [-0.585778713, -0.0277476627, -0.0985980332, -0.572894752, -0.587068856, -0.43224889],
    [-0.788418591, -0.808627605, -0.18010956, 0.0239366014, -0.584481478, -0.887186527],
    [-0.591015041, -0.594355762, -0.785015285, -0.372713864, 0.0543964095, -0.401748866],
]
PEER_RAW = [
    [0.00126492977, -0.131389052, -0.284136355, -0.215086937, -0.244040564, -0.406436026],
    [-0.297052771, -0.0140710473, -0.0499998033, -0.290519238, -0.297707021, -0.219196647],
    [-0.330859751, -0.339340478, -0.0755829513, 0.010044992, -0.245277584, -0.372307718],
    [-0.248019382, -0.249421313, -0.329431564, -0.156409323, 0.0228274465, -0.168593854],
]


class GaussianDenoiser(nn.Module):
    """E[x_0 | x_t] of data N(mean, std^2), every value by itself: m + a s^2 (x_t - a m) / (a^2 s^2 + sigma^2)."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.variance = mean, std**2

    def forward(self, x_t, t):
        alpha, sigma = FlowMatching().at(t)
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return self.mean + gain * (x_t - alpha * self.mean)


def test_the_pseudo_target_gives_its_gradient_exactly(rng):
    x = torch.randn(2, 3, 1, 4, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(x.shape, generator=rng, dtype=torch.float64)
    (found,) = torch.autograd.grad(pseudo_target_loss(x, gradient), x)
    assert torch.allclose(found, gradient / x.numel(), rtol=1e-12, atol=1e-15)


def test_dmd_gradient_vanishes_when_fake_equals_real(rng):
    x, score = torch.randn(2, 2, 3, 1, 4, 4, generator=rng)
    assert dmd_gradient(score, score, x).abs().max() == 0


def test_dmd_gradient_does_not_depend_on_the_scale_of_the_frames(rng):
    fake, real, x = torch.randn(3, 2, 3, 1, 4, 4, generator=rng)
    assert torch.allclose(dmd_gradient(7 * fake, 7 * real, 7 * x), dmd_gradient(fake, real, x), rtol=1e-5)


def test_with_exact_scores_of_gaussians_the_gradient_is_the_analytic_one():
    """Student N(m, s^2), data N(mu, v^2): the student's and the data's denoisers at z = a x + sigma eps differ by
    (a s^2/(a^2 s^2 + sigma^2)) (z - a m) + m - (a v^2/(a^2 v^2 + sigma^2)) (z - a mu) - mu,
    whose mean over the student is (m - mu) sigma^2 / (a^2 v^2 + sigma^2): zero only where the means agree."""
    mean, std, data_mean, data_std, level = 0.7, 0.5, -0.3, 1.2, 0.4
    loss = Dmd(level_min=level, level_max=level + 1e-6)
    generator = torch.Generator().manual_seed(1)
    x0_hat = mean + std * torch.randn(4_000, 1, 1, 8, 8, generator=generator)
    x0_hat.requires_grad_(True)
    critics = ExactScores(GaussianDenoiser(mean, std), GaussianDenoiser(data_mean, data_std))
    value = loss.student_loss(rollout_of(x0_hat), x0_hat, critics, schedule=FlowMatching(), rng=generator)
    (found,) = torch.autograd.grad(value, x0_hat)
    alpha, sigma = 1 - level, level
    shift = (mean - data_mean) * sigma**2 / (alpha**2 * data_std**2 + sigma**2)
    # the normaliser: mean |x - D_real(z)| of a Gaussian with this mean and variance
    gain = alpha * data_std**2 / (alpha**2 * data_std**2 + sigma**2)
    offset = mean - data_mean - gain * alpha * (mean - data_mean)
    spread = ((1 - gain * alpha) ** 2 * std**2 + (gain * sigma) ** 2) ** 0.5
    normal = torch.distributions.Normal(0.0, 1.0)
    ratio = torch.tensor(offset / spread)
    scale = spread * (2 * normal.log_prob(ratio).exp() + ratio * (2 * normal.cdf(ratio) - 1))
    assert found.sum().item() == pytest.approx((shift / scale).item(), rel=0.02)


def test_gradients_reach_the_student_alone_and_the_fake_score_alone():
    assert reached(Dmd()) == ({"student"}, {"fake"})
    assert reached(Dmd(space="score", entropy_weight=0.5)) == ({"student"}, {"fake"})


def test_gradients_and_value_are_those_of_self_forcing():
    """Its guidance 3 is conditional + 3 (conditional - unconditional): 4 as most papers count."""
    i = torch.arange(1, 25, dtype=torch.float64).reshape(2, 3, 1, 2, 2)
    x, noise = torch.sin(0.9 * i).requires_grad_(True), torch.sin(1.7 * i)
    x_t = (0.5 * x + 0.5 * noise).detach()

    def posterior_mean(mean, std):
        return mean + 0.5 * std**2 / (0.25 * std**2 + 0.25) * (x_t - 0.5 * mean)

    fake, conditional = posterior_mean(-0.1, 0.8), posterior_mean(0.3, 0.6)
    real = conditional + 3 * (conditional - (conditional + 0.02))
    raw = dmd_gradient(fake, real, x.detach(), normalised_over=())
    assert raw.flatten().tolist() == pytest.approx(sum_of(PEER_RAW), abs=1e-6)
    found = dmd_gradient(fake, real, x.detach())
    assert found.flatten().tolist() == pytest.approx(sum_of(PEER_NORMALISED), abs=1e-6)
    value = pseudo_target_loss(x, found)
    assert value.item() == pytest.approx(0.139740902, abs=1e-7)
    (slope,) = torch.autograd.grad(value, x)
    assert torch.allclose(slope, found / x.numel(), rtol=1e-9)


def sum_of(rows):
    """The numbers of all rows in a row."""
    return [number for row in rows for number in row]


def field(loss):
    """What descending the loss with exact scores does to a student's mean and standard deviation."""

    def at(mean, std):
        x0_hat, x_t = NODES.frames(mean, std)
        scores = ExactScores.of(mean, std)
        return NODES.field(loss.gradient(rollout_of(x0_hat), scores, x_t, NODES.t, schedule=SCHEDULE))

    return at


@pytest.mark.parametrize(("space", "optimum"), [("score", (0.3225, 0.7862)), ("x0", (0.4919, 0.9928))])
def test_the_space_decides_which_reverse_kl_the_student_rests_at(space, optimum):
    """The least E_t KL(p_t || q_t), and the least E_t (sigma / alpha)^2 KL(p_t || q_t)."""
    loss = Dmd(space=space, normaliser=False)
    assert fixed_point(field(loss), (0.4, 0.9)) == pytest.approx(optimum, abs=1e-4)
    assert field(loss)(*optimum) == pytest.approx((0, 0), abs=1e-4)


def test_with_half_the_entropy_taken_away_the_student_shrinks():
    loss = Dmd(space="score", normaliser=False, entropy_weight=0.5)
    assert fixed_point(field(loss), (0.1, 0.4)) == pytest.approx((0.0984, 0.3544), abs=1e-4)


class TestCrossEntropy:
    """All of the entropy taken away."""

    @pytest.mark.parametrize("space", ["score", "x0"])
    def test_it_is_the_gradient_of_the_cross_entropy_with_data(self, space):
        found = field(Dmd(space=space, normaliser=False, entropy_weight=1.0))(MEAN, STD)

        def divergence(mean, std):
            def at(t):
                weight = 1.0 if space == "score" else (t / (1 - t)) ** 2
                return weight * cross_entropy(flow(gaussian(mean, std), t), flow(SKEWED, t))

            return noise_average(at)

        assert found == pytest.approx(gradient(divergence, MEAN, STD), abs=1e-5)

    @pytest.mark.parametrize(("space", "level_weight"), [("score", "score"), ("x0", "uniform")])
    def test_it_is_that_of_a_stopped_target(self, space, level_weight):
        """ADD's distance, which asks no fake score, has twice the gradient."""
        found = field(Dmd(space=space, normaliser=False, entropy_weight=1.0))(MEAN, STD)
        student = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (MEAN, STD)]
        x0_hat, x_t = NODES.frames(*student)
        critics = AddCritics.__new__(AddCritics)
        nn.Module.__init__(critics)
        critics.real = Exact(SKEWED)
        loss = Add(level_weight=level_weight)
        distances = loss.distances(rollout_of(x0_hat), critics, x_t.detach(), NODES.t, schedule=SCHEDULE)
        slopes = torch.autograd.grad(NODES.mean_of(distances), student)
        assert [slope.item() / 2 for slope in slopes] == pytest.approx(found, abs=1e-10)

    @pytest.mark.parametrize("beta", [-0.5, 0.5, 1.0])
    def test_the_noise_that_is_left_out_of_the_fake_score_has_no_part_in_it(self, beta):
        """As written: g = (1 - beta) (fake_x0 - x_t / alpha) - (real_x0 - x_t / alpha)."""
        x_t = NODES.frames(MEAN, STD)[1]
        scores, (alpha, _) = ExactScores.of(MEAN, STD), SCHEDULE.at(NODES.t)
        fake, real = (score(x_t, NODES.t) - x_t / alpha for score in (scores.fake, scores.real))
        written = NODES.field((1 - beta) * fake - real)
        found = field(Dmd(normaliser=False, entropy_weight=beta))(MEAN, STD)
        assert found == pytest.approx(written, abs=1e-10)

    def test_descending_it_leaves_no_spread(self):
        """Gradient descent by quadrature; the same steps without the weight keep the spread of the reverse KL."""
        nodes, left = Nodes(num_levels=12, num_normal=31, reach=7.0), {}
        for beta in (0.0, 1.0):
            loss, mean, std = Dmd(normaliser=False, entropy_weight=beta), MEAN, STD
            for _ in range(150):
                x0_hat, x_t = nodes.frames(mean, std)
                scores = ExactScores.of(mean, std)
                slopes = nodes.field(loss.gradient(rollout_of(x0_hat), scores, x_t, nodes.t, schedule=SCHEDULE))
                mean, std = mean - 0.5 * slopes[0], std - 0.5 * slopes[1]
            left[beta] = abs(std)
        assert left[1] < 0.02
        assert left[0] > 0.7


class TestNormaliser:
    """The teacher's mean error."""

    @pytest.mark.parametrize(
        ("loss", "dims"),
        [
            (Dmd(), (1, 2, 3, 4)),
            (Dmd(score_level="independent"), (1, 2, 3, 4)),
            (Dmd(space="score"), (1, 2, 3, 4)),
            (Dmd(space="score", score_level="independent"), (2, 3, 4)),
        ],
    )
    def test_it_is_of_a_frame_where_every_frame_has_its_own_weight(self, loss, dims, rng):
        x, x_t = torch.randn(2, 2, 3, 1, 2, 2, generator=rng, dtype=torch.float64)
        t = torch.tensor([[0.2, 0.5, 0.9], [0.7, 0.1, 0.4]], dtype=torch.float64)
        scores = ExactScores.of(MEAN, STD)
        fake, real = scores.fake(x_t, t), scores.real(x_t, t)
        alpha, sigma = SCHEDULE.at(t)
        weight = (alpha / sigma) ** 2 if loss.space == "score" else 1.0
        expected = weight * (fake - real) / (x - real).abs().mean(dim=dims, keepdim=True)
        found = loss.gradient(rollout_of(x), scores, x_t, t, schedule=SCHEDULE)
        assert torch.allclose(found, expected, rtol=1e-12)

    def test_without_it_the_gradient_is_alpha_times_the_difference_of_scores(self, rng):
        x, x_t = torch.randn(2, 2, 3, 1, 2, 2, generator=rng, dtype=torch.float64)
        t = torch.tensor([[0.2, 0.5, 0.9], [0.7, 0.1, 0.4]], dtype=torch.float64)
        found = Dmd(space="score", normaliser=False).gradient(
            rollout_of(x), ExactScores.of(MEAN, STD), x_t, t, schedule=SCHEDULE
        )
        for clip in range(2):
            for frame in range(3):
                level, values = t[clip, frame], x_t[clip, frame].flatten()
                fake, real = (flow(law, level).score(values) for law in (gaussian(MEAN, STD), SKEWED))
                expected = (1 - level) * (fake - real)
                assert torch.allclose(found[clip, frame].flatten(), expected, rtol=1e-9, atol=1e-12)


def test_the_weight_of_the_entropy_says_what_is_minimised():
    assert Dmd().measure == "reverse KL, averaged over noise, of {judged}"
    assert Dmd(entropy_weight=1.0).measure == "cross-entropy with data, averaged over noise, of {judged}"
    assert "0.25 times the entropy" in Dmd(entropy_weight=0.25).measure
    assert Dmd(score_level="independent").measure == "nearly the reverse KL, averaged over noise, of {judged}"
    assert Dmd(score_level="independent", space="score").measure == Dmd().measure


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"critic_updates": 0}, "critic_updates must be at least 1, got 0"),
        ({"score_level": "each"}, "score_level must be one of shared, independent, got 'each'"),
        ({"level_min": 0.9, "level_max": 0.1}, "0 < level_min < level_max < 1 must hold, got 0.9 and 0.1"),
        ({"space": "eps"}, "space must be one of x0, score, got 'eps'"),
        ({"entropy_weight": 1.5}, r"entropy_weight must be in \(-inf, 1\], got 1.5"),
        ({"entropy_weight": float("nan")}, r"entropy_weight must be in \(-inf, 1\], got nan"),
    ],
)
def test_dmd_refuses_impossible_parameters(fields, says):
    with pytest.raises(ValueError, match=says):
        Dmd(**fields)


def test_the_regression_term_adds_its_gradient_at_its_weight(rng):
    clips, eps = torch.randn(2, 3, 2, 1, 1, 1, generator=rng, dtype=torch.float64)
    t = torch.full((3, 2), 0.7, dtype=torch.float64)
    x_t = 0.3 * clips + 0.7 * eps
    teacher = FlowOfSkewed()
    critics = ExactScores(Exact(gaussian(MEAN, STD)), teacher)

    def slope(loss):
        x0_hat = clips.clone().requires_grad_(True)
        rollout = Rollout(x0_hat, x_t, t, torch.ones_like(t), target=None, denoise=lambda x, *_: x)
        draws = torch.Generator().manual_seed(1)
        value = loss.student_loss(rollout, clips, critics, schedule=SCHEDULE, rng=draws)
        return torch.autograd.grad(value, x0_hat)[0]

    regression = Kd(num_steps=2)
    both, alone = slope(Dmd(regression_weight=0.25, regression=regression)), slope(Dmd())
    x0_hat = clips.clone().requires_grad_(True)
    rollout = Rollout(x0_hat, x_t, t, torch.ones_like(t), target=None, denoise=lambda x, *_: x)
    value = regression.student_loss(rollout, clips, teacher, schedule=SCHEDULE, rng=rng)
    (added,) = torch.autograd.grad(value, x0_hat)
    assert added.abs().max() > 1e-3
    assert torch.allclose(both - alone, 0.25 * added, rtol=1e-10, atol=1e-14)


def test_dmd_says_that_it_regresses_beside():
    assert "and 0.25 times a regression of the ends" in Dmd(regression_weight=0.25).measure
    with pytest.raises(ValueError, match=r"regression_weight must be at least 0, got -1\.0"):
        Dmd(regression_weight=-1.0)

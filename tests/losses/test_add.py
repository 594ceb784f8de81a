"""ADD: the pull of a stopped target, its adversary beside it, and what it collapses to without one."""

import pytest
import torch

from pipeline.config import REGISTRIES
from pipeline.diffusion.schedule import FlowMatching, add_noise
from pipeline.losses.add import LEVEL_WEIGHTS, Add
from pipeline.losses.gan import Gan
from pipeline.losses.loss import Loss
from pipeline.losses.scores import draw_score_levels
from pipeline.schema import ConfigError, Schema
from pipeline.streams import noise_like
from tests.losses.line import rollout_of
from tests.losses.reach import reached, tiny


@pytest.fixture
def frames(rng):
    return torch.randn(4, 3, 1, 4, 4, generator=rng).requires_grad_(True)


def at_noise(loss, x0_hat, seed=1):
    """The levels and the noised frames that a loss draws, and the generator after it."""
    rng = torch.Generator().manual_seed(seed)
    levels = {"score_level": loss.score_level, "level_min": loss.level_min, "level_max": loss.level_max}
    t = draw_score_levels(x0_hat, **levels, rng=rng)
    return t, add_noise(FlowMatching(), x0_hat.detach(), noise_like(x0_hat, rng), t), rng


@pytest.mark.parametrize("level_weight", LEVEL_WEIGHTS)
def test_the_pull_is_towards_the_teachers_answer_and_twice_the_weight_of_its_level(level_weight, frames):
    loss = Add(level_weight=level_weight, score_level="independent")
    critics, (t, x_t, _) = loss.critics(tiny()), at_noise(loss, frames)
    distances = loss.distances(rollout_of(frames), critics, x_t, t, schedule=FlowMatching())
    (slope,) = torch.autograd.grad(distances.sum(), frames)
    level = t[:, :, None, None, None]
    weight = {"alpha": 1 - level, "score": ((1 - level) / level) ** 2, "uniform": torch.ones_like(level)}
    expected = 2 * weight[level_weight] * (frames - critics.real(x_t, t))
    assert torch.allclose(slope, expected, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_distance_and_the_weighted_adversarial_term(frames):
    loss = Add(gan_weight=0.7, gan=Gan(objective="saturating"))
    critics, rollout, clips = loss.critics(tiny()), rollout_of(frames), torch.randn_like(frames)
    t, x_t, rng = at_noise(loss, frames)
    distance = loss.distances(rollout, critics, x_t, t, schedule=FlowMatching()).mean()
    adversarial = loss.gan.student_loss(rollout, clips, critics.adversary, schedule=FlowMatching(), rng=rng)
    found = loss.student_loss(
        rollout, clips, critics, schedule=FlowMatching(), rng=torch.Generator().manual_seed(1)
    )
    assert found.item() == pytest.approx((distance + 0.7 * adversarial).item(), rel=1e-6)
    assert adversarial.item() < 0


def test_the_critics_learn_as_those_of_its_gan(frames):
    loss = Add(gan=Gan(critic_updates=3, r1_weight=0.5))
    critics, rollout, clips = loss.critics(tiny()), rollout_of(frames), torch.randn_like(frames)
    assert loss.critic_updates == 3
    one, same = torch.Generator().manual_seed(2), torch.Generator().manual_seed(2)
    found = loss.critic_loss(rollout, clips, critics, schedule=FlowMatching(), rng=one)
    expected = loss.gan.critic_loss(rollout, clips, critics.adversary, schedule=FlowMatching(), rng=same)
    assert found.item() == expected.item()


def test_gradients_reach_the_student_alone_and_the_adversary_alone():
    assert reached(Add()) == ({"student"}, {"adversary"})


def test_add_says_what_its_adversary_minimises():
    measure = Add(gan_weight=2.0, gan=Gan(objective="saturating")).measure
    assert measure.startswith("cross-entropy with data, averaged over noise, and 2 times the Jensen-Shannon")
    assert measure.endswith("of {judged}")


def test_its_gan_is_a_section_of_its_parameters():
    schema = Schema(REGISTRIES)
    fields = {"name": "add", "gan_weight": 1.0, "gan": {"objective": "saturating", "critic_updates": 2}}
    assert schema.build(Loss, fields, "loss") == Add(
        gan_weight=1.0, gan=Gan(objective="saturating", critic_updates=2)
    )
    with pytest.raises(ConfigError, match=r"^loss.gan: objective must be one of .*, got 'hinge'"):
        schema.build(Loss, {"name": "add", "gan": {"objective": "hinge"}}, "loss")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"level_weight": "snr"}, "level_weight must be one of alpha, score, uniform, got 'snr'"),
        ({"gan_weight": 0.0}, "gan_weight must be above 0, got 0.0"),
        ({"score_level": "each"}, "score_level must be one of shared, independent, got 'each'"),
        ({"level_min": 0.0}, "0 < level_min < level_max < 1 must hold, got 0.0 and 0.98"),
    ],
)
def test_add_refuses_impossible_parameters(fields, says):
    with pytest.raises(ValueError, match=says):
        Add(**fields)

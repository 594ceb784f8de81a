"""Mean flow: the average velocity, its derivative, and what moves."""

import dataclasses

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.diffusion.schedule import Cosine, FlowMatching
from pipeline.interfaces import Rollout
from pipeline.losses import mean_flow
from pipeline.losses.mean_flow import MeanFlow, Span, average_velocity, level_of, slope
from pipeline.models.denoiser import Denoiser
from tests.cells import make_cell

SCHEDULE = FlowMatching()
STD = 0.5  # of Gaussian data
PLAIN = MeanFlow(power=0.0)


def gaussian_average(z, share, end):
    """The flow takes z of variance (1 - s)^2 STD^2 + s^2 from s to r by its standard deviation."""
    before, after = (((1 - s) ** 2 * STD**2 + s**2).sqrt() for s in (share, end))
    steps = (share - end).where(share > end, 1.0)
    instant = (share - (1 - share) * STD**2) / before**2
    return z * torch.where(share > end, (1 - after / before) / steps, instant)


def rollout_of(x0, denoise, *, counts=None, t=None, x_t=None):
    t = torch.full(x0.shape[:2], 0.5, dtype=x0.dtype) if t is None else t
    counts = torch.ones_like(t) if counts is None else counts
    return Rollout(x0, x0 if x_t is None else x_t, t, counts=counts, target=x0, denoise=denoise)


def wide(values):
    return values[:, :, None, None, None]


def told(attention="causal"):
    """A student with an end level, no weight of which is 0."""
    torch.manual_seed(0)
    spec = make_cell(attention=attention).denoiser
    student = Denoiser(dataclasses.replace(spec, backbone=dataclasses.replace(spec.backbone, end_level=True)))
    for parameter in student.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return student


class TestGaussianData:
    """Four points stand for the mean over data and noise, in which the gradient is quadratic."""

    def slope_at(self, gain, share, end, monkeypatch, *, heeds_end=True):
        """Of the loss, by the gain of the exact answer, at one span."""
        x0, eps = torch.cartesian_prod(*[torch.tensor([1.0, -1.0], dtype=torch.float64)] * 2).T
        x0, eps = wide(STD * x0[:, None]), wide(eps[:, None])
        at, to = (torch.full((4, 1), s, dtype=torch.float64) for s in (share, end))
        span = Span(at, to, torch.full((4, 1), share > end))
        monkeypatch.setattr(MeanFlow, "draw", lambda *_: span)
        monkeypatch.setattr(mean_flow, "noise_like", lambda *_: eps)
        factor = torch.tensor(gain, dtype=torch.float64, requires_grad=True)

        def denoise(x_t, t, to):
            to = to if heeds_end else t
            return x_t - wide(t) * factor * gaussian_average(x_t, wide(t), wide(to))

        rng, made = torch.Generator(), rollout_of(x0, denoise)
        loss = PLAIN.student_loss(made, x0, torch.nn.Module(), schedule=SCHEDULE, rng=rng)
        return torch.autograd.grad(loss, factor)[0].item()

    @pytest.mark.parametrize(("share", "end"), [(0.9, 0.1), (0.5, 0.4), (0.3, 0.001), (0.99, 0.0005), (0.6, 0.6)])
    def test_the_exact_average_velocity_is_a_fixed_point(self, share, end, monkeypatch):
        assert self.slope_at(1.0, share, end, monkeypatch) == pytest.approx(0.0, abs=1e-5)
        above, below = (self.slope_at(gain, share, end, monkeypatch) for gain in (1.2, 0.8))
        assert above == pytest.approx(-below, rel=1e-3)
        assert abs(above) > 0.01

    def test_a_student_that_does_not_heed_the_end_is_not(self, monkeypatch):
        assert abs(self.slope_at(1.0, 0.9, 0.1, monkeypatch, heeds_end=False)) > 0.1


def test_where_nothing_goes_it_is_flow_matching(rng):
    student, x0 = told("full"), torch.randn(6, 4, 2, 2, 2, generator=rng)
    loss = dataclasses.replace(PLAIN, step_share=0.0)
    found = loss.student_loss(
        rollout_of(x0, student), x0, torch.nn.Module(), schedule=SCHEDULE, rng=torch.Generator().manual_seed(3)
    )
    again = torch.Generator().manual_seed(3)
    t = loss.draw(rollout_of(x0, student), again).share.float()
    eps = torch.randn(x0.shape, generator=again)
    z = (1 - wide(t)) * x0 + wide(t) * eps
    error = (z - student(z, t, t)) / wide(t) - (eps - x0)
    assert found.item() == pytest.approx(error.square().sum(dim=(2, 3, 4)).mean().item(), rel=1e-4)


@pytest.mark.parametrize("attention", ["causal", "full"])
def test_the_difference_is_the_derivative_along_the_path(attention, rng):
    student = told(attention)
    x0, eps = torch.randn(2, 8, 4, 2, 2, 2, generator=rng)
    share = 0.1 + 0.8 * torch.rand(8, 4, generator=rng)
    goes = torch.tensor([[True, False, True, False]]).repeat(8, 1)
    end = torch.where(goes, share * torch.rand(8, 4, generator=rng), share)

    def average(at):
        t = at.float()
        return average_velocity((1 - wide(t)) * x0 + wide(t) * eps, t, end, student, schedule=SCHEDULE)

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        exact = torch.func.jvp(lambda t: average(t).velocity, (share,), (goes.float(),))[1]
        found = slope(average, Span(share.double(), end.double(), goes))
    assert (found - exact)[goes].norm() < 0.01 * exact[goes].norm()
    assert exact[goes].abs().max() > 1.0
    assert not found[~goes].any()


def test_every_schedule_and_prediction_asks_alike(rng):
    """A student that knows frames by z and shares alone has one loss."""
    x0, values = torch.randn(6, 4, 2, 2, 2, generator=rng), []
    for schedule in (SCHEDULE, Cosine()):

        def denoise(x_t, t, end, schedule=schedule):
            at, to = (schedule.at(level) for level in (t, end))
            share, left = (c.sigma / (c.alpha + c.sigma) for c in (at, to))
            return torch.tanh(x_t / (at.alpha + at.sigma)) * (1 + share - 0.5 * left)

        seeded = torch.Generator().manual_seed(1)
        made = rollout_of(x0, denoise)
        values.append(MeanFlow().student_loss(made, x0, torch.nn.Module(), schedule=schedule, rng=seeded).item())
    assert values[1] == pytest.approx(values[0], rel=1e-3)
    assert level_of(torch.tensor([[0.3]]).double(), SCHEDULE).item() == pytest.approx(0.3)


def test_context_stays_and_one_level_of_a_clip_goes_at_a_time(rng):
    student, asked = told(), []
    x0, x_t = torch.randn(2, 16, 4, 2, 2, 2, generator=rng)
    t = torch.tensor([[0.0, 0.3, 0.3, 1.0]]).repeat(16, 1)
    counts = torch.tensor([[0.0, 1.0, 1.0, 0.0]]).repeat(16, 1)

    def denoise(x_t, t, end):
        asked.append((x_t, t, end, torch.is_grad_enabled()))
        return student(x_t, t, end)

    made = rollout_of(x0, denoise, counts=counts, t=t, x_t=x_t)
    loss = MeanFlow(step_share=1.0)
    loss.student_loss(made, x0, torch.nn.Module(), schedule=SCHEDULE, rng=rng).backward()
    assert [grad for *_, grad in asked] == [True, False, False]
    for x, level, end, _ in asked:
        for frame in (0, 3):
            assert torch.equal(x[:, frame], x_t[:, frame])
            assert torch.equal(level[:, frame], t[:, frame])
            assert torch.equal(end[:, frame], t[:, frame])
        assert torch.equal(level[:, 1], level[:, 2])
        assert (end[:, 1:3] < level[:, 1:3]).all()
    assert all(p.grad is not None for p in student.parameters())
    own = rollout_of(x0, student, t=torch.rand(16, 4, generator=rng))
    assert torch.equal(loss.draw(own, rng).goes.sum(1), torch.ones(16, dtype=torch.long))


def test_shares_have_the_published_law(rng):
    x0 = torch.zeros(40_000, 2, 1, 1, 1)
    span = MeanFlow().draw(rollout_of(x0, told()), rng)
    assert torch.equal(span.share[:, 0], span.share[:, 1])
    assert span.goes.float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(span.goes, span.end < span.share)
    pairs = torch.stack([span.share[:, 0], span.end[:, 0]])[:, span.goes[:, 0]].logit()
    assert pairs.mean().item() == pytest.approx(-0.4, abs=0.02)
    assert pairs.std().item() == pytest.approx(1.0, abs=0.02)
    apart = MeanFlow().draw(rollout_of(x0, told(), t=torch.rand(40_000, 2, generator=rng)), rng)
    assert apart.goes.float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert not apart.goes.all(1).any()


def test_the_weight_is_the_error_to_its_power_and_has_no_gradient(rng):
    x0 = torch.randn(6, 4, 2, 2, 2, generator=rng)
    student = told("full")

    def gradient(loss):
        seeded = torch.Generator().manual_seed(2)
        value = loss.student_loss(rollout_of(x0, student), x0, torch.nn.Module(), schedule=SCHEDULE, rng=seeded)
        return value.item(), torch.autograd.grad(value, student.backbone.head.weight)[0]

    value, pull = gradient(MeanFlow(power=1.0, offset=1e-6))
    assert value == pytest.approx(1.0, abs=1e-4)  # error / error
    assert pull.abs().max() > 1e-3  # and yet not flat
    plain, far = (gradient(MeanFlow(power=p, offset=1e6)) for p in (0.0, 1.0))
    assert far[0] * 1e6 == pytest.approx(plain[0], rel=1e-3)
    assert torch.allclose(far[1] * 1e6, plain[1], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"std": 0.0}, "std must be above 0, got 0.0"),
        ({"offset": 0.0}, "offset must be above 0, got 0.0"),
        ({"step_share": 1.5}, r"step_share must be in \[0, 1\], got 1.5"),
        ({"power": -1.0}, "power must be at least 0, got -1.0"),
        ({"mean": float("nan")}, "mean must be in"),
    ],
)
def test_mean_flow_refuses_impossible_parameters(fields, says):
    with pytest.raises(ValueError, match=says):
        MeanFlow(**fields)

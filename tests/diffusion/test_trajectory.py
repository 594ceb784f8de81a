"""Steps of a sampler: identities between them, and closed forms."""

import math
from itertools import pairwise

import pytest
import torch

from pipeline.diffusion import trajectory
from pipeline.diffusion.schedule import Cosine, Ddpm, EdmSampling, FlowMatching, VpLinear, add_noise
from pipeline.diffusion.trajectory import DDIM, DDPM, PURE_NOISE, STEPS, Euler, Heun, Renoise, ends

MEAN, VARIANCE = 0.3, 0.19
EVERY_STEP = [Renoise(), DDPM(), DDIM(), DDIM(eta=0.5), Euler(), Heun()]
FAMILIES = ("variance_preserving", "variance_exploding", "flow")


def gaussian_denoiser(schedule, mean=MEAN, variance=VARIANCE):
    """E[x0 | x_t] of x0 ~ N(mean, variance)."""

    def denoise(x_t, t):
        alpha, sigma = schedule.at(t)
        return mean + variance * alpha * (x_t - alpha * mean) / (variance * alpha**2 + sigma**2)

    return denoise


def answering(value):
    """A function of two things that says the same whatever it is asked."""
    return lambda first, second: value  # noqa: ARG005


def levels(*values):
    """The same levels for all of two clips: (2, T)."""
    return torch.tensor([values, values], dtype=torch.float64)


def frames(rng, num_frames):
    return torch.randn(2, num_frames, 1, 2, 2, generator=rng, dtype=torch.float64)


def chain(step, schedule, x, ts, denoise, rng):
    """x taken from ts[0] down to ts[-1]."""
    for t, t_next in pairwise(ts):
        x = step(schedule, x, *(torch.full(x.shape[:2], float(u)).to(x) for u in (t, t_next)), denoise, rng)
    return x


@pytest.mark.parametrize("schedule", [FlowMatching(2.0), VpLinear(), Cosine(family="variance_exploding")])
def test_euler_in_edm_coordinates_is_ddim_without_fresh_noise(schedule, rng):
    x_t, t, t_next = frames(rng, 4), levels(0.999, 0.8, 0.3, 0.3), levels(0.5, 0.7, 0.0, 0.3)
    denoise = gaussian_denoiser(schedule)
    euler, ddim = (step(schedule, x_t, t, t_next, denoise, rng) for step in (Euler(), DDIM(eta=0.0)))
    assert torch.allclose(euler, ddim, rtol=1e-12, atol=1e-12)


def test_euler_is_eulers_step_of_the_slope_in_edm_coordinates(rng):
    schedule = VpLinear()
    x_t, t, t_next = frames(rng, 2), levels(0.9, 0.5), levels(0.7, 0.1)
    denoise = gaussian_denoiser(schedule)
    (a, s), (a_next, s_next) = schedule.at(t), schedule.at(t_next)
    y = x_t / a
    slope = (y - denoise(x_t, t)) / (s / a)
    expected = a_next * (y + (s_next / a_next - s / a) * slope)
    assert torch.allclose(Euler()(schedule, x_t, t, t_next, denoise, rng), expected, rtol=1e-12)
    x_euler = expected
    slope_next = (x_euler / a_next - denoise(x_euler, t_next)) / (s_next / a_next)  # EDM, algorithm 1, line 7
    expected = a_next * (y + (s_next / a_next - s / a) * (slope + slope_next) / 2)
    assert torch.allclose(Heun()(schedule, x_t, t, t_next, denoise, rng), expected, rtol=1e-10)


def test_on_the_straight_path_euler_is_also_eulers_step_in_t(rng):
    x_t, t, t_next = frames(rng, 1), levels(0.8), levels(0.5)
    x0_hat = frames(rng, 1)
    found = Euler()(FlowMatching(), x_t, t, t_next, answering(x0_hat), rng)
    assert torch.allclose(found, x_t + (0.5 - 0.8) * (x_t - x0_hat) / 0.8, rtol=1e-12)


@pytest.mark.parametrize("step", EVERY_STEP)
def test_a_step_is_the_same_in_all_families(step, rng):
    t, t_next = levels(0.99, 0.8, 0.3, 0.2, 0.6), levels(0.5, 0.7, 0.0, 0.2, 0.599)
    y = frames(rng, 5)
    found = []
    for family in FAMILIES:
        schedule = FlowMatching(shift=3.0, family=family)
        x = step(
            schedule,
            schedule.at(t).alpha * y,
            t,
            t_next,
            gaussian_denoiser(schedule),
            rng.clone_state().manual_seed(1),
        )
        found.append(x / schedule.at(t_next).alpha)
    assert torch.allclose(found[0], found[1], rtol=1e-9)
    assert torch.allclose(found[0], found[2], rtol=1e-9)
    assert not torch.allclose(found[0][:, :3], y[:, :3], rtol=0.01)


@pytest.mark.parametrize("step", EVERY_STEP)
@pytest.mark.parametrize("family", ["variance_preserving", "flow"])
def test_from_pure_noise_a_step_adds_the_denoisers_answer_to_noise(step, family, rng):
    schedule = FlowMatching(family=family)
    noise, t, t_next = frames(rng, 2), levels(1.0, 1.0), levels(0.6, 0.0)
    found = step(schedule, noise, t, t_next, gaussian_denoiser(schedule), rng)
    alpha, sigma = schedule.at(t_next)
    eps = (found - alpha * MEAN)[:, :1] / sigma[:, :1]  # the denoiser of noise knows only the mean
    is_kept = isinstance(step, Euler | Heun) or step == DDIM()
    if is_kept:
        assert torch.allclose(eps, noise[:, :1], atol=1e-12)
    else:
        assert eps.isfinite().all()
        assert abs(eps).max() < 5
        assert not torch.allclose(eps, noise[:, :1], atol=1e-2)
    assert torch.allclose(found[:, 1:], torch.tensor(MEAN).double())


@pytest.mark.parametrize("step", EVERY_STEP)
def test_a_step_to_clean_frames_is_the_denoisers_answer_in_one_call_and_draws_nothing(step, rng):
    schedule, calls = VpLinear(), []
    denoise = gaussian_denoiser(schedule)
    x_t, t = frames(rng, 3), levels(1.0, 0.5, 1e-3)
    state = rng.get_state()
    found = step(schedule, x_t, t, torch.zeros_like(t), lambda x, t: calls.append(t) or denoise(x, t), rng)
    assert torch.equal(found, denoise(x_t, t))
    assert len(calls) == 1
    assert torch.equal(rng.get_state(), state)


@pytest.mark.parametrize("step", EVERY_STEP)
def test_frames_whose_level_stays_do_not_change_and_the_others_do_not_notice(step, rng):
    schedule, calls = Cosine(), []
    denoise = gaussian_denoiser(schedule)
    x_t, t, t_next = frames(rng, 4), levels(0.0, 0.4, 0.9, 1.0), levels(0.0, 0.4, 0.2, 1.0)
    seeds = (torch.Generator().manual_seed(3) for _ in range(2))
    found = step(schedule, x_t, t, t_next, lambda x, t: calls.append(t) or denoise(x, t), next(seeds))
    assert torch.equal(found[:, [0, 1, 3]], x_t[:, [0, 1, 3]])
    assert len(calls) == step.num_calls
    moving = step(schedule, x_t, t.where(t == 0.9, 0.9), t_next.where(t == 0.9, 0.2), denoise, next(seeds))
    assert torch.allclose(found[:, 2], moving[:, 2], rtol=1e-12)


@pytest.mark.parametrize("step", EVERY_STEP)
def test_a_step_refuses_to_go_up_or_out_of_range(step, rng):
    schedule, x = FlowMatching(), frames(rng, 2)
    denoise = gaussian_denoiser(schedule)
    with pytest.raises(ValueError, match=r"t_next must be at most t, .* t_next=0.6 and t=0.5 of frame \(0, 1\)"):
        step(schedule, x, levels(0.5, 0.5), levels(0.4, 0.6), denoise, rng)
    with pytest.raises(ValueError, match=r"t must be in \[0, 1\]"):
        step(schedule, x, levels(0.5, 1.5), levels(0.4, 0.4), denoise, rng)
    with pytest.raises(ValueError, match="sigma must be finite: family=variance_exploding"):
        step(FlowMatching(family="variance_exploding"), x, levels(1.0, 0.5), levels(0.4, 0.4), denoise, rng)
    with pytest.raises(ValueError, match="t_next must have the shape of t"):
        ends(schedule, levels(0.5, 0.5), levels(0.4))


def test_the_registry_names_every_step_and_eta_is_a_share():
    assert [type(step) for step in EVERY_STEP if step != DDIM(eta=0.5)] == list(STEPS.values())
    assert {name: step.num_calls for name, step in STEPS.items() if step.num_calls > 1} == {"heun": 2}
    with pytest.raises(ValueError, match=r"eta must be in \[0, 1\], got 1.5"):
        DDIM(eta=1.5)


def test_ddpm_is_ddim_with_eta_1_draw_by_draw(rng):
    schedule = VpLinear()
    x_t, t, t_next = frames(rng, 3), levels(1.0, 0.6, 0.3), levels(0.7, 0.59, 0.0)
    found = [
        step(schedule, x_t, t, t_next, gaussian_denoiser(schedule), torch.Generator().manual_seed(2))
        for step in (DDPM(), DDIM(eta=1.0))
    ]
    assert torch.allclose(*found, rtol=1e-11)


@pytest.mark.parametrize("family", FAMILIES)
def test_ddpm_draws_from_the_posterior_of_the_forward_process(family, rng, monkeypatch):
    """Its mean and variance by conditioning the joint Gaussian of x_s and x_t given x_0."""
    schedule = Cosine(family=family)
    x_t, t, t_next, x0 = frames(rng, 1), levels(0.8), levels(0.5), frames(rng, 1)
    (a_t, s_t), (a_s, s_s) = schedule.at(t), schedule.at(t_next)
    covariance = a_t / a_s * s_s**2  # of x_s and x_t = (a_t / a_s) x_s + independent noise
    mean = a_s * x0 + covariance / s_t**2 * (x_t - a_t * x0)
    variance = s_s**2 - covariance**2 / s_t**2
    for n in (0.0, 1.7):
        monkeypatch.setattr(trajectory, "noise_like", answering(torch.full_like(x0, n)))
        found = DDPM()(schedule, x_t, t, t_next, answering(x0), rng)
        assert torch.allclose(found, mean + n * variance.sqrt(), rtol=1e-10)


def test_renoising_has_the_law_of_noised_frames(rng):
    x = torch.full((4_000, 1, 1, 2, 2), 2.0)
    t, t_next = torch.full((4_000, 1), 0.5), torch.full((4_000, 1), 0.25)
    found = Renoise()(FlowMatching(), torch.zeros_like(x), t, t_next, answering(x), rng)
    assert abs(found.mean() - 0.75 * 2) < 0.01
    assert abs(found.std() - 0.25) < 0.01


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_any_stochasticity_keeps_the_law_of_noised_frames_when_the_frame_is_known(eta, rng):
    schedule = Cosine()
    x0, eps = torch.randn(2, 20_000, 1, 1, 1, 1, generator=rng)
    t, t_next = torch.full((20_000, 1), 0.9), torch.full((20_000, 1), 0.4)
    found = DDIM(eta)(schedule, add_noise(schedule, x0, eps, t), t, t_next, answering(x0), rng)
    alpha, sigma = (c[0].item() for c in schedule.at(t_next))
    residual = (found - alpha * x0) / sigma
    noise_left = math.tan(0.2 * math.pi) / math.tan(0.45 * math.pi)
    correlation = (residual * eps).mean().item()
    assert residual.std().item() == pytest.approx(1, abs=0.02)
    assert correlation == pytest.approx(math.sqrt(1 - eta**2 * (1 - noise_left**2)), abs=0.03)


@pytest.mark.parametrize(("step", "order"), [(Euler(), 1), (Heun(), 2)])
@pytest.mark.parametrize("family", ["variance_preserving", "flow"])
def test_the_error_of_a_solver_falls_with_its_order(step, order, family, rng):
    """On a Gaussian the path is known: the distance from the mean goes with the standard deviation of y."""
    schedule = VpLinear(family=family)
    at = schedule.at(torch.tensor([[0.8, 0.1]], dtype=torch.float64))
    y = MEAN + torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)
    exact = MEAN + torch.sqrt(
        (VARIANCE + (at.sigma / at.alpha)[0, 1] ** 2) / (VARIANCE + (at.sigma / at.alpha)[0, 0] ** 2)
    )
    errors = []
    for num_steps in (80, 160, 320):
        ts = torch.linspace(0.8, 0.1, num_steps + 1, dtype=torch.float64)
        x = chain(step, schedule, at.alpha[:, :1] * y, ts, gaussian_denoiser(schedule), rng)
        errors.append((x / at.alpha[:, 1:] - exact).abs().item())
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(2**order, rel=0.05)


@pytest.mark.parametrize(
    ("num_steps", "kappa"), [(1, 0.0), (2, 0.3663), (4, 0.6629), (8, 0.8199), (16, 0.9062), (64, 0.9757)]
)
def test_few_steps_of_euler_shrink_a_gaussian_by_a_known_factor(num_steps, kappa, rng):
    """N(0, .19) from noise on the straight path, by 1 + (t' - t) u(t) a step; as a share of the right deviation."""
    schedule, deviation = FlowMatching(), math.sqrt(0.19)
    denoise = gaussian_denoiser(schedule, mean=0.0, variance=deviation**2)
    ts = [k / num_steps for k in range(num_steps, -1, -1)]
    unit = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)
    factor = chain(Euler(), schedule, unit, ts, denoise, rng).item() / deviation
    assert factor == pytest.approx(kappa, abs=5e-5)


@pytest.mark.parametrize(
    ("num_levels", "heun", "euler"),
    [(2, 40.0092144, 0.0144988673), (18, 1.04481464, 0.859526005), (160, 1.0004645, None)],
)
def test_steps_on_edms_levels_scale_a_unit_gaussian_as_its_closed_form_says(num_levels, heun, euler, rng):
    """Standard deviation at sigma_min after num_levels - 1 steps from sigma_max, data N(0, 1); exact: 1.000002."""
    schedule = EdmSampling(family="variance_exploding")
    start = torch.full((1, 1, 1, 1, 1), math.sqrt(1 + 80.0**2), dtype=torch.float64)
    ts = [k / (num_levels - 1) for k in range(num_levels - 1, -1, -1)]
    ts[-1] = 1e-12  # t = 0 is clean, sigma_min is just above
    denoise = gaussian_denoiser(schedule, mean=0.0, variance=1.0)
    assert chain(Heun(), schedule, start, ts, denoise, rng).item() == pytest.approx(heun, rel=1e-7)
    if euler is not None:
        assert chain(Euler(), schedule, start, ts, denoise, rng).item() == pytest.approx(euler, rel=1e-7)


def test_pure_noise_is_where_no_trained_network_was_asked_about_signal():
    """The noisiest ends of the schedules with a finite one lie below; those of infinite sigma / alpha above."""
    one = torch.ones(1, 1, dtype=torch.float64)
    noise_to_signal = {s: (s.at(one).sigma / s.at(one).alpha).item() for s in (Ddpm(), VpLinear(), EdmSampling())}
    assert max(noise_to_signal.values()) < PURE_NOISE / 50
    assert (Cosine().at(one).sigma / Cosine().at(one).alpha).item() > PURE_NOISE

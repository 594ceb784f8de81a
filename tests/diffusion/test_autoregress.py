"""The generation procedure: on a denoiser that writes down its calls, and against forwards without a cache."""

from itertools import pairwise

import pytest
import torch

from pipeline.diffusion.adaptive import AdaptiveSchedule, AdaptiveSpec
from pipeline.diffusion.autoregress import Sampler, generate, scheduling_matrix
from pipeline.diffusion.schedule import Cosine, EdmSampling, EdmTraining, FlowMatching, VpLinear, add_noise
from pipeline.diffusion.trajectory import DDIM, DDPM, Euler, Heun
from pipeline.diffusion.weighting import WEIGHTINGS
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec


class Scribe:
    """x0_hat = gain x_t + 0.1 (number of frames in the context); keeps levels, contexts and where gradient ran."""

    def __init__(self):
        self.gain = torch.tensor(0.5, requires_grad=True)
        self.calls, self.written = [], []

    def denoise_chunk(self, x_t, t, cache):
        context = 0 if cache is None else cache.shape[1]
        self.calls.append((t[:, 0].tolist(), context, torch.is_grad_enabled()))
        return self.gain * x_t + 0.1 * context

    def extend(self, cache, x, t, *, window):
        assert not x.requires_grad
        self.written.append((x, t))
        return x if cache is None else torch.cat([cache, x], 1)[:, -window:]


def roll(sampler, num_frames, rng, exit_steps=None, batch=3):
    scribe, noise = Scribe(), torch.randn(batch, num_frames, 1, 2, 2, generator=rng)
    made = generate(scribe, noise, schedule=FlowMatching(), sampler=sampler, rng=rng, exit_steps=exit_steps)
    return scribe, made


def test_sampling_calls_every_level_once_a_chunk_and_leaves_at_the_last(rng):
    scribe, made = roll(Sampler(num_steps=4, chunk_len=2), 4, rng)
    levels = [call[0][0] for call in scribe.calls]
    assert levels == [1.0, 0.75, 0.5, 0.25] * 2
    assert [call[1] for call in scribe.calls] == [0] * 4 + [2] * 4
    assert (made.t == 0.25).all()


def test_gradient_runs_in_one_call_a_chunk_and_never_through_the_cache(rng):
    exit_steps = torch.tensor([[0, 2], [1, 1], [2, 0]])
    scribe, made = roll(Sampler(num_steps=3, chunk_len=1), 2, rng, exit_steps)
    assert [call[2] for call in scribe.calls] == [False, False, True] * 2
    assert torch.allclose(made.t, 1 - exit_steps / 3)
    # every frame is gain x_t + constant with x_t and context detached, so d/dgain is the sum of the x_t
    (gradient,) = torch.autograd.grad(made.x0_hat.sum(), scribe.gain)
    assert gradient.item() == pytest.approx(made.x_t.sum().item(), rel=1e-5)


def test_each_clip_leaves_its_path_where_it_is_told(rng):
    scribe, early = roll(Sampler(num_steps=3), 1, rng, torch.zeros(3, 1, dtype=torch.long))
    noise = torch.randn(3, 1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(early.x_t, noise)  # exit step 0: predicted from pure noise
    assert len(scribe.calls) == 1  # nobody walks on


def test_context_noise_is_applied_exactly(rng):
    clean, _ = roll(Sampler(num_steps=1), 3, rng)
    assert all((t == 0).all() for _, t in clean.written)
    noisy, made = roll(Sampler(num_steps=1, context_noise=0.3), 3, rng, batch=4_000)
    written, t = noisy.written[0]
    assert torch.allclose(t, torch.tensor(0.3))
    residual = written - 0.7 * made.x0_hat[:, :1].detach()
    assert abs(residual.std() - 0.3) < 0.01


def test_a_longer_first_chunk_is_made_without_context(rng):
    scribe, made = roll(Sampler(num_steps=1, first_chunk_len=4, chunk_len=2, window=2), 8, rng)
    assert [call[1] for call in scribe.calls] == [0, 4, 2]
    assert made.x0_hat.shape[1] == 8


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"chunk_len": 0}, "chunk_len must be at least 1, got 0"),
        ({"context_noise": 1.0}, r"context_noise must be in \[0, 1\), got 1.0"),
        ({"lag": 5}, r"lag must be in \[0, num_steps\]: lag=5, num_steps=4"),
        ({"lag": -1}, r"lag must be in \[0, num_steps\]: lag=-1, num_steps=4"),
    ],
)
def test_a_sampler_refuses_what_it_cannot_do(fields, says):
    with pytest.raises(ValueError, match=says):
        Sampler(**fields)


def test_frames_that_do_not_fill_chunks_and_exits_beyond_the_steps_are_refused(rng):
    with pytest.raises(ValueError, match="T=7, chunk_len=3"):
        roll(Sampler(chunk_len=3), 7, rng)
    with pytest.raises(ValueError, match="exit_steps up to 2, num_steps=2"):
        roll(Sampler(num_steps=2), 1, rng, torch.full((3, 1), 2))
    with pytest.raises(ValueError, match=r"lag must be None with exit_steps, .* lag=1"):
        roll(Sampler(num_steps=2, lag=1), 1, rng, torch.full((3, 1), 1))


def test_few_step_levels_are_those_of_self_forcing():
    """Its warped steps 1000, 937.5, 833.333, 625: four steps at shift 5."""
    expected = (1.0, 0.9375, 0.8333333333, 0.625)
    assert Sampler(schedule=FlowMatching(shift=5.0)).levels(FlowMatching()) == pytest.approx(expected, abs=1e-9)
    assert Sampler(schedule=FlowMatching(shift=5.0)).levels(FlowMatching(shift=5.0)) == pytest.approx(
        (1.0, 0.75, 0.5, 0.25), abs=1e-12
    )


@pytest.mark.parametrize("network", [FlowMatching(2.0), Cosine(), VpLinear(), EdmSampling()])
def test_levels_are_where_the_network_has_the_log_snrs_of_the_sampler(network):
    spacing = EdmSampling(sigma_min=0.02, sigma_max=50.0)
    levels = torch.tensor(Sampler(num_steps=10, schedule=spacing).levels(network), dtype=torch.float64)
    u = torch.arange(10, 0, -1, dtype=torch.float64) / 10
    assert torch.allclose(network.log_snr(levels), spacing.log_snr(u), atol=1e-9)


def test_levels_do_not_change_when_training_draws_from_part_of_the_range():
    native = FlowMatching(2.0)
    adaptive = AdaptiveSchedule(AdaptiveSpec(), native, WEIGHTINGS["elbo"](), 1)
    sampler = Sampler(num_steps=1000)
    assert sampler.levels(adaptive) == sampler.levels(native)


def test_log_snrs_beyond_the_network_become_its_end_once():
    levels = Sampler(num_steps=4).levels(VpLinear())  # the straight path starts at -inf, this network at -10
    assert levels[0] == 1.0
    found = VpLinear().log_snr(torch.tensor(levels[1:], dtype=torch.float64)).tolist()
    assert found == pytest.approx([-2.1972245773, 0.0, 2.1972245773], abs=1e-9)
    with pytest.raises(ValueError, match="must go down to above 0, got 1 after 1: num_steps=1000"):
        Sampler(num_steps=1000).levels(VpLinear())
    with pytest.raises(ValueError, match=r"got 1 after 1: num_steps=1000 .* on EdmTraining"):  # 1 - 7e-12 and 1
        Sampler(num_steps=1000).levels(EdmTraining())
    narrow = EdmSampling(sigma_min=0.5)
    with pytest.raises(ValueError, match="must go down to above 0, got 0 after "):
        Sampler().levels(narrow)


def test_the_chain_starts_at_noise_of_the_first_level(rng):
    network = EdmSampling(family="variance_exploding")
    scribe, noise = Scribe(), torch.randn(3, 1, 1, 2, 2, generator=rng)
    sampler = Sampler(num_steps=1, schedule=EdmSampling(sigma_max=40.0))
    made = generate(scribe, noise, schedule=network, sampler=sampler, rng=rng)
    assert torch.allclose(made.x_t, 40 * noise, rtol=1e-4)
    with pytest.raises(ValueError, match="sigma must be finite"):
        generate(scribe, noise, schedule=FlowMatching(family="variance_exploding"), sampler=Sampler(), rng=rng)


def test_scheduling_matrices_are_autoregressive_full_sequence_or_a_pyramid():
    assert scheduling_matrix(2, 2, None).tolist() == [[0, 0], [1, 0], [2, 0], [2, 1], [2, 2]]
    assert scheduling_matrix(3, 2, 0).tolist() == [[0] * 3, [1] * 3, [2] * 3]
    assert scheduling_matrix(3, 2, 1).tolist() == [[0, 0, 0], [1, 0, 0], [2, 1, 0], [2, 2, 1], [2, 2, 2]]
    assert torch.equal(scheduling_matrix(4, 3, None), scheduling_matrix(4, 3, 3))


@pytest.mark.parametrize("lag", [0, 1, 2, 5])
def test_a_pyramid_holds_the_levels_of_diffusion_forcing(lag):
    """Row m is clip(K + floor(u f) - m, 0, K): levels, where ours are steps done; K + floor((n - 1) u) + 1 rows."""
    num_chunks, num_steps = 4, 5
    levels = num_steps - scheduling_matrix(num_chunks, num_steps, lag)
    rows = [
        [min(max(num_steps + lag * k - m, 0), num_steps) for k in range(num_chunks)]
        for m in range(num_steps + (num_chunks - 1) * lag + 1)
    ]
    assert levels.tolist() == rows
    assert all(0 <= move <= 1 for a, b in pairwise(rows) for move in (x - y for x, y in zip(a, b, strict=True)))


@pytest.mark.parametrize(("lag", "calls"), [(0, 4), (1, 6), (3, 10), (None, 12)])
def test_a_row_is_one_call_of_the_chunks_that_have_started_and_not_finished(lag, calls, rng):
    scribe, made = roll(Sampler(num_steps=4, lag=lag, step=DDIM()), 3, rng)
    assert len(scribe.calls) == calls
    assert len(scribe.written) == (0 if lag == 0 else 2)  # what nobody follows is not remembered
    assert (made.t == 0.25).all()
    assert made.caches[0] is None
    heun, _ = roll(Sampler(num_steps=4, lag=lag, step=Heun()), 3, rng)
    if lag in (0, None):  # Euler's from pure noise, one call at the end
        assert len(heun.calls) == calls + 2 * (calls // 4)


def test_gradient_of_a_cascade_runs_in_the_last_call_of_each_chunk(rng):
    scribe, made = roll(Sampler(num_steps=2, lag=1, step=DDIM()), 3, rng)
    assert [call[2] for call in scribe.calls] == [False, True, True, True]
    (gradient,) = torch.autograd.grad(made.x0_hat.sum(), scribe.gain)
    assert gradient.item() == pytest.approx(made.x_t.sum().item(), rel=1e-5)


def lively(schedule, chunk_len=1, attention="causal"):
    """A small denoiser whose every weight matters."""
    torch.manual_seed(0)
    spec = BackboneSpec(
        channels=1, frame_size=4, patch=2, width=16, depth=2, num_heads=2, chunk_len=chunk_len, attention=attention
    )
    denoiser = Denoiser(DenoiserSpec(spec, "flow_velocity", schedule))
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return denoiser


@torch.no_grad()
def without_cache(denoiser, noise, sampler, rng):
    """Every row one parallel forward over all frames at their levels, under the causal mask; steps draw nothing."""
    schedule, num_steps = denoiser.spec.schedule, sampler.num_steps
    levels = torch.tensor((*sampler.levels(schedule), 0.0))
    chunks = sampler.chunks(noise.shape[1])
    x0 = torch.zeros_like(noise)
    t = torch.ones(noise.shape[:2]) * levels[0]
    x = schedule.at(t).sigma * noise
    for before, after in pairwise(scheduling_matrix(len(chunks), num_steps, sampler.lag).tolist()):
        t_next = t.clone()
        for chunk, i, j in zip(chunks, before, after, strict=True):
            if j > i:
                t_next[:, chunk] = levels[j]
        x = sampler.step(schedule, x, t, t_next, denoiser, rng)
        t = t_next
        for chunk, i, j in zip(chunks, before, after, strict=True):
            if i < j == num_steps:
                x0[:, chunk] = x[:, chunk]
                if sampler.context_noise > 0 and chunk.stop < noise.shape[1]:
                    t[:, chunk] = sampler.context_noise
                    fresh = torch.randn(x[:, chunk].shape, generator=rng)
                    x[:, chunk] = add_noise(schedule, x[:, chunk], fresh, t[:, chunk])
    return x0


@pytest.mark.parametrize("context_noise", [0.0, 0.2])
@pytest.mark.parametrize("step", [DDIM(), Heun()])
@pytest.mark.parametrize(
    ("lag", "chunk_len"), [(None, 1), (None, 2), (0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (3, 2)]
)
def test_any_matrix_with_the_cache_equals_parallel_forwards_without(lag, chunk_len, step, context_noise, rng):
    denoiser = lively(FlowMatching(2.0), chunk_len)
    sampler = Sampler(num_steps=4, step=step, lag=lag, chunk_len=chunk_len, window=6, context_noise=context_noise)
    noise = torch.randn(3, 6, 1, 4, 4, generator=rng)
    with torch.no_grad():
        found = generate(
            denoiser, noise, schedule=denoiser.spec.schedule, sampler=sampler, rng=torch.Generator().manual_seed(1)
        ).x0_hat
    expected = without_cache(denoiser, noise, sampler, torch.Generator().manual_seed(1))
    assert torch.allclose(found, expected, atol=1e-4)
    if lag is not None:
        other = Sampler(num_steps=4, step=step, chunk_len=chunk_len, window=6, context_noise=context_noise)
        one_by_one = without_cache(denoiser, noise, other, torch.Generator().manual_seed(1))
        assert not torch.allclose(found[:, chunk_len:], one_by_one[:, chunk_len:], atol=1e-2)


def test_full_attention_makes_a_whole_clip_together_and_a_cascade_in_context(rng):
    denoiser = lively(FlowMatching(), attention="full")
    noise = torch.randn(2, 4, 1, 4, 4, generator=rng)
    sampler = Sampler(num_steps=3, step=DDIM(), lag=0)
    with torch.no_grad():
        made = generate(denoiser, noise, schedule=FlowMatching(), sampler=sampler, rng=rng)
        assert torch.allclose(made.x0_hat, without_cache(denoiser, noise, sampler, rng), atol=1e-5)
        cascade = Sampler(num_steps=2, step=DDIM(), lag=1)
        made = generate(denoiser, noise[:, :2], schedule=FlowMatching(), sampler=cascade, rng=rng)
        both = torch.cat([made.x0_hat[:, :1], made.x_t[:, 1:]], 1)  # the last row: the first frame is context
        t = torch.cat([torch.zeros(2, 1), made.t[:, 1:]], 1)
        assert torch.allclose(denoiser(both, t)[:, 1:], made.x0_hat[:, 1:], atol=1e-5)


@pytest.mark.parametrize("step", [DDPM(), DDIM(0.5), Euler(), Heun()])
def test_every_step_in_a_cascade_draws_the_data_of_a_known_denoiser(step, rng):
    """Independent frames of N(0.5, 0.3^2), exactly denoised: many steps give their mean and deviation."""
    schedule = Cosine()

    class Exact:
        def denoise_chunk(self, x_t, t, cache):
            alpha, sigma = schedule.at(t)
            return 0.5 + 0.09 * alpha * (x_t - 0.5 * alpha) / (0.09 * alpha**2 + sigma**2)

        def extend(self, cache, x, t, *, window):
            return None

    sampler = Sampler(num_steps=200, step=step, lag=70, schedule=Cosine())
    noise = torch.randn(8_000, 2, 1, 1, 1, generator=rng)
    made = generate(Exact(), noise, schedule=schedule, sampler=sampler, rng=rng).x0_hat
    assert made.mean((0, 2, 3, 4)).tolist() == pytest.approx([0.5, 0.5], abs=0.015)
    assert made.std((0, 2, 3, 4)).tolist() == pytest.approx([0.3, 0.3], rel=0.05)

"""The generation procedure, on a denoiser that writes down how it was called."""

import pytest
import torch

from pipeline.diffusion.autoregress import Sampler, generate
from pipeline.diffusion.schedule import FlowMatching


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
    _, early = roll(Sampler(num_steps=3), 1, rng, torch.zeros(3, 1, dtype=torch.long))
    noise = torch.randn(3, 1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(early.x_t, noise)  # exit step 0: predicted from pure noise


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
        ({"step": "euler"}, "step must be one of renoise, ddim, got 'euler'"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"chunk_len": 0}, "chunk_len must be at least 1, got 0"),
        ({"context_noise": 1.0}, r"context_noise must be in \[0, 1\), got 1.0"),
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

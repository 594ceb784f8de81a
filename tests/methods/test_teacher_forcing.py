"""Teacher forcing: what a frame is denoised after, and what is judged."""

import pytest
import torch

from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.schedule import FlowMatching, add_noise
from pipeline.losses.dmd import Dmd
from pipeline.losses.gan import Gan
from pipeline.methods.teacher_forcing import TeacherForcing
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec

RHO = 0.8  # correlation of two successive frames of data


def lively(chunk_len=1):
    torch.manual_seed(0)
    spec = BackboneSpec(channels=1, frame_size=4, patch=4, width=16, depth=2, num_heads=2, chunk_len=chunk_len)
    denoiser = Denoiser(DenoiserSpec(spec))
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return denoiser


def roll(method, student, clips, seed=2):
    return method.rollout(student, clips, schedule=FlowMatching(), rng=torch.Generator().manual_seed(seed))


def test_every_frame_is_denoised_after_the_clean_frames_of_data_at_a_level_of_its_own(rng):
    student, clips = lively(), torch.randn(8, 4, 1, 4, 4, generator=rng)
    made = roll(TeacherForcing(), student, clips)
    assert made.target is clips
    assert (made.counts == 1).all()
    assert len(made.t.unique()) == made.t.numel()
    for frame in range(4):
        cache = student.extend(None, clips[:, :frame], torch.zeros(8, frame), window=4) if frame else None
        alone = student.denoise_chunk(made.x_t[:, frame : frame + 1], made.t[:, frame : frame + 1], cache)
        assert torch.allclose(made.x0_hat[:, frame : frame + 1], alone, atol=1e-5)
    assert torch.equal(made.denoise(made.x_t, made.t), made.x0_hat)


def test_frames_are_noised_independently_of_each_other(rng):
    clips = torch.randn(4_000, 2, 1, 4, 4, generator=rng)
    made = roll(TeacherForcing(), lively(), clips)
    noise = (made.x_t - add_noise(FlowMatching(), clips, torch.zeros_like(clips), made.t)) / made.t[
        ..., *[None] * 3
    ]
    first, second = noise.flatten(2).unbind(1)
    assert abs(noise.std() - 1) < 0.01
    assert abs((first * second).mean()) < 0.01
    assert abs(torch.corrcoef(made.t.T)[0, 1]) < 0.05
    assert abs(made.t.mean() - 0.5) < 0.02


def test_frames_of_a_chunk_share_a_level_and_a_student_sees_only_those_of_its_sampler(rng):
    clips, sampler = torch.randn(64, 4, 1, 4, 4, generator=rng), Sampler(num_steps=4, chunk_len=2)
    made = roll(TeacherForcing(chunk_len=2, sampler=sampler), lively(2), clips)
    assert torch.equal(made.t[:, 0::2], made.t[:, 1::2])
    assert not torch.equal(made.t[:, 0], made.t[:, 2])
    assert set(made.t.unique().tolist()) == {0.25, 0.5, 0.75, 1.0}


class Half(FlowMatching):
    """Trains at one level alone."""

    def draw(self, u):
        return torch.full_like(u, 0.5)


class ExactConditionals(Denoiser):
    """Draws from q(x_f | x_t,f, x_f-1) of two Gaussian frames of unit variance and correlation RHO."""

    def __init__(self, rng):
        torch.nn.Module.__init__(self)
        self.rng = rng

    def beside(self, x_t, t, context, end=None):
        prior = torch.cat([torch.zeros_like(context[:, :1]), RHO * context[:, :-1]], 1)
        variance = torch.tensor([1.0, 1 - RHO**2])[None, :, None, None, None].to(x_t)
        alpha, sigma = FlowMatching().at(t)
        gain = variance * alpha / (alpha**2 * variance + sigma**2)
        noise = torch.randn(x_t.shape, generator=self.rng, dtype=x_t.dtype)
        return prior + gain * (x_t - alpha * prior) + (variance * (1 - gain * alpha)).sqrt() * noise


class Recorder(torch.nn.Module):
    """A judge that writes down what it is shown."""

    def beside(self, x_t, t, context):
        self.shown = x_t, context
        return x_t

    def forward(self, x_t, t):
        raise AssertionError("the generated frames were judged in a row")


def correlation(first, second):
    return torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].item()


def test_what_is_judged_is_the_true_context_with_the_generated_frame_and_not_the_frames_in_a_row(rng):
    """With exact conditionals at t = .5 the pairs have the law of data, the frames in a row correlation .40."""
    first, other = torch.randn(2, 200_000, 1, 1, 1, 1, generator=rng)
    clips = torch.cat([first, RHO * first + (1 - RHO**2) ** 0.5 * other], 1)
    made = TeacherForcing().rollout(ExactConditionals(rng), clips, schedule=Half(), rng=rng)
    recorder = Recorder()
    made.judge(recorder, made.x0_hat, made.t)
    frames, context = recorder.shown
    assert context is clips
    assert correlation(context[:, 0], frames[:, 1]) == pytest.approx(RHO, abs=0.01)
    assert frames.std(dim=0).flatten().tolist() == pytest.approx([1.0, 1.0], abs=0.01)
    assert correlation(frames[:, 0], frames[:, 1]) == pytest.approx(0.40, abs=0.01)


def test_any_network_is_asked_after_the_clean_frames_that_the_student_had(rng):
    student, clips = lively(), torch.randn(4, 3, 1, 4, 4, generator=rng)
    made = roll(TeacherForcing(), student, clips)
    assert torch.equal(made.in_context(student, made.x_t, made.t), made.x0_hat)


@pytest.mark.parametrize("loss", [Dmd(normaliser=False), Gan()])
def test_a_distribution_loss_judges_each_frame_by_itself(loss, rng):
    """Another frame in its place pulls at nobody else: the critics see pairs."""
    student, clips = lively(), torch.randn(4, 3, 1, 4, 4, generator=rng)
    made = roll(TeacherForcing(sampler=Sampler()), student, clips)
    critics = loss.critics(lively())
    for parameter in critics.parameters():  # no two networks alike
        torch.nn.init.normal_(parameter, std=0.2, generator=rng)

    def pulls(x0_hat):
        x0_hat = x0_hat.detach().requires_grad_(True)
        shown = made.__class__(x0_hat, made.x_t, made.t, made.counts, clips, made.denoise, made.judge)
        seeded = torch.Generator().manual_seed(3)
        value = loss.student_loss(shown, clips, critics, schedule=FlowMatching(), rng=seeded)
        return torch.autograd.grad(value, x0_hat)[0]

    changed = made.x0_hat.detach().clone()
    changed[:, 1] += 1
    before, after = pulls(made.x0_hat), pulls(changed)
    assert torch.allclose(before[:, [0, 2]], after[:, [0, 2]], atol=1e-7, rtol=1e-4)
    assert not torch.allclose(before[:, 1], after[:, 1], atol=1e-4)


def test_impossible_parameters_are_refused():
    with pytest.raises(ValueError, match="chunk_len must be at least 1, got 0"):
        TeacherForcing(chunk_len=0)
    with pytest.raises(ValueError, match=r"context_noise must be 0 where the context is clean data, got 0.1"):
        TeacherForcing(sampler=Sampler(context_noise=0.1))

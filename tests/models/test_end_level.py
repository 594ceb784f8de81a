"""A second level, at which a step ends: what it changes, and that without it nothing is changed."""

import dataclasses

import pytest
import torch

from pipeline.diffusion.autoregress import Sampler, generate
from pipeline.diffusion.schedule import FlowMatching
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec, load_denoiser, save_denoiser

SPEC = BackboneSpec(channels=2, frame_size=4, patch=2, width=32, depth=2, num_heads=2)


def built(attention="causal", *, end_level=True):
    torch.manual_seed(0)
    spec = dataclasses.replace(SPEC, attention=attention, end_level=end_level)
    return Denoiser(DenoiserSpec(spec, schedule=FlowMatching(shift=2.0)))


def lively(attention="causal", *, end_level=True):
    denoiser = built(attention, end_level=end_level)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return denoiser


@pytest.fixture
def clips(rng):
    """Noisy frames, their levels, ends below these, and a clean context."""
    x_t, context = torch.randn(2, 3, 5, 2, 4, 4, generator=rng)
    t = torch.rand(3, 5, generator=rng)
    return x_t, t, t * torch.rand(3, 5, generator=rng), context


def test_an_end_level_is_built_after_all_else_and_draws_from_no_weight_before_it():
    plain, ended = built(end_level=False), built()
    own = ended.state_dict()
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, own.pop(name)), name
    assert own
    assert all(name.startswith("backbone.step.") for name in own)


@pytest.mark.parametrize("attention", ["causal", "full"])
def test_a_student_with_an_end_level_begins_as_its_teacher_without_one(attention, clips):
    x_t, t, end, _ = clips
    teacher, student = lively(attention, end_level=False), built(attention)
    student.start_from(teacher)
    assert torch.equal(student(x_t, t), teacher(x_t, t))
    assert torch.equal(student(x_t, t, end), teacher(x_t, t))
    out = student.backbone.step.out.weight
    (slope,) = torch.autograd.grad(student(x_t, t, end).square().sum(), out)
    assert slope.abs().max() > 1e-3  # it can learn from there


def test_weights_with_an_end_level_are_taken_over_whole_and_not_by_a_network_without_one(clips):
    x_t, t, end, _ = clips
    origin, student = lively(), built()
    student.start_from(origin)
    assert torch.equal(student(x_t, t, end), origin(x_t, t, end))
    with pytest.raises(RuntimeError, match=r"Unexpected key.*backbone\.step"):
        built(end_level=False).start_from(origin)


def test_without_an_end_the_step_ends_at_0(clips):
    x_t, t, end, context = clips
    denoiser, zero = lively(), torch.zeros_like(t)
    assert torch.equal(denoiser(x_t, t), denoiser(x_t, t, zero))
    assert not torch.allclose(denoiser(x_t, t), denoiser(x_t, t, end), atol=1e-3)
    assert torch.equal(denoiser.beside(x_t, t, context), denoiser.beside(x_t, t, context, zero))
    assert not torch.allclose(denoiser.beside(x_t, t, context), denoiser.beside(x_t, t, context, end), atol=1e-3)


@pytest.mark.parametrize("attention", ["causal", "full"])
def test_a_chunk_with_an_end_is_that_of_a_clip_whose_context_ends_at_0(attention, clips):
    x_t, t, end, _ = clips
    denoiser = lively(attention)
    with torch.no_grad():
        cache = denoiser.extend(None, x_t[:, :2], t[:, :2], window=5)
        found = denoiser.denoise_chunk(x_t[:, 2:], t[:, 2:], cache, end[:, 2:])
        ends = torch.cat([torch.zeros(3, 2), end[:, 2:]], 1)
        assert torch.allclose(found, denoiser(x_t, t, ends)[:, 2:], atol=2e-5)
        assert not torch.allclose(found, denoiser(x_t, t)[:, 2:], atol=1e-3)


def test_frames_with_ends_beside_their_context_are_each_alone_after_a_clean_cache(clips):
    x_t, t, end, context = clips
    denoiser, cache = lively(), None
    with torch.no_grad():
        found = denoiser.beside(x_t, t, context, end)
        for frame in range(5):
            at = slice(frame, frame + 1)
            alone = denoiser.denoise_chunk(x_t[:, at], t[:, at], cache, end[:, at])
            assert torch.allclose(found[:, at], alone, atol=1e-5)
            cache = denoiser.extend(cache, context[:, at], torch.zeros(3, 1), window=5)


def test_a_rollout_samples_it_as_any_denoiser(rng):
    denoiser, noise = lively(), torch.randn(3, 4, 2, 4, 4, generator=rng)
    with torch.no_grad():
        made = generate(denoiser, noise, schedule=denoiser.spec.schedule, sampler=Sampler(num_steps=1), rng=rng)
        clip = torch.cat([made.x0_hat[:, :3], made.x_t[:, 3:]], 1)
        t = torch.cat([torch.zeros(3, 3), made.t[:, 3:]], 1)
        assert torch.allclose(denoiser(clip, t)[:, 3:], made.x0_hat[:, 3:], atol=2e-5)


def test_a_network_without_end_level_refuses_an_end(clips):
    x_t, t, end, context = clips
    denoiser = lively(end_level=False)
    says = "end_level must be true where a network is told the end of a step, got false"
    with pytest.raises(ValueError, match=says):
        denoiser(x_t, t, end)
    with pytest.raises(ValueError, match=says):
        denoiser.beside(x_t, t, context, end)
    with pytest.raises(ValueError, match=says):
        denoiser.denoise_chunk(x_t, t, None, end)


def test_a_saved_network_keeps_its_end_level(tmp_path, clips):
    x_t, t, end, _ = clips
    denoiser = lively()
    save_denoiser(denoiser, tmp_path, latents="a" * 64)
    loaded = load_denoiser(tmp_path, latents="a" * 64)
    assert loaded.spec == denoiser.spec
    assert torch.equal(loaded(x_t, t, end), denoiser(x_t, t, end))

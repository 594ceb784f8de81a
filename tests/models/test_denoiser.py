"""The denoiser: what is cached equals what is parallel."""

import dataclasses

import pytest
import torch

from pipeline.diffusion.autoregress import Sampler, generate
from pipeline.diffusion.schedule import FlowMatching
from pipeline.models.backbone import BackboneSpec, patchify, unpatchify
from pipeline.models.denoiser import Denoiser, DenoiserSpec, load_denoiser, save_denoiser

SPEC = BackboneSpec(channels=2, frame_size=4, patch=2, width=32, depth=2, num_heads=2)


def lively(spec=SPEC, prediction="flow_velocity"):
    """A denoiser whose every weight matters: zero initial layers would hide a wrong mask."""
    torch.manual_seed(0)
    denoiser = Denoiser(DenoiserSpec(spec, prediction, FlowMatching(shift=2.0)))
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return denoiser


@pytest.mark.parametrize("chunk_len", [1, 2])
def test_cached_rollout_equals_one_parallel_forward_under_the_causal_mask(chunk_len, rng):
    denoiser = lively(dataclasses.replace(SPEC, chunk_len=chunk_len))
    sampler = Sampler(num_steps=3, chunk_len=chunk_len, window=6)
    noise = torch.randn(5, 6, 2, 4, 4, generator=rng)
    with torch.no_grad():
        made = generate(denoiser, noise, schedule=denoiser.spec.schedule, sampler=sampler, rng=rng)
        for chunk in sampler.chunks(6):
            clip = torch.cat([made.x0_hat[:, : chunk.start], made.x_t[:, chunk.start :]], 1)
            t = torch.cat([torch.zeros(5, chunk.start), made.t[:, chunk.start :]], 1)
            assert torch.allclose(denoiser(clip, t)[:, chunk], made.x0_hat[:, chunk], atol=2e-5)


def test_several_chunks_in_one_cached_call_see_the_cache_and_no_later_chunk(rng):
    denoiser = lively(dataclasses.replace(SPEC, chunk_len=2))
    x, t = torch.randn(3, 8, 2, 4, 4, generator=rng), torch.rand(3, 8, generator=rng)
    with torch.no_grad():
        cache = denoiser.extend(None, x[:, :2], t[:, :2], window=8)
        found = denoiser.denoise_chunk(x[:, 2:], t[:, 2:], cache)
        assert torch.allclose(found, denoiser(x, t)[:, 2:], atol=2e-5)


def test_full_attention_rolls_out_over_clean_frames_in_context(rng):
    denoiser = lively(dataclasses.replace(SPEC, attention="full"))
    sampler = Sampler(num_steps=2, first_chunk_len=4, chunk_len=2, window=2)
    with torch.no_grad():
        noise = torch.randn(3, 6, 2, 4, 4, generator=rng)
        made = generate(denoiser, noise, schedule=denoiser.spec.schedule, sampler=sampler, rng=rng)
        clip = torch.cat([made.x0_hat[:, 2:4], made.x_t[:, 4:]], 1)
        t = torch.cat([torch.zeros(3, 2), made.t[:, 4:]], 1)
        assert torch.allclose(denoiser(clip, t)[:, 2:], made.x0_hat[:, 4:], atol=2e-5)


def test_a_causal_frame_depends_on_no_later_frame_and_a_full_one_does(rng):
    x = torch.randn(2, 5, 2, 4, 4, generator=rng)
    t = torch.rand(2, 5, generator=rng)
    changed = x.clone()
    changed[:, 3:] += 1.0
    causal, full = lively(), lively(dataclasses.replace(SPEC, attention="full"))
    with torch.no_grad():
        assert torch.equal(causal(x, t)[:, :3], causal(changed, t)[:, :3])
        assert not torch.allclose(full(x, t)[:, :3], full(changed, t)[:, :3], atol=1e-3)


def test_only_the_distance_between_frames_counts(rng):
    denoiser = lively()
    context, frame = torch.randn(2, 3, 1, 2, 4, 4, generator=rng)
    zero, t = torch.zeros(3, 1), torch.full((3, 1), 0.6)
    with torch.no_grad():
        outputs = []
        for first in (0, 9):
            _, layers = denoiser.backbone.chunk(context, zero, None, first)
            outputs.append(denoiser.backbone.chunk(frame, t, layers, first + 1)[0])
        assert torch.allclose(outputs[0], outputs[1], atol=1e-5)
        far = denoiser.backbone.chunk(frame, t, layers, 12)[0]
        assert not torch.allclose(far, outputs[0], atol=1e-3)


def test_the_context_is_cut_to_the_window_and_frames_are_still_counted(rng):
    denoiser, cache = lively(), None
    for frame in torch.randn(5, 3, 1, 2, 4, 4, generator=rng):
        cache = denoiser.extend(cache, frame, torch.zeros(3, 1), window=2)
    assert cache.num_frames == 5
    assert all(part.shape[2] == 2 * 4 for layer in cache.layers for part in layer)  # 2 frames of 4 tokens


@pytest.mark.parametrize("attention", ["causal", "full"])
def test_a_context_passes_the_gradient_on_to_the_frames_it_was_made_of(attention, rng):
    denoiser = lively(dataclasses.replace(SPEC, attention=attention))
    x, frame = torch.randn(2, 2, 1, 2, 4, 4, generator=rng)
    x.requires_grad_(True)
    cache = denoiser.extend(None, x, torch.zeros(2, 1), window=4)
    made = denoiser.denoise_chunk(frame, torch.full((2, 1), 0.5), cache)
    (slope,) = torch.autograd.grad(made.sum(), x)
    assert slope.abs().max() > 1e-3


def test_a_clean_frame_comes_back_unchanged(rng):
    x = torch.randn(2, 5, 2, 4, 4, generator=rng)
    assert torch.equal(lively()(x, torch.zeros(2, 5)), x)


def test_patchify_round_trip(rng):
    x = torch.randn(2, 3, 2, 4, 4, generator=rng)
    assert torch.equal(unpatchify(patchify(x, 2), 2, x.shape), x)
    assert patchify(x, 2).shape == (2, 12, 8)


def test_a_saved_denoiser_comes_back_equal_and_only_to_its_own_latents(tmp_path, rng):
    denoiser = lively()
    save_denoiser(denoiser, tmp_path, latents="a" * 64)
    loaded = load_denoiser(tmp_path, latents="a" * 64)
    x, t = torch.randn(1, 3, 2, 4, 4, generator=rng), torch.rand(1, 3, generator=rng)
    assert loaded.spec == denoiser.spec
    assert torch.equal(loaded(x, t), denoiser(x, t))
    with pytest.raises(ValueError, match=r"must speak the latents of the codec: .* trained on aaaaaaaaaaaa"):
        load_denoiser(tmp_path, latents="b" * 64)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"patch": 3}, "patch must divide the latent frame: patch=3, frame_size=4"),
        ({"width": 30}, "width must be a multiple of 4 num_heads"),
        ({"attention": "sparse"}, "attention must be one of causal, full, got 'sparse'"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
    ],
)
def test_a_backbone_refuses_impossible_sizes(fields, says):
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(SPEC, **fields)

"""Clean context beside noisy frames in one pass, against every chunk run by itself after a clean cache."""

import pytest
import torch

from pipeline.diffusion.schedule import Cosine, FlowMatching
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec
from pipeline.models.discriminator import Discriminator

NUM_FRAMES = 6


def lively(chunk_len=1, attention="causal", schedule=None):
    """Every weight matters, and two tokens a frame: zero initial layers would hide a wrong mask."""
    torch.manual_seed(0)
    spec = BackboneSpec(2, 4, 2, width=32, depth=2, num_heads=2, attention=attention, chunk_len=chunk_len)
    denoiser = Denoiser(DenoiserSpec(spec, "v", schedule or Cosine()))
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return denoiser


@pytest.fixture
def clips(rng):
    """Noisy frames, their levels, and the clean context."""
    x_t, context = torch.randn(2, 3, NUM_FRAMES, 2, 4, 4, generator=rng)
    return x_t, torch.rand(3, NUM_FRAMES, generator=rng), context


@pytest.mark.parametrize("schedule", [Cosine(), FlowMatching(shift=2.0)])
@pytest.mark.parametrize("chunk_len", [1, 2, 3])
def test_beside_equals_every_chunk_by_itself_after_a_clean_cache(chunk_len, schedule, clips):
    denoiser, (x_t, t, context) = lively(chunk_len, schedule=schedule), clips
    with torch.no_grad():
        found, cache = denoiser.beside(x_t, t, context), None
        for start in range(0, NUM_FRAMES, chunk_len):
            chunk = slice(start, start + chunk_len)
            alone = denoiser.denoise_chunk(x_t[:, chunk], t[:, chunk], cache)
            assert torch.allclose(found[:, chunk], alone, atol=1e-5)
            cache = denoiser.extend(cache, context[:, chunk], torch.zeros_like(t[:, chunk]), window=NUM_FRAMES)


@pytest.mark.parametrize("chunk_len", [1, 2])
def test_a_noisy_frame_sees_earlier_clean_chunks_and_its_own_noisy_one_and_nothing_else(chunk_len, clips):
    denoiser, (x_t, t, context) = lively(chunk_len), clips
    inputs = x_t.requires_grad_(True), context.requires_grad_(True)
    made = denoiser.beside(x_t, t, context)
    for frame in range(NUM_FRAMES):
        slopes = torch.autograd.grad(made[:, frame].sum(), inputs, retain_graph=True)
        of_noisy, of_context = (slope.abs().amax(dim=(0, 2, 3, 4)) for slope in slopes)
        index, own = torch.arange(NUM_FRAMES) // chunk_len, frame // chunk_len
        assert torch.equal(of_noisy > 0, index == own)
        assert torch.equal(of_context > 0, index < own)
        assert (of_noisy[index != own] == 0).all()
        assert (of_context[index >= own] == 0).all()


def test_the_levels_of_other_noisy_frames_do_not_matter(clips):
    denoiser, (x_t, t, context) = lively(), clips
    changed = t.clone()
    changed[:, [0, 4]] = 0.5
    with torch.no_grad():
        same = (denoiser.beside(x_t, t, context) == denoiser.beside(x_t, changed, context)).all(dim=(0, 2, 3, 4))
    assert same.tolist() == [False, True, True, True, False, True]


def test_full_attention_has_no_frames_beside_their_context(clips):
    denoiser = lively(attention="full")
    for network in (denoiser, Discriminator(denoiser)):
        with pytest.raises(ValueError, match=r"attention must be causal where noisy frames .* got 'full'"):
            network.beside(*clips)


@pytest.mark.parametrize("chunk_len", [1, 2])
def test_a_pair_is_judged_by_its_own_logit(chunk_len, clips):
    discriminator, (x_t, t, context) = Discriminator(lively(chunk_len)), clips
    x_t.requires_grad_(True)
    logits = discriminator.beside(x_t, t, context)
    assert logits.shape == (3, NUM_FRAMES // chunk_len)
    for chunk in range(NUM_FRAMES // chunk_len):
        (slope,) = torch.autograd.grad(logits[:, chunk].sum(), x_t, retain_graph=True)
        judged = slope.abs().amax(dim=(0, 2, 3, 4)) > 0
        assert torch.equal(judged, torch.arange(NUM_FRAMES) // chunk_len == chunk)


def test_the_logit_of_a_pair_is_what_the_chunk_adds_to_the_logit_of_its_clean_context(clips):
    """Of a clip (context, chunk) alone; its logit is the mean over frames, and under causal attention they add."""
    discriminator, (x_t, t, context) = Discriminator(lively(2)), clips
    with torch.no_grad():
        pairs = discriminator.beside(x_t, t, context)
        for index, start in enumerate((0, 2, 4)):
            clean, noisy = slice(0, start), slice(start, start + 2)
            clip = torch.cat([context[:, clean], x_t[:, noisy]], 1)
            levels = torch.cat([torch.zeros_like(t[:, clean]), t[:, noisy]], 1)
            added = (start + 2) * discriminator(clip, levels)
            if start:
                added = added - start * discriminator(clip[:, clean], levels[:, clean])
            assert torch.allclose(pairs[:, index], added / 2, atol=1e-5)


def test_a_chunk_of_another_length_is_refused(clips):
    x_t, t, context = (part[:, :5] for part in clips)
    with pytest.raises(ValueError, match="clip length must be a multiple of chunk_len: T=5, chunk_len=2"):
        Discriminator(lively(2)).beside(x_t, t, context)

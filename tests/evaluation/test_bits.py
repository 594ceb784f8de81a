"""Bits per dimension of tiny teachers, and of one whose law is known."""

import json
import math
from dataclasses import replace

import pytest
import torch

from pipeline.diffusion.schedule import SCHEDULES, EdmSampling
from pipeline.evaluation.bits import BitsPerDimension, binned_latents, mean_bits
from pipeline.models.backbone import BackboneSpec
from pipeline.models.codec import CodecSpec, new_codec
from pipeline.models.denoiser import Denoiser, DenoiserSpec
from pipeline.unit import canonical_json

QUICK = BitsPerDimension(num_clips=64, num_levels=256)
BACKBONE = BackboneSpec(channels=1, frame_size=4, patch=4, width=16, depth=1, num_heads=2)


def pixels(num_clips, rng):
    """Clips (B, 3, 1, 4, 4) of uint8 values."""
    return torch.randint(0, 256, (num_clips, 3, 1, 4, 4), generator=rng).float() / 127.5 - 1


def pixel_codec(mean, std):
    codec = new_codec(None, (1, 4, 4))
    codec.mean.fill_(mean)
    codec.std.fill_(std)
    return codec


class KnownTeacher(Denoiser):
    """The posterior mean of independent standard normal latents: alpha x_t / (alpha^2 + sigma^2)."""

    def forward(self, x_t, t, end=None):
        alpha, sigma = self.spec.schedule.at(t)
        return alpha * x_t / (alpha**2 + sigma**2)


class Identity:
    """A codec whose latents are what they are."""

    frame_shape: tuple[int, int, int] = (1, 4, 4)
    latent_shape: tuple[int, int, int] = (1, 4, 4)

    def encode(self, video):
        return video

    def decode(self, latents):
        return latents


def test_known_law_costs_its_entropy_on_every_path_and_has_no_spread(rng):
    """Standard normal latents in bins of width w take 1/2 log2(2 pi e) - log2(w) bits each."""
    teacher, clips = KnownTeacher(DenoiserSpec(BACKBONE)), torch.randn(512, 3, 1, 4, 4, generator=rng)
    result = BitsPerDimension(num_levels=4096).measure(teacher, Identity(), clips, seed=0)
    entropy = math.log2(2 * math.pi * math.e) / 2 + 5
    for name in ("lockstep", "pyramid", "teacher_forcing"):
        bound = result[name]
        assert bound["value"] == pytest.approx(entropy + 0.1, abs=0.1 + 4 * bound["standard_error"])
        assert bound["standard_error"] < 0.2
        parts = bound["prior"] + bound["transitions"] + bound["reconstruction"]
        assert parts == pytest.approx(bound["value"], rel=1e-6)
        assert bound["prior"] < 1e-3
    assert result["spread"]["value"] < 4 * result["spread"]["standard_error"]
    assert (result["num_clips"], result["num_levels"], result["num_dims"]) == (512, 4096, 48)
    assert json.loads(canonical_json(result)) == result


def test_a_teacher_without_one_density_shows_in_the_spread(rng):
    """It knows nothing of a frame with clean neighbours: teacher forcing pays for that, lockstep does not."""

    class Inconsistent(KnownTeacher):
        def forward(self, x_t, t, end=None):
            informed = (t > 0).all(1)[:, None, None, None, None]
            return torch.where(informed, super().forward(x_t, t), 0.0)

    teacher, clips = Inconsistent(DenoiserSpec(BACKBONE)), torch.randn(256, 3, 1, 4, 4, generator=rng)
    result = QUICK.measure(teacher, Identity(), clips, seed=0)
    assert result["spread"]["value"] > 10 * result["spread"]["standard_error"]
    difference = result["teacher_forcing"]["value"] - result["lockstep"]["value"]
    assert result["spread"]["value"] == pytest.approx(difference, rel=1e-6)


def test_bits_of_pixels_do_not_depend_on_how_they_are_standardised(rng):
    """Uniform noise takes 8 bits a pixel; an untrained network that says x0_hat = 0 needs a little more."""
    clips = pixels(64, rng)
    values = {}
    for mean, std in ((0.0, 1.0), (-0.2, 0.5)):
        codec = pixel_codec(mean, std)
        latents, bins = binned_latents(codec, clips, 1 / 32)
        assert torch.allclose(codec.decode(latents), clips, atol=1e-6)
        assert bins.width.item() == pytest.approx(2 / 255 / std)
        lower, upper = bins.edges(latents)
        assert torch.equal(lower.isinf(), clips < -0.999)
        assert torch.equal(upper.isinf(), clips > 0.999)
        half = ((latents - lower) * std)[clips > -0.999]
        assert torch.allclose(half, torch.full_like(half, 1 / 255), rtol=1e-5, atol=0)
        values[std] = QUICK.measure(KnownTeacher(DenoiserSpec(BACKBONE)), codec, clips, seed=0)
    assert 8 < values[0.5]["lockstep"]["value"] < 9


def test_latents_of_a_codec_are_rounded_to_their_bins(rng):
    torch.manual_seed(0)
    codec = new_codec(CodecSpec(latent_channels=2, width=4, global_width=8, content_channels=1), (1, 8, 8))
    clips = torch.rand(5, 3, 1, 8, 8, generator=rng) * 2 - 1
    latents, bins = binned_latents(codec, clips, 0.25)
    assert torch.equal(latents, (latents / 0.25).round() * 0.25)
    assert (latents - codec.encode(clips)).abs().max() <= 0.125 + 1e-6
    assert bins.width == 0.25


def test_equal_seeds_give_equal_bits_and_others_do_not(rng):
    torch.manual_seed(0)
    teacher, clips, codec = Denoiser(DenoiserSpec(BACKBONE)), pixels(64, rng), pixel_codec(0.0, 0.6)
    one, again, other = (QUICK.measure(teacher, codec, clips, seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert one["lockstep"]["value"] != other["lockstep"]["value"]


def test_a_schedule_that_does_not_reach_the_log_snrs_is_refused():
    with pytest.raises(ValueError, match=r"log_snr must be in \[-8\.7641, 12\.4292\], .* got values from -9 to 9"):
        replace(QUICK, log_snr_min=-9.0).levels(EdmSampling())


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_reaches_the_log_snrs_by_default(name):
    log_snr = BitsPerDimension().levels(SCHEDULES[name]()).log_snr
    assert log_snr[[0, -1]].tolist() == pytest.approx([9.0, -8.5], abs=0.25)  # a table has its nearest
    assert len(log_snr) == 1024 if name != "ddpm" else len(log_snr) > 500


def test_mean_bits_are_nats_over_dims_and_ln_2():
    nats = torch.tensor([math.log(2) * 10, math.log(2) * 30], dtype=torch.float64)
    assert mean_bits(nats, 10) == pytest.approx({"value": 2.0, "standard_error": 1.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_draws": 1}, "num_draws must be at least 2, got 1"),
        ({"log_snr_max": -9.0}, "log_snr_max must be above -8.5, got -9.0"),
        ({"bin_width": 0.0}, "bin_width must be above 0, got 0.0"),
        ({"pyramid_lag": 1.0}, r"pyramid_lag must be in \(0, 1\), got 1.0"),
    ],
)
def test_impossible_parameters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(QUICK, **changes)

import math

import numpy as np
import pytest
import torch

from pipeline.data.moving_digits import MovingDigits
from pipeline.data.store import ClipStore, Prepare
from pipeline.models.codec import PixelCodec
from pipeline.models.digit_reader import DigitReader, DigitReaderSpec
from pipeline.streams import stream
from pipeline.training.codec_quality import describe_latents, draw_reconstructions, measure, psnr


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepare")
    for _ in Prepare(source=MovingDigits(), num_frames=4, num_train=20, num_metric=20, num_test=20).run(root, {}):
        pass
    return ClipStore(root / "out")


def test_psnr_of_an_error_of_one_level_is_48_db():
    levels = np.full((2, 2, 1, 4, 4), 7, np.uint8)
    assert psnr(levels, levels + np.uint8(1)) == pytest.approx(20 * math.log10(255))
    assert psnr(levels + np.uint8(10), levels) == pytest.approx(20 * math.log10(25.5))


def test_latent_step_and_dimension_of_noise_and_of_stills():
    noise = torch.randn(3000, 8, 4, 2, 2, generator=stream(0, "latents"))
    described = describe_latents(noise)
    assert described["latent_step"] == pytest.approx(2, abs=0.02)
    assert described["latent_dimension"] == pytest.approx(16, abs=0.1)
    assert describe_latents(noise[:, :1].expand(-1, 8, -1, -1, -1))["latent_step"] == 0


def test_a_codec_that_loses_the_digit_is_not_read(store):
    class Blank(PixelCodec):
        def decode(self, latents):
            return torch.full_like(latents, -1)

    class ReadsMass(DigitReader):
        """Reads 1 where there is anything to read, else 0."""

        def read(self, frames):
            return (frames > -1).any(dim=(1, 2, 3)).long()

    reader = ReadsMass(DigitReaderSpec())
    digits = store.labels("test")["class"]
    seen = measure(Blank((1, 16, 16)), reader, store)
    assert seen["read_agreement"] == 0
    assert seen["read_accuracy"] == pytest.approx((digits == 0).mean(), abs=1e-6)
    assert seen["read_accuracy_originals"] == pytest.approx((digits == 1).mean(), abs=1e-6)


def test_the_picture_shows_pixels_above_what_is_decoded(store):
    picture = np.asarray(draw_reconstructions(PixelCodec((1, 16, 16)), store))
    first = store.clips("test")[np.flatnonzero(store.labels("test")["class"][:, 0] == 0)[0], 0, 0]
    magnified = np.repeat(np.repeat(first, 4, axis=0), 4, axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(picture[..., 0], (64, 64))
    rows = np.unique(np.argwhere((windows[:, :, ::9, ::9] == magnified[::9, ::9]).all((2, 3)))[:, 0])
    assert np.diff(rows).tolist() == [67]

import numpy as np
import pytest
import torch

from pipeline.evaluation.identity import (
    agreement,
    class_shares,
    compare_identity,
    entropy,
    kappa,
    read_digits,
    relative_entropy,
)
from pipeline.models.digit_reader import DigitReader, DigitReaderSpec


class ReadsBrightness(DigitReader):
    """Says the brightness of the first pixel, 0 to 9."""

    def read(self, frames):
        return ((frames[:, 0, 0, 0] + 1) * 127.5).round().long()


@pytest.fixture
def reader():
    return ReadsBrightness(DigitReaderSpec(width=4))


def clips_of(digits):
    """Clips whose frames are as bright as the digits (N, T)."""
    return torch.tensor(digits, dtype=torch.uint8)[:, :, None, None, None].expand(-1, -1, 1, 8, 8).contiguous()


def test_agreement_counts_clips_whose_digit_is_the_first_one(reader):
    digits = read_digits(reader, clips_of([[3, 3, 5, 3], [3, 4, 3, 3], [7, 7, 7, 1], [0, 0, 0, 0]]))
    assert digits.tolist() == [[3, 3, 3], [3, 4, 3], [7, 7, 1], [0, 0, 0]]
    result = agreement(digits)
    assert (result.first_to_second, result.first_to_last) == (0.75, 0.75)


def test_a_constant_reading_agrees_always(reader):
    result = agreement(read_digits(reader, clips_of([[6] * 5] * 4)))
    assert (result.first_to_last, result.kappa_last) == (1.0, 0.0)  # and shows nothing by it


def test_kappa_is_what_agreement_adds_to_chance():
    digits = np.arange(10).repeat(10)
    assert kappa(digits, digits) == 1
    assert kappa(digits, digits.reshape(10, 10).T.ravel()) == pytest.approx(0)  # independent
    first, later = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])  # agreement 3/4, chance 3/4 1/2 + 1/4 1/2 = 1/2
    assert kappa(first, later) == pytest.approx(0.5)


def test_entropy_and_divergence_of_known_histograms():
    even, single = class_shares(np.arange(10).repeat(5)), class_shares(np.zeros(2000, dtype=int))
    assert entropy(even) == pytest.approx(np.log(10))
    assert entropy(single) < 0.03
    assert relative_entropy(even, even) == 0
    assert relative_entropy(single, even) == pytest.approx(np.log(10) - entropy(single))


def test_comparison_keeps_generated_real_and_codec_apart(reader):
    steady, broken = (
        clips_of([[d, d, d, d] for d in range(10)]),
        clips_of([[d, d, d, (d + 1) % 10] for d in range(10)]),
    )
    result = compare_identity(reader, broken, steady, steady, broken)
    assert (result["first_to_second"], result["first_to_last"], result["first_to_last_of_longer"]) == (1, 0, 1)
    assert result["real"] == {"first_to_second": 1, "first_to_last": 1, "kappa_second": 1, "kappa_last": 1}
    assert (result["codec"]["first_to_second"], result["codec"]["first_to_last"]) == (1, 0)
    assert result["codec"]["kappa_last"] == pytest.approx(-1 / 9)
    assert result["class_kl"] == 0

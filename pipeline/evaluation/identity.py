"""Identity: whether the digit of the first frame is still there later, and whether all digits occur."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from pipeline.evaluation.extractors import ByteVideo
from pipeline.evaluation.metric_networks import read_classes
from pipeline.models.digit_reader import NUM_CLASSES, DigitReader

SMOOTHING = 0.5  # counts added to every class, so that a missing one costs much but not infinitely much


@dataclass(frozen=True)
class Agreement:
    """Share of clips in which the digit read in the second, or last, frame is that read in the first.

    A model that shows the same digit, or the same blot, in every clip agrees always. kappa is what agreement adds
    to that of frames from different clips, as a share of all that could be added: 0 for such a model, 1 at best
    (Cohen 1960).
    """

    first_to_second: float
    first_to_last: float
    kappa_second: float
    kappa_last: float


def read_digits(reader: DigitReader, clips: ByteVideo) -> np.ndarray:
    """The class read in the first, second and last frame, (N, 3)."""
    chosen = clips[:, [0, 1, -1]]
    return read_classes(reader, chosen.flatten(0, 1).numpy()).numpy().reshape(-1, 3)


def agreement(digits: np.ndarray) -> Agreement:
    """From what is read in the first, second and last frame, (N, 3)."""
    first, second, last = digits.T
    return Agreement(
        first_to_second=float((second == first).mean()),
        first_to_last=float((last == first).mean()),
        kappa_second=kappa(first, second),
        kappa_last=kappa(first, last),
    )


def kappa(first: np.ndarray, later: np.ndarray) -> float:
    """Cohen's kappa of two readings of the same clips (N,); 0 where both are the same constant."""
    shares = [np.bincount(classes, minlength=NUM_CLASSES) / len(classes) for classes in (first, later)]
    chance = float(shares[0] @ shares[1])
    return (float((first == later).mean()) - chance) / (1 - chance) if chance < 1 else 0.0


def class_shares(classes: np.ndarray) -> np.ndarray:
    """Share of each class (10,), smoothed."""
    counts = np.bincount(classes, minlength=NUM_CLASSES) + SMOOTHING
    return counts / counts.sum()


def entropy(shares: np.ndarray) -> float:
    """In nats; log 10 = 2.30 where all ten classes are equally frequent."""
    return float(-(shares * np.log(shares)).sum())


def relative_entropy(shares: np.ndarray, others: np.ndarray) -> float:
    """KL(shares || others) in nats."""
    return float((shares * np.log(shares / others)).sum())


def compare_identity(
    reader: DigitReader, generated: ByteVideo, longer: ByteVideo, real: ByteVideo, reconstructed: ByteVideo
) -> dict[str, Any]:
    """Agreement of generated clips, of real ones, and of real ones through the codec; classes in first frames."""
    with torch.no_grad():
        ours, theirs, through_codec = (read_digits(reader, clips) for clips in (generated, real, reconstructed))
        later = read_digits(reader, longer)
    shares, real_shares = class_shares(ours[:, 0]), class_shares(theirs[:, 0])
    return {
        **asdict(agreement(ours)),
        "first_to_last_of_longer": agreement(later).first_to_last,
        "class_entropy": entropy(shares),
        "class_entropy_real": entropy(real_shares),
        "class_kl": relative_entropy(shares, real_shares),
        "class_shares": [round(float(share), 4) for share in shares],
        "real": asdict(agreement(theirs)),
        "codec": asdict(agreement(through_codec)),
    }

"""How the noise levels of the frames of a clip are drawn for training: one distribution over [0, 1]^T a method."""

import torch
from torch import Generator

from pipeline.interfaces import NoiseLevel


def shared_levels(
    batch: int, num_frames: int, *, low: float = 0.0, high: float = 1.0, rng: Generator
) -> NoiseLevel:
    """One level a clip, the same for all its frames, uniform on [low, high]."""
    t = low + (high - low) * torch.rand(batch, 1, generator=rng)
    return t.expand(batch, num_frames).contiguous()


def independent_levels(
    batch: int, num_frames: int, *, chunk_len: int = 1, low: float = 0.0, high: float = 1.0, rng: Generator
) -> NoiseLevel:
    """A level for every chunk, independent of the others, uniform on [low, high]. arXiv:2407.01392, algorithm 1."""
    check_chunks(num_frames, chunk_len)
    t = low + (high - low) * torch.rand(batch, num_frames // chunk_len, generator=rng)
    return t.repeat_interleave(chunk_len, dim=1)


def listed_levels(
    batch: int, num_frames: int, levels: tuple[float, ...], *, chunk_len: int = 1, rng: Generator
) -> NoiseLevel:
    """Every chunk at one of the levels that a few-step student samples with. CausVid, arXiv:2412.07772, sec. 4."""
    check_chunks(num_frames, chunk_len)
    index = torch.randint(len(levels), (batch, num_frames // chunk_len), generator=rng)
    return torch.tensor(levels)[index].repeat_interleave(chunk_len, dim=1)


def clean_at_random(
    t: NoiseLevel, probability: float, *, first: float, chunk_len: int = 1, rng: Generator
) -> NoiseLevel:
    """Set chunks to t = 0, independently, each with this probability: the clean context that sampling always has.

    Levels drawn from a density alone never show a network a clean neighbour. The first chunk has a probability of
    its own: it is the only one that sampling makes without context, so it can do with more of the training.
    """
    batch, num_frames = t.shape
    probabilities = torch.full((num_frames // chunk_len,), probability)
    probabilities[0] = first
    clean = torch.rand(batch, num_frames // chunk_len, generator=rng) < probabilities
    return t.masked_fill(clean.repeat_interleave(chunk_len, dim=1), 0.0)


def check_chunks(num_frames: int, chunk_len: int) -> None:
    """Raises ValueError unless a clip is a whole number of chunks."""
    if chunk_len < 1 or num_frames % chunk_len:
        raise ValueError(f"clip length must be a multiple of chunk_len: T={num_frames}, chunk_len={chunk_len}")

"""Random streams: one seed a run, and every draw from a generator derived from it by name and step."""

import hashlib

import numpy as np
import torch


def stream_seed(seed: int, name: str, step: int = 0) -> int:
    """A 63-bit seed for the stream `name` at `step`; adding a stream moves no other."""
    digest = hashlib.sha256(f"{seed}/{name}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def stream(seed: int, name: str, step: int = 0) -> torch.Generator:
    """The torch generator of one stream at one step: a resumed run derives it again, nothing is stored."""
    return torch.Generator().manual_seed(stream_seed(seed, name, step))


def numpy_stream(seed: int, name: str, step: int = 0) -> np.random.Generator:
    """The same for draws that numpy makes (data sources, bootstrap)."""
    return np.random.default_rng(stream_seed(seed, name, step))


def noise_like(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Standard Gaussian noise in the shape, type and place of x: the same numbers on every device."""
    return torch.randn(x.shape, generator=rng).to(x)

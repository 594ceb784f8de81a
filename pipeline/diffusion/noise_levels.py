"""How the noise levels of the frames of a clip are drawn for training: one law over [0, 1]^T a method.

Every law is over chunks of frames that share a level. With num_levels = K it lives on the grid 0, 1/K, ..., 1, the
cube that cube.py enumerates; None is its continuum.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from pipeline.interfaces import NoiseLevel
from pipeline.rules import at_least, within


class Levels(NamedTuple):
    """The mean of sum(counts * error) / sum(counts) is the law's mean of the error."""

    t: NoiseLevel
    counts: NoiseLevel  # how much a frame counts in a loss on data; 0 = context, and always so at t = 0


@runtime_checkable
class NoiseLevels(Protocol):
    """A law over the noise levels of a clip's frames."""

    @property
    def num_levels(self) -> int | None:
        """Noise levels above 0 of the grid; None: the continuum."""
        ...

    def draw(self, batch: int, num_frames: int, *, chunk_len: int = 1, rng: Generator) -> Levels:
        """Levels of a batch. Raises ValueError unless the clips are whole chunks."""
        ...


@dataclass(frozen=True)
class Shared:
    """One level a clip: all frames in lockstep, as a bidirectional model is trained."""

    num_levels: int | None = None

    def __post_init__(self) -> None:
        _check_num_levels(self.num_levels)

    def draw(self, batch: int, num_frames: int, *, chunk_len: int = 1, rng: Generator) -> Levels:
        """The level is uniform; every frame counts."""
        num_chunks = count_chunks(num_frames, chunk_len)
        return _of_frames(_uniform(batch, 1, self.num_levels, rng).expand(-1, num_chunks), chunk_len)


@dataclass(frozen=True)
class Independent:
    """A level for every chunk, independent of the others. Diffusion Forcing, arXiv:2407.01392, algorithm 1.

    Levels drawn from a density alone never show a network a clean neighbour: chunks are set to t = 0,
    independently, each with its probability. On the grid levels are uniform on 1/K, ..., 1, as in the public code;
    with clean_probability 1 / (K + 1), on 0, ..., 1: every transition of the cube is as frequent as the others.
    """

    clean_probability: float = 0.0  # of a chunk being clean context, without loss
    first_clean_probability: float | None = None  # of the first chunk, whose making has no context; None: the same
    num_levels: int | None = None

    def __post_init__(self) -> None:
        _check_num_levels(self.num_levels)
        within(0, 1, open_high=True, clean_probability=self.clean_probability)
        if self.first_clean_probability is not None:
            within(0, 1, open_high=True, first_clean_probability=self.first_clean_probability)

    def draw(self, batch: int, num_frames: int, *, chunk_len: int = 1, rng: Generator) -> Levels:
        """Levels are uniform; every chunk that is not clean counts."""
        num_chunks = count_chunks(num_frames, chunk_len)
        return self._with_clean(_uniform(batch, num_chunks, self.num_levels, rng), chunk_len, rng)

    def draw_listed(
        self, batch: int, num_frames: int, levels: tuple[float, ...], *, chunk_len: int = 1, rng: Generator
    ) -> Levels:
        """The same with chunks at the levels that a few-step student samples with."""
        t = listed_levels(batch, count_chunks(num_frames, chunk_len), levels, rng=rng)
        return self._with_clean(t, chunk_len, rng)

    def _with_clean(self, t: Tensor, chunk_len: int, rng: Generator) -> Levels:
        first = self.first_clean_probability
        probabilities = torch.full((t.shape[1],), self.clean_probability)
        probabilities[0] = self.clean_probability if first is None else first
        is_clean = torch.rand(t.shape, generator=rng) < probabilities
        return _of_frames(t.masked_fill(is_clean, 0.0), chunk_len)


@dataclass(frozen=True)
class TeacherForcing:
    """One chunk at a level of its own, those before it clean, those after it noise; only that chunk counts."""

    num_levels: int | None = None

    def __post_init__(self) -> None:
        _check_num_levels(self.num_levels)

    def draw(self, batch: int, num_frames: int, *, chunk_len: int = 1, rng: Generator) -> Levels:
        """Chunk and level are uniform."""
        t, counts = _one_at_a_time(batch, count_chunks(num_frames, chunk_len), self.num_levels, rng)
        return _of_frames(t, chunk_len, counts)


@dataclass(frozen=True)
class AnyOrder:
    """Teacher forcing in a random order of the chunks: what is clean may stand anywhere."""

    num_levels: int | None = None

    def __post_init__(self) -> None:
        _check_num_levels(self.num_levels)

    def draw(self, batch: int, num_frames: int, *, chunk_len: int = 1, rng: Generator) -> Levels:
        """Order, chunk and level are uniform."""
        num_chunks = count_chunks(num_frames, chunk_len)
        place = torch.rand(batch, num_chunks, generator=rng).argsort(1)
        t, counts = _one_at_a_time(batch, num_chunks, self.num_levels, rng)
        return _of_frames(t.gather(1, place), chunk_len, counts.gather(1, place))


@dataclass(frozen=True)
class Pyramid:
    """A moment of a cascade: t_f = clip(1 + slope f - tau, 0, 1), tau uniform from all noise to all clean.

    Chunk f starts slope after chunk f - 1: 0 is lockstep, 1 is teacher forcing. The chunks on their way, in (0, 1],
    count. On the grid, row m of clip(K + floor(slope K f) - m, 0, K). With slope None every clip has its own,
    uniform on [0, 1]; the longer a cascade, the fewer of its chunks are on their way at once, so they count by its
    length, and the loss is the mean over slopes of the loss of each cascade.
    """

    slope: float | None = None
    num_levels: int | None = None

    def __post_init__(self) -> None:
        _check_num_levels(self.num_levels)
        if self.slope is not None:
            within(0, 1, slope=self.slope)

    def draw(self, batch: int, num_frames: int, *, chunk_len: int = 1, rng: Generator) -> Levels:
        """The moment is uniform."""
        num_chunks = count_chunks(num_frames, chunk_len)
        num_levels = 1 if self.num_levels is None else self.num_levels
        # decimals: .29 * 100 is 28.999999999999996
        start = self._whole((self._lag(batch, rng) * torch.arange(num_chunks)).round(decimals=9))
        length = num_levels + start[:, -1:]
        moment = self._whole(length * torch.rand(batch, 1, generator=rng, dtype=torch.float64))
        left = num_levels + start - moment
        counts = ((left > 0) & (left <= num_levels)).double()
        if self.slope is None:
            counts = counts * length / num_levels
        return _of_frames((left.clamp(0, num_levels) / num_levels).float(), chunk_len, counts.float())

    def _lag(self, batch: int, rng: Generator) -> Tensor:
        """Levels by which a chunk is behind the one before it, (B, 1); without a grid there is one level."""
        if self.slope is not None:
            return torch.full((batch, 1), self.slope * (self.num_levels or 1), dtype=torch.float64)
        if self.num_levels is None:
            return torch.rand(batch, 1, generator=rng, dtype=torch.float64)
        return torch.randint(self.num_levels + 1, (batch, 1), generator=rng).double()

    def _whole(self, levels: Tensor) -> Tensor:
        return levels if self.num_levels is None else levels.floor()


@dataclass(frozen=True)
class PathUniform:
    """A move of a path drawn uniformly from all paths that take one chunk one level down at a time.

    The depth m is uniform on 0, ..., nK - 1, the levels gone are MultivariateHypergeometric((K, ..., K); m), and
    the chunk that moves next is f with probability a_f / sum(a): chunks count n a_f / sum(a), in every clip 1 on
    average.
    """

    num_levels: int

    def __post_init__(self) -> None:
        at_least(1, num_levels=self.num_levels)

    def draw(self, batch: int, num_frames: int, *, chunk_len: int = 1, rng: Generator) -> Levels:
        """Path and depth are uniform."""
        num_chunks = count_chunks(num_frames, chunk_len)
        num_moves = num_chunks * self.num_levels
        depth = torch.randint(num_moves, (batch, 1), generator=rng)
        # a path is a shuffling of K copies of every chunk: the moves from `depth` on are still to come
        moves = torch.rand(batch, num_moves, generator=rng, dtype=torch.float64).argsort(1) // self.num_levels
        to_come = (torch.arange(num_moves) >= depth).float()
        left = torch.zeros(batch, num_chunks).scatter_add(1, moves, to_come)
        return _of_frames(left / self.num_levels, chunk_len, num_chunks * left / left.sum(1, keepdim=True))


NOISE_LEVELS = {
    "shared": Shared,
    "independent": Independent,
    "teacher_forcing": TeacherForcing,
    "any_order": AnyOrder,
    "pyramid": Pyramid,
    "path_uniform": PathUniform,
}


def shared_levels(
    batch: int, num_frames: int, *, low: float = 0.0, high: float = 1.0, rng: Generator
) -> NoiseLevel:
    """One level a clip, the same for all its frames, uniform on [low, high]."""
    t = low + (high - low) * torch.rand(batch, 1, generator=rng)
    return t.expand(batch, num_frames).contiguous()


def independent_levels(
    batch: int, num_frames: int, *, low: float = 0.0, high: float = 1.0, rng: Generator
) -> NoiseLevel:
    """A level for every frame, independent of the others, uniform on [low, high]."""
    return low + (high - low) * torch.rand(batch, num_frames, generator=rng)


def listed_levels(batch: int, num_frames: int, levels: tuple[float, ...], *, rng: Generator) -> NoiseLevel:
    """Every frame at one of the levels that a few-step student samples with. CausVid, arXiv:2412.07772, sec. 4."""
    return torch.tensor(levels)[torch.randint(len(levels), (batch, num_frames), generator=rng)]


def check_chunks(num_frames: int, chunk_len: int) -> None:
    """Raises ValueError unless a clip is a whole number of chunks."""
    if chunk_len < 1 or num_frames % chunk_len:
        raise ValueError(f"clip length must be a multiple of chunk_len: T={num_frames}, chunk_len={chunk_len}")


def count_chunks(num_frames: int, chunk_len: int) -> int:
    """Chunks of a clip. Raises ValueError unless they are whole."""
    check_chunks(num_frames, chunk_len)
    return num_frames // chunk_len


def _check_num_levels(num_levels: int | None) -> None:
    if num_levels is not None:
        at_least(1, num_levels=num_levels)


def _uniform(batch: int, num_draws: int, num_levels: int | None, rng: Generator) -> Tensor:
    """Uniform on [0, 1), or on 1/K, ..., 1."""
    if num_levels is None:
        return torch.rand(batch, num_draws, generator=rng)
    return torch.randint(1, num_levels + 1, (batch, num_draws), generator=rng) / num_levels


def _one_at_a_time(batch: int, num_chunks: int, num_levels: int | None, rng: Generator) -> tuple[Tensor, Tensor]:
    """Levels of chunks that are made in their order, and which one is being made."""
    index = torch.arange(num_chunks)
    made = torch.randint(num_chunks, (batch, 1), generator=rng)
    is_made = index == made
    t = torch.where(is_made, _uniform(batch, 1, num_levels, rng), (index > made).float())
    return t, is_made.float()


def _of_frames(t: Tensor, chunk_len: int, counts: Tensor | float = 1.0) -> Levels:
    """Levels of frames from those of chunks; what is clean has no loss."""
    counts = counts * (t > 0)
    return Levels(t.repeat_interleave(chunk_len, 1), counts.float().repeat_interleave(chunk_len, 1))

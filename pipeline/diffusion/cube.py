"""The cube {0, ..., K}^n of the noise levels of n frames, enumerated exactly: its moves, and the laws over them.

A path leads from all noise (K, ..., K) to all clean (0, ..., 0), every frame down through every level; a move
takes one frame, or several at once, one level down. A law over paths says how often each move is taken: a denoiser
trained on moves as often as the law takes them is trained on a bound of the likelihood along its paths. There are
(K + 1)^n states and (nK)! / K!^n paths: for small cubes.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise, permutations, product
from math import factorial, floor, prod
from typing import NamedTuple

from pipeline.diffusion.noise_levels import check_chunks
from pipeline.rules import at_least, within

State = tuple[int, ...]  # the level of every frame


class Move(NamedTuple):
    """These frames go one level down together."""

    start: State
    frames: tuple[int, ...]

    @property
    def end(self) -> State:
        """Where it leads."""
        return tuple(level - (f in self.frames) for f, level in enumerate(self.start))


Path = tuple[Move, ...]
Visits = dict[Move, Fraction]  # how often a path takes every move, on average


def states(num_frames: int, num_levels: int) -> list[State]:
    """All states. Raises ValueError unless there are frames and levels."""
    at_least(1, num_frames=num_frames, num_levels=num_levels)
    return list(product(range(num_levels + 1), repeat=num_frames))


def single_moves(num_frames: int, num_levels: int) -> list[Move]:
    """All moves of one frame: nK (K + 1)^(n - 1)."""
    return [Move(a, (f,)) for a in states(num_frames, num_levels) for f in range(num_frames) if a[f] > 0]


def single_paths(num_frames: int, num_levels: int) -> Iterator[Path]:
    """All paths whose moves are of one frame."""

    def from_state(state: State) -> Iterator[Path]:
        if not any(state):
            yield ()
        for move in (Move(state, (f,)) for f in range(num_frames) if state[f] > 0):
            yield from ((move, *rest) for rest in from_state(move.end))

    at_least(1, num_frames=num_frames, num_levels=num_levels)
    return from_state((num_levels,) * num_frames)


def path_along(rows: Sequence[State]) -> Path:
    """The moves between rows of levels. Raises ValueError where a frame does not keep its level or go one down."""
    path = []
    for above, below in pairwise(rows):
        drops = [high - low for high, low in zip(above, below, strict=True)]
        if not set(drops) <= {0, 1} or not any(drops):
            raise ValueError(f"a move must take frames one level down, got {above} to {below}")
        path.append(Move(tuple(above), tuple(f for f, drop in enumerate(drops) if drop)))
    return tuple(path)


def visits(paths: Iterable[Path]) -> Visits:
    """The law that draws one of these paths, all equally likely."""
    counts: dict[Move, int] = defaultdict(int)
    num_paths = 0
    for path in paths:
        num_paths += 1
        for move in path:
            counts[move] += 1
    return {move: Fraction(count, num_paths) for move, count in counts.items()}


def num_ways(levels: State) -> int:
    """Paths of single moves from a state to all clean: (sum of levels)! / product of levels!."""
    return factorial(sum(levels)) // prod(map(factorial, levels))


def uniform_paths(num_frames: int, num_levels: int) -> Visits:
    """All paths of single moves equally likely: N(K - a) N(a - e_f) / N(K, ..., K), N(v) the ways from v."""
    num_paths = num_ways((num_levels,) * num_frames)
    return {
        move: Fraction(num_ways(tuple(num_levels - level for level in move.start)) * num_ways(move.end), num_paths)
        for move in single_moves(num_frames, num_levels)
    }


def uniform_moves(num_frames: int, num_levels: int, *, lowest: int = 0) -> Visits:
    """Independent levels from `lowest` up: all single moves from such states as often, nK of them in all.

    Diffusion forcing; lowest is 1 in the public code. No law over paths, see `violation`.
    """
    within(0, num_levels, lowest=lowest)
    moves = [move for move in single_moves(num_frames, num_levels) if min(move.start) >= lowest]
    return {move: Fraction(num_frames * num_levels, len(moves)) for move in moves}


def pyramid_rows(num_frames: int, num_levels: int, lag: Fraction | int) -> list[State]:
    """Levels of a cascade: row m is clip(K + floor(lag f) - m, 0, K); K + floor((n - 1) lag) + 1 rows.

    Raises:
        ValueError: a lag outside [0, K], in levels from frame to frame; 0 is lockstep, K is teacher forcing.
    """
    at_least(1, num_frames=num_frames, num_levels=num_levels)
    if not 0 <= lag <= num_levels:
        raise ValueError(f"lag must be in [0, num_levels={num_levels}], got {lag}")
    tops = [num_levels + floor(lag * f) for f in range(num_frames)]
    return [tuple(min(max(top - m, 0), num_levels) for top in tops) for m in range(tops[-1] + 1)]


def pyramid(num_frames: int, num_levels: int, lag: Fraction | int) -> Visits:
    """The one path of a cascade."""
    return visits([path_along(pyramid_rows(num_frames, num_levels, lag))])


def random_pyramid(num_frames: int, num_levels: int) -> Visits:
    """Cascades of every whole lag from 0 to K equally likely."""
    rows = (pyramid_rows(num_frames, num_levels, lag) for lag in range(num_levels + 1))
    return visits(map(path_along, rows))


def lockstep(num_frames: int, num_levels: int) -> Visits:
    """All frames together."""
    return pyramid(num_frames, num_levels, 0)


def teacher_forcing(num_frames: int, num_levels: int, *, chunk_len: int = 1) -> Visits:
    """Chunk after chunk, the frames of each in lockstep."""
    check_chunks(num_frames, chunk_len)
    rows = pyramid_rows(num_frames // chunk_len, num_levels, num_levels)
    return visits([path_along([tuple(level for level in row for _ in range(chunk_len)) for row in rows])])


def any_order(num_frames: int, num_levels: int) -> Visits:
    """Frame after frame, in every order equally likely."""
    rows = pyramid_rows(num_frames, num_levels, num_levels)
    orders = permutations(range(num_frames))
    return visits(path_along([tuple(row[f] for f in order) for row in rows]) for order in orders)


def layers(law: Visits) -> dict[int, Fraction]:
    """Moves that start at each sum of levels: 1 of each, where a law over paths moves one frame at a time."""
    totals: dict[int, Fraction] = defaultdict(Fraction)
    for move, often in law.items():
        totals[sum(move.start)] += often
    return dict(totals)


def uniform_in_layers(num_frames: int, num_levels: int) -> Visits:
    """The single moves of every layer equally likely: one move a layer, and yet no law over paths."""
    moves = single_moves(num_frames, num_levels)
    sizes = layers(dict.fromkeys(moves, Fraction(1)))
    return {move: 1 / sizes[sum(move.start)] for move in moves}


def violation(law: Visits) -> Fraction:
    """The most by which moves into a state and out of it differ, but for the two ends; 0 for a law over paths."""
    balance: dict[State, Fraction] = defaultdict(Fraction)
    for move, often in law.items():
        balance[move.end] += often
        balance[move.start] -= often
    num_levels = max(max(state) for state in balance)
    inner = [abs(surplus) for state, surplus in balance.items() if any(state) and min(state) < num_levels]
    return max(inner, default=Fraction(0))


def frame_visits(law: Mapping[Move, Fraction]) -> dict[tuple[State, int], Fraction]:
    """How often a frame goes down from a state, alone or with others: what a loss over frames is weighted by."""
    totals: dict[tuple[State, int], Fraction] = defaultdict(Fraction)
    for move, often in law.items():
        for frame in move.frames:
            totals[move.start, frame] += often
    return dict(totals)

"""What every cell of a sweep is given: a budget, and the number of training steps that a cell can pay from it.

A step is one student update with the critic updates before it, so a cell with more critics, or with a rollout,
takes fewer steps from the same budget of anything but updates.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from pipeline.rules import Number, above, at_least


@dataclass(frozen=True)
class Price:
    """Of one step of a cell. clips: that its updates see, critics' included. flops, seconds: None, not measured."""

    clips: int
    flops: Number | None = None
    seconds: Number | None = None


@runtime_checkable
class Budget(Protocol):
    """What is equal for all cells, and whether the price of a step must be measured to count it."""

    is_measured: ClassVar[bool]

    def num_steps(self, price: Price) -> int:
        """The most steps that the budget pays. Raises ValueError: it does not pay one."""
        ...

    @property
    def words(self) -> str: ...


@dataclass(frozen=True)
class Updates:
    """Equally many updates of the student."""

    is_measured: ClassVar[bool] = False
    num_updates: int = 40

    def __post_init__(self) -> None:
        at_least(1, num_updates=self.num_updates)

    def num_steps(self, price: Price) -> int:  # noqa: ARG002 - the same for every cell
        """As many as that."""
        return self.num_updates

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.num_updates:,} updates of the student"


@dataclass(frozen=True)
class SeenClips:
    """Equally many clips seen, those of the critics' updates included."""

    is_measured: ClassVar[bool] = False
    num_clips: int = 10_000

    def __post_init__(self) -> None:
        at_least(1, num_clips=self.num_clips)

    def num_steps(self, price: Price) -> int:
        """Whole steps."""
        return _whole(self.num_clips, price.clips, "num_clips", "clips")

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.num_clips:,} clips, those that critics see included"


@dataclass(frozen=True)
class Operations:
    """Equally many floating-point operations of training, as torch's counter counts them."""

    is_measured: ClassVar[bool] = True
    tflop: float = 2.0  # 10^12 operations

    def __post_init__(self) -> None:
        above(0, tflop=self.tflop)

    def num_steps(self, price: Price) -> int:
        """Whole steps."""
        assert price.flops is not None
        return _whole(self.tflop, price.flops / 1e12, "tflop", "TFLOP")

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.tflop:g} TFLOP of training"


@dataclass(frozen=True)
class WallTime:
    """Equally long training, by the seconds a step that were measured once, before, on this machine."""

    is_measured: ClassVar[bool] = True
    seconds: float = 60.0

    def __post_init__(self) -> None:
        above(0, seconds=self.seconds)

    def num_steps(self, price: Price) -> int:
        """Whole steps."""
        assert price.seconds is not None
        return _whole(self.seconds, price.seconds, "seconds", "seconds")

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.seconds:g} seconds of training, by a rate measured before"


def _whole(budget: Number, price: Number, name: str, unit: str) -> int:
    if price <= 0:
        raise ValueError(f"{name} must be something that a step costs, got a step of 0 {unit}")
    steps = int(budget / price)
    if steps < 1:
        raise ValueError(f"{name} must be at least the {unit} of one step, {price:.4g}: got {budget:g}")
    return steps


BUDGETS = {"updates": Updates, "clips": SeenClips, "operations": Operations, "seconds": WallTime}

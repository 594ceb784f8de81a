"""A sweep as its parameters say: which cells, which seeds, by what budget, on what resources; and its trials."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

from pipeline.grid import Cell
from pipeline.rules import at_least, one_of, within
from pipeline.sweep.budget import Budget, Updates, WallTime
from pipeline.sweep.tuning import Setting, Tuning

START_PHASE, DEFAULT_PHASE, TUNING_PHASE, TUNED_PHASE = "start", "default", "tuning", "tuned"
START = "start"  # in the place of a cell's loss: what the cells of a method start from
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Resources:
    """Of one trial. num_cpus: threads, too, and so part of the result. num_gpus: a share of one, or several.

    num_workers: processes that share a batch, each with the other resources. precision, compile: on GPUs alone.
    """

    num_cpus: int = 1
    num_gpus: float = 0.0
    num_workers: int = 1
    precision: str = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        at_least(1, num_cpus=self.num_cpus, num_workers=self.num_workers)
        at_least(0, num_gpus=self.num_gpus)
        one_of(PRECISIONS, precision=self.precision)
        if self.num_gpus > 1 and self.num_gpus != int(self.num_gpus):
            raise ValueError(f"num_gpus above 1 must be a whole number, got {self.num_gpus}")
        if self.num_gpus > 1 and self.num_workers == 1:
            raise ValueError(f"num_gpus must be at most 1 for each of num_workers, got {self.num_gpus} for 1")
        if self.num_gpus == 0 and (self.precision != "float32" or self.compile):
            asked = f"precision {self.precision}, compile {self.compile}"
            raise ValueError(f"num_gpus must be above 0 for {asked}: both are for GPUs")


@dataclass(frozen=True)
class SweepRun:
    """Cells x seeds, untuned and, where `tuning` is given, tuned.

    cells: names such as self_forcing-dmd, or patterns such as *-dmd, which leave out what is excluded. seeds: of
    the results, of training and of evaluation. num_clips: n of every measure. max_failures: how often a trial that
    failed is tried again. checkpoint_every: steps. storage: where units live, if not below the work root: any
    fsspec address that all nodes reach. confidence, num_bootstraps: of the intervals over seeds.
    """

    cells: tuple[str, ...]
    seeds: tuple[int, ...] = (1, 2, 3)
    budget: Budget = field(default_factory=Updates)
    tuning: Tuning | None = None
    num_clips: int = 1024
    max_failures: int = 1
    checkpoint_every: int = 20
    resources: Resources = field(default_factory=Resources)
    storage: str | None = None
    confidence: float = 0.95
    num_bootstraps: int = 2000

    def __post_init__(self) -> None:
        for name, entries in (("cells", self.cells), ("seeds", self.seeds)):
            if not entries:
                raise ValueError(f"{name} must name at least one, got none")
            twice = sorted({entry for entry in entries if entries.count(entry) > 1}, key=str)
            if twice:
                raise ValueError(f"{name} must name each once, got {twice[0]} twice")
        at_least(0, **{f"seeds[{index}]": seed for index, seed in enumerate(self.seeds)})
        if self.tuning is not None and self.tuning.seed in self.seeds:
            raise ValueError(f"tuning.seed must be none of seeds, which are to be fresh, got {self.tuning.seed}")
        at_least(2, num_clips=self.num_clips)
        at_least(0, max_failures=self.max_failures)
        at_least(1, checkpoint_every=self.checkpoint_every)
        at_least(100, num_bootstraps=self.num_bootstraps)
        within(0, 1, open_low=True, open_high=True, confidence=self.confidence)
        if self.storage is not None and not self.storage:
            raise ValueError("storage must be an fsspec address, got an empty one")
        if self.storage is not None and self.resources.num_workers > 1:
            raise ValueError(
                f"storage must be null where the workers of a trial share its folder, num_workers "
                f"{self.resources.num_workers}: got {self.storage}"
            )
        is_elsewhere = self.resources.num_gpus > 0 or self.resources.num_workers > 1
        if is_elsewhere and isinstance(self.budget, WallTime):
            raise ValueError(
                "budget must be one of updates, clips, operations with num_gpus or num_workers, got seconds: their "
                "price is measured on one worker on the CPU"
            )

    def selected(self, methods: Iterable[str], losses: Iterable[str]) -> "Selection":
        """The cells among these methods and losses.

        Raises:
            ValueError: a name is unknown, or of a cell that is excluded, or a pattern leaves none to train.
        """
        known = {name_of(cell): cell for cell in (Cell(m, loss) for m in methods for loss in losses)}
        chosen: set[str] = set()
        for pattern in self.cells:
            found = {name for name in known if fnmatchcase(name, pattern)}
            if not found:
                raise ValueError(f"cells must be of the grid, {', '.join(known)}, got {pattern!r}")
            runnable = {name for name in found if known[name].excluded is None}
            if not runnable:
                reason = known[sorted(found)[0]].excluded
                raise ValueError(f"cells must be ones that can be trained, got {pattern!r}: {reason}")
            chosen |= found
        excluded = {cell: cell.excluded or "" for name, cell in known.items() if name in chosen and cell.excluded}
        cells = tuple(cell for name, cell in known.items() if name in chosen and not cell.excluded)
        return Selection(cells, excluded)


class Selection(NamedTuple):
    """The cells that are trained, and why others that were asked for are not, each in the order of the grid."""

    cells: tuple[Cell, ...]
    excluded: dict[Cell, str]


@dataclass(frozen=True)
class Trial:
    """One training and its evaluation; of phase `start` only the evaluation of what the cells start from."""

    cell: Cell
    phase: str
    seed: int
    setting: Setting = field(default_factory=Setting)

    @property
    def is_training(self) -> bool:
        """Whether it trains a cell."""
        return self.phase != START_PHASE

    @property
    def split(self) -> str:
        """Of the real clips that judge it: tuning never sees those of the results."""
        return "metric" if self.phase == TUNING_PHASE else "test"

    @property
    def name(self) -> str:
        """Unique within a sweep."""
        words = [name_of(self.cell), self.phase, f"seed {self.seed}"]
        return " ".join(words + ([self.setting.words] if self.phase == TUNING_PHASE else []))


def name_of(cell: Cell) -> str:
    """Of a cell in parameters, tables and files."""
    return f"{cell.method}-{cell.loss}"


def cell_named(name: str) -> Cell:
    """The cell of a name."""
    return Cell(*name.split("-"))


def start_trials(run: SweepRun, cells: Iterable[Cell]) -> list[Trial]:
    """What the cells of each method start from."""
    methods = dict.fromkeys(cell.method for cell in cells)
    return [Trial(Cell(method, START), START_PHASE, seed) for method in methods for seed in run.seeds]


def default_trials(run: SweepRun, cells: Iterable[Cell]) -> list[Trial]:
    """Every cell by the setting of the grid's parameters. Seeds outermost: half a sweep is a whole one of fewer."""
    cells = list(cells)
    return [Trial(cell, DEFAULT_PHASE, seed) for seed in run.seeds for cell in cells]


def tuning_trials(tuning: Tuning, asked: Mapping[Cell, Iterable[Setting]]) -> list[Trial]:
    """What the search asks of every cell."""
    return [Trial(cell, TUNING_PHASE, tuning.seed, setting) for cell, some in asked.items() for setting in some]


def tuned_trials(run: SweepRun, chosen: Mapping[Cell, Setting]) -> list[Trial]:
    """Every cell by the setting that was chosen for it, with fresh seeds."""
    return [Trial(cell, TUNED_PHASE, seed, setting) for seed in run.seeds for cell, setting in chosen.items()]

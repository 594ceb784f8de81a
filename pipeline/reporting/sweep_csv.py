"""The rows of the files in reports/grid, by the names of their columns."""

from dataclasses import dataclass

from pipeline.grid import Cell

OPEN = "not separated"
WINDOW, FRAME = "window", "frame"  # of what drift.csv holds distances


@dataclass(frozen=True)
class TrialRow:
    """A row of trials.csv; its metrics and costs are None where it failed."""

    method: str
    loss: str
    phase: str
    seed: int
    split: str
    learning_rate: float | None
    critic_rate_factor: float | None
    critic_updates_a_step: float | None
    num_steps: float | None
    status: str
    reason: str
    calls_per_frame: float | None
    latency_ms: float | None  # to the first frame of one clip, while other trials ran
    frames_per_s: float | None
    student_updates: float | None
    critic_updates: float | None
    clips_seen: float | None
    tflop: float | None
    seconds: float | None

    @property
    def cell(self) -> Cell:
        return Cell(self.method, self.loss)


@dataclass(frozen=True)
class MeanRow:
    """A row of cells.csv: the mean over seeds, and its interval where there are enough of them."""

    phase: str
    method: str
    loss: str
    metric: str
    mean: float
    low: float | None
    high: float | None
    num_seeds: int


@dataclass(frozen=True)
class PairRow:
    """A row of pairs.csv: mean excess of a less that of b, simultaneous over all pairs."""

    phase: str
    a: str
    b: str
    difference: float
    low: float | None
    high: float | None
    p_adjusted: float | None
    probability: float | None
    verdict: str
    confounds: str

    @property
    def is_separated(self) -> bool:
        return self.verdict != OPEN


@dataclass(frozen=True)
class RankRow:
    """A row of ranks.csv."""

    phase: str
    cell: str
    rank: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class OrderRow:
    """A row of orders.csv: Kendall's tau with a published order, over the cells that both have."""

    phase: str
    published: str
    tau: float | None
    low: float | None
    high: float | None
    p_value: float | None
    num_cells: int
    cells: str


@dataclass(frozen=True)
class AuditRow:
    """A row of audit.csv: in what two cells differ; reason: why they may, empty where it confounds."""

    phase: str
    a: str
    b: str
    path: str
    value_a: str
    value_b: str
    kind: str
    reason: str


@dataclass(frozen=True)
class CurvePoint:
    """A row of curves.csv."""

    method: str
    loss: str
    phase: str
    seed: int
    step: int
    student_loss: float | None
    critic_loss: float | None


@dataclass(frozen=True)
class DriftRow:
    """A row of drift.csv: a Fréchet distance somewhere along the rollout, and that of real clips there."""

    method: str
    loss: str
    phase: str
    seed: int
    measure: str  # of windows of frames, or of single ones
    at: int  # the window's first frame, or the frame; the first is 1
    distance: float
    floor: float

"""What a run weighs: w(log_snr) of each denoising loss that it trained, and the density p of its log-SNRs."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline.diffusion.schedule import SCHEDULES, Schedule
from pipeline.diffusion.weighting import WEIGHTINGS, Weighting, is_monotone
from pipeline.losses import LOSSES
from pipeline.reporting.read import Checkpoint, Study, is_on_trajectories, lookup, rebuild
from pipeline.reporting.style import FAINT, WIDE, colours, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOG_SNR = torch.linspace(-9.5, 12, 861, dtype=torch.float64)  # where is_monotone looks
STYLES = (
    ("-", 3.6, 0.45),
    ((0, (4, 2)), 1.5, 1.0),
    ((0, (1, 1)), 1.9, 1.0),
    ("-", 1.0, 1.0),
)  # dashes, width, alpha
RIGHT_THIRD = 5.0  # log-SNR from which a name must stand left of its curve
LABELLED = (0.84, 0.5, 0.2)  # heights of the names, as shares of the panel


@dataclass(frozen=True)
class Objective:
    """A denoising loss: its weighting, its schedule, and the log-SNRs between which its levels are drawn."""

    weighting: Weighting
    schedule: Schedule
    low: float
    high: float
    is_of_critic: bool  # that of a fake score
    is_adaptive: bool  # its density is learnt, and no record holds it

    @property
    def is_cut(self) -> bool:
        """Whether the schedule reaches further than training does."""
        return (self.low, self.high) != self.schedule.range

    def weight(self) -> Tensor:
        """w at LOG_SNR, 1 at the point nearest to 0; not a number where there is none."""
        w = self.weighting.weight(LOG_SNR[:, None], self.schedule)[:, 0]
        w = torch.where(self._is_visited() & (w > 0), w, torch.nan)
        middle = LOG_SNR.abs().masked_fill(w.isnan(), torch.inf).argmin()
        return w / w[middle]

    def density(self) -> Tensor:
        """p at LOG_SNR: of levels drawn evenly in t between the ends."""
        p = torch.where(self._is_visited(), self.schedule.density(LOG_SNR), 0.0)
        ends = self.schedule.level(torch.tensor([self.low, self.high], dtype=torch.float64))
        return p / (ends[0] - ends[1])

    def _is_visited(self) -> Tensor:
        return (self.low <= LOG_SNR) & (self.high >= LOG_SNR)


def objectives(study: Study) -> dict[Objective, list[Checkpoint]]:
    """Every different one, and the checkpoints whose training had it: a teacher's own, or that of a fake score."""
    found: dict[Objective, list[Checkpoint]] = {}
    for checkpoint in study.checkpoints:
        is_at_few_levels = is_on_trajectories(checkpoint.trained)  # of a sampler: no density
        if "weighting" in lookup(checkpoint.trained, "work.loss") and not is_at_few_levels:
            found.setdefault(_objective(checkpoint), []).append(checkpoint)
    return found


def _objective(checkpoint: Checkpoint) -> Objective:
    trained = checkpoint.trained
    schedule, weighting = rebuild(trained, "work.denoiser.schedule"), rebuild(trained, "work.loss.weighting")
    low, high = schedule.range
    if LOSSES[checkpoint.cell.loss].needs_target:
        adaptive = lookup(trained, "work.training.adaptive")
        ends = (adaptive["low"], adaptive["high"]) if adaptive else (low, high)
        return Objective(weighting, schedule, *ends, is_of_critic=False, is_adaptive=adaptive is not None)
    levels = torch.tensor([lookup(trained, f"work.loss.level_{end}") for end in ("max", "min")])
    low, high = schedule.log_snr(levels).tolist()
    return Objective(weighting, schedule, low, high, is_of_critic=True, is_adaptive=False)


def draw_weighting(study: Study, path: Path) -> Path:
    """Left the weight of every log-SNR, right how often it is drawn; noise to the left in both."""
    rows: list[dict[str, Any]] = []
    figure = new_figure(WIDE, 3.4)
    left, right = figure.subplots(1, 2)
    shades = colours(study)
    for row, (objective, owners) in enumerate(objectives(study).items()):
        shade, name = shades[owners[0].name], _name(objective, owners)
        w = objective.weight()
        _line(left, w, w.log(), row, name, shade)
        p = None if objective.is_adaptive else objective.density()
        if p is not None:
            _line(right, p, p, row, name, shade)
        rows += _points(name.replace("\n", " "), w, p)
    left.set(yscale="log", ylabel="w, relative to log-SNR 0", title="Weight of each log-SNR in the objective")
    right.set(ylabel="p", title="How often training draws it")
    right.set_ylim(bottom=0)
    for axis in (left, right):
        axis.set_xlabel("log-SNR   (left: noise, right: clean frames)")
        axis.set_xlim(LOG_SNR[0].item(), LOG_SNR[-1].item())
    return save(figure, path, study, rows)


def _points(name: str, w: Tensor, p: Tensor | None) -> Iterator[dict[str, Any]]:
    """A row a log-SNR; empty where it is not weighed, or its density not drawn."""
    densities = [None] * len(w) if p is None else p.tolist()
    for log_snr, weight, density in zip(LOG_SNR.tolist(), w.tolist(), densities, strict=True):
        yield {"objective_of": name, "log_snr": log_snr, "weight_relative_to_0": weight, "density": density}


def _name(objective: Objective, owners: list[Checkpoint]) -> str:
    """Whose it is, a line each."""
    lines = [checkpoint.name for checkpoint in owners]
    return "\n".join(["fake score of", *lines] if objective.is_of_critic else lines)


def _line(axis: "Axes", values: Tensor, heights: Tensor, row: int, name: str, shade: str) -> None:
    """A curve, and its name beside the place where it has fallen to a height of its own. heights: as displayed."""
    dashes, width, alpha = STYLES[row % len(STYLES)]
    axis.plot(LOG_SNR.tolist(), values.tolist(), color=shade, linestyle=dashes, linewidth=width, alpha=alpha)
    shown = heights[~heights.isnan()]
    height = shown.min() + LABELLED[row % len(LABELLED)] * (shown.max() - shown.min())
    peak = heights.nan_to_num(nan=-torch.inf).argmax()
    fallen = (heights[peak:] < height).nonzero()
    at = peak + fallen[0, 0] if len(fallen) else peak
    is_left = LOG_SNR[at] < RIGHT_THIRD
    axis.annotate(
        name,
        (LOG_SNR[at].item(), values[at].item()),
        xytext=(16, 5) if is_left else (-16, -5),
        textcoords="offset points",
        ha="left" if is_left else "right",
        va="center",
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
        arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.8},
    )


def explained(study: Study) -> str:
    """What was weighed under which schedule, and whether monotonically; HTML."""
    return " ".join(_sentence(objective, owners) for objective, owners in objectives(study).items())


def _sentence(objective: Objective, owners: list[Checkpoint]) -> str:
    names = ", ".join(escape(checkpoint.name) for checkpoint in owners)
    whose = f"the fake score of {names}" if objective.is_of_critic else names
    weighting, schedule = (escape(described(part)) for part in (objective.weighting, objective.schedule))
    is_falling = is_monotone(objective.weighting, objective.schedule)
    shape = "is monotone: it never rises" if is_falling else "is not monotone: it rises somewhere"
    ends = f", cut off at {objective.low:.1f} and {objective.high:.1f}" if objective.is_cut else ""
    learnt = "; its p was learnt, and is not drawn" if objective.is_adaptive else ""
    return (
        f"The weight of {whose}, <code>{weighting}</code> under <code>{schedule}</code>, {shape} with the log-SNR"
        f"{ends}{learnt}."
    )


def described(part: Any) -> str:
    """A schedule or a weighting by its name in params.yaml, with what bears on the log-SNR: not the family."""
    name = next(name for name, kind in {**SCHEDULES, **WEIGHTINGS}.items() if type(part) is kind)
    given = {field.name: getattr(part, field.name) for field in fields(part)}
    texts = [
        f"{key} {described(value) if is_dataclass(value) else value}"
        for key, value in given.items()
        if value is not None and key != "family"
    ]
    return f"{name} ({', '.join(texts)})" if texts else name

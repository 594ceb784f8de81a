"""The section "Where to begin": four beginnings of a causal student, and what each leads to."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.reporting.claims import NORMAL_95
from pipeline.reporting.columns import COLUMNS
from pipeline.reporting.markup import picture, warned
from pipeline.reporting.read import Study
from pipeline.reporting.style import HUES, INK, MARKERS, WIDE, new_figure, save, theme, without_grid
from pipeline.reporting.sweep_tables import Place, html_table, notices, read_rows, reading, text_table
from pipeline.reporting.tables import best_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COMMAND = "python3 -m pipeline causal-forcing"
CAVEAT = "One seed: intervals and ±, of 95 %, are over clips, not over training runs."
NAMES = {  # of the ways to begin, as inits.csv has them
    "teacher": "teacher's weights",
    "ode_regression_causal": "regression, causal",
    "ode_regression_bidirectional": "regression, bidirectional",
    "consistency": "consistency",
}
TEACHERS = ("causal", "bidirectional")
SHOWN = {  # of a row, in the order of the table: its title, which end is better, and how it is written
    "updates": ("updates", 0, ",d"),
    "residual_causal": ("causal ends", -1, ".4f"),
    "residual_bidirectional": ("full ends", -1, ".4f"),
    "excess": ("excess FVD", -1, ".1f"),
    "first_to_last": (COLUMNS["agreement_last"].title, +1, ".3f"),
    "rollout_excess": ("then DMD: FVD", -1, ".1f"),
    "rollout_first_to_last": (COLUMNS["agreement_last"].title, +1, ".3f"),
    "seconds": ("seconds", 0, ",.0f"),
}
CAPTION = """Left and middle: what a student in one step from pure noise leaves of the ends of held-out trajectories
of each teacher, as a share of their variance; 1 is what their mean leaves. An end of the bidirectional teacher also
depends on the noise of the frames to come, of which the first frame has most: where that is why a regression fails,
its curve falls from left to right. Right: excess FVD of each student before and after self forcing by DMD, with
intervals of 95 % over {found.num_clips:,} clips; of {found.num_heldout:,} trajectories; one seed."""


@dataclass(frozen=True)
class Beginning:
    """A row of inits.csv: residuals over all levels, and clips before and after self forcing."""

    init: str
    updates: int
    residual_causal: float
    residual_causal_se: float
    residual_bidirectional: float
    residual_bidirectional_se: float
    excess: float
    excess_low: float
    excess_high: float
    first_to_last: float
    rollout_updates: int
    rollout_excess: float
    rollout_excess_low: float
    rollout_excess_high: float
    rollout_first_to_last: float
    seconds: float

    @property
    def name(self) -> str:
        return NAMES[self.init]

    def interval(self, prefix: str = "") -> str:
        """Excess FVD; prefix: empty or `rollout_`."""
        excess, low, high = (vars(self)[f"{prefix}excess{end}"] for end in ("", "_low", "_high"))
        return f"{excess:.1f} [{low:.1f}, {high:.1f}]"


@dataclass(frozen=True)
class Residual:
    """A row of residuals.csv. frame: counted from 0, at the noisiest level; None: the mean over frames."""

    init: str
    teacher: str
    level: float
    frame: float | None
    residual: float


@dataclass(frozen=True)
class Beginnings:
    """Every way to begin, by name, and what they were made from."""

    rows: dict[str, Beginning]
    by_frame: dict[tuple[str, str], list[float]]  # residual, by way to begin and teacher
    profile: str
    codec: str  # digest of the artifacts whose latents the students speak
    num_clips: int
    num_heldout: int
    failed: dict[str, str]


def read_beginnings(reports: Path) -> Beginnings:
    """What stands in reports/causal_forcing.

    Raises:
        DamagedRecordError: a file is missing, damaged, lacks an entry, or knows another way to begin.
    """
    path = reports / "causal_forcing" / "run.json"
    with reading(path):
        about = json.loads(path.read_text())
        named = {name: about[name] for name in ("profile", "codec", "failed")}
        named |= {name: about["params"][name] for name in ("num_clips", "num_heldout")}
    path = path.with_name("inits.csv")
    rows = {row.init: row for row in read_rows(path, Beginning)}
    with reading(path):
        unknown = [name for name in rows if name not in NAMES]
        if unknown:
            raise ValueError(f"it knows {', '.join(unknown)}; known: {', '.join(NAMES)}")
    path = path.with_name("residuals.csv")
    by_frame: dict[tuple[str, str], list[float]] = {}
    for line in read_rows(path, Residual):
        if line.frame is not None:
            by_frame.setdefault((line.init, line.teacher), []).append(line.residual)
    with reading(path):
        silent = [
            f"{init} on {teacher}" for init in rows for teacher in TEACHERS if (init, teacher) not in by_frame
        ]
        if silent:
            raise ValueError(f"it has no frame of {', '.join(silent)}")
    return Beginnings(rows, by_frame, **named)


def beginnings(study: Study, reports: Path) -> dict[str, list[str]]:
    """The section by its title, and its figure among the others; nothing where the experiment was never run."""
    if not (reports / "causal_forcing").exists():
        return {}
    found = read_beginnings(reports)
    with theme():
        drawn = draw_beginnings(found, study, reports / "figures" / "beginnings.svg")
    said = notices(study, codec=found.codec, profile=found.profile, who="These students", command=COMMAND)
    said += [f"{name} failed: {reason}" for name, reason in found.failed.items()]
    return {
        "Where to begin": [
            *(f'<p class="warning">{escape(line)}</p>' for line in said),
            f"<p>{escape(' '.join(answer(found)))} <code>{COMMAND}</code> makes this.</p>",
            picture(drawn, warned(study.warning, CAPTION.format(found=found)), command=COMMAND),
            html_table(lines_of(found), warned(study.warning, escape(legend(found))), best=best_places(found)),
        ]
    }


def answer(found: Beginnings) -> list[str]:
    """Whether the claim holds, and what the best student began with, in sentences made of the numbers."""
    best = "; ".join(f"{when} {_best(found, prefix)}" for when, prefix in (("Before", ""), ("after", "rollout_")))
    return [_claim(found), f"{best}.", CAVEAT]


def _claim(found: Beginnings) -> str:
    """Each regression on held-out ends of its own teacher."""
    missing = [name for teacher in TEACHERS if (name := f"ode_regression_{teacher}") not in found.rows]
    if missing:
        return f"The claim of Causal Forcing, arXiv:2602.02214, is not judged: there is no {', '.join(missing)}."
    (causal, causal_se), (full, full_se) = (
        [vars(found.rows[f"ode_regression_{teacher}"])[f"residual_{teacher}{end}"] for end in ("", "_se")]
        for teacher in TEACHERS
    )
    shown = [
        f"{100 * value:.3g} ± {100 * NORMAL_95 * error:.2g} %"
        for value, error in ((full, full_se), (causal, causal_se))
    ]
    gap, error = full - causal, NORMAL_95 * math.hypot(causal_se, full_se)
    if abs(gap) <= error:
        verdict = "not separated, against what Causal Forcing, arXiv:2602.02214, claims"
    elif gap < 0:
        verdict = "less, against what Causal Forcing, arXiv:2602.02214, claims"
    else:
        verdict = f"{full / causal:.3g} times as much; Causal Forcing, arXiv:2602.02214, claims that it is more"
    return (
        f"A causal student's regression on trajectories of the bidirectional teacher leaves {shown[0]} of the "
        f"variance of held-out ends, that on trajectories of the causal teacher {shown[1]}: {verdict}."
    )


def _best(found: Beginnings, prefix: str) -> str:
    """The least excess FVD, and those that it is not separated from."""
    rows = list(found.rows.values())
    best = min(rows, key=lambda row: vars(row)[f"{prefix}excess"])
    high = vars(best)[f"{prefix}excess_high"]
    near = [row.name for row in rows if row != best and vars(row)[f"{prefix}excess_low"] <= high]
    apart = f"not separated from: {' / '.join(near)}" if near else "apart from all others"
    stage = "it" if prefix else "self forcing by DMD"
    return f"{stage} the best begins with: {best.name}, excess FVD {best.interval(prefix)} ({apart})"


def legend(found: Beginnings) -> str:
    """What the columns are."""
    updates = sorted({row.rollout_updates for row in found.rows.values()})
    return (
        f"Ends: squared distance of a student's answers, at all its levels, from the ends of {found.num_heldout:,} "
        f"held-out trajectories of the causal and of the bidirectional (full) teacher, as a share of their "
        f"variance. FVD: excess, at n = {found.num_clips:,} clips. Then DMD: after "
        f"{'/'.join(f'{n:,}' for n in updates)} updates of self forcing. "
        f"Seconds: of the training before it, without the making of trajectories."
    )


def lines_of(found: Beginnings) -> list[list[str]]:
    """A line of heads, then one a way to begin."""
    lines = [["begins with", *(title for title, _, _ in SHOWN.values())]]
    for row in found.rows.values():
        numbers = {name: format(vars(row)[name], how) for name, (_, _, how) in SHOWN.items()}
        numbers |= {f"{prefix}excess": row.interval(prefix) for prefix in ("", "rollout_")}
        lines.append([row.name, *numbers.values()])
    return lines


def best_places(found: Beginnings) -> set[Place]:
    """Row and column of the best values of every column."""
    rows = [vars(row) for row in found.rows.values()]
    return {
        (row, 1 + column)
        for column, (name, (_, better, _)) in enumerate(SHOWN.items())
        for row in best_rows([one[name] for one in rows], better)
    }


def as_text(found: Beginnings) -> str:
    """The table and what it says, for a terminal of 120 columns."""
    shown = text_table(lines_of(found), num_left=1, best=best_places(found))
    absent = [f"failed: {name}: {reason}" for name, reason in found.failed.items()]
    return "\n".join([shown, "", *absent, *answer(found), legend(found)])


def draw_beginnings(found: Beginnings, study: Study, path: Path) -> Path:
    """What is left of the ends of each teacher by frame, then excess FVD before and after self forcing."""
    figure = new_figure(WIDE, 3.5)
    left, middle, right = figure.subplots(1, 3)
    middle.sharey(left)
    for axis, teacher in ((left, "causal"), (middle, "bidirectional")):
        for init in found.rows:
            values = found.by_frame[init, teacher]
            axis.plot(range(1, len(values) + 1), values, markersize=4, **_look(init))
        axis.set(yscale="log", xlabel="frame", title=f"Ends of the {teacher} teacher")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.axhline(1, color=INK, linestyle=(0, (2, 2)), linewidth=0.8)
        axis.locator_params(axis="x", integer=True)
    left.set_ylabel("share of the variance left, from noise")
    middle.tick_params(labelleft=False)
    _before_and_after(right, found)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(NAMES))
    path.parent.mkdir(exist_ok=True)
    return save(figure, path, study, list(_marks(found)))


def _marks(found: Beginnings) -> Iterator[dict[str, Any]]:
    """A row a mark: residuals by frame, then excess FVD with its interval over clips."""
    for (init, teacher), values in found.by_frame.items():
        for frame, value in enumerate(values, start=1):
            yield {"begins_with": NAMES[init], "ends_of_teacher": teacher, "frame": frame, "residual_share": value}
    for prefix, when in (("", "before"), ("rollout_", "after self forcing by DMD")):
        for row in found.rows.values():
            excess, low, high = (vars(row)[f"{prefix}excess{end}"] for end in ("", "_low", "_high"))
            numbers = {"excess_fvd": excess, "low": low, "high": high, "num_clips": found.num_clips}
            yield {"begins_with": row.name, "when": when, **numbers}


def _look(init: str) -> dict[str, Any]:
    """The colour and the marker of a way to begin, whichever others there are."""
    rank = list(NAMES).index(init)
    return {"color": HUES[rank], "marker": MARKERS[rank], "label": NAMES[init]}


def _before_and_after(axis: "Axes", found: Beginnings) -> None:
    """A line a way to begin, beside each other so that no interval hides another."""
    for init, row in found.rows.items():
        beside = 0.05 * (list(NAMES).index(init) - (len(NAMES) - 1) / 2)
        across, look = (beside, 1 + beside), _look(init)
        axis.plot(across, (row.excess, row.rollout_excess), markersize=6, markeredgecolor="white", **look)
        ends = ((row.excess_low, row.excess_high), (row.rollout_excess_low, row.rollout_excess_high))
        for at, interval in zip(across, ends, strict=True):
            axis.plot((at, at), interval, color=look["color"], linewidth=1.2, alpha=0.6)
    axis.set_xticks((0, 1), ("before", "after self\nforcing by DMD"))
    axis.set_xlim(-0.3, 1.3)
    axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    axis.set_title("Excess FVD (lower is better)")
    without_grid(axis, "x")

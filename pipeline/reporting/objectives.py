"""The section "Objectives": teachers under every prediction, weighting and schedule of the ablation."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.reporting.claims import AXES, NORMAL_95, TITLES, Spread, Teacher, verdicts
from pipeline.reporting.columns import NOTHING
from pipeline.reporting.markup import picture, warned
from pipeline.reporting.read import Study
from pipeline.reporting.style import HUES, INK, MARKERS, WIDE, new_figure, save, theme, without_grid
from pipeline.reporting.sweep_figures import plain_numbers
from pipeline.reporting.sweep_tables import Place, html_table, notices, read_rows, reading, text_table
from pipeline.reporting.tables import best_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COMMAND = "python3 -m pipeline ablate-diffusion"
PANELS = {**TITLES, "loss_relative_sd": "relative sd of a clip's loss"}
CAPTION = """Every teacher of the ablation, side by side over its weighting: bits per dimension of the latents along
teacher forcing, excess FVD of {found.num_clips:,} clips, and how far the training loss of a single clip scatters
about its mean under the teacher's own schedule. Lines: 95 % intervals over clips; one seed."""
RANKED = {  # by column of the table: higher (+1) or lower (-1) is better
    3: ("bits_per_dim", -1),
    4: ("excess", -1),
    5: ("agreement_second", +1),
    7: ("loss_relative_sd", -1),
}
FILLS: tuple[dict[str, Any], ...] = (  # of the markers, a schedule each
    {"fillstyle": "full"},
    {"fillstyle": "full", "markerfacecolor": "white"},
    {"fillstyle": "left", "markerfacecoloralt": "white"},
    {"fillstyle": "top", "markerfacecoloralt": "white"},
)
STEEP = 5  # so many times the least is the most where an axis is logarithmic


@dataclass(frozen=True)
class Objectives:
    """Both tables of an ablation, and what they were made from."""

    teachers: list[Teacher]
    spread: list[Spread]
    profile: str
    codec: str  # digest of the artifacts whose latents the teachers speak
    num_clips: int
    failed: dict[str, str]


def read_objectives(reports: Path) -> Objectives:
    """Raises DamagedRecordError: a file is missing, damaged, or lacks an entry."""
    path = reports / "ablation" / "run.json"
    with reading(path):
        about = json.loads(path.read_text())
        named = {name: about[name] for name in ("profile", "codec", "num_clips", "failed")}
    teachers = read_rows(path.with_name("diffusion.csv"), Teacher)
    return Objectives(teachers, read_rows(path.with_name("spread.csv"), Spread), **named)


def objectives(study: Study, reports: Path) -> dict[str, list[str]]:
    """The section by its title, and its figure among the others; nothing where the ablation was never run."""
    if not (reports / "ablation").exists():
        return {}
    found = read_objectives(reports)
    with theme():
        drawn = draw_objectives(found, study, reports / "figures" / "objectives.svg")
    said = notices(study, codec=found.codec, profile=found.profile, who="These teachers", command=COMMAND)
    said += [f"{name} failed: {reason}" for name, reason in found.failed.items()]
    lines = "".join(f"<li>{escape(line)}</li>" for line in verdicts(found.teachers, found.spread))
    of_teachers = f"Teachers of the ablation, at n = {found.num_clips:,} clips; loss: under their own schedule."
    of_spread = "The loss of each network, its levels drawn under several schedules: mean, and spread of one clip."
    return {
        "Objectives": [
            *(f'<p class="warning">{escape(line)}</p>' for line in said),
            "<p>One backbone, the same data and as many updates under every objective. "
            f"<code>{COMMAND}</code> makes this section.</p>",
            f"<ul>{lines}</ul>",
            picture(drawn, warned(study.warning, CAPTION.format(found=found)), command=COMMAND),
            html_table(teacher_lines(found), warned(study.warning, of_teachers), best=best_places(found)),
            html_table(spread_lines(found), warned(study.warning, of_spread)),
        ]
    }


def teacher_lines(found: Objectives) -> list[list[str]]:
    """A line of heads, then one a teacher."""
    lines = [[*AXES, "bits/dim", "excess FVD", "1→2", "loss", "rel. sd", "updates", "seconds"]]
    for teacher in found.teachers:
        bits = NOTHING
        if teacher.bits_per_dim is not None:
            bits = f"{teacher.bits_per_dim:.3f} ± {teacher.bits_standard_error:.3f}"
        lines.append(
            [
                teacher.prediction,
                teacher.weighting,
                teacher.schedule,
                bits,
                f"{teacher.excess:.1f} [{teacher.excess_low:.1f}, {teacher.excess_high:.1f}]",
                f"{teacher.agreement_second:.3f}",
                f"{teacher.loss:.4f}",
                f"{teacher.loss_relative_sd:.2f}",
                f"{teacher.updates:,}",
                f"{teacher.seconds:,.0f}",
            ]
        )
    return lines


def spread_lines(found: Objectives) -> list[list[str]]:
    """A line of heads, then one a network and law: every schedule that drew the levels beside the others."""
    names = list(dict.fromkeys(line.drawn_under for line in found.spread))
    networks: dict[tuple[str, ...], dict[str, Spread]] = {}
    for line in found.spread:
        key = (line.prediction, line.weighting, line.schedule, line.law.replace("_", " "))
        networks.setdefault(key, {})[line.drawn_under] = line
    heads = [*AXES, "levels"]
    for name in names:
        heads += [f"{name}: loss", "rel. sd"]
    lines = [heads]
    for key, by_name in networks.items():
        numbers = []
        for name in names:
            line = by_name.get(name)
            shown = (f"{line.mean:.4f} ± {line.standard_error:.4f}", f"{line.relative_sd:.2f}") if line else ()
            numbers += shown or (NOTHING, NOTHING)
        lines.append([*key, *numbers])
    return lines


def best_places(found: Objectives) -> set[Place]:
    """Row and column of the best values of every column that ranks; losses of unlike objectives do not."""
    return {
        (row, column)
        for column, (name, better) in RANKED.items()
        for row in best_rows([vars(teacher)[name] for teacher in found.teachers], better)
    }


def as_text(found: Objectives) -> str:
    """The table of teachers and the verdicts, for a terminal."""
    shown = text_table(teacher_lines(found), num_left=len(AXES), best=best_places(found))
    return "\n".join([shown, "", *verdicts(found.teachers, found.spread)])


def draw_objectives(found: Objectives, study: Study, path: Path) -> Path:
    """A panel a measure: across the weightings, hue and marker the prediction, its filling the schedule."""
    figure = new_figure(WIDE, 3.7)
    panels = [name for name in PANELS if any(vars(teacher)[name] is not None for teacher in found.teachers)]
    for axis, name in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        _points(axis, found.teachers, name)
        axis.set_title(PANELS[name])
        figure.legends.clear()
        labelled = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=3)
    path.parent.mkdir(exist_ok=True)
    return save(figure, path, study, [row for name in panels for row in _marks(found, name)])


def _marks(found: Objectives, name: str) -> Iterator[dict[str, Any]]:
    """A row a mark: a measure, and its interval over clips where it has one."""
    for teacher in found.teachers:
        value = vars(teacher)[name]
        if value is not None:
            low, high = _interval(teacher, name, value)
            ends = {"low": low, "high": high} if (low, high) != (value, value) else {}
            yield {axis: vars(teacher)[axis] for axis in AXES} | {"measure": PANELS[name], "value": value, **ends}


def _points(axis: "Axes", teachers: list[Teacher], name: str) -> None:
    """Side by side around their weighting, in the order of the table."""
    weightings, predictions, schedules = (
        list(dict.fromkeys(vars(teacher)[kind] for teacher in teachers))
        for kind in ("weighting", "prediction", "schedule")
    )
    beside = [(prediction, schedule) for prediction in predictions for schedule in schedules]
    for teacher in teachers:
        value = vars(teacher)[name]
        if value is None:
            continue
        rank = beside.index((teacher.prediction, teacher.schedule))
        across = weightings.index(teacher.weighting) + 0.8 * ((rank + 0.5) / len(beside) - 0.5)
        colour = HUES[1 + predictions.index(teacher.prediction) % (len(HUES) - 1)]
        marker = MARKERS[predictions.index(teacher.prediction) % len(MARKERS)]
        fill = FILLS[schedules.index(teacher.schedule) % len(FILLS)]
        axis.plot([across, across], _interval(teacher, name, value), color=colour, linewidth=1.2, alpha=0.6)
        label = f"{teacher.prediction}, {teacher.schedule}".replace("_", " ")
        style: dict[str, Any] = {"markersize": 6, "linestyle": "none"}
        axis.plot(across, value, marker=marker, color=colour, label=label, **fill, **style)
    axis.set_xticks(range(len(weightings)), weightings, color=INK)
    axis.set_xlim(-0.5, len(weightings) - 0.5)
    without_grid(axis, "x")
    values = [vars(teacher)[name] for teacher in teachers if vars(teacher)[name] is not None]
    if min(values) > 0 and max(values) > STEEP * min(values):
        axis.set_yscale("log")
        plain_numbers(axis)


def _interval(teacher: Teacher, name: str, value: float) -> tuple[float, float]:
    if name == "excess":
        return teacher.excess_low, teacher.excess_high
    if name == "bits_per_dim":
        half = NORMAL_95 * (teacher.bits_standard_error or 0.0)
        return value - half, value + half
    return value, value

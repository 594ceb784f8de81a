"""The sections on neural students, and on the estimators of their divergences, where those were run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import mean

from pipeline.reporting.columns import NOTHING
from pipeline.reporting.laboratory import words
from pipeline.reporting.laboratory.brief import PREFIX, labelled, narrow
from pipeline.reporting.laboratory.neural_figures import (
    BOUND,
    draw_estimators,
    draw_neural,
    draw_neural_modes,
    draw_steps,
)
from pipeline.reporting.laboratory.neural_tables import Bias, Divergence, ModeShare, StepKl, by_cell
from pipeline.reporting.laboratory.results import COMMAND, Laboratory
from pipeline.reporting.laboratory.tables import read_table
from pipeline.reporting.markup import picture, table, warned

FILES: dict[str, type] = {
    "neural": Divergence,
    "neural_modes": ModeShare,
    "neural_steps": StepKl,
    "estimators": Bias,
}
CAPTIONS = {
    "neural": """Divergences of neural students from data, in nats a clip, a mark for each of {num_seeds} seeds with
its 95 % interval over draws. Filled: by both densities, exact but for the {num_paths:,} draws. Hollow: a lower
bound by a classifier on {num_samples:,} clips, of students whose density is not known.""",
    "neural_modes": """Which share of each neural student's clips lies in the mode that is rarest in data, a mark
for each of {num_seeds} seeds, {num_samples:,} clips a seed; the dashed line is the share that it has among
data.""",
    "neural_steps": """The KL by frame, summed so far; the sum over all frames is that of the clip. Above: after
true contexts, the forward KL. Below: after the student's own, the reverse KL. Means over {num_seeds} seeds, and
the least and the greatest of them.""",
    "estimators": """Estimate less exact value, on pairs whose divergence is known, against the number of draws: the
mean of {bias_repeats} repeats with its 95 % interval. In full: by both densities; dashed: the classifier's
bound, which is too low by design, the more so the fewer the draws.""",
}


@dataclass(frozen=True)
class Neural:
    """What there is of the four files; each may be absent."""

    neural: list[Divergence]
    neural_modes: list[ModeShare]
    neural_steps: list[StepKl]
    estimators: list[Bias]


def read_neural(directory: Path) -> Neural:
    """Raises DamagedRecordError: a file that is there is damaged. A blank one is of a run without such students."""
    paths = {name: directory / f"{name}.csv" for name in FILES}
    written = {name: path for name, path in paths.items() if path.exists() and path.read_text().strip()}
    rows = {name: read_table(path, FILES[name]) for name, path in written.items()}
    return Neural(**({name: [] for name in FILES} | rows))


def neural_sections(found: Laboratory, directory: Path, figures: Path) -> dict[str, list[str]]:
    """By title; nothing where nothing was run."""
    neural = read_neural(directory)
    run = found.params["neural"]
    drawn = {name: figures / f"{PREFIX}{name}.svg" for name in FILES if vars(neural)[name]}
    if "neural" in drawn:
        draw_neural(found, neural.neural, drawn["neural"])
    if "neural_modes" in drawn:
        draw_neural_modes(found, neural.neural_modes, drawn["neural_modes"])
    if "neural_steps" in drawn:
        draw_steps(found, neural.neural_steps, drawn["neural_steps"])
    if "estimators" in drawn:
        draw_estimators(found, neural.estimators, drawn["estimators"])
    shown = {
        name: narrow(picture(path, warned(found.warning, CAPTIONS[name].format(**run)), command=COMMAND))
        for name, path in drawn.items()
    }
    parts: dict[str, list[str]] = {}
    if neural.neural:
        processes = ", ".join(sorted({row.process for row in neural.neural}))
        parts["Neural students"] = [
            f"<p>{escape(answer(neural, processes))}</p>",
            shown["neural"],
            divergence_table(found, neural.neural),
            *(shown[name] for name in ("neural_modes", "neural_steps") if name in shown),
        ]
    if neural.estimators:
        parts["How good the estimators are"] = [f"<p>{escape(bias(neural.estimators))}</p>", shown["estimators"]]
    return parts


def answer(neural: Neural, processes: str) -> str:
    """What neural students came to, in sentences made of the numbers."""
    best = []
    for divergence, rows in _by_divergence(neural.neural).items():
        means = {cell: mean(row.value for row in own) for cell, own in by_cell(rows).items()}
        least = min(means, key=means.__getitem__)
        most = max(means, key=means.__getitem__)
        name = words.objective(divergence)
        best.append(
            f"{name}: least {words.cell(least)}, {means[least]:.3f}, most {words.cell(most)}, {means[most]:.3f}"
        )
    bounded = sorted({words.cell(row.cell) for row in neural.neural if row.estimator == BOUND})
    note = f" Of {', '.join(bounded)} only lower bounds are known." if bounded else ""
    return (
        f"The same cells with small neural networks on clips of process {processes}: nothing keeps these from "
        f"fitting but their training. Nats a clip, means over seeds. {'; '.join(best)}.{note}"
    )


def divergence_table(found: Laboratory, rows: Sequence[Divergence]) -> str:
    """A row a cell: the mean over seeds of every divergence, their ends, and how it was found."""
    divergences = list(_by_divergence(rows))
    heads = ["cell", *(f"{words.objective(name)}, nats" for name in divergences), "found by"]
    lines = []
    for cell, own in by_cell(rows).items():
        values = [_shown([row.value for row in own if row.divergence == name]) for name in divergences]
        found_by = ", ".join(dict.fromkeys(row.estimator.replace("_", " ") for row in own))
        lines.append(("", labelled(words.cell(cell), heads, [*values, escape(found_by)])))
    caption = "Means over seeds, and the least and greatest seed."
    return table(heads, lines, caption=warned(found.warning, caption), kind="wordy")


def _shown(values: Sequence[float]) -> str:
    if not values:
        return NOTHING
    return f'<span class="number">{mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]</span>'


def _by_divergence(rows: Sequence[Divergence]) -> Mapping[str, list[Divergence]]:
    found: dict[str, list[Divergence]] = {}
    for row in rows:
        found.setdefault(row.divergence, []).append(row)
    return found


def bias(rows: Sequence[Bias]) -> str:
    """How far each estimator is off at the fewest and at the most draws."""
    fewest, most = (end(row.num_samples for row in rows) for end in (min, max))
    parts = []
    for estimator in dict.fromkeys(row.estimator for row in rows):
        ends = []
        for number in dict.fromkeys((fewest, most)):
            off = [
                row.estimate - row.exact for row in rows if (row.estimator, row.num_samples) == (estimator, number)
            ]
            ends.append(f"{min(off):+.3f} to {max(off):+.3f} nats at {number:,} draws")
        parts.append(f"{estimator.replace('_', ' ')}: {', '.join(ends)}")
    return (
        "Where the density of a student is not known, its divergence is estimated, and the estimator is tried on "
        f"pairs whose divergence is known. Estimate less exact value: {'; '.join(parts)}."
    )

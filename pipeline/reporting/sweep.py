"""What the page says of the sweep, by part: drift, the cells compared, cost, training, clips, and the audit."""

from html import escape
from pathlib import Path
from textwrap import fill

import numpy as np

from pipeline.grid import Cell
from pipeline.reporting.markup import cell, picture, row_head, table, warned
from pipeline.reporting.read import Study
from pipeline.reporting.style import theme
from pipeline.reporting.sweep_audit import KINDS, Difference, differences
from pipeline.reporting.sweep_cost import draw_cost
from pipeline.reporting.sweep_figures import TITLES, draw_matrix
from pipeline.reporting.sweep_orders import draw_pairs, draw_ranks
from pipeline.reporting.sweep_read import Found, name_of
from pipeline.reporting.sweep_rollout import draw_drift
from pipeline.reporting.sweep_rows import cost_table, table_of, text_of
from pipeline.reporting.sweep_tables import reading
from pipeline.reporting.sweep_trainings import draw_clips, draw_curves
from pipeline.reporting.sweep_words import (
    COMMAND,
    absent_said,
    answer,
    caveats,
    confounds_said,
    incomplete,
    warnings_of,
)

WIDTH = 116  # letters of a line of prose in a terminal
CAPTIONS = {  # each before what stands behind its numbers
    "sweep_drift": """Left to right: along the rollout. Above, FVD of windows as long as training clips by their
first frame; below, Fréchet distance of single frames, blind to motion; both less what real clips score there,
in squared units of features (windows) or of the spread of frames. Lines: means over seeds; whiskers and bands:
the lowest and the highest seed. Shaded: beyond the length of training clips; a window reaches there that begins
after frame 1. Dashed: what the cells of a method start from. A line that rises accumulates error; a high and
level one is wrong from the start. The scale is logarithmic unless a seed comes below its floor.""",
    "sweep_matrix": """Every method with every loss: mean excess FVD, below it its interval; the darker, the better.
Both matrices share one scale of colours.""",
    "sweep_ranks": """Left: the rank of every cell by its mean, with the interval of what other seeds could make of
it. Right: the place that the paper Self-Forcing published for the same cell (VBench, students of another size
on other data), and its place here among those cells; where both orders agree, the marks lie on each other.""",
    "sweep_pairs": """Every pair of cells, the best first. A field with a mark is a difference that these seeds
separate, corrected for the number of pairs; one without is not separated, whatever its colour. Hatched pairs
are confounded, by what the audit names.""",
    "sweep_cost": """Mean excess FVD, with its interval over seeds, against what one training of the cell and what
sampling of it costs, means over seeds. The grey line joins the cells that no other beats in both. Trials ran
side by side on the same cores: seconds and latency are longer than of one alone, and where cells pass their
frames through the denoiser equally often, what differs in latency is that load.""",
    "sweep_curves": """Training of every cell: mean and range over seeds of the student's loss, and dotted that of
its critics, on a scale of its own. Losses of different names have different units.""",
    "sweep_clips": """The first clips of every cell, not chosen, of its first seed, tuned where it was tuned, frame
by frame, under those of its start.""",
}
WITH_INTERVALS = ("sweep_matrix", "sweep_ranks", "sweep_cost")
COST = """what each cell was given and cost, means over seeds. Of one training: updates of the student and of its
critics, floating-point operations, wall time. Of sampling: passes of a frame through the denoiser, milliseconds
to the first frame of one clip, frames a second, measured while other trials ran on the same cores. Setting: what
the search chose for all seeds of a cell: the learning rate of the student, the factor on those of its critics,
and their updates a step."""


def sweep_sections(
    study: Study, found: Found, clips: dict[Cell, np.ndarray], reports: Path
) -> dict[str, list[str]]:
    """The parts of the page by name, and their figures among the others.

    Raises:
        DamagedRecordError: audit.csv of the sweep has a kind that is not known.
    """
    with reading(reports / "grid" / "audit.csv"):
        audited = differences(found.differing)
    pictures = {
        name: picture(path, warned(study.warning, f"{CAPTIONS[name]} {_behind(found, name)}"), command=COMMAND)
        for name, path in draw_sweep(found, study, clips, reports / "figures").items()
    }
    tables = [
        table_of(found, phase, warned(study.warning, _caption(found, phase)), with_starts=phase == found.last)
        for phase in reversed(found.phases)
    ]
    said = dict.fromkeys(reversed(found.phases), "the same.") | {found.last: COST}
    costs = [cost_table(found, phase, warned(study.warning, f"{TITLES[phase]}: {said[phase]}")) for phase in said]
    return {
        "drift": [*_warned(absent_said(found, study)), pictures["sweep_drift"]],
        "compared": [
            *_warned(warnings_of(found, study)),
            f"<p>{escape(' '.join(answer(found)))} <code>{COMMAND}</code> makes this.</p>",
            pictures["sweep_matrix"],
            *(f"<p>Excluded: {escape(name_of(one))}: {escape(why)}.</p>" for one, why in found.excluded.items()),
            pictures["sweep_ranks"],
            pictures["sweep_pairs"],
            *tables,
            *(f"<p>{escape(line)}</p>" for line in caveats(found)),
        ],
        "cost": [
            *_warned(absent_said(found, study)),
            pictures["sweep_cost"],
            *costs,
        ],
        "training": [pictures["sweep_curves"]],
        "clips": [pictures["sweep_clips"]],
        "audit": audit_tables(audited),
    }


def draw_sweep(found: Found, study: Study, clips: dict[Cell, np.ndarray], directory: Path) -> dict[str, Path]:
    """Every figure by its name."""
    directory.mkdir(exist_ok=True)
    paths = {name: directory / f"{name}.svg" for name in CAPTIONS}
    with theme():
        return {
            "sweep_drift": draw_drift(found, study, paths["sweep_drift"]),
            "sweep_matrix": draw_matrix(found, study, paths["sweep_matrix"]),
            "sweep_ranks": draw_ranks(found, study, paths["sweep_ranks"]),
            "sweep_pairs": draw_pairs(found, study, paths["sweep_pairs"]),
            "sweep_cost": draw_cost(found, study, paths["sweep_cost"]),
            "sweep_curves": draw_curves(found, study, paths["sweep_curves"]),
            "sweep_clips": draw_clips(found, study, clips, paths["sweep_clips"]),
        }


def _warned(lines: list[str]) -> list[str]:
    return [f'<p class="warning">{escape(line)}</p>' for line in lines]


def _behind(found: Found, name: str) -> str:
    """What stands behind a figure: seeds, whether it has intervals, clips; of the clips themselves, nothing."""
    if name == "sweep_clips":
        return ""
    seeds = found.num_seeds(found.last)
    counted = f"{seeds} seed{'s' * (seeds > 1)}"
    if name == "sweep_curves":
        return f"{counted}."
    held = f", intervals of {100 * found.confidence:g} % over them" if seeds > 1 else ", no intervals"
    return f"{counted}{held if name in WITH_INTERVALS else ''}, {found.num_clips:,} clips each."


def _caption(found: Found, phase: str) -> str:
    return (
        f"{TITLES[phase]}: means over seeds, below them their intervals, of {100 * found.confidence:g} %. "
        f"Shaded: the best of its column."
    )


def audit_tables(audited: list[Difference]) -> list[str]:
    """What a reader must know in the open, confounds first; what follows from the axes folded away."""
    if not audited:
        return ["<p>The cells differ in nothing, or there is but one.</p>"]
    opened = [line for line in audited if line.kind in ("confounds", "budget", "tuned")]
    folded = [line for line in audited if line not in opened]
    parts = [] if any(line.kind == "confounds" for line in opened) else ["<p>No pair of cells is confounded.</p>"]
    if opened:
        parts.append(_audit_table(opened))
    if folded:
        summary = f"{len(folded)} more differences that follow from method and loss, or are these"
        parts.append(f"<details><summary>{summary}</summary>{_audit_table(folded)}</details>")
    return parts


def _audit_table(lines: list[Difference]) -> str:
    rows = [
        (
            "",
            [
                row_head(line.kind),
                cell(f"<code>{escape(line.path)}</code>", "text"),
                cell(escape(line.words), "text"),
                cell(f"{line.num_pairs:,}"),
            ],
        )
        for line in lines
    ]
    kinds = dict.fromkeys(line.kind for line in lines)
    caption = "; ".join(f"{kind}: {KINDS[kind]}" for kind in kinds)
    return table(
        ["kind", "parameter", "values", "pairs that differ"], rows, caption=escape(f"{caption}."), kind="text"
    )


def as_text(found: Found) -> str:
    """What is missing, the tables and the answer, for a terminal of 120 columns."""
    excluded = [f"excluded: {name_of(cell)}: {reason}" for cell, reason in found.excluded.items()]
    tables = [f"{TITLES[phase]}\n{text_of(found, phase)}" for phase in found.phases]
    blocks = [
        _wrapped(incomplete(found)),
        *tables,
        _wrapped([*excluded, *confounds_said(found)]),
        _wrapped([*answer(found), *caveats(found)]),
    ]
    return "\n\n".join(filter(None, blocks))


def _wrapped(lines: list[str]) -> str:
    return "\n".join(fill(line, WIDTH) for line in lines)

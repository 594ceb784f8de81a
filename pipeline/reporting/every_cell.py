"""The section "Every cell": the answer, the matrix, the curves, the clips, and the table."""

from html import escape
from pathlib import Path

from pipeline.reporting.cells import (
    COMMAND,
    START,
    Cells,
    answer,
    best_places,
    fairness,
    lines_of,
    name_of,
    read_cells,
    table_rows,
)
from pipeline.reporting.cells_figures import draw_cell_clips, draw_cell_curves, draw_cells, read_clips
from pipeline.reporting.columns import NOTHING
from pipeline.reporting.markup import picture, warned
from pipeline.reporting.read import Study
from pipeline.reporting.style import theme
from pipeline.reporting.sweep_tables import html_table, notices

CAPTIONS = {
    "cells": """Every cell against the start of its method: the colour is the ratio of their excess FVD. In each
field excess FVD, then how often the digit is kept to the last frame. The bidirectional students see the future, and
start from another teacher: compare them with the rest with care.""",
    "cells_curves": """Training of every cell: dark, the loss of the student; pale, on a scale of its own, that of
its critics. Above each: the excess FVD of its start and its own, in the colour of the verdict.""",
    "cells_clips": """The first clips of every cell, not chosen, frame by frame, under those of its start. Down a
column, each is made from the same noise.""",
}


def every_cell(study: Study, reports: Path) -> list[str]:
    """The section, and its figures among the others; nothing where the grid was never run."""
    if not (reports / "cells").exists():
        return []
    found = read_cells(reports)
    directory = reports / "figures"
    directory.mkdir(exist_ok=True)
    with theme():
        drawn = {
            "cells": draw_cells(found, study, directory / "cells.svg"),
            "cells_curves": draw_cell_curves(found, study, directory / "cells_curves.svg"),
            "cells_clips": draw_cell_clips(found, study, read_clips(reports, found), directory / "cells_clips.svg"),
        }
    rows = table_rows(found)
    asked = ["teacher asked", *("" if row.loss == START else row.teacher or NOTHING for row in rows)]
    table = html_table(
        [[*line, name] for line, name in zip(lines_of(found), asked, strict=True)],
        warned(study.warning, escape(fairness(found))),
        best=best_places(found),
        references=[number for number, row in enumerate(rows) if row.loss == START],
    )
    intervals = f"One seed; intervals of 95 % over {found.num_clips:,} clips."
    behind = {name: "One seed." if name == "cells_clips" else intervals for name in drawn}
    pictures = {
        name: picture(path, warned(study.warning, f"{CAPTIONS[name]} {behind[name]}"), command=COMMAND)
        for name, path in drawn.items()
    }
    return [
        *(f'<p class="warning">{escape(line)}</p>' for line in warnings_of(found, study)),
        f"<p>{escape(' '.join(answer(found)))} <code>{COMMAND}</code> makes this.</p>",
        *pictures.values(),
        table,
    ]


def warnings_of(found: Cells, study: Study) -> list[str]:
    """What a reader must know before the numbers."""
    lines = notices(study, codec=found.codec, profile=found.profile, who="These students", command=COMMAND)
    return lines + [f"{name_of(cell)} failed: {reason}" for cell, reason in found.failed.items()]

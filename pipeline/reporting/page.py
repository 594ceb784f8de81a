"""The report: one page that needs nothing but itself, the table as CSV, and the figures."""

from html import escape
from pathlib import Path

from pipeline.records import DamagedRecordError
from pipeline.reporting import prose, sections
from pipeline.reporting.beginnings import beginnings
from pipeline.reporting.every_cell import every_cell
from pipeline.reporting.figures import draw_all
from pipeline.reporting.known_density import known_density
from pipeline.reporting.laboratory.brief import PREFIX, in_brief
from pipeline.reporting.laboratory.results import DIRECTORY, Laboratory, read_laboratory
from pipeline.reporting.markup import SCRIPT, STYLE, photograph, picture, warned
from pipeline.reporting.objectives import objectives
from pipeline.reporting.opening import TITLE, opening
from pipeline.reporting.player import player
from pipeline.reporting.read import Study, read_study
from pipeline.reporting.sweep import sweep_sections
from pipeline.reporting.sweep_read import Found, read_sweep
from pipeline.reporting.sweep_trainings import read_clips
from pipeline.reporting.tables import write_grid
from pipeline.reporting.weighting import explained
from pipeline.unit import replace_file

COMMAND = "python3 -m pipeline repro"
PARTS_OF_SWEEP = ("clips", "drift", "compared", "cost", "training", "audit")


def write_report(reports: Path, *, profile: str) -> Path:
    """Write index.html, grid.csv and figures/ from the records below `reports`; equal records give equal bytes.

    Raises:
        DamagedRecordError: a record is missing, damaged, or of another profile; the message names it.
    """
    study = read_study(reports)
    if study.profile != profile:
        raise DamagedRecordError(f"{reports} must hold records of profile {profile}, found: {study.profile}")
    write_grid(study, reports / "grid.csv")
    figures = reports / "figures"
    for old in figures.glob("*"):
        if not old.name.startswith(PREFIX):  # those are of laboratory.html
            old.unlink()
    page = reports / "index.html"
    replace_file(page, page_of(study, reports, draw_all(study, figures)))
    return page


def page_of(study: Study, reports: Path, drawn: dict[str, Path]) -> str:
    """The whole page; drawn: the figures of the chain, by name. What was not run is said, or left out."""
    found = read_sweep(reports) if (reports / "grid").exists() else None
    laboratory = read_laboratory(reports) if (reports / DIRECTORY).exists() else None
    head = opening(study, found, laboratory, reports / "figures")
    every = _parts(study, reports, drawn, found, laboratory)
    parts = {title: content for title, content in every.items() if content}
    ids = {title: title.lower().replace(" ", "-") for title in parts}
    links = "".join(f'<a href="#{ids[title]}">{title}</a> ' for title in parts)
    body = "\n".join(
        f'<section id="{ids[title]}"><h2>{title}</h2>\n' + "\n".join(content) + "</section>"
        for title, content in parts.items()
    )
    warning = f'<p class="warning" role="alert">{escape(study.warning)}.</p>' if study.warning else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>forcing-grid: {escape(study.warning or "report")}</title><style>{STYLE}</style></head>
<body><header>{warning}<h1>{TITLE}</h1>
{head}<nav>{links}</nav></header>
<main>{body}</main>{f"<footer>{warning}</footer>" if warning else ""}
<script>{SCRIPT}</script></body></html>
"""


def _parts(
    study: Study, reports: Path, drawn: dict[str, Path], found: Found | None, laboratory: Laboratory | None
) -> dict[str, list[str]]:
    """Every section by its title; empty where nothing was run. found: the sweep."""

    def figure(name: str, said: str = "") -> str:
        caption = warned(study.warning, " ".join(filter(None, (prose.CAPTIONS[name], said, behind[name]))))
        return picture(drawn[name], caption, command=COMMAND)

    behind = prose.behind(study)
    of_cells = read_clips(reports, found) if found else {}
    swept: dict[str, list[str]] = {name: [] for name in PARTS_OF_SWEEP}
    swept |= sweep_sections(study, found, of_cells, reports) if found else {}
    cells = every_cell(study, reports)
    return {
        "Samples": [player(study, found, of_cells), *swept["clips"]],
        "Drift": [*swept["drift"], prose.DRIFT, figure("drift")],
        **(in_brief(study, laboratory, reports / "figures") if laboratory else {}),
        "Cells compared": swept["compared"],
        "Cost against quality": [*swept["cost"], prose.COST, figure("cost"), sections.cost(study)],
        "Training": [*swept["training"], figure("training"), figure("weighting", explained(study))],
        "Bits per dimension": [prose.LIKELIHOOD, sections.likelihood(study)],
        "Audit": [prose.AUDIT, *swept["audit"]] if swept["audit"] else [],
        "The chain": [
            prose.chain(study),
            prose.summary(study),
            figure("overview"),
            sections.quality(study),
            sections.aims(study),
            figure("excess"),
            figure("support"),
            pictures(study),
        ],
        "Every cell" if cells else "The grid": [*cells, prose.GRID, sections.grid(study)],
        **known_density(study, reports),
        **beginnings(study, reports),
        **objectives(study, reports),
        "How far to trust the numbers": [
            prose.trust(study),
            sections.i3d(study),
            figure("corruptions"),
            sections.meanings(),
        ],
        "Lineage": [prose.LINEAGE, sections.lineage(study, reports), sections.seconds(study)],
    }


def pictures(study: Study) -> str:
    """What clips and codec look like."""
    captions = {
        "prepare": "The data: training clips, and held-out ones, which are longer.",
        "codec": "Held-out clips, and what is left of each after the codec: the best that any model can show.",
    }
    parts = []
    for stage, caption in captions.items():
        for path in sorted(study.stage(stage).directory.glob("*.png")):
            parts.append(photograph(path, caption))
    return f'<div class="pair photographs">{"".join(parts)}</div>'

"""The report: one page that needs nothing but itself, the table as CSV, and the figures."""

from html import escape
from pathlib import Path

from pipeline.records import DamagedRecordError
from pipeline.reporting import prose, sections
from pipeline.reporting.beginnings import beginnings
from pipeline.reporting.every_cell import every_cell
from pipeline.reporting.figures import draw_all
from pipeline.reporting.known_density import known_density
from pipeline.reporting.laboratory.brief import OWN_STYLE, PREFIX, in_brief
from pipeline.reporting.markup import STYLE, moving, photograph, picture, still, warned
from pipeline.reporting.objectives import objectives
from pipeline.reporting.read import Study, lookup, read_study
from pipeline.reporting.samples import read_samples
from pipeline.reporting.style import colours
from pipeline.reporting.sweep import sweep_sections
from pipeline.reporting.tables import write_grid
from pipeline.reporting.weighting import explained
from pipeline.unit import replace_file

NUM_MOVING, NUM_STILL = 8, 2


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
    drawn = draw_all(study, figures)
    page = reports / "index.html"
    experiments = {**known_density(study, reports), **beginnings(study, reports), **objectives(study, reports)}
    first, swept = in_brief(study, reports), sweep_sections(study, reports)
    if swept:
        first["Cells compared"] = [line for part in swept.values() for line in part]
    replace_file(page, page_of(study, drawn, first, every_cell(study, reports), experiments))
    return page


def page_of(
    study: Study,
    drawn: dict[str, Path],
    first: dict[str, list[str]],
    cells: list[str],
    experiments: dict[str, list[str]],
) -> str:
    """The whole page. first: its first sections; cells: what every cell came to; all where they were run."""

    def figure(name: str, said: str = "") -> str:
        return picture(drawn[name], warned(study.warning, f"{prose.CAPTIONS[name]} {said}".strip()))

    parts = {
        **first,
        "Results": [
            prose.summary(study),
            figure("overview"),
            sections.quality(study),
            sections.aims(study),
            figure("excess"),
        ],
        "Every cell" if cells else "The grid": [*cells, prose.GRID, sections.grid(study)],
        "Clips": [samples(study)],
        "What was done": [prose.chain(study), pictures(study)],
        "How far to trust the numbers": [
            prose.trust(study),
            sections.i3d(study),
            figure("corruptions"),
            sections.meanings(),
        ],
        "Likelihood": [prose.LIKELIHOOD, sections.likelihood(study)],
        "Kinds of failure": [figure("support"), figure("drift")],
        "Cost": [prose.COST, sections.cost(study), figure("cost"), sections.seconds(study)],
        "Training": [figure("weighting", explained(study)), figure("training")],
        **experiments,
        "Provenance": [prose.PROVENANCE, sections.provenance(study)],
    }
    ids = {title: title.lower().replace(" ", "-") for title in parts}
    links = "".join(f'<a href="#{ids[title]}">{title}</a> ' for title in parts)
    body = "\n".join(
        f'<section id="{ids[title]}"><h2>{title}</h2>\n' + "\n".join(content) + "</section>"
        for title, content in parts.items()
    )
    warning = f'<p class="warning" role="alert">{escape(study.warning)}.</p>' if study.warning else ""
    style = STYLE + (OWN_STYLE if first else "")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>forcing-grid: {escape(study.warning or "report")}</title><style>{style}</style></head>
<body><header>{warning}<h1>{prose.TITLE}</h1>
{prose.LEDE}<nav>{links}</nav></header>
<main>{body}</main>{f"<footer>{warning}</footer>" if warning else ""}</body></html>
"""


def samples(study: Study) -> str:
    """Real clips, then those of every checkpoint: playing, and frame by frame."""
    rate = lookup(study.stage("prepare"), "work.source.frames_per_s")
    trained = lookup(study.checkpoints[0].measured, "work.num_frames")
    clips = {"real clips": read_samples(study.checkpoints[0]).real}
    clips |= {checkpoint.name: read_samples(checkpoint).generated for checkpoint in study.checkpoints}
    shades = colours(study)
    playing, stills = [], []
    for name, shown in clips.items():
        dot = f'<span class="dot" style="background:{shades[name]}"></span>' if name in shades else ""
        head = f"<div>{dot}<strong>{escape(name)}</strong></div>"
        playing.append(head + moving(shown[:NUM_MOVING], f"{name}, playing", frames_per_s=rate))
        stills.append(head + still(shown[:NUM_STILL], f"{name}, frame by frame"))
    longest = next(iter(clips.values())).shape[1]
    return f"""<p>The first clips that each checkpoint made, not chosen. They are {longest} frames long, training
clips {trained}: what comes later lies beyond anything that a model was trained on.</p>
<p><label><input type="checkbox" id="pause"> pause</label></p>
<div class="clips">{"".join(playing)}</div>
<h3>Frame by frame</h3><div class="clips stills">{"".join(stills)}</div>"""


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
    return f'<div class="pair">{"".join(parts)}</div>'

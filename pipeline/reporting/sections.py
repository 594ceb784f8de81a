"""The sections of the page that hold tables: what came out, what it cost, where it comes from."""

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from pipeline.grid import Cell, cells
from pipeline.losses import LOSSES
from pipeline.machine import words_of
from pipeline.methods import METHODS
from pipeline.records import Record
from pipeline.reporting import prose
from pipeline.reporting.columns import COLUMNS, MEASURED, NOTHING
from pipeline.reporting.goals import goals
from pipeline.reporting.likelihood import PATHS, absence, bounds, least_bound
from pipeline.reporting.markup import cell, row_head, table, warned
from pipeline.reporting.read import Study, lookup
from pipeline.reporting.style import colours
from pipeline.reporting.tables import COST, Row, checkpoint_rows, grid_rows, shown

REACHED = tuple(name for name in MEASURED if name not in (*COST, "floor"))  # the floor is the FVD of real clips
ARXIV = "arXiv:"
SWEEPS = ("grid", "laboratory", "cells", "causal_forcing", "ablation")  # below reports/
SHOWN = 10  # letters of a git revision
TOLD = ("fingerprint", "revision")  # of every unit; the rest where units differ in it


def cited(text: str) -> str:
    """A source, its arXiv number a link."""
    name, found, number = text.partition(ARXIV)
    if not found:
        return escape(text)
    return f'{escape(name)}<a href="https://arxiv.org/abs/{escape(number)}">{ARXIV}{escape(number)}</a>'


def quality(study: Study) -> str:
    """What every checkpoint reached, and real clips for scale."""
    behind = prose.behind(study)["excess"]
    said = f"Every checkpoint, and real clips for scale: {behind} Shaded: the best of its column; drift has none."
    return _columns(study, grid_rows(study), REACHED, f"{said} What each column means stands further below.")


def cost(study: Study) -> str:
    """What every checkpoint costs to train and to run."""
    return _columns(study, checkpoint_rows(study), COST, "Times are of the machine that this ran on.")


def _columns(study: Study, rows: list[Row], names: tuple[str, ...], caption: str) -> str:
    shades, body = colours(study), []
    for row in rows:
        best = row["best_in"].split()
        cells_of_row = [cell(_shown(row, name), "best" if name in best else "") for name in names]
        kind = "" if row["checkpoint"] in shades else ' class="reference"'
        body.append((kind, [row_head(row["checkpoint"], shades.get(row["checkpoint"], "")), *cells_of_row]))
    heads = ["", *(f'<span title="{escape(COLUMNS[name].meaning)}">{COLUMNS[name].title}</span>' for name in names)]
    return table(heads, body, caption=warned(study.warning, caption))


def _shown(row: Row, name: str) -> str:
    """A cell of the page, which has room to say that bits per dimension are not defined."""
    if name == "bits" and row["bits_absence"]:
        kind, _, reason = row["bits_absence"].partition(": ")
        return f'<span title="{escape(reason)}">{kind}</span>'
    return shown(row, name)


def likelihood(study: Study) -> str:
    """Bits per dimension along each path, their spread, and what the least is made of; why others have none."""
    body, reasons = [], {}
    for checkpoint in study.checkpoints:
        least, missing = least_bound(checkpoint), absence(checkpoint)
        if missing:
            reasons.setdefault(missing, []).append(checkpoint.name)
        if least is None:
            continue
        measured = checkpoint.measured
        along = [
            cell(_with_error(one.value, one.standard_error), "best" if one == least else "")
            for one in bounds(checkpoint)
        ]
        spread = (lookup(measured, f"metrics.bits_per_dim.spread.{part}") for part in ("value", "standard_error"))
        parts = (
            lookup(measured, f"metrics.bits_per_dim.{least.path}.{part}")
            for part in ("prior", "transitions", "reconstruction")
        )
        shade = colours(study)[checkpoint.name]
        cells_of_row = [*along, cell(_with_error(*spread)), *(cell(f"{part:.3f}") for part in parts)]
        body.append(("", [row_head(checkpoint.name, shade), *cells_of_row]))
    heads = ["", *(path.replace("_", " ") for path in PATHS), "spread", "prior", "transitions", "reconstruction"]
    said = "".join(
        f"<li><strong>{kind}</strong> for {', '.join(map(escape, names))}: {escape(reason)}.</li>"
        for (kind, reason), names in reasons.items()
    )
    return (table(heads, body, caption=_bits_caption(study)) if body else "") + (f"<ul>{said}</ul>" if said else "")


def _with_error(value: float, standard_error: float) -> str:
    return f"{value:.3f} &plusmn; {standard_error:.3f}"


def _bits_caption(study: Study) -> str:
    """How it was measured, as the first that was says."""
    first = next(c.measured for c in study.checkpoints if not absence(c))
    clips, levels, dims = (
        lookup(first, f"metrics.bits_per_dim.num_{name}") for name in ("clips", "levels", "dims")
    )
    width = lookup(first, "work.bits.bin_width")
    return warned(
        study.warning,
        f"Bits per dimension of {clips:,} held-out clips of {dims:,} numbers, by chains of {levels:,} levels. The "
        f"numbers are latents of standard deviation 1, rounded to {width:g} (without a codec, pixels are 256 "
        f"values): compare teachers of one codec alone. &plusmn;: one standard error over clips. Spread: the "
        f"highest path less the lowest, 0 for an exact denoiser that sees all frames. Then the parts of the least.",
    )


def grid(study: Study) -> str:
    """Loss by method: what each cell minimises, who published it, which checkpoints it has; why one is left out."""
    body = []
    for loss, kind in LOSSES.items():
        line = [_cell_of_grid(study, one) for one in cells() if one.loss == loss]
        claimed = f'<br><span class="faint">{escape(kind.divergence)}</span>'
        body.append(("", [cell(f"<strong>{escape(loss.replace('_', ' '))}</strong>{claimed}", "text"), *line]))
    heads = ["loss, and what its sources claim", *(escape(method.replace("_", " ")) for method in METHODS)]
    caption = "What each cell minimises, derived from its method and its loss."
    return table(heads, body, caption=warned(study.warning, caption), kind="text")


def _cell_of_grid(study: Study, one: Cell) -> str:
    if one.excluded:
        return cell(f'<span class="faint">left out: {escape(one.excluded)}</span>', "text")
    parts = [escape(one.derived or "")]
    parts += [f'<span class="faint">{cited(one.paper)}</span>'] if one.paper else []
    for checkpoint in study.checkpoints:
        if checkpoint.cell == one:
            dot = f'<span class="dot" style="background:{colours(study)[checkpoint.name]}"></span>'
            parts.append(f"{dot}<strong>{escape(checkpoint.name)}</strong>")
    return cell("<br>".join(parts), "text")


def aims(study: Study) -> str:
    """What the run set out to reach, and whether it did."""
    body = [
        (
            "",
            [
                cell(escape(goal.claim), "text"),
                cell(goal.measured),
                cell("reached" if goal.is_reached else "<strong>missed</strong>", "text"),
            ],
        )
        for goal in goals(study)
    ]
    return table(["aim", "measured", ""], body, caption=warned(study.warning, "Aims of the default profile."))


def meanings() -> str:
    """Every column in a sentence."""
    lines = [f"<dt>{escape(c.title)}</dt><dd>{escape(c.meaning)}</dd>" for c in COLUMNS.values()]
    return f"<h3>What each column means</h3><dl>{''.join(lines)}</dl>"


def i3d(study: Study) -> str:
    """FVD by the I3D that the user gave, where there is one."""
    body = []
    for checkpoint in study.checkpoints:
        if "fvd_i3d" not in checkpoint.measured.metrics:
            continue
        names = ("value", "floor", "excess", "num_clips", "checksum")
        *distances, count, checksum = (lookup(checkpoint.measured, f"metrics.fvd_i3d.{name}") for name in names)
        numbers = [cell(f"{distance:,.1f}") for distance in distances]
        body.append(
            ("", [row_head(checkpoint.name), *numbers, cell(f"{count:,}"), cell(f"<code>{checksum}</code>")])
        )
    heads = ["", "FVD", "floor", "excess", "clips", "sha256 of the I3D"]
    caption = warned(study.warning, "FVD by the given I3D, on longer clips.")
    return table(heads, body, caption=caption) if body else ""


def seconds(study: Study) -> str:
    """Of every unit, summed over its interruptions."""
    body = [("", [row_head(record.name), cell(f"{record.seconds:,.1f}")]) for record in study.records]
    total = sum(record.seconds for record in study.records)
    body.append(("", [row_head("all stages"), cell(f"<strong>{total:,.1f}</strong>")]))
    return table(["stage", "seconds"], body, caption=warned(study.warning, "Wall time of every stage."))


def lineage(study: Study, reports: Path) -> str:
    """Of every unit its fingerprint, revision, libraries, machine; parameters and checksums behind a click."""
    origins = [
        Origin.of(record.name, record.fingerprint, [record.revision], json.loads(path.read_text()))
        for record in study.records
        for path in [record.directory / "record.json"]
    ]
    for name in SWEEPS:
        path = reports / name / "run.json"
        if path.exists():
            content = json.loads(path.read_text())
            origins.append(Origin.of(f"{name}: its units", "", content["revisions"], content))
    told = [name for name in ("libraries", "machine") if len({vars(origin)[name] for origin in origins}) > 1]
    once = [f"{name}: {vars(origins[0])[name]}" for name in ("libraries", "machine") if name not in told]
    rows = [
        ("", [row_head(one.name), *(cell(vars(one)[name], "text") for name in (*TOLD, *told))]) for one in origins
    ]
    caption = warned(study.warning, escape(f"Of all: {'; '.join(once)}." if once else ""))
    lines = table(["stage", *TOLD, *told], rows, caption=caption, kind="text")
    return lines + "\n".join(map(_details, study.records))


@dataclass(frozen=True)
class Origin:
    """Where the results of a unit, or of the units of a sweep, come from; HTML."""

    name: str
    fingerprint: str
    revision: str  # of the code, the first letters; several where units were made by several
    libraries: str
    machine: str  # on which they were recorded

    @staticmethod
    def of(
        name: str, fingerprint: str, revisions: list[dict[str, Any] | None], content: dict[str, Any]
    ) -> "Origin":
        """Of the content of a record.json or run.json."""
        said = [
            f"<code>{revision['commit'][:SHOWN]}</code>{' and edits' if revision['dirty'] else ''}"
            for revision in revisions
            if revision
        ]
        libraries = ", ".join(f"{library} {version}" for library, version in sorted(content["versions"].items()))
        machine = words_of(content["machine"]) if "machine" in content else NOTHING
        mark = f"<code>{fingerprint}</code>" if fingerprint else NOTHING
        return Origin(name, mark, ", ".join(said) or "without git", escape(libraries), escape(machine))


def _details(record: Record) -> str:
    parts = {"parameters": record.work, "inputs": record.inputs, "products": record.products}
    return (
        f"<details><summary>{escape(record.name)}: parameters, checksums</summary>"
        f"<pre>{escape(_json(parts))}</pre></details>"
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True)

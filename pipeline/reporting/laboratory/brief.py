"""The laboratory in brief, as the report shows it first: the answer, the table of claims and the map of optima."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import NamedTuple

from pipeline.grid import Cell
from pipeline.laboratory.verdicts import Judgement, Verdict, over_processes
from pipeline.reporting.columns import NOTHING
from pipeline.reporting.laboratory import answers, method, words
from pipeline.reporting.laboratory.maps import draw_map, objectives_on
from pipeline.reporting.laboratory.results import COMMAND, Judged, Laboratory
from pipeline.reporting.laboratory.tables import Claim
from pipeline.reporting.markup import picture, row_head, table, warned
from pipeline.reporting.read import Study
from pipeline.reporting.style import theme

PAGE, PREFIX = "laboratory.html", "laboratory_"
CROWDED = 30  # students on a map
MARKS = {Verdict.CONFIRMED.value: "\u2713", Verdict.REFUTED.value: "\u2717", Verdict.UNDECIDED.value: "?"}
MAP_CAPTION = """The map of optima, in the parameters of the student, which have the units of a pixel. A student
is a point; circles are the predicted optima of objectives (&ldquo;+5&rdquo;: five more share it;
&ldquo;noised&rdquo;: averaged over noise levels), small grey dots those that no label names, and an arrow
points to what lies below the map. A line is the training of one seed, smoothed; a filled mark is where a cell
has settled, the mean of {seeds} with its 95 % interval: its shape is the method, its colour the loss, and its
name stands beside it, under the optimum next to it. Hollow marks: critics that learn instead of exact ones. B
bidirectional, TF teacher forcing, DF diffusion forcing (clean: half of the contexts are), SF self forcing (full:
with the gradient through the context). Local: an optimum that is not the best of its objective."""


@dataclass(frozen=True)
class ClaimOfCell:
    """What was said of a cell of the grid in one setting of its loss or method, and what the laboratory found.

    Words are those of the table of claims; a verdict is confirmed, refuted or undecided. Empty where nothing was
    said.
    """

    setting: str  # like ELBO weights; empty where there is one only
    claimed: str  # of clean clips, as the post's table has it; its text has the same averaged over noise
    by_table: str  # the verdict
    by_text: str
    minimises: tuple[str, ...]  # where its students settled, each objective once
    derivation: str  # the verdict on what this project derives instead, of all processes together
    cells: tuple[str, ...]  # of the laboratory, by name


def claims_of(found: Laboratory, cell: Cell) -> list[ClaimOfCell]:
    """A setting of the cell each, also those of which nothing was said; none where nothing was measured."""
    return [_of_cell(found, row) for row in answers.rows_of(found) if cell in _places(found, row)]


def _places(found: Laboratory, row: answers.Row) -> set[Cell]:
    return {found.place(one.cell) for one in row.measured}


def _of_cell(found: Laboratory, row: answers.Row) -> ClaimOfCell:
    verdicts = {claim.reading: claim.verdict for claim in row.claims}
    judged = {
        f"{one.cell} on {one.process}": Judgement(Verdict(one.derived_verdict), one.derived_reason)
        for one in row.measured
        if one.derived_verdict
    }
    return ClaimOfCell(
        setting=answers.setting(row.subject),
        claimed=words.objective(row.claims[0].claimed) if row.claims else "",
        by_table=verdicts.get("table", ""),
        by_text=verdicts.get("text", ""),
        minimises=tuple(answers.minimised(found, row.measured)),
        derivation=over_processes(judged).verdict.value if judged else "",
        cells=tuple(dict.fromkeys(one.cell for one in row.measured)),
    )


def in_brief(study: Study, found: Laboratory, figures: Path) -> dict[str, list[str]]:
    """The section by its title, and its figure among the others."""
    figures.mkdir(exist_ok=True)
    with theme():
        drawn = draw_maps(found, figures, found.processes[0])[0]
    said = failures(found)
    if found.profile != study.profile:
        text = f"This laboratory is of profile {found.profile}, this page is of {study.profile}"
        said.insert(0, f'<p class="warning">{text}</p>')
    link = (
        f'<a href="{PAGE}">The page of the laboratory</a> has the derivations, every cell, roll-outs and the rules.'
    )
    return {
        "What each cell minimises": [
            *said,
            f"<p>{answers.QUESTION}</p>",
            answer_list(found, with_learned=False),
            f"<p>{link} <code>{COMMAND}</code> makes it.</p>",
            claims_table(found, brief=True),
            narrow(map_picture(found, drawn)),
        ]
    }


def answer_list(found: Laboratory, *, with_learned: bool = True) -> str:
    """What was found, a sentence an item."""
    said = [*answers.answer(found), *([answers.learned(found)] if with_learned else [])]
    return '<ul class="answer">' + "".join(f"<li>{escape(one)}</li>" for one in said if one) + "</ul>"


def failures(found: Laboratory) -> list[str]:
    """What a reader must know before the numbers."""
    return [f'<p class="warning">{escape(f"{name} failed: {why}")}</p>' for name, why in found.failed.items()]


class Map(NamedTuple):
    """Of the students of one method, or of all."""

    method: str  # empty: all
    path: Path


def map_picture(found: Laboratory, one: Map) -> str:
    """The map with what its marks mean."""
    return picture(one.path, warned(found.warning, MAP_CAPTION.format(seeds=found.seeds)), command=COMMAND)


def draw_maps(found: Laboratory, figures: Path, process: str) -> list[Map]:
    """Of a process; one a method where all students together would hide each other, but for the first process.

    Of that one every objective is named.
    """
    is_first = process == found.processes[0]
    rows = [row for row in found.judged if row.process == process]
    by_method: dict[str, list[Judged]] = {"": rows}
    if len(rows) > CROWDED and not is_first:
        by_method = {}
        for row in rows:
            by_method.setdefault(found.place(row.cell).method, []).append(row)
    drawn = []
    for method_name, some in by_method.items():
        suffix = f"_{method_name}" if method_name else ""
        named = objectives_on(found, process, some, every=is_first)
        path = draw_map(found, some, figures / f"{PREFIX}map_{process}{suffix}.svg", named=named)
        drawn.append(Map(method_name, path))
    return drawn


def narrow(content: str) -> str:
    """No wider than text: its letters are as large as those around it."""
    return f'<div class="narrow">{content}</div>'


def pill(verdict: str) -> str:
    """A verdict, in colour and with a mark for those who see none."""
    if verdict not in MARKS:
        return NOTHING
    return f'<span class="verdict {verdict}">{MARKS[verdict]} {verdict}</span>'


def claims_table(found: Laboratory, *, brief: bool = False) -> str:
    """A row a claim: what was said, the verdict by each reading, what holds instead, why, and what it is good for.

    brief: without the reasons.
    """
    heads = ["cell", "said to minimise", "minimises", "for choosing a cell", "why"]
    rows, shown = [], len(heads) - brief
    for row in answers.rows_of(found):
        if not row.claims:
            continue
        why = [_why(found, claim, several=len(row.claims) > 1) for claim in row.claims]
        cells = (
            "".join(_said(claim, several=len(row.claims) > 1) for claim in row.claims),
            listed([escape(one) for one in answers.minimised(found, row.measured)]),
            escape(f"{answers.meaning(found, row.measured)} {answers.roll_out(found, row)}".strip()),
            "".join(why),
        )
        rows.append(("", labelled(answers.subject(row.subject), heads[:shown], cells[: shown - 1])))
    return table(heads[:shown], rows, caption=warned(found.warning, escape(method.CLAIMS)), kind="wordy")


def labelled(title: str, heads: Sequence[str], cells: Sequence[str]) -> list[str]:
    """Cells that say on a phone, where a row is a card, what they are."""
    labelled = zip(heads[1:], cells, strict=True)
    return [row_head(title), *(f'<td data-label="{escape(head)}">{content}</td>' for head, content in labelled)]


def _said(claim: Claim, *, several: bool) -> str:
    by = f"{claim.reading}: " if several else ""
    return f"<div>{by}{escape(_claimed(claim))} {pill(claim.verdict)}</div>"


def _claimed(claim: Claim) -> str:
    is_averaged = claim.reading == "text" and claim.claimed != "none"
    return f"{'noise-averaged ' if is_averaged else ''}{words.objective(claim.claimed)}"


def _why(found: Laboratory, claim: Claim, *, several: bool) -> str:
    """The first reason, and the others behind a click."""
    first, *others = (escape(one) for one in answers.reasons(found, claim))
    by = f"{claim.reading}: " if several else ""
    more = f"<details><summary>and {len(others)} more</summary>{listed(others)}</details>" if others else ""
    return f"<div>{by}{first}{more}</div>"


def listed(lines: Sequence[str]) -> str:
    return lines[0] if len(lines) == 1 else "<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"

"""What students say of the tempting claims: judged, in sentences, and drawn."""

from dataclasses import dataclass
from html import escape
from pathlib import Path

from pipeline.laboratory.conclude import OF_CLIPS
from pipeline.laboratory.verdicts import Judgement, Optima, judge, judge_none, over_processes, to_objective
from pipeline.reporting.laboratory import words
from pipeline.reporting.laboratory.figures import draw_clips, draw_fits
from pipeline.reporting.laboratory.maps import draw_map
from pipeline.reporting.laboratory.questions import NONE, QUESTIONS, Question
from pipeline.reporting.laboratory.results import EXACT, Judged, Laboratory


@dataclass(frozen=True)
class Answered:
    """A question with the rows that answer it."""

    question: Question
    rows: list[Judged]
    judgement: Judgement


def answered(found: Laboratory) -> list[Answered]:
    """The questions of which something was measured, judged by the rules of the verdicts."""
    results = []
    for question in QUESTIONS:
        rows = [row for row in found.judged if row.critics == EXACT and question.speaks(found, row)]
        rows = [row for row in rows if question.supposed(row.derived) in (NONE, *found.sites[row.process])]
        if rows:
            judged = {
                f"{row.cell} on {row.process}": _judged(found, row, question.supposed(row.derived)) for row in rows
            }
            results.append(Answered(question, rows, over_processes(judged)))
    return results


def _judged(found: Laboratory, row: Judged, expected: str) -> Judgement:
    rule = {"tolerance": found.rules.within(row.critics), "margin": found.rules.margin}
    optima = found.sites[row.process]
    if expected == NONE:
        return judge_none(row.point, _of_clips(found, row), **rule)
    return judge(row.point, expected, optima, **rule)


def evidence(found: Laboratory, one: Answered) -> dict[str, list[str]]:
    """By process, the drawn one first: where students ended, how far from what is supposed and derived; HTML."""
    drawn = most_telling(found, one)
    said: dict[str, list[str]] = {drawn: []}
    for row in one.rows:
        at = ", ".join(f"{name} = {value:.3f}" for name, value in row.at.items())
        parts = []
        expected = supposed(one, row)
        for objective, of in ((expected, "supposed"), (row.derived, "derived")):
            away = found.away(row, objective) if objective and objective != NONE else None
            if away is not None and not (of == "derived" and objective == expected):
                local = "a local optimum of " if found.is_at_local(row, objective) else ""
                parts.append(f"{away:.3f} from {local}the {of} {words.objective(objective)}")
        if expected == NONE:
            nearest, away = nearest_of_clips(found, row)
            parts.insert(
                0, f"{away:.3f} from the nearest optimum of a divergence of clips, {words.objective(nearest)}"
            )
        said.setdefault(row.process, []).append(
            f"{escape(words.cell(row.cell))} on process {row.process} ends at {escape(at)}: "
            f"{escape('; '.join(parts))}."
        )
    return said


def draw(found: Laboratory, one: Answered, directory: Path) -> list[Path]:
    """What refutes it, or does not: laws where they can be drawn, else a map."""
    name = one.question.name
    paths = []
    process = most_telling(found, one)
    rows = [row for row in one.rows if row.process == process]
    others = [
        row
        for row in found.judged
        if row.process == process and row.critics == EXACT and row not in rows and one.question.beside(found, row)
    ]
    shown = [*rows, *others]
    named = {supposed(one, row) for row in rows}
    named |= {name for row in shown for name in (row.derived, row.text_claimed)}
    expected = [name for name in dict.fromkeys(supposed(one, row) for row in rows) if name != NONE]
    if "m" in rows[0].at:
        paths.append(draw_fits(found, rows, expected, directory / f"laboratory_{name}_laws.svg"))
    elif "m1" in rows[0].at:
        paths.append(draw_clips(found, shown, expected, directory / f"laboratory_{name}_laws.svg"))
    paths.append(draw_map(found, shown, directory / f"laboratory_{name}_map.svg", named=named))
    return paths


def most_telling(found: Laboratory, one: Answered) -> str:
    """The process where a student lies farthest from what is supposed, if any of those that show it best."""
    rows = [row for row in one.rows if one.question.telling in row.at] or one.rows
    return max(rows, key=lambda row: found.away(row, supposed(one, row)) or nearest_of_clips(found, row)[1]).process


def nearest_of_clips(found: Laboratory, row: Judged) -> tuple[str, float]:
    """Of objectives that compare the student's clips with data, the one whose optimum is nearest, and how near."""
    away = {name: to_objective(row.at, at) for name, at in _of_clips(found, row).items()}
    nearest = min(away, key=away.__getitem__)
    return nearest, away[nearest]


def _of_clips(found: Laboratory, row: Judged) -> Optima:
    """Those that compare them with data, as verdicts have it."""
    return {name: at for name, at in found.sites[row.process].items() if name.startswith(OF_CLIPS)}


def supposed(one: Answered, row: Judged) -> str:
    """The objective whose optimum the claim expects a row at."""
    return one.question.supposed(row.derived)

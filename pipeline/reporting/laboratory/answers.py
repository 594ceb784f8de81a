"""What the laboratory found, in sentences made of its numbers."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.laboratory.verdicts import Verdict
from pipeline.losses import LOSSES
from pipeline.reporting.laboratory import words
from pipeline.reporting.laboratory.figures import rarest, with_modes
from pipeline.reporting.laboratory.results import EXACT, LEARNED, Judged, Laboratory
from pipeline.reporting.laboratory.rollouts import rolled
from pipeline.reporting.laboratory.tables import Claim

SOURCE = "https://markogata.com/projects/2025/arvideolandscape/"
READINGS = {  # of the post's claims
    "table": "read as its table has it, as divergences of clean clips",
    "text": "read as its text has it, averaged over noise",
}
ROLLED_LOSS = {"teacher_forcing": "l2", "diffusion_forcing": "l2", "self_forcing": "dmd"}  # of those rolled out
WEIGHTS = {"(elbo)": "(ELBO weights)", "(eps)": "(ε weights)", "(flow)": "(flow weights)"}  # of L2
NEXT = re.compile(r"; (?=[\w.-]+ on \w+: )")
NAME = re.compile(r"[a-z][\w.-]*\w")
QUESTION = f"""A network that generates video one frame after another can be trained in many ways: the
<em>method</em> says which frames a new one is conditioned on (real ones: teacher forcing; noisy ones: diffusion
forcing; the student's own: self forcing), and the <em>loss</em> what pulls them towards the data. The post
<a href="{SOURCE}">Everything is KL minimization</a> by Mark Ogata says which divergence between model and data each
pair minimises; here it is measured. Data come from processes whose density is known, and the student is too small
to fit them, so that every divergence has a best fit of its own, and where training settles says what it
minimises."""


@dataclass(frozen=True)
class Row:
    """Of the table of claims: cells of one kind, what was said of them, and what was found."""

    subject: str
    claims: list[Claim]  # at most one a reading
    measured: list[Judged]


def rows_of(found: Laboratory) -> list[Row]:
    """Every claim, its readings together; then the methods and losses of which the post says nothing."""
    grouped: dict[str, list[Claim]] = {}
    for claim in found.claims:
        grouped.setdefault(claim.subject, []).append(claim)
    subjects = dict.fromkeys(found.subject(row) for row in found.judged if row.critics == EXACT)
    order = [*grouped, *(subject for subject in subjects if subject not in grouped)]
    return [Row(subject, grouped.get(subject, []), found.rows_of(subject)) for subject in order]


def subject(name: str) -> str:
    """For people."""
    method, _, loss = name.partition(" x ")
    plain, _, switch = loss.partition(" ")
    said = f"{method.replace('_', ' ')} {words.TIMES} {words.loss(plain)}"
    return f"{said} {WEIGHTS.get(switch, switch.replace('_', '-'))}".strip()


def setting(name: str) -> str:
    """What a subject has in brackets, for people: a switch of its method or loss; empty where it has none."""
    switch = re.search(r"\(.*?\)", name)
    return WEIGHTS.get(switch[0], switch[0].replace("_", "-")).strip("()") if switch else ""


def minimised(found: Laboratory, rows: Sequence[Judged]) -> list[str]:
    """Where the cells settled, each objective once."""
    ends = dict.fromkeys(found.settled_on(row) for row in rows)
    return [words.objective(end) if end else words.NO_OPTIMUM for end in ends]


def reasons(found: Laboratory, claim: Claim) -> list[str]:
    """Those of a claim, a measurement each, in words."""
    return [plain(found, one) for one in NEXT.split(claim.reason)]


def plain(found: Laboratory, reason: str) -> str:
    """A reason of the verdicts, with words for the names of cells and objectives."""
    objectives = {one.objective for one in found.optima}

    def named(match: re.Match[str]) -> str:
        name = match[0]
        if name in found.params["cells"]:
            return words.cell(name)
        return words.objective(name) if name in objectives else name

    return NAME.sub(named, reason)


def ratios(found: Laboratory, rows: Sequence[Judged]) -> list[float]:
    """How many times the share of data each cell keeps of the mode that is rarest in data."""
    kept = []
    for row in rows:
        if row.process in with_modes(found):
            number, of_data = rarest(found, row.process)
            kept.append(row.kept[number] / of_data)
    return kept


def span(values: Sequence[float]) -> str:
    """The least and the greatest, to hundredths at the most, once where they read alike."""
    low, high = (format(round(end(values), 2), ".2g") for end in (min, max))
    return low if low == high else f"{low} to {high}"


def meaning(found: Laboratory, rows: Sequence[Judged]) -> str:
    """What it means for choosing a cell: which modes it keeps."""
    kept = ratios(found, rows)
    if not kept:
        return "No advice: measured on processes of one mode alone."
    places = sorted({row.process for row in rows} & set(with_modes(found)))
    times = f"{span(kept)} times the share that data have of their rarest mode, on {', '.join(places)}"
    if min(kept) >= found.rules.keeps_above:
        return f"Keeps rare modes ({times}): choose it where no kind of clip may be missing."
    if max(kept) <= found.rules.loses_below:
        return f"Loses rare modes ({times}): choose it where every clip counts for more than variety."
    return f"In between ({times}): the setting of the loss and the data decide."


def roll_out(found: Laboratory, row: Row) -> str:
    """What becomes of the cell's frames past the training length, where it is one of those that are rolled out."""
    method, _, loss = row.subject.partition(" x ")
    if loss.partition(" ")[0] != ROLLED_LOSS.get(method) or method not in (series := rolled(found)):
        return ""
    run = found.params["exposure"]
    end = series[method]["variance"][-1]
    return f"Rolled out to {run['num_frames']} frames, its frames have a variance of {end:.2f}, data of 1."


def answer(found: Laboratory) -> list[str]:
    """The outcome in a few sentences."""
    sentences = (*_of_claims(found), _of_derived(found), _of_modes(found), _of_roll_outs(found))
    return [sentence for sentence in sentences if sentence]


def _of_claims(found: Laboratory) -> list[str]:
    """How many claims hold, by reading, and which share a fate."""
    rows = [row for row in rows_of(found) if row.claims]
    readings = list(dict.fromkeys(claim.reading for claim in found.claims))
    counts = []
    for reading in readings:
        verdicts = [claim.verdict for row in rows for claim in row.claims if claim.reading == reading]
        said = ", ".join(f"{verdicts.count(one.value)} {one.value}" for one in Verdict if one.value in verdicts)
        counts.append(f"{READINGS.get(reading, reading)}: {said}")
    fates: dict[str, list[str]] = {}
    for row in rows:
        by_verdict: dict[str, list[str]] = {}
        for claim in row.claims:
            by_verdict.setdefault(claim.verdict, []).append(claim.reading)
        alike = len(by_verdict) == 1
        parts = [
            verdict if alike else f"{verdict} as the {'/'.join(of)} has it" for verdict, of in by_verdict.items()
        ]
        fates.setdefault(", ".join(parts), []).append(subject(row.subject))
    listed = ". ".join(f"{fate[0].upper()}{fate[1:]}: {', '.join(names)}" for fate, names in fates.items())
    kinds = f"{len(rows)} kind{'s' if len(rows) > 1 else ''} of cells"
    return [f"Of what the post says of {kinds}, {'; '.join(counts)}.", f"{listed}."]


def _of_derived(found: Laboratory) -> str:
    rows = [row for row in found.judged if row.critics == EXACT and found.away(row, row.derived) is not None]
    if not rows:
        return ""
    at = [row for row in rows if found.is_at(row, row.derived)]
    away = max(found.away(row, row.derived) or 0.0 for row in rows)
    holds = "What this project derives instead holds up: of" if len(at) == len(rows) else "Of"
    return (
        f"{holds} {len(rows)} students with exact critics, {len(at)} end within {found.rules.tolerance:g} of a "
        f"predicted optimum of the objective that is derived for them, the farthest {away:.3f} away"
        f"{_of_local(found, at)}. {_of_told_apart(rows)}"
    )


def _of_local(found: Laboratory, rows: Sequence[Judged]) -> str:
    """Those that stayed at an optimum that is not the best."""
    local = [row for row in rows if found.is_at_local(row, row.derived)]
    return f"; {len(local)} of them at a local one ({', '.join(map(_place, local))})" if local else ""


def _of_told_apart(rows: Sequence[Judged]) -> str:
    """On how many of them the optimum is told apart from all others, or from other divergences."""
    confirmed = [row for row in rows if row.derived_verdict == Verdict.CONFIRMED.value]
    from_all = [row for row in confirmed if not row.inseparable]
    open_ = sum(row.derived_verdict == Verdict.UNDECIDED.value for row in rows)
    said = [f"Of {len(from_all)} that optimum is also told apart from all others"]
    if len(confirmed) > len(from_all):
        said.append(f"of {len(confirmed) - len(from_all)} from all but other kinds of its own divergence")
    if open_:
        said.append(f"{open_} stay undecided, by another one too near or by their seeds")
    return f"{'; '.join(said)}."


def learned(found: Laboratory) -> str:
    """How many cells with learned critics end where exact ones send them, which do not, and which scatter."""
    rows = [row for row in found.judged if row.critics == LEARNED and found.away(row, row.derived) is not None]
    if not rows:
        return ""
    tolerance = found.rules.within(LEARNED)
    at = [row for row in rows if found.is_at(row, row.derived)]
    said = f"With learned critics, {len(at)} of {len(rows)} students end within {tolerance:g} of that optimum."
    missed = [f"{_place(row)} by {found.away(row, row.derived):.3f}" for row in rows if row not in at]
    scattered = [
        f"{_place(row)} \u00b1 {width:.3f}"
        for row in rows
        if tolerance < (width := max(row.half_width.values())) < math.inf
    ]
    if missed:
        said += f" Off are: {'; '.join(missed)}."
    if scattered:
        said += f" Seeds scatter by more than that: {'; '.join(scattered)}."
    return said


def _place(row: Judged) -> str:
    return f"{words.cell(row.cell)} on {row.process}"


def _of_modes(found: Laboratory) -> str:
    by_loss: dict[str, list[float]] = {}
    for row in found.judged:
        if row.critics == EXACT and row.process in with_modes(found):
            by_loss.setdefault(found.place(row.cell).loss, []).extend(ratios(found, [row]))
    if not by_loss:
        return ""
    parts = [f"{words.loss(loss)} {span(by_loss[loss])}" for loss in LOSSES if loss in by_loss]
    return (
        "It matters for what a model forgets: of the mode that is rarest in data, cells keep this many times its "
        "share (the least and the most, over methods, settings and processes): "
        f"{', '.join(parts)}."
    )


def _of_roll_outs(found: Laboratory) -> str:
    """The methods as they are, without what is tried beside them."""
    run = found.params["exposure"]
    ends = {name: numbers["variance"][-1] for name, numbers in rolled(found).items() if "-" not in name}
    shown = ", ".join(f"{_rolled_words(name)} {value:.2f}" for name, value in ends.items())
    return (
        f"And for long clips: trained on {run['trained_frames']} frames and rolled out to {run['num_frames']} by a "
        f"sampler that adds a little noise, frames have a variance, 1 in data, of: {shown}."
    )


def exposure(found: Laboratory) -> str:
    """What roll-outs come to, far past the training length."""
    run = found.params["exposure"]
    ends = {name: numbers["variance"][-1] for name, numbers in rolled(found).items()}
    shown = ", ".join(f"{_rolled_words(name)} {value:.2f}" for name, value in ends.items())
    return (
        "Data have variance 1 in every frame. The sampler adds noise of variance "
        f"{run['hidden_variance']:g} to each frame that it makes, "
        "which a student that is trained on real frames never meets. After "
        f"{run['num_frames']} frames, trained on {run['trained_frames']}, the variance is: {shown}."
    )


def _rolled_words(name: str) -> str:
    method, _, variant = name.partition("-")
    return f"{method.replace('_', ' ')}{', ' if variant else ''}{variant.replace('context_', 'context noise ')}"

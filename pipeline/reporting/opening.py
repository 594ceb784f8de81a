"""What the report opens with: the question, the answer of this run in three sentences, and the matrix."""

from html import escape
from pathlib import Path

from pipeline.laboratory.verdicts import Verdict
from pipeline.reporting.laboratory import answers
from pipeline.reporting.laboratory.results import COMMAND as LABORATORY
from pipeline.reporting.laboratory.results import Laboratory
from pipeline.reporting.markup import picture, warned
from pipeline.reporting.matrix import draw_matrix, measured_of
from pipeline.reporting.read import Study, lookup
from pipeline.reporting.samples import read_samples
from pipeline.reporting.style import theme
from pipeline.reporting.sweep_read import Found, name_of
from pipeline.reporting.sweep_words import COMMAND as SWEEP
from pipeline.reporting.sweep_words import answer, caveats, warnings_of

TITLE = "What does each way of training an autoregressive video model minimise, and which makes the best video?"
QUESTION = """A training run is a cell of a grid: its <em>method</em> says how the student's frames come about (from
whole real clips, from real frames before them, from noisy ones, or by its own rollout), its <em>loss</em> what
pulls them towards the data. Papers claim a divergence for each cell, and each that its own is best. Here the same
chain trains all of them. How good a cell is, its clips show, by excess FVD: how much farther their features lie
from those of real clips than real ones do, 0 at best. What it minimises shows on processes whose density is
known."""
SOURCE = "the post \u201cEverything is KL minimization\u201d"
READINGS = {"table": "as they stand, of clean clips", "text": "averaged over noise"}
CAPTION = f"""Every cell of the sweep: excess FVD, mean over seeds and its interval, of 95 %; framed: the least.
Said: what its sources claim it minimises, and the verdict of the laboratory (&check; confirmed, &cross; refuted, ?
undecided), first on the claim as it stands, of clean clips, then averaged over noise; where no mark stands, the
sources claim it of the loss alone. Found: where students too small to fit the data settled, on processes of known
density, trained by the same code. The divergences are made by <code>{LABORATORY}</code>."""


def opening(study: Study, found: Found | None, laboratory: Laboratory | None, figures: Path) -> str:
    """The head of the page, below its title; `figures` gets the matrix. HTML."""
    said = [escape(line) for line in (warnings_of(found, study) if found else [])]
    alerts = "".join(f'<p class="warning">{line}</p>' for line in said)
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in three_sentences(found, laboratory))
    parts = [f'<p class="lede">{QUESTION} {escape(_data(study))}</p>', alerts, f'<ol class="lede">{sentences}</ol>']
    if found:
        with theme():
            path = draw_matrix(found, laboratory, study, figures / "matrix.svg")
        caption = f"{CAPTION} {escape(caveats(found)[1])}"
        parts.append(picture(path, warned(study.warning, caption), command=SWEEP))
    return "\n".join(filter(None, parts))


def three_sentences(found: Found | None, laboratory: Laboratory | None) -> list[str]:
    """Which cell is best, which claims hold, and what the best one minimises; or what is still to be run."""
    best = _best(found) if found else f"Cells are not compared yet: {SWEEP} does it."
    if laboratory is None:
        return [best, f"What they minimise is not measured yet: {LABORATORY} does it."]
    claims = _of_claims(laboratory)
    return [best, claims, _of_the_best(found, laboratory)] if found else [best, claims]


def _data(study: Study) -> str:
    """What the videos are, as stage prepare made them."""
    prepare = study.stage("prepare")
    kind = lookup(prepare, "work.source.type").split(".")[-2].replace("_", " ")
    num_clips, num_frames = (lookup(prepare, name) for name in ("metrics.num_clips.train", "work.num_frames"))
    *_, height, width = read_samples(study.checkpoints[0]).real.shape
    return f"The videos: {kind}, {num_clips:,} clips of {num_frames} frames of {height}\u00d7{width} pixels."


def _best(found: Found) -> str:
    """Which cell is best, from which it is not separated, and how many of its pairs are confounded."""
    key = "-".join(found.by_excess(found.last)[0])
    pairs = [pair for pair in found.pairs.get(found.last, ()) if key in (pair.a, pair.b)]
    confounded = sum(bool(pair.confounds) for pair in pairs)
    also = f"; {confounded} of its {len(pairs)} pairs are confounded, see Audit." if confounded else "."
    return answer(found)[0].removesuffix(".") + also


def _of_claims(laboratory: Laboratory) -> str:
    """How many claims hold as they stand, and how many averaged over noise."""
    counts = []
    for reading, words in READINGS.items():
        verdicts = [claim.verdict for claim in laboratory.claims if claim.reading == reading]
        others = [one.value for one in Verdict if one.value in verdicts and one != Verdict.CONFIRMED]
        rest = ", ".join(f"{verdicts.count(other)} {other}" for other in others)
        confirmed = f"{verdicts.count(Verdict.CONFIRMED.value)} of {len(verdicts)} {words}"
        counts.append(confirmed + (f" ({rest})" if rest else ""))
    return f"Of the divergences that {SOURCE} names for cells, the laboratory confirms {' and '.join(counts)}."


def _of_the_best(found: Found, laboratory: Laboratory) -> str:
    """What the best cell minimises, and so whether it may leave anything out."""
    cell = found.by_excess(found.last)[0]
    one = measured_of(found, laboratory, cell)
    if not one.minimises:
        return f"What {name_of(cell)} minimises, the laboratory has not measured."
    meaning = answers.meaning(laboratory, one.rows)
    return (
        f"On processes of known density, with students too small to fit, {name_of(cell)} minimises the "
        f"{' or the '.join(one.minimises)}: it "
        f"{meaning[0].lower()}{meaning[1:]}"
    )

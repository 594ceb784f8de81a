"""How the laboratory measures, what that does not say, and what it was made from; HTML."""

import json
from html import escape
from pathlib import Path

from pipeline.reporting.laboratory import words
from pipeline.reporting.laboratory.results import COMMAND, Laboratory

CLAIMS = """Verdicts are with exact critics and on all processes together: one process on which the student settles
elsewhere refutes a claim. Table: the claim read as the post's table has it, a divergence of clean clips. Text: as
its text has it, averaged over levels of noise on both model and data: with the loss's own weights where these
make an average, and with even ones elsewhere."""
CELLS = """Distances are the largest difference of a parameter. Derived: what this project derives for the
cell, as the name of a predicted objective. Cannot be told from: other objectives whose optimum is within the
tolerance of the nearest one. Divergences reached, in nats, are of clean clips, mean over seeds."""


GLOSSARY = {
    "student": "The model in training; here of two to five parameters, so that it cannot fit.",
    "cell": "A method with a loss: one way of training.",
    "forward KL": "KL(data \u2016 model): large where the model leaves out what data have.",
    "reverse KL": "KL(model \u2016 data): large where the model makes what data have not.",
    "Jensen\u2013Shannon": "The mean KL of model and of data from the mixture of both: between the two.",
    "softened reverse KL": "KL(mixture of both \u2016 data): a reverse KL that never becomes infinite.",
    "Fisher divergence": "The mean squared difference of the scores, the slopes of the log densities.",
    "noise-averaged": "Of noised model and noised data, averaged over levels of noise, with some weight.",
    "ELBO, \u03b5, flow weights": "L2 weighs noise as a bound of the likelihood does, or by a prediction's error.",
    "x0, score": "Spaces of a difference of denoisers, clean frames or scores: they weigh levels of noise.",
    "frames noised apart": "Every frame at a level of noise of its own.",
    "restored clips": "Clips of data of which the student made some frames anew: what diffusion forcing judges.",
    "ends of the flow": "Where the flow of data leads pure noise; KD and PaGoDA regress it or its inverse.",
    "SiD field, DMD field": "Where a loss descends no function: its fixed points stand in the place of optima.",
    "H": "The entropy of the model; reverse KL \u00b1 a share of it.",
    "critics": "Networks beside the student that tell model from data, or learn its score. Exact: closed forms.",
    "detached": "Without the gradient through the student's own earlier frames, as self forcing is coded.",
}


def glossary() -> str:
    """The words of the page; HTML."""
    entries = "".join(f"<dt>{escape(word)}</dt><dd>{escape(said)}</dd>" for word, said in GLOSSARY.items())
    return f"<details><summary>Words of this page</summary><dl>{entries}</dl></details>"


def process(found: Laboratory, name: str) -> str:
    """What a process is."""
    return f"Process {name}: {found.about(name)}."


def measured(found: Laboratory) -> str:
    """Rules, seeds, training, and where predictions come from."""
    from pipeline.laboratory.measure import SETTLED

    processes = "; ".join(f"{name}, {escape(found.about(name))}" for name in found.processes)
    rules, training, taught = found.rules, found.params["training"], found.params["learned_training"]
    return f"""<ul>
<li>Processes of known density, all mixtures of Gaussians over the frames of a pixel: {processes}. Students: one
Gaussian of mean m and standard deviation s for a single frame; for several, a first frame N(m1, s1&sup2;) and each
next one N(c &times; the frame before + m2, s2&sup2;), or the same s for all.</li>
<li>Predicted optima: each objective is an integral over the density, computed by quadrature in double precision and
minimised from several starts; where training follows a field that is the gradient of nothing, its zeros. Nothing is
typed in.</li>
<li>Measured ones: each cell trains such a student through the training loop of the main experiment, in
{training["num_steps"]:,} updates of {training["batch_size"]:,} clips ({taught["num_steps"]:,} of
{taught["batch_size"]:,} with learned critics; cells that say so take more), with {found.seeds}; the
parameters of the last {SETTLED:.0%} of updates are averaged. Exact critics: at every step the score, the ratio of
densities or the denoiser in closed form, so that nothing but the objective decides. Learned critics: small networks
that train beside the student.</li>
<li>Rules, fixed in params.yaml before the run: a student counts as at an optimum within {rules.tolerance:g} in
every parameter ({rules.learned_tolerance:g} with learned critics), with every other optimum at least
{rules.margin:g} times as far. A claim is <em>confirmed</em> where its optimum is the one; <em>refuted</em> where
the student is outside the tolerance of it and at another optimum, or at least {rules.margin:g} tolerances from it;
else <em>undecided</em>: two optima too close to tell apart, or seeds that scatter by more than the
tolerance. Objectives of one family whose optima are the same point count as one: a confirmation there does not say
which of them it is. Some processes, settings and updates were changed after first results had been seen:
<a href="log.md">the log</a> has each change and why.</li></ul>"""


def limits(found: Laboratory) -> str:
    """What must not be read into it."""
    one_seed = "One seed: there are no intervals over seeds. " if found.num_seeds == 1 else ""
    return f"""<p>{one_seed}A verdict is about the optimum of training with ample steps and, but where it says
otherwise, perfect critics; it says nothing of how fast, or how stably, a network gets there. The students are
of few parameters on purpose: a network that fits data perfectly has the same optimum under every divergence,
and what is seen here is what the misfit is traded for where it cannot. Predicted optima are the best of several
starts, not certified as global. A student starts at the first two moments of data and may stay at a local
optimum; one counts as an optimum of its objective. Intervals are over seeds alone.</p>{_without(found)}"""


def _without(found: Laboratory) -> str:
    """Objectives that a process has no prediction of, and why."""
    missing = [
        f"<li>{escape(words.objective(name))} on {process}: {escape(reason)}</li>"
        for process, reasons in found.without.items()
        for name, reason in reasons.items()
    ]
    return f"<p>Without a predicted optimum are:</p><ul>{''.join(missing)}</ul>" if missing else ""


def provenance(found: Laboratory, directory: Path) -> str:
    """Versions, revisions, profile and command, and every file."""
    names = sorted(path.name for path in directory.iterdir() if path.suffix in (".csv", ".json"))
    files = ", ".join(f'<a href="{directory.name}/{escape(name)}">{escape(name)}</a>' for name in names)
    versions = ", ".join(f"{name} {version}" for name, version in sorted(found.versions.items()))
    revisions = ", ".join(
        json.dumps(one, sort_keys=True) if not isinstance(one, dict) else _revision(one) for one in found.revisions
    )
    failed = "".join(f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in found.failed.items())
    return f"""<dl><dt>made by</dt><dd><code>{COMMAND}</code></dd>
<dt>profile, first seed</dt><dd>{escape(found.profile)}, {found.seed}</dd>
<dt>libraries</dt><dd>{escape(versions)}</dd>
<dt>revisions</dt><dd>{escape(revisions)}</dd>
<dt>failed</dt><dd>{f"<ul>{failed}</ul>" if failed else "none"}</dd>
<dt>files</dt><dd>{files}</dd></dl>"""


def _revision(one: dict[str, object]) -> str:
    return f"{one['commit']}{' with changes' if one['dirty'] else ''}"

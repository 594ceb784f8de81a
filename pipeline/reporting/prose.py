"""What the page says in words: the question, what was done, how far to trust it, what to see in each figure."""

from html import escape

from pipeline.records import DamagedRecordError, Record
from pipeline.reporting.goals import best_student
from pipeline.reporting.read import Study, cell_of, is_on_trajectories, lookup
from pipeline.training.init import FromTeacher, Untrained

CAPTIONS = {  # what to see in each figure
    "overview": """Two clips of every checkpoint under two real ones, and its two chief numbers. A good clip keeps
one digit, whole and sharp, on a straight path that turns only at a wall. Grey: real clips seen through the codec,
the most that a model of its latents can reach.""",
    "excess": """The grey part of a bar is the distance between two sets of real clips, and no fault of a model; the
coloured part is. Where two intervals overlap, the order of the checkpoints is not settled.""",
    "support": """Top right is good. Towards the bottom right, clips are good but of few kinds, which is what a
reverse KL forgives; towards the top left, all kinds occur, and many clips are bad, which is what a forward KL
forgives.""",
    "drift": """Left: a curve that climbs away from its floor accumulates error; a high but parallel one is wrong
from the start. It cannot see frozen motion, so on the right whole windows are measured, up to twice the training
length.""",
    "cost": """Each arrow leads from a checkpoint to one that began as its copy: what a stage bought,
and at what price. The operations include those of the teachers.""",
    "weighting": """Every denoising loss is an integral over the log-SNR of its squared error of the noise, weighted
by w. A w that never rises makes it a mean, over noise levels, of forward KL divergences between noised data and
model; where w rises, some of them count negatively. How often a level is drawn, p, by itself changes only how noisy
the loss is, not what it is.""",
    "training": """Every value faint, their running mean bold. Losses of different rows are different quantities,
and under DMD or GAN a student's loss need not fall, since its critic learns too.""",
    "corruptions": """Real clips, spoilt on purpose. The distance should rise with every defect that the eye sees;
one whose curve is flat is one that FVD cannot judge here.""",
}
UNTRAINED = {  # the works of stage init that train nothing
    Untrained.__name__: "random weights",
    FromTeacher.__name__: "the weights of the causal teacher as they are",
}
GRID = """<p>What a cell minimises follows from its loss, which says what is compared, and its method, which says
of which clips. Coloured: the checkpoints of this run, in their cells. On figures, TF is teacher forcing, one frame
after real ones; DF is diffusion forcing, frames at noise levels of their own; SF is self forcing, the student's own
rollout; CD is consistency distillation.</p>"""
COST = """<p>A student that needs two teachers has cost what they cost. So every row says what its own training took
and, under &ldquo;in all&rdquo;, what everything took that it was made from. Operations are those that torch
counted in the training of denoisers; clips and codec are in the seconds alone, evaluation in neither.</p>"""
LIKELIHOOD = """<p>A checkpoint that denoises at every level also tells how probable a clip is: the steps from pure
noise to frames are a code for the clip, and bits per dimension are its length. The frames may be cleaned in any
order, and each order, a path over their noise levels, is a code of its own. Of bounds the least counts, and it is
the one among the results. For a causal teacher expect it along teacher forcing, which cleans a frame only after all
before it: where frames are noisy together, its mask hides from each what the later ones know, and the bound pays
for that.</p>"""
DRIFT = """<h3>The checkpoints of the chain</h3>"""
AUDIT = """<p>Two cells can be compared where nothing differs but method and loss, and what follows from them. The
units of every pair were compared value by value; one that differs in anything else is marked as confounded.</p>"""
LINEAGE = """<p>A fingerprint is a checksum of the parameters, the inputs, the source of every module that the
unit runs, and the versions of libraries. Records are joined by the checksums of what was written and read, so
this page cannot mix two runs. In MLflow (<code>python3 -m pipeline ui</code>) the run of a unit is found by
searching for <code>tags.fingerprint = '&hellip;'</code>; it names its stage of dvc.yaml and its git revision, as
this table does.</p>"""


def behind(study: Study) -> dict[str, str]:
    """What stands behind each figure of CAPTIONS: clips, trainings, intervals; empty where it shows no measure."""
    clips = f"{lookup(study.checkpoints[0].measured, 'metrics.fvd.num_clips'):,} clips of each, one training each"
    measures = dict.fromkeys(("overview", "support", "drift", "cost"), f"{clips}; without intervals.")
    interval = f"{clips}; intervals of 95 %, over clips."
    return {**dict.fromkeys(CAPTIONS, ""), **measures, "excess": interval}


def summary(study: Study) -> str:
    """The outcome in a few sentences."""
    best = best_student(study)
    if best is None:
        return "<p>No student was trained in this run.</p>"
    measured = best.measured
    excess, (low, high) = (lookup(measured, f"metrics.fvd.{name}") for name in ("excess", "interval"))
    kept, real = (lookup(measured, f"metrics.identity.{name}") for name in ("first_to_last", "codec.first_to_last"))
    calls = lookup(measured, "metrics.sampling.calls_per_frame")
    origin = study.origin_of(best)
    begun = ""
    if origin:
        before = lookup(origin.measured, "metrics.fvd.excess")
        begun = f" It began as {escape(origin.name)}, whose excess FVD is {before:.1f}."
    return f"""<p>The best student of this run is <strong>{escape(best.name)}</strong> ({escape(best.label)}):
excess FVD {excess:.1f} (95 % interval {low:.1f} to {high:.1f}), at {calls:.3g} passes of a frame through the
denoiser.{begun} It keeps its digit from the first frame to the last in {kept:.1%} of clips; of real clips seen
through the codec, the reader says the same of {real:.1%}.</p>"""


def chain(study: Study) -> str:
    """The stages, a sentence each."""
    prepare = study.stage("prepare")
    num_clips, num_frames = (lookup(prepare, name) for name in ("metrics.num_clips.train", "work.num_frames"))
    updates = ", ".join(
        f"{escape(c.name)} {lookup(c.trained, 'metrics.student_updates'):,}" for c in study.checkpoints
    )
    return f"""<ol>
<li><strong>prepare</strong>: {num_clips:,} clips of {num_frames} frames for training, real handwritten digits in
motion; test clips show digits that no network was trained on, and are longer.</li>
<li><strong>features</strong>: the networks that judge, a clip encoder for FVD and a reader of digits, learn from
a third set of digits and are frozen.</li>
<li><strong>codec</strong>: an autoencoder of frames. Everything after it works in its latents.</li>
<li><strong>teacher</strong>: diffusion forcing with L2, every frame at a noise level of its own. The causal one
is what students grow from; the bidirectional one sees whole clips and gives the score of real data.</li>
<li><strong>init</strong>: where the students of distill start: {beginning(study.stage("init"))}.</li>
<li><strong>distill</strong>: few-step causal students, trained on noised real frames.</li>
<li><strong>rollout</strong>: the same students, trained on what they generate themselves, by the very procedure
that samples them.</li>
<li><strong>evaluate</strong>: every checkpoint against the test clips.</li></ol>
<p class="faint">Student updates: {updates}.</p>"""


def beginning(init: Record) -> str:
    """What stage init made; HTML."""
    if "cell" not in init.metrics:
        kind = lookup(init, "work.type").rpartition(".")[2]
        if kind not in UNTRAINED:
            raise DamagedRecordError(f"{init.directory / 'record.json'}: no beginning is called {kind}")
        return UNTRAINED[kind]
    method, loss = (name.replace("_", " ") for name in cell_of(init))
    by = f"{escape(method)} with {escape(loss)}"
    if is_on_trajectories(init):
        by = "regression on the ends of a teacher's trajectories"
    return f"the causal teacher's weights after {lookup(init, 'metrics.student_updates'):,} updates by {by}"


def trust(study: Study) -> str:
    """Sample sizes, networks and checksums behind the numbers."""
    first = study.checkpoints[0].measured
    network, checksum, number = (
        lookup(first, f"metrics.fvd.{name}") for name in ("network", "checksum", "num_clips")
    )
    rising, families = (
        lookup(study.stage("features"), f"metrics.{name}") for name in ("rising_families", "num_families")
    )
    return f"""<p>Where the sources of this project are wrong, what was run follows what is right:
<a href="errata.md">errata.md</a> lists every such place, and the test that shows it.</p>
<p>FVD compares {number:,} generated with {number:,} real clips, by the features of the network
<code>{escape(network)}</code>, sha256 <code>{escape(checksum)}</code>. It is comparable only with distances at
the same number of clips and by the same network. Its floor is what real clips score against other real clips. The
intervals, of 95 %, are by bootstrap over clips: they say nothing of another training seed, and every
checkpoint of the chain was trained once. Intervals of the sweep are over seeds.</p>
<p>Training clips show other digits than test clips, so not even they have an excess of 0: their row in the table
is what a perfect imitation of them would score.</p>
<p>The distance was itself put to the test: of {families} kinds of defect, applied to real clips in growing
strength, it rises with {rising}.</p>"""

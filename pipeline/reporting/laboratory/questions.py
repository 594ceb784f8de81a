"""Claims that are tempting, each with the derivation in three lines of what holds instead."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.reporting.laboratory.results import Judged, Laboratory

NONE = "none"  # supposed: no objective
ONE_FRAME, CLIP = "m", "m1"  # telling: students whose laws are drawn have this parameter
ELBO = "l2_elbo_bidirectional"
DETACHED, BY_FRAME, RESTORED = "self_forcing_detached_", "teacher_forcing_", "diffusion_forcing_"


@dataclass(frozen=True)
class Question:
    """A claim, and on what it is tried. Texts are HTML.

    speaks: whether a measurement does. supposed: the objective that the claim supposes of it, by what is derived.
    beside: which others make the picture speak. telling: a parameter of the students that show it best, if some do.
    """

    name: str
    title: str
    claim: str
    lines: tuple[str, str, str]  # of the derivation
    caption: str
    speaks: Callable[[Laboratory, Judged], bool]
    supposed: Callable[[str], str]
    beside: Callable[[Laboratory, Judged], bool]
    telling: str | None = None


def _is_non_saturating(found: Laboratory, row: Judged) -> bool:
    loss = found.params["cells"][row.cell]["loss"]
    return found.place(row.cell).loss == "gan" and loss["objective"] == "non_saturating"


def _is_averaged_dmd(found: Laboratory, row: Judged) -> bool:
    place = found.place(row.cell)
    is_plain = row.derived.startswith("reverse_kl") and "averaged" in row.derived
    return place.loss == "dmd" and place.method in ("bidirectional", "self_forcing") and is_plain


def _is_detached(found: Laboratory, row: Judged) -> bool:  # noqa: ARG001
    return row.derived.startswith(DETACHED)


def _is_by_frame(found: Laboratory, row: Judged) -> bool:
    return found.place(row.cell) == ("teacher_forcing", "dmd") and row.derived.startswith(BY_FRAME)


def _is_restored(found: Laboratory, row: Judged) -> bool:
    return found.place(row.cell) == ("diffusion_forcing", "dmd")


def _has_weights_on_noise(found: Laboratory, row: Judged) -> bool:
    return found.place(row.cell) == ("bidirectional", "l2") and row.derived not in ("", ELBO)


def _is_after_noise(found: Laboratory, row: Judged) -> bool:
    return found.place(row.cell) == ("diffusion_forcing", "l2")


def _of(method: str, loss: str, part: str = "") -> Callable[[Laboratory, Judged], bool]:
    """Whether a student is of this method and loss, and of a name of its objective that has this part."""
    return lambda found, row: found.place(row.cell) == (method, loss) and part in row.derived


QUESTIONS = (
    Question(
        "non_saturating",
        "Does the usual GAN loss minimise the Jensen\u2013Shannon divergence?",
        "The non-saturating GAN minimises the Jensen\u2013Shannon divergence.",
        (
            """The best discriminator tells data, of law q, from the student's clips, of law p, by
            D&nbsp;=&nbsp;q&nbsp;/&nbsp;(p&nbsp;+&nbsp;q).""",
            """The saturating loss, E<sub>p</sub> log(1 \u2212 D), then has the gradient of 2 JSD(p, q).""",
            """The usual one, \u2212E<sub>p</sub> log D, has that of 2 KL(\u00bd(p + q) \u2016 q) =
            KL(p \u2016 q) \u2212 2 JSD(p, q): a softened reverse KL.""",
        ),
        """In black: the optima that the claim supposes. In colour: where the non-saturating GAN ends,
        judged on noised and on clean frames.""",
        _is_non_saturating,
        lambda derived: derived.replace("softened_reverse_kl", "jensen_shannon"),
        _of("bidirectional", "gan"),
        ONE_FRAME,
    ),
    Question(
        "averaged_dmd",
        "Is DMD on noised frames the reverse KL of clean ones?",
        "DMD minimises the reverse KL of clean frames.",
        (
            """At level t the difference of the two scores moves samples down KL(p<sub>t</sub> \u2016
            q<sub>t</sub>), of the noised laws.""",
            """Its mean over levels is the gradient of E<sub>t</sub> w(t) KL(p<sub>t</sub> \u2016 q<sub>t</sub>): w
            = 1 in the space of scores, \u03c3\u00b2/\u03b1\u00b2 in that of x<sub>0</sub>.""",
            """Noise fills the gap between modes, so a noised term blames a broad student less; only t \u2192 0
            gives KL(p \u2016 q).""",
        ),
        """In black: the optimum that the claim supposes, the reverse KL of clean frames. In colour: where DMD on
        noised frames ends, in the space of scores and in that of x0.""",
        _is_averaged_dmd,
        lambda derived: "reverse_kl",  # noqa: ARG005
        _of("bidirectional", "dmd"),
        ONE_FRAME,
    ),
    Question(
        "detached",
        "Does a detached context leave the optimum where it is?",
        "Self forcing with a detached context has the optimum of the divergence that it descends.",
        (
            """A frame depends on the parameters directly and through the frame before: dx<sub>f</sub>/d\u03b8 =
            \u2202x<sub>f</sub>/\u2202\u03b8 + (\u2202x<sub>f</sub>/\u2202x<sub>f\u22121</sub>)
            dx<sub>f\u22121</sub>/d\u03b8.""",
            """Detached, the second part is cut: training rests where E[\u03a3<sub>f</sub> \u0394s<sub>f</sub>
            \u2202x<sub>f</sub>/\u2202\u03b8] = 0, \u0394s the difference of scores: in general the gradient of
            nothing.""",
            """Where every frame has parameters of its own, one point meets both conditions of a KL; where frames
            share them, as in a network, the cut moves it. A regression, such as KD, it moves even there.""",
        ),
        """Triangles: self forcing with DMD, detached and with the gradient through the context
        (&ldquo;full&rdquo;), on clean and on noised frames.""",
        _is_detached,
        lambda derived: derived.removeprefix(DETACHED),
        _of("self_forcing", "dmd"),
    ),
    Question(
        "by_frame",
        "Is teacher forcing with DMD the reverse KL of the clip?",
        "Teacher forcing with DMD minimises the divergence of the clip that self forcing does.",
        (
            """What is judged is a true context with the student's next frame: q(x<sub>&lt;f</sub>) p(x<sub>f</sub>
            | x<sub>&lt;f</sub>).""",
            """Summed over frames: \u03a3<sub>f</sub> E<sub>q(x&lt;f)</sub> KL(p(x<sub>f</sub> | x<sub>&lt;f</sub>)
            \u2016 q(x<sub>f</sub> | x<sub>&lt;f</sub>)).""",
            """The reverse KL of the clip has E<sub>p(x&lt;f)</sub> in its place: contexts that the student makes
            itself.""",
        ),
        """Two frames of a clip. Shaded: data. Ellipses, at 1.5 standard deviations: students, and in black what the
        claim supposes.""",
        _is_by_frame,
        lambda derived: derived.removeprefix(BY_FRAME),
        _of("self_forcing", "dmd", "averaged"),
        CLIP,
    ),
    Question(
        "restored",
        "Does diffusion forcing with DMD minimise a divergence of its clips?",
        "Diffusion forcing with DMD minimises no divergence between its clips and data.",
        (
            """Its frames are made beside frames of data: the judged law r mixes, over all sets of clean frames,
            data with what the student makes of the rest.""",
            """DMD descends E<sub>t</sub> KL(r<sub>t</sub> \u2016 q<sub>t</sub>), and r is not the law p of the
            clips that the student rolls out.""",
            """Frames of data stand in r beside the student's own, so that r can be near q where p is not.""",
        ),
        """Two frames of a clip, as above: the student of diffusion forcing beside those of self forcing.""",
        _is_restored,
        lambda derived: NONE,  # noqa: ARG005
        _of("self_forcing", "dmd", "averaged"),
        CLIP,
    ),
    Question(
        "weights",
        "Is L2 the forward KL of clean clips, whatever weights it gives to the noise?",
        "L2 minimises the forward KL of clean clips, with any weights.",
        (
            """For a denoiser that is the posterior mean of a law p, the squared error of its predicted noise at
            log-SNR \u03bb, less the least possible, is twice the rate at which KL(q<sub>\u03bb</sub> \u2016
            p<sub>\u03bb</sub>) grows as noise falls.""",
            """Summed with weights w, by parts, twice: w(\u03bb<sub>max</sub>) KL(q \u2016 p) \u2212 \u222b
            KL(q<sub>\u03bb</sub> \u2016 p<sub>\u03bb</sub>) dw(\u03bb); of pure noise the KL is 0. ELBO weights are
            constant: only the KL of clean clips is left.""",
            """Flow weights fall as noise falls: an average of KLs of noised clips. \u03b5 weights rise first, so
            that KLs of strong noise are subtracted: no average of KLs.""",
        ),
        """Bidirectional L2 with three weights, of several frames: only with those of the ELBO do students end at
        the forward KL of clean clips. In grey: its average over noise with even weights, which the text
        of the post supposes of \u03b5. Of one frame, a Gaussian has the same best fit under all three.""",
        _has_weights_on_noise,
        lambda derived: "forward_kl",  # noqa: ARG005
        _of("bidirectional", "l2"),
    ),
    Question(
        "noisy_contexts",
        "Is diffusion forcing with L2 the forward KL of the clip?",
        "Diffusion forcing with L2 minimises the forward KL of clips.",
        (
            """Frame f is denoised after contexts z<sub>&lt;f</sub> that are noised, each frame at a level of its
            own.""",
            """With ELBO weights, summing over the levels of frame f gives KL(q(x<sub>f</sub> | z<sub>&lt;f</sub>)
            \u2016 p(x<sub>f</sub> | z<sub>&lt;f</sub>)), in the mean over noised contexts; flow weights average it
            over noise of frame f, too.""",
            """Only after clean contexts do these sum over frames to KL(q \u2016 p). Noised ones ask for other
            conditionals, and a student too small for all of them settles on a compromise over all levels of the
            context.""",
        ),
        """Diffusion forcing beside teacher forcing, which ends at the forward KL. In grey: the KL of clips whose
        frames are noised apart, averaged with even weights, which the post's text supposes.""",
        _is_after_noise,
        lambda derived: "forward_kl",  # noqa: ARG005
        _of("teacher_forcing", "l2"),
    ),
)

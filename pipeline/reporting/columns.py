"""The numbers of the comparison: where a record has each, how people are shown it, and what it means."""

from dataclasses import dataclass

NOTHING = "\u2013"


@dataclass(frozen=True)
class Column:
    """One number of a row: `path` in the record, empty where the table derives it."""

    path: str
    title: str
    meaning: str
    better: int = 0  # +1: the higher, the better; -1: the lower; 0: neither
    digits: int = 2
    factor: float = 1.0  # from the record's unit to the one shown

    def shown(self, value: float) -> str:
        """For people: without decimals from 100 on; measures, not counts, in thousands from 10,000 on."""
        scaled = value * self.factor
        if self.digits and abs(scaled) >= 10_000:
            return f"{scaled / 1000:,.1f}k"
        return f"{scaled:,.{0 if abs(scaled) >= 100 else self.digits}f}"


MEASURED: dict[str, Column] = {
    "fvd": Column(
        "metrics.fvd.value", "FVD", "Fréchet distance between features of generated and of real clips.", -1, 1
    ),
    "floor": Column(
        "metrics.fvd.floor", "floor", "The same distance between two sets of real clips of the same size.", 0, 1
    ),
    "excess": Column(
        "metrics.fvd.excess",
        "excess FVD",
        "FVD less its floor, with a 95 % bootstrap interval: what the model adds. 0 is as good as real.",
        -1,
        1,
    ),
    "precision": Column(
        "metrics.coverage.precision", "precision", "Share of generated clips that lie among real ones.", +1
    ),
    "recall": Column("metrics.coverage.recall", "recall", "Share of real clips that lie among generated ones.", +1),
    "density": Column(
        "metrics.coverage.density", "density", "Precision, weighted by how crowded the place is; can exceed 1.", +1
    ),
    "coverage": Column(
        "metrics.coverage.coverage", "coverage", "Share of real clips with a generated one next to them.", +1
    ),
    "agreement_second": Column(
        "metrics.identity.first_to_second", "1→2", "How often the digit read in frame 2 is that of frame 1.", +1, 3
    ),
    "agreement_last": Column(
        "metrics.identity.first_to_last",
        "1→last",
        "How often the digit read in the last frame is that of frame 1. Blind to collapse: a model that "
        "always shows the same agrees with itself, so read it beside kappa and recall.",
        +1,
        3,
    ),
    "kappa_last": Column(
        "metrics.identity.kappa_last",
        "kappa",
        "Cohen's kappa of the same: agreement beyond chance. 1 at best; 0 where all clips show one thing.",
        +1,
    ),
    "class_kl": Column(
        "metrics.identity.class_kl",
        "class KL",
        "KL divergence, in nats, of the digits read in first frames from those in real ones; 0: equally frequent.",
        -1,
    ),
    "speed_w1": Column(
        "metrics.kinematics.speed_w1",
        "speed W1",
        "Wasserstein distance between the speeds of generated and of real digits, in pixels a frame.",
        -1,
        3,
    ),
    "drift_slope": Column(
        "metrics.drift_slope",
        "drift",
        "Growth of windowed FVD over its floor for each frame that the window starts later. Below 0, clips begin "
        "worse than they end: neither end of the column is the best.",
        0,
    ),
    "bits": Column(
        "",
        "bits",
        "Bits per dimension: a bound on the code length of held-out latents, rounded to bins. The least of those "
        "along three paths; comparable between teachers of one codec alone.",
        -1,
        3,
    ),
    "calls_per_frame": Column(
        "metrics.sampling.calls_per_frame", "calls a frame", "Passes of a frame through the denoiser.", -1, 1
    ),
    "frames_per_s": Column(
        "metrics.sampling.frames_per_s", "frames a second", "Frames made in a second on this machine.", +1, 0
    ),
    "latency_s": Column(
        "metrics.sampling.latency_s",
        "first frame (ms)",
        "From the start to the first frame, one clip alone, on this machine.",
        -1,
        1,
        1000.0,
    ),
}
SPENT: dict[str, Column] = {
    "student_updates": Column("metrics.student_updates", "student updates", "Updates of the network itself.", 0, 0),
    "critic_updates": Column(
        "metrics.critic_updates", "critic updates", "Updates of the networks that its loss owns.", 0, 0
    ),
    "clips_seen": Column("metrics.clips_seen", "clips seen", "Clips drawn, by both kinds of update.", 0, 0),
    "flops": Column(
        "metrics.flops",
        "TFLOP",
        "Floating-point operations of the training by torch's counter, 10^12.",
        0,
        1,
        1e-12,
    ),
    "flops_with_ancestors": Column(
        "", "TFLOP in all", "The same with every denoiser that it was trained from.", 0, 2, 1e-12
    ),
    "seconds": Column("", "seconds", "Wall time of the training unit on this machine.", 0, 0),
    "seconds_with_ancestors": Column(
        "", "seconds in all", "The same with all that it was made from: clips, codec, teachers.", 0, 0
    ),
}
COLUMNS = MEASURED | SPENT

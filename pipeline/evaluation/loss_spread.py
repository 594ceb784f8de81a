"""How far the loss of a trained teacher depends on the schedule that draws its levels: mean and spread.

The mean of the loss at a level belongs to the objective, how often a level is drawn to the schedule: L_w is one
number under every schedule, its estimate from one clip is not equally sharp. arXiv:2303.00848, eq. 2.
"""

import dataclasses
import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.adaptive import AdaptiveSchedule, AdaptiveSpec
from pipeline.diffusion.denoising import loss_factor
from pipeline.diffusion.log_snr import LogSnrSchedule
from pipeline.diffusion.noise_levels import NoiseLevels, TeacherForcing
from pipeline.diffusion.schedule import Schedule
from pipeline.evaluation.sampling import load_student
from pipeline.interfaces import Progress, Rollout, Video
from pipeline.losses.l2 import L2
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.models.denoiser import Denoiser
from pipeline.rules import at_least
from pipeline.streams import noise_like, stream
from pipeline.unit import Metrics, digest_of

ADAPTIVE = "adaptive"  # the name beside those of the given schedules
ByClip = Float[Tensor, " B"]


class Estimates(NamedTuple):
    """Of single clips: sum of weighted errors over the frames that count, and how much they count together."""

    loss: ByClip
    counts: ByClip

    def summary(self) -> dict[str, float]:
        """Mean of the loss, its standard error, and the relative standard deviation of one clip's estimate.

        The mean is sum(loss) / sum(counts), that of a batch; its error is that of a ratio.
        """
        loss, counts = self.loss.double(), self.counts.double()
        mean = loss.sum() / counts.sum()
        deviation = ((loss - mean * counts) / counts.mean()).square().mean().sqrt().item()
        return {
            "mean": mean.item(),
            "standard_error": deviation / math.sqrt(len(loss)),
            "relative_sd": deviation / mean.item(),
        }


@dataclass(frozen=True)
class LossSpread:
    """The training loss of one teacher under several schedules and under the adaptive one, on training latents.

    Two laws of levels: that of `method`, under which the schedule also draws how noisy the context of a frame is,
    so that the objective itself may move with it; and teacher forcing, whose context is clean under every schedule.

    schedules: by name. num_clips: for each schedule and law, drawn with replacement, fresh for each. adaptive: of
    the adaptive schedule, fitted on `num_fits` batches of `fit_size` clips with evenly spread log-SNRs; its decay
    must leave nothing of the 1 that every bin starts from, which at high noise would outweigh what was measured.
    """

    method: DiffusionForcing
    loss: L2
    schedules: dict[str, Schedule]
    num_clips: int = 2048
    batch_size: int = 128
    num_fits: int = 20
    fit_size: int = 384
    adaptive: AdaptiveSpec = field(
        default_factory=lambda: AdaptiveSpec(num_bins=32, low=-12.0, high=12.0, decay=0.5)
    )
    seed: int = 0
    num_threads: int = 1

    def __post_init__(self) -> None:
        at_least(2, num_clips=self.num_clips)
        at_least(1, batch_size=self.batch_size, num_fits=self.num_fits, fit_size=self.fit_size)
        at_least(1, num_threads=self.num_threads)
        if ADAPTIVE in self.schedules:
            raise ValueError(f"schedules must have other names than {ADAPTIVE}, got {', '.join(self.schedules)}")

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:
        """inputs: "codec" and "student". Metrics: by law and by schedule, the summary of the estimates."""
        torch.set_num_threads(self.num_threads)
        directory.mkdir(parents=True, exist_ok=True)
        clips = torch.from_numpy(np.load(inputs["codec"] / "train.npy"))
        student = load_student(inputs["student"], latents=digest_of(inputs["codec"] / "codec.json"))
        laws: dict[str, NoiseLevels] = {"training": self.method.noise_levels, "teacher_forcing": TeacherForcing()}
        num_steps = 1 + len(laws) * (len(self.schedules) + 1)
        adaptive = self.fitted(student, clips)
        schedules = {name: in_family_of(student, schedule) for name, schedule in self.schedules.items()}
        yield Progress(1, num_steps)
        done = 1
        measured: Metrics = {law: {} for law in laws}
        for law, levels in laws.items():
            method = dataclasses.replace(self.method, noise_levels=levels)
            for name, schedule in {**schedules, ADAPTIVE: adaptive}.items():
                network = through(student, schedule.native)
                parts = [
                    estimates(method.rollout(network, batch, schedule=schedule, rng=rng), self.loss, schedule)
                    for batch, rng in self._batches(clips, f"spread/{law}/{name}")
                ]
                whole = Estimates(*(torch.cat(column) for column in zip(*parts, strict=True)))
                measured[law][name] = whole.summary()
                done += 1
                yield Progress(done, num_steps)
        return measured

    @torch.no_grad()
    def fitted(self, student: Denoiser, clips: Video) -> AdaptiveSchedule:
        """The adaptive schedule of a network that does not change any more.

        Fitted at evenly spread log-SNRs and not at those that it draws itself: at first these all lie where the
        weight is largest, and the running means of the rest would need thousands of batches.
        """
        native, spec, num_frames = student.spec.schedule, self.adaptive, clips.shape[1]
        schedule = AdaptiveSchedule(spec, native, self.loss.weighting, num_frames)
        for index in range(self.num_fits):
            rng = stream(self.seed, "spread/fit", index)
            batch = clips[torch.randint(len(clips), (self.fit_size,), generator=rng)]
            law = self.method.noise_levels
            levels = law.draw(len(batch), num_frames, chunk_len=self.method.chunk_len, rng=rng)
            even = spec.high - (spec.high - spec.low) * levels.t.double()
            t = torch.where(levels.counts > 0, native.level(even).to(batch), levels.t.to(batch))
            alpha, sigma = native.at(t)
            x_t = alpha * batch + sigma * noise_like(batch, rng)
            schedule.observe(t, student(x_t, t), batch, levels.counts.to(batch))
        return schedule

    @torch.no_grad()
    def _batches(self, clips: Video, name: str) -> Iterator[tuple[Video, torch.Generator]]:
        for index, start in enumerate(range(0, self.num_clips, self.batch_size)):
            rng = stream(self.seed, name, index)
            size = min(self.batch_size, self.num_clips - start)
            yield clips[torch.randint(len(clips), (size,), generator=rng)], rng


def in_family_of(student: Denoiser, schedule: Schedule) -> Schedule:
    """The same log-SNRs, of frames scaled as the student knows them, on which v and velocity depend."""
    assert isinstance(schedule, LogSnrSchedule)
    return dataclasses.replace(schedule, family=student.spec.schedule.family)


def through(student: Denoiser, schedule: Schedule) -> Denoiser:
    """The same function of frames and log-SNR, with the levels of another schedule of its family."""
    assert schedule.family == student.spec.schedule.family
    network = Denoiser(dataclasses.replace(student.spec, schedule=schedule))
    network.load_state_dict(student.state_dict())
    return network.eval().requires_grad_(False)


def estimates(rollout: Rollout, loss: L2, schedule: Schedule) -> Estimates:
    """What every clip of a batch adds to the training loss, sum(loss) / sum(counts)."""
    assert rollout.target is not None
    error = (rollout.x0_hat - rollout.target).double().square().mean(dim=(2, 3, 4))
    counts = torch.cat([loss.first_weight * rollout.counts[:, :1], rollout.counts[:, 1:]], 1)
    factor = loss_factor(rollout.t, schedule=schedule, weighting=loss.weighting).masked_fill(counts == 0, 0)
    return Estimates((factor * counts * error).sum(1), counts.sum(1).double())

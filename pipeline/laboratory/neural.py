"""A neural student of the laboratory: the denoiser of the main chain on a process, and how far it is from data."""

import dataclasses
import hashlib
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.data.processes import Process
from pipeline.data.processes_mixture import GaussianMixture, IndependentPixels
from pipeline.diffusion.autoregress import Sampler
from pipeline.interfaces import NoiseLevel, Progress, Video
from pipeline.laboratory.denoisers import ExactDenoiser
from pipeline.laboratory.estimators import (
    Estimate,
    LogDensities,
    as_plain_estimates,
    both_densities,
    classifier_bounds,
    shares_of_modes,
)
from pipeline.laboratory.measure import ONE_STEP
from pipeline.laboratory.neural_densities import flow_log_density, flow_sampler, one_step_log_density, sample
from pipeline.laboratory.steps import conditional_log_densities, kl_by_frame
from pipeline.losses.dmd import Dmd
from pipeline.losses.gan import Gan
from pipeline.losses.l2 import L2
from pipeline.losses.loss import Loss
from pipeline.losses.scores import Scores
from pipeline.losses.sid import Sid
from pipeline.methods.bidirectional import Bidirectional
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.method import Method
from pipeline.methods.self_forcing import SelfForcing
from pipeline.methods.teacher_forcing import TeacherForcing
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec, load_denoiser, save_denoiser
from pipeline.rules import at_least
from pipeline.streams import stream, stream_seed
from pipeline.training.loop import TrainingSpec, TrainState, train
from pipeline.unit import Metrics, as_plain, canonical_json

TRAINED = (L2, Dmd, Gan, Sid)  # losses whose teacher is the exact score of data, or that ask for none
CRITIC_OF = {"causal": "causal", "bidirectional": "full"}  # its attention, by the teacher that a method names


@dataclass(frozen=True)
class NeuralStudent:
    """Train `method` x `loss` on one pixel of `process`, and measure what its student samples against data.

    A loss on data makes a denoiser, which stands for the law of its probability flow; any other loss a generator of
    one step a frame, against the exact score of data. Inputs, each the out/ of another such unit: `init`, the
    student to start from; `critic`, of which the networks that learn what is said of the student are copies.

    backbone: but for its attention, which is that of the method. num_clips: of data, drawn once. num_paths: on
    which exact densities are compared. num_samples: of the student, whose modes are counted, and which a classifier
    tells from data where the student has no density at hand.
    """

    process: Process
    method: Method
    loss: Loss
    backbone: BackboneSpec
    training: TrainingSpec
    seed: int
    num_threads: int = 1
    num_clips: int = 2**16
    num_paths: int = 1024
    num_samples: int = 4096

    def __post_init__(self) -> None:
        at_least(2, num_frames=self.process.num_frames, num_paths=self.num_paths)
        at_least(1, num_clips=self.num_clips)
        at_least(self.num_paths, num_samples=self.num_samples)
        if not isinstance(self.loss, TRAINED):
            known = ", ".join(kind.__name__ for kind in TRAINED)
            raise ValueError(f"loss must be one of {known}, got {type(self.loss).__name__}")
        if self.loss.needs_target and not self.method.provides_target:
            raise ValueError(
                f"method must provide a target for the loss {type(self.loss).__name__}, got "
                f"{type(self.method).__name__}"
            )
        if isinstance(self.method, SelfForcing) and self.method.sampler != ONE_STEP:
            raise ValueError(f"sampler must be that of one step, {ONE_STEP}, got {self.method.sampler}")
        sizes = (self.backbone.channels, self.backbone.frame_size, self.backbone.chunk_len)
        if sizes != (1, 1, 1):
            raise ValueError(
                f"backbone must be of one pixel, frame by frame: channels, frame_size, chunk_len={sizes}"
            )

    @property
    def makes_frames(self) -> bool:
        """Whether the student is a generator: its loss is not the denoising loss on data."""
        return not self.loss.bounds_likelihood

    @property
    def latents(self) -> str:
        """What a network of this process says that it speaks, in the place of the digest of a codec."""
        return hashlib.sha256(canonical_json(as_plain(self.process)).encode()).hexdigest()

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:
        """Train anew, save the averaged student to out/, and measure it.

        Raises:
            ValueError: an input is missing or does not fit.
            FloatingPointError: a loss is not finite.
        """
        torch.set_num_threads(self.num_threads)
        torch.manual_seed(stream_seed(self.seed, "weights"))
        law, config = self.process.law, self.training
        clips = IndependentPixels(law).sample(self.num_clips, stream(self.seed, "clips")).float()
        state = TrainState(self._student(inputs), self._critics(inputs), config)
        yield Progress(0, config.num_steps)
        for report in train(state, clips, method=self._method(), loss=self.loss, seed=self.seed):
            if report.step % config.report_every == 0 or report.step == config.num_steps:
                values = {name: value.item() for name, value in report.metrics.items()}
                yield Progress(report.step, config.num_steps, values)
        student = state.ema.average
        save_denoiser(student, directory / "out", latents=self.latents)
        return {**self.measured(student), "parameters": sum(p.numel() for p in student.parameters())}

    def measured(self, student: Denoiser) -> Metrics:
        """Divergences of the law of its samples from data, the shares of modes, and the KL by step where exact."""
        law, frames = self.process.law, self.process.num_frames
        made = sample(student, self._sampler(), self.num_samples, frames, stream(self.seed, "samples"))
        log_density = self._log_density()
        draws = self.num_samples if log_density is None else self.num_paths
        data, own = law.sample(draws, stream(self.seed, "heldout")), made[:draws].double()
        if log_density is None:
            seed = stream_seed(self.seed, "classifier")
            divergences, steps = classifier_bounds(data, own, law, seed=seed), {}
        else:
            divergences, steps = compared(lambda x: log_density(student, x.float()).double(), law, data, own)
        return {
            "divergences": as_plain_estimates(divergences),
            "shares": shares_of_modes(law, made),
            "data_shares": tuple(law.shares.tolist()),
            "steps": {contexts: [vars(step) for step in found] for contexts, found in steps.items()},
        }

    def _log_density(self) -> Callable[[Denoiser, Tensor], Tensor] | None:
        """That of the student's samples; None where only the samples are at hand."""
        if not self.makes_frames:
            return flow_log_density
        return one_step_log_density if self.method.attention == "causal" else None

    def _sampler(self) -> Sampler:
        frames, is_whole = self.process.num_frames, self.method.attention == "full"
        if not self.makes_frames:
            return flow_sampler(frames, self.method.attention)
        return dataclasses.replace(ONE_STEP, chunk_len=frames) if is_whole else ONE_STEP

    def _method(self) -> Method:
        """As the student meets it: a generator sees pure noise, and clean context, alone."""
        if self.makes_frames and isinstance(self.method, Bidirectional | TeacherForcing | DiffusionForcing):
            return dataclasses.replace(self.method, sampler=ONE_STEP)
        return self.method

    def _student(self, inputs: Mapping[str, Path]) -> Denoiser:
        student = Denoiser(self._spec(self.method.attention))
        if "init" in inputs:
            student.start_from(self._load(inputs["init"]))
        return student

    def _critics(self, inputs: Mapping[str, Path]) -> nn.Module:
        """Those of the loss, begun from a trained network; in the place of the teacher the exact score of data."""
        if not self.loss.needs_teacher:
            return self.loss.critics(None)
        if "critic" not in inputs:
            raise ValueError(
                f"{type(self.loss).__name__} needs a critic to start from, and the unit has no such input"
            )
        origin, wanted = self._load(inputs["critic"]), CRITIC_OF[self.method.teacher]
        if origin.spec.backbone.attention != wanted:
            raise ValueError(
                f"attention of the critic must be {wanted} under {type(self.method).__name__}, got "
                f"{origin.spec.backbone.attention}"
            )
        critics = self.loss.critics(origin)
        if isinstance(critics, Scores):
            law = self.process.law
            critics.real = ExactTeacher(lambda: law)
        return critics

    def _spec(self, attention: str) -> DenoiserSpec:
        return DenoiserSpec(dataclasses.replace(self.backbone, attention=attention))

    def _load(self, path: Path) -> Denoiser:
        """Another student of this process. Raises ValueError where its size differs."""
        origin = load_denoiser(path, latents=self.latents)
        if origin.spec != self._spec(origin.spec.backbone.attention):
            raise ValueError(f"an input must have the backbone of the student: {origin.spec.backbone} in {path}")
        return origin


class ExactTeacher(ExactDenoiser):
    """The exact denoiser of data beside networks, in their precision."""

    def forward(self, x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> Video:
        return super().forward(x_t, t, end).to(x_t.dtype)

    def beside(self, x_t: Video, t: NoiseLevel, context: Video, end: NoiseLevel | None = None) -> Video:
        """E[x_f | x_f,t and the clean frames before it]."""
        return super().beside(x_t, t, context, end).to(x_t.dtype)


def compared(
    student: Callable[[Tensor], Tensor], law: GaussianMixture, data: Tensor, own: Tensor
) -> tuple[dict[str, Estimate], dict[str, list[Estimate]]]:
    """Divergences of a student of known density at draws of data and of its `own`, and its KL by step.

    student: ln p of a batch of clips, (N, F) frame by frame, or (N, 1) whole, which has no steps.
    """
    of_student = student(data), student(own)
    if of_student[0].shape == data.shape:
        of_data = tuple(conditional_log_densities(law, x) for x in (data, own))
        steps = {
            "true": kl_by_frame(of_data[0], of_student[0]),
            "own": kl_by_frame(of_student[1], of_data[1]),
        }
    else:
        of_data, steps = tuple(law.log_density(x)[:, None] for x in (data, own)), {}
    at = [LogDensities(q.sum(1), p.sum(1)) for q, p in zip(of_data, of_student, strict=True)]
    return both_densities(*at), steps

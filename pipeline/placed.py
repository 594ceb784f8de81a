"""Units of a cell somewhere else than on the CPU of one process: a plain one where nothing is asked for."""

import copy
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from torch import nn

from pipeline.evaluation.evaluate import Evaluate, decoded
from pipeline.evaluation.extractors import ByteVideo
from pipeline.evaluation.sampling import generate_latents
from pipeline.interfaces import NoiseLevel, Progress, Video
from pipeline.models.codec import FrameCodec
from pipeline.models.denoiser import Context, Denoiser
from pipeline.training.cell import TrainCell
from pipeline.training.placed import Placed, check_device, check_placement, compile_blocks, exactly, place
from pipeline.unit import Metrics, Work


def placed(
    work: TrainCell | Evaluate,
    *,
    device: str = "cpu",
    precision: str = "float32",
    compile: bool = False,
    num_workers: int = 1,
) -> Work:
    """The work itself where all is as DVC's stages have it, so that it is their unit; else another one.

    An evaluation is by one worker, whatever is said: there is nothing to share.

    Raises:
        ValueError: it cannot be placed so.
    """
    if isinstance(work, Evaluate):
        if (device, precision, compile) == ("cpu", "float32", False):
            return work
        return PlacedEvaluate(work, device, precision, compile)
    if (device, precision, compile, num_workers) == ("cpu", "float32", False, 1):
        return work
    return Placed(work, device, precision, compile, num_workers)


@dataclass(frozen=True)
class PlacedEvaluate:
    """Evaluate a student that makes its clips elsewhere; what judges them, and its bits, stay on the CPU.

    The fields are those of `pipeline.training.placed.Placed`.
    """

    work: Evaluate
    device: str = "cuda"
    precision: str = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        check_placement(self.device, self.precision)

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:
        """As Evaluate.run. Raises ValueError: the device is not here."""
        check_device(self.device)
        given = {field.name: getattr(self.work, field.name) for field in fields(self.work)}
        elsewhere = SampledElsewhere(**given, device=self.device, precision=self.precision, compile=self.compile)
        return exactly(self.device, elsewhere.run(directory, inputs))


@dataclass(frozen=True)
class SampledElsewhere(Evaluate):
    """An evaluation whose clips are made on a device, and decoded there."""

    device: str = "cpu"
    precision: str = "float32"
    compile: bool = False

    def _sampled(self, student: Denoiser, codec: FrameCodec, num_frames: int) -> Iterator[ByteVideo]:
        """See Evaluate."""
        there = copy.deepcopy(codec)  # the one that is given encodes real clips on the CPU
        assert isinstance(there, nn.Module)
        there.to(self.device)
        batches = generate_latents(
            self._remote(student),
            self.num_clips,
            num_frames,
            sampler=self.sampler,
            batch_size=self.batch_size,
            seed=self.seed,
        )
        for latents in batches:
            yield decoded(there, latents.to(self.device))

    def _cost(self, student: Denoiser) -> dict[str, float]:
        """See Evaluate; the way to the device and back is part of it."""
        return super()._cost(self._remote(student))

    def _remote(self, student: Denoiser) -> Denoiser:
        there = remote(copy.deepcopy(student), self.device, self.precision)
        if self.compile:
            compile_blocks(there)
        return there


class RemoteDenoiser(Denoiser):
    """A denoiser that is asked and answers on the CPU, where a sampler draws its noise; its cache stays with it."""

    def denoise_chunk(
        self, x_t: Video, t: NoiseLevel, cache: Context | None, end: NoiseLevel | None = None
    ) -> Video:
        """See Denoiser."""
        there = self.backbone.place.device
        ends = None if end is None else end.to(there)
        return super().denoise_chunk(x_t.to(there), t.to(there), cache, ends).to(x_t)

    def extend(self, cache: Context | None, x: Video, t: NoiseLevel, *, window: int) -> Context:
        """See Denoiser."""
        there = self.backbone.place.device
        return super().extend(cache, x.to(there), t.to(there), window=window)


def remote(student: Denoiser, device: str, precision: str) -> Denoiser:
    """The student on the device, asked from the CPU; the same weights under the same names."""
    there = place(student, device, precision)
    there.__class__ = RemoteDenoiser
    return there

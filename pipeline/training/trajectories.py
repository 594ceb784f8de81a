"""Trajectories of a teacher's probability flow: from noise, at the levels of the students' sampler, to the end."""

import dataclasses
import shutil
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.autoregress import CachedDenoiser, Sampler, generate
from pipeline.diffusion.flow_map import SOLVERS
from pipeline.diffusion.schedule import Schedule
from pipeline.diffusion.trajectory import Step
from pipeline.interfaces import Denoise, NoiseLevel, Progress, Video
from pipeline.methods.on_trajectories import description, save_trajectories
from pipeline.models.denoiser import Denoiser, load_denoiser
from pipeline.rules import at_least, one_of
from pipeline.streams import stream
from pipeline.unit import CHECKPOINTS, Metrics, digest_of

SPLITS = ("train", "heldout")  # each from noise of its own
States = Float[Tensor, "B levels T C H W"]  # from the noisiest level to the ends


@dataclass(frozen=True)
class MakeTrajectories:
    """num_clips trajectories of a teacher, as long as the clips of training.

    sampler: the students'; its levels are kept, and its chunks and its window are those of a causal teacher. One of
    full attention makes all frames together. solver: of the flow. num_steps: of the solver for each frame, a
    multiple of sampler.num_steps. split: which noise.

    Inputs: `codec`, whose latents give the shape, and `teacher`.
    """

    sampler: Sampler
    solver: str = "heun"
    num_steps: int = 16
    num_clips: int = 2048
    batch_size: int = 128
    split: str = "train"
    seed: int = 0
    num_threads: int = 1

    def __post_init__(self) -> None:
        one_of(SOLVERS, solver=self.solver)
        one_of(SPLITS, split=self.split)
        at_least(1, num_clips=self.num_clips, batch_size=self.batch_size, num_threads=self.num_threads)
        if self.num_steps < 1 or self.num_steps % self.sampler.num_steps:
            raise ValueError(
                f"num_steps must be a multiple of sampler.num_steps, whose levels are kept: {self.num_steps} and "
                f"{self.sampler.num_steps}"
            )
        if self.sampler.lag is not None:
            raise ValueError(f"sampler.lag must be null, chunk after finished chunk, got {self.sampler.lag}")

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:
        """Batch after batch, each kept until all are there: an interrupted unit makes the rest.

        Raises:
            ValueError: the teacher speaks other latents, takes other frames or has other chunks.
        """
        torch.set_num_threads(self.num_threads)
        latents = digest_of(inputs["codec"] / "codec.json")
        teacher = load_denoiser(inputs["teacher"], latents=latents).eval().requires_grad_(False)
        frames = np.load(inputs["codec"] / "train.npy", mmap_mode="r").shape[1:]
        self._check(teacher, frames)
        kept = directory / CHECKPOINTS
        kept.mkdir(parents=True, exist_ok=True)
        starts = range(0, self.num_clips, self.batch_size)
        paths = [kept / f"{index:05d}.npy" for index in range(len(starts))]
        for index, (start, path) in enumerate(zip(starts, paths, strict=True)):
            if not path.exists():
                rng = stream(self.seed, f"trajectories/{self.split}", index)
                noise = torch.randn(min(self.batch_size, self.num_clips - start), *frames, generator=rng)
                _write_whole(self.states(teacher, noise, teacher.spec.schedule, _attention(teacher)), path)
            yield Progress(index + 1, len(paths))
        about = description(self.sampler, latents=latents, schedule=teacher.spec.schedule)
        about |= {"attention": _attention(teacher), "solver": self.solver, "num_steps": self.num_steps}
        save_trajectories(np.concatenate([np.load(path) for path in paths]), directory / "out", about)
        return {"num_clips": self.num_clips, "num_steps": self.num_steps, "attention": _attention(teacher)}

    @torch.no_grad()
    def states(self, teacher: CachedDenoiser, noise: Video, schedule: Schedule, attention: str) -> States:
        """The frames at the sampler's levels, from noise on, and at 0.

        Every level of the sampler is one of the finer sampler of num_steps, whose levels the same schedule spaces.
        """
        keep = _KeepStarts(SOLVERS[self.solver])
        chunking = {"chunk_len": noise.shape[1], "first_chunk_len": None} if attention == "full" else {}
        fine = dataclasses.replace(self.sampler, num_steps=self.num_steps, step=keep, context_noise=0.0, **chunking)
        # A deterministic flow over clean contexts: nothing is drawn.
        ends = generate(teacher, noise, schedule=schedule, sampler=fine, rng=torch.Generator()).x0_hat
        every = self.num_steps // self.sampler.num_steps
        steps = [torch.cat(keep.starts[step :: self.num_steps], 1) for step in range(0, self.num_steps, every)]
        return torch.stack([*steps, ends], 1)

    def _check(self, teacher: Denoiser, frames: tuple[int, ...]) -> None:
        spec = teacher.spec.backbone
        taken = (spec.channels, spec.frame_size, spec.frame_size)
        if tuple(frames[1:]) != taken:
            raise ValueError(f"teacher must fit the latents: it takes {taken}, they are {tuple(frames[1:])}")
        if spec.attention == "causal" and spec.chunk_len != self.sampler.chunk_len:
            raise ValueError(
                f"sampler.chunk_len must be that of the causal teacher: {self.sampler.chunk_len} and "
                f"{spec.chunk_len}"
            )


class _KeepStarts:
    """A step that keeps the frames that it started from, call by call."""

    num_calls: ClassVar[int] = 2

    def __init__(self, solver: Step) -> None:
        self.solver = solver
        self.starts: list[Video] = []

    def __call__(
        self,
        schedule: Schedule,
        x_t: Video,
        t: NoiseLevel,
        t_next: NoiseLevel,
        denoise: Denoise,
        rng: torch.Generator,
    ) -> Video:
        self.starts.append(x_t)
        return self.solver(schedule, x_t, t, t_next, denoise, rng)


def _attention(teacher: Denoiser) -> str:
    return teacher.spec.backbone.attention


def _write_whole(states: States, path: Path) -> None:
    """The file is there only when all of it is."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.save(file, states.numpy())
    shutil.move(temporary, path)

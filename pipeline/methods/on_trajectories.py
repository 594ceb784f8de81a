"""Stored trajectories of a teacher's probability flow, and the rollout of a student on their frames."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Generator, Tensor

from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.schedule import Schedule
from pipeline.interfaces import NoiseLevel, Rollout, Video, whole_clips
from pipeline.models.denoiser import Denoiser
from pipeline.rules import one_of
from pipeline.unit import as_plain, write_json

ARRAY, DESCRIPTION = "trajectories.npy", "trajectories.json"
CONTEXTS = ("clean", "noisy")


@dataclass(frozen=True)
class OnTrajectories:
    """A teacher's own frames, where its flow has them at the sampler's levels; their target is where it ends.

    context: what a frame of the student sees of earlier chunks. "clean": their ends, as after a causal teacher,
    arXiv:2602.02214. "noisy": the frames of these chunks on their own trajectories, as the ODE initialisation of
    CausVid, arXiv:2412.07772, after a teacher of full attention, whose ends also depend on the frames that follow.
    """

    provides_target: ClassVar[bool] = True
    attention: ClassVar[str] = "causal"
    teacher: ClassVar[str] = "causal"
    denoised: ClassVar[str] = "each frame of a teacher's trajectories given those before it"
    context: str
    sampler: Sampler = field(default_factory=Sampler)  # of the student; its levels are those of the trajectories

    def __post_init__(self) -> None:
        one_of(CONTEXTS, context=self.context)
        if self.context == "clean" and self.sampler.context_noise > 0:
            raise ValueError(
                f"sampler.context_noise must be 0 where the context is clean, got {self.sampler.context_noise}"
            )

    @property
    def judged(self) -> str:
        """As data restored, but that the noise is the teacher's."""
        return "clips restored from a teacher's trajectories (a push-forward of them, not what the student samples)"

    def read(self, directory: Path, *, latents: str, schedule: Schedule) -> Video:
        """Stored trajectories as the clips of training: (N, T, (K+1) C, H, W), each frame with all its states.

        Raises:
            ValueError: they are of other latents, another schedule or other levels.
        """
        stored = json.loads((directory / DESCRIPTION).read_text())
        wanted = description(self.sampler, latents=latents, schedule=schedule)
        for name, value in wanted.items():
            if stored[name] != value:
                raise ValueError(
                    f"trajectories must be of the {name} of the student: {directory} has {stored[name]}, the "
                    f"student {value}"
                )
        states = torch.from_numpy(np.load(directory / ARRAY))
        return states.transpose(1, 2).flatten(2, 3)

    def rollout(self, student: Denoiser, clips: Video, *, schedule: Schedule, rng: Generator) -> Rollout:
        """Every chunk at one of the sampler's levels; `clips` are trajectories as `read` gives them."""
        return self.at_steps(student, clips, self.draw_steps(clips, rng), schedule=schedule)

    def draw_steps(self, clips: Video, rng: Generator) -> Int[Tensor, "B T"]:
        """Which of the sampler's levels, the same for the frames of a chunk."""
        chunks = self.sampler.chunks(clips.shape[1])
        chunk_lens = torch.tensor([chunk.stop - chunk.start for chunk in chunks])
        drawn = torch.randint(self.sampler.num_steps, (len(clips), len(chunks)), generator=rng)
        return drawn.repeat_interleave(chunk_lens, dim=1).to(clips.device)

    def at_steps(self, student: Denoiser, clips: Video, step: Int[Tensor, "B T"], *, schedule: Schedule) -> Rollout:
        """The rollout from these levels."""
        states = clips.unflatten(2, (self.sampler.num_steps + 1, -1))
        x_t = states.take_along_dim(step[:, :, None, None, None, None], dim=2).squeeze(2)
        t = torch.tensor(self.sampler.levels(schedule)).to(clips)[step]
        end = states[:, :, -1]

        def after_ends(network: Any, x_t: Video, t: NoiseLevel) -> Tensor:
            return network.beside(x_t, t, end)

        judge = {"clean": after_ends, "noisy": whole_clips}[self.context]

        def denoise(x_t: Video, t: NoiseLevel) -> Video:
            return judge(student, x_t, t)

        every = torch.ones_like(t)
        return Rollout(
            denoise(x_t, t), x_t, t, counts=every, target=end, denoise=denoise, judge=judge, in_context=judge
        )


def description(sampler: Sampler, *, latents: str, schedule: Schedule) -> dict[str, Any]:
    """What trajectories and the student that is trained on them must have in common."""
    levels = torch.tensor(sampler.levels(schedule)).tolist()  # as far as float32, of the networks, tells them apart
    return {"latents": latents, "schedule": as_plain(schedule), "levels": levels, "chunk_len": sampler.chunk_len}


def save_trajectories(states: np.ndarray, directory: Path, about: dict[str, Any]) -> None:
    """Write (N, K+1, T, C, H, W) float32, from the noisiest level to the ends, and what they are of."""
    directory.mkdir(parents=True, exist_ok=True)
    np.save(directory / ARRAY, states)
    write_json(directory / DESCRIPTION, about)

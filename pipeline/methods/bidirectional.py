"""Bidirectional: clips of data at one noise level, all frames denoised together under full attention."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator

from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.noise_levels import listed_levels, shared_levels
from pipeline.diffusion.schedule import Schedule, add_noise
from pipeline.interfaces import Rollout, Video
from pipeline.models.denoiser import Denoiser
from pipeline.streams import noise_like


@dataclass(frozen=True)
class Bidirectional:
    """Every frame sees every frame, at one level a clip. Video Diffusion Models, arXiv:2204.03458.

    Under a causal mask frames in lockstep would not see the clean frames that a rollout shows them. With a sampler,
    a student sees only the levels at which it will be asked.
    """

    provides_target: ClassVar[bool] = True
    attention: ClassVar[str] = "full"
    teacher: ClassVar[str] = "bidirectional"
    denoised: ClassVar[str] = "whole clips"
    judged: ClassVar[str] = (
        "clips restored from data at one noise level (what the student samples, where that level is pure noise)"
    )
    sampler: Sampler | None = None  # None: levels of the continuum; else those at which this one asks a student

    def rollout(self, student: Denoiser, clips: Video, *, schedule: Schedule, rng: Generator) -> Rollout:
        """Noise every clip to one level and denoise all frames in parallel."""
        batch, num_frames = clips.shape[:2]
        if self.sampler is None:
            t = schedule.draw(shared_levels(batch, num_frames, rng=rng))
        else:
            t = listed_levels(batch, 1, self.sampler.levels(schedule), rng=rng).repeat(1, num_frames)
        t = t.to(clips)
        x_t = add_noise(schedule, clips, noise_like(clips, rng), t)
        return Rollout(student(x_t, t), x_t, t, counts=torch.ones_like(t), target=clips, denoise=student)

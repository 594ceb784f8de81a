"""Self forcing: the student rolls itself out as it will when it samples, and its own frames are judged."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from pipeline.diffusion.autoregress import Sampler, generate
from pipeline.diffusion.schedule import Schedule
from pipeline.interfaces import NoiseLevel, Rollout, Video
from pipeline.models.denoiser import Denoiser
from pipeline.rules import one_of
from pipeline.streams import noise_like

EXIT_STEPS = ("per_clip", "per_chunk")


@dataclass(frozen=True)
class SelfForcing:
    """Frames from the student's own few-step chain over its own cached context. arXiv:2506.08009, algorithm 1.

    The gradient enters at one random step of the chain. As published it never flows through the cache: a student
    then does not see how a frame changes those after it, and settles elsewhere than at the optimum of its loss,
    where frames share parameters.
    """

    provides_target: ClassVar[bool] = False
    attention: ClassVar[str] = "causal"
    teacher: ClassVar[str] = "bidirectional"
    denoised: ClassVar[str] = "each frame given the student's own before it"
    sampler: Sampler = field(default_factory=Sampler)  # the one that evaluation samples with
    exit_step: str = "per_clip"  # one random exit step for all chunks of a clip, or one for each chunk
    detach_context: bool = True  # off: the gradient flows through the cache, at the memory of the whole rollout

    def __post_init__(self) -> None:
        one_of(EXIT_STEPS, exit_step=self.exit_step)
        if self.sampler.lag is not None:
            raise ValueError(
                f"sampler.lag must be null where a student trains on its own rollout, chunk after chunk: "
                f"{self.sampler.lag}"
            )

    @property
    def judged(self) -> str:
        """The law, and what is left out of the gradient of its divergence."""
        bias = " (the gradient stops at their context, which moves the fixed point off the optimum)"
        return f"clips that the student samples{bias if self.detach_context else ''}"

    def rollout(self, student: Denoiser, clips: Video, *, schedule: Schedule, rng: Generator) -> Rollout:
        """As many frames as the clips have, from noise; of the clips only the shape is used."""
        chunks = self.sampler.chunks(clips.shape[1])
        num_draws = len(chunks) if self.exit_step == "per_chunk" else 1
        exit_steps = torch.randint(self.sampler.num_steps, (len(clips), num_draws), generator=rng)
        made = generate(
            student,
            noise_like(clips, rng),
            schedule=schedule,
            sampler=self.sampler,
            rng=rng,
            exit_steps=exit_steps.expand(-1, len(chunks)).to(clips.device),
            detach_context=self.detach_context,
        )

        def denoise(x_t: Video, t: NoiseLevel, end: NoiseLevel | None = None) -> Video:
            ends = [None if end is None else end[:, c] for c in chunks]
            made_by_chunk = [
                student.denoise_chunk(x_t[:, c], t[:, c], cache, to)
                for c, cache, to in zip(chunks, made.caches, ends, strict=True)
            ]
            return torch.cat(made_by_chunk, dim=1)

        def in_context(network: Any, x_t: Video, t: NoiseLevel) -> Tensor:
            if network.spec.backbone.attention == "causal":
                return network.beside(x_t, t, made.x0_hat.detach())
            # Full attention has no answer to a clean past beside a noisy present that does not see the frames that
            # follow: it is asked about the whole noised clip.
            return network(x_t, t)

        every = torch.ones_like(made.t)
        return Rollout(
            made.x0_hat, made.x_t, made.t, counts=every, target=None, denoise=denoise, in_context=in_context
        )

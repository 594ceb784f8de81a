"""Every cell that runs, on networks small enough for a test."""

import dataclasses

import torch

from pipeline.diffusion.autoregress import Sampler
from pipeline.grid import Cell
from pipeline.losses import LOSSES
from pipeline.losses.loss import Loss
from pipeline.methods import METHODS
from pipeline.methods.method import Method
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec
from pipeline.training.loop import TrainingSpec, TrainState

CHUNK_LEN = 2
ATTENTION = {"causal": "causal", "bidirectional": "full"}  # of each teacher


def lively(attention, seed, *, end_level=False):
    """A denoiser no weight of which is 0."""
    sizes = {"width": 16, "depth": 1, "num_heads": 2, "chunk_len": CHUNK_LEN}
    spec = BackboneSpec(2, 2, 2, **sizes, attention=attention, end_level=end_level)
    denoiser, rng = Denoiser(DenoiserSpec(spec)), torch.Generator().manual_seed(seed)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=rng)
    return denoiser


def few_step_method(cell: Cell) -> Method:
    """The cell's method as a student's: with the levels of a sampler, where it takes one."""
    given = {"sampler": Sampler(num_steps=2, chunk_len=CHUNK_LEN), "chunk_len": CHUNK_LEN}
    taken = {field.name for field in dataclasses.fields(METHODS[cell.method])}
    return METHODS[cell.method](**{name: value for name, value in given.items() if name in taken})


def started(cell: Cell, *, num_steps: int, dtype: torch.dtype = torch.float32) -> tuple[TrainState, Loss]:
    """The cell before its first step, with critics begun from the teacher that it asks."""
    loss = LOSSES[cell.loss]()
    student = lively(cell.attention, 0, end_level=loss.needs_end_level).to(dtype)
    teacher = lively(ATTENTION[cell.teacher], 1).to(dtype) if cell.teacher else None
    torch.manual_seed(0)  # of the head of a discriminator
    critics = loss.critics(teacher).to(dtype)
    config = TrainingSpec(num_steps=num_steps, batch_size=8, report_every=1, checkpoint_every=1)
    return TrainState(student, critics, config), loss


def clips(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Latents to train on."""
    return torch.randn(32, 4, 2, 2, 2, generator=torch.Generator().manual_seed(2), dtype=dtype)

"""Every cell that runs, for two steps: what moves, and what does not."""

import dataclasses

import pytest
import torch

from pipeline.diffusion.autoregress import Sampler
from pipeline.grid import Cell, cells
from pipeline.losses import LOSSES
from pipeline.methods import METHODS
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec
from pipeline.training.loop import TrainingSpec, TrainState, train

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


def few_step_method(cell):
    """The cell's method as a student's: with the levels of a sampler, where it takes one."""
    given = {"sampler": Sampler(num_steps=2, chunk_len=CHUNK_LEN), "chunk_len": CHUNK_LEN}
    taken = {field.name for field in dataclasses.fields(METHODS[cell.method])}
    return METHODS[cell.method](**{name: value for name, value in given.items() if name in taken})


@pytest.mark.parametrize("cell", [cell for cell in cells() if not cell.excluded], ids="-".join)
def test_a_cell_trains_its_student_and_its_critics_and_leaves_its_teacher(cell: Cell):
    loss = LOSSES[cell.loss]()
    student = lively(cell.attention, 0, end_level=loss.needs_end_level)
    teacher = lively(ATTENTION[cell.teacher], 1) if cell.teacher else None
    critics = loss.critics(teacher)
    config = TrainingSpec(num_steps=2, batch_size=8, report_every=1, checkpoint_every=1)
    state = TrainState(student, critics, config)
    networks = {"student": student, "critics": critics}
    before = {name: {n: p.clone() for n, p in network.named_parameters()} for name, network in networks.items()}
    clips = torch.randn(32, 4, 2, 2, 2, generator=torch.Generator().manual_seed(2))
    for report in train(state, clips, method=few_step_method(cell), loss=loss, seed=0):
        assert report.metrics["grad_norm"] > 1e-4
    for name, network in networks.items():
        for parameter_name, parameter in network.named_parameters():
            moved = not torch.equal(parameter, before[name][parameter_name])
            assert moved == parameter.requires_grad, f"{name}: {parameter_name}"
    assert any(p.requires_grad for p in critics.parameters()) == (loss.critic_updates > 0)

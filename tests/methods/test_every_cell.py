"""Every cell that runs, for two steps: what moves, and what does not."""

import pytest

from pipeline.grid import Cell, cells
from pipeline.training.loop import train
from tests.every_cell import clips, few_step_method, started


@pytest.mark.parametrize("cell", [cell for cell in cells() if not cell.excluded], ids="-".join)
def test_a_cell_trains_its_student_and_its_critics_and_leaves_its_teacher(cell: Cell):
    state, loss = started(cell, num_steps=2)
    networks = {"student": state.student, "critics": state.critics}
    before = {name: {n: p.clone() for n, p in network.named_parameters()} for name, network in networks.items()}
    for report in train(state, clips(), method=few_step_method(cell), loss=loss, seed=0):
        assert report.metrics["grad_norm"] > 1e-4
    for name, network in networks.items():
        for parameter_name, parameter in network.named_parameters():
            moved = not parameter.equal(before[name][parameter_name])
            assert moved == parameter.requires_grad, f"{name}: {parameter_name}"
    assert any(p.requires_grad for p in state.critics.parameters()) == (loss.critic_updates > 0)

"""Three training steps of every cell, in numbers: python -m tests.golden.three_steps writes them anew.

To be written anew by the commit that means to change what a cell does, and by no other.
"""

import json
from pathlib import Path

import torch

from pipeline.grid import Cell, cells
from pipeline.training.loop import train
from tests.every_cell import clips, few_step_method, started

GOLDEN = Path(__file__).with_name("three_steps.json")
NUM_STEPS = 3


def three_steps(cell: Cell) -> dict[str, list[float]]:
    """Every metric of each step, and the size of the averaged weights after it, in float64."""
    state, loss = started(cell, num_steps=NUM_STEPS, dtype=torch.float64)
    numbers: dict[str, list[float]] = {}
    for report in train(state, clips(torch.float64), method=few_step_method(cell), loss=loss, seed=0):
        weights = torch.cat([p.flatten() for p in state.ema.average.parameters()])
        for name, value in {**report.metrics, "ema_norm": weights.norm()}.items():
            numbers.setdefault(name, []).append(value.item())
    return numbers


def main() -> None:
    torch.set_num_threads(1)
    golden = {"-".join(cell): three_steps(cell) for cell in cells() if not cell.excluded}
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What workers run in the tests of units by several of them."""

from pipeline.training.placed import Placed
from sweeps.cluster import Resources
from sweeps.on_several import run_on_several
from tests.cells import make_cell

NUM_STEPS = 6


def work(**training):
    return Placed(make_cell(num_steps=NUM_STEPS, **training), "cpu", num_workers=2)


def share(inputs, on_share):
    """A task of a trial."""
    done = run_on_several(
        "cell",
        work(batch_size=4),
        inputs,
        resources=Resources(),
        on_progress=lambda p: on_share(p.step / p.num_steps),
    )
    return str(done)

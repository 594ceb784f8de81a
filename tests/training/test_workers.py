"""Several workers: one gradient, one state, one unit, one error."""

import json
import os
import signal
import traceback
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from pipeline.losses.l2 import L2
from pipeline.models.denoiser import Denoiser, save_denoiser
from pipeline.training import cell as cell_module
from pipeline.training.loop import train
from pipeline.training.optimizer import Optimizer, OptimizerSpec
from pipeline.training.placed import Placed
from pipeline.training.workers import AveragedOptimizer, Workers, run_together
from pipeline.unit import digest_of, run_unit
from tests.cells import make_cell, make_latents

LONGEST_S = (
    300.0  # after which processes that wait for one another are taken to wait for ever; a busy machine is slow
)


def side_by_side(work, folder, *arguments, num_workers=2):
    """What `work(rank, folder, *arguments)` returns, or how it fails, in each of some processes of one group."""
    folder.mkdir(parents=True, exist_ok=True)
    context = torch.multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_serve, args=(rank, num_workers, work, folder, arguments), daemon=True)
        for rank in range(num_workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LONGEST_S)
        assert process.exitcode is not None, "the workers wait for one another"
    return [json.loads((folder / f"said_{rank}.json").read_text()) for rank in range(num_workers)]


def _serve(rank, num_workers, work, folder, arguments):
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'store'}"
    dist.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=num_workers, timeout=timedelta(seconds=LONGEST_S)
    )
    try:
        said = {"result": work(rank, folder, *arguments)}
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    (folder / f"said_{rank}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


def step_on_half(rank, folder):
    """One update of a linear model on half of a batch."""
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 2), torch.randn(8, 3), torch.randn(8, 2)
    optimizer = AveragedOptimizer(Optimizer(OptimizerSpec(), model), Workers(2, "cpu"))
    half = slice(4 * rank, 4 * rank + 4)
    loss = (model(x[half]) - y[half]).square().mean()
    norm = optimizer.update(torch.autograd.grad(loss, optimizer.parameters), factor=1.0)
    return {"norm": norm.item(), "weight": model.weight.tolist(), "bias": model.bias.tolist()}


@pytest.mark.slow
def test_a_step_of_two_halves_is_that_of_the_whole_batch(tmp_path):
    said = [one["result"] for one in side_by_side(step_on_half, tmp_path / "group")]
    assert said[0] == said[1]
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 2), torch.randn(8, 3), torch.randn(8, 2)
    optimizer = Optimizer(OptimizerSpec(), model)
    loss = (model(x) - y).square().mean()
    norm = optimizer.update(torch.autograd.grad(loss, optimizer.parameters), factor=1.0)
    assert said[0]["norm"] == pytest.approx(norm.item(), rel=1e-6)
    assert np.allclose(said[0]["weight"], model.weight.detach(), atol=1e-6)


def placed(loss="l2", **training):
    return Placed(make_cell("diffusion_forcing", loss, num_steps=10, **training), "cpu", num_workers=2)


def make(rank, folder, inputs, work, stop_at=None):
    """The unit, where its process is not stopped first; and what this process knows of its training."""
    os.environ["FORCING_GRID_WORK"] = str(folder.parent / "work")
    states, seeds = [], []

    def watched(state, *given, **options):
        seeds.append(options["seed"])
        for report in train(state, *given, **options):
            states.append({name: float(tensor.double().sum()) for name, tensor in state.tensors().items()})
            yield report

    def listen(progress):
        if stop_at is not None and progress.step >= stop_at and progress.metrics:
            raise InterruptedError("stopped here")

    cell_module.train = watched
    unit = run_together("cell", work, inputs, on_progress=listen)
    return {"unit": str(unit), "states": states, "seeds": seeds}


@pytest.fixture
def inputs(tmp_path):
    return {"codec": make_latents(tmp_path / "codec")}


@pytest.fixture
def teacher(tmp_path, inputs):
    torch.manual_seed(1)
    latents = digest_of(inputs["codec"] / "codec.json")
    save_denoiser(Denoiser(make_cell(attention="full").denoiser), tmp_path / "teacher", latents=latents)
    return {**inputs, "teacher": tmp_path / "teacher"}


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["l2", "gan"])
def test_both_workers_hold_the_same_state_after_every_step(loss, tmp_path, teacher, monkeypatch):
    work = placed(loss, muon=False)  # whose own products every worker repeats
    first, second = (one["result"] for one in side_by_side(make, tmp_path / "group", teacher, work))
    assert len(first["states"]) == 10
    assert first["seeds"] != second["seeds"]  # the clips of each are its own
    assert first["states"] == second["states"]
    assert second["unit"] == "None"
    unit = Path(first["unit"])
    monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path / "alone"))
    alone = run_unit("cell", work.work, teacher)
    metrics, plain = (json.loads((path / "metrics.json").read_text()) for path in (unit, alone))
    assert metrics["clips_seen"] == plain["clips_seen"]
    assert metrics["flops"] == plain["flops"]
    assert len((unit / "curve.jsonl").read_text().splitlines()) == 5


@pytest.mark.slow
def test_an_interrupted_unit_of_two_workers_ends_bit_identical(tmp_path, inputs):
    whole = side_by_side(make, tmp_path / "whole" / "group", inputs, placed())
    broken = tmp_path / "broken"
    for count, stop_at in enumerate((2, 6)):
        stopped = side_by_side(make, broken / f"group_{count}", inputs, placed(), stop_at)
        assert stopped[0]["error"] == "InterruptedError: stopped here"
        assert stopped[1]["error"] == "RuntimeError: worker 0 left before the last step"
    again = side_by_side(make, broken / "group", inputs, placed())
    assert len(again[1]["result"]["states"]) == 6  # from the checkpoint of step 4, which only rank 0 could read
    expected, found = (Path(one[0]["result"]["unit"]) for one in (whole, again))
    for name in ("out/student.safetensors", "metrics.json", "curve.jsonl"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    third = side_by_side(make, broken / "finished", inputs, placed())
    assert [one["result"]["states"] for one in third] == [[], []]


def make_with_nan(rank, folder, inputs, work, step):
    """Worker 1 meets a loss that is not finite."""
    finite, calls = L2.student_loss, []

    def broken(loss, *given, **options):
        calls.append(None)
        value = finite(loss, *given, **options)
        return value * float("nan") if rank == 1 and len(calls) == step + 1 else value

    L2.student_loss = broken
    return make(rank, folder, inputs, work)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_worker_ends_both(tmp_path, inputs):
    said = side_by_side(make_with_nan, tmp_path / "group", inputs, placed(), 5)
    for one in said:
        assert one["error"].startswith("FloatingPointError: "), one
        assert "student_loss is nan at step 5" in one["error"]
    assert "worker 1" in said[0]["error"]
    assert "last good: checkpoint of step 4" in said[0]["error"]


def make_without_memory(rank, folder, inputs, work):
    """Worker 1 fails otherwise."""

    def broken(loss, *given, **options):
        raise MemoryError("no room")

    if rank == 1:
        L2.student_loss = broken
    return make(rank, folder, inputs, work)


@pytest.mark.slow
def test_any_failure_of_one_worker_ends_both(tmp_path, inputs):
    said = side_by_side(make_without_memory, tmp_path / "group", inputs, placed())
    assert said[0]["error"] == "RuntimeError: worker 1: MemoryError: no room"
    assert said[1]["error"] == "MemoryError: no room"


def make_and_die(rank, folder, inputs, work):
    """Worker 1 is killed, and can tell nobody."""

    def killed(loss, *given, **options):
        os.kill(os.getpid(), signal.SIGKILL)

    if rank == 1:
        L2.student_loss = killed
    return make(rank, folder, inputs, work)


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_other(tmp_path, inputs):
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "said_1.json").write_text("null")
    first, second = side_by_side(make_and_die, tmp_path / "group", inputs, placed())
    assert "RuntimeError" in first["error"]
    assert second is None
    assert not list((tmp_path / "work").rglob("metrics.json"))


def make_with_other_inputs(rank, folder, inputs, work):
    """Worker 1 cannot even begin."""
    return make(rank, folder, {"codec": folder / "nowhere"} if rank == 1 else inputs, work)


@pytest.mark.slow
def test_a_worker_that_cannot_begin_ends_both(tmp_path, inputs):
    said = side_by_side(make_with_other_inputs, tmp_path / "group", inputs, placed())
    assert "worker 1: FileNotFoundError" in said[0]["error"]
    assert "FileNotFoundError" in said[1]["error"]


@pytest.mark.slow
def test_what_the_first_worker_is_refused_ends_the_others_at_once(tmp_path, inputs):
    missing = {**inputs, "init": tmp_path / "nowhere"}
    said = side_by_side(make, tmp_path / "group", missing, placed())
    assert "an input of a unit must exist" in said[0]["error"]
    assert said[1]["result"]["states"] == []


def test_several_workers_need_a_group(inputs, work_root):
    with pytest.raises(ValueError, match="num_workers must be the size of the process group, got 2 and 1"):
        run_unit("cell", placed(), inputs)

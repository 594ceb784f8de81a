"""A training unit: it learns, resumes bit by bit, waits for another writer, and refuses what does not fit."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.diffusion.noise_levels import Shared
from pipeline.models.denoiser import Denoiser, save_denoiser
from pipeline.training.optimizer import OptimizerSpec
from pipeline.unit import digest_of, run_unit
from tests.cells import BACKBONE, make_cell, make_latents


@pytest.fixture
def codec(tmp_path):
    return make_latents(tmp_path / "codec")


@pytest.fixture
def teacher(tmp_path, codec):
    torch.manual_seed(1)
    denoiser = Denoiser(make_cell(attention="full").denoiser)
    save_denoiser(denoiser, tmp_path / "teacher", latents=digest_of(codec / "codec.json"))
    return tmp_path / "teacher"


CELLS = [
    ("diffusion_forcing", "l2"),
    ("diffusion_forcing", "dmd"),
    ("diffusion_forcing", "gan"),
    ("self_forcing", "dmd"),
    ("self_forcing", "gan"),
    ("diffusion_forcing", "consistency_training"),
    ("diffusion_forcing", "pagoda"),
]


def read_curve(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Killed(BaseException):
    """Nothing in the library may catch it."""


def kill_at(step):
    def listen(progress):
        if progress.step >= step and progress.metrics:
            raise Killed

    return listen


@pytest.mark.parametrize(("method", "loss"), CELLS)
def test_an_interrupted_cell_ends_bit_identical(method, loss, codec, teacher, tmp_path, monkeypatch):
    cell, inputs = make_cell(method, loss), {"codec": codec, "teacher": teacher}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    monkeypatch.setenv("FORCING_GRID_WORK", str(whole))
    expected = run_unit("cell", cell, inputs)
    monkeypatch.setenv("FORCING_GRID_WORK", str(broken))
    for step in (2, 6, 10):  # before the first checkpoint, after it, after the second
        with pytest.raises(Killed):
            run_unit("cell", cell, inputs, on_progress=kill_at(step))
    found = run_unit("cell", cell, inputs)
    for name in ("out/student.safetensors", "metrics.json", "curve.jsonl"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    assert not (found / "checkpoints").exists()


def test_a_finished_cell_is_returned_without_training(codec, work_root, monkeypatch):
    first = run_unit("cell", make_cell(), {"codec": codec})
    monkeypatch.setattr("pipeline.training.cell.train", None)
    assert run_unit("cell", make_cell(), {"codec": codec}) == first


@pytest.mark.parametrize(
    "changed",
    [
        lambda cell: dataclasses.replace(cell, seed=1),
        lambda cell: dataclasses.replace(cell, num_threads=2),
        lambda cell: dataclasses.replace(cell, training=dataclasses.replace(cell.training, batch_size=9)),
        lambda cell: dataclasses.replace(cell, method=dataclasses.replace(cell.method, noise_levels=Shared())),
    ],
)
def test_changed_parameters_never_meet_an_old_result(changed, codec, work_root):
    first = run_unit("cell", make_cell(), {"codec": codec})
    second = run_unit("cell", changed(make_cell()), {"codec": codec})
    assert second != first
    assert (second / "out" / "student.safetensors").exists()


def test_changed_inputs_never_meet_an_old_result(codec, work_root):
    first = run_unit("cell", make_cell(), {"codec": codec})
    clips = np.load(codec / "train.npy")
    clips[0, 0, 0, 0, 0] += 1e-3
    np.save(codec / "train.npy", clips)
    assert run_unit("cell", make_cell(), {"codec": codec}) != first


def count_rows(root):
    """Of all curves; what comes and goes beside them is not looked at."""
    return sum(len(curve.read_text().splitlines()) for curve in root.glob("cell/*/curve.jsonl"))


@pytest.mark.slow
def test_sigkill_at_any_moment_then_again_ends_bit_identical(codec, tmp_path):
    """The real thing: a process of its own, killed while it trains, several times."""
    script = (
        "import sys; from pathlib import Path; from pipeline.unit import run_unit\n"
        "from tests.cells import make_cell\n"
        "cell = make_cell(num_steps=400, report_every=1, checkpoint_every=5)\n"
        "print(run_unit('cell', cell, {'codec': Path(sys.argv[1])}), flush=True)"
    )

    def start(root):
        env = {**os.environ, "FORCING_GRID_WORK": str(root)}
        command = [sys.executable, "-c", script, str(codec)]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)

    expected = start(tmp_path / "whole").communicate(timeout=120)[0].strip()
    broken = tmp_path / "broken"
    for rows in (1, 23, 98, 99):
        child = start(broken)
        while child.poll() is None and count_rows(broken) < rows:
            time.sleep(0.005)
        assert child.poll() is None, "the unit ended before it could be killed"
        child.send_signal(signal.SIGKILL)
        child.wait()
    found = start(broken).communicate(timeout=120)[0].strip()
    for name in ("out/student.safetensors", "metrics.json", "curve.jsonl"):
        assert digest_of(tmp_path.joinpath(found, name)) == digest_of(tmp_path.joinpath(expected, name)), name


@pytest.mark.slow
def test_two_starts_of_one_unit_wait_for_each_other(codec, tmp_path):
    script = (
        "import sys; from pathlib import Path; from pipeline.unit import run_unit\n"
        "from tests.cells import make_cell\n"
        "print(run_unit('cell', make_cell(num_steps=60), {'codec': Path(sys.argv[1])}), flush=True)"
    )
    env = {**os.environ, "FORCING_GRID_WORK": str(tmp_path / "work")}
    command = [sys.executable, "-c", script, str(codec)]
    children = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [child.communicate(timeout=120)[0].strip() for child in children]
    assert outputs[0] == outputs[1]
    steps = [row["step"] for row in read_curve(tmp_path / outputs[0] / "curve.jsonl")]
    assert steps == list(range(2, 61, 2))  # every row once: only one of them trained


def test_a_cell_lowers_its_loss_on_data_that_can_be_learnt(codec, work_root):
    rate = OptimizerSpec(name="adamw", learning_rate=1e-2)
    cell = make_cell(num_steps=150, report_every=10, checkpoint_every=1_000, optimizer=rate, batch_size=32)
    curve = read_curve(run_unit("cell", cell, {"codec": codec}) / "curve.jsonl")
    assert curve[-1]["student_loss"] < 0.75 * curve[0]["student_loss"]


def test_the_cost_counts_every_update(codec, teacher, work_root):
    cell = make_cell("diffusion_forcing", "dmd")
    metrics = json.loads(
        (run_unit("cell", cell, {"codec": codec, "teacher": teacher}) / "metrics.json").read_text()
    )
    assert metrics["student_updates"] == 12
    assert metrics["critic_updates"] == 12 * 5
    assert metrics["clips_seen"] == 8 * (12 + 12 * 5)
    plain = json.loads((run_unit("cell", make_cell(), {"codec": codec}) / "metrics.json").read_text())
    assert metrics["flops"] > 4 * plain["flops"] > 0


def test_a_loss_that_is_not_finite_stops_and_says_where(codec, work_root):
    clips = np.load(codec / "train.npy")
    clips[:] = np.nan
    np.save(codec / "train.npy", clips)
    says = r"student_loss is nan at step 0; last good: there is no checkpoint yet; look at learning_rate"
    with pytest.raises(FloatingPointError, match=says):
        run_unit("cell", make_cell(batch_size=64), {"codec": codec})


def test_an_explosion_names_the_last_good_checkpoint(codec, work_root):
    rate = OptimizerSpec(name="adamw", learning_rate=1e30, warmup_steps=0, max_grad_norm=1e30)
    says = r"student_loss is .* at step \d+.*; last good: checkpoint of step (\d+) in (\S+);"
    with pytest.raises(FloatingPointError, match=says) as error:
        run_unit("cell", make_cell(optimizer=rate, report_every=1, checkpoint_every=1), {"codec": codec})
    found = re.search(says, str(error.value))
    path = Path(found[2], "checkpoints", f"{int(found[1]):09d}", "tensors.safetensors")
    assert all(tensor.isfinite().all() for tensor in load_file(path).values())


def test_a_teacher_of_other_latents_is_refused(codec, teacher, work_root, tmp_path):
    (codec / "codec.json").write_text('{"another": 1}')
    with pytest.raises(ValueError, match="must speak the latents of the codec"):
        run_unit("cell", make_cell(loss="dmd"), {"codec": codec, "teacher": teacher})


def test_what_does_not_fit_is_refused(codec, teacher, work_root):
    with pytest.raises(ValueError, match="Dmd needs a teacher"):
        run_unit("cell", make_cell(loss="dmd"), {"codec": codec})
    cell = make_cell()
    wide = dataclasses.replace(cell.denoiser, backbone=dataclasses.replace(BACKBONE, width=32))
    with pytest.raises(ValueError, match=r"backbone.width must be that of the student .*: 32 here, 16 in"):
        run_unit("cell", dataclasses.replace(cell, denoiser=wide), {"codec": codec, "init": teacher})
    pixels = dataclasses.replace(cell.denoiser, backbone=dataclasses.replace(BACKBONE, channels=1))
    with pytest.raises(ValueError, match="backbone must fit the latents"):
        run_unit("cell", dataclasses.replace(cell, denoiser=pixels), {"codec": codec})


def test_a_method_of_full_attention_refuses_a_causal_student():
    with pytest.raises(ValueError, match=r"backbone.attention must be full under Bidirectional, got causal"):
        make_cell("bidirectional", attention="causal")

"""Rollouts on stored trajectories: what is drawn, what a frame sees, what is refused, and the cell on them."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.schedule import FlowMatching
from pipeline.diffusion.weighting import PredictionL2
from pipeline.losses.l2 import L2
from pipeline.methods.method import Method, StoredMethod
from pipeline.methods.on_trajectories import OnTrajectories, description, save_trajectories
from pipeline.models.denoiser import Denoiser
from pipeline.unit import digest_of, run_unit
from tests.cells import make_cell, make_latents

SCHEDULE, FEW = FlowMatching(), Sampler(num_steps=3)
LEVELS = (1.0, 2 / 3, 1 / 3, 0.0)


def lively(chunk_len=1):
    torch.manual_seed(0)
    spec = make_cell().denoiser
    denoiser = Denoiser(dataclasses.replace(spec, backbone=dataclasses.replace(spec.backbone, chunk_len=chunk_len)))
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return denoiser


def stored(directory, latents="latents", sampler=FEW, num_clips=32):
    """Trajectories whose ends are a linear function of the frames at every level."""
    end = 0.5 * np.random.default_rng(0).normal(size=(num_clips, 1, 4, 2, 2, 2)).astype(np.float32)
    states = np.concatenate([(1 + level) * end for level in LEVELS], 1)
    save_trajectories(states, directory, description(sampler, latents=latents, schedule=SCHEDULE))
    return states


@pytest.mark.parametrize("context", ["clean", "noisy"])
def test_every_frame_is_where_its_trajectory_has_it_at_its_level(context, tmp_path, rng):
    states = torch.from_numpy(stored(tmp_path))
    method = OnTrajectories(context, FEW)
    clips = method.read(tmp_path, latents="latents", schedule=SCHEDULE)
    assert clips.shape == (32, 4, 8, 2, 2)
    rollout = method.rollout(lively(), clips, schedule=SCHEDULE, rng=rng)
    assert rollout.target is not None
    assert torch.equal(rollout.target, states[:, -1])
    assert torch.allclose(rollout.x_t, (1 + rollout.t)[:, :, None, None, None] * rollout.target)
    found, counts = rollout.t.unique(return_counts=True)
    assert found.tolist() == pytest.approx(sorted(LEVELS[:3]))
    assert (counts > 128 / 3 / 2).all()  # all alike, by 5 standard deviations
    assert not (rollout.t[:, :1] == rollout.t).all()  # of its own for each chunk


def test_the_frames_of_a_chunk_share_a_level(tmp_path, rng):
    sampler = dataclasses.replace(FEW, chunk_len=2)
    stored(tmp_path, sampler=sampler)
    method = OnTrajectories("noisy", sampler)
    clips = method.read(tmp_path, latents="latents", schedule=SCHEDULE)
    t = method.rollout(lively(2), clips, schedule=SCHEDULE, rng=rng).t
    assert torch.equal(t[:, 0], t[:, 1])
    assert torch.equal(t[:, 2], t[:, 3])
    assert not torch.equal(t[:, 0], t[:, 2])


def test_the_context_is_clean_or_as_noisy_as_it_is(tmp_path, rng):
    stored(tmp_path)
    student = lively()
    for context in ("clean", "noisy"):
        method = OnTrajectories(context, FEW)
        clips = method.read(tmp_path, latents="latents", schedule=SCHEDULE)
        rollout = method.rollout(student, clips, schedule=SCHEDULE, rng=rng)
        cache = None
        for frame in range(4):
            here = slice(frame, frame + 1)
            alone = student.denoise_chunk(rollout.x_t[:, here], rollout.t[:, here], cache)
            assert torch.allclose(rollout.x0_hat[:, here], alone, atol=1e-5)
            seen = rollout.target if context == "clean" else rollout.x_t
            level = torch.zeros_like(rollout.t) if context == "clean" else rollout.t
            cache = student.extend(cache, seen[:, here], level[:, here], window=4)
        for answer in (rollout.denoise, lambda x, t, r=rollout: r.in_context(student, x, t)):
            assert torch.equal(answer(rollout.x_t, rollout.t), rollout.x0_hat)


def test_it_is_a_method_of_the_loop_that_no_axis_names():
    method = OnTrajectories("clean")
    assert isinstance(method, Method)
    assert isinstance(method, StoredMethod)
    assert not isinstance(make_cell().method, StoredMethod)


@pytest.mark.parametrize(
    ("student", "says"),
    [
        ({"latents": "others"}, "of the latents of the student: .* has latents, the student others"),
        ({"schedule": FlowMatching(shift=2.0)}, "of the schedule of the student: .*'shift': 1.0.*'shift': 2.0"),
        ({"sampler": Sampler(num_steps=2)}, r"of the levels of the student: .*, the student \[1.0, 0.5\]"),
        ({"sampler": dataclasses.replace(FEW, chunk_len=2)}, "of the chunk_len of the student: .* has 1, .* 2"),
    ],
)
def test_trajectories_of_something_else_are_refused(student, says, tmp_path):
    stored(tmp_path)
    fields = {"latents": "latents", "schedule": SCHEDULE, "sampler": FEW, **student}
    method = OnTrajectories("noisy", fields.pop("sampler"))
    with pytest.raises(ValueError, match=says):
        method.read(tmp_path, **fields)


def test_impossible_contexts_are_refused():
    with pytest.raises(ValueError, match="context must be one of clean, noisy, got 'none'"):
        OnTrajectories("none")
    with pytest.raises(ValueError, match=r"sampler.context_noise must be 0 where the context is clean, got 0.1"):
        OnTrajectories("clean", Sampler(context_noise=0.1))


def regression_cell(context, **training):
    cell = make_cell(muon=False, **training)
    loss = L2(PredictionL2("x0"))
    return dataclasses.replace(cell, method=OnTrajectories(context, FEW), loss=loss)


@pytest.mark.parametrize("context", ["clean", "noisy"])
def test_regression_is_a_cell_of_the_loop_and_is_learnt(context, tmp_path, work_root):
    codec = make_latents(tmp_path / "codec")
    stored(tmp_path / "stored", digest_of(codec / "codec.json"), num_clips=64)
    inputs = {"codec": codec, "trajectories": tmp_path / "stored"}
    cell = regression_cell(context, num_steps=60, report_every=10, checkpoint_every=1000, batch_size=32)
    cell = dataclasses.replace(
        cell,
        training=dataclasses.replace(
            cell.training, optimizer=dataclasses.replace(cell.training.optimizer, learning_rate=1e-2)
        ),
    )
    unit = run_unit("cell", cell, inputs)
    curve = [json.loads(line)["student_loss"] for line in (unit / "curve.jsonl").read_text().splitlines()]
    assert curve[-1] < 0.5 * curve[0]
    metrics = json.loads((unit / "metrics.json").read_text())
    assert metrics["cell"]["method"] == "OnTrajectories"


def test_the_loss_is_the_plain_error_of_x0_at_every_level(tmp_path, rng):
    stored(tmp_path)
    method = OnTrajectories("noisy", FEW)
    clips = method.read(tmp_path, latents="latents", schedule=SCHEDULE)
    rollout, loss = method.rollout(lively(), clips, schedule=SCHEDULE, rng=rng), L2(PredictionL2("x0"))
    value = loss.student_loss(rollout, clips, torch.nn.Module(), schedule=SCHEDULE, rng=rng)
    assert value.item() == pytest.approx((rollout.x0_hat - rollout.target).square().mean().item(), rel=1e-5)


def test_a_cell_on_trajectories_without_them_is_refused(tmp_path, work_root):
    codec = make_latents(tmp_path / "codec")
    with pytest.raises(ValueError, match="OnTrajectories needs trajectories, and the unit has no such input"):
        run_unit("cell", regression_cell("clean"), {"codec": codec})

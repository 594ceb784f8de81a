"""Trajectories of a teacher: those of exact Gaussian ones, of networks, interrupted, and refused."""

import json

import numpy as np
import pytest
import torch

from pipeline.diffusion.autoregress import Sampler, generate
from pipeline.diffusion.schedule import FlowMatching
from pipeline.diffusion.trajectory import Euler, Heun
from pipeline.models.denoiser import Denoiser, save_denoiser
from pipeline.training.trajectories import MakeTrajectories
from pipeline.unit import digest_of, run_unit
from tests.cells import make_cell, make_latents
from tests.gaussian_teachers import SCHEDULE, AfterClean, WholeClips

COV = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
FEW = Sampler(num_steps=4)


def unexplained(target, *seen):
    """The variance of `target` that no linear function of `seen` explains."""
    columns = torch.stack([part.flatten() for part in seen], 1).double()
    fit = torch.linalg.lstsq(columns, target.flatten().double()[:, None]).solution
    return (target.flatten() - (columns @ fit).flatten()).square().mean().item()


def gaussian_states(teacher, attention, rng, num_clips=20_000):
    work = MakeTrajectories(FEW, num_steps=64, num_clips=num_clips)
    noise = torch.randn(num_clips, 2, 1, 1, 1, generator=rng)
    return work.states(teacher, noise, SCHEDULE, attention)


def test_the_flow_of_whole_clips_is_the_root_of_their_covariance(rng):
    """x_0 = C^(1/2) eps, whatever the path: a causal student who sees eps_1 alone is left with b^2 = .2."""
    states = gaussian_states(WholeClips(COV), "full", rng)
    noise, end = states[:, 0, :, 0, 0, 0].double(), states[:, -1, :, 0, 0, 0].double()
    a, b = (1.8**0.5 + 0.2**0.5) / 2, (1.8**0.5 - 0.2**0.5) / 2
    root = torch.tensor([[a, b], [b, a]], dtype=torch.float64)
    assert (end - noise @ root).abs().max() < 2e-2
    assert unexplained(end[:, 0], noise[:, 0]) == pytest.approx(0.2, rel=0.03)
    assert unexplained(end[:, 0], noise[:, 0], noise[:, 1]) < 1e-4


def test_after_a_causal_teacher_the_frames_before_and_the_noise_say_all(rng):
    states = gaussian_states(AfterClean(COV), "causal", rng)
    noise, end = states[:, 0, :, 0, 0, 0], states[:, -1, :, 0, 0, 0]
    assert torch.allclose(end[:, 0], noise[:, 0], atol=1e-2)
    assert torch.allclose(end[:, 1], 0.8 * end[:, 0] + 0.6 * noise[:, 1], atol=2e-2)
    assert unexplained(end[:, 0], noise[:, 0]) < 1e-4
    assert unexplained(end[:, 1], noise[:, 1], end[:, 0]) < 1e-4


@pytest.mark.parametrize("level", [1, 2, 3])
def test_states_have_the_law_of_data_noised_to_the_levels_of_the_sampler(level, rng):
    t = FEW.levels(SCHEDULE)[level]
    for teacher, attention in ((WholeClips(COV), "full"), (AfterClean(COV), "causal")):
        state = gaussian_states(teacher, attention, rng)[:, level, :, 0, 0, 0].T
        variance = (1 - t) ** 2 + t**2
        assert torch.cov(state)[0, 0].item() == pytest.approx(variance, rel=0.04)
        assert torch.cov(state)[1, 1].item() == pytest.approx(variance, rel=0.04)


@pytest.fixture
def codec(tmp_path):
    return make_latents(tmp_path / "codec")


def make_teacher(directory, codec, attention="full"):
    torch.manual_seed(1)
    teacher = Denoiser(make_cell(attention=attention).denoiser)
    for parameter in teacher.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_denoiser(teacher, directory / attention, latents=digest_of(codec / "codec.json"))
    return directory / attention, teacher.eval().requires_grad_(False)


@pytest.mark.parametrize("attention", ["full", "causal"])
def test_what_is_stored_is_what_the_generation_procedure_makes(attention, codec, tmp_path, work_root):
    path, teacher = make_teacher(tmp_path, codec, attention)
    work = MakeTrajectories(FEW, solver="heun", num_steps=8, num_clips=6, batch_size=4)
    found = run_unit("trajectories", work, {"codec": codec, "teacher": path}) / "out"
    states = torch.from_numpy(np.load(found / "trajectories.npy"))
    assert states.shape == (6, 5, 4, 2, 2, 2)
    fine = Sampler(num_steps=8, step=Heun(), chunk_len=4 if attention == "full" else 1)
    made = generate(teacher, states[:, 0], schedule=FlowMatching(), sampler=fine, rng=torch.Generator())
    assert torch.allclose(made.x0_hat, states[:, -1], atol=1e-5)
    about = json.loads((found / "trajectories.json").read_text())
    assert about["levels"] == [1.0, 0.75, 0.5, 0.25]
    assert about["attention"] == attention


def test_without_a_finer_grid_a_stored_state_is_one_step_from_the_next(codec, tmp_path, rng):
    _, teacher = make_teacher(tmp_path, codec)
    work = MakeTrajectories(FEW, solver="euler", num_steps=4, num_clips=3)
    states = work.states(teacher, torch.randn(3, 4, 2, 2, 2, generator=rng), FlowMatching(), "full")
    for step, (t, t_next) in enumerate([(1.0, 0.75), (0.75, 0.5), (0.5, 0.25), (0.25, 0.0)]):
        at, to = torch.full((3, 4), t), torch.full((3, 4), t_next)
        with torch.no_grad():
            expected = Euler()(FlowMatching(), states[:, step], at, to, teacher, rng)
        assert torch.allclose(states[:, step + 1], expected, atol=1e-6)


class Killed(BaseException):
    """Nothing in the library may catch it."""


def test_interrupted_trajectories_end_the_same_and_no_batch_is_made_twice(codec, tmp_path, monkeypatch):
    path, _ = make_teacher(tmp_path, codec)
    inputs = {"codec": codec, "teacher": path}
    work = MakeTrajectories(FEW, num_steps=4, num_clips=10, batch_size=4)
    monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path / "whole"))
    expected = run_unit("trajectories", work, inputs)

    def kill(progress):
        if progress.step == 2:
            raise Killed

    monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path / "broken"))
    with pytest.raises(Killed):
        run_unit("trajectories", work, inputs, on_progress=kill)
    made, states = [], MakeTrajectories.states
    monkeypatch.setattr(MakeTrajectories, "states", lambda *given: made.append(1) or states(*given))
    found = run_unit("trajectories", work, inputs)
    assert len(made) == 1
    assert digest_of(found / "out") == digest_of(expected / "out")
    assert not (found / "checkpoints").exists()


def test_held_out_trajectories_start_from_other_noise(codec, tmp_path, work_root):
    path, _ = make_teacher(tmp_path, codec)
    made = []
    for split in ("train", "heldout"):
        work = MakeTrajectories(FEW, num_steps=4, num_clips=4, split=split)
        unit = run_unit("trajectories", work, {"codec": codec, "teacher": path})
        made.append(np.load(unit / "out" / "trajectories.npy"))
    assert not np.isclose(made[0], made[1]).any(axis=(1, 2, 3, 4, 5)).all()
    assert abs(np.corrcoef(made[0][:, 0].ravel(), made[1][:, 0].ravel())[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_steps": 6}, "num_steps must be a multiple of sampler.num_steps, whose levels are kept: 6 and 4"),
        ({"num_steps": 0}, "num_steps must be a multiple of sampler.num_steps, whose levels are kept: 0 and 4"),
        ({"solver": "ddpm"}, "solver must be one of euler, heun, got 'ddpm'"),
        ({"split": "test"}, "split must be one of train, heldout, got 'test'"),
        ({"num_clips": 0}, "num_clips must be at least 1, got 0"),
        ({"sampler": Sampler(lag=1)}, "sampler.lag must be null, chunk after finished chunk, got 1"),
    ],
)
def test_impossible_trajectories_are_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        MakeTrajectories(**{"sampler": FEW, **fields})


def test_a_teacher_that_does_not_fit_is_refused(codec, tmp_path, work_root):
    work = MakeTrajectories(FEW, num_steps=4, num_clips=4)
    path, _ = make_teacher(tmp_path, codec, "causal")
    chunky = MakeTrajectories(Sampler(chunk_len=2), num_steps=4, num_clips=4)
    with pytest.raises(ValueError, match=r"sampler.chunk_len must be that of the causal teacher: 2 and 1"):
        run_unit("trajectories", chunky, {"codec": codec, "teacher": path})
    np.save(codec / "train.npy", np.zeros((4, 4, 3, 2, 2), np.float32))
    with pytest.raises(
        ValueError, match=r"teacher must fit the latents: it takes \(2, 2, 2\), they are \(3, 2, 2\)"
    ):
        run_unit("trajectories", work, {"codec": codec, "teacher": path})
    (codec / "codec.json").write_text('{"another": 1}')
    with pytest.raises(ValueError, match="must speak the latents of the codec"):
        run_unit("trajectories", work, {"codec": codec, "teacher": path})

"""What regression leaves on Gaussian trajectories: of the best answers, and of networks that were trained."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.weighting import PredictionL2
from pipeline.evaluation.regression_residual import RegressionResidual, Residuals
from pipeline.losses.l2 import L2
from pipeline.methods.on_trajectories import OnTrajectories, description, save_trajectories
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec
from pipeline.training.init import Setting
from pipeline.training.loop import TrainingSpec
from pipeline.training.optimizer import OptimizerSpec
from pipeline.training.trajectories import MakeTrajectories
from pipeline.unit import digest_of, run_unit
from tests.gaussian_teachers import SCHEDULE, AfterClean, WholeClips

COV = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
FEW = Sampler(num_steps=2)
TEACHERS = {"noisy": (WholeClips(COV), "full"), "clean": (AfterClean(COV), "causal")}


def trajectories(context, num_clips, seed=0):
    teacher, attention = TEACHERS[context]
    noise = torch.randn(num_clips, 2, 1, 1, 1, generator=torch.Generator().manual_seed(seed))
    return MakeTrajectories(FEW, num_steps=32).states(teacher, noise, SCHEDULE, attention)


def first_frame_residual(t):
    """Var(end_1 | frame 1 at t) of whole clips: the frames at t are sqrt(alpha^2 C + sigma^2) eps."""
    values, vectors = torch.linalg.eigh(COV)
    root = vectors @ torch.diag(((1 - t) ** 2 * values + t**2).sqrt()) @ vectors.T
    end = vectors @ torch.diag(values.sqrt()) @ vectors.T
    return (1 - (end[0] @ root[0]) ** 2 / (root[0] @ root[0])).item()


def test_of_a_first_frame_a_fifth_cannot_be_known():
    assert first_frame_residual(1.0) == pytest.approx(0.2, abs=1e-12)
    assert first_frame_residual(0.0) == pytest.approx(0.0, abs=1e-12)


class BestOfFirst(Denoiser):
    """E[end_1 | frame 1], the same for both frames: fitted on other trajectories, at each level."""

    def __init__(self, context):
        nn.Module.__init__(self)
        states = trajectories(context, 20_000, seed=1)[:, :, 0, 0, 0, 0]
        self.gains = {
            t: (states[:, index] @ states[:, -1] / states[:, index].square().sum()).item()
            for index, t in enumerate(FEW.levels(SCHEDULE))
        }

    def forward(self, x_t, t, end=None):
        gain = torch.stack([g * (t == level) for level, g in self.gains.items()]).sum(0)
        return gain[:, :, None, None, None] * x_t

    def beside(self, x_t, t, context, end=None):
        return self(x_t, t)


@pytest.mark.parametrize("context", ["noisy", "clean"])
def test_the_best_answer_leaves_what_cannot_be_known(context):
    clips = trajectories(context, 8_000).transpose(1, 2).flatten(2, 3)
    work = RegressionResidual(OnTrajectories(context, FEW))
    residuals = work.measure(BestOfFirst(context), clips, SCHEDULE, 0)
    for t in FEW.levels(SCHEDULE):
        found = residuals.share[:, 0][residuals.t[:, 0] == t].mean().item()
        assert found == pytest.approx(first_frame_residual(t) if context == "noisy" else 0.0, rel=0.06, abs=1e-3)


def test_every_frame_is_asked_at_every_level_once():
    clips = trajectories("clean", 300).transpose(1, 2).flatten(2, 3)
    work, student = RegressionResidual(OnTrajectories("clean", FEW)), BestOfFirst("clean")
    levels = torch.stack([work.measure(student, clips, SCHEDULE, turn).t for turn in range(2)])
    assert torch.equal(levels.sort(0).values, torch.tensor([0.5, 1.0])[:, None, None].expand(2, 300, 2))
    assert not (levels[0] == levels[0, :1]).all()


def test_a_summary_names_the_mean_of_every_level_and_frame():
    share = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], dtype=torch.float64)
    t = torch.tensor([[1.0, 0.5], [0.5, 1.0], [1.0, 1.0], [0.5, 0.5]])
    work = RegressionResidual(OnTrajectories("noisy", FEW))
    summary = work.summary(Residuals(share, t))
    assert summary["mean"] == 4.5
    assert summary["levels"] == [1.0, 0.5]
    assert summary["by_level"] == [(1 + 4 + 5 + 6) / 4, (2 + 3 + 7 + 8) / 4]
    assert summary["by_frame_from_noise"] == [3.0, 5.0]
    # trajectories 0 and 1, each in two turns: means 3.5 and 5.5
    assert summary["standard_error"] == pytest.approx(1.0)


def latents_of_scalars(directory):
    """A codec's products of one number a frame."""
    directory.mkdir(parents=True)
    np.save(directory / "train.npy", np.zeros((4, 2, 1, 1, 1), np.float32))
    (directory / "codec.json").write_text("{}")
    return directory


def regressed(context, tmp_path):
    """The residual of a network that was trained on trajectories, on others."""
    codec = latents_of_scalars(tmp_path / "codec")
    latents = digest_of(codec / "codec.json")
    for split, num_clips, seed in (("train", 4_000, 2), ("heldout", 1_000, 3)):
        states = trajectories(context, num_clips, seed).numpy()
        save_trajectories(states, tmp_path / split, description(FEW, latents=latents, schedule=SCHEDULE))
    backbone = BackboneSpec(channels=1, frame_size=1, patch=1, width=16, depth=1, num_heads=2)
    rate = OptimizerSpec(name="adamw", learning_rate=2e-2, warmup_steps=5)
    training = TrainingSpec(80, ema_decay=0.95, optimizer=rate, checkpoint_every=1_000)
    method = OnTrajectories(context, FEW)
    cell = Setting(DenoiserSpec(backbone), FEW, 0, 1).cell(method, L2(PredictionL2("x0")), training)
    student = run_unit("cell", cell, {"codec": codec, "trajectories": tmp_path / "train"})
    inputs = {"codec": codec, "student": student / "out", "trajectories": tmp_path / "heldout"}
    return json.loads((run_unit("residual", RegressionResidual(method), inputs) / "metrics.json").read_text())


def test_training_cannot_remove_the_residual_of_a_teacher_of_full_attention(tmp_path, work_root):
    """The claim of Causal Forcing where all is known: .2 of the first frame stays; of a causal teacher, nothing."""
    full, causal = regressed("noisy", tmp_path / "noisy"), regressed("clean", tmp_path / "clean")
    assert full["by_frame_from_noise"][0] == pytest.approx(0.2, abs=0.03)
    assert max(causal["by_frame_from_noise"]) < 0.03
    assert max(causal["by_level"]) < 0.03
    assert full["levels"] == causal["levels"] == [1.0, 0.5]
    assert 0 < full["standard_error"] < 0.02


def test_impossible_measures_are_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        RegressionResidual(OnTrajectories("noisy", FEW), batch_size=0)

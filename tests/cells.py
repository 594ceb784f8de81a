"""Tiny units of training that the tests share: a latent store of noise, and a cell on it."""

import numpy as np

from pipeline.losses import LOSSES
from pipeline.methods import METHODS
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import DenoiserSpec
from pipeline.training.cell import TrainCell
from pipeline.training.loop import TrainingSpec
from pipeline.training.optimizer import OptimizerSpec

BACKBONE = BackboneSpec(channels=2, frame_size=2, patch=2, width=16, depth=1, num_heads=2)


def make_latents(directory, num_clips=64, num_frames=4):
    """A codec's products, as far as training reads them: smooth clips that something can be learnt about."""
    directory.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    first = generator.normal(size=(num_clips, 1, 2, 2, 2))
    steps = 0.1 * generator.normal(size=(num_clips, num_frames, 2, 2, 2)).cumsum(axis=1)
    np.save(directory / "train.npy", (first + steps).astype(np.float32))
    (directory / "codec.json").write_text("{}")
    return directory


def make_cell(method="diffusion_forcing", loss="l2", *, num_steps=12, attention=None, muon=True, **training):
    """A cell small enough for a test."""
    spec = OptimizerSpec(name="muon" if muon else "adamw")
    told = {"attention": attention or METHODS[method].attention, "end_level": LOSSES[loss].needs_end_level}
    backbone = BackboneSpec(**{**vars(BACKBONE), **told})
    fields = {"batch_size": 8, "report_every": 2, "checkpoint_every": 4, "optimizer": spec, **training}
    return TrainCell(
        METHODS[method](), LOSSES[loss](), DenoiserSpec(backbone), TrainingSpec(num_steps, **fields), 0, 1
    )

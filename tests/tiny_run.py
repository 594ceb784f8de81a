"""The default run with the smallest networks that work, in pixels: its parameters, and what it would have made."""

from pathlib import Path

import numpy as np
import torch

from pipeline.config import parse_params
from pipeline.data.store import ClipStore, to_video
from pipeline.evaluation.features import standardise
from pipeline.models.clip_encoder import ClipEncoder, ClipEncoderSpec, save_clip_encoder
from pipeline.models.codec import new_codec, save_codec
from pipeline.models.denoiser import Denoiser, save_denoiser
from pipeline.models.digit_reader import DigitReader, DigitReaderSpec, save_digit_reader
from pipeline.params import TEACHERS
from pipeline.unit import digest_of
from tests import parameters

NUM_CLIPS = 24  # of every sweep's measures
TRAINING = {"num_steps": 4, "batch_size": 4, "report_every": 2, "checkpoint_every": 4}
ROLLOUT = {"num_steps": 2, "batch_size": 4, "report_every": 1, "checkpoint_every": 2}


def raw():
    """As plain data."""
    params = parameters.raw()
    params["codec"] = None
    params["prepare"] |= {"num_train": 64, "num_metric": 64, "num_test": 128}
    params["features"] |= {"num_gate_clips": 16}
    params["denoiser"]["backbone"] = {"patch": 8, "width": 16, "depth": 1, "num_heads": 2}
    params["sampler"]["num_steps"] = 2
    params["teacher"]["causal"]["sampler"] |= {"num_steps": 1, "step": {"name": "ddim"}}
    bits = {"num_clips": 8, "num_levels": 32, "num_draws": 2}
    params["evaluate"] = {"num_clips": 32, "num_bootstraps": 8, "num_timed": 1, "num_neighbours": 3, "bits": bits}
    params["ablation"] = {
        "predictions": ["v"],
        "weightings": {"exponential": {}, "edm": {}},
        "schedules": {"cosine": {}, "flow_matching": {"shift": 1.0}},
        "training": TRAINING,
        "num_clips": NUM_CLIPS,
        "num_spread_clips": 16,
    }
    params["grid"] = {
        "methods": {"bidirectional": {}, "self_forcing": {}},
        "losses": {"l2": {}, "gan": {"critic_updates": 2}, "kd": {"num_steps": 2}, "mean_flow": {}},
        "training": ROLLOUT,
        "num_clips": NUM_CLIPS,
    }
    params["sweep"] = {
        "cells": ["*-l2", "*-gan"],
        "seeds": [1, 2],
        "budget": {"name": "updates", "num_updates": 2},
        "tuning": {"num_trials": 2, "learning_rate": [1e-4, 1e-2], "critic_updates": [1, 2]},
        "num_clips": NUM_CLIPS,
        "checkpoint_every": 2,
        "num_bootstraps": 200,
    }
    params["causal_forcing"] = {
        "training": TRAINING,
        "rollout": ROLLOUT,
        "dmd": {"critic_updates": 1},
        "num_trajectories": 8,
        "num_steps": 4,
        "num_heldout": 6,
        "num_clips": NUM_CLIPS,
    }
    return params


def make_artifacts(root: Path) -> None:
    """Clips, metric networks that are hardly trained, latents, and teachers with random weights."""
    params = parse_params(raw())
    for _ in params.prepare.run(root / "unit", {}):
        pass
    (root / "unit" / "out").rename(root / "prepare")
    store, codec = ClipStore(root / "prepare"), new_codec(None, (1, 16, 16))
    torch.manual_seed(0)
    encoder = ClipEncoder(ClipEncoderSpec(width=4, feature_dim=12)).eval().requires_grad_(False)
    standardise(encoder, store.clips("test")[:64, :8])
    for name in ("features", "codec"):
        (root / name).mkdir()
    save_clip_encoder(encoder, root / "features", {})
    save_digit_reader(DigitReader(DigitReaderSpec(width=4, feature_dim=8)), root / "features", {})
    save_codec(codec, root / "codec")
    np.save(root / "codec" / "train.npy", codec.encode(to_video(store.clips("train"))).numpy())
    latents = digest_of(root / "codec" / "codec.json")
    for name in TEACHERS:
        teacher = Denoiser(params.teacher_unit(name).denoiser)
        torch.nn.init.normal_(teacher.backbone.head.weight, std=0.1)
        save_denoiser(teacher, root / "teacher" / name, latents=latents)

"""Records of a whole run, made up: the report's tests need no training."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.moving_digits import MovingDigits
from pipeline.diffusion.schedule import FlowMatching
from pipeline.evaluation.bits import BitsPerDimension
from pipeline.losses.consistency_distillation import ConsistencyDistillation
from pipeline.losses.dmd import Dmd
from pipeline.losses.gan import Gan
from pipeline.losses.l2 import L2
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import DenoiserSpec
from pipeline.records import read_record
from pipeline.reporting.read import artifact_digest
from pipeline.streams import numpy_stream
from pipeline.unit import as_plain

NUM_CLIPS, NUM_FRAMES = 8, 16
SCORE = {"teacher": "teacher@bidirectional"}
CELLS = {  # stage, item -> method, loss, attention, made from
    ("teacher", "causal"): ("DiffusionForcing", "L2", "causal", {}),
    ("teacher", "bidirectional"): ("DiffusionForcing", "L2", "full", {"init": "teacher@causal"}),
    ("init", ""): (
        "TeacherForcing",
        "ConsistencyDistillation",
        "causal",
        {"init": "teacher@causal", "teacher": "teacher@causal"},
    ),
    ("distill", "dmd"): ("DiffusionForcing", "Dmd", "causal", {"init": "init", **SCORE}),
    ("distill", "gan"): ("DiffusionForcing", "Gan", "causal", {"init": "init", **SCORE}),
    ("rollout", "dmd"): ("SelfForcing", "Dmd", "causal", {"init": "distill@dmd", **SCORE}),
    ("rollout", "gan"): ("SelfForcing", "Gan", "causal", {"init": "distill@gan", **SCORE}),
}
LOSSES = {"L2": L2(), "ConsistencyDistillation": ConsistencyDistillation(), "Dmd": Dmd(), "Gan": Gan()}
WITH_CRITIC = ("Dmd", "Gan")
TASTE = {"teacher@causal": 0.5, "teacher@bidirectional": 0.3, "init": 1.4, "distill@dmd": 1.6, "distill@gan": 1.3}

MACHINE = {
    "processor": "Some CPU @ 2.0GHz", "num_cores": 2, "memory_gib": 24, "gpus": [], "system": "Linux x86_64",
    "python": "3.11.2",
}  # fmt: skip


class Bench:
    """Writes records as stages do, each with the digests of what it was made from."""

    def __init__(self, workspace: Path, profile: str) -> None:
        self.reports = workspace / "reports"
        self.profile = profile
        self.digests: dict[str, str] = {}

    def write(
        self,
        stage: str,
        item: str,
        metrics: dict[str, Any],
        *,
        seconds: float,
        made_from: dict[str, str] | None = None,
        work: dict[str, Any] | None = None,
        curve: list[dict[str, float]] | None = None,
    ) -> Path:
        """Returns the record's directory."""
        name = "@".join(filter(None, (stage, item)))
        directory = self.reports / stage / item
        directory.mkdir(parents=True, exist_ok=True)
        record = {
            "stage": stage,
            "item": item,
            "profile": self.profile,
            "fingerprint": hashlib.sha256(name.encode()).hexdigest()[:24],
            "work": work or {"type": f"pipeline.{stage}"},
            "inputs": {key: self.digests[maker] for key, maker in (made_from or {}).items()},
            "versions": {"torch": "2.13", "numpy": "2.3", "scikit-learn": "1.8"},
            "machine": MACHINE,
            "metrics": metrics,
            "timing": {"seconds": seconds},
            "products": {} if stage == "evaluate" else {"weights.safetensors": name, "description.json": name},
        }
        (directory / "record.json").write_text(json.dumps(record))
        if curve:
            with (directory / "curve.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(curve[0]))
                writer.writeheader()
                writer.writerows(curve)
        self.digests[name] = artifact_digest(read_record(directory / "record.json"))
        return directory

    def write_cell(self, stage: str, item: str, index: int) -> None:
        """A trained checkpoint, and what was measured of it."""
        method, loss, attention, origin = CELLS[stage, item]
        name, file_name = (mark.join(filter(None, (stage, item))) for mark in "@-")
        has_critic = loss in WITH_CRITIC
        self.write(
            stage,
            item,
            {
                "student_updates": 1000 * (index + 1),
                "critic_updates": 5000 * (index + 1) if has_critic else 0,
                "clips_seen": 64_000 * (index + 1),
                "flops": 10**14 * (index + 1),
                "parameters": 412_345,
                "cell": {"method": method, "loss": loss},
            },
            seconds=100.0 * (index + 1),
            made_from={"codec": "codec", **origin},
            work={
                "type": "pipeline.training.cell.TrainCell",
                "denoiser": as_plain(DenoiserSpec(BackboneSpec(attention=attention), schedule=FlowMatching(2.0))),
                "loss": as_plain(LOSSES[loss]),
                "training": {"adaptive": None},
                "seed": 0,
            },
            curve=training_curve(index, has_critic=has_critic),
        )
        distance = TASTE.get(name, 0.8 if item == "dmd" else 1.0)
        directory = self.write(
            "evaluate",
            file_name,
            measured(distance, index) | ({"bits_per_dim": bits_per_dim(distance)} if loss == "L2" else {}),
            seconds=30.0,
            made_from={"clips": "prepare", "features": "features", "codec": "codec", "student": name},
            work={
                "num_frames": NUM_FRAMES // 2,
                "sampler": {"num_steps": 16 if loss == "L2" else 4},
                "bits": as_plain(BitsPerDimension()) if loss == "L2" else None,
            },
        )
        write_samples(directory, distance)


def training_curve(index: int, *, has_critic: bool) -> list[dict[str, float]]:
    rng = np.random.default_rng(index)
    rows = []
    for step in range(10, 1000 * (index + 1) + 1, 20):
        row = {"step": step, "student_loss": 0.1 + 2 / (1 + step / 50) + 0.02 * rng.standard_normal()}
        row["grad_norm"] = 0.3 + 0.05 * abs(rng.standard_normal())
        if has_critic:
            row |= {"critic_loss": 0.7 + 0.05 * rng.standard_normal(), "critic_grad_norm": 1.0}
        rows.append(row)
    return rows


def measured(distance: float, index: int) -> dict[str, Any]:
    """The metrics of an evaluation, worse the greater the distance from real clips."""
    frames, starts = np.arange(1, NUM_FRAMES + 1), np.array([1, 5, 9])
    return {
        "fvd": {
            "value": 20 * distance + 2,
            "floor": 2.0,
            "excess": 20 * distance,
            "interval": [18 * distance, 22.5 * distance],
            "num_clips": 2048,
            "network": "in_domain",
            "checksum": "c" * 64,
            "codec_excess": 1.5,
            "training_excess": 0.8,
        },
        "coverage_real": {"precision": 0.96, "recall": 0.97, "density": 1.01, "coverage": 0.98},
        "coverage": {
            "precision": 0.95 - 0.2 * distance,
            "recall": 0.97 - 0.3 * distance,
            "density": 1.0 - 0.2 * distance,
            "coverage": 0.96 - 0.25 * distance,
        },
        "frames": {
            "index": frames.tolist(),
            "distance": (0.3 + distance * frames**0.7 / 3).tolist(),
            "floor": [0.25] * NUM_FRAMES,
        },
        "windows": {
            "start": starts.tolist(),
            "fvd": (2 + 20 * distance * (1 + starts / 6)).tolist(),
            "floor": [2.0] * len(starts),
        },
        "drift_slope": 3.3 * distance,
        "kinematics": {"speed_w1": 0.05 * distance},
        "identity": {
            "first_to_second": 1 - 0.05 * distance,
            "first_to_last": 0.97 - 0.15 * distance,
            "kappa_last": 0.96 - 0.16 * distance,
            "class_kl": 0.02 * distance,
            "real": {"first_to_second": 0.991, "first_to_last": 0.972, "kappa_last": 0.97},
            "codec": {"first_to_second": 0.985, "first_to_last": 0.951, "kappa_last": 0.94},
        },
        "sampling": {"calls_per_frame": 5.0 + index, "frames_per_s": 410.0 - index, "latency_s": 0.021},
    }


def bits_per_dim(distance: float) -> dict[str, Any]:
    """What BitsPerDimension measures; the least is along teacher forcing up to a distance of .45, else lockstep."""
    paths = {"teacher_forcing": 3.0 + distance, "pyramid": 3.3 + distance, "lockstep": 3.9 - distance}
    parts = {"prior": 0.001, "transitions": 1.2, "reconstruction": 2.0}
    return {
        **{name: {"value": value, "standard_error": 0.01, **parts} for name, value in paths.items()},
        "spread": {"value": max(paths.values()) - min(paths.values()), "standard_error": 0.004},
        "num_clips": 512,
        "num_levels": 1024,
        "num_dims": 512,
    }


def write_samples(directory: Path, distance: float) -> None:
    """Real clips, and the same spoilt by noise in place of generated ones."""
    rng = numpy_stream(0, "report")
    frames = MovingDigits().clips("test", NUM_CLIPS, NUM_FRAMES, rng).frames
    noise = rng.normal(0, 25 * distance, frames.shape) * np.linspace(0, 1, NUM_FRAMES)[:, None, None, None]
    generated = np.clip(frames[::-1] + noise, 0, 255).astype(np.uint8)
    np.savez(directory / "samples.npz", real=frames, generated=generated)


def write_records(workspace: Path, profile: str = "default") -> Path:
    """The records of a whole run; returns reports/."""
    bench = Bench(workspace, profile)
    source = {"type": "pipeline.data.moving_digits.MovingDigits", "frames_per_s": 8.0}
    bench.write(
        "prepare",
        "",
        {"num_clips": {"train": 8000, "test": 4096}},
        seconds=5.0,
        work={"num_frames": 8, "source": source},
    )
    features = bench.write(
        "features", "", {"num_families": 12, "rising_families": 11}, seconds=40.0, made_from={"clips": "prepare"}
    )
    with (features / "corruptions.csv").open("w", newline="") as file:
        rows = [["family", "level", "frechet_distance", "rises"]]
        for family in ("blur", "noise", "shuffle", "freeze", "mode_drop", "jitter"):
            rows += [[family, level, 2 + 9 * level**1.5, "True"] for level in (0.0, 0.5, 1.0, 2.0, 4.0)]
        csv.writer(file).writerows(rows)
    bench.write(
        "codec",
        "",
        {"psnr": 24.0, "read_agreement": 0.93},
        seconds=70.0,
        made_from={"clips": "prepare", "features": "features"},
    )
    for index, (stage, item) in enumerate(CELLS):
        bench.write_cell(stage, item, index)
    return bench.reports


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """Writes the records of a whole run, of a profile, into a workspace; returns its reports/."""
    return write_records


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Of the default profile."""
    return write_records(tmp_path)

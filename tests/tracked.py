"""A workspace with two records, as MLflow is to show them."""

import csv
import json
import shutil
from pathlib import Path

CURVE = [{"step": 10 * row, "student_loss": 1.0 / (row + 1), "grad_norm": 0.1 * row} for row in range(1300)]
METRICS = {
    "psnr": 21.5,
    "fvd": {"excess": 12.25, "interval": [11.0, 13.5]},
    "bits_per_dim": {"teacher_forcing": {"value": 3.5, "standard_error": 0.01}, "spread": {"value": 0.25}},
    "network": "both",
    "nothing": None,
}


def fill_workspace(directory: Path, database: Path) -> Path:
    """Two records, an empty database and a dvc.lock in `directory`."""
    shutil.copyfile(database, directory / "mlflow.db")
    write_record(directory, "codec", "", "c0dec", curve=CURVE)
    write_record(directory, "teacher", "causal", "7eac4e5", curve=CURVE[:3])
    entry = {"cmd": "python -m stages.entry codec", "deps": [{"path": "pipeline/unit.py", "md5": "0"}]}
    (directory / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"codec": entry}}))
    return directory


def write_record(workspace: Path, stage: str, item: str, fingerprint: str, *, curve: list[dict]) -> Path:
    directory = workspace / "reports" / stage / item
    directory.mkdir(parents=True, exist_ok=True)
    record = {
        "stage": stage,
        "item": item,
        "fingerprint": fingerprint,
        "profile": "default",
        "work": {"type": "Codec", "num_steps": 13000, "loss": {"type": "DMD", "levels": [0.2, 0.9]}},
        "inputs": {"clips": "aa11"},
        "metrics": METRICS,
        "timing": {"seconds": 90.5},
        "has_curve": True,
        "revision": {"commit": "5ea5", "dirty": True} if stage == "codec" else None,
        "products": {"codec.safetensors": "bb22"},
    }
    (directory / "record.json").write_text(json.dumps(record))
    with (directory / "curve.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "student_loss", "grad_norm"])
        writer.writeheader()
        writer.writerows(curve)
    (directory / "samples.png").write_bytes(b"picture")
    return directory

"""The files of a sweep, made up: what `python3 -m pipeline sweep` would have written."""

import csv
import json
from functools import cache
from itertools import combinations, product

import numpy as np

from pipeline.config import parse_params
from pipeline.unit import as_plain
from tests.parameters import raw

METHODS = ("bidirectional", "teacher_forcing", "diffusion_forcing", "self_forcing")
LOSSES = ("l2", "dmd", "gan", "sid")
EXCLUDED = {"self_forcing-l2": "l2 needs a target, and a frame that self_forcing lets run free has none"}
CELLS = tuple((m, loss) for m in METHODS for loss in LOSSES if f"{m}-{loss}" not in EXCLUDED)
STARTS = {"bidirectional": 36.0, "teacher_forcing": 16.1, "diffusion_forcing": 16.0, "self_forcing": 15.9}
OF_METHOD = {"bidirectional": 9.0, "teacher_forcing": 8.0, "diffusion_forcing": 6.0, "self_forcing": 3.4}
OF_LOSS = {"l2": 1.9, "dmd": 1.0, "gan": 1.1, "sid": 1.35}
CRITICS = {"dmd": 4, "gan": 1, "sid": 4}  # updates a step
FAILED = ("teacher_forcing", "sid", "tuned", 3)
PHASES = ("start", "default", "tuning", "tuned")
METRICS = (
    *("excess", "fvd", "first_to_second", "first_to_last", "precision", "recall", "coverage", "drift_slope"),
    "calls_per_frame",
)
COSTS = ("student_updates", "critic_updates", "clips_seen", "tflop", "seconds")
SAMPLING = ("latency_ms", "frames_per_s")
SETTING = ("learning_rate", "critic_rate_factor", "critic_updates_a_step")
SEEDS = (1, 2, 3)  # of the results; tuning has its own, 0
NUM_TUNING = 4  # trials a cell
PUBLISHED = {
    "frame_wise": ("self_forcing-dmd", "self_forcing-sid", "self_forcing-gan", "diffusion_forcing-dmd",
                   "teacher_forcing-l2", "teacher_forcing-dmd", "diffusion_forcing-l2"),
    "chunk_wise": ("self_forcing-dmd", "self_forcing-sid", "self_forcing-gan", "teacher_forcing-l2",
                   "diffusion_forcing-l2", "diffusion_forcing-dmd", "teacher_forcing-dmd"),
}  # fmt: skip
CODEC = "c0dec"
REASON = "student_loss must be finite: nan at step 41"


def trial_row(method, loss, phase, seed, rng, *, setting=(None, None, None), gain=1.0):
    """A row of trials.csv."""
    excess = STARTS[method] if loss == "start" else OF_METHOD[method] * OF_LOSS[loss] * gain
    excess = float(excess * np.exp(0.1 * rng.normal()))
    shares = (0.94, 0.88, 0.97, 0.95, 0.93) - excess / np.array([300, 120, 90, 70, 50]) + 0.004 * rng.normal(size=5)
    metrics = (excess, excess + 2.1, *shares, -excess / 40, 4.9 if method != "bidirectional" else 2.5)
    critics = 0 if loss == "start" else 60 * CRITICS.get(loss, 0)
    costs = (
        (0,) * 5 if loss == "start" else (60, critics, 64 * (60 + critics), 1.1 + critics / 60, 14.0 + critics / 9)
    )
    return {
        "method": method, "loss": loss, "phase": phase, "seed": seed,
        "split": "metric" if phase == "tuning" else "test", **dict(zip(SETTING, setting, strict=True)),
        "num_steps": 0 if loss == "start" else 60, "status": "done", "reason": "",
        **dict(zip(METRICS, metrics, strict=True)), **dict(zip(COSTS, costs, strict=True)),
        **dict(zip(SAMPLING, (8.0 + excess / 9, 90.0 - excess / 2), strict=True)),
        "train_fingerprint": "" if loss == "start" else f"{abs(hash_of(method, loss, phase, seed, setting)):016x}",
        "evaluate_fingerprint": f"{abs(hash_of('of', method, loss, phase, seed, setting)):016x}",
    }  # fmt: skip


def hash_of(*parts):
    """The same in every process."""
    import zlib

    return zlib.crc32(repr(parts).encode())


def setting_of(loss, number):
    rate = (1e-4, 3e-4, 5e-5, 2e-4)[number]
    return (
        (rate, (1.0, 0.5, 2.0, 1.5)[number], (CRITICS[loss], 2, 6, 3)[number])
        if loss in CRITICS
        else (rate, None, None)
    )


def trial_rows(*, phases=PHASES, num_seeds=3, cells=CELLS, failed=(FAILED,), left=()):
    """Trials of phases, sorted as the sweep sorts them."""
    rng = np.random.default_rng(1)
    starts = [(method, seed) for method in METHODS for seed in SEEDS[:num_seeds] if "start" in phases]
    rows = [trial_row(method, "start", "start", seed, rng) for method, seed in starts]
    for method, loss in cells:
        for seed in SEEDS[:num_seeds] if "default" in phases else ():
            rows.append(trial_row(method, loss, "default", seed, rng, setting=setting_of(loss, 0)))
        for number in range(NUM_TUNING) if "tuning" in phases else ():
            gain = 0.8 + 0.2 * number
            rows.append(trial_row(method, loss, "tuning", 0, rng, setting=setting_of(loss, number), gain=gain))
        for seed in SEEDS[:num_seeds] if "tuned" in phases else ():
            gain = 0.75 if loss in ("gan", "sid") else 0.97
            rows.append(trial_row(method, loss, "tuned", seed, rng, setting=setting_of(loss, 1), gain=gain))
    for row in rows:
        place = (row["method"], row["loss"], row["phase"], row["seed"])
        if place in (*failed, *left):  # of a sweep that was interrupted, some are left to be made
            empty = (*METRICS, *COSTS, *SAMPLING, "train_fingerprint", "evaluate_fingerprint")
            row |= {"status": "failed", "reason": REASON * (place in failed), **dict.fromkeys(empty, "")}
    return sorted(rows, key=lambda row: (row["phase"], row["method"], row["loss"], row["seed"]))


def by_cell(rows, phase, metric="excess"):
    """Values over seeds, by cell."""
    found = {}
    for row in rows:
        if row["phase"] == phase and row["status"] == "done":
            found.setdefault(f"{row['method']}-{row['loss']}", []).append(row[metric])
    return found


def resampled(values, rng, num=400):
    """Means of draws with replacement, (num,); a made-up stand-in for the sweep's statistics."""
    drawn = rng.choice(values, (num, len(values))).mean(axis=1)
    return drawn + 0.03 * abs(drawn) * rng.normal(size=num)


def cell_rows(rows):
    rng = np.random.default_rng(2)
    for phase in ("start", "default", "tuned"):
        for metric in METRICS:
            for key, values in by_cell(rows, phase, metric).items():
                low, high = (
                    np.quantile(resampled(values, rng), (0.025, 0.975)) if len(values) > 1 else (-np.inf, np.inf)
                )
                method, _, loss = key.partition("-")
                yield {"phase": phase, "method": method, "loss": loss, "metric": metric,
                       "mean": np.mean(values), "low": low, "high": high, "num_seeds": len(values)}  # fmt: skip


def pair_rows(rows, confounded):
    rng = np.random.default_rng(3)
    for phase in ("default", "tuned"):
        values = by_cell(rows, phase)
        for a, b in combinations(values, 2):
            gaps = resampled(values[a], rng) - resampled(values[b], rng)
            low, high = np.quantile(gaps, (0.001, 0.999))
            gap = np.mean(values[a]) - np.mean(values[b])
            chance = np.mean([x < y for x in values[a] for y in values[b]])
            yield {"phase": phase, "a": a, "b": b, "difference": gap, "low": low, "high": high,
                   "p_adjusted": 0.02 if low * high > 0 else 0.4, "probability": chance,
                   "probability_low": max(0, chance - 0.2), "probability_high": min(1, chance + 0.2),
                   "verdict": "not separated" if low * high <= 0 else a if gap < 0 else b,
                   "confounds": "; ".join(path for path, of in confounded.items() if {a, b} in of)}  # fmt: skip


def rank_rows(rows):
    rng = np.random.default_rng(4)
    for phase in ("default", "tuned"):
        values = by_cell(rows, phase)
        if values:
            places = np.stack([resampled(one, rng) for one in values.values()]).argsort(0).argsort(0) + 1
            ranks = np.argsort(np.argsort([np.mean(one) for one in values.values()])) + 1
            for key, rank, drawn in zip(values, ranks, places, strict=True):
                low, high = np.quantile(drawn, (0.025, 0.975), method="nearest")
                yield {"phase": phase, "cell": key, "rank": rank, "low": low, "high": high}


def order_rows(rows):
    from scipy.stats import kendalltau

    for phase in ("default", "tuned"):
        values = by_cell(rows, phase)
        for published, order in PUBLISHED.items():
            cells = [key for key in order if key in values]
            if len(cells) > 1:
                tau = float(kendalltau(range(len(cells)), [np.mean(values[key]) for key in cells]).statistic)
                yield {"phase": phase, "published": published, "tau": tau, "low": max(-1, tau - 0.5),
                       "high": min(1, tau + 0.2), "p_value": 0.01, "num_cells": len(cells),
                       "cells": "; ".join(cells)}  # fmt: skip


def specs(cell):
    """What a cell's parameters might be: path -> value, kind when two differ in it."""
    method, loss = cell
    spec = {
        "train.method.type": (method, "axis"),
        "train.loss.type": (loss, "axis"),
        "train.init": ("bidirectional" if method == "bidirectional" else "causal", "follows"),
        "train.denoiser.backbone.attention": ("full" if method == "bidirectional" else "causal", "follows"),
        "train.training.optimizer.learning_rate": ({"l2": 2e-4}.get(loss, 3e-4), "tuned"),
    }
    if loss in CRITICS:
        spec["train.training.num_steps"] = (60 if CRITICS[loss] > 1 else 90, "budget")
        spec["train.loss.critic_updates"] = (CRITICS[loss], "follows")
        spec["train.training.critic_optimizer.name"] = ("adamw" if loss == "gan" else "muon", "confounds")
    else:
        spec["train.training.num_steps"] = (140, "budget")
    if method == "bidirectional":
        spec["train.training.ema_decay"] = (0.99, "confounds")
    else:
        spec["train.training.ema_decay"] = (0.999, "confounds")
    return spec


def audit_rows(cells=CELLS, phases=("default", "tuned")):
    for phase, (a, b) in product(phases, combinations(cells, 2)):
        of_a, of_b = specs(a), specs(b)
        for path in dict.fromkeys((*of_a, *of_b)):
            (x, kind), (y, other) = (of.get(path, ("", "")) for of in (of_a, of_b))
            if x != y and kind and other:
                yield {
                    "phase": phase, "a": "-".join(a), "b": "-".join(b), "path": path, "value_a": x,
                    "value_b": y if phase == "tuned" or kind != "tuned" else f"{y}0", "kind": kind, "reason": "why",
                }  # fmt: skip


def curve_rows(rows):
    rng = np.random.default_rng(5)
    for row in rows:
        if row["status"] == "done" and row["phase"] in ("default", "tuned"):
            for step in range(2, 61, 2):
                student = row["excess"] / 16 * np.exp(-step / 30) + 0.02 * rng.normal()
                critic = 0.7 + 0.05 * rng.normal() if row["loss"] in CRITICS else ""
                yield {"method": row["method"], "loss": row["loss"], "phase": row["phase"], "seed": row["seed"],
                       "step": step, "student_loss": student, "critic_loss": critic, "grad_norm": 1.0}  # fmt: skip


def drift_rows(rows):
    """Windows of 8 frames that overlap by half, and 16 frames."""
    for row in rows:
        if row["status"] == "done" and row["phase"] != "tuning":
            name = {key: row[key] for key in ("method", "loss", "phase", "seed")}
            for at in (1, 5, 9):
                distance = row["excess"] * (1 - (at - 1) / 40) + 2.1
                yield {**name, "measure": "window", "at": at, "distance": distance, "floor": 2.1}
            for at in range(1, 17):
                distance = 0.3 + row["excess"] / 8 * at**-0.2
                yield {**name, "measure": "frame", "at": at, "distance": distance, "floor": 0.3}


HEADS = {
    "trials.csv": ("method", "loss", "phase", "seed", "split", *SETTING, "num_steps", "status", "reason", *METRICS,
                   *COSTS, *SAMPLING, "train_fingerprint", "evaluate_fingerprint"),
    "cells.csv": ("phase", "method", "loss", "metric", "mean", "low", "high", "num_seeds"),
    "pairs.csv": ("phase", "a", "b", "difference", "low", "high", "p_adjusted", "probability", "probability_low",
                  "probability_high", "verdict", "confounds"),
    "ranks.csv": ("phase", "cell", "rank", "low", "high"),
    "orders.csv": ("phase", "published", "tau", "low", "high", "p_value", "num_cells", "cells"),
    "audit.csv": ("phase", "a", "b", "path", "value_a", "value_b", "kind", "reason"),
    "curves.csv": ("method", "loss", "phase", "seed", "step", "student_loss", "critic_loss", "grad_norm"),
    "drift.csv": ("method", "loss", "phase", "seed", "measure", "at", "distance", "floor"),
}  # fmt: skip


@cache
def default_grid():
    return as_plain(parse_params(raw()).grid)


def write_sweep(reports, *, codec=CODEC, profile="default", missing=(), **which):
    """What `python3 -m pipeline sweep` leaves behind; which: of `trial_rows`."""
    directory = reports / "grid"
    directory.mkdir(parents=True, exist_ok=True)
    rows = trial_rows(**which)
    cells = which.get("cells", CELLS)
    phases = [phase for phase in ("default", "tuned") if phase in which.get("phases", PHASES)]
    audited = list(audit_rows(cells, phases))
    confounded = {}
    for row in audited:
        if row["kind"] == "confounds":
            confounded.setdefault(row["path"], []).append({row["a"], row["b"]})
    tables = {
        "trials.csv": rows, "cells.csv": cell_rows(rows), "pairs.csv": pair_rows(rows, confounded),
        "ranks.csv": rank_rows(rows), "orders.csv": order_rows(rows), "audit.csv": audited,
        "curves.csv": curve_rows(rows), "drift.csv": drift_rows(rows),
    }  # fmt: skip
    for name, lines in tables.items():
        with (directory / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, HEADS[name], lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
    write_clips(directory / "samples.npz", rows)
    failed = {f"{r['method']}-{r['loss']} {r['phase']} seed {r['seed']}": REASON for r in rows if r["reason"]}
    params = {"seeds": list(SEEDS), "num_clips": 1024, "confidence": 0.95, "tuning": {"num_trials": NUM_TUNING}}
    about = {
        "profile": profile, "seed": 0, "codec": codec, "failed": failed, "excluded": EXCLUDED,
        "missing": list(missing), "budget": "as many operations as 60 updates of self_forcing-dmd",
        "params": params, "grid": default_grid(),
        "versions": {"torch": "2.13.0"}, "revisions": [{"commit": "5ea5", "dirty": False}],
        "seconds": {"trials": 4500.0},
    }  # fmt: skip
    (directory / "run.json").write_text(json.dumps(about))
    return directory


def write_clips(path, rows):
    """uint8 (N, T, C, H, W): a square that runs, spoilt the more the worse the cell."""
    rng, clips = np.random.default_rng(6), {}
    for row in rows:
        key = f"{row['method']}-{row['loss']}"
        if row["status"] == "done" and row["phase"] != "tuning" and key not in clips:
            frames = np.zeros((4, 16, 1, 16, 16))
            for frame in range(16):
                frames[:, frame, :, 4:10, (frame % 10) : (frame % 10) + 5] = 230
            spoilt = frames + 6 * row["excess"] * rng.normal(size=frames.shape)
            clips[key] = np.clip(spoilt, 0, 255).astype(np.uint8)
    np.savez_compressed(path, **clips)

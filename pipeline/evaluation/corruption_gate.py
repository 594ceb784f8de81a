"""The gate of the default FVD: its distance must rise with known defects, and the table that shows it."""

import csv
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from pipeline.data.store import to_uint8
from pipeline.evaluation.corruptions import corrupted_sets
from pipeline.evaluation.extractors import VideoFeatures
from pipeline.evaluation.frechet import moments, moments_distance
from pipeline.streams import stream

MIN_RISING_SHARE = 0.8

CorruptionTable = dict[str, dict[float, float]]  # family -> level -> Fréchet distance; level 0 is real against real


def corruption_table(
    features: VideoFeatures,
    *,
    reference: np.ndarray,
    held_out: np.ndarray,
    classes: np.ndarray,
    num_frames: int,
    seed: int,
) -> CorruptionTable:
    """Fréchet distance of spoilt held-out clips from the reference, for every family and level.

    reference: uint8 (N, num_frames, C, H, W). held_out: uint8 (N, T', C, H, W), T' at least num_frames, with
    classes (N,). Spoilt clips are rounded to uint8 like all that is compared.
    """
    target = moments(features(torch.from_numpy(np.array(reference))))

    def distance(clips: np.ndarray) -> float:
        return moments_distance(moments(features(torch.from_numpy(clips))), target)

    floor = distance(np.array(held_out[:, :num_frames]))
    table: CorruptionTable = {}
    for family, level, video in corrupted_sets(held_out, classes, num_frames, stream(seed, "corruptions")):
        table.setdefault(family, {0.0: floor})[float(level)] = distance(to_uint8(video))
    return table


def rises(row: Mapping[float, float]) -> bool:
    """Whether the distance grows from every level to the next, and from real clips to the first."""
    return all(weaker < stronger for weaker, stronger in pairwise(row.values()))


def check_gate(table: CorruptionTable) -> None:
    """Raises ValueError: the distance rises in fewer than 80 % of the families."""
    failing = [family for family, row in table.items() if not rises(row)]
    share = 1 - len(failing) / len(table)
    if share < MIN_RISING_SHARE:
        raise ValueError(
            f"the distance must rise with the corruption in at least {MIN_RISING_SHARE:.0%} of the families: it "
            f"does in {share:.0%} of {len(table)}, not in {', '.join(failing)}; train the encoder for more steps"
        )


def write_table(table: CorruptionTable, path: Path) -> None:
    """family, level, frechet_distance, rises: a line a level."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["family", "level", "frechet_distance", "rises"])
        for family, row in table.items():
            writer.writerows([family, level, f"{distance:.6g}", rises(row)] for level, distance in row.items())


def draw_table(table: CorruptionTable, path: Path) -> None:
    """A small panel a family: the distance, on a logarithmic axis, against the level's rank; real clips dashed."""
    import matplotlib as mpl
    import seaborn as sns

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    sns.set_theme(style="whitegrid", font_scale=0.8)
    num_columns = 4
    num_rows = -(-len(table) // num_columns)
    figure, axes = plt.subplots(
        num_rows, num_columns, figsize=(10, 2.3 * num_rows), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (family, row) in zip(axes.flat, table.items(), strict=False):
        levels, distances = list(row), list(row.values())
        sns.lineplot(x=range(len(row)), y=distances, marker="o", color="C0" if rises(row) else "C3", ax=axis)
        axis.axhline(distances[0], color="0.4", linestyle="--", linewidth=1)
        axis.set(yscale="log", title=family if rises(row) else f"{family} (does not rise)")
        axis.set_xticks(range(len(row)), [f"{level:g}" for level in levels])
    for axis in list(axes.flat)[len(table) :]:
        axis.set_visible(False)
    figure.supxlabel("strength of the corruption (0 = real clips against real clips, dashed)")
    figure.supylabel("Fréchet distance")
    figure.savefig(path, dpi=110)
    plt.close(figure)

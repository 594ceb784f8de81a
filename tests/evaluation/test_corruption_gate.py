import csv

import numpy as np
import pytest
import torch

from pipeline.evaluation.corruption_gate import check_gate, corruption_table, draw_table, rises, write_table
from pipeline.evaluation.extractors import InDomainFeatures


class Constant:
    """Sees nothing."""

    name, dim, digest = "constant", 3, "0" * 64

    def __call__(self, clips):
        return torch.ones(len(clips), self.dim, dtype=torch.float64)


class Pixels(Constant):
    """Sees how bright each frame is."""

    dim = 8

    def __call__(self, clips):
        return clips.double().mean(dim=(3, 4)).flatten(1) / 255


def table_of(features, store, num_clips=128):
    test = store.clips("test")
    return corruption_table(
        features,
        reference=test[:num_clips, :8],
        held_out=test[256 : 256 + num_clips],
        classes=store.labels("test")["class"][256 : 256 + num_clips, 0],
        num_frames=8,
        seed=0,
    )


def test_gate_refuses_an_encoder_that_sees_nothing(store):
    table = table_of(Constant(), store)
    assert all(distance == 0 for row in table.values() for distance in row.values())
    with pytest.raises(ValueError, match=r"at least 80% of the families: it does in 0% of 12, not in blur, noise"):
        check_gate(table)


def test_gate_refuses_an_untrained_encoder(store, untrained_dir):
    with pytest.raises(ValueError, match="rise with the corruption in at least 80%"):
        check_gate(table_of(InDomainFeatures(untrained_dir), store))


def test_table_is_repeatable(store):
    assert table_of(Pixels(), store, 32) == table_of(Pixels(), store, 32)


def test_mean_brightness_sees_fading_but_no_shuffling_of_pixels(store):
    table = table_of(Pixels(), store)
    assert rises(table["drift_fade"])
    assert table["jitter"][0.8] == pytest.approx(table["jitter"][0.0], rel=0.05)


def test_rising_means_at_every_level():
    assert rises({0.0: 1.0, 0.1: 2.0, 0.2: 2.5})
    assert not rises({0.0: 1.0, 0.1: 0.9, 0.2: 2.5})
    assert not rises({0.0: 1.0, 0.1: 1.0})


def test_gate_lets_one_family_in_five_fail():
    good, bad = {0.0: 1.0, 1.0: 2.0}, {0.0: 1.0, 1.0: 0.5}
    check_gate({**{f"good{index}": good for index in range(4)}, "bad": bad})
    with pytest.raises(ValueError, match="in 75% of 4, not in bad"):
        check_gate({**{f"good{index}": good for index in range(3)}, "bad": bad})


def test_table_and_picture_show_every_level(tmp_path):
    table = {"blur": {0.0: 1.0, 0.5: 2.0}, "noise": {0.0: 1.0, 0.1: 0.5}}
    write_table(table, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["family"], float(row["frechet_distance"]), row["rises"]) for row in rows] == [
        ("blur", 1.0, "True"),
        ("blur", 2.0, "True"),
        ("noise", 1.0, "False"),
        ("noise", 0.5, "False"),
    ]
    draw_table(table, tmp_path / "table.png")
    first = (tmp_path / "table.png").read_bytes()
    draw_table(table, tmp_path / "table.png")
    assert (tmp_path / "table.png").read_bytes() == first
    assert np.frombuffer(first, np.uint8)[:4].tobytes() == b"\x89PNG"

import dataclasses
import json
import time
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.contact_sheet import contact_sheet
from pipeline.data.moving_digits import MovingDigits
from pipeline.data.store import ClipStore, Prepare, one_of_each, to_uint8, to_video
from pipeline.unit import digest_of, run_unit

SMALL = Prepare(source=MovingDigits(), num_frames=3, num_train=60, num_metric=11, num_test=8)


def finish(steps):
    """Run a unit's generator to its end: every report, and the metrics."""
    reports = []
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as end:
            return reports, end.value


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("prepare")
    return directory, *finish(SMALL.run(directory, {}))


@pytest.fixture
def store(prepared):
    return ClipStore(prepared[0] / "out")


def test_held_out_clips_are_longer(store):
    assert store.clips("train").shape == (60, 3, 1, 16, 16)
    assert store.clips("metric").shape == (11, 6, 1, 16, 16)
    assert store.clips("test").shape == (8, 6, 1, 16, 16)


def test_clips_are_mapped_not_read(store):
    assert isinstance(store.clips("train"), np.memmap)
    assert not store.clips("train").flags.writeable


def test_labels_belong_to_their_clips(store):
    frames, labels = store.clips("test"), store.labels("test")
    seen = MovingDigits().split_images("test")
    assert all(len(values) == len(frames) for values in labels.values())
    assert set(labels["image"].ravel().tolist()) <= set(seen.tolist())
    mass = frames.sum((2, 3, 4), dtype=np.int64)
    assert np.abs(mass / mass[:, :1] - 1).max() < 0.01  # one digit moves through a clip


def test_a_clip_of_one_digit_has_its_class(store):
    digits = store.labels("train")["class"]
    assert store.manifest["num_classes"] == 10
    assert store.classes("train").tolist() == digits[:, 0].tolist()
    assert set(digits[:, 0].tolist()) <= set(range(10))


def test_a_clip_of_several_digits_has_no_single_class(tmp_path):
    finish(dataclasses.replace(SMALL, source=MovingDigits(num_digits=2)).run(tmp_path, {}))
    store = ClipStore(tmp_path / "out")
    assert store.labels("train")["class"].shape == (60, 2)
    assert store.manifest["num_classes"] == 0
    assert store.classes("train") is None


def test_splits_show_disjoint_images(store):
    shown = [set(store.labels(split)["image"].ravel().tolist()) for split in ("train", "metric", "test")]
    assert not shown[0] & shown[1]
    assert not shown[0] & shown[2]
    assert not shown[1] & shown[2]


def test_chunks_of_a_split_differ_and_are_all_written(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.data.store.CHUNK", 20)
    reports, _ = finish(SMALL.run(tmp_path, {}))
    frames = ClipStore(tmp_path / "out").clips("train")
    assert [report.step for report in reports] == [20, 40, 60, 71, 79]
    assert {report.num_steps for report in reports} == {79}
    assert frames.any(axis=(1, 2, 3, 4)).all()
    assert not np.array_equal(frames[:20], frames[20:40])


def test_manifest_says_what_the_files_are(store):
    manifest = store.manifest
    assert manifest["shapes"]["test"] == [8, 6, 1, 16, 16]
    assert manifest["source"]["type"] == "pipeline.data.moving_digits.MovingDigits"
    assert manifest["source"]["speed_max"] == 1.5
    assert (manifest["dtype"], manifest["range"], manifest["seed"]) == ("uint8", [0, 255], 0)
    files = {path.name for path in store.directory.iterdir()} - {"manifest.json"}
    assert set(manifest["sha256"]) == files


def test_equal_parameters_give_equal_bytes_at_any_time(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 2e9)
    finish(SMALL.run(tmp_path, {}))
    assert digest_of(tmp_path / "out") == digest_of(prepared[0] / "out")
    assert digest_of(tmp_path / "show") == digest_of(prepared[0] / "show")
    with zipfile.ZipFile(tmp_path / "out" / "train_labels.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_another_seed_gives_other_clips(prepared, tmp_path):
    finish(
        Prepare(source=MovingDigits(), num_frames=3, num_train=60, num_metric=11, num_test=8, seed=1).run(
            tmp_path, {}
        )
    )
    assert digest_of(tmp_path / "out" / "train.npy") != digest_of(prepared[0] / "out" / "train.npy")


def test_verify_accepts_what_was_written_and_names_a_damaged_file(tmp_path):
    finish(SMALL.run(tmp_path, {}))
    store = ClipStore(tmp_path / "out")
    store.verify()
    path = tmp_path / "out" / "metric.npy"
    damaged = bytearray(path.read_bytes())
    damaged[-200] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"metric\.npy has [0-9a-f]{64}, not [0-9a-f]{64}"):
        store.verify()
    path.unlink()
    with pytest.raises(ValueError, match=r"metric\.npy is missing"):
        store.verify()


def test_a_directory_without_manifest_is_no_store(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold manifest\.json"):
        ClipStore(tmp_path)


def test_an_unknown_split_lists_the_known_ones(store):
    with pytest.raises(ValueError, match="split must be one of train, metric, test, got 'valid'"):
        store.clips("valid")


def test_run_unit_finds_the_finished_store(tmp_path, monkeypatch):
    monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path))
    directory = run_unit("prepare", SMALL, {})
    written = (directory / "metrics.json").stat().st_mtime_ns
    assert run_unit("prepare", SMALL, {}) == directory
    assert (directory / "metrics.json").stat().st_mtime_ns == written
    assert json.loads((directory / "metrics.json").read_text())["num_clips"] == {
        "train": 60,
        "metric": 11,
        "test": 8,
    }


def test_pixels_survive_the_way_to_networks_and_back():
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 1, 16, 16)
    video = to_video(every)
    assert video.dtype == torch.float32
    assert (video.min(), video.max()) == (-1, 1)
    assert np.array_equal(to_uint8(video), every)


def test_pixels_out_of_range_are_clipped_and_the_video_is_left_alone():
    video = torch.tensor([-1.2, 0.0, 1.2])
    assert to_uint8(video).tolist() == [0, 128, 255]
    assert torch.equal(video, torch.tensor([-1.2, 0.0, 1.2]))


def test_frames_of_another_type_are_refused():
    with pytest.raises(ValueError, match="frames must be uint8, got float64"):
        to_video(np.zeros((1, 1, 1, 4, 4)))


def test_the_sheet_shows_one_clip_of_each_class():
    labels = {"class": np.array([[3], [1], [3], [1], [0]])}
    assert one_of_each(labels, 5, 3) == [4, 1, 0]
    assert one_of_each(labels, 5, 4) == [4, 1, 0, 2]
    assert one_of_each({}, 5, 3) == [0, 1, 2]


def test_contact_sheet_shows_every_pixel_in_its_place():
    rows = [np.full((2, 3, 4, 4), 200, np.uint8), np.zeros((3, 3, 4, 4), np.uint8)]
    rows[0][1, 0] = 10
    sheet = np.asarray(contact_sheet(rows, ["a", "b"], "title"))
    assert (sheet == (200, 200, 200)).all(-1).sum() == 16 * 16
    assert (sheet == (10, 200, 200)).all(-1).sum() == 16 * 16
    assert (sheet == 0).all(-1).sum() == 3 * 16 * 16


def test_contact_sheet_wants_a_caption_a_row():
    with pytest.raises(ValueError, match="captions must be one a row, at least one: rows=0, captions=0"):
        contact_sheet([], [], "title")


def test_contact_sheet_of_the_store_is_a_picture(prepared):
    with Image.open(prepared[0] / "show" / "contact_sheet.png") as picture:
        assert picture.mode == "RGB"
        assert picture.height > 15 * 64


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_frames": 2}, "num_frames must be at least 3, got 2"),
        ({"num_train": 0}, "num_train must be at least 1, got 0"),
        ({"num_metric": 0}, "num_metric must be at least 1, got 0"),
        ({"num_test": 7}, r"num_test must be even and at least 2 \(reference and floor\), got 7"),
        ({"heldout_len_factor": 0}, "heldout_len_factor must be at least 1, got 0"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_rule_and_value(parameters, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Prepare(source=MovingDigits(), **parameters)

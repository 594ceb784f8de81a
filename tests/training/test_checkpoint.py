"""Checkpoints: whole or not at all."""

import errno
import logging

import pytest
import torch

from pipeline.training import checkpoint as module
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint


def save(directory, step):
    save_checkpoint(directory, step, {"w": torch.full((3,), float(step))}, {"flops_per_step": step * 10})


def test_a_checkpoint_comes_back_equal_and_only_two_are_kept(tmp_path):
    for step in (5, 10, 15):
        save(tmp_path, step)
    found = load_checkpoint(tmp_path)
    assert (found.step, found.state) == (15, {"flops_per_step": 150})
    assert torch.equal(found.tensors["w"], torch.full((3,), 15.0))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["000000010", "000000015"]


def test_there_is_none_before_the_first(tmp_path):
    assert load_checkpoint(tmp_path) is None


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "checksums.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(name, damage, tmp_path, caplog):
    save(tmp_path, 5)
    save(tmp_path, 10)
    path = tmp_path / "checkpoints" / "000000010" / name
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert load_checkpoint(tmp_path).step == 5
    assert "000000010 is damaged" in caplog.text
    assert "using the one before" in caplog.text


def test_a_half_written_checkpoint_is_no_checkpoint(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "checkpoints" / "000000010.tmp").mkdir()
    assert load_checkpoint(tmp_path).step == 5
    save(tmp_path, 10)
    assert load_checkpoint(tmp_path).step == 10


@pytest.mark.parametrize("full_at", ["save_file", "_sync"])
def test_a_full_disk_leaves_the_last_checkpoint_whole(full_at, tmp_path, monkeypatch):
    save(tmp_path, 5)

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, full_at, no_space)
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path, 10)
    assert load_checkpoint(tmp_path).step == 5
    assert not list((tmp_path / "checkpoints").glob("*.tmp"))

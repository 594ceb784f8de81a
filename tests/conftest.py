"""Fixtures that every test may ask for."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def work_root(tmp_path, monkeypatch):
    """Units of this test live in its own directory."""
    monkeypatch.setenv("FORCING_GRID_WORK", str(tmp_path / "work"))
    return tmp_path / "work"

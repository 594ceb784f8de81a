import json

import pytest
import torch
from torch import nn

from pipeline.models.files import load_network, save_network, weights_digest


def build(description):
    return nn.Linear(description["num_in"], 2)


@pytest.mark.parametrize("with_checksum", [False, True])
def test_a_loaded_network_is_the_saved_one(tmp_path, with_checksum):
    network = nn.Linear(3, 2)
    save_network(network, tmp_path / "new", "line", {"num_in": 3}, with_checksum=with_checksum)
    loaded = load_network(tmp_path / "new", "line", build)
    assert torch.equal(loaded.weight, network.weight)
    description = json.loads((tmp_path / "new" / "line.json").read_text())
    checksum = {"sha256": weights_digest(tmp_path / "new", "line")} if with_checksum else {}
    assert description == {"num_in": 3, **checksum}


def test_other_weights_than_those_of_the_checksum_are_refused(tmp_path):
    save_network(nn.Linear(3, 2), tmp_path, "line", {"num_in": 3}, with_checksum=True)
    save_network(nn.Linear(3, 2), tmp_path, "other", {"num_in": 3})
    (tmp_path / "other.safetensors").replace(tmp_path / "line.safetensors")
    with pytest.raises(
        ValueError, match=r"^line\.safetensors must have the sha256 of line\.json: .* has [0-9a-f]{64}$"
    ):
        load_network(tmp_path, "line", build)


def test_a_network_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"line\.json"):
        load_network(tmp_path, "line", build)

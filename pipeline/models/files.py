"""A network on disk: its weights in STEM.safetensors, and in STEM.json what to build before they are read."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save_file
from torch import nn

from pipeline.unit import digest_of, write_json

Network = TypeVar("Network", bound=nn.Module)


def save_network(
    network: nn.Module, directory: Path, stem: str, description: Mapping[str, Any], *, with_checksum: bool = False
) -> None:
    """Write both files. With a checksum the description also holds the "sha256" of its weights."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, directory / f"{stem}.safetensors")
    checksum = {"sha256": weights_digest(directory, stem)} if with_checksum else {}
    write_json(directory / f"{stem}.json", {**description, **checksum})


def load_network(directory: Path, stem: str, build: Callable[[dict[str, Any]], Network]) -> Network:
    """The network that `build` makes from the description, with the weights that were saved.

    Raises:
        FileNotFoundError: no such network was saved there.
        ValueError: the description holds a checksum, and the weights have another.
    """
    description = json.loads((directory / f"{stem}.json").read_text())
    if "sha256" in description and (found := weights_digest(directory, stem)) != description["sha256"]:
        raise ValueError(f"{stem}.safetensors must have the sha256 of {stem}.json: {directory} has {found}")
    network = build(description)
    network.load_state_dict(load_file(directory / f"{stem}.safetensors"))
    return network


def weights_digest(directory: Path, stem: str) -> str:
    """sha256 of the weights alone."""
    return digest_of(directory / f"{stem}.safetensors")

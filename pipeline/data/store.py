"""The clip store: what a source makes, written once, mapped into memory, described by a manifest and checked."""

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from pipeline.data.contact_sheet import contact_sheet
from pipeline.interfaces import Progress
from pipeline.rules import at_least, one_of
from pipeline.streams import numpy_stream
from pipeline.unit import Metrics, as_plain, digest_of, write_json

SPLITS = ("train", "metric", "test")
CHUNK = 2_000  # clips drawn at once, each chunk from its own stream; part of what the seed means
SHEET_ROWS = 10


@dataclass(frozen=True)
class Clips:
    """Clips of a source and what is known about them.

    frames: uint8 (N, T, C, H, W), [0, 255]. labels: by name, arrays whose first axis is the clip; every clip has
    an integer label "class" where the source knows one.
    """

    frames: np.ndarray
    labels: Mapping[str, np.ndarray]


@runtime_checkable
class Source(Protocol):
    """A source of clips: a frozen dataclass whose fields are its parameters, so that it is its own schema.

    Its file in this package, its line in `SOURCES` and its section of the parameters have the same name. It must
    - draw all randomness from `rng`: equal arguments give equal bytes;
    - keep splits disjoint in whatever it draws from (images, episodes, files), so that held-out clips are new;
    - give frames of one law at every clip length: the first frames of long clips are distributed as short clips.
    """

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        ...

    @property
    def num_classes(self) -> int:
        """Of the label "class", counted from 0; 0 where a clip has none, or several."""
        ...

    @property
    def frames_per_s(self) -> float:
        """At which speed people are shown the clips."""
        ...

    def clips(self, split: str, num_clips: int, num_frames: int, rng: np.random.Generator) -> Clips:
        """`num_clips` independent clips of one of SPLITS."""
        ...

    def caption(self, labels: Mapping[str, np.ndarray], clip: int) -> str:
        """What a person should read beside this clip, in a few letters."""
        ...


@dataclass(frozen=True)
class Prepare:
    """Draw the clips of every split, and write the store.

    Held-out clips are `heldout_len_factor` times as long as training clips, so that drift can be measured. The
    first half of the test clips is the reference of every distance, the second half measures its floor.
    """

    source: Source
    num_frames: int = 8
    num_train: int = 20_000
    num_metric: int = 6_000
    num_test: int = 4_096
    heldout_len_factor: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(3, num_frames=self.num_frames)
        at_least(1, num_train=self.num_train, num_metric=self.num_metric)
        at_least(1, heldout_len_factor=self.heldout_len_factor)
        if self.num_test < 2 or self.num_test % 2:
            raise ValueError(f"num_test must be even and at least 2 (reference and floor), got {self.num_test}")

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:
        """Write out/<split>.npy, out/<split>_labels.npz, out/manifest.json and show/contact_sheet.png."""
        assert not inputs, "the source makes its own clips"
        out, show = directory / "out", directory / "show"
        out.mkdir(parents=True, exist_ok=True)
        show.mkdir(exist_ok=True)
        num_clips = {"train": self.num_train, "metric": self.num_metric, "test": self.num_test}
        done, total = 0, sum(num_clips.values())
        for split in SPLITS:
            for written in self._write_split(split, num_clips[split], out):
                yield Progress(done + written, total)
            done += num_clips[split]
        write_json(out / "manifest.json", self._manifest(out))
        store = ClipStore(out)
        self._draw(store, show / "contact_sheet.png")
        return {
            "num_clips": num_clips,
            "num_frames": {split: store.clips(split).shape[1] for split in SPLITS},
            "bytes": {split: int(store.clips(split).nbytes) for split in SPLITS},
            "mean_pixel": {split: round(float(store.clips(split).mean()), 4) for split in SPLITS},
        }

    def _write_split(self, split: str, num_clips: int, out: Path) -> Generator[int, None, None]:
        """Write a split chunk by chunk, saying how many clips are written."""
        num_frames = self.num_frames if split == "train" else self.num_frames * self.heldout_len_factor
        shape = (num_clips, num_frames, *self.source.frame_shape)
        frames = np.lib.format.open_memmap(out / f"{split}.npy", mode="w+", dtype=np.uint8, shape=shape)
        labels: list[Mapping[str, np.ndarray]] = []
        for chunk, start in enumerate(range(0, num_clips, CHUNK)):
            size = min(CHUNK, num_clips - start)
            drawn = self.source.clips(split, size, num_frames, numpy_stream(self.seed, f"clips/{split}", chunk))
            frames[start : start + size] = drawn.frames
            labels.append(drawn.labels)
            yield start + size
        frames.flush()
        # A zip that numpy writes holds no times, so equal labels are equal bytes.
        joined = {name: np.concatenate([chunk[name] for chunk in labels]) for name in sorted(labels[0])}
        np.savez(out / f"{split}_labels.npz", **joined)  # pyright: ignore[reportArgumentType]

    def _manifest(self, out: Path) -> dict[str, Any]:
        files = sorted(path for split in SPLITS for path in (out / f"{split}.npy", out / f"{split}_labels.npz"))
        shapes = {split: list(np.load(out / f"{split}.npy", mmap_mode="r").shape) for split in SPLITS}
        return {
            "source": as_plain(self.source),
            "seed": self.seed,
            "num_classes": self.source.num_classes,
            "num_frames": self.num_frames,
            "frames_per_s": self.source.frames_per_s,
            "layout": "N T C H W",
            "dtype": "uint8",
            "range": [0, 255],
            "shapes": shapes,
            "sha256": {path.name: digest_of(path) for path in files},
        }

    def _draw(self, store: "ClipStore", path: Path) -> None:
        """A row a clip: training clips of as many classes as there are, then held-out clips, twice as long."""
        rows, captions = [], []
        for split, num_rows in (("train", SHEET_ROWS), ("test", SHEET_ROWS // 2)):
            frames, labels = store.clips(split), store.labels(split)
            for clip in one_of_each(labels, len(frames), num_rows):
                rows.append(np.asarray(frames[clip]))
                captions.append(f"{split}  {self.source.caption(labels, clip)}")
        C, H, W = self.source.frame_shape
        title = (
            f"{C}x{H}x{W} pixels, a column a frame, {self.source.frames_per_s:g} frames/s; test: unseen in training"
        )
        contact_sheet(rows, captions, title).save(path)


def one_of_each(labels: Mapping[str, np.ndarray], num_clips: int, num_rows: int) -> list[int]:
    """The first clip of every class, then the first of those that are left; in order of the class."""
    if "class" not in labels:
        return list(range(min(num_clips, num_rows)))
    first_class = labels["class"].reshape(num_clips, -1)[:, 0]
    chosen = [int(clip) for clip in np.unique(first_class, return_index=True)[1][:num_rows]]
    others = [clip for clip in range(num_clips) if clip not in chosen]
    return chosen + others[: num_rows - len(chosen)]


class ClipStore:
    """A store on disk, read through memory maps.

    Raises:
        FileNotFoundError: the directory holds no manifest.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        path = directory / "manifest.json"
        if not path.exists():
            raise FileNotFoundError(f"a clip store must hold manifest.json: {directory}")
        self.manifest: dict[str, Any] = json.loads(path.read_text())

    def clips(self, split: str) -> np.memmap:
        """uint8 (N, T, C, H, W), [0, 255]; pages are read when they are touched."""
        return np.lib.format.open_memmap(self.directory / f"{_known(split)}.npy", mode="r")

    def labels(self, split: str) -> dict[str, np.ndarray]:
        """What the source knows of every clip; the first axis is the clip."""
        with np.load(self.directory / f"{_known(split)}_labels.npz") as arrays:
            return dict(arrays)

    def classes(self, split: str) -> np.ndarray | None:
        """int64 (N,): the class of every clip; None where the source has no single one."""
        if not self.manifest["num_classes"]:
            return None
        return self.labels(split)["class"].reshape(len(self.clips(split)))

    def verify(self) -> None:
        """Compare every file with its checksum.

        Raises:
            ValueError: a file is missing or is not the one that was written.
        """
        for name, expected in self.manifest["sha256"].items():
            path = self.directory / name
            if not path.exists():
                raise ValueError(f"a clip store must hold every file of its manifest: {path} is missing")
            found = digest_of(path)
            if found != expected:
                raise ValueError(
                    f"a file must have the sha256 of manifest.json: {path} has {found}, not {expected}"
                )


def _known(split: str) -> str:
    one_of(SPLITS, split=split)
    return split


def to_video(frames: np.ndarray) -> Tensor:
    """Frames of the store as networks see them: uint8 [0, 255] -> float32 [-1, 1], same shape."""
    if frames.dtype != np.uint8:
        raise ValueError(f"frames must be uint8, got {frames.dtype}")
    return torch.from_numpy(np.array(frames)).float().div_(127.5).sub_(1.0)


def to_uint8(video: Tensor) -> np.ndarray:
    """Back to uint8 [0, 255], rounded and clipped; the exact inverse of `to_video`."""
    return video.detach().add(1.0).mul_(127.5).round_().clamp_(0, 255).to("cpu", torch.uint8).numpy()

"""The stage "features": trains the networks that judge, and fails unless their distance rises with defects."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from pipeline.data.store import ClipStore
from pipeline.evaluation.corruption_gate import check_gate, corruption_table, draw_table, rises, write_table
from pipeline.evaluation.extractors import InDomainFeatures, as_pixels
from pipeline.evaluation.metric_networks import (
    clip_encoder_spec,
    metric_clips,
    read_classes,
    train_clip_encoder,
    train_digit_reader,
)
from pipeline.interfaces import Progress
from pipeline.models.clip_encoder import ClipEncoder, save_clip_encoder
from pipeline.models.digit_reader import DigitReader, DigitReaderSpec, digit_reader_digest, save_digit_reader
from pipeline.rules import above, at_least, one_of
from pipeline.unit import Metrics

BATCH = 256

Network = TypeVar("Network")


@dataclass(frozen=True)
class TrainFeatures:
    """The clip encoder and the digit reader, trained on digits that neither the teacher nor the test sees.

    Short enough to start anew when it is interrupted. Features are standardised by the first half of the test
    clips, the reference of every distance; the second half, spoilt, is held against it.

    num_frames: of the clips that are compared. split: of the store, that the networks are trained on.
    encoder_steps, reader_steps, batch_size, reader_batch_size: the two trainings. num_gate_clips: on each side of
    the distance under corruption.
    """

    num_frames: int = 8
    split: str = "metric"
    encoder_steps: int = 500
    encoder_width: int = 12
    reader_steps: int = 500
    batch_size: int = 64
    reader_batch_size: int = 128
    learning_rate: float = 4e-3
    num_gate_clips: int = 1024
    seed: int = 0
    num_threads: int = 1

    def __post_init__(self) -> None:
        one_of(("train", "metric"), split=self.split)
        at_least(2, num_frames=self.num_frames, num_gate_clips=self.num_gate_clips)
        at_least(2, batch_size=self.batch_size, reader_batch_size=self.reader_batch_size)
        at_least(1, encoder_steps=self.encoder_steps, reader_steps=self.reader_steps, num_threads=self.num_threads)
        above(0, learning_rate=self.learning_rate)
        if self.encoder_width < 2 or self.encoder_width % 2:  # its channels are normalised in groups
            raise ValueError(f"encoder_width must be even and at least 2, got {self.encoder_width}")

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:
        """inputs: "clips", a clip store. Writes both networks, and the table of distances under corruption."""
        torch.set_num_threads(self.num_threads)
        out, show = directory / "out", directory / "show"
        out.mkdir(parents=True, exist_ok=True)
        show.mkdir(exist_ok=True)
        store = ClipStore(inputs["clips"])
        for split in (self.split, "test"):
            if store.clips(split).shape[1] < self.num_frames:
                raise ValueError(
                    f"clips must have at least num_frames: {split} has {store.clips(split).shape[1]}, "
                    f"num_frames={self.num_frames}"
                )
        encoder, reader = yield from self._train(store)
        test, classes = store.clips("test"), store.labels("test")["class"]
        half = len(test) // 2
        standardise(encoder, test[:half, : self.num_frames])
        facts: dict[str, object] = {
            "split": self.split,
            "trained_on": store.manifest["sha256"][f"{self.split}.npy"],
        }
        save_clip_encoder(encoder, out, facts)
        save_digit_reader(reader, out, facts)

        features = InDomainFeatures(out)
        count = min(self.num_gate_clips, half)
        table = corruption_table(
            features,
            reference=test[:count, : self.num_frames],
            held_out=test[half : half + count],
            classes=classes[half : half + count].reshape(count, -1)[:, 0],
            num_frames=self.num_frames,
            seed=self.seed,
        )
        write_table(table, show / "corruptions.csv")
        draw_table(table, show / "corruptions.png")
        check_gate(table)
        return {
            "encoder_digest": features.digest,
            "reader_digest": digit_reader_digest(out),
            "feature_dim": features.dim,
            "encoder_test_accuracy": encoder_accuracy(encoder, test[:half, : self.num_frames], classes[:half]),
            "reader_test_accuracy": reader_accuracy(reader, test[:half, : self.num_frames], classes[:half]),
            "floor": next(iter(table.values()))[0.0],
            "num_gate_clips": count,
            "rising_families": sum(rises(row) for row in table.values()),
            "num_families": len(table),
        }

    def _train(self, store: ClipStore) -> Generator[Progress, None, tuple[ClipEncoder, DigitReader]]:
        data = metric_clips(np.asarray(store.clips(self.split)), store.labels(self.split))
        spec = clip_encoder_spec(data.frames, num_frames=self.num_frames, width=self.encoder_width)
        total, rate = self.encoder_steps + self.reader_steps, self.learning_rate
        encoder = yield from _reported(
            train_clip_encoder(
                spec,
                data,
                num_steps=self.encoder_steps,
                batch_size=self.batch_size,
                learning_rate=rate,
                seed=self.seed,
            ),
            0,
            total,
        )
        reader = yield from _reported(
            train_digit_reader(
                DigitReaderSpec(num_channels=data.frames.shape[2]),
                data,
                num_steps=self.reader_steps,
                batch_size=self.reader_batch_size,
                learning_rate=rate,
                seed=self.seed,
            ),
            self.encoder_steps,
            total,
        )
        return encoder, reader


def _reported(
    training: Generator[tuple[int, dict[str, float]], None, Network], start: int, total: int
) -> Generator[Progress, None, Network]:
    """A training's steps as progress of the unit, its curve every tenth step; returns the network."""
    while True:
        try:
            step, losses = next(training)
        except StopIteration as end:
            return end.value
        yield Progress(start + step, total, losses if step % 10 == 0 else {})


@torch.no_grad()
def standardise(encoder: ClipEncoder, reference: np.ndarray) -> None:
    """Set the encoder's `mean` and `std` to those of its features of the reference clips, uint8 (N, T, C, H, W)."""
    clips = torch.from_numpy(np.array(reference))
    features = torch.cat([encoder.raw_features(as_pixels(part)) for part in clips.split(BATCH)]).double()
    encoder.mean.copy_(features.mean(dim=0))
    encoder.std.copy_(features.std(dim=0).clamp_min(1e-6))


@torch.no_grad()
def encoder_accuracy(encoder: ClipEncoder, frames: np.ndarray, classes: np.ndarray) -> float:
    """Share of held-out clips whose most probable class is one of theirs. classes: (N, K)."""
    clips = torch.from_numpy(np.array(frames))
    logits = [
        encoder.label_predictions(encoder.raw_features(as_pixels(part)))["class"] for part in clips.split(BATCH)
    ]
    read = torch.cat(logits).argmax(dim=1).numpy()
    return float((read[:, None] == classes.reshape(len(read), -1)).any(axis=1).mean())


def reader_accuracy(reader: DigitReader, frames: np.ndarray, classes: np.ndarray) -> float:
    """Share of held-out frames whose most probable class is one of their clip's. classes: (N, K)."""
    N, T = frames.shape[:2]
    read = read_classes(reader, np.array(frames).reshape(N * T, *frames.shape[2:])).numpy().reshape(N, T)
    return float((read[:, :, None] == classes.reshape(N, 1, -1)).any(axis=2).mean())

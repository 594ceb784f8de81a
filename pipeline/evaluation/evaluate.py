"""The stage "evaluate": a checkpoint's clips against the test clips, by every measure, in one record."""

import csv
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.data.moving_blob import described_blob
from pipeline.data.store import ClipStore, to_uint8
from pipeline.diffusion.autoregress import Sampler
from pipeline.evaluation.bits import BitsPerDimension
from pipeline.evaluation.comparison import ClipSets, compare, compare_fvd
from pipeline.evaluation.extractors import ByteVideo, InDomainFeatures, TorchScriptI3D, as_pixels
from pipeline.evaluation.known_density import compare_known_density
from pipeline.evaluation.latency import sampling_cost
from pipeline.evaluation.pictures import draw_animation, draw_samples
from pipeline.evaluation.sampling import SamplingCost, generate_latents, load_student, sample
from pipeline.interfaces import Progress, Video
from pipeline.models.codec import FrameCodec, load_codec
from pipeline.models.denoiser import Denoiser
from pipeline.models.digit_reader import digit_reader_digest, load_digit_reader
from pipeline.rules import at_least, one_of
from pipeline.streams import stream
from pipeline.unit import Metrics, digest_of

SPLITS = ("test", "metric")  # of clips that no model has seen: for results, and for choices
LONGER = 2  # times the training length, for drift
NUM_DRAWN = 8
NUM_ANIMATED = 16
NUM_MEASURES = 7  # steps of progress after the clips are there
CODEC_BATCH = 256


@dataclass(frozen=True)
class Evaluate:
    """Clips of the training length, and of twice that, against held-out real ones.

    num_frames: the training length. sampler: how the checkpoint makes frames. num_clips: n of every measure, on
    each side. batch_size: clips made at once. num_bootstraps: resamples for the intervals. num_neighbours: k of
    precision, recall, density, coverage. num_timed: single clips that are timed. i3d_path: a TorchScript I3D, whose
    file is then the input "i3d"; i3d_sha256: what its checksum must be; i3d_num_clips: n of its distance, on the
    longer clips. bits: how the likelihood is bounded, on the first of the held-out clips; None: it is not, as for
    few-step students, which are no density's denoiser. split: of the real clips, `test`, or `metric` where settings
    are chosen, so that no choice has seen the clips of a result.
    """

    num_frames: int = 8
    sampler: Sampler = field(default_factory=Sampler)
    split: str = "test"
    num_clips: int = 2048
    batch_size: int = 256
    num_bootstraps: int = 200
    num_neighbours: int = 5
    num_timed: int = 5
    i3d_path: str | None = None
    i3d_sha256: str | None = None
    i3d_num_clips: int = 256
    bits: BitsPerDimension | None = None
    seed: int = 0
    num_threads: int = 1

    def __post_init__(self) -> None:
        one_of(SPLITS, split=self.split)
        at_least(3, num_frames=self.num_frames)
        at_least(1, num_neighbours=self.num_neighbours, batch_size=self.batch_size)
        at_least(1, num_timed=self.num_timed, num_threads=self.num_threads)
        at_least(self.num_neighbours + 1, num_clips=self.num_clips)
        at_least(2, num_bootstraps=self.num_bootstraps, i3d_num_clips=self.i3d_num_clips)
        if self.i3d_num_clips > self.num_clips and self.i3d_path is not None:
            raise ValueError(
                f"i3d_num_clips must be at most num_clips: i3d_num_clips={self.i3d_num_clips}, "
                f"num_clips={self.num_clips}"
            )
        if self.bits is not None and self.bits.num_clips > self.num_clips:
            raise ValueError(
                f"num_clips of bits must be at most num_clips: bits.num_clips={self.bits.num_clips}, "
                f"num_clips={self.num_clips}"
            )
        if (self.i3d_path is None) != (self.i3d_sha256 is None):
            raise ValueError(
                f"i3d_path and i3d_sha256, the checksum of its file, must be given together: "
                f"i3d_path={self.i3d_path}, i3d_sha256={self.i3d_sha256}"
            )

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:
        """inputs: "clips", "features", "codec", "student", and "i3d" if there is one."""
        torch.set_num_threads(self.num_threads)
        (directory / "out").mkdir(parents=True, exist_ok=True)
        show = directory / "show"
        show.mkdir(exist_ok=True)
        store = ClipStore(inputs["clips"])
        reference, held_out = self._real_clips(store)
        codec = load_codec(inputs["codec"])
        student = load_student(inputs["student"], latents=digest_of(inputs["codec"] / "codec.json"))
        if self.bits is not None:
            self.bits.levels(student.spec.schedule)  # what it does not reach is refused before the work
        num_batches = -(-self.num_clips // self.batch_size)
        num_steps = (1 + LONGER) * num_batches + NUM_MEASURES + (self.bits is not None)
        done = 0
        made: dict[int, ByteVideo] = {}
        for factor in (1, LONGER):
            parts: list[ByteVideo] = []
            for part in self._sampled(student, codec, factor * self.num_frames):
                parts.append(part)
                done += factor
                yield Progress(done, num_steps)
            made[factor] = torch.cat(parts)
        sets = ClipSets(
            generated=made[1],
            longer=made[LONGER],
            reference=reference,
            held_out=held_out,
            reconstructed=through_codec(codec, held_out[:, : self.num_frames]),
            training=self._training_clips(store),
        )
        features, reader = InDomainFeatures(inputs["features"]), load_digit_reader(inputs["features"])
        metrics: Metrics = {
            "reader_checksum": digit_reader_digest(inputs["features"]),
            "sampling": self._cost(student),
        }
        for name, measured in compare(
            sets,
            features,
            reader,
            num_bootstraps=self.num_bootstraps,
            num_neighbours=self.num_neighbours,
            seed=self.seed,
        ):
            metrics[name] = measured
            done += 1
            yield Progress(done, num_steps)
        if self.bits is not None:
            clips = as_pixels(held_out[: self.bits.num_clips, : self.num_frames])
            metrics["bits_per_dim"] = self.bits.measure(student, codec, clips, seed=self.seed)
            done += 1
            yield Progress(done, num_steps)
        metrics["drift_slope"] = metrics["windows"]["slope"]
        blob = described_blob(store.manifest["source"])
        if blob is not None:
            metrics["known_density"] = compare_known_density(blob, sets)
        if self.i3d_path is not None:
            metrics["fvd_i3d"] = self._i3d(inputs["i3d"], sets)
        write_curve(metrics["frames"], "index", "distance", show / "frame_curve.csv")
        write_curve(metrics["windows"], "start", "fvd", show / "windows.csv")
        draw(sets, show, frames_per_s=store.manifest["frames_per_s"])
        return metrics

    def _real_clips(self, store: ClipStore) -> tuple[ByteVideo, ByteVideo]:
        """Reference and held-out clips, from the two halves of the split.

        Raises:
            ValueError: the store has too few of these clips, or too short ones.
        """
        clips = store.clips(self.split)
        half, longest = len(clips) // 2, clips.shape[1]
        if self.num_clips > half:
            raise ValueError(
                f"num_clips must be at most half of the {self.split} clips: num_clips={self.num_clips}, "
                f"{self.split} clips={len(clips)}"
            )
        if longest < LONGER * self.num_frames:
            raise ValueError(
                f"{self.split} clips must be at least {LONGER} times as long as num_frames: T={longest}, "
                f"num_frames={self.num_frames}"
            )
        starts = (0, half)
        reference, held_out = (
            torch.from_numpy(np.array(clips[start : start + self.num_clips, : LONGER * self.num_frames]))
            for start in starts
        )
        return reference, held_out

    def _training_clips(self, store: ClipStore) -> ByteVideo:
        train = store.clips("train")
        if len(train) < self.num_clips:
            raise ValueError(
                f"num_clips must be at most the training clips: num_clips={self.num_clips}, "
                f"training clips={len(train)}"
            )
        return torch.from_numpy(np.array(train[: self.num_clips, : self.num_frames]))

    def _sampled(self, student: Denoiser, codec: FrameCodec, num_frames: int) -> Iterator[ByteVideo]:
        """Generated clips, rounded to uint8 as the real ones are."""
        batches = generate_latents(
            student, self.num_clips, num_frames, sampler=self.sampler, batch_size=self.batch_size, seed=self.seed
        )
        for latents in batches:
            yield decoded(codec, latents)

    def _cost(self, student: Denoiser) -> dict[str, float]:
        def sample_one(run: int) -> SamplingCost:
            rng = stream(self.seed, "latency", run)
            return sample(student, 1, self.num_frames, sampler=self.sampler, rng=rng)[1]

        return sampling_cost(sample_one, self.num_frames, num_runs=self.num_timed)

    def _i3d(self, path: Path, sets: ClipSets) -> dict[str, Any]:
        network, count = TorchScriptI3D(path, self.i3d_sha256), self.i3d_num_clips
        ours, theirs, others = (network(clips[:count]) for clips in (sets.longer, sets.reference, sets.held_out))
        return compare_fvd(ours, theirs, others, network, num_bootstraps=self.num_bootstraps, seed=self.seed)


@torch.no_grad()
def decoded(codec: FrameCodec, latents: Video) -> ByteVideo:
    """Latents (B, T, c, h, w) as uint8 clips."""
    return torch.from_numpy(to_uint8(codec.decode(latents)))


@torch.no_grad()
def through_codec(codec: FrameCodec, clips: ByteVideo) -> ByteVideo:
    """Clips as the best model of the latents could make them."""
    return torch.cat([decoded(codec, codec.encode(as_pixels(part))) for part in clips.split(CODEC_BATCH)])


def write_curve(curve: Mapping[str, Any], place: str, distance: str, path: Path) -> None:
    """A line a place: where, the distance there, its floor."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([place, distance, "floor"])
        writer.writerows(zip(curve[place], curve[distance], curve["floor"], strict=True))


def draw(sets: ClipSets, show: Path, *, frames_per_s: float) -> None:
    """samples.png, samples.gif, real.gif, and the clips themselves (samples.npz), all of the longer kind."""
    generated, real = sets.longer[:NUM_ANIMATED].numpy(), sets.held_out[:NUM_ANIMATED].numpy()
    draw_samples(generated[:NUM_DRAWN], real[:NUM_DRAWN], show / "samples.png")
    draw_animation(generated, show / "samples.gif", frames_per_s=frames_per_s)
    draw_animation(real, show / "real.gif", frames_per_s=frames_per_s)
    np.savez(show / "samples.npz", generated=generated, real=real)

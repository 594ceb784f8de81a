"""Generated clips against real ones, by every measure that needs only pixels."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.evaluation.coverage import prdc
from pipeline.evaluation.drift import distance_curve, frame_curve, frame_features, window_features, window_starts
from pipeline.evaluation.extractors import ByteVideo, InDomainFeatures, VideoFeatures
from pipeline.evaluation.frechet import Features, frechet_distance
from pipeline.evaluation.fvd import fvd
from pipeline.evaluation.identity import compare_identity
from pipeline.evaluation.kinematics import compare_motion
from pipeline.models.digit_reader import DigitReader
from pipeline.streams import numpy_stream


@dataclass(frozen=True)
class ClipSets:
    """What is compared: uint8 clips, n of each.

    generated: of the training length. longer: generated, of a multiple of it. reference, held_out: real clips as
    long as `longer`; every distance is measured from the reference, held-out ones give its floor. reconstructed:
    held-out clips of the training length, through the codec. training: what the model was to imitate, whose digits
    are others than those of the reference: a perfect model's excess is theirs.
    """

    generated: ByteVideo
    longer: ByteVideo
    reference: ByteVideo
    held_out: ByteVideo
    reconstructed: ByteVideo
    training: ByteVideo

    @property
    def num_frames(self) -> int:
        """The training length."""
        return self.generated.shape[1]


def compare(
    sets: ClipSets,
    features: InDomainFeatures,
    reader: DigitReader,
    *,
    num_bootstraps: int,
    num_neighbours: int,
    seed: int,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The measures one by one, by name; values are JSON data."""
    T = sets.num_frames
    real_windows = window_features(features, sets.reference, T)
    floor_windows = window_features(features, sets.held_out, T)
    longer_windows = window_features(features, sets.longer, T)
    ours, theirs, others = features(sets.generated), real_windows[0], floor_windows[0]

    result = compare_fvd(ours, theirs, others, features, num_bootstraps=num_bootstraps, seed=seed)
    for name, clips in (("codec", sets.reconstructed), ("training", sets.training)):
        result[f"{name}_excess"] = frechet_distance(features(clips), theirs) - result["floor"]
    yield "fvd", result
    yield (
        "coverage",
        {**asdict(prdc(ours, theirs, num_neighbours=num_neighbours)), "num_neighbours": num_neighbours},
    )
    yield "coverage_real", asdict(prdc(others, theirs, num_neighbours=num_neighbours))

    starts = window_starts(sets.longer.shape[1], T)
    windows = distance_curve(starts, longer_windows, real_windows, floor_windows)
    yield (
        "windows",
        {
            "start": windows.position,
            "fvd": windows.distance,
            "floor": windows.floor,
            "slope": windows.slope,
            "length": T,
        },
    )
    frames = frame_curve(*(frame_features(reader, clips) for clips in (sets.longer, sets.reference, sets.held_out)))
    yield (
        "frames",
        {"index": frames.position, "distance": frames.distance, "floor": frames.floor, "slope": frames.slope},
    )

    real = sets.held_out[:, :T]
    yield "kinematics", compare_motion(sets.generated.numpy(), real.numpy())
    yield "identity", compare_identity(reader, sets.generated, sets.longer, real, sets.reconstructed)


def compare_fvd(
    ours: Features, theirs: Features, others: Features, features: VideoFeatures, *, num_bootstraps: int, seed: int
) -> dict[str, Any]:
    """FVD with its floor and intervals, and the network that it depends on."""
    rng = numpy_stream(seed, f"bootstrap/{features.name}")
    result = fvd(ours, theirs, others, num_bootstraps=num_bootstraps, rng=rng)
    return {**asdict(result), "network": features.name, "checksum": features.digest}

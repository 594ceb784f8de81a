"""Trains the two networks that judge: the clip encoder (labels, and strength of a corruption), the digit reader."""

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.store import to_video
from pipeline.evaluation.corruptions import PRETEXT, spoil
from pipeline.models.clip_encoder import ClipEncoder, ClipEncoderSpec
from pipeline.models.digit_reader import NUM_CLASSES, DigitReader, DigitReaderSpec, Frames
from pipeline.streams import stream, stream_seed

CORRUPTION_WEIGHT = 20.0
WARMUP_STEPS = 20
LABELS = ("class", "position", "velocity")

# The affine maps that the reader sees its digits under: one standard deviation would be 0.58 of each.
MAX_ANGLE, MAX_LOG_SCALE, MAX_LOG_ASPECT, MAX_SHEAR = 0.15, 0.1, 0.075, 0.15


@dataclass(frozen=True)
class MetricClips:
    """Clips with what a metric network is taught.

    frames: uint8 (N, T, C, H, W). class_share: of a clip's digits in each class (N, 10). position, velocity: means
    over its digits, standardised (N, T, 2).
    """

    frames: np.ndarray
    class_share: Tensor
    position: Tensor
    velocity: Tensor


def metric_clips(frames: np.ndarray, labels: Mapping[str, np.ndarray]) -> MetricClips:
    """From a split of the store.

    Raises:
        ValueError: a label is missing.
    """
    missing = [name for name in LABELS if name not in labels]
    if missing:
        raise ValueError(f"metric networks need the labels {', '.join(LABELS)}: missing {', '.join(missing)}")
    classes = torch.from_numpy(labels["class"]).long().reshape(len(frames), -1)
    return MetricClips(
        frames=frames,
        class_share=F.one_hot(classes, NUM_CLASSES).float().mean(dim=1),
        position=_standardised(labels["position"]),
        velocity=_standardised(labels["velocity"]),
    )


def _standardised(label: np.ndarray) -> Float[Tensor, "N T 2"]:
    values = torch.from_numpy(label).float().mean(dim=2)
    return (values - values.mean()) / values.std().clamp_min(1e-6)


def train_clip_encoder(
    spec: ClipEncoderSpec, data: MetricClips, *, num_steps: int, batch_size: int, learning_rate: float, seed: int
) -> Generator[tuple[int, dict[str, float]], None, ClipEncoder]:
    """Recipe "both": labels of clean clips, and 20 times the squared error of a random corruption's strength.

    Yields (step, losses); returns the encoder, not yet standardised.
    """
    torch.manual_seed(stream_seed(seed, "clip_encoder/init"))
    encoder = ClipEncoder(spec)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=learning_rate, weight_decay=1e-4)
    rng = stream(seed, "clip_encoder/train")
    last_start = data.frames.shape[1] - spec.num_frames
    for step in range(num_steps):
        _set_rate(optimizer, learning_rate, step, num_steps)
        clip = torch.randint(len(data.frames), (batch_size,), generator=rng)
        start = torch.randint(last_start + 1, (batch_size, 1), generator=rng)
        frame = start + torch.arange(spec.num_frames)
        video = to_video(data.frames[clip[:, None].numpy(), frame.numpy()])
        spoilt, strengths = spoil(video, rng)
        clean_features, spoilt_features = encoder.raw_features(torch.cat([video, spoilt])).chunk(2)
        predicted = encoder.label_predictions(clean_features)
        losses = {
            "class_loss": F.cross_entropy(predicted["class"], data.class_share[clip]),
            "position_loss": F.mse_loss(predicted["position"], data.position[clip[:, None], frame].flatten(1)),
            "velocity_loss": F.mse_loss(predicted["velocity"], data.velocity[clip[:, None], frame].flatten(1)),
            "corruption_loss": F.mse_loss(encoder.corruption_strengths(spoilt_features), strengths),
        }
        weights = {"corruption_loss": CORRUPTION_WEIGHT}
        total = torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        yield step + 1, {name: loss.item() for name, loss in losses.items()}
    return encoder.eval().requires_grad_(False)


def train_digit_reader(
    spec: DigitReaderSpec, data: MetricClips, *, num_steps: int, batch_size: int, learning_rate: float, seed: int
) -> Generator[tuple[int, dict[str, float]], None, DigitReader]:
    """Single frames under small random affine maps: their class, and their centre of mass.

    Yields (step, losses); returns the reader.
    """
    torch.manual_seed(stream_seed(seed, "digit_reader/init"))
    reader = DigitReader(spec)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=learning_rate, weight_decay=1e-2)
    rng = stream(seed, "digit_reader/train")
    for step in range(num_steps):
        _set_rate(optimizer, learning_rate, step, num_steps)
        clip = torch.randint(len(data.frames), (batch_size,), generator=rng)
        frame = torch.randint(data.frames.shape[1], (batch_size,), generator=rng)
        frames = warped(to_video(data.frames[clip.numpy(), frame.numpy()]), rng)
        features = reader.features(frames)
        losses = {
            "reader_class_loss": F.cross_entropy(reader.class_logits(features), data.class_share[clip]),
            "reader_place_loss": F.mse_loss(reader.places(features), centre_of_mass(frames)),
        }
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        yield step + 1, {name: loss.item() for name, loss in losses.items()}
    return reader.eval().requires_grad_(False)


def _set_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, num_steps: int) -> None:
    """Linear warm-up, then a cosine to nothing."""
    share = min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / num_steps))
    for group in optimizer.param_groups:
        group["lr"] = peak * share


def centre_of_mass(frames: Frames) -> Float[Tensor, "N 2"]:
    """(y, x) of the light, each in [-1, 1] across the frame, pixel centres at the odd places; 0 in the dark."""
    light = (frames + 1).clamp_min(0).sum(dim=1)
    mass = light.sum(dim=(1, 2)).clamp_min(1e-3)
    H, W = light.shape[1:]
    y, x = (torch.arange(size) * 2 + 1 - size for size in (H, W))
    return torch.stack([(light.sum(2) * y / H).sum(1) / mass, (light.sum(1) * x / W).sum(1) / mass], dim=1)


def warped(frames: Frames, rng: torch.Generator) -> Frames:
    """Each frame turned, scaled and sheared a little about its centre of mass, black around it."""
    B = len(frames)
    angle, log_scale, log_aspect, shear = torch.rand(4, B, generator=rng) * 2 - 1
    angle, scale, aspect = (
        MAX_ANGLE * angle,
        torch.exp(MAX_LOG_SCALE * log_scale),
        torch.exp(MAX_LOG_ASPECT * log_aspect),
    )
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(B, 2, 2)
    zero = torch.zeros(B)
    stretch = torch.stack([scale * aspect, MAX_SHEAR * shear, zero, scale / aspect], dim=1).view(B, 2, 2)
    matrix = turn @ stretch
    centre = centre_of_mass(frames).flip(1).unsqueeze(2)  # grid_sample's order is (x, y)
    maps = torch.cat([matrix, centre - matrix @ centre], dim=2)
    grid = F.affine_grid(maps, list(frames.shape), align_corners=False)
    return F.grid_sample(frames + 1, grid, align_corners=False) - 1


def read_classes(reader: DigitReader, frames: np.ndarray, batch_size: int = 2048) -> Int64[Tensor, " N"]:
    """The class of each uint8 frame (N, C, H, W)."""
    with torch.no_grad():
        parts = [reader.read(to_video(frames[at : at + batch_size])) for at in range(0, len(frames), batch_size)]
    return torch.cat(parts)


def clip_encoder_spec(frames: np.ndarray, *, num_frames: int, width: int) -> ClipEncoderSpec:
    """The encoder for clips like uint8 (N, T, C, H, W), of `num_frames` frames."""
    _, _, C, H, W = frames.shape
    if H != W:
        raise ValueError(f"the clip encoder needs square frames: H={H}, W={W}")
    return ClipEncoderSpec(
        num_frames=num_frames,
        num_channels=C,
        frame_size=H,
        width=width,
        num_classes=NUM_CLASSES,
        num_corruptions=len(PRETEXT),
    )

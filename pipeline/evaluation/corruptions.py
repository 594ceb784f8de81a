"""Known defects of video in graded strength: the encoder learns to see some, its distance must rise with all."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.data.store import to_video
from pipeline.interfaces import Video

Strength = Float[Tensor, " B"]  # of each clip
Apply = Callable[[Video, Strength, torch.Generator], Video]

LONGEST_SPEED = 2.0
SPEEDS = (1.1, 1.25, 1.5, 1.75, LONGEST_SPEED)
CLASSES_DROPPED = (1, 2, 4, 6, 9)


def blur(video: Video, strength: Strength, rng: torch.Generator) -> Video:
    """Gaussian blur of each frame; strength = standard deviation in pixels."""
    del rng
    return _blurred(video, strength[:, None].expand(video.shape[:2]))


def noise(video: Video, strength: Strength, rng: torch.Generator) -> Video:
    """White noise, clipped; strength = standard deviation as a share of the range of pixels."""
    return _noisy(video, strength[:, None].expand(video.shape[:2]), rng)


def shuffle(video: Video, strength: Strength, rng: torch.Generator) -> Video:
    """Strength = number of times that two random frames change places."""
    B, T = video.shape[:2]
    clip, order = torch.arange(B), torch.arange(T).repeat(B, 1)
    for swap in range(int(strength.max())):
        first, second = torch.randint(T, (2, B), generator=rng)
        second = torch.where(swap < strength, second, first)
        order[clip, first], order[clip, second] = order[clip, second].clone(), order[clip, first].clone()
    return video[clip[:, None], order]


def freeze(video: Video, strength: Strength, rng: torch.Generator) -> Video:
    """Strength = share of the clip, from its end, in which nothing moves."""
    del rng
    B, T = video.shape[:2]
    last_moving = ((1 - strength) * (T - 1)).round().long()
    return video[torch.arange(B)[:, None], torch.minimum(torch.arange(T), last_moving[:, None])]


def slow(video: Video, strength: Strength, rng: torch.Generator) -> Video:
    """Frame t shows what frame t / (1 + strength), rounded down, should."""
    del rng
    B, T = video.shape[:2]
    shown = (torch.arange(T) / (1 + strength[:, None])).floor().long()
    return video[torch.arange(B)[:, None], shown]


def drift_noise(video: Video, strength: Strength, rng: torch.Generator) -> Video:
    """Noise that grows evenly from none to `strength` in the last frame."""
    return _noisy(video, _ramp(video, strength), rng)


def drift_fade(video: Video, strength: Strength, rng: torch.Generator) -> Video:
    """Light that falls evenly by the share `strength`."""
    del rng
    return (video + 1) * (1 - _ramp(video, strength)[:, :, None, None, None]) - 1


def drift_blur(video: Video, strength: Strength, rng: torch.Generator) -> Video:
    """Blur that grows evenly from none to `strength` pixels."""
    del rng
    return _blurred(video, _ramp(video, strength))


def ghost(video: Video, strength: Strength, rng: torch.Generator) -> Video:
    """Each frame keeps the share `strength` of the one before: the average that a regression makes of futures."""
    del rng
    keep = strength[:, None, None, None]
    frames = [video[:, 0]]
    for t in range(1, video.shape[1]):
        frames.append(keep * frames[-1] + (1 - keep) * video[:, t])
    return torch.stack(frames, dim=1)


def jitter(video: Video, strength: Strength, rng: torch.Generator) -> Video:
    """Each frame jumps with probability `strength`, by up to two pixels either way, around the edge."""
    B, T, _, H, W = video.shape
    jumps = torch.rand(B, T, generator=rng) < strength[:, None]
    dy, dx = torch.randint(-2, 3, (2, B, T), generator=rng) * jumps
    rows = (torch.arange(H) - dy[:, :, None]) % H
    columns = (torch.arange(W) - dx[:, :, None]) % W
    clip, frame = torch.arange(B)[:, None, None, None], torch.arange(T)[:, None, None]
    moved = video.movedim(2, -1)[clip, frame, rows[:, :, :, None], columns[:, :, None, :]]
    return moved.movedim(-1, 2)


def cut(video: Video, strength: Strength, rng: torch.Generator) -> Video:
    """With probability `strength` the second half is that of another clip: identity and path are lost."""
    B, T = video.shape[:2]
    is_cut = torch.rand(B, generator=rng) < strength
    is_other = is_cut[:, None] & (torch.arange(T) >= T // 2)
    return torch.where(is_other[:, :, None, None, None], video.roll(1, dims=0), video)


def _ramp(video: Video, strength: Strength) -> Float[Tensor, "B T"]:
    return strength[:, None] * torch.linspace(0, 1, video.shape[1])


def _noisy(video: Video, std: Float[Tensor, "B T"], rng: torch.Generator) -> Video:
    eps = torch.randn(video.shape, generator=rng)
    return (video + 2 * std[:, :, None, None, None] * eps).clamp(-1, 1)


def _blurred(video: Video, sigma: Float[Tensor, "B T"]) -> Video:
    """Separable: rows, then columns, each by a matrix whose rows are Gaussians that sum to 1."""
    rows, columns = (_gaussian_rows(sigma, size)[:, :, None] for size in video.shape[-2:])
    return rows @ video @ columns.transpose(-1, -2)


def _gaussian_rows(sigma: Float[Tensor, "B T"], size: int) -> Float[Tensor, "B T S S"]:
    """Weights of each position's neighbours, itself among them; at sigma 0 the identity."""
    place = torch.arange(size)
    distance = (place[:, None] - place[None, :]) ** 2
    weights = torch.exp(-distance / (2 * sigma.clamp_min(1e-3)[:, :, None, None] ** 2))
    return weights / weights.sum(dim=-1, keepdim=True)


@dataclass(frozen=True)
class Corruption:
    """A way to spoil a clip, and five strengths of it, from hardly visible to gross."""

    apply: Apply
    levels: tuple[float, ...]


CORRUPTIONS: dict[str, Corruption] = {
    "blur": Corruption(blur, (0.4, 0.6, 0.8, 1.2, 2.0)),
    "noise": Corruption(noise, (0.02, 0.05, 0.1, 0.2, 0.4)),
    "shuffle": Corruption(shuffle, (1.0, 2.0, 4.0, 8.0, 32.0)),
    "freeze": Corruption(freeze, (0.2, 0.4, 0.6, 0.8, 1.0)),
    "drift_noise": Corruption(drift_noise, (0.05, 0.1, 0.2, 0.4, 0.8)),
    "drift_fade": Corruption(drift_fade, (0.1, 0.2, 0.4, 0.6, 0.9)),
    "drift_blur": Corruption(drift_blur, (0.5, 0.8, 1.2, 2.0, 3.0)),
    "ghost": Corruption(ghost, (0.1, 0.2, 0.4, 0.6, 0.8)),
    "jitter": Corruption(jitter, (0.05, 0.1, 0.2, 0.4, 0.8)),
    "cut": Corruption(cut, (0.05, 0.1, 0.2, 0.4, 0.8)),
}

# What the encoder is trained to see, and the greatest strength of each.
PRETEXT: tuple[tuple[Apply, float], ...] = ((blur, 2.0), (noise, 0.4), (shuffle, 8.0), (freeze, 0.9), (slow, 1.0))


def spoil(video: Video, rng: torch.Generator) -> tuple[Video, Float[Tensor, "B K"]]:
    """Apply to each clip one kind of PRETEXT, or none, in random strength.

    Returns the clips, and the share of its greatest strength that each kind was applied in, 0 for all but one.
    """
    B = len(video)
    kind = torch.randint(len(PRETEXT) + 1, (B,), generator=rng)
    share = torch.rand(B, generator=rng)
    spoilt, target = video.clone(), torch.zeros(B, len(PRETEXT))
    for index, (apply, greatest) in enumerate(PRETEXT):
        chosen = torch.nonzero(kind == index).squeeze(1)
        if len(chosen) > 0:
            spoilt[chosen] = apply(video[chosen], greatest * share[chosen], rng)
            target[chosen, index] = share[chosen]
    return spoilt, target


def corrupted_sets(
    frames: np.ndarray, classes: np.ndarray, num_frames: int, rng: torch.Generator
) -> Iterator[tuple[str, float, Video]]:
    """Every family at every level: (family, level, clips of `num_frames` frames).

    frames: uint8 (N, T', C, H, W), T' at least num_frames. classes: integers (N,).

    Beside CORRUPTIONS: `mode_drop` (so many classes are missing; as many clips, drawn from the others) and, where
    clips are long enough, `speed` (so many times too fast).
    """
    video = to_video(frames[:, :num_frames])
    for family, corruption in CORRUPTIONS.items():
        for level in corruption.levels:
            yield family, level, corruption.apply(video, torch.full((len(video),), float(level)), rng)
    present = np.unique(classes)
    for dropped in CLASSES_DROPPED:
        kept = torch.from_numpy(np.flatnonzero(np.isin(classes, present[: max(0, len(present) - dropped)])))
        if len(kept) > 0:
            yield "mode_drop", dropped, video[kept[torch.randint(len(kept), (len(video),), generator=rng)]]
    if frames.shape[1] > math.ceil(LONGEST_SPEED * (num_frames - 1)):
        for speed in SPEEDS:
            yield "speed", speed, to_video(frames[:, np.round(speed * np.arange(num_frames)).astype(int)])

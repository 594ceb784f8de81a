"""Real handwritten digits in sub-pixel motion, bouncing from the walls in a random new direction."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from pipeline.data.store import SPLITS, Clips
from pipeline.rules import above, at_least, within
from pipeline.streams import numpy_stream

NATIVE_SIZE = 8  # pixels a side of the images that scikit-learn ships
SPLIT_SEED = 0  # the same images are held out whatever the seed of a run


@dataclass(frozen=True)
class MovingDigits:
    """The 1,797 8x8 digits that scikit-learn ships (UCI optical recognition, real handwriting), moving.

    A digit starts anywhere, in any direction, and moves straight on. At a wall its position is reflected, and a new
    direction (pointing inwards) and speed are drawn: the only randomness after the first frame, beside turns. The
    process is memoryless, so clips of any length show the same law. After the stochastic Moving MNIST of SVG,
    arXiv:1802.07687, with speeds in fractions of a pixel.

    frame_size, digit_size: pixels a side. speed_min, speed_max: pixels a frame. turn_probability: that a digit
    turns left or right by 90 degrees, each frame. train_share, metric_share: of the digit images; the rest is for
    test.
    """

    frame_size: int = 16
    digit_size: int = 8
    num_digits: int = 1
    speed_min: float = 0.5
    speed_max: float = 1.5
    turn_probability: float = 0.0
    train_share: float = 0.60
    metric_share: float = 0.25
    frames_per_s: float = 8.0

    def __post_init__(self) -> None:
        at_least(4, digit_size=self.digit_size)
        at_least(1, num_digits=self.num_digits)
        if self.frame_size <= self.digit_size:
            raise ValueError(
                f"frame_size must be above digit_size: frame_size={self.frame_size}, digit_size={self.digit_size}"
            )
        if not 0 < self.speed_min <= self.speed_max:
            raise ValueError(
                f"speed_min must be above 0 and at most speed_max: speed_min={self.speed_min}, "
                f"speed_max={self.speed_max}"
            )
        if self.speed_max > self.travel:
            raise ValueError(
                f"speed_max must be at most frame_size - digit_size: speed_max={self.speed_max}, "
                f"frame_size={self.frame_size}, digit_size={self.digit_size}"
            )
        within(0, 1, turn_probability=self.turn_probability)
        within(0.05, 0.9, train_share=self.train_share, metric_share=self.metric_share)
        if self.train_share + self.metric_share > 0.95:
            raise ValueError(
                f"train_share + metric_share must be at most 0.95: train_share={self.train_share}, "
                f"metric_share={self.metric_share}"
            )
        above(0, frames_per_s=self.frames_per_s)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        return 1, self.frame_size, self.frame_size

    @property
    def num_classes(self) -> int:
        return 10 if self.num_digits == 1 else 0

    @property
    def travel(self) -> int:
        """Pixels between the walls, for a digit's upper left corner."""
        return self.frame_size - self.digit_size

    def caption(self, labels: Mapping[str, np.ndarray], clip: int) -> str:
        return " ".join(str(digit) for digit in labels["class"][clip])

    def split_images(self, split: str) -> np.ndarray:
        """Which of the 1,797 images a split shows: disjoint between splits."""
        order = numpy_stream(SPLIT_SEED, "moving_digits/images").permutation(len(digit_images(self.digit_size)[1]))
        first, second = (
            round(share * len(order)) for share in (self.train_share, self.train_share + self.metric_share)
        )
        shares = (order[:first], order[first:second], order[second:])
        return shares[SPLITS.index(split)]

    def clips(self, split: str, num_clips: int, num_frames: int, rng: np.random.Generator) -> Clips:
        """Independent clips and their labels, by digit K = num_digits.

        Labels: class, image (N, K); position, the upper left corner (y, x) in pixels (N, T, K, 2); velocity in
        pixels a frame, with which the digit leaves the frame (N, T, K, 2); bounce, whether it met a wall on its way
        into the frame (N, T, K); turn, +1 left, -1 right or 0, in the frame (N, T, K). Between frames without a
        bounce, position[t + 1] = position[t] + velocity[t].
        """
        images, classes = digit_images(self.digit_size)
        image = rng.choice(self.split_images(split), size=(num_clips, self.num_digits))
        position, velocity, bounce, turn = self._motion(num_clips, num_frames, rng)
        frames = np.zeros((num_clips, num_frames, *self.frame_shape), np.uint8)
        for t in range(num_frames):
            canvas = np.zeros((num_clips, self.frame_size, self.frame_size), np.float32)
            for k in range(self.num_digits):
                canvas += placed(images[image[:, k]], position[:, t, k], self.frame_size)
            frames[:, t, 0] = np.clip(np.round(canvas), 0, 255)
        labels = {
            "class": classes[image].astype(np.int64),
            "image": image.astype(np.int64),
            "position": position.astype(np.float32),
            "velocity": velocity.astype(np.float32),
            "bounce": bounce,
            "turn": turn,
        }
        return Clips(frames, labels)

    def _motion(
        self, num_clips: int, num_frames: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """position, velocity (N, T, K, 2), bounce, turn (N, T, K)."""
        each = (num_clips, self.num_digits)
        position, velocity = np.empty((2, num_clips, num_frames, self.num_digits, 2))
        bounce = np.zeros((num_clips, num_frames, self.num_digits), bool)
        turn = np.zeros(bounce.shape, np.int8)
        where, towards = rng.uniform(0, self.travel, (*each, 2)), self._velocities(each, rng)
        for t in range(num_frames):
            if t > 0:
                where, towards, bounce[:, t] = self._step(where, towards, rng)
            turn[:, t] = np.where(rng.random(each) < self.turn_probability, rng.choice([-1, 1], each), 0)
            towards = turned(towards, turn[:, t])
            position[:, t], velocity[:, t] = where, towards
        return position, velocity, bounce, turn

    def _step(
        self, where: np.ndarray, towards: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One frame on: reflected at the walls; where one was met, a new velocity that points away from it."""
        ahead = where + towards
        low, high = ahead < 0, ahead > self.travel
        reflected = np.where(low, -ahead, np.where(high, 2 * self.travel - ahead, ahead))
        drawn = self._velocities(where.shape[:-1], rng)
        inwards = np.where(low, np.abs(drawn), np.where(high, -np.abs(drawn), drawn))
        met = np.any(low | high, axis=-1)
        return reflected, np.where(np.expand_dims(met, -1), inwards, towards), np.asarray(met)

    def _velocities(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Uniform directions and speeds, (*shape, 2) as (y, x)."""
        angle, speed = rng.uniform(0, 2 * math.pi, shape), rng.uniform(self.speed_min, self.speed_max, shape)
        return np.stack([np.sin(angle), np.cos(angle)], axis=-1) * speed[..., None]


def turned(velocity: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Velocities (..., 2) as (y, x) by 90 degrees to the left (+1), to the right (-1) or not (0); y points down."""
    y, x = velocity[..., 0], velocity[..., 1]
    return np.where((turn == 0)[..., None], velocity, np.stack([-x * turn, y * turn], axis=-1))


def placed(images: np.ndarray, position: np.ndarray, frame_size: int) -> np.ndarray:
    """Each image on an empty frame, its upper left corner at (y, x) between pixels: bilinear, so mass is kept.

    images: float32 (N, S, S). position: (N, 2) in pixels, in [0, frame_size - S].
    Returns (N, frame_size, frame_size).
    """
    N, size, _ = images.shape
    corner = np.floor(position).astype(int)
    rest = (position - corner).astype(np.float32)[:, :, None, None]
    spread = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    spread = (1 - rest[:, 0]) * spread[:, 1:] + rest[:, 0] * spread[:, :-1]
    spread = (1 - rest[:, 1]) * spread[:, :, 1:] + rest[:, 1] * spread[:, :, :-1]
    # One row and column more than the frame: at the far wall the last ones have weight 0.
    canvas = np.zeros((N, frame_size + 1, frame_size + 1), np.float32)
    reach = np.arange(size + 1)
    rows, columns = (corner[:, axis, None] + reach for axis in (0, 1))
    canvas[np.arange(N)[:, None, None], rows[:, :, None], columns[:, None, :]] = spread
    return canvas[:, :-1, :-1]


@cache
def digit_images(size: int) -> tuple[np.ndarray, np.ndarray]:
    """All digits as float32 (1797, size, size) in [0, 255], and their classes (1797,)."""
    from PIL import Image
    from sklearn.datasets import load_digits

    pixels, classes = (np.asarray(array) for array in load_digits(return_X_y=True))
    images = pixels.astype(np.float32).reshape(-1, NATIVE_SIZE, NATIVE_SIZE) * (255 / 16)
    if size != NATIVE_SIZE:
        resized = [Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC) for image in images]
        images = np.clip(np.stack([np.asarray(image) for image in resized]), 0, 255)
    return images, classes

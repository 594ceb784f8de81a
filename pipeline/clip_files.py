"""Files of clips, written frame by frame: .gif, .png, .mp4 for people, .npy for programs."""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pipeline.rules import above, at_least

GAP, BACKGROUND = 2, 250  # pixels between pictures, and their grey

Frame = UInt8[np.ndarray, "N H W C"]  # of all clips at one time
Picture = UInt8[np.ndarray, "h w C"]


@dataclass(frozen=True)
class Layout:
    """num_frames: of a clip. scale: screen pixels a pixel, for people. frames_per_s: at which clips are played."""

    num_frames: int
    scale: int = 8
    frames_per_s: float = 8.0

    def __post_init__(self) -> None:
        at_least(1, num_frames=self.num_frames, scale=self.scale)
        above(0, frames_per_s=self.frames_per_s)


def write_gif(frames: Iterator[Frame], path: Path, layout: Layout) -> None:
    """Clips side by side, playing for ever."""
    pictures = (_image(_screen(frame, layout)) for frame in frames)
    first = next(pictures)
    duration = round(1000 / layout.frames_per_s)
    first.save(path, "GIF", save_all=True, append_images=pictures, duration=duration, loop=0)


def write_png(frames: Iterator[Frame], path: Path, layout: Layout) -> None:
    """A row a clip, a column a frame."""
    by_clip = np.stack(list(frames), axis=1)
    _image(tiled(by_clip.reshape(-1, *by_clip.shape[2:]), layout.num_frames, layout.scale)).save(path, "PNG")


def write_npy(frames: Iterator[Frame], path: Path, layout: Layout) -> None:
    """The clips themselves: uint8 (N, T, H, W, C), neither enlarged nor side by side."""
    clips = None
    for index, frame in enumerate(frames):
        if clips is None:
            shape = (len(frame), layout.num_frames, *frame.shape[1:])
            clips = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        clips[:, index] = frame
    assert clips is not None
    clips.flush()


def write_mp4(frames: Iterator[Frame], path: Path, layout: Layout) -> None:
    """Clips side by side, H.264."""
    import av  # pyright: ignore[reportMissingImports] - optional

    with av.open(path, "w", format="mp4") as container:
        track = None
        for frame in frames:
            rgb = _even_rgb(_screen(frame, layout))
            if track is None:
                track = container.add_stream("libx264", Fraction(layout.frames_per_s).limit_denominator(1000))
                track.pix_fmt = "yuv420p"  # the one that every player knows; it needs even sides
                track.height, track.width = rgb.shape[:2]
            container.mux(track.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
        assert track is not None
        container.mux(track.encode())


Writer = Callable[[Iterator[Frame], Path, Layout], None]
WRITERS: dict[str, Writer] = {".gif": write_gif, ".png": write_png, ".npy": write_npy, ".mp4": write_mp4}


def writer_of(path: Path) -> Writer:
    """Which writer the suffix names. Raises ValueError: an unknown suffix, or .mp4 without PyAV."""
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise ValueError(f"the suffix of a clip must be one of {', '.join(WRITERS)}, got {path}")
    if suffix == ".mp4" and importlib.util.find_spec("av") is None:
        raise ValueError(f".mp4 is written by PyAV, which is not installed (pip install av): {path}")
    return WRITERS[suffix]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its name at the end, and is gone when that is not reached.

    Raises:
        OSError: `path` is a directory, or nothing can be written beside it.
    """
    if path.is_dir():
        raise IsADirectoryError(f"a clip must be a file, and this is a directory: {path}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.touch()
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # where nothing could be written, nothing is there
            temporary.unlink(missing_ok=True)


def tiled(pictures: UInt8[np.ndarray, "M H W C"], num_columns: int, scale: int) -> Picture:
    """Pictures row by row on a sheet, enlarged by whole pixels."""
    num_rows = -(-len(pictures) // num_columns)
    enlarged = pictures.repeat(scale, axis=1).repeat(scale, axis=2)
    missing = num_rows * num_columns - len(pictures)
    cells = np.pad(enlarged, ((0, missing), (0, GAP), (0, GAP), (0, 0)), constant_values=BACKGROUND)
    _, h, w, C = cells.shape
    sheet = cells.reshape(num_rows, num_columns, h, w, C).swapaxes(1, 2).reshape(num_rows * h, num_columns * w, C)
    return np.pad(sheet, ((GAP, 0), (GAP, 0), (0, 0)), constant_values=BACKGROUND)


def _screen(frame: Frame, layout: Layout) -> Picture:
    """All clips at one time, in a square as nearly as can be."""
    return tiled(frame, int(np.ceil(np.sqrt(len(frame)))), layout.scale)


def _even_rgb(picture: Picture) -> UInt8[np.ndarray, "even_h even_w 3"]:
    h, w, C = picture.shape
    even = np.pad(picture, ((0, h % 2), (0, w % 2), (0, 0)), constant_values=BACKGROUND)
    return np.ascontiguousarray(even.repeat(3 // C, axis=2))


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)

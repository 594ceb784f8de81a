"""Generated clips beside real ones, as a still and as animations, for people to look at."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.contact_sheet import BACKGROUND, GAP, contact_sheet, magnified

GRID_COLUMNS = 4


def draw_samples(generated: np.ndarray, real: np.ndarray, path: Path) -> None:
    """Two sheets side by side: a row a clip, a column a frame. Both uint8 (N, T, C, H, W)."""
    sheets = [
        contact_sheet(list(clips), [str(row + 1) for row in range(len(clips))], title)
        for clips, title in ((generated, "generated"), (real, "real, held out"))
    ]
    width, height = sum(sheet.width for sheet in sheets), max(sheet.height for sheet in sheets)
    picture = Image.new("RGB", (width, height), BACKGROUND)
    picture.paste(sheets[0], (0, 0))
    picture.paste(sheets[1], (sheets[0].width, 0))
    picture.save(path)


def draw_animation(clips: np.ndarray, path: Path, *, frames_per_s: float) -> None:
    """Clips uint8 (N, T, C, H, W) playing at once in a grid, for ever."""
    frames = [_grid([magnified(clip[t]) for clip in clips]) for t in range(clips.shape[1])]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=round(1000 / frames_per_s), loop=0)


def _grid(pictures: list[Image.Image]) -> Image.Image:
    width, height = pictures[0].width + GAP, pictures[0].height + GAP
    num_rows = -(-len(pictures) // GRID_COLUMNS)
    grid = Image.new("RGB", (GAP + width * min(GRID_COLUMNS, len(pictures)), GAP + height * num_rows), BACKGROUND)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, GRID_COLUMNS)
        grid.paste(picture, (GAP + column * width, GAP + row * height))
    return grid

"""Clips as one picture: a labelled row a clip, a column a frame, every pixel magnified."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SCALE = 4  # screen pixels a pixel
GAP = 3
MARGIN = 14
FONT_SIZE = 14
BACKGROUND, INK, FAINT = (250, 250, 248), (40, 40, 44), (140, 140, 146)


def contact_sheet(rows: Sequence[np.ndarray], captions: Sequence[str], title: str) -> Image.Image:
    """Draw clips of any lengths, one caption a row, frame numbers above.

    rows: uint8 (T, C, H, W) each, [0, 255], C = 1 or 3, the same H and W.

    Raises:
        ValueError: no rows, or not one caption a row.
    """
    if not rows or len(rows) != len(captions):
        raise ValueError(f"captions must be one a row, at least one: rows={len(rows)}, captions={len(captions)}")
    font = ImageFont.load_default(size=FONT_SIZE)
    small = ImageFont.load_default(size=FONT_SIZE - 4)
    _, _, H, W = rows[0].shape
    longest = max(len(row) for row in rows)
    left = MARGIN + round(max(font.getlength(caption) for caption in captions)) + MARGIN
    top = MARGIN + 2 * FONT_SIZE + MARGIN
    step_x, step_y = W * SCALE + GAP, H * SCALE + GAP
    width = max(left + longest * step_x, 2 * MARGIN + round(font.getlength(title))) + MARGIN
    sheet = Image.new("RGB", (width, top + len(rows) * step_y + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, INK, font)
    for frame in range(longest):
        middle = left + frame * step_x + W * SCALE // 2
        draw.text((middle, top - 4), str(frame + 1), FAINT, small, anchor="ms")
    for index, (row, caption) in enumerate(zip(rows, captions, strict=True)):
        y = top + index * step_y
        draw.text((left - MARGIN, y + H * SCALE // 2), caption, INK, font, anchor="rm")
        for frame, pixels in enumerate(row):
            sheet.paste(magnified(pixels), (left + frame * step_x, y))
    return sheet


def magnified(frame: np.ndarray) -> Image.Image:
    """One uint8 frame (C, H, W) as an RGB image, by nearest neighbour."""
    channels_last = np.moveaxis(frame, 0, -1)
    rgb = np.repeat(channels_last, 3, axis=-1) if frame.shape[0] == 1 else channels_last
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.NEAREST)

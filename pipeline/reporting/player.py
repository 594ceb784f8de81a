"""The section "Samples": those of every cell and every checkpoint beside real ones, playing in step."""

from collections.abc import Mapping
from html import escape

import numpy as np

from pipeline.grid import Cell
from pipeline.reporting.markup import data_uri
from pipeline.reporting.read import Study, lookup
from pipeline.reporting.samples import as_png, film, read_samples
from pipeline.reporting.style import colours
from pipeline.reporting.sweep_read import START, Found, interval, name_of

NUM_CLIPS = 4  # of each, side by side
HEIGHT = 64  # screen pixels of a frame, as nearly as whole pixels allow

Clips = np.ndarray  # uint8 (K, T, C, H, W)


def player(study: Study, found: Found | None, of_cells: Mapping[Cell, Clips]) -> str:
    """Controls, and a card each: real clips, cells and what they start from, checkpoints.

    of_cells: of the sweep `found`, where there is one.
    """
    first = study.checkpoints[0]
    rate = lookup(study.stage("prepare"), "work.source.frames_per_s")
    num_trained = lookup(first.measured, "work.num_frames")
    real, shades = read_samples(first).real, colours(study)
    rows = range(0, len(real), NUM_CLIPS)
    reals = [_card("real clips", "held out: no network was trained on them", real[row:]) for row in rows]
    cards = []
    swept = []
    if found is not None:
        starts = [Cell(method, START) for method in found.methods]
        swept = [_of_cell(found, cell, of_cells) for cell in (*starts, *_by_loss(found))]
    for checkpoint in study.checkpoints:
        dot = f'<span class="dot" style="background:{shades[checkpoint.name]}"></span>'
        of_chain = _card(checkpoint.name, escape(checkpoint.label), read_samples(checkpoint).generated, dot)
        cards.append(of_chain)
    num_frames = real.shape[1]
    beyond = f"; training clips have {num_trained}, and what comes later, framed, no model was trained on"
    lengths = f"{num_frames} frames long{beyond if num_frames > num_trained else ''}"
    head = f"""<p>The first clips that each made, not chosen, {lengths}. Short names, here and on figures: B is
bidirectional, TF teacher forcing, DF diffusion forcing, SF self forcing, CD consistency distillation.</p>
<div id="films" data-rate="{rate:g}" data-trained="{num_trained}" style="--at:0">
<div id="player"><button id="play" type="button" aria-pressed="false">play</button>
<button id="back" type="button" aria-label="one frame back">&#9664;</button>
<input id="frame" type="range" min="1" max="{num_frames}" value="1" aria-label="frame">
<button id="forward" type="button" aria-label="one frame forward">&#9654;</button><output id="at">frame 1 of
{num_frames}</output></div>"""
    parts = [head, f'<div class="cards">{"".join(reals)}</div>']
    if swept:
        parts.append(f'<h3>The cells of the sweep</h3><div class="cards">{"".join(swept)}</div>')
    parts.append(f'<h3>The checkpoints of the chain</h3><div class="cards">{"".join(cards)}</div></div>')
    return "\n".join(parts)


def _by_loss(found: Found) -> list[Cell]:
    """Every cell, excluded ones too: losses down, methods across."""
    return [Cell(method, loss) for loss in found.losses for method in found.methods]


def _of_cell(found: Found, cell: Cell, of_cells: Mapping[Cell, Clips]) -> str:
    if cell in of_cells:
        phase = START if cell.loss == START else found.last
        row = found.excess(phase, cell)
        said = f"excess FVD {interval(row, row.mean)}" if row else ""
        return _card(name_of(cell), said, of_cells[cell])
    if cell.loss == START:
        return _empty(name_of(cell), "not measured")
    return _empty(name_of(cell), ": ".join(filter(None, found.absence(found.last, cell))))


def _card(name: str, said: str, clips: Clips, dot: str = "") -> str:
    return (
        f'<div><p>{dot}<strong>{escape(name)}</strong><br><span class="faint">{said or "&nbsp;"}</span></p>'
        f"{moving(clips[:NUM_CLIPS], name)}</div>"
    )


def _empty(name: str, reason: str) -> str:
    return f'<div><p><strong>{escape(name)}</strong><br><span class="faint">{escape(reason)}</span></p></div>'


def moving(clips: Clips, title: str) -> str:
    """Clips side by side, the frames one below the other: page.css moves them by the number of the frame."""
    pixels = film(clips)
    K, T, _, H, _ = clips.shape
    zoom = max(1, round(HEIGHT / H))
    size = f"--w:{pixels.shape[1]};--h:{H};--frames:{T};--zoom:{zoom}"
    source = data_uri(as_png(pixels), "image/png")
    return f'<div class="film" style="{size}"><img alt="{K} clips of {escape(title)}" src="{source}"></div>'

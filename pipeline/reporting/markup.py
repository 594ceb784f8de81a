"""Pieces of HTML: tables, pictures inside the page, and film that plays without a script."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from pipeline.reporting.samples import as_png, film, strip

KINDS = {".png": "image/png", ".svg": "image/svg+xml"}

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #26262b; --faint: #6b6b75; --line: #e2e2e8; --tint: #f6f6f9;
  --link: #0b63b5; --best: #e8f1fb; --zoom: 4; }
@media (prefers-color-scheme: dark) { :root { --paper: #17171b; --ink: #e6e6ea; --faint: #a0a0ab; --line: #34343c;
  --tint: #1f1f25; --link: #7db8f0; --best: #1d3247; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.2rem 5rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .4rem 0; text-wrap: balance; }
h2 { font-size: 1.3rem; margin: 3rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
p, li, dd, figcaption { max-width: 46rem; }
a { color: var(--link); }
nav a { margin-right: .9rem; white-space: nowrap; }
.lede { font-size: 1.1rem; }
.faint, figcaption, caption { color: var(--faint); font-size: .9rem; }
.warning { background: #b00020; color: #fff; font-weight: 600; padding: .6rem .9rem; border-radius: .4rem;
  max-width: none; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { padding: .32rem .42rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
thead th { vertical-align: bottom; }
tbody th { text-align: left; white-space: nowrap; }
td { white-space: nowrap; }
td.text { text-align: left; white-space: normal; min-width: 9rem; }
thead th:first-child, table.text th { text-align: left; }
td.best { background: var(--best); font-weight: 700; }
tr.reference { color: var(--faint); font-style: italic; }
code, pre { font: .82rem/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: var(--tint); padding: .7rem; overflow-x: auto; border-radius: .4rem; }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .45em; }
figure { margin: 1.4rem 0; }
figure img.drawn { width: 100%; height: auto; display: block; background: #fff; border-radius: .4rem; }
.source { margin: .2rem 0; font-size: .8rem; color: var(--faint); } .source a { margin-right: .6rem; }
figure img.picture { max-width: 100%; height: auto; display: block; border-radius: .3rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 0 1.5rem;
  align-items: start; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; }
dt { font-weight: 600; }
dd { margin: 0; }
details { margin: .4rem 0; }
summary { cursor: pointer; }
.clips { display: grid; grid-template-columns: max-content 1fr; gap: .5rem 1.1rem; align-items: center; }
.stills { grid-template-columns: 1fr; gap: 0; }
.pixels { image-rendering: pixelated; display: block; width: calc(var(--w) * var(--zoom) * 1px); max-width: none; }
.film { overflow: hidden; width: calc(var(--w) * var(--zoom) * 1px); height: calc(var(--h) * var(--zoom) * 1px); }
.film img { animation: run calc(var(--frames) / var(--rate) * 1s) steps(var(--frames)) infinite; }
@keyframes run { to { transform: translateY(-100%); } }
body:has(#pause:checked) .film img { animation-play-state: paused; }
@media (prefers-reduced-motion: reduce) { .film img { animation: none; } }
@media (max-width: 50rem) { :root { --zoom: 3; } .clips { grid-template-columns: 1fr; gap: .2rem; } }
@media (max-width: 30rem) { :root { --zoom: 2; } body { padding: 1rem .8rem; } }
"""


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def warned(warning: str | None, caption: str) -> str:
    """A caption, HTML, after the warning of a profile whose numbers mean nothing."""
    return f"<strong>{escape(warning)}.</strong> {caption}".strip() if warning else caption


def picture(path: Path, caption: str, *, command: str = "") -> str:
    """A figure of `pipeline.reporting.style.save` over its caption, HTML; its data, to be saved; what makes it."""
    source, name = data_uri(path.read_bytes(), KINDS[path.suffix]), path.stem
    data = data_uri(path.with_suffix(".csv").read_bytes(), "text/csv")
    return (
        f'<figure id="figure-{name}"><img class="drawn" alt="{escape(name.replace("_", " "))}" src="{source}">'
        f'<figcaption>{caption}</figcaption><p class="source">'
        f'<a download="{name}.csv" href="{data}">data (CSV)</a> '
        f"<code>{escape(command)}</code></p></figure>"
    )


def photograph(path: Path, caption: str) -> str:
    """A picture of clips, of fixed pixels, over its caption, HTML."""
    source = data_uri(path.read_bytes(), KINDS[path.suffix])
    label = escape(path.stem.replace("_", " "))
    return f'<figure><img class="picture" alt="{label}" src="{source}"><figcaption>{caption}</figcaption></figure>'


def table(
    heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], *, caption: str = "", kind: str = ""
) -> str:
    """A table that scrolls by itself where it is wider than the page. rows: attributes of <tr>, cells; all HTML."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in heads)
    body = "\n".join(f"<tr{attributes}>{''.join(cells)}</tr>" for attributes, cells in rows)
    title = f"<caption>{caption}</caption>" if caption else ""
    name = f' class="{kind}"' if kind else ""
    return (
        f'<div class="scroll"><table{name}>{title}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def row_head(text: str, colour: str = "") -> str:
    """The first cell of a row, with the colour that the checkpoint has in every figure."""
    dot = f'<span class="dot" style="background:{colour}"></span>' if colour else ""
    return f'<th scope="row">{dot}{escape(text)}</th>'


def cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{text}</td>' if kind else f"<td>{text}</td>"


def moving(clips: np.ndarray, title: str, *, frames_per_s: float) -> str:
    """Clips uint8 (K, T, C, H, W) that play side by side, for ever."""
    pixels = film(clips)
    num_frames = clips.shape[1]
    size = (
        f"--w:{pixels.shape[1]};--h:{pixels.shape[0] // num_frames};--frames:{num_frames};--rate:{frames_per_s:g}"
    )
    source = data_uri(as_png(pixels), "image/png")
    return f'<div class="film" style="{size}"><img class="pixels" alt="{escape(title)}" src="{source}"></div>'


def still(clips: np.ndarray, title: str) -> str:
    """Clips uint8 (K, T, C, H, W), a row a clip, a column a frame."""
    pixels = strip(clips)
    source = data_uri(as_png(pixels), "image/png")
    return (
        f'<div class="scroll"><img class="pixels" style="--w:{pixels.shape[1]};--zoom:3" alt="{escape(title)}" '
        f'src="{source}"></div>'
    )

"""Pieces of HTML: tables, and pictures inside the page. Its style and its script are page.css and page.js."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

KINDS = {".png": "image/png", ".svg": "image/svg+xml"}

STYLE, SCRIPT = (Path(__file__).with_name(f"page.{kind}").read_text() for kind in ("css", "js"))


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def warned(warning: str | None, caption: str) -> str:
    """A caption, HTML, after the warning of a profile whose numbers mean nothing."""
    return f"<strong>{escape(warning)}.</strong> {caption}".strip() if warning else caption


def picture(path: Path, caption: str, *, command: str) -> str:
    """A figure of `pipeline.reporting.style.save` over its caption, HTML; its data, to be saved; what makes it."""
    source, name = data_uri(path.read_bytes(), KINDS[path.suffix]), path.stem
    data = data_uri(path.with_suffix(".csv").read_bytes(), "text/csv")
    return (
        f'<figure id="figure-{name}"><div class="scroll">'
        f'<img class="drawn" alt="{escape(name.replace("_", " "))}" src="{source}"></div>'
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
    heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], *, caption: str = "", kind: str = "sortable"
) -> str:
    """A table that scrolls by itself where it is wider than the page. rows: attributes of <tr>, cells; all HTML.

    kind: sortable, by a click on a head; or text or wordy, whose cells are sentences.
    """
    is_sortable = kind == "sortable"
    named = (f'<button type="button">{head}</button>' if is_sortable and head else head for head in heads)
    head = "".join(f'<th scope="col">{name}</th>' for name in named)
    body = "\n".join(f"<tr{attributes}>{''.join(cells)}</tr>" for attributes, cells in rows)
    title = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table class="{kind}">{title}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def row_head(text: str, colour: str = "") -> str:
    """The first cell of a row, with the colour that the checkpoint has in every figure."""
    dot = f'<span class="dot" style="background:{colour}"></span>' if colour else ""
    return f'<th scope="row">{dot}{escape(text)}</th>'


def cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{text}</td>' if kind else f"<td>{text}</td>"

"""How sure the order of a sweep's cells is: their ranks beside the published ones, and every pair of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.grid import Cell
from pipeline.reporting.columns import NOTHING
from pipeline.reporting.read import Study, short_name
from pipeline.reporting.style import FAINT, HUES, INK, WIDE, new_figure, save
from pipeline.reporting.sweep_csv import OrderRow
from pipeline.reporting.sweep_figures import TITLES, ink_on, plain, seeds_and_clips
from pipeline.reporting.sweep_read import DEFAULT, EXCESS, TUNED, Found, bounds, cell_of, interval
from pipeline.sweep.published import PUBLISHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOKS: dict[str, dict[str, Any]] = {  # of the phases: told apart without colour
    DEFAULT: {"color": FAINT, "marker": "o", "markerfacecolor": "white", "markersize": 5},
    TUNED: {"color": HUES[1], "marker": "o", "markersize": 5.5},
}
LINE = "#9a9aa2"
HATCH = "\\\\\\\\"  # of a confounded pair
MARK = "●"  # of a separated pair
PALE, DEEP = "#f4f1ec", "#7f2704"  # of no difference and of the largest


def draw_ranks(found: Found, study: Study, path: Path) -> Path:
    """The rank of every cell with its interval, and the place that Self-Forcing published for it."""
    cells = sorted(found.ranks.get(found.last, {}), key=lambda cell: found.ranks[found.last][cell].rank)
    orders = [order for order in found.orders if order.phase == found.last]
    figure = new_figure(WIDE, 1.25 + 0.235 * max(len(cells), 3))
    axes = figure.subplots(1, 1 + len(orders), sharey=True, width_ratios=[2.2] + [1] * len(orders), squeeze=False)
    first, *others = axes[0]
    for phase in found.phases:
        _draw_phase(first, found, phase, cells)
    first.set_yticks(range(len(cells)), [short_name(cell) for cell in cells], fontsize=8)
    first.set_ylim(len(cells) - 0.4, -0.6)
    first.set_xlabel("rank by mean excess FVD (1: the best), with intervals over seeds", fontsize=8)
    first.set_title(f"Ranks of the cells\n{seeds_and_clips(found, found.last)}", fontsize=8.5)
    first.legend(loc="lower left" if len(cells) > 3 else "best", fontsize=8)
    for axis, order in zip(others, orders, strict=True):
        _draw_published(axis, order, cells)
    for axis in axes[0]:
        axis.grid(visible=True, axis="y")
        axis.locator_params(axis="x", integer=True)
        axis.tick_params(axis="x", labelsize=8)
    return save(figure, path, study, [*_rank_rows(found, cells), *_place_rows(orders, cells)])


def _rank_rows(found: Found, cells: list[Cell]) -> Iterator[dict[str, Any]]:
    """A row a point of the left panel."""
    for phase in found.phases:
        for cell in cells:
            row = found.ranks.get(phase, {}).get(cell)
            if row:
                low, high = bounds(row) or (None, None)
                seeds = found.means[phase][cell][EXCESS].num_seeds
                place = {"place": row.rank, "low": low, "high": high, "num_seeds": seeds}
                yield {"panel": "rank by excess FVD", "phase": phase, "cell": "-".join(cell), **place}


def _place_rows(orders: list[OrderRow], cells: list[Cell]) -> Iterator[dict[str, Any]]:
    """A row a pair of marks of the panels of published orders."""
    for order in orders:
        published, here = places_in(order, cells)
        for cell in published:
            places = {"place": here.index(cell) + 1, "published_place": published.index(cell) + 1}
            panel = f"Self-Forcing, {order.published.replace('_', '-')}"
            yield {"panel": panel, "phase": order.phase, "cell": "-".join(cell), **places}


def places_in(order: OrderRow, cells: list[Cell]) -> tuple[list[Cell], list[Cell]]:
    """The cells that both have, the best first: as published, and as here. cells: all, the best first."""
    scores = PUBLISHED[order.published]
    keys = sorted(filter(None, order.cells.split("; ")), key=lambda key: -scores[key])
    published = [cell for cell in map(cell_of, keys) if cell in cells]
    return published, sorted(published, key=cells.index)


def _draw_phase(axis: "Axes", found: Found, phase: str, cells: list[Cell]) -> None:
    """Point and interval of each cell; two phases one below the other."""
    rows = found.ranks.get(phase, {})
    aside = 0.16 * ((phase == TUNED) - (phase == DEFAULT)) if len(found.phases) > 1 else 0.0
    look = LOOKS[phase]
    for place, cell in enumerate(cells):
        ends = bounds(rows[cell]) if cell in rows else None
        if ends:
            axis.plot(ends, (place + aside,) * 2, color=look["color"], linewidth=1.6)
    known = [(rows[cell].rank, place + aside) for place, cell in enumerate(cells) if cell in rows]
    if known:
        axis.plot(*zip(*known, strict=True), linestyle="none", label=f"{TITLES[phase].lower()}", **look)


def _draw_published(axis: "Axes", order: OrderRow, cells: list[Cell]) -> None:
    """Places among the published cells: as published, and as here, joined; equal orders make a falling line."""
    published, here = places_in(order, cells)
    for place, cell in enumerate(published, start=1):
        axis.plot((place, here.index(cell) + 1), (cells.index(cell),) * 2, color=FAINT, linewidth=1)
    rows = [cells.index(cell) for cell in published]
    around = {"marker": "D", "markersize": 9.5, "markerfacecolor": "none", "markeredgecolor": INK}
    axis.plot(range(1, len(published) + 1), rows, linestyle="none", **around)
    axis.plot([here.index(cell) + 1 for cell in published], rows, linestyle="none", **LOOKS[order.phase])
    axis.set_xlim(0.4, len(published) + 0.6)
    tau = NOTHING if order.tau is None else interval(order, order.tau, ".2f")
    axis.set_title(f"Self-Forcing, {order.published.replace('_', '-')}\nτ = {tau}", fontsize=8.5)
    axis.set_xlabel(f"place among {order.num_cells} cells\n◇ published, ● here", fontsize=8)


def draw_pairs(found: Found, study: Study, path: Path) -> Path:
    """A triangle a phase: by how much the row is worse than the column; marked where separated."""
    phases = [phase for phase in found.phases if found.pairs.get(phase)]
    figure = new_figure(WIDE, 5.0 if len(phases) > 1 else 6.0)
    axes = figure.subplots(1, max(1, len(phases)), squeeze=False)[0]
    most = max((abs(row.difference) for phase in phases for row in found.pairs[phase]), default=1.0) or 1.0
    for axis, phase in zip(axes, phases, strict=False):
        _draw_triangle(axis, found, phase, most)
    if not phases:
        axes[0].text(0.5, 0.5, "there is no pair to compare", ha="center", transform=axes[0].transAxes)
        plain(axes[0])
    else:
        _explain(figure, list(axes), most, found.confidence)
    return save(figure, path, study, [vars(row) for phase in phases for row in found.pairs[phase]])


def _draw_triangle(axis: "Axes", found: Found, phase: str, most: float) -> None:
    from matplotlib.patches import Rectangle

    cells, shades = found.by_excess(phase), _shades()
    pairs = {frozenset((cell_of(row.a), cell_of(row.b))): row for row in found.pairs[phase]}
    num_separated = 0
    for row, worse in enumerate(cells):
        for column, better in enumerate(cells[:row]):
            pair = pairs.get(frozenset((worse, better)))
            if pair is None:
                continue
            shade = shades(abs(pair.difference) / most)
            corner = (column + 0.03, row + 0.03)
            field = Rectangle(corner, 0.94, 0.94, facecolor=shade, linewidth=0)
            if pair.confounds:
                field.set(hatch=HATCH, edgecolor="white" if ink_on(shade) == "white" else LINE)
            axis.add_patch(field)
            num_separated += pair.is_separated
            if pair.is_separated:
                _mark(axis, (column, row), ink_on(shade), behind=shade if pair.confounds else None)
    names = [short_name(cell) for cell in cells]
    centres = np.arange(len(cells)) + 0.5
    axis.set_xticks(centres[:-1], names[:-1], rotation=90, fontsize=7)
    axis.set_yticks(centres[1:], names[1:], fontsize=7)
    axis.set(xlim=(0, len(cells) - 1), ylim=(len(cells), 1), aspect="equal")
    axis.tick_params(length=0, pad=1)
    plain(axis)
    axis.set_title(
        f"{TITLES[phase]}: {num_separated} of {len(pairs)} pairs separated\n{seeds_and_clips(found, phase)}",
        fontsize=8.5,
    )


def _mark(axis: "Axes", corner: tuple[int, int], ink: str, *, behind: tuple[float, ...] | None) -> None:
    """Of a separated pair; with paper behind it where the field is hatched."""
    box = {"facecolor": behind, "edgecolor": "none", "pad": 0.6} if behind else None
    axis.text(corner[0] + 0.5, corner[1] + 0.52, MARK, ha="center", va="center", fontsize=5.5, color=ink, bbox=box)


def _shades() -> Any:
    import seaborn as sns

    return sns.blend_palette([PALE, "#fdae6b", "#d94801", DEEP], as_cmap=True)


def _explain(figure: Any, axes: list[Any], most: float, confidence: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(
        ScalarMappable(Normalize(0, most), _shades()), ax=axes, location="bottom", shrink=0.3, aspect=34, pad=0.02,
        anchor=(0.0, 1.0),
    )  # fmt: skip
    bar.ax.tick_params(length=0, labelsize=7)
    bar.outline.set_visible(False)
    bar.ax.text(
        1.06, 0.5,
        f"by how much the mean excess FVD of the row lies above that of the column; the best cells first\n"
        f"{MARK} separated ({100 * confidence:g} %, all pairs at once); "
        f"hatched: confounded, more differs than method and loss",
        transform=bar.ax.transAxes, fontsize=7, va="center", linespacing=1.4,
    )  # fmt: skip

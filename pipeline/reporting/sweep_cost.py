"""What the cells of a sweep cost, in training and in sampling, against how good they are."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.reporting.read import Study, short_name
from pipeline.reporting.style import FAINT, INK, MARKERS, WIDE, new_figure, save
from pipeline.reporting.sweep_figures import look_of, plain_numbers
from pipeline.reporting.sweep_read import EXCESS, Found, bounds
from pipeline.reporting.sweep_rows import COSTS, cells_of, cost_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import BboxBase

PANELS = {  # of the rows: what it is and its unit
    "updates": ("Updates in training", "updates of student and critics"),
    "tflop": ("Operations of training", "TFLOP"),
    "seconds": ("Time of training", "seconds, other trials beside it"),
    "calls_per_frame": ("Operations of sampling", "passes of a frame through the denoiser (NFE)"),
    "latency_ms": ("Latency of sampling", "ms to the first frame of one clip, other trials beside it"),
}
BY_LOAD = ("latency_ms",)  # where cells that sample alike differ by what ran beside them: no frontier
STEEP = 3  # so many times the least is the most where an axis is logarithmic
LETTERS = 6.3  # points, of the names
AROUND = (
    (6, 0, "left", "center"),
    (-6, 0, "right", "center"),
    (0, 6, "center", "bottom"),
    (0, -6, "center", "top"),
)

Row = dict[str, Any]


def costs_of(found: Found) -> list[Row]:
    """A row a cell of the last phase: mean excess FVD with its interval over seeds, and means of what it costs."""
    rows = []
    for cell in cells_of(found, found.last):
        excess = found.means[found.last][cell][EXCESS]
        ends = bounds(excess)
        costs = {name: cost_of(found, found.last, cell, name) for name in COSTS}
        both = [costs[f"{whose}_updates"] for whose in ("student", "critic")]
        rows.append(
            {
                **cell._asdict(),
                "name": short_name(cell),
                "phase": found.last,
                "excess_fvd": excess.mean,
                "low": ends[0] if ends else None,
                "high": ends[1] if ends else None,
                "num_seeds": excess.num_seeds,
                **costs,
                "updates": None if None in both else sum(filter(None, both)),
            }
        )
    return rows


def frontier(rows: list[Row], name: str) -> list[Row]:
    """The cheapest first: those that no other beats or equals in both cost and excess FVD."""
    best, kept = float("inf"), []
    for row in sorted(
        (row for row in rows if row[name] is not None), key=lambda row: (row[name], row["excess_fvd"])
    ):
        if row["excess_fvd"] < best:
            best = row["excess_fvd"]
            kept.append(row)
    return kept


def draw_cost(found: Found, study: Study, path: Path) -> Path:
    """A panel a cost, all on one scale of excess FVD; the sixth place holds the legend."""
    rows = costs_of(found)
    figure = new_figure(WIDE, 6.0)
    axes = list(figure.subplots(2, 3, sharey=True).flat)
    low = min(row["excess_fvd"] if row["low"] is None else row["low"] for row in rows)
    for axis, name in zip(axes, PANELS, strict=False):
        title, unit = PANELS[name]
        _draw_panel(axis, found, rows, name)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(unit, fontsize=7.5)
        axis.tick_params(labelsize=8)
    if low > 0:
        axes[0].set_yscale("log")
    for axis in axes[:-1]:
        plain_numbers(axis)
    for axis in (axes[0], axes[3]):
        axis.set_ylabel("excess FVD (lower is better)", fontsize=8.5)
    _explain(axes[-1], found)
    figure.draw_without_rendering()  # so that it is known where every point lies
    for axis, name in zip(axes, PANELS, strict=False):
        _name_points(axis, rows, name)
    return save(figure, path, study, [_with_frontiers(row, rows) for row in rows])


def _with_frontiers(row: Row, rows: list[Row]) -> Row:
    on = [name for name in PANELS if name not in BY_LOAD and row in frontier(rows, name)]
    return {**row, "on_frontier_of": " ".join(on)}


def _draw_panel(axis: "Axes", found: Found, rows: list[Row], name: str) -> None:
    """A point a cell with its interval: the colour its loss, the marker its method; and the frontier."""
    best = [] if name in BY_LOAD else frontier(rows, name)
    across, up = ([row[key] for row in best] for key in (name, "excess_fvd"))
    axis.plot(across, up, drawstyle="steps-post", color=FAINT, linewidth=1.0, zorder=1)
    for row in rows:
        if row[name] is None:
            continue
        look = _look(found, row["method"], row["loss"])
        if row["low"] is not None:
            axis.plot((row[name],) * 2, (row["low"], row["high"]), color=look["color"], linewidth=1.1, alpha=0.7)
        axis.plot(row[name], row["excess_fvd"], linestyle="none", markersize=6, **look)
    costs = [row[name] for row in rows if row[name] is not None]
    if costs and max(costs) > STEEP * min(costs) > 0:
        axis.set_xscale("log")
    axis.margins(x=0.14, y=0.08)


def _look(found: Found, method: str, loss: str) -> dict[str, Any]:
    rank = found.methods.index(method)
    return {
        "color": look_of(found, loss)["color"],
        "marker": MARKERS[rank % len(MARKERS)],
        "markeredgecolor": "white",
        "markeredgewidth": 0.7,
    }


def _explain(axis: "Axes", found: Found) -> None:
    """What colours, markers and the line mean."""
    from matplotlib.lines import Line2D

    axis.set_axis_off()
    methods = [
        Line2D(
            [], [], color=INK, linestyle="none", marker=MARKERS[rank % len(MARKERS)], label=name.replace("_", " ")
        )
        for rank, name in enumerate(found.methods)
    ]
    losses = [
        Line2D([], [], color=look_of(found, loss)["color"], linewidth=5, label=loss.replace("_", " "))
        for loss in found.losses
    ]
    line = [Line2D([], [], color=FAINT, linewidth=1.0, label="no other is cheaper and better")]
    axis.legend(handles=[*methods, *losses, *line], loc="center left", fontsize=8, ncols=1)


def _name_points(axis: "Axes", rows: list[Row], name: str) -> None:
    """The short name beside each point where it hides nothing; those of the frontier first."""
    from matplotlib.transforms import Bbox

    shown = [row for row in rows if row[name] is not None]
    points = {row["name"]: axis.transData.transform((row[name], row["excess_fvd"])) for row in shown}
    scale = axis.figure.dpi / 72
    taken: list[BboxBase] = [
        Bbox.from_extents(x - 4 * scale, y - 4 * scale, x + 4 * scale, y + 4 * scale) for x, y in points.values()
    ]
    first = frontier(rows, name)
    for row in sorted(shown, key=lambda row: (row not in first, row["excess_fvd"])):
        for right, up, ha, va in AROUND:
            drawn = axis.annotate(
                row["name"], (row[name], row["excess_fvd"]), xytext=(right, up), textcoords="offset points",
                ha=ha, va=va, fontsize=LETTERS, zorder=2.5,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.3},
            )  # fmt: skip
            box = drawn.get_window_extent()
            if _is_free(box, taken, axis.bbox):
                taken.append(box)
                break
            drawn.remove()


def _is_free(box: "BboxBase", taken: "list[BboxBase]", within: "BboxBase") -> bool:
    is_inside = within.x0 <= box.x0 and box.x1 <= within.x1 and within.y0 <= box.y0 and box.y1 <= within.y1
    return bool(is_inside) and not any(box.overlaps(other) for other in taken)

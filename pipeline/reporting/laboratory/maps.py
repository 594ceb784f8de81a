"""Maps of optima: where objectives have theirs, and the ways of the students of each cell, in two parameters."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.laboratory.verdicts import SAME, Parameters, distance
from pipeline.losses import LOSSES
from pipeline.methods import METHODS
from pipeline.reporting.laboratory import shown, words
from pipeline.reporting.laboratory.results import EXACT, LEARNED, Judged, Laboratory, plane_of
from pipeline.reporting.style import FAINT, FLOOR, HUES, INK, MARKERS, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 4.75  # inches: about as wide as a phone, where letters keep their size
LEFT, MAP_WIDTH, GAP = 0.64, 1.62, 0.28  # inches: margin, map, and between map and labels
BOTTOM, TOP, HEAD = 0.5, 0.3, 0.35  # inches: under and over the map, and for a warning
LEAST_HEIGHT = 3.2  # inches of a map
LINE = 10.2  # points, of a label
POINTS = 72  # an inch
FONT, WIDEST = 7.4, 34  # points, and letters of a label that have room
AXES = {  # of a map
    "m": "mean m of the student",
    "s": "standard deviation s of the student",
    "c": "slope c on the frame before",
    "s1": "deviation s1 of the first frame",
    "s2": "deviation s2 of the next frame",
    "m1": "mean m1 of the first frame",
    "m2": "shift m2 of the next frame",
}
BASIC = ("forward_kl", "reverse_kl", "jensen_shannon", "softened_reverse_kl")
ENTROPY = "entropy_"
MIN_SITES, ALONE = 5, 1 / 3  # of a map that leaves a place out, and the share of it that this would take
MARGIN, LEAST_ROOM = 0.07, 0.015  # around what is on a map: of the range, and at the least
Ways = dict[tuple[str, str], list[tuple[int, list[tuple[int, Parameters]]]]]  # of cell and critics: seed, line


@dataclass(frozen=True)
class Site:
    """A place on a map, with the objectives whose optimum it is and the cells that ended there."""

    at: Parameters
    objectives: tuple[str, ...]
    cells: tuple[Judged, ...]
    is_local: bool = False  # an optimum of its objective, and not the best
    is_below: bool = False  # so far under the others that the map ends above it


def hue(found: Laboratory, cell: str) -> str:
    """The colour of a cell is that of its loss."""
    return HUES[list(LOSSES).index(found.place(cell).loss) % len(HUES)]


def mark(found: Laboratory, cell: str) -> str:
    """Its marker is that of its method."""
    return MARKERS[list(METHODS).index(found.place(cell).method)]


def sites_of(found: Laboratory, process: str, rows: Sequence[Judged], named: Collection[str]) -> list[Site]:
    """The labelled places: of the objectives in `named`, and of cells that ended at none of them."""
    places: list[tuple[Parameters, list[str]]] = []
    for name, at in found.best(process).items():
        if name in named:
            same = next((names for place, names in places if distance(at, place) <= SAME), None)
            places.append((at, [name])) if same is None else same.append(name)
    ended: dict[int, list[Judged]] = {}
    apart = []
    for row in rows:
        goal, within = found.settled_on(row), found.rules.within(row.critics)
        near = [
            number for number, (at, names) in enumerate(places) if goal in names and distance(row.at, at) <= within
        ]
        if near:
            ended.setdefault(near[0], []).append(row)
            continue
        others = found.sites[process].get(goal, ())[1:] if goal else ()
        local = [at for at in others if distance(row.at, at) <= within]
        apart.append(Site(local[0], (goal,), (row,), True) if goal and local else Site(row.at, (), (row,)))
    return [Site(at, tuple(names), tuple(ended.get(n, ()))) for n, (at, names) in enumerate(places)] + apart


def objectives_on(found: Laboratory, process: str, rows: Sequence[Judged], *, every: bool) -> set[str]:
    """Which objectives are named: all but those of entropy, or those that the cells are about."""
    best = found.best(process)
    if every:
        return {name for name in best if not name.startswith(ENTROPY)}
    about = {name for row in rows for name in (row.derived, row.claimed, found.settled_on(row)) if name}
    return {name for name in (*BASIC, *about) if name in best}


def draw_map(found: Laboratory, rows: Sequence[Judged], path: Path, *, named: Collection[str]) -> Path:
    """Of cells on one process. Hollow circles: predicted optima, labelled if `named`, else small and grey.

    Lines: training of every seed. Filled: where it ended, with the interval over seeds.
    """
    process = rows[0].process
    sites = sites_of(found, process, rows, named)
    plane = plane_of(rows[0].at)
    sites = ended_above(sorted(sites, key=lambda site: site.at[plane[1]], reverse=True), plane[1])
    below = {(row.cell, row.critics) for site in sites if site.is_below for row in site.cells}
    blocks = [_lines(site, plane) for site in sites]
    head = HEAD if found.warning else 0.0
    height = max(LEAST_HEIGHT, sum(len(lines) + 0.35 for lines in blocks) * LINE / POINTS)
    figure = new_figure(WIDTH, height + BOTTOM + TOP + head)
    figure.set_layout_engine("none")
    whole = figure.get_figheight()
    axis = figure.add_axes((LEFT / WIDTH, BOTTOM / whole, MAP_WIDTH / WIDTH, height / whole))
    start = LEFT + MAP_WIDTH + GAP
    beside = figure.add_axes((start / WIDTH, BOTTOM / whole, (WIDTH - start) / WIDTH, height / whole))
    beside.set(xlim=(0, (WIDTH - start) * POINTS), ylim=(0, height * POINTS))
    beside.axis("off")
    others = [at for name, at in found.best(process).items() if name not in named]
    ways = ways_of(found, process, plane)
    for row in rows:
        _draw_cell(axis, found, row, [way for (_, way) in ways.get((row.cell, row.critics), ())], plane)
    above = [site.at for site in sites if not site.is_below]
    _frame(axis, [*above, *(row.at for row in rows if (row.cell, row.critics) not in below)], plane)
    for at in others:
        axis.plot(at[plane[0]], at[plane[1]], "o", markersize=2.6, color=FLOOR, zorder=2)
    for site in sites:
        if site.objectives:
            axis.plot(*_in(site.at, plane), "o", markersize=8, mfc="none", mec=INK, mew=1.1, zorder=5)
    axis.set_xlabel(AXES[plane[0]], fontsize=8)
    axis.set_ylabel(AXES[plane[1]], fontsize=8)
    axis.tick_params(labelsize=7)
    axis.locator_params(axis="x", nbins=5)
    _label(axis, beside, sites, blocks, plane, found)
    return save(figure, path, found, _data(found, rows, sites, ways, plane))


def _data(
    found: Laboratory, rows: Sequence[Judged], sites: Sequence[Site], ways: Ways, plane: tuple[str, str]
) -> list[shown.Row]:
    """Predicted optima, then where cells have settled, then the lines."""
    process = rows[0].process
    optima = [shown.of_optimum(process, name, _on(at, plane)) for name, at in found.best(process).items()]
    local = [site for site in sites if site.is_local]
    optima += [
        shown.of_optimum(process, site.objectives[0], _on(site.at, plane), mark="local optimum") for site in local
    ]
    lines = [
        point
        for row in rows
        for seed, way in ways.get((row.cell, row.critics), ())
        for point in shown.of_way(row, seed, way)
    ]
    return [*optima, *(shown.of_cell(row, plane) for row in rows), *lines]


def ended_above(sites: Sequence[Site], up: str) -> list[Site]:
    """The last of the sites, which descend, is left below the map where it would take a third of it for itself."""
    heights = [site.at[up] for site in sites]
    if len(sites) < MIN_SITES or heights[-2] - heights[-1] < ALONE * (heights[0] - heights[-1]):
        return list(sites)
    return [*sites[:-1], replace(sites[-1], is_below=True)]


def _in(at: Parameters, plane: tuple[str, str]) -> tuple[float, float]:
    return at[plane[0]], at[plane[1]]


def _frame(axis: "Axes", shown: Sequence[Parameters], plane: tuple[str, str]) -> None:
    """So much of the plane as holds what is named, and the ways there."""
    for name, fix in zip(plane, (axis.set_xlim, axis.set_ylim), strict=True):
        values = [at[name] for at in shown]
        room = max(MARGIN * (max(values) - min(values)), LEAST_ROOM)
        fix(min(values) - room, max(values) + room)


def ways_of(found: Laboratory, process: str, plane: tuple[str, str]) -> Ways:
    """By cell and critics, of every seed the line of its training as it is drawn."""
    by_seed: dict[tuple[str, str, int], list[tuple[int, Parameters]]] = {}
    for one in found.curves:
        if one.process == process:
            by_seed.setdefault((one.cell, one.critics, one.seed), []).append((one.step, _on(one.at, plane)))
    ways: Ways = {}
    for (cell, critics, seed), way in by_seed.items():
        ways.setdefault((cell, critics), []).append((seed, shown.thinned(shown.smoothed(way))))
    return ways


def _on(at: Parameters, plane: tuple[str, str]) -> Parameters:
    return {name: at[name] for name in plane}


def _draw_cell(
    axis: "Axes",
    found: Laboratory,
    row: Judged,
    ways: Sequence[Sequence[tuple[int, Parameters]]],
    plane: tuple[str, str],
) -> None:
    """Its lines, and where it has settled, with the interval."""
    colour = hue(found, row.cell)
    style = {EXACT: "-", LEARNED: (0, (1, 1.4))}[row.critics]
    line: Any = {"color": colour, "linewidth": 0.9, "alpha": 0.45, "linestyle": style}
    for way in ways:
        axis.plot(*([at[name] for _, at in way] for name in plane), zorder=3, **line)
    (x, y), (wide, high) = _in(row.at, plane), _in(row.half_width, plane)
    if math.isfinite(wide + high):  # of one seed there is none
        axis.errorbar(x, y, xerr=wide, yerr=high, color=colour, linewidth=1, zorder=6)
    look: dict[str, Any] = {"mfc": colour if row.critics == EXACT else "white", "mec": colour, "mew": 1}
    axis.plot(x, y, mark(found, row.cell), markersize=4.6, zorder=7, **look)


def _lines(site: Site, plane: tuple[str, str]) -> list[tuple[str, Judged | None]]:
    """What is said of a place: its objective, then the cells that ended there."""
    lines: list[tuple[str, Judged | None]] = []
    if site.objectives:
        simplest = min(site.objectives, key=lambda name: (name not in BASIC, len(name), name))
        more = f" (+{len(site.objectives) - 1})" if len(site.objectives) > 1 else ""
        local = ", local" if site.is_local else ""
        lines.append((words.objective(simplest, short=True) + local + more, None))
    for row in site.cells:
        critics = ", learned" if row.critics == LEARNED else ""
        lines.append((words.cell(row.cell, short=True) + critics, row))
    if site.is_below:
        at = ", ".join(f"{name} = {site.at[name]:.2f}" for name in plane)
        lines[0] = (f"{lines[0][0]} ↓ {at}", lines[0][1])
    return lines


def _label(
    axis: "Axes",
    beside: "Axes",
    sites: Sequence[Site],
    blocks: Sequence[Sequence[tuple[str, Judged | None]]],
    plane: tuple[str, str],
    found: Laboratory,
) -> None:
    """Labels in a column, in the order of their places, each with a line that is level on the map: none cross."""
    from matplotlib.patches import ConnectionPatch

    low, high = axis.get_ylim()
    edge = axis.get_xlim()[1]
    height = beside.get_ylim()[1]
    wanted = [max(0.0, height * (site.at[plane[1]] - low) / (high - low)) for site in sites]
    sizes = [(len(lines) + 0.35) * LINE for lines in blocks]
    for site, lines, middle, size in zip(sites, blocks, stacked(wanted, sizes, height), sizes, strict=True):
        top = middle + size / 2 - LINE / 2
        line: Any = {"color": FLOOR, "linewidth": 0.6, "zorder": 1}
        x, y = (edge, low) if site.is_below else _in(site.at, plane)
        axis.plot((x, edge), (y, y), **line)
        beside.add_artist(ConnectionPatch((edge, y), (0, top), "data", "data", axesA=axis, axesB=beside, **line))
        for number, (text, row) in enumerate(lines):
            y = top - number * LINE
            if row is None:
                how: Any = {"weight": "bold", "color": INK} if site.cells else {"color": FAINT}
                beside.text(3, y, text, fontsize=FONT * min(1.0, WIDEST / len(text)), va="center", **how)
                continue
            colour = hue(found, row.cell)
            look: dict[str, Any] = {"mfc": colour if row.critics == EXACT else "white", "mec": colour}
            beside.plot(9, y, mark(found, row.cell), markersize=4.2, clip_on=False, **look)
            beside.text(15, y, text, fontsize=FONT * min(1.0, WIDEST / len(text)), va="center")


def stacked(wanted: Sequence[float], sizes: Sequence[float], height: float) -> list[float]:
    """Middles of blocks from the top down, each as near to where it is wanted as the others let it.

    wanted: descending. Blocks that would overlap stand together about the mean of what they want.
    """
    groups: list[tuple[list[int], float]] = []  # blocks, and the middle of all
    for number, middle in enumerate(wanted):
        groups.append(([number], middle))
        while True:
            members, at = groups[-1]
            size = sum(sizes[k] for k in members)
            at = min(max(at, size / 2), height - size / 2)
            groups[-1] = (members, at)
            if len(groups) < 2:
                break
            above, over = groups[-2]
            if over - sum(sizes[k] for k in above) / 2 >= at + size / 2 - 1e-9:
                break
            both = [*above, *members]
            total = sum(sizes[k] for k in both)
            offset, middles = total / 2, []
            for k in both:
                middles.append(wanted[k] - (offset - sizes[k] / 2))
                offset -= sizes[k]
            groups[-2:] = [(both, sum(middles) / len(middles))]
    found = [0.0] * len(wanted)
    for members, at in groups:
        top = at + sum(sizes[k] for k in members) / 2
        for k in members:
            found[k] = top - sizes[k] / 2
            top -= sizes[k]
    return found

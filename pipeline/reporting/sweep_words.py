"""A sweep in words: what it came to, what is missing of it, and how far to trust it; made of its numbers."""

from pipeline.reporting.read import Study
from pipeline.reporting.sweep_audit import differences
from pipeline.reporting.sweep_csv import OPEN, OrderRow
from pipeline.reporting.sweep_read import (
    COMPARED,
    DEFAULT,
    EXCESS,
    START,
    TUNED,
    Found,
    bounds,
    cell_of,
    interval,
    name_of,
)
from pipeline.reporting.sweep_tables import notices
from pipeline.sweep.statistics import PERCENTILE_COVERAGE

COMMAND = "python3 -m pipeline sweep"
WORDS = {DEFAULT: "by the settings of the grid", TUNED: "tuned"}
MOST_NAMED = 5  # trials or cells in a line

CHANCE = 0.05  # share of all orders, above which an agreement is no finding


def answer(found: Found) -> list[str]:
    """Four sentences: the best, how many pairs are separated, the published order, what tuning changed."""
    return [_best(found), _separated(found), _published(found), _tuning(found)]


def _best(found: Found) -> str:
    phase = found.last
    best = found.by_excess(phase)[0]
    row = found.means[phase][best][EXCESS]
    near = [
        name_of(cell_of(pair.b if cell_of(pair.a) == best else pair.a))
        for pair in found.pairs.get(phase, ())
        if best in (cell_of(pair.a), cell_of(pair.b)) and not pair.is_separated
    ]
    apart = f"{OPEN} from {listed(near)}" if near else "apart from all others" if found.pairs.get(phase) else ""
    seeds = f"{row.num_seeds} seed{'s' * (row.num_seeds > 1)}"
    measured = len(found.means[phase])
    who = "The best cell" if measured == len(found.cells) else f"The best of the {measured} cells that are measured"
    return (
        f"{who} is {name_of(best)}, {WORDS[phase]}: excess FVD {interval(row, row.mean)} over {seeds}"
        f"{f', {apart}' if apart else ''}."
    )


def _separated(found: Found) -> str:
    pairs = found.pairs.get(found.last, ())
    if not pairs:
        return "There is no pair of cells to compare."
    confounded = [pair for pair in pairs if pair.confounds]
    also = f"; {len(confounded)} pairs are confounded: more differs than method and loss" if confounded else ""
    return f"These seeds separate {sum(pair.is_separated for pair in pairs)} of {len(pairs)} pairs of cells{also}."


def _published(found: Found) -> str:
    orders = [order for order in found.orders if order.phase == found.last and order.tau is not None]
    if not orders:
        return "The order that Self-Forcing published cannot be held against it: too few of those cells are here."
    said = "; ".join(f"{order.published.replace('_', '-')}, {_agreement(order)}" for order in orders)
    scale = "Kendall's τ, 1 the same, -1 reversed"
    return f"Held against the order that the paper Self-Forcing published ({scale}): {said}."


def _agreement(order: OrderRow) -> str:
    """What an interval says, in plain words."""
    assert order.tau is not None
    assert order.p_value is not None
    ends, tau = bounds(order), f"{interval(order, order.tau, '.2f')} over {order.num_cells} cells"
    if ends is None or ends[0] <= 0 <= ends[1]:
        return f"these seeds do not say whether the orders agree ({tau})"
    if order.p_value > CHANCE:
        share = f"{100 * order.p_value:.0f} % of all orders are as far from 0"
        return f"no more than chance may bring about ({tau}: {share})"
    return f"the orders {'agree' if ends[0] > 0 else 'run against each other'} ({tau})"


def _tuning(found: Found) -> str:
    """Of the cells that stand in both phases."""
    if found.phases != [DEFAULT, TUNED]:
        return "Nothing can be said of tuning: it was not asked for." if not found.is_to_be_tuned else (
            "Nothing can be said of tuning yet."
        )  # fmt: skip
    before, after = (found.means[phase] for phase in COMPARED)
    gains = {cell: before[cell][EXCESS].mean - after[cell][EXCESS].mean for cell in before if cell in after}
    if not gains:
        return "Nothing can be said of tuning: no cell stands in both phases."
    clear = sum(_is_below(found, cell) for cell in gains)
    most = max(gains, key=lambda cell: gains[cell])
    old, best = found.by_excess(DEFAULT)[0], found.by_excess(TUNED)[0]
    same = "the best is the same" if old == best else f"the best before was {name_of(old)}"
    return (
        f"Tuning lowered the mean of {sum(gain > 0 for gain in gains.values())} of {len(gains)} cells, of {clear} "
        f"beyond both intervals, most that of {name_of(most)} ({before[most][EXCESS].mean:.1f} to "
        f"{after[most][EXCESS].mean:.1f}); {same}."
    )


def _is_below(found: Found, cell: object) -> bool:
    """Whether the interval of the tuned cell lies below that of the untuned one."""
    ends = [bounds(found.means[phase][cell][EXCESS]) for phase in COMPARED]  # pyright: ignore[reportArgumentType]
    return ends[0] is not None and ends[1] is not None and ends[1][1] < ends[0][0]


def caveats(found: Found) -> list[str]:
    """How the intervals are to be read, and what all cells have in common."""
    num_seeds = found.num_seeds(found.last)
    covers = PERCENTILE_COVERAGE.get(num_seeds)
    held = f", and hold in {100 * covers:g} % of cases" if covers else ""
    confidence = f"{100 * found.confidence:g} %"
    ends = (
        f"Intervals of means are {confidence} percentiles over resampled seeds: of {num_seeds} seeds they are too "
        f"short{held}. Pairs and ranks rest on Student's t, pairs corrected for their number."
        if num_seeds > 1
        else "One seed says nothing of what others would do: there are no intervals, and no pair is separated."
    )
    judged = "; tuning was judged on other clips than the results" if found.is_to_be_tuned else ""
    return [
        f"Excess FVD: of {found.num_clips:,} clips, less that of real ones; lower is better, 0 is as good as real. "
        f"Every training had the budget of {found.budget}{judged}.",
        ends,
        f"The {len(found.trials)} trials took {found.trials_s / 60:,.0f} minutes of work, shared by those that ran "
        f"side by side.",
    ]


def warnings_of(found: Found, study: Study) -> list[str]:
    """What a reader must know before the numbers."""
    lines = notices(study, codec=found.codec, profile=found.profile, who="These students", command=COMMAND)
    return lines + incomplete(found)


def absent_said(found: Found, study: Study) -> list[str]:
    """What a reader of one figure must know: whose students they are, and which cells are not in it."""
    lines = notices(study, codec=found.codec, profile=found.profile, who="These students", command=COMMAND)
    absent = [
        f"{name_of(cell)} ({found.absence(found.last, cell)[0]})"
        for cell in found.cells
        if cell not in found.means[found.last]
    ]
    return lines + [f"not measured, {WORDS[found.last]}: {listed(absent)}"] * bool(absent)


def incomplete(found: Found) -> list[str]:
    """What failed, and what is still missing."""
    by_reason: dict[str, list[str]] = {}
    for trial, reason in found.failed.items():
        by_reason.setdefault(reason, []).append(trial)
    lines = [f"failed: {listed(trials)}: {reason}" for reason, trials in by_reason.items()]
    if found.missing:
        lines.append(f"{len(found.missing)} trials are missing: {listed(list(found.missing))}. {COMMAND} goes on")
    absent = [phase for phase in (DEFAULT, *([TUNED] * found.is_to_be_tuned)) if phase not in found.phases]
    lines += [f"no cell is measured {WORDS[phase]}" for phase in absent]
    for phase in found.phases:
        fewer = [
            f"{name_of(cell)} has {of[EXCESS].num_seeds}"
            for cell, of in found.means[phase].items()
            if of[EXCESS].num_seeds < found.seeds_asked
        ]
        none = [f"{name_of(cell)} has none" for cell in found.cells if cell not in found.means[phase]]
        if fewer or none:
            lines.append(f"fewer than {found.seeds_asked} seeds, {WORDS[phase]}: {listed(fewer + none)}")
    if not found.means.get(START):
        lines.append("what the cells start from is not measured")
    return lines


def confounds_said(found: Found) -> list[str]:
    """A line each."""
    return [
        f"confounded by {line.path}: {line.words} ({line.num_pairs} pairs)"
        for line in differences(found.differing)
        if line.kind == "confounds"
    ]


def listed(names: list[str]) -> str:
    """The first few, and how many more there are."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")

"""How every figure looks: one theme, one colour a checkpoint, and the same bytes for the same numbers."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pipeline.losses import LOSSES
from pipeline.reporting.read import Checkpoint, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours, told apart by colour-blind people too; a loss each, in the order of the grid.
HUES = (
    *("#4d4d4d", "#0072b2", "#d55e00", "#009e73", "#cc79a7"),
    *("#e69f00", "#56b4e9", "#a0522d", "#5b3f8c", "#8a8a00"),
    *("#8c1d40", "#2f4f1f"),
)
INK, FAINT, FLOOR = "#26262b", "#6b6b75", "#b9b9c2"
WARNING = "#b00020"
MARKERS = ("o", "D", "s", "^", "v", "P", "X", "<", ">", "p", "*", "h")  # tell apart what colours tell, in grey too
PALE = 0.5  # how far the first of them is mixed with white
DPI = 150
WIDE = 9.0  # inches: as wide as the page


def colours(study: Study) -> dict[str, str]:
    """A colour a checkpoint: the hue is its loss, and of two with the same loss the later is the darker."""
    from matplotlib.colors import to_hex, to_rgb

    found = {}
    for loss, hue in zip(LOSSES, HUES, strict=False):
        same = [checkpoint for checkpoint in study.checkpoints if checkpoint.cell.loss == loss]
        for rank, checkpoint in enumerate(same):
            mix = PALE * (1 - rank / (len(same) - 1)) if len(same) > 1 else 0.0
            red, green, blue = (mix + (1 - mix) * part for part in to_rgb(hue))
            found[checkpoint.name] = to_hex((red, green, blue))
    return found


def marker(study: Study, checkpoint: Checkpoint) -> str:
    """Its own, as long as there are enough."""
    return MARKERS[study.checkpoints.index(checkpoint) % len(MARKERS)]


@contextlib.contextmanager
def theme() -> Iterator[None]:
    """What is drawn inside looks alike, and nothing outside is changed."""
    import matplotlib as mpl
    import seaborn as sns

    settings = {
        **sns.axes_style("whitegrid"),
        **sns.plotting_context("paper", font_scale=1.05),
        "font.family": "DejaVu Sans",  # comes with matplotlib
        "axes.edgecolor": FLOOR,
        "axes.labelcolor": INK,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": "#ececf0",
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "svg.hashsalt": "forcing-grid",
    }
    with mpl.rc_context(settings):  # pyright: ignore[reportArgumentType]
        yield


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, in inches, that belongs to no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@runtime_checkable
class Warned(Protocol):
    """What figures are drawn of: a study, or a sweep."""

    @property
    def warning(self) -> str | None: ...


def save(figure: "Figure", path: Path, study: Warned, data: Sequence[Mapping[str, Any]]) -> Path:
    """Write it as `path`, an .svg, beside it as .png, and the numbers that it shows as .csv, a row a mark.

    The warning of a smoke profile stands across its head; the same figure gives the same bytes.
    """
    import pandas as pd

    if study.warning:
        figure.suptitle(study.warning, color=WARNING, fontsize=10, fontweight="bold")
    formats: dict[str, Any] = {".svg": {"Date": None}, ".png": {"Software": None}}
    for suffix, metadata in formats.items():
        figure.savefig(path.with_suffix(suffix), dpi=DPI, facecolor="white", metadata=metadata)
    rows = pd.DataFrame(list(data), dtype=object)  # whole numbers stay whole beside what is missing
    rows.to_csv(path.with_suffix(".csv"), index=False, lineterminator="\n")
    return path


def without_grid(axis: "Axes", along: str) -> None:
    """Leave no lines across the bars."""
    axis.grid(visible=False, axis=along)  # pyright: ignore[reportArgumentType]

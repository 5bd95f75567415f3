"""How every figure looks, and how it is saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from merge_calib.files import write_text, written_whole

SINGLE, WIDE = 3.25, 6.75  # inches: one column, both columns
DPI = 250
BLUE, RED, GREEN, YELLOW, CYAN, PURPLE = "#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377"
COLOURS = (BLUE, RED, GREEN, YELLOW, CYAN, PURPLE)  # Paul Tol's bright scheme, told apart by the colour-blind
INK, GREY = "#222222", "#999999"
MARKERS = ("o", "s", "^", "D", "v", "P")
PLAIN_MARKERS = ("o", "^", "v", "P", "X", "p", "<", ">", "h")  # a method each; base and aligned have the others
LONGEST_NAME = 44
ROUND = (1, 2, 2.5, 5, 10)  # steps between ticks, times a power of ten

_SETTINGS: Any = {
    "pdf.fonttype": 42,  # TrueType; submission systems refuse Type 3
    "text.usetex": False,
    "text.parse_math": False,  # a task may be called $x$
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.4,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "lines.linewidth": 1.0,
}


class Drawing(NamedTuple):
    """A figure and, as CSV, the numbers in it."""

    figure: Figure
    numbers: str


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save with these settings alone, whatever the user's own matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches, with room kept for every label."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_drawing(stem: Path, drawing: Drawing) -> None:
    """Write STEM.pdf, STEM.png and STEM.csv; the same data gives the same bytes."""
    metadata: dict[str, dict[str, Any]] = {
        "pdf": {"Creator": "merge-calib", "Producer": None, "CreationDate": None},
        "png": {"Software": None},
    }
    for format, about in metadata.items():
        with written_whole(stem.with_name(f"{stem.name}.{format}")) as partial:
            drawing.figure.savefig(partial, format=format, dpi=DPI, metadata=about)
    write_text(stem.with_name(f"{stem.name}.csv"), drawing.numbers)


def plain_axes(axes: Axes, ticks: int = 6) -> None:
    """A light grid, few ticks at round numbers, and numbers written out."""
    axes.grid(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(ticks, steps=ROUND))
        axis.set_major_formatter(ScalarFormatter(useOffset=False))


def lambda_colours() -> ListedColormap:
    """Viridis without its pale end, which is hard to see on white."""
    whole = mpl.colormaps["viridis"]
    return ListedColormap([whole(0.9 * i / 255) for i in range(256)])


def label_text(name: str) -> str:
    """`name` for a legend, cut in the middle when long."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME // 2]}…{name[-LONGEST_NAME // 2 + 1 :]}"


def wrapped_text(label: str, most: int) -> str:
    """`label` for a legend in lines of at most `most` letters where it has commas to be broken at."""
    lines: list[str] = []
    for part in label.split(", "):
        if lines and len(lines[-1]) + 2 + len(part) < most:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return ",\n".join(lines)

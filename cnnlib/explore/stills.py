"""Figures of the steps. Lengths are in inches, measured from the upper left corner."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

if TYPE_CHECKING:
    from cnnlib.explore.sliding_window import SlidingWindow

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"

# The cells of a step have a thick frame, unused ones are hatched, and those outside the data are
# dashed; the colours (Okabe and Ito's, lightened) only repeat this. page.css has the same colours.
ACTIVE, ACTIVE_FILL = "#D55E00", "#FDE3CC"
SOURCE_FILL, TARGET_FILL = "#D9ECF8", "#D5EFE6"
GREY = "#6B6B6B"

MARGIN = 0.15
LABEL = 0.6  # height of two lines above a grid
TOP = 1.1  # upper edge of the first grid
GAP = 0.4  # between two steps
SMALLEST = 6  # points; smaller text is illegible

_look = matplotlib.style.context(["default", {"hatch.color": GREY, "hatch.linewidth": 1.2}])


@_look
def draw_steps(window: "SlidingWindow", indices: Sequence[int]) -> Figure:
    """Draw steps side by side, with the source above the target, or beside it for one step."""
    source, target = window.source, window.target
    (source_rows, source_columns), (rows, columns) = source.values.shape, target.values.shape
    pitch = (12 - 2 * MARGIN + GAP) / len(indices)
    cell = min(0.5, (pitch - GAP) / max(source_columns, columns))
    right, lower = 0, source_rows * cell + LABEL
    if len(indices) == 1:
        cell = min(0.5, (pitch - 2 * GAP) / (source_columns + columns))
        right, lower = source_columns * cell + 2 * GAP, 0
    bottom = TOP + max(source_rows * cell, lower + rows * cell)
    axes = _canvas(window, max(9.5, len(indices) * pitch), bottom + 0.9)

    weights = [TIMES + number(weight) for weight in window.kernel.values.flat]
    for i, index in enumerate(indices):
        left = MARGIN + i * pitch
        products = [number(product) for product in window.products[index].flat]
        shares = [text if text.startswith(MINUS) else f"+{text}" for text in products]
        reads = dict(zip(window.reads[index], weights, strict=True))
        writes = dict(zip(window.writes[index], shares, strict=True))
        looks = SOURCE_FILL, texts(source.values), reads, window.never_read
        _draw_grid(axes, left, TOP, cell, source, *looks)
        looks = TARGET_FILL, target_texts(window, index), writes, window.never_written
        _draw_grid(axes, left + right, TOP + lower, cell, target, *looks)
        axes.text(left, bottom + 0.15, f"step {index + 1} of {window.num_steps}", size=13, va="top")
    return axes.figure


def _canvas(window, width, height):
    """Make axes with the title at the top and the meaning of the marks at the bottom."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    axes.text(MARGIN, MARGIN, window.title, size=16, va="top")
    marks = {
        "dashed: inserted zeros": not window.source.data.all(),
        "dashed: cut off by padding": not window.target.data.all(),
        "hatched: never read": window.never_read.any(),
        "hatched: never written": window.never_written.any(),
    }
    key = "     ".join(text for text, is_shown in marks.items() if is_shown)
    axes.text(MARGIN, height - MARGIN, key, size=13, va="bottom", color=GREY)
    return axes


def _draw_grid(axes, left, top, cell, grid, fill, numbers, active, unused):
    """Draw a grid; `active` maps the cells of the step to their notes."""
    axes.text(left, top - 0.08, grid.label, size=13, va="bottom", linespacing=1.1)
    size = 72 * cell * min(0.42, 1.1 / max(map(len, numbers.flat)))  # the longest number fits
    has_notes = len(active) > 1 and 0.6 * size >= SMALLEST
    for index, (row, column) in enumerate(np.ndindex(numbers.shape)):
        text, is_data, is_active = numbers[row, column], grid.data[row, column], index in active
        note = active[index] if is_active and has_notes else ""
        x, y = left + column * cell, top + row * cell
        color = fill if is_data and text else "white"
        box = Rectangle((x, y), cell, cell, facecolor=color, edgecolor=GREY, zorder=1)
        if not is_data:
            box.set_linestyle((0, (2, 2)))
        if is_active:
            box.set(facecolor=ACTIVE_FILL, edgecolor=ACTIVE, linewidth=3, linestyle="-", zorder=2)
        axes.add_patch(box)

        middle = (0.4 if note else 0.5) * cell
        digits = axes.text(x + middle, y + middle, text, size=size, ha="center", zorder=3)
        digits.set(va="center_baseline", color="black" if is_data or is_active else GREY)
        if unused[row, column]:
            box.set_hatch("//")
            digits.set_path_effects([withStroke(linewidth=5, foreground=color)])
        axes.text(x + 0.93 * cell, y + 0.9 * cell, note, size=0.6 * size, ha="right", zorder=3)


def number(value: float) -> str:
    """Format a number briefly: as an integer if it is whole, else with two decimals."""
    text = str(int(value)) if value == int(value) else f"{value:.2f}"
    return text.replace("-", MINUS)


def texts(values: np.ndarray) -> np.ndarray:
    """Format each number of a matrix."""
    return np.array([[number(value) for value in row] for row in values])


def target_texts(window: "SlidingWindow", index: int) -> np.ndarray:
    """Format the target's numbers after a step; cells that are not written yet are blank."""
    written = window.target.mask(window.writes[: index + 1])
    return np.where(written | window.never_written, texts(window.totals[index]), "")

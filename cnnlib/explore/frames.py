"""Figures of the steps of a walk. Lengths are inches, measured from the upper left corner."""

import textwrap

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from cnnlib.explore import panels
from cnnlib.explore.panels import ACTIVE, ACTIVE_FILL, GREY

MARGIN = 0.15
LABEL = 0.6  # two lines above a grid
LINE = 0.3
TOP = 1.1  # of the first grid
SMALLEST = 6  # points of a text that can be read

_look = matplotlib.style.context(["default", {"hatch.color": GREY, "hatch.linewidth": 1.2}])


@_look
def draw_frame(walk, index):
    """Draw the source, the kernel above the products, and the target from left to right."""
    source, target = panels.source_panel(walk, index), panels.target_panel(walk, index)
    kernel, products = panels.kernel_panel(walk), panels.products_panel(walk, index)
    rows, columns = zip(*(p.texts.shape for p in (source, kernel, target)), strict=True)
    gap = 0.9
    cell = min(
        0.62,
        (11 - 2 * gap - 2 * MARGIN) / sum(columns),
        6 / max(rows[0], 2 * rows[1] + 1, rows[2]),
    )
    middle = MARGIN + columns[0] * cell + gap
    right = middle + columns[1] * cell + gap
    lower = TOP + rows[1] * cell + LABEL
    bottom = max(TOP + rows[0] * cell, lower + rows[1] * cell, TOP + rows[2] * cell)
    lines = textwrap.wrap(panels.words(walk, index), 95)

    axes = _canvas(walk, max(9.5, right + columns[2] * cell + MARGIN), bottom, len(lines))
    _draw_panel(axes, MARGIN, TOP, cell, source)
    _draw_panel(axes, middle, TOP, cell, kernel)
    _draw_panel(axes, middle, lower, cell, products)
    _draw_panel(axes, right, TOP, cell, target)
    axes.text(MARGIN, bottom + 0.15, "\n".join(lines), size=15, va="top", linespacing=1.3)
    return axes.figure


@_look
def draw_strip(walk, columns):
    """Draw the source above the target, for some steps side by side."""
    columns = min(columns, walk.frames)
    steps = np.linspace(0, walk.frames - 1, columns).round().astype(int)
    source_rows, source_columns = walk.source.values.shape
    target_rows, target_columns = walk.target.values.shape
    gap = 0.4
    pitch = (12 - 2 * MARGIN + gap) / columns
    cell = min(0.5, (pitch - gap) / max(source_columns, target_columns))
    lower = TOP + source_rows * cell + LABEL
    bottom = lower + target_rows * cell
    lines = [textwrap.wrap(panels.words(walk, step), int(9 * (pitch - gap))) for step in steps]

    axes = _canvas(walk, max(9.5, columns * pitch), bottom, max(map(len, lines)))
    for i, step in enumerate(steps):
        left = MARGIN + i * pitch
        _draw_panel(axes, left, TOP, cell, panels.source_panel(walk, step))
        _draw_panel(axes, left, lower, cell, panels.target_panel(walk, step))
        axes.text(left, bottom + 0.15, "\n".join(lines[i]), size=13, va="top", linespacing=1.4)
    return axes.figure


def _canvas(walk, width, bottom, lines):
    """Make axes with room for lines of words below `bottom`, and write title and key."""
    height = bottom + LINE * (lines + 2)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    axes.text(MARGIN, MARGIN, walk.title, size=16, va="top")
    axes.text(MARGIN, height - MARGIN, panels.key(walk), size=13, va="bottom", color=GREY)
    return axes


def _draw_panel(axes, left, top, cell, panel):
    axes.text(left, top - 0.08, panel.label, size=13, va="bottom", linespacing=1.1)
    size = 72 * cell * panel.digit_size
    note_size = 0.6 * size
    for place in np.ndindex(panel.texts.shape):
        text, is_active, is_unused = panel.texts[place], panel.active[place], panel.unused[place]
        is_data = not panel.others[place]
        note = panel.notes[place] if note_size >= SMALLEST else ""
        x, y = left + place[1] * cell, top + place[0] * cell
        color = panel.fill if is_data and text else "white"
        box = Rectangle((x, y), cell, cell, facecolor=color, edgecolor=GREY, zorder=1)
        if not is_data:
            box.set_linestyle((0, (2, 2)))
        if is_unused:
            box.set_hatch("//")
        if is_active:
            box.set(facecolor=ACTIVE_FILL, edgecolor=ACTIVE, linewidth=3, linestyle="-", zorder=2)
        axes.add_patch(box)

        middle = (0.4 if note else 0.5) * cell
        number = axes.text(x + middle, y + middle, text, size=size, ha="center", zorder=3)
        number.set(va="center_baseline", color="black" if is_data or is_active else GREY)
        if is_unused:
            number.set_path_effects([withStroke(linewidth=5, foreground=color)])
        corner = axes.text(x + 0.93 * cell, y + 0.9 * cell, note, size=note_size, ha="right")
        corner.set_zorder(3)

"""Interactive pictures: HTML with its own script, which needs no kernel and no network.

steps.js holds the sizes, steps and words, page.js the grids and controls, page.css the look.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnlib.explore.stills import target_texts, texts

if TYPE_CHECKING:
    from cnnlib.explore.sliding_window import SlidingWindow


@dataclass(frozen=True, repr=False)
class Page:
    """An output that runs in a notebook and in its export to HTML.

    Args:
        title: What the page shows.
        static: HTML to show until the script runs, and where no script may run.
        data: The input of the script.
    """

    title: str
    static: str
    data: dict

    def __repr__(self):
        return f"{self.title} (run this cell to move it)"

    def _repr_html_(self):
        style, steps, page = (
            Path(__file__).with_name(name).read_text(encoding="utf-8")
            for name in ("page.css", "steps.js", "page.js")
        )
        data = json.dumps(self.data, ensure_ascii=False, separators=(",", ":"), default=int)
        return (
            f'<div class="cnnlib-page" role="group" aria-label="{self.title}">\n'
            f"<p><em>Run this cell to move it.</em></p>\n{self.static}\n"
            f"<template><style>\n{style}</style></template>\n"
            f'<script type="application/json">{data}</script>\n'
            f"<script>(() => {{\n{steps}\n{page}}})();</script>\n</div>"
        )


def player(window: "SlidingWindow") -> Page:
    """Return a page that plays the steps of a SlidingWindow."""
    return Page(window.title, first_step(window), model(window))


def first_step(window: "SlidingWindow") -> str:
    """Return the first step as HTML tables, with its cells in bold."""
    source, kernel, target = window.source, window.kernel, window.target
    written, framed = target_texts(window, 0), target.mask(window.writes[0])
    return "\n".join(
        [
            f"<p>{window.title}: step 1 of {window.num_steps}</p>",
            table(source.label, texts(source.values), source.mask(window.reads[0])),
            table(kernel.label, texts(kernel.values)),
            table(target.label, np.where(written == "", "\N{MIDDLE DOT}", written), framed),
        ]
    )


def table(label: str, rows: np.ndarray, bold: np.ndarray | None = None) -> str:
    """Return an HTML table; `bold` is a mask of the cells to emphasise."""
    cells = rows.astype(str).astype(object)
    if bold is not None:
        cells[bold] = "<b>" + cells[bold] + "</b>"
    lines = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in cells)
    return f"<p>{label}</p><table>{lines}</table>"


def model(window: "SlidingWindow") -> dict:
    """Return the numbers that the script draws.

    A step is given by the cells that its first tap reads and writes, and a tap by its offsets.
    """
    reads, writes = window.reads, window.writes
    grids = {"source": window.source, "kernel": window.kernel, "target": window.target}
    return {
        "kind": "player",
        "title": window.title,
        **{name: _grid(grid) for name, grid in grids.items()},
        "steps": np.stack([reads[:, 0], writes[:, 0]], axis=1).tolist(),
        "taps": np.stack([reads[0] - reads[0, 0], writes[0] - writes[0, 0]], axis=1).tolist(),
    }


def _grid(grid):
    return {
        "label": grid.label,
        "columns": grid.values.shape[1],
        "values": [int(value) if value == int(value) else value for value in grid.values.flat],
        "data": grid.data.ravel().astype(int).tolist(),
    }

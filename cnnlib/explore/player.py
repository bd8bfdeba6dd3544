"""A walk in HTML, with buttons and a slider; the script is in player.html beside this file."""

import json
from pathlib import Path
from string import Template

import numpy as np

from cnnlib.explore import panels


class Player:
    """Plays a walk in a notebook and in its export to HTML, and needs no network."""

    def __init__(self, walk):
        self.walk = walk

    def __repr__(self):
        return f"Player({self.walk.title!r})"

    def _repr_html_(self):
        walk = self.walk
        frames = range(walk.frames)
        kernel = panels.kernel_panel(walk)
        source = [panels.source_panel(walk, index) for index in frames]
        products = [panels.products_panel(walk, index) for index in frames]
        target = [panels.target_panel(walk, index) for index in frames]
        steps = [
            {
                "words": panels.words(walk, index),
                "source": _changes(source[index]),
                "products": _changes(products[index]),
                "target": _changes(target[index]),
            }
            for index in frames
        ]
        shapes = [panel.texts.shape for panel in (source[0], kernel, target[0])]
        template = Path(__file__).with_name("player.html").read_text(encoding="utf-8")
        return Template(template).substitute(
            title=walk.title,
            last=walk.frames - 1,
            rows=max(shapes[0][0], 2 * shapes[1][0] + 1, shapes[2][0]),
            columns=sum(columns for _, columns in shapes),
            source=_grid("source", source),
            kernel=_grid("kernel", [kernel]),
            products=_grid("products", products),
            target=_grid("target", target),
            key=panels.key(walk),
            steps=json.dumps(steps, ensure_ascii=False, separators=(",", ":")),
            active=panels.ACTIVE,
            active_fill=panels.ACTIVE_FILL,
            grey=panels.GREY,
        )


def _grid(name, stages):
    """Write the first of a panel's stages as a label and a grid of cells."""
    panel = stages[0]
    masks = {"others": panel.others, "unused": panel.unused}
    cells = []
    for place in np.ndindex(panel.texts.shape):
        marks = " ".join(mark for mark, mask in masks.items() if mask[place])
        cells.append(f'<span class="{marks}">{panel.texts[place]}</span>')
    digit_size = min(stage.digit_size for stage in stages)  # the same at every step
    style = f"--width: {panel.texts.shape[1]}; --fill: {panel.fill}; --digit: {digit_size:.3f}"
    return (
        f'<div class="label">{panel.label}</div>'
        f'<div class="grid {name}" style="{style}">{"".join(cells)}</div>'
    )


def _changes(panel):
    """Tell the script what a panel shows at a step."""
    return {
        "texts": panel.texts.ravel().tolist(),
        "active": np.flatnonzero(panel.active).tolist(),
        "notes": panel.notes[panel.active].tolist(),
    }

"""The front as an interactive picture: HTML with its own script, without kernel and network."""

import html
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Point:
    """A network in the picture.

    Args:
        name: Its name.
        accuracy: Its test accuracy, as a fraction.
        std: The standard deviation of that over seeds.
        costs: What it costs, by what you pay with. A cost that it lacks is left out there.
    """

    name: str
    accuracy: float
    std: float
    costs: Mapping[str, float]


def _is_number(value: Any) -> bool:
    """Return whether a value is a number that the picture can show."""
    is_real = isinstance(value, Real) and not isinstance(value, bool)
    return is_real and abs(value) < sys.float_info.max


class Front:
    """Accuracy over a cost that the reader chooses; the networks that none beats are joined.

    A reader points at a network, or reaches it with Tab, and reads all of its numbers. Where no
    script runs, the numbers stand in a table.

    Args:
        points: The networks.

    Raises:
        ValueError: There is no point, a number is not finite, or a cost is not above 0.
    """

    def __init__(self, points: Sequence[Point]):
        if not isinstance(points, list | tuple) or not all(isinstance(p, Point) for p in points):
            raise ValueError(f"points={points!r} must be Points in a list: try [Point(...)]")
        if not points:
            raise ValueError("points is empty: pass at least one")
        for point in points:
            known = isinstance(point.name, str) and isinstance(point.costs, Mapping)
            is_fraction = _is_number(point.accuracy) and 0 <= point.accuracy <= 1
            if not known or not is_fraction or not _is_number(point.std) or point.std < 0:
                raise ValueError(
                    f"points: {point!r} must have a name, an accuracy from 0 to 1, a std from 0, "
                    "and a dictionary of costs: try std=0 for a single seed"
                )
            for cost, number in point.costs.items():
                if not isinstance(cost, str) or not _is_number(number) or number <= 0:
                    raise ValueError(
                        f"points: {cost!r} of {point.name!r} is {number!r}, and it must be above "
                        "0 for its log scale: try leaving it out"
                    )
        self.points = list(points)
        self.costs = list(dict.fromkeys(cost for point in points for cost in point.costs))
        if not self.costs:
            raise ValueError(
                "points must have a cost at least: try Point(..., costs={'MACs': 1e6})"
            )

    def __repr__(self):
        return f"{len(self.points)} networks over {', '.join(self.costs)}"

    def _repr_html_(self) -> str:
        style, script = (
            Path(__file__).with_name(f"front.{kind}").read_text(encoding="utf-8")
            for kind in ("css", "js")
        )
        rows = [vars(point) | {"costs": dict(point.costs)} for point in self.points]
        data = json.dumps({"costs": self.costs, "rows": rows}, separators=(",", ":"), default=float)
        data = data.replace("<", "\\u003c")  # a name must not end the script
        return (
            f'<div class="cnnlib-front">\n{self._table()}\n<template><style>\n{style}</style>'
            f'</template>\n<script type="application/json">{data}</script>\n'
            f"<script>(() => {{\n{script}}})();</script>\n</div>"
        )

    def _table(self) -> str:
        """Return the numbers as a table, the cheapest network first."""
        first = self.costs[0]
        order = sorted(self.points, key=lambda point: point.costs.get(first, float("inf")))
        lines = [["network", "test accuracy", "std", *self.costs]]
        for point in order:
            costs = [f"{point.costs[c]:.3g}" if c in point.costs else "" for c in self.costs]
            lines.append([point.name, f"{point.accuracy:.3f}", f"{point.std:.3f}", *costs])
        rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in lines)
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"

"""Pictures of measurements: quality over cost, and the roofline of a machine."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnlib.plots.figures import BLUE, GREY, VERMILION, house_style, spaced


@house_style
def trade_off(
    points: Mapping[str, tuple[float, float, float]],
    cost: str,
    quality: str = "test accuracy",
    front: Sequence[str] = (),
    log: bool = False,
) -> Figure:
    """Draw quality over cost on a log scale: one labelled point with an error bar per network.

    Args:
        points: For each name, cost, quality and the standard deviation of the quality.
        cost: The label of the horizontal axis: what the cost is, with its unit.
        quality: The label of the vertical axis, likewise.
        front: Names that a line joins, the cheapest first, such as the Pareto front.
        log: Whether the quality also has a log scale.

    Raises:
        ValueError: There is no point, a log scale cannot show a number, or the front has an unknown
            name.
    """
    _check_points(points, positive=2 if log else 1)
    if unknown := [name for name in front if name not in points]:
        raise ValueError(f"front={front!r} must name points: there is no {unknown[0]!r}")
    figure = Figure(figsize=(12, 6), layout="constrained")
    axes = figure.subplots()
    for name, (x, y, std) in points.items():
        color = BLUE if name in front or not front else GREY
        axes.errorbar(x, y, std or None, marker="o", color=color, capsize=3, elinewidth=1.2)
    axes.plot([points[name][0] for name in front], [points[name][1] for name in front], color=BLUE)
    axes.set(xlabel=cost, ylabel=quality, xscale="log", yscale="log" if log else "linear")
    _label_points(axes, {name: point[:2] for name, point in points.items()})
    return figure


@house_style
def roofline(points: Mapping[str, tuple[float, float]], peak: float, bandwidth: float) -> Figure:
    """Draw the operations per second that networks reach below the roof of a machine.

    The roof is the bandwidth times the operations per byte, up to the peak.

    Args:
        points: For each name, operations per byte and operations per second.
        peak: Operations per second of the machine.
        bandwidth: Bytes per second that its memory moves.

    Raises:
        ValueError: There is no point, or a log scale cannot show a number.
    """
    _check_points(points, positive=2)
    figure = Figure(figsize=(12, 6), layout="constrained")
    axes = figure.subplots()
    ridge = peak / bandwidth
    intensities = [x for x, _ in points.values()]
    left, right = min(ridge / 4, *intensities) / 1.5, max(4 * ridge, *intensities)
    roof = np.array([left, ridge, right])
    axes.plot(roof, np.minimum(peak, roof * bandwidth) / 1e9, color=VERMILION, label="the roof")
    for x, y in points.values():
        axes.plot(x, y / 1e9, "o", color=BLUE)
    axes.set(xlabel="operations per byte", ylabel="GFLOP/s", xscale="log", yscale="log")
    axes.legend(loc="upper left")
    _label_points(axes, {name: (x, y / 1e9) for name, (x, y) in points.items()})
    return figure


def _label_points(axes: Axes, points: Mapping[str, tuple[float, ...]]) -> None:
    """Write the names in a column to the right of the axes, with a thin line to each point.

    Beside points of similar networks they would cover each other and the front.
    """
    axes.grid(True)
    places = {name: (x, y) for name, (x, y, *_) in points.items()}
    names = sorted(places, key=lambda name: places[name][1])
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [to_axes.transform(places[name])[1] for name in names]
    for name, height in zip(names, spaced(heights, gap=0.06, limit=1), strict=True):
        axes.annotate(
            name,
            places[name],
            (1.03, height),
            textcoords="axes fraction",
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.6", "relpos": (0, 0.5), "shrinkB": 5},
        )


def _check_points(points: Mapping[str, tuple[float, ...]], positive: int) -> None:
    """Refuse an empty mapping, and points whose first numbers a log scale cannot show."""
    if not points:
        raise ValueError("points is empty: pass at least one")
    for name, numbers in points.items():
        if min(numbers[:positive]) <= 0:
            raise ValueError(f"points[{name!r}]={numbers!r} must start with numbers above 0")

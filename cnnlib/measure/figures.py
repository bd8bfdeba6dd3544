"""Pictures of measurements: quality over cost, recipes, and the roofline of a machine."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from numbers import Real
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnlib._checks import check_flags, check_number
from cnnlib.plots._inputs import check_labelled, check_numbers, check_text
from cnnlib.plots.figures import BLUE, GREY, MARKERS, PALETTE, VERMILION, house_style, spaced

_WIDEST = 99  # pixels of a field whose counts can be read
_MOST_PATHS = 10**6  # of a row
_MOST_MAPS = 16  # side by side
_MOST_POINTS = 100  # whose names can be read


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
    _check_labels(cost=cost, quality=quality)
    check_flags(log=log)
    _check_points(points, length=3, positive=2 if log else 1)
    _check_known("front", front, points)
    for name, (_, _, std) in points.items():
        if not isinstance(std, Real) or std < 0 or std == math.inf:
            raise ValueError(
                f"points[{name!r}] must end with a standard deviation, which {std!r} is not: try 0"
            )
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
        ValueError: There is no point, a log scale cannot show a number, or a limit is not above 0.
    """
    _check_points(points, length=2, positive=2)
    peak = check_number("peak", peak, usual=1e12)
    bandwidth = check_number("bandwidth", bandwidth, usual=1e11)
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


@house_style
def recipe_panels(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    quantity: str,
    off_scale: Sequence[str] = (),
) -> Figure:
    """Draw the runs of several recipes, a panel each: a dot per run, a bar at the mean.

    A grey line marks the mean of the first recipe of a panel.

    Args:
        panels: For the title of each panel, the runs of each recipe. All have the same recipes.
        quantity: What the numbers are.
        off_scale: Recipes that are far from the others. Their range is written in place of dots.

    Raises:
        ValueError: There is no panel, or the recipes differ.
    """
    check_labelled("panels", panels)
    for title, runs_of in panels.items():
        check_labelled(f"panels[{title!r}]", runs_of)
        for name, runs in runs_of.items():
            check_numbers(f"panels[{title!r}][{name!r}]", runs, ndim=1)
    _check_labels(quantity=quantity)
    names = [list(runs_of) for runs_of in panels.values()]
    if not names or any(other != names[0] for other in names):
        raise ValueError(f"panels={names} must all have the same recipes: try one panel")
    _check_known("off_scale", off_scale, names[0])
    figure = Figure(figsize=(4 * len(panels), 1.2 + 0.45 * len(names[0])), layout="constrained")
    axes_of = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, runs_of) in zip(axes_of, panels.items(), strict=True):
        for row, (name, numbers) in enumerate(runs_of.items()):
            if name in off_scale:
                words = f"far off: {min(numbers):.2f} to {max(numbers):.2f}"
                left = axes.get_yaxis_transform()
                axes.text(0.03, row, words, va="center", transform=left, backgroundcolor="white")
            else:
                axes.plot(numbers, [row] * len(numbers), "o", color=BLUE, alpha=0.6)
                mean = sum(numbers) / len(numbers)
                axes.plot(mean, row, "|", color="black", markersize=22, markeredgewidth=3)
        whole = runs_of[names[0][0]]
        axes.axvline(sum(whole) / len(whole), color=GREY, lw=1, zorder=1)
        axes.set_yticks(range(len(runs_of)), names[0])
        axes.set(title=title, xlabel=quantity, ylim=(len(runs_of) - 0.5, -0.5))
        axes.locator_params(axis="x", nbins=4)
    return figure


@house_style
def condition_curves(
    runs: Mapping[str, Sequence[Sequence[float]]], condition: str, quantity: str = "test accuracy"
) -> Figure:
    """Draw a quantity over conditions 0, 1, ...: the mean of the seeds, with a band around it.

    Args:
        runs: For each label, one list per seed, with a number for every condition. The band extends
            from the lowest to the highest seed. A label stands beside its line.
        condition: The label of the horizontal axis: what the conditions are, with their unit.
        quantity: The label of the vertical axis, likewise.

    Raises:
        ValueError: There is no run, or the runs have different numbers of conditions.
    """
    check_labelled("runs", runs)
    _check_labels(condition=condition, quantity=quantity)
    arrays = {
        name: check_numbers(f"runs[{name!r}]", runs[name], ndim=2).astype(float) for name in runs
    }
    lengths = {seeds.shape[1] for seeds in arrays.values()}
    if len(lengths) != 1:
        raise ValueError(f"runs={dict(runs)!r} must have lists of one length: try one label")
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axes = figure.subplots()
    last = lengths.pop() - 1
    ends = {label: np.mean([numbers[-1] for numbers in seeds]) for label, seeds in arrays.items()}
    labels = sorted(ends, key=lambda label: ends[label])
    highest = max(max(numbers) for seeds in arrays.values() for numbers in seeds)
    lowest = min(min(numbers) for seeds in arrays.values() for numbers in seeds)
    heights = [float(ends[label]) for label in labels]
    heights = spaced(heights, gap=0.075 * (highest - lowest), limit=highest)
    places = dict(zip(labels, heights, strict=True))
    looks = zip(cycle(PALETTE), cycle(MARKERS), strict=False)
    for (label, seeds), (color, marker) in zip(arrays.items(), looks, strict=False):
        axes.plot(range(last + 1), np.mean(seeds, axis=0), color=color, marker=marker)
        low, high = np.min(seeds, axis=0), np.max(seeds, axis=0)
        axes.fill_between(range(last + 1), low, high, color=color, alpha=0.25, lw=0)
        axes.text(1.04 * last, places[label], label, color=color, va="center")
    axes.set(xlabel=condition, ylabel=quantity, xticks=range(last + 1), xlim=(-0.1, 1.35 * last))
    axes.grid(True)
    return figure


@house_style
def path_maps(rows: Mapping[str, Sequence[int]]) -> Figure:
    """Draw the paths from the pixels of square fields to one output, a cross where there is none.

    Args:
        rows: For the title of each map, the paths along one axis, as `arithmetic.contributions`
            counts them. In two dimensions they multiply.

    Raises:
        ValueError: There is no map, or a row is no row of counts or too long to read.
    """
    check_labelled("rows", rows)
    arrays = {title: check_numbers(f"rows[{title!r}]", rows[title], ndim=1) for title in rows}
    for title, counts in arrays.items():
        is_row = len(counts) <= _WIDEST and counts.dtype.kind in "iu"
        if not is_row or not 0 <= counts.min() <= counts.max() <= _MOST_PATHS:
            raise ValueError(
                f"rows[{title!r}] must be at most {_WIDEST} counts of paths, none above "
                f"{_MOST_PATHS:,}: try arithmetic.contributions"
            )
    if len(rows) > _MOST_MAPS or sum(map(len, arrays.values())) > 4 * _WIDEST:
        raise ValueError(
            f"rows={list(rows)} must be at most {_MOST_MAPS} maps with {4 * _WIDEST} counts "
            "together: try fewer maps"
        )
    sides = [len(row) for row in arrays.values()]
    figure = Figure(figsize=(0.27 * sum(sides), 0.27 * max(sides) + 0.3), layout="constrained")
    panels = figure.subplots(1, len(rows), width_ratios=sides, squeeze=False)[0]
    for axes, (title, row) in zip(panels, arrays.items(), strict=True):
        paths = np.outer(row.astype(int), row.astype(int))  # bytes would overflow
        axes.imshow(np.log1p(paths), cmap="Blues", vmin=0, vmax=np.log1p(60))
        for (y, x), count in np.ndenumerate(paths):
            color = "white" if count > 12 else "black" if count else VERMILION
            axes.text(x, y, count or "×", ha="center", va="center", fontsize=8, color=color)
        axes.set_title(title, fontsize=13)
        axes.set(xticks=[], yticks=[])
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


def _check_labels(**labels: Any) -> None:
    """Refuse labels of axes that are no text."""
    for name, label in labels.items():
        check_text(name, label, "state what the axis shows, with its unit")


def _check_known(name: str, chosen: Any, known: Iterable[str]) -> None:
    """Refuse anything that is not a list of known names."""
    is_list = isinstance(chosen, tuple | list)
    if not is_list or any(each not in list(known) for each in chosen):
        raise ValueError(f"{name}={chosen!r} must be a list of names: try some of {list(known)}")


def _check_points(points: Mapping[str, Sequence[float]], length: int, positive: int) -> None:
    """Refuse an empty mapping, and points of other numbers than a log scale can show."""
    check_labelled("points", points)
    if len(points) > _MOST_POINTS:
        raise ValueError(f"points has {len(points)} names: try the {_MOST_POINTS} that matter most")
    for name, given in points.items():
        if not isinstance(given, tuple | list) or len(given) != length:
            raise ValueError(f"points[{name!r}]={given!r} must be {length} numbers: try a tuple")
        check_numbers(f"points[{name!r}]", given[:2], ndim=1)
        if min(given[:positive]) <= 0:
            raise ValueError(f"points[{name!r}]={given!r} must start with numbers above 0")

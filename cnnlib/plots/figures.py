"""Images, training curves, confusion matrix: each function returns a matplotlib Figure.

Arrays may be lists, NumPy arrays or torch tensors on any device. The figures do not belong to
pyplot, so a notebook shows one only when it calls `show`, with a caption and a text alternative.
"""

from io import BytesIO
from itertools import cycle

import matplotlib.style
import numpy as np
import torch
from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

# The palette of Okabe and Ito, which the colour-blind can tell apart; its yellow is left out
# because a yellow line is lost on white.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY, BLACK = "#CC79A7", "#E69F00", "#56B4E9", "#000000"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
GREY = "0.45"

MARKERS = "osD^vPX*"
MAX_IMAGES = 200
ROW_KEYS = ("epoch", "train_loss", "test_loss", "train_accuracy", "test_accuracy")

# One look for every picture, set while a figure is built or rendered and never globally.
_look = matplotlib.style.context(
    [
        "default",
        {
            "font.size": 14,
            "axes.titlesize": 16,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GREY,
            "axes.axisbelow": True,
            "grid.color": "0.87",
            "lines.linewidth": 2.5,
            "lines.markersize": 7,
            "legend.frameon": False,
        },
    ]
)


def show(figure, caption, alt):
    """Display a figure in the notebook as a PNG, and its caption in italics below it.

    Args:
        figure: a matplotlib Figure.
        caption: the conclusion of the picture, in Markdown.
        alt: what the picture shows, for a reader who cannot see it.

    Raises:
        ValueError: the caption or the text alternative is empty.
    """
    if not caption.strip():
        raise ValueError(f"caption={caption!r} must not be empty: state what the picture shows")
    if not alt.strip():
        raise ValueError(f"alt={alt!r} must not be empty: describe the picture in words")
    display(Image(data=png(figure), alt=alt), Markdown(f"*{caption.strip()}*"))


@_look
def png(figure):
    """Render a figure to the bytes of a PNG, 100 dots an inch, without empty margins."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
    return buffer.getvalue()


@_look
def image_grid(images, titles=None, columns=8):
    """Draw images row by row in a grid.

    Shape:
        (N, H, W), (N, 1, H, W) or (N, 3, H, W)

    Args:
        images: bytes in 0..255 or floating-point numbers in 0..1.
        titles: a string for each image, shown above it.
        columns: images in a row.

    Raises:
        ValueError: no image, too many, another shape or range, or titles of another number.
    """
    images = _pixels(images)
    count = len(images)
    if titles is not None and len(titles) != count:
        raise ValueError(f"titles has {len(titles)} entries for {count} images: pass one for each")
    if columns < 1:
        raise ValueError(f"columns={columns} must be at least 1")

    columns = min(columns, count)
    rows = -(-count // columns)
    lines = max((title.count("\n") + 1 for title in titles), default=0) if titles else 0
    width = 1.4
    height = width * images.shape[1] / images.shape[2]
    title_height = 0.22 * lines + 0.06
    figure = Figure(figsize=(columns * width, rows * (height + title_height)))
    grid = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": 0,
            "right": 1,
            "bottom": 0,
            "top": 1 - title_height / (rows * (height + title_height)),
            "wspace": 0.06,
            "hspace": title_height / height,
        },
    ).flat
    for axes in grid:
        axes.set_axis_off()
    for index, image in enumerate(images):
        grid[index].imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        if titles is not None:
            grid[index].set_title(titles[index], fontsize=11, pad=3)
    return figure


@_look
def training_curves(runs):
    """Draw loss and accuracy over the epochs: training solid, test dashed.

    Args:
        runs: the rows of one run, or a dictionary from a label to the rows of a run. A row is a
            dictionary with epoch, train_loss, test_loss, train_accuracy (fraction) and
            test_accuracy (fraction).

    Raises:
        ValueError: no run, a run without rows, or a row without one of these keys.
    """
    if not isinstance(runs, dict):
        runs = {"": runs}
    _check_runs(runs)

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, quantity in zip(panels, ("loss", "accuracy"), strict=True):
        looks = zip(cycle(PALETTE), cycle(MARKERS), strict=False)
        for rows, (color, marker) in zip(runs.values(), looks, strict=False):
            epochs = [row["epoch"] for row in rows]
            for part, dash, face in (("train", "-", color), ("test", "--", "white")):
                values = [row[f"{part}_{quantity}"] for row in rows]
                (curve,) = axes.plot(epochs, values, dash, color=color)
                curve.set(marker=marker, markerfacecolor=face, markevery=max(1, len(rows) // 10))
        axes.set_title(quantity.capitalize(), loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(True)
    key = [
        Line2D([], [], color=GREY, linestyle=dash, marker="o", markerfacecolor=face)
        for dash, face in (("-", GREY), ("--", "white"))
    ]
    panels[0].legend(key, ["train", "test"])
    _label_ends(panels[1], {label: rows[-1] for label, rows in runs.items() if label})
    return figure


@_look
def loss_curve(losses, batches):
    """Draw the training loss of each batch, so far.

    Args:
        losses: a number for each batch.
        batches: batches in an epoch.

    Raises:
        ValueError: no loss, or fewer than one batch in an epoch.
    """
    losses = as_array(losses)
    if losses.size == 0:
        raise ValueError("losses is empty: pass at least one")
    if batches < 1:
        raise ValueError(f"batches={batches} must be at least 1")
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.arange(1, len(losses) + 1) / batches, losses, color=BLUE, linewidth=1.5)
    axes.set_title("Training loss of each batch", loc="left")
    axes.set_xlabel("epoch")
    axes.set_ylim(bottom=0)
    axes.grid(True)
    return figure


@_look
def loss_bands(runs, window=5):
    """Draw the training loss over the batches: the mean of several seeds, and a band around it.

    Args:
        runs: a dictionary from a label to the runs of several seeds, each a list with the loss of
            every batch. The band reaches from the lowest to the highest seed.
        window: batches over which each run is averaged first, so that the eye finds the trend.

    Raises:
        ValueError: no run, runs of unequal length, or fewer batches than the window.
    """
    if not runs:
        raise ValueError("runs is empty: pass at least one")
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    axes = figure.subplots()
    for (label, seeds), color in zip(runs.items(), cycle(PALETTE), strict=False):
        if len({len(losses) for losses in seeds}) != 1:
            raise ValueError(f"runs[{label!r}] must hold runs of equal length, and at least one")
        if len(seeds[0]) < window:
            raise ValueError(
                f"window={window} must not exceed the {len(seeds[0])} batches of runs[{label!r}]"
            )
        smooth = [np.convolve(losses, np.ones(window) / window, "valid") for losses in seeds]
        batches = np.arange(window, len(seeds[0]) + 1)
        axes.plot(batches, np.mean(smooth, axis=0), color=color, label=label)
        axes.fill_between(
            batches, np.min(smooth, axis=0), np.max(smooth, axis=0), color=color, alpha=0.2, lw=0
        )
    axes.set(xlabel="batch", ylabel=f"training loss, mean of {window} batches")
    axes.grid(True)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@_look
def layer_profile(profiles, quantity):
    """Draw a positive quantity of every layer, from the first to the last, on a log scale.

    Args:
        profiles: a dictionary from a label to the values, one a layer.
        quantity: what the values are, with their unit: the name of the axis.

    Raises:
        ValueError: no profile, or a value that a log scale cannot show.
    """
    if not profiles:
        raise ValueError("profiles is empty: pass at least one")
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    axes = figure.subplots()
    looks = zip(cycle(PALETTE), cycle(MARKERS), strict=False)
    for (label, values), (color, marker) in zip(profiles.items(), looks, strict=False):
        if min(values, default=0) <= 0:
            raise ValueError(f"profiles[{label!r}] must hold values above 0, and at least one")
        layers = range(1, len(values) + 1)
        axes.plot(layers, values, marker=marker, markersize=4, color=color, lw=1.5, label=label)
    axes.set(xlabel="layer, from the input", ylabel=quantity, yscale="log")
    axes.grid(True)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@_look
def trade_off(points, cost, quality="test accuracy", front=(), log=False):
    """Draw a quality over a cost on a log scale, a labelled point with its spread for each network.

    Args:
        points: a dictionary from a name to (cost, quality, spread).
        cost: what the cost is, with its unit: the name of the axis.
        quality: likewise.
        front: names that a line joins, the cheapest first, such as those that none beats.
        log: whether the quality has a log scale, too.

    Raises:
        ValueError: no point, a cost that a log scale cannot show, or a front with unknown names.
    """
    _check_points(points, positive=2 if log else 1)
    if unknown := [name for name in front if name not in points]:
        raise ValueError(f"front={front!r} must name points: there is no {unknown[0]!r}")
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    axes = figure.subplots()
    for name, (x, y, spread) in points.items():
        color = BLUE if name in front or not front else GREY
        axes.errorbar(x, y, spread or None, marker="o", color=color, capsize=3, elinewidth=1.2)
    axes.plot([points[name][0] for name in front], [points[name][1] for name in front], color=BLUE)
    axes.set(xlabel=cost, ylabel=quality, xscale="log", yscale="log" if log else "linear")
    _label_points(axes, {name: point[:2] for name, point in points.items()})
    return figure


@_look
def roofline(points, peak, bandwidth):
    """Draw the operations a second that networks reach, below the roof that a machine gives.

    The roof is the bandwidth times the operations for each byte, up to the peak.

    Args:
        points: a dictionary from a name to (operations for each byte, operations a second).
        peak: operations a second of the machine.
        bandwidth: bytes a second that its memory moves.

    Raises:
        ValueError: no point, or a number that a log scale cannot show.
    """
    _check_points(points, positive=2)
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    axes = figure.subplots()
    ridge = peak / bandwidth
    intensities = [x for x, _ in points.values()]
    left, right = min(ridge / 4, *intensities) / 1.5, max(4 * ridge, *intensities)
    roof = np.array([left, ridge, right])
    axes.plot(roof, np.minimum(peak, roof * bandwidth) / 1e9, color=VERMILION, label="the roof")
    for x, y in points.values():
        axes.plot(x, y / 1e9, "o", color=BLUE)
    axes.set(xlabel="operations for each byte", ylabel="GFLOP/s", xscale="log", yscale="log")
    axes.legend(loc="upper left")
    _label_points(axes, {name: (x, y / 1e9) for name, (x, y) in points.items()})
    return figure


def _label_points(axes, points, size=11):
    """Write the name beside each point, higher where it would cover another; a line leads to it."""
    axes.margins(x=0.03)
    axes.set_xlim(axes.get_xlim()[0], axes.get_xlim()[1] * 4)  # on a log scale: room for a name
    axes.grid(True)
    axes.figure.draw_without_rendering()  # which decides where the axes lie
    placed = []  # the boxes (left, right, bottom) of names, in points from the corner
    pixel = 72 / axes.figure.dpi
    for name, point in sorted(points.items(), key=lambda item: item[1][1]):
        x, y = axes.transData.transform(point) * pixel
        left, right, bottom = x + 10, x + 10 + 0.62 * size * len(name), y - size / 3
        for other_left, other_right, other in sorted(placed, key=lambda box: box[2]):
            if left < other_right and other_left < right and abs(bottom - other) < 1.2 * size:
                bottom = other + 1.2 * size
        placed.append((left, right, bottom))
        line = {"arrowstyle": "-", "color": GREY, "lw": 0.6}
        shift = (10, bottom - y)
        axes.annotate(
            name, point, shift, textcoords="offset points", fontsize=size, arrowprops=line
        )


@_look
def confusion_matrix(matrix, classes):
    """Draw how often each class was taken for each: counts in the cells, shares as shades.

    Shape:
        (K, K), a row for each true class, a column for each predicted one

    Args:
        matrix: counts of images.
        classes: the K names.

    Raises:
        ValueError: the matrix is not square, holds something else than counts, or there is not
            one name for each row.
    """
    counts = as_array(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.size == 0:
        raise ValueError(f"matrix has shape {counts.shape}: it must be K x K, rows true")
    if (counts < 0).any() or (counts != counts.round()).any():
        raise ValueError("matrix must hold counts, whole numbers from 0: pass it unnormalised")
    if len(classes) != len(counts):
        raise ValueError(
            f"classes has {len(classes)} names for {len(counts)} rows: pass one for each"
        )

    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    side = 2.5 + 0.62 * len(counts)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shades = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        share = shares[row, column]
        color = "0.7" if share == 0 else "white" if share > 0.5 else "black"
        text = f"{int(counts[row, column]):,}"
        axes.text(column, row, text, ha="center", va="center", fontsize=12, color=color)
    ticks = range(len(counts))
    axes.set_xticks(ticks, classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, classes)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    bar = figure.colorbar(shades, ax=axes, shrink=0.6, label="share of the true class")
    bar.outline.set_visible(False)
    return figure


@_look
def misclassified(images, labels, predictions, classes, columns=8, rows=2):
    """Draw the first images whose prediction is wrong, titled "true > predicted".

    Shape:
        images as in `image_grid`; labels and predictions (N,)

    Args:
        images: bytes in 0..255 or floating-point numbers in 0..1.
        labels: indices of the true classes.
        predictions: indices of the predicted classes.
        classes: the names of the classes.
        columns: images in a row.
        rows: rows at most.

    Raises:
        ValueError: no image, not one label and one prediction for each, or a class without a name.
    """
    images, labels, predictions = as_array(images), as_array(labels), as_array(predictions)
    if len(images) == 0:
        raise ValueError("images is empty: pass at least one")
    for name, indices in (("labels", labels), ("predictions", predictions)):
        if indices.shape != (len(images),):
            raise ValueError(
                f"{name} has shape {indices.shape} for {len(images)} images: "
                "pass one class index for each"
            )
        if indices.min() < 0 or indices.max() >= len(classes):
            raise ValueError(
                f"{name} has indices from {indices.min()} to {indices.max()} "
                f"for {len(classes)} classes: name every class"
            )
    for name, count in (("columns", columns), ("rows", rows)):
        if count < 1:
            raise ValueError(f"{name}={count} must be at least 1")

    wrong = np.flatnonzero(labels != predictions)[: columns * rows]
    if len(wrong) == 0:
        figure = Figure(figsize=(6, 1))
        figure.text(0.5, 0.5, f"All {len(images):,} predictions are right.", ha="center")
        return figure
    titles = [f"{classes[labels[i]]}\n> {classes[predictions[i]]}" for i in wrong]
    return image_grid(images[wrong], titles, columns)


def _check_points(points, positive):
    """Refuse no points, or one of whose first numbers a log scale shows nothing."""
    if not points:
        raise ValueError("points is empty: pass at least one")
    for name, numbers in points.items():
        if min(numbers[:positive]) <= 0:
            raise ValueError(f"points[{name!r}]={numbers!r} must start with numbers above 0")


def as_array(values):
    """Give a list, an array or a tensor on any device as a NumPy array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        if values.dtype == torch.bfloat16:  # NumPy has no such type
            values = values.float()
    return np.asarray(values)


def _pixels(images):
    """Check images and give them as (N, H, W) or (N, H, W, 3) with values in 0..1."""
    images = as_array(images)
    if len(images) == 0:
        raise ValueError("images is empty: pass at least one")
    if len(images) > MAX_IMAGES:
        raise ValueError(f"images has {len(images):,} entries: draw at most {MAX_IMAGES}")
    if images.ndim == 4 and images.shape[1] in (1, 3):
        images = np.moveaxis(images, 1, -1)
        if images.shape[-1] == 1:
            images = images[..., 0]
    elif images.ndim != 3:
        raise ValueError(
            f"images has shape {images.shape}: it must be N x H x W, N x 1 x H x W or N x 3 x H x W"
        )
    if images.dtype == np.uint8:
        return images / 255
    low, high = images.min(), images.max()
    # Rounding in a resize may leave the range by a hair; a normalised image leaves it by far.
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(
            f"images has values from {low:.3g} to {high:.3g}: floating-point images must lie in "
            "0..1, so undo the normalisation; bytes must have dtype uint8"
        )
    return images.astype(float).clip(0, 1)


def _check_runs(runs):
    """Refuse runs that hold nothing to draw."""
    if not runs:
        raise ValueError("runs is empty: pass the rows of at least one run")
    for label, rows in runs.items():
        name = f"runs[{label!r}]" if label else "runs"
        if len(rows) == 0:
            raise ValueError(f"{name} has no rows: train for at least one epoch")
        for row in rows:
            missing = [key for key in ROW_KEYS if key not in row]
            if missing:
                raise ValueError(f"{name} has a row without {', '.join(missing)}")


def _label_ends(axes, last_rows):
    """Write each run's label to the right of its test accuracy, none on top of another.

    Args:
        axes: the panel with the accuracy.
        last_rows: a dictionary from a label to the last row of its run.
    """
    colors = dict(zip(last_rows, cycle(PALETTE), strict=False))
    labels = sorted(last_rows, key=lambda label: last_rows[label]["test_accuracy"])
    low, high = axes.get_ylim()
    gap = 0.08 * (high - low)
    heights = [last_rows[label]["test_accuracy"] for label in labels]
    for i in range(1, len(labels)):  # push up from below …
        heights[i] = max(heights[i], heights[i - 1] + gap)
    limit = high
    for i in reversed(range(len(labels))):  # … and back down from the upper edge
        heights[i] = min(heights[i], limit)
        limit = heights[i] - gap
    for label, height in zip(labels, heights, strict=True):
        row = last_rows[label]
        axes.annotate(
            label,
            xy=(row["epoch"], row["test_accuracy"]),
            xytext=(1.04, height),
            textcoords=("axes fraction", "data"),
            va="center",
            arrowprops={"arrowstyle": "-", "color": colors[label], "linewidth": 1.5},
            annotation_clip=False,
        )

"""Images, training curves, confusion matrix: each function returns a matplotlib Figure.

Arrays may be lists, NumPy arrays or torch tensors on any device. The figures do not belong to
pyplot, so a notebook displays one only when it calls `show`, with a caption and alternative text.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from itertools import cycle
from numbers import Real
from typing import Any

import matplotlib.style
import numpy as np
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.colors import is_color_like
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cnnlib._checks import check_count, shown
from cnnlib.plots._inputs import check_index, check_labelled, check_names, check_numbers, check_text

# The palette of Okabe and Ito, which colour-blind people can tell apart, without its yellow, which
# is hard to see on white.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY, BLACK = "#CC79A7", "#E69F00", "#56B4E9", "#000000"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
GREY = "0.45"

MARKERS = "osD^vPX*"
_DRAWN = ("epoch", "train_loss", "test_loss", "train_accuracy", "test_accuracy")  # of each epoch
MAX_IMAGES = 200
MAX_SIDE = 100  # cells of a matrix whose numbers are written

# One style for every picture, set only while a figure is built or rendered, never globally.
house_style = matplotlib.style.context(
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


def show(figure: Figure, caption: str, alt: str) -> None:
    """Display a figure in the notebook with its caption in italics below it.

    The picture is sent twice, as HTML with the alternative text and as a bare PNG, and each front
    end takes the richest form that it can show.

    Args:
        figure: A matplotlib Figure.
        caption: The conclusion of the picture, in Markdown.
        alt: What the picture shows, for a reader who cannot see it.

    Raises:
        ValueError: The caption or the alternative text is empty.
    """
    check_text("caption", caption, "state what the picture shows")
    check_text("alt", alt, "describe the picture in words")
    picture = _base64(figure)
    bundle = {"text/html": _image_html(picture, alt), "image/png": picture, "text/plain": alt}
    display(bundle, raw=True)
    display(Markdown(f"*{caption.strip()}*"))


def image_html(figure: Figure, alt: str) -> str:
    """Return an HTML image with the figure as a PNG and its alternative text."""
    check_text("alt", alt, "describe the picture in words")
    return _image_html(_base64(figure), alt)


def _image_html(picture: str, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{picture}">'


def _base64(figure: Figure) -> str:
    return b64encode(png(figure)).decode()


@house_style
def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG, at 100 dots per inch, without empty margins."""
    if not isinstance(figure, Figure):
        raise ValueError(
            f"figure of type {type(figure).__name__} must be a matplotlib Figure: try what a "
            "function of cnnlib.plots returns"
        )
    buffer = BytesIO()
    try:
        figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
    except ValueError as error:  # too many pixels, or a text such as "$x_$"
        raise ValueError(f"figure must have a size and texts that can be drawn: {error}") from error
    return buffer.getvalue()


@house_style
def image_grid(images: Any, titles: Sequence[str] | None = None, columns: int = 8) -> Figure:
    """Draw images row by row in a grid.

    Shape:
        (N, H, W), (N, 1, H, W) or (N, 3, H, W)

    Args:
        images: Bytes in 0..255 or floating-point numbers in 0..1.
        titles: One title per image, shown above it.
        columns: Images per row.

    Raises:
        ValueError: There are no images or too many, or their shape, range or titles are wrong.
    """
    images = pixels(images)
    count = len(images)
    if titles is not None:
        check_names("titles", titles, count, "images")
        titles = list(map(str, titles))
    columns = min(check_count("columns", columns, usual=8), count)
    rows = -(-count // columns)
    lines = max((title.count("\n") + 1 for title in titles), default=0) if titles else 0
    width = 1.4
    height = min(width * images.shape[1] / images.shape[2], 20)
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


@house_style
def training_curves(runs: Mapping[str, Sequence[Any]] | Sequence[Any]) -> Figure:
    """Draw loss and accuracy over the epochs, with training solid and test dashed.

    Args:
        runs: The rows of a History, or a dictionary from labels to the rows of several runs.

    Raises:
        ValueError: There is no run, or a run has no rows.
    """
    if not isinstance(runs, Mapping):
        runs = {"": runs}
    check_labelled("runs", runs)
    for label, rows in runs.items():
        listed = rows if isinstance(rows, Sequence) else []
        drawn = [getattr(row, name, None) for row in listed for name in _DRAWN]
        if not drawn or not all(isinstance(value, Real) for value in drawn):
            raise ValueError(
                f"runs[{label!r}]={shown(rows)} must be the rows of a History, one or more: try "
                "history.rows"
            )

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, quantity in zip(panels, ("loss", "accuracy"), strict=True):
        looks = zip(cycle(PALETTE), cycle(MARKERS), strict=False)
        for rows, (color, marker) in zip(runs.values(), looks, strict=False):
            epochs = [row.epoch for row in rows]
            for part, dash, face in (("train", "-", color), ("test", "--", "white")):
                values = [getattr(row, f"{part}_{quantity}") for row in rows]
                (curve,) = axes.plot(epochs, values, dash, color=color)
                curve.set(marker=marker, markerfacecolor=face, markevery=max(1, len(rows) // 10))
        axes.set_title(quantity.capitalize(), loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(True)
    key = [
        Line2D([], [], color=GREY, linestyle="-", marker="o"),
        Line2D([], [], color=GREY, linestyle="--", marker="o", markerfacecolor="white"),
    ]
    panels[0].legend(key, ["train", "test"])
    _label_ends(panels[1], {label: rows[-1] for label, rows in runs.items() if label})
    return figure


@house_style
def loss_curve(losses: Any, batches: int) -> Figure:
    """Draw the training loss of each batch.

    Args:
        losses: One number per batch.
        batches: Batches per epoch.

    Raises:
        ValueError: There is no loss, or fewer than one batch per epoch.
    """
    losses = check_numbers("losses", losses, ndim=1)
    batches = check_count("batches", batches, usual=1)
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.arange(1, len(losses) + 1) / batches, losses, color=BLUE, linewidth=1.5)
    axes.set_title("Training loss of each batch", loc="left")
    axes.set_xlabel("epoch")
    axes.set_ylim(bottom=0)
    axes.grid(True)
    return figure


@house_style
def layer_profile(
    profiles: Mapping[str, Sequence[Any]], quantity: str, colors: Sequence[str] = PALETTE
) -> Figure:
    """Draw a positive quantity of every layer, from first to last, on a log scale.

    Args:
        profiles: For each label, one value per layer, or a list of them per seed. Several seeds are
            drawn as their geometric mean, with a band from the lowest to the highest.
        quantity: The label of the axis: what the values are, with their unit.
        colors: A colour per label, used again from the first where there are more labels.

    Raises:
        ValueError: There is no profile, or a log scale cannot show a value.
    """
    check_labelled("profiles", profiles)
    check_text("quantity", quantity, "say what the values are")
    listed = isinstance(colors, list | tuple) or getattr(colors, "ndim", 0) > 0
    if not listed or not len(colors) or not all(map(is_color_like, colors)):
        raise ValueError(f"colors={shown(colors)} must be colours in a list: try ['red', 'blue']")
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    axes = figure.subplots()
    looks = zip(cycle(colors), cycle(MARKERS), strict=False)
    for (label, profile), (color, marker) in zip(profiles.items(), looks, strict=False):
        seeds = np.atleast_2d(check_numbers(f"profiles[{label!r}]", profile))
        if seeds.ndim > 2 or seeds.size == 0 or seeds.min() <= 0:
            raise ValueError(f"profiles[{label!r}] must hold values above 0, and at least one")
        layers = range(1, seeds.shape[1] + 1)
        middle = np.exp(np.log(seeds).mean(0)) if len(seeds) > 1 else seeds[0]
        axes.plot(
            layers, middle, marker=marker, markersize=4, color=color, lw=1.5, label=str(label)
        )
        axes.fill_between(layers, seeds.min(0), seeds.max(0), color=color, alpha=0.2, lw=0)
    axes.set(xlabel="layer, from the input", ylabel=quantity, yscale="log")
    axes.grid(True)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@house_style
def seeds(
    runs: Mapping[str, Sequence[float]],
    quantity: str,
    reference: tuple[str, float] | None = None,
) -> Figure:
    """Draw the results of several seeds: one row per label, a dot per seed, a bar at the mean.

    Args:
        runs: For each label, one number per seed.
        quantity: The label of the axis: what the numbers are, with their unit.
        reference: Name and value of a reference, which is drawn as a dashed line.

    Raises:
        ValueError: There is no run, or a run has no numbers.
    """
    check_labelled("runs", runs)
    check_text("quantity", quantity, "say what the numbers are")
    check_count("len(runs)", len(runs), MAX_IMAGES)
    rows = {label: check_numbers(f"runs[{label!r}]", values, 1) for label, values in runs.items()}
    if reference is not None:
        if not isinstance(reference, tuple | list) or len(reference) != 2:
            raise ValueError(
                f"reference={shown(reference)} must be a name and a number: try ('mean', 0.9)"
            )
        check_numbers("reference", [reference[1]], ndim=1)
    labels = list(map(str, runs))
    lines = sum(label.count("\n") + 1 for label in labels)
    figure = Figure(figsize=(9, 1.3 + 0.2 * len(runs) + 0.25 * lines), layout="constrained")
    axes = figure.subplots()
    for row, values in enumerate(rows.values()):
        axes.plot(values, [row] * len(values), "o", markersize=10, alpha=0.7, color=BLUE)
        axes.plot(values.mean(), row, "|", markersize=24, markeredgewidth=3, color=BLACK)
    if reference:
        label, value = reference
        axes.axvline(value, color=GREY, linestyle="--", lw=1.5, zorder=1)
        top = axes.get_xaxis_transform()
        axes.text(value, 1.02, label, fontsize=12, color=GREY, ha="center", transform=top)
    axes.set_yticks(range(len(runs)), labels)
    axes.set(xlabel=quantity, ylim=(len(runs) - 0.4, -0.6))  # the first row at the top
    axes.grid(axis="x")
    return figure


@house_style
def number_grid(axes: Axes, values: Any, title: str, size: int = 14) -> None:
    """Draw a small matrix into axes, its numbers in the cells, larger ones in darker cells.

    Shape:
        (H, W)

    Args:
        axes: The axes to draw into.
        values: The numbers.
        title: What the numbers are.
        size: Font size of the numbers, in points.

    Raises:
        ValueError: The values are not a matrix, or it is empty.
    """
    if not isinstance(axes, Axes):
        raise ValueError(
            f"axes of type {type(axes).__name__} must be matplotlib Axes: try Figure().subplots()"
        )
    size = check_count("size", size, 200, usual=14)
    check_text("title", title, "say what the numbers are")
    values = check_numbers("values", values)
    if values.ndim != 2 or not 0 < values.size <= MAX_SIDE**2:
        raise ValueError(f"values has shape {values.shape}: pass a matrix, such as values[0, 0]")
    shades = np.abs(values.astype(float))
    axes.imshow(shades, cmap="Blues", vmin=0, vmax=1.6 * shades.max() + 1e-9)
    for (row, column), value in np.ndenumerate(values):
        color = GREY if value == 0 else "black"
        axes.text(column, row, f"{value:g}", ha="center", va="center", color=color, fontsize=size)
    axes.set_title(title, fontsize=14, loc="left")
    axes.set(xticks=np.arange(-0.5, values.shape[1]), yticks=np.arange(-0.5, values.shape[0]))
    axes.tick_params(length=0, labelbottom=False, labelleft=False)
    axes.grid(color="0.6", linewidth=0.7)


@house_style
def confusion_matrix(matrix: Any, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix, with counts in the cells and shares as shades.

    Shape:
        (K, K), one row per true class, one column per predicted class

    Args:
        matrix: Counts of images.
        classes: The K class names.

    Raises:
        ValueError: The matrix is not square, holds anything but counts, or there is not one name
            per row.
    """
    counts = check_numbers("matrix", matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.size == 0:
        raise ValueError(f"matrix has shape {counts.shape}: it must be K x K, rows true")
    check_count("len(matrix)", len(counts), MAX_SIDE)
    if (counts < 0).any() or (counts != counts.round()).any():
        raise ValueError("matrix must hold counts, whole numbers from 0: pass it unnormalised")
    check_names("classes", classes, len(counts), "rows")
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    side = 2.5 + 0.62 * len(counts)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shades = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        share = shares[row, column]
        color = GREY if share == 0 else "white" if share > 0.5 else "black"
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


@house_style
def misclassified(
    images: Any,
    labels: Any,
    predictions: Any,
    classes: Sequence[str],
    columns: int = 8,
    rows: int = 2,
) -> Figure:
    """Draw the first images whose prediction is wrong, titled "true > predicted".

    Shape:
        images as in `image_grid`; labels and predictions (N,)

    Args:
        images: Bytes in 0..255 or floating-point numbers in 0..1.
        labels: Indices of the true classes.
        predictions: Indices of the predicted classes.
        classes: The names of the classes.
        columns: Images per row.
        rows: Maximum number of rows.

    Raises:
        ValueError: There are no images, not one label and one prediction per image, or a class has
            no name.
    """
    images = check_numbers("images", images)
    check_names("classes", classes)
    if len(images) == 0:
        raise ValueError("images is empty: pass at least one")
    labels, predictions = (
        check_index(name, indices, images.shape[:1], classes)
        for name, indices in (("labels", labels), ("predictions", predictions))
    )
    columns, rows = check_count("columns", columns, usual=8), check_count("rows", rows, usual=2)
    wrong = np.flatnonzero(labels != predictions)[: columns * rows]
    if len(wrong) == 0:
        figure = Figure(figsize=(6, 1))
        figure.text(0.5, 0.5, f"All {len(images):,} predictions are right.", ha="center")
        return figure
    titles = [f"{classes[labels[i]]}\n> {classes[predictions[i]]}" for i in wrong]
    return image_grid(images[wrong], titles, columns)


def pixels(images: Any) -> np.ndarray:
    """Check images and return them as (N, H, W) or (N, H, W, 3) with values in 0..1."""
    images = check_numbers("images", images)
    if images.size == 0:
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
    # A resize may leave the range slightly by rounding; a normalised image leaves it by far.
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(
            f"images has values from {low:.3g} to {high:.3g}: floating-point images must lie in "
            "0..1, so undo the normalisation; bytes must have dtype uint8"
        )
    return images.astype(float).clip(0, 1)


def _label_ends(axes: Axes, last_rows: Mapping[str, Any]) -> None:
    """Write each run's label to the right of its last test accuracy, without overlaps."""
    colors = dict(zip(last_rows, cycle(PALETTE), strict=False))
    labels = sorted(last_rows, key=lambda label: last_rows[label].test_accuracy)
    low, high = axes.get_ylim()
    ends = [last_rows[label].test_accuracy for label in labels]
    for label, height in zip(labels, spaced(ends, 0.08 * (high - low), high), strict=True):
        axes.annotate(
            label,
            xy=(last_rows[label].epoch, last_rows[label].test_accuracy),
            xytext=(1.04, height),
            textcoords=("axes fraction", "data"),
            va="center",
            arrowprops={"arrowstyle": "-", "color": colors[label], "linewidth": 1.5},
            annotation_clip=False,
        )


def spaced(heights: Sequence[float], gap: float, limit: float) -> list[float]:
    """Move sorted heights apart until neighbours differ by the gap, all within the limit."""
    moved = list(heights)
    for i in range(1, len(moved)):  # push up from below …
        moved[i] = max(moved[i], moved[i - 1] + gap)
    for i in reversed(range(len(moved))):  # … and back down from the upper edge
        moved[i] = min(moved[i], limit)
        limit = moved[i] - gap
    return moved

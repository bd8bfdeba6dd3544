import re
from base64 import b64decode
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from nbconvert import HTMLExporter
from nbval.plugin import get_sanitize_patterns

from cnnlib import plots
from cnnlib.plots import figures

CLASSES = ["cat", "dog", "owl"]
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass
class Row:
    epoch: int
    train_loss: float
    test_loss: float
    train_accuracy: float
    test_accuracy: float


def history(losses, accuracies):
    return [
        Row(epoch, loss, loss + 0.1, accuracy, accuracy - 0.1)
        for epoch, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True), start=1)
    ]


def pictures(figure):
    """The pixels of every image that a figure shows."""
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.images]


def refuses(message):
    return pytest.raises(ValueError, match=re.escape(message))


@pytest.fixture
def displayed(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", lambda *objects, raw=False: shown.extend(objects))
    return shown


# show


def test_show_displays_the_same_png_twice_and_then_the_caption(displayed):
    plots.show(plots.image_grid(np.eye(4)[None]), " A *diagonal*. ", 'a "white" diagonal')
    bundle, caption = displayed
    assert set(bundle) == {"text/html", "image/png", "text/plain"}
    picture = bundle["image/png"]
    assert b64decode(picture).startswith(PNG_SIGNATURE)
    source = f"data:image/png;base64,{picture}"
    assert bundle["text/html"] == f'<img alt="a &quot;white&quot; diagonal" src="{source}">'
    assert bundle["text/plain"] == 'a "white" diagonal'
    assert caption.data == "*A *diagonal*.*"


def test_image_html_is_what_show_displays(displayed):
    figure = plots.image_grid(np.eye(4)[None])
    plots.show(figure, "A diagonal.", "a diagonal")
    assert plots.image_html(figure, "a diagonal") == displayed[0]["text/html"]


class Images(HTMLParser):
    """Collects the attributes of every image of a page."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.found.append(dict(attributes))


def test_the_alt_text_stands_in_an_exported_notebook(displayed):
    alt = 'rows: 1 < 2 & "quoted"'
    plots.show(plots.image_grid(np.eye(4)[None]), "A diagonal.", alt)
    bundle, caption = displayed
    outputs = [
        nbformat.v4.new_output("display_data", data=bundle),
        nbformat.v4.new_output("display_data", data={"text/markdown": caption.data}),
    ]
    cell = nbformat.v4.new_code_cell("plots.show(...)", outputs=outputs)
    page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    (image,) = Images(page).found
    assert image["alt"] == alt
    assert image["src"] == f"data:image/png;base64,{bundle['image/png']}"
    assert "<em>A diagonal.</em>" in page


def test_the_sanitiser_hides_the_picture_and_nothing_else(displayed):
    plots.show(plots.image_grid(np.eye(4)[None]), "A diagonal.", "data:image/png: a diagonal")
    text = displayed[0]["text/html"]
    config = Path(__file__).with_name("sanitize.cfg").read_text()
    for pattern, replacement in get_sanitize_patterns(config):
        text = re.sub(pattern, replacement, text)
    assert text == '<img alt="data:image/png: a diagonal" src="PICTURE ">'


def test_show_renders_100_dots_per_inch(displayed):
    figure = plots.image_grid(np.zeros((1, 8, 8)))
    plots.show(figure, "Black.", "a black square")
    header = b64decode(displayed[0]["image/png"])[:24]
    width = int.from_bytes(header[16:20], "big")
    assert width == pytest.approx(140 + 20, abs=3)  # 1.4 inches and the margins around them


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_show_refuses_to_be_silent(empty, displayed):
    figure = plots.image_grid(np.zeros((1, 8, 8)))
    with refuses(f"caption={empty!r} must not be empty"):
        plots.show(figure, empty, "a black square")
    with refuses(f"alt={empty!r} must not be empty"):
        plots.show(figure, "Black.", empty)
    assert displayed == []


def test_figures_are_not_pyplots_and_leave_the_settings_alone():
    before = dict(matplotlib.rcParams)
    plots.image_grid(np.zeros((1, 8, 8)))
    plots.training_curves(history([1.0], [0.5]))
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_the_same_picture_is_the_same_file_whatever_the_style():
    rows = history([1.0, 0.5], [0.5, 0.75])
    first = plots.png(plots.training_curves({"net": rows}))
    with plt.style.context(["dark_background", {"savefig.facecolor": "red"}]):
        second = plots.png(plots.training_curves({"net": rows}))
    assert first == second


# image_grid


def test_image_grid_takes_bytes_floats_tensors_and_arrays_alike():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 5, 4), generator=generator, dtype=torch.uint8)
    expected = images.numpy() / 255
    for same in (
        images,
        images[:, None],
        images.numpy(),
        images / 255,
        (images / 255).requires_grad_(),
        list(images.numpy()),
    ):
        np.testing.assert_allclose(pictures(plots.image_grid(same)), expected, atol=1e-7)
    half = (images / 255).bfloat16()
    np.testing.assert_allclose(pictures(plots.image_grid(half)), expected, atol=1 / 256)


def test_image_grid_keeps_the_channels_of_colour_images():
    images = np.random.default_rng(0).random((2, 3, 5, 4))
    shown = pictures(plots.image_grid(images))
    np.testing.assert_array_equal(shown, images.transpose(0, 2, 3, 1))


def test_image_grid_shades_do_not_depend_on_the_image():
    (axes,) = plots.image_grid(np.full((1, 2, 2), 0.25)).axes
    assert axes.images[0].get_clim() == (0, 1)


def test_image_grid_fills_rows_from_the_left():
    images = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), dtype=np.uint8)
    figure = plots.image_grid(images, list("abcde"), columns=3)
    assert titles(figure) == list("abcde")
    drawn = [axes for axes in figure.axes if axes.images]
    places = [(cell.rowspan.start, cell.colspan.start) for cell in map(_cell, drawn)]
    assert places == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert all(not axes.axison for axes in figure.axes)


def _cell(axes):
    return axes.get_subplotspec()


@pytest.mark.parametrize("shape", [(3, 28, 28), (2, 1, 20, 40), (10, 3, 40, 20)])
def test_image_grid_draws_square_pixels_that_fill_their_cells(shape):
    figure = plots.image_grid(np.zeros(shape), ["one\ntwo"] * shape[0])
    width, height = figure.get_size_inches()
    box = figure.axes[0].get_position()
    ratio = (box.width * width) / (box.height * height)
    assert ratio == pytest.approx(shape[-1] / shape[-2], rel=1e-6)


def test_image_grid_forgives_rounding():
    (shown,) = pictures(plots.image_grid(np.array([[[-1e-7, 1 + 1e-7]]])))
    np.testing.assert_array_equal(shown, [[0, 1]])


@pytest.mark.parametrize(
    ("images", "arguments", "message"),
    [
        (np.zeros((0, 8, 8)), {}, "images is empty"),
        ([], {}, "images is empty"),
        (np.zeros((8, 8)), {}, "images has shape (8, 8): it must be N x H x W"),
        (np.zeros((4, 2, 8, 8)), {}, "images has shape (4, 2, 8, 8): it must be N x H x W"),
        (np.zeros((201, 2, 2)), {}, "images has 201 entries: draw at most 200"),
        (np.array([[[-0.5, 2.0]]]), {}, "images has values from -0.5 to 2: "),
        (np.array([[[0.0, np.nan]]]), {}, "images must be finite, but one is nan"),
        (np.array([[[0, 255]]]), {}, "bytes must have dtype uint8"),
        (np.zeros((3, 8, 8)), {"titles": ["a", "b"]}, "titles has 2 names for 3 images: pass one"),
        (np.zeros((3, 8, 8)), {"columns": 0}, "columns=0 must be a whole number from 1"),
    ],
)
def test_image_grid_refusals(images, arguments, message):
    with refuses(message):
        plots.image_grid(images, **arguments)


# layer_profile


def test_layer_profile_draws_every_layer_on_a_log_scale():
    (axes,) = plots.layer_profile({"a": [1.0, 10.0], "b": [3.0, 2.0, 1.0]}, "norm").axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[1, 10], [3, 2, 1]]
    assert list(axes.lines[1].get_xdata()) == [1, 2, 3]
    assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "norm")
    looks = {(line.get_color(), line.get_marker()) for line in axes.lines}
    assert len(looks) == 2


def test_layer_profile_draws_several_seeds_as_a_band_around_their_geometric_mean():
    profiles = {"a": [[1.0, 10.0], [4.0, 1000.0]], "b": [3.0, 2.0]}
    (axes,) = plots.layer_profile(profiles, "norm", colors=("red", "blue")).axes
    assert list(axes.lines[0].get_ydata()) == pytest.approx([2, 100])
    corners = axes.collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in corners} >= {(1, 1), (1, 4), (2, 10), (2, 1000)}
    assert [line.get_color() for line in axes.lines] == ["red", "blue"]


@pytest.mark.parametrize("profiles", [{}, {"a": []}, {"a": [1.0, 0.0]}])
def test_layer_profile_refuses_what_a_log_scale_cannot_show(profiles):
    with pytest.raises(ValueError, match=r"with 1 or more|'a'.*above 0, and at least one"):
        plots.layer_profile(profiles, "norm")


@pytest.mark.parametrize("colors", [3, "red", None, np.array(3), [], {}, ["nocolour"], [None]])
def test_layer_profile_refuses_what_is_no_colour(colors):
    message = r"^colors=.* must be colours in a list: try \['red', 'blue'\]$"
    with pytest.raises(ValueError, match=message):
        plots.layer_profile({"a": [1.0]}, "norm", colors)


@pytest.mark.parametrize("text", [None, 3, " ", ["norm"]])
def test_what_the_numbers_are_must_be_said(text):
    for draw in (plots.layer_profile, plots.seeds):
        with refuses(f"quantity={text!r} must not be empty"):
            draw({"a": [1.0]}, text)
    with refuses(f"title={text!r} must not be empty"):
        plots.number_grid(Figure().subplots(), [[1.0]], text)


@pytest.mark.parametrize("figure", [None, 3, "figure", Figure])
def test_what_is_no_figure_is_refused(figure):
    with refuses(f"figure of type {type(figure).__name__} must be a matplotlib Figure: try"):
        plots.png(figure)


def test_a_text_that_cannot_be_drawn_is_refused():
    with refuses("figure must have a size and texts that can be drawn"):
        plots.png(plots.seeds({"$x_$": [1.0]}, "accuracy"))


# seeds, number_grid


def test_seeds_draw_a_dot_each_and_a_bar_at_the_mean():
    figure = plots.seeds({"a": [0.2, 0.4], "b": [0.5, 0.6, 0.7]}, "accuracy", ("chance", 0.1))
    (axes,) = figure.axes
    dots, bars = axes.lines[0:4:2], axes.lines[1:4:2]
    assert [list(line.get_xdata()) for line in dots] == [[0.2, 0.4], [0.5, 0.6, 0.7]]
    assert [line.get_xdata() for line in bars] == [pytest.approx([0.3]), pytest.approx([0.6])]
    assert [list(line.get_ydata()) for line in (*dots, *bars)] == [[0, 0], [1, 1, 1], [0], [1]]
    assert axes.lines[4].get_xdata() == [0.1, 0.1]
    assert [text.get_text() for text in axes.texts] == ["chance"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.yaxis_inverted()
    assert axes.get_xlabel() == "accuracy"


def test_seeds_take_tensors_and_any_labels():
    axes = plots.seeds({20: torch.tensor([0.25, 0.75])}, "accuracy").axes[0]
    assert [line.get_xdata().tolist() for line in axes.lines[:2]] == [[0.25, 0.75], [0.5]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["20"]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({}, "runs={} must be a dict"),
        ({"a": []}, "runs['a'] is"),
        ({key: [1.0] for key in range(201)}, "len(runs)=201 must be a whole number from 1 to 200"),
    ],
)
def test_seeds_refuse_what_they_cannot_draw(runs, message):
    with refuses(message):
        plots.seeds(runs, "accuracy")


def test_number_grid_writes_every_number_into_its_cell():
    axes = Figure().subplots()
    plots.number_grid(axes, torch.tensor([[0.0, 1.5], [-2.0, 3.0]]), "ours")
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): "0", (1, 0): "1.5", (0, 1): "-2", (1, 1): "3"}
    assert axes.get_title("left") == "ours"
    np.testing.assert_array_equal(pictures(axes.figure)[0], [[0, 1.5], [2, 3]])


def test_number_grid_draws_the_lowest_byte():
    axes = Figure().subplots()
    plots.number_grid(axes, np.array([[-128, 1]], np.int8), "bytes")
    np.testing.assert_array_equal(pictures(axes.figure)[0], [[128, 1]])


@pytest.mark.parametrize("shape", [(3,), (1, 1, 3, 3), (0, 3), (101, 101)])
def test_number_grid_refuses_what_is_no_matrix(shape):
    with refuses(f"values has shape {shape}"):
        plots.number_grid(Figure().subplots(), np.zeros(shape), "ours")


# training_curves


def curves(axes):
    return [line for line in axes.lines if len(line.get_xdata())]


def test_training_curves_draw_the_rows():
    rows = history([1.0, 0.5, 0.25], [0.5, 0.75, 0.875])
    loss, accuracy = plots.training_curves(rows).axes
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        assert axes.get_title("left").lower() == quantity
        train, test = curves(axes)
        for line, part, style in ((train, "train", "-"), (test, "test", "--")):
            assert list(line.get_xdata()) == [1, 2, 3]
            assert list(line.get_ydata()) == [getattr(row, f"{part}_{quantity}") for row in rows]
            assert line.get_linestyle() == style
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["train", "test"]
    assert len(accuracy.texts) == 0


def test_training_curves_show_a_single_epoch():
    loss, _ = plots.training_curves(history([1.0], [0.5])).axes
    train, test = curves(loss)
    assert train.get_marker() != "None"
    assert train.get_markerfacecolor() != test.get_markerfacecolor()
    low, high = loss.get_xlim()
    assert [tick for tick in loss.get_xticks() if low <= tick <= high] == [1]


def test_training_curves_tell_runs_apart_by_more_than_colour():
    runs = {f"run {i}": history([1.0, 0.5], [0.1 * i, 0.1 * i]) for i in range(1, 10)}
    loss, _ = plots.training_curves(runs).axes
    looks = [(line.get_color(), line.get_marker()) for line in curves(loss)]
    assert looks[::2] == looks[1::2]
    assert len(set(looks)) == 9


def test_training_curves_label_each_run_at_its_end():
    runs = {"low": history([1.0], [0.3]), "high": history([1.0, 1.0], [0.8, 0.9])}
    _, accuracy = plots.training_curves(runs).axes
    ends = {text.get_text(): text.xy for text in accuracy.texts}
    assert ends == {"low": (1, pytest.approx(0.2)), "high": (2, pytest.approx(0.8))}
    colors = {text.get_text(): text.arrowprops["color"] for text in accuracy.texts}
    assert [colors["low"], colors["high"]] == [line.get_color() for line in curves(accuracy)[::2]]


@pytest.mark.parametrize("end", [0.1, 0.5, 0.9])
def test_training_curves_labels_do_not_overlap(end):
    runs = {"wide": history([1.0, 1.0], [0.2, 1.0])}
    runs |= {f"run {i}": history([1.0, 1.0], [0.2, end + 0.001 * i]) for i in range(5)}
    figure = plots.training_curves(runs)
    figure.canvas.draw()
    _, accuracy = figure.axes
    places = [accuracy.transData.transform((0, text.xyann[1]))[1] for text in accuracy.texts]
    line_height = 1.2 * accuracy.texts[0].get_fontsize() * figure.dpi / 72
    assert min(np.diff(sorted(places))) >= line_height
    heights = [text.xyann[1] for text in accuracy.texts]
    low, high = accuracy.get_ylim()
    assert low <= min(heights)
    assert max(heights) <= high


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "runs['']=[] must be the rows of a History, one or more: try history.rows"),
        ({}, "runs={} must be a dictionary from labels, with 1 or more"),
        (
            {"plain": []},
            "runs['plain']=[] must be the rows of a History, one or more: try history.rows",
        ),
        (3, "runs['']=3 must be the rows of a History"),
        ([Row(1, 0.5, None, 0.5, 0.5)], "must be the rows of a History"),
    ],
)
def test_training_curves_refusals(runs, message):
    with refuses(message):
        plots.training_curves(runs)


# loss_curve


def test_loss_curve_counts_in_epochs():
    (axes,) = plots.loss_curve(torch.tensor([4.0, 3.0, 2.0, 1.0]), batches=2).axes
    (line,) = axes.lines
    assert list(line.get_xdata()) == [0.5, 1, 1.5, 2]
    assert list(line.get_ydata()) == [4, 3, 2, 1]
    assert axes.get_ylim()[0] == 0


@pytest.mark.parametrize(
    ("losses", "batches", "message"),
    [([], 2, "losses is empty"), ([1.0], 0, "batches=0 must be a whole number")],
)
def test_loss_curve_refusals(losses, batches, message):
    with refuses(message):
        plots.loss_curve(losses, batches)


# confusion_matrix


def test_confusion_matrix_writes_counts_and_shades_shares_of_rows():
    counts = torch.tensor([[3, 1, 0], [2, 2, 0], [0, 0, 0]])
    axes = plots.confusion_matrix(counts, CLASSES).axes[0]
    shares = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shares, [[0.75, 0.25, 0], [0.5, 0.5, 0], [0, 0, 0]])
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {(c, r): str(int(counts[r, c])) for r in range(3) for c in range(3)}
    assert [label.get_text() for label in axes.get_yticklabels()] == CLASSES
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_confusion_matrix_separates_thousands():
    axes = plots.confusion_matrix([[12345]], ["cat"]).axes[0]
    assert axes.texts[0].get_text() == "12,345"


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((2, 3)), "matrix has shape (2, 3): it must be K x K"),
        (np.zeros((0, 0)), "matrix has shape (0, 0)"),
        (np.eye(3) / 2, "matrix must hold counts"),
        (-np.eye(3), "matrix must hold counts"),
        (np.full((3, 3), np.nan), "matrix must be finite"),
        (np.eye(2), "classes has 3 names for 2 rows: pass one"),
        (np.eye(101), "len(matrix)=101 must be a whole number from 1 to 100"),
    ],
)
def test_confusion_matrix_refusals(matrix, message):
    with refuses(message):
        plots.confusion_matrix(matrix, CLASSES)


# misclassified


def test_misclassified_shows_the_wrong_ones_in_order():
    images = torch.arange(6, dtype=torch.uint8)[:, None, None].expand(6, 4, 4)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    predictions = torch.tensor([0, 2, 2, 1, 1, 0])
    figure = plots.misclassified(images, labels, predictions, CLASSES)
    assert titles(figure) == ["dog\n> owl", "cat\n> dog", "owl\n> cat"]
    np.testing.assert_allclose([p[0, 0] * 255 for p in pictures(figure)], [1, 3, 5])


def test_misclassified_stops_after_its_rows():
    images, labels = np.zeros((40, 4, 4)), np.zeros(40, dtype=int)
    figure = plots.misclassified(images, labels, labels + 1, CLASSES, columns=4, rows=3)
    assert len(pictures(figure)) == 12


def test_misclassified_says_that_nothing_is_wrong():
    labels = np.zeros(1200, dtype=int)
    figure = plots.misclassified(np.zeros((1200, 4, 4)), labels, labels, CLASSES)
    assert [text.get_text() for text in figure.texts] == ["All 1,200 predictions are right."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": np.zeros((0, 4, 4))}, "images is empty"),
        (
            {"labels": [0]},
            "labels of shape (1,) and type int64 must be class indices of shape (2,)",
        ),
        (
            {"predictions": np.zeros((2, 3), int)},
            "predictions of shape (2, 3) and type int64 must be",
        ),
        ({"predictions": [0, 3]}, "predictions has indices from 0 to 3 for 3 classes"),
        ({"labels": [-1, 0]}, "labels has indices from -1 to 0 for 3 classes"),
        ({"rows": 0}, "rows=0 must be a whole number from 1"),
        ({"columns": 0}, "columns=0 must be a whole number from 1"),
    ],
)
def test_misclassified_refusals(arguments, message):
    right = {"images": np.zeros((2, 4, 4)), "labels": [0, 1], "predictions": [1, 1]}
    with refuses(message):
        plots.misclassified(**(right | {"classes": CLASSES} | arguments))

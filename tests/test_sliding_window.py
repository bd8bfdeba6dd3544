import re

import matplotlib.style
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.colors import to_hex

from cnnlib import arithmetic, explore, plots
from cnnlib.explore import stills

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
SQUARE = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
SMALL = [[0, 1], [2, 3]]


def refuses(message):
    return pytest.raises(ValueError, match=re.escape(message))


def random_pair(rng, low, high):
    """An int or a pair of ints, low and high included."""
    pair = tuple(int(n) for n in rng.integers(low, high + 1, 2))
    return pair if rng.random() < 0.5 else pair[0]


def random_arrays(rng):
    shapes = rng.integers(1, 6, 2), rng.integers(1, 5, 2)
    return [rng.integers(-5, 6, shape).astype(float) for shape in shapes]


def conv_configurations(count):
    rng = np.random.default_rng(0)
    while count:
        input, kernel = random_arrays(rng)
        settings = {
            "stride": random_pair(rng, 1, 4),
            "padding": random_pair(rng, 0, 3),
            "dilation": random_pair(rng, 1, 3),
        }
        try:
            arithmetic.conv_size(input.shape, kernel.shape, **settings)
        except ValueError:
            continue
        yield input, kernel, settings
        count -= 1


def transpose_configurations(count):
    rng = np.random.default_rng(0)
    while count:
        input, kernel = random_arrays(rng)
        settings = {
            "stride": random_pair(rng, 1, 4),
            "padding": random_pair(rng, 0, 4),
            "output_padding": random_pair(rng, 0, 3),
            "dilation": random_pair(rng, 1, 3),
        }
        try:
            size = arithmetic.conv_transpose_size(input.shape, kernel.shape, **settings)
        except ValueError:
            continue
        if max(size) <= 12:
            yield input, kernel, settings
            count -= 1


def torch_result(operation, input, kernel, settings):
    planes = [torch.tensor(array)[None, None] for array in (input, kernel)]
    return operation(*planes, **settings)[0, 0].numpy()


# The numbers


def test_conv_steps_computes_what_torch_computes():
    for input, kernel, settings in conv_configurations(200):
        window = explore.conv_steps(input, kernel, **settings)
        expected = torch_result(F.conv2d, input, kernel, settings)
        np.testing.assert_array_equal(window.output, expected, err_msg=str(settings))
        np.testing.assert_array_equal(window.products.sum(axis=(1, 2)), expected.ravel())


@pytest.mark.parametrize(
    "slide", [explore.transposed_scatter_steps, explore.transposed_zero_insertion_steps]
)
def test_transposed_steps_compute_what_torch_computes(slide):
    for input, kernel, settings in transpose_configurations(200):
        window = slide(input, kernel, **settings)
        expected = torch_result(F.conv_transpose2d, input, kernel, settings)
        np.testing.assert_array_equal(window.output, expected, err_msg=str(settings))


def test_steps_go_row_by_row():
    window = explore.conv_steps(SQUARE, SMALL)
    assert window.reads.tolist() == [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]
    assert window.writes.tolist() == [[0] * 4, [1] * 4, [2] * 4, [3] * 4]
    assert window.totals[::3].tolist() == [
        [[19, 0], [0, 0]],
        [[19, 25], [37, 43]],
    ]


def test_scatter_adds_up_where_kernels_overlap():
    window = explore.transposed_scatter_steps(SMALL, SMALL)
    assert window.reads[3].tolist() == [3, 3, 3, 3]
    assert window.writes[3].tolist() == [4, 5, 7, 8]  # the lower right of 3 x 3 cells
    assert window.totals[1:].tolist() == [
        [[0, 0, 1], [0, 2, 3], [0, 0, 0]],
        [[0, 0, 1], [0, 4, 3], [4, 6, 0]],
        [[0, 0, 1], [0, 4, 6], [4, 12, 9]],
    ]


def test_dilated_taps_skip_cells():
    window = explore.conv_steps(np.ones((5, 5)), np.ones((2, 2)), dilation=(2, 3))
    assert window.reads[0].tolist() == [0, 3, 10, 13]


def test_zero_insertion_shows_the_zeros_and_the_flipped_kernel():
    window = explore.transposed_zero_insertion_steps([[1, 2]], [[1, 2, 3]], stride=(1, 2))
    assert window.source.values.tolist() == [[0, 0, 1, 0, 2, 0, 0]]
    assert window.source.data.tolist() == [[False, False, True, False, True, False, False]]
    assert window.kernel.values.tolist() == [[3, 2, 1]]


def test_takes_torch_tensors():
    kernel = torch.tensor(SMALL, dtype=torch.float32, requires_grad=True)
    assert explore.conv_steps(torch.tensor(SQUARE), kernel).output.tolist() == [[19, 25], [37, 43]]


# What is never used


def test_never_read_is_where_the_gradient_vanishes():
    for input, kernel, settings in conv_configurations(100):
        window = explore.conv_steps(input, kernel, **settings)
        x = torch.ones(1, 1, *input.shape, requires_grad=True)
        F.conv2d(x, torch.ones(1, 1, *kernel.shape), **settings).sum().backward()
        unread = window.never_read[window.source.data].reshape(input.shape)
        np.testing.assert_array_equal(unread, (x.grad == 0)[0, 0])


def test_never_read_is_what_the_floor_drops():
    window = explore.conv_steps(np.ones((6, 7)), np.ones((3, 3)), stride=(2, 3))
    expected = np.zeros((6, 7), bool)
    expected[5:, :] = expected[:, 6:] = True
    np.testing.assert_array_equal(window.never_read, expected)
    assert not explore.conv_steps(np.ones((7, 6)), np.ones((3, 3)), stride=(2, 3)).never_read.any()


def test_never_written_is_where_ones_give_zero():
    for input, kernel, settings in transpose_configurations(100):
        window = explore.transposed_scatter_steps(input, kernel, **settings)
        ones = np.ones(input.shape), np.ones(kernel.shape)
        counts = torch_result(F.conv_transpose2d, *ones, settings)
        unwritten = window.never_written[window.target.data].reshape(counts.shape)
        np.testing.assert_array_equal(unwritten, counts == 0)


# The texts


def test_labels_tell_the_sizes():
    window = explore.transposed_zero_insertion_steps(SQUARE, SMALL, stride=2)
    assert window.source.label == "input 3 x 3\nwith zeros: 7 x 7"
    assert window.target.label == "output 6 x 6"


def test_target_is_blank_until_it_is_written():
    window = explore.conv_steps(SQUARE, SMALL)
    assert stills.target_texts(window, 1).tolist() == [["19", "25"], ["", ""]]
    scatter = explore.transposed_scatter_steps([[1, 2]], [[1]], stride=2)
    assert stills.target_texts(scatter, 0).tolist() == [["1", "0", ""]]  # 0: never written


@pytest.mark.parametrize(
    ("value", "text"), [(3.0, "3"), (-2, f"{MINUS}2"), (0.5, "0.50"), (-1.25, f"{MINUS}1.25")]
)
def test_numbers_are_short(value, text):
    assert stills.number(value) == text


# The figures


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def framed(figure):
    return [box for box in figure.axes[0].patches if to_hex(box.get_edgecolor()) == "#d55e00"]


def hatched(figure):
    return [box for box in figure.axes[0].patches if box.get_hatch()]


def test_a_drawing_shows_the_numbers_of_its_step():
    window = explore.conv_steps(SQUARE, [[1, 10], [100, 1000]])
    shown = texts(window.draw(1))
    numbers = [int(text) for text in shown if text.isdecimal()]
    assert numbers == [*np.ravel(SQUARE), 4310, 5421]
    assert [text for text in shown if text.startswith(TIMES)] == [
        TIMES + weight for weight in ("1", "10", "100", "1000")
    ]
    assert window.title in shown
    assert "step 2 of 4" in shown


def test_notes_of_a_scatter_are_its_products():
    scatter = explore.transposed_scatter_steps([[2, -1]], [[1, 3]])
    shown = texts(scatter.draw(0)), texts(scatter.draw(1))
    assert [{"+2", "+6"} <= set(texts) for texts in shown] == [True, False]
    assert {f"{MINUS}1", f"{MINUS}3"} <= set(shown[1])
    assert not any(text.startswith(TIMES) for text in shown[0])


@pytest.mark.parametrize(
    ("window", "frames"),
    [
        (explore.conv_steps(SQUARE, SMALL, stride=2), 4 + 1),
        (explore.transposed_scatter_steps(SQUARE, SMALL, 2, 0, 1, 1), 1 + 4),
        (explore.transposed_zero_insertion_steps(SQUARE, SMALL, 2, 0, 1, 1), 4 + 1),
    ],
)
def test_marks_are_drawn_on_their_cells(window, frames):
    figure = window.draw(0)
    assert len(framed(figure)) == frames
    assert len(hatched(figure)) == window.never_read.sum() + window.never_written.sum()
    assert len(figure.axes[0].patches) == window.source.values.size + window.target.values.size


def test_cells_outside_the_data_are_dashed():
    window = explore.conv_steps(SQUARE, SMALL, padding=1)
    boxes = window.draw().axes[0].patches
    dashed = [box for box in boxes if box.get_linestyle() not in ("solid", "-")]
    assert len(dashed) == 25 - 9 - 3  # three of them lie in the window, whose frame is solid


def test_key_explains_only_what_is_shown():
    for window, key in (
        (explore.conv_steps(SQUARE, SMALL), []),
        (
            explore.conv_steps(SQUARE, SMALL, stride=2, padding=1),
            ["dashed: inserted zeros     hatched: never read"],
        ),
        (
            explore.transposed_scatter_steps(SQUARE, SMALL, stride=3, padding=1),
            ["dashed: cut off by padding     hatched: never written"],
        ),
    ):
        marks = [text for text in texts(window.draw()) if re.match("dashed|hatched", text)]
        assert marks == key


def test_hatching_marks_a_row_between_the_windows():
    boxes = hatched(explore.conv_steps(np.ones((5, 4)), SMALL, stride=(3, 2)).draw(0))
    assert len({box.get_y() for box in boxes}) == 1  # the third of five rows
    assert len(boxes) == 4


def test_steps_are_drawn_in_the_order_given_and_the_last_one_without():
    window = explore.conv_steps(np.ones((4, 4)), SMALL)
    for indices, steps in (((), [9]), ((0,), [1]), ((0, 3, 8), [1, 4, 9]), ((2, 1), [3, 2])):
        figure = window.draw(*indices)
        shown = re.findall(r"step (\d+) of 9", "\n".join(texts(figure)))
        assert [int(step) for step in shown] == steps
        assert len(framed(figure)) == 5 * len(steps)


def test_figures_stay_within_a_page():
    wide = explore.transposed_zero_insertion_steps(np.ones((4, 6)), np.ones((3, 3)), stride=2)
    for figure in (wide.draw(0), wide.draw(0, 1, 2, 3)):
        width, height = figure.get_size_inches()
        assert width <= 12.5
        assert height <= 10


def test_drawings_are_the_same_file_whatever_the_style():
    first = plots.png(explore.conv_steps(SQUARE, SMALL, 2).draw(0))
    with matplotlib.style.context("dark_background"):
        second = plots.png(explore.conv_steps(SQUARE, SMALL, 2).draw(0))
    assert first == second


# Refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: explore.conv_steps(SQUARE, np.ones((4, 4))), "kernel=4"),
        (lambda: explore.conv_steps(SQUARE, SMALL, stride=0), "stride=0"),
        (lambda: explore.conv_steps(SQUARE, SMALL, padding=(0, -1)), "padding=-1"),
        (lambda: explore.conv_steps(np.ones((0, 3)), SMALL), "size=0"),
        (
            lambda: explore.transposed_scatter_steps(SQUARE, SMALL, 2, 0, 2),
            "output_padding=2",
        ),
        (
            lambda: explore.transposed_zero_insertion_steps(SQUARE, SMALL, 2, 0, 2),
            "output_padding=2",
        ),
        (
            lambda: explore.conv_steps([SQUARE], SMALL),
            "input has shape (1, 3, 3): try one channel, (height, width)",
        ),
        (lambda: explore.conv_steps(SQUARE, [1, 2]), "kernel has shape (2,): try one channel"),
        (
            lambda: explore.conv_steps([[np.inf, 1]], [[1]]),
            "input must be finite, but one is",
        ),
        (
            lambda: explore.conv_steps(np.ones((13, 12)), [[1]]),
            "steps=156, 13 x 12, must be at most 144 to be shown: try a smaller input",
        ),
        (
            lambda: explore.transposed_scatter_steps(np.ones((224, 224)), SMALL),
            "steps=50,176, 224 x 224,",
        ),
        (
            lambda: explore.conv_steps(np.ones((20, 3)), SMALL, 9, (3, 0)),
            "input=26 x 3 cells must be at most 24 per side to be shown: try a smaller input",
        ),
        (
            lambda: explore.transposed_scatter_steps(SQUARE, SMALL, 12),
            "output=26 x 26 cells must be at most 24 per side to be shown: try a smaller input or stride",
        ),
        (
            lambda: explore.transposed_zero_insertion_steps([[1]], np.ones((1, 26)), 1, (0, 10)),
            "input=1 x 31 cells",
        ),
        (
            lambda: explore.conv_steps(SQUARE, SMALL).draw(4),
            "index=4 must be a whole number from 0 to 3: try index=3",
        ),
        (
            lambda: explore.conv_steps(SQUARE, SMALL).draw(0, -1),
            "index=-1 must be a whole number from 0 to 3",
        ),
        (lambda: explore.conv_steps(SQUARE, SMALL).draw(1.5), "index=1.5 must be a whole number"),
        (lambda: explore.conv_steps(SQUARE, SMALL).draw([0, 1]), "index=[0, 1] must be a whole"),
        (
            lambda: explore.conv_steps(SQUARE, SMALL).draw(*[0] * 13),
            "len(indices)=13 must be a whole number from 0 to 12",
        ),
        (lambda: explore.conv_steps([[1e300]], [[1]]), "input must hold numbers of at most 1e+09"),
        (lambda: explore.conv_steps([[1]], [[1e300]]), "kernel must hold numbers of at most"),
        (lambda: explore.conv_steps([[1]], [[1]], 10**30), "must be a whole number, at most 9,223"),
        (
            lambda: explore.conv_steps(np.ones((4, 4)), np.ones((3, 3)), padding="same"),
            "padding='same' must be a number of zeros",
        ),
    ],
)
def test_refusals(make, message):
    with refuses(message):
        make()

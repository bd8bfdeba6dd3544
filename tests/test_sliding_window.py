import json
import re

import matplotlib.style
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.colors import to_hex

from cnnlib import arithmetic, explore, plots
from cnnlib.explore import panels

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


def test_conv_walk_computes_what_torch_computes():
    for input, kernel, settings in conv_configurations(200):
        walk = explore.conv_walk(input, kernel, **settings)
        expected = torch_result(F.conv2d, input, kernel, settings)
        np.testing.assert_array_equal(walk.output, expected, err_msg=str(settings))
        sums = [walk.products(index).sum() for index in range(walk.frames)]
        np.testing.assert_array_equal(sums, expected.ravel())


@pytest.mark.parametrize(
    "transposed_walk", [explore.conv_transpose_scatter, explore.conv_transpose_zero_insertion]
)
def test_transposed_walks_compute_what_torch_computes(transposed_walk):
    for input, kernel, settings in transpose_configurations(200):
        walk = transposed_walk(input, kernel, **settings)
        expected = torch_result(F.conv_transpose2d, input, kernel, settings)
        np.testing.assert_array_equal(walk.output, expected, err_msg=str(settings))


def test_steps_go_row_by_row():
    walk = explore.conv_walk(SQUARE, SMALL)
    assert [step.writes[0] for step in walk.steps] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [step.reads[0] for step in walk.steps] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert walk.steps[1].reads == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert [total.tolist() for total in walk.totals[::3]] == [
        [[19, 0], [0, 0]],
        [[19, 25], [37, 43]],
    ]


def test_scatter_adds_up_where_kernels_overlap():
    walk = explore.conv_transpose_scatter(SMALL, SMALL)
    assert walk.steps[3].writes == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [total.tolist() for total in walk.totals[1:]] == [
        [[0, 0, 1], [0, 2, 3], [0, 0, 0]],
        [[0, 0, 1], [0, 4, 3], [4, 6, 0]],
        [[0, 0, 1], [0, 4, 6], [4, 12, 9]],
    ]


def test_dilated_taps_skip_cells():
    walk = explore.conv_walk(np.ones((5, 5)), np.ones((2, 2)), dilation=(2, 3))
    assert walk.steps[0].reads == [(0, 0), (0, 3), (2, 0), (2, 3)]


def test_zero_insertion_shows_the_zeros_and_the_flipped_kernel():
    walk = explore.conv_transpose_zero_insertion([[1, 2]], [[1, 2, 3]], stride=(1, 2))
    assert walk.source.values.tolist() == [[0, 0, 1, 0, 2, 0, 0]]
    assert walk.source.data.tolist() == [[False, False, True, False, True, False, False]]
    assert walk.kernel.values.tolist() == [[3, 2, 1]]


def test_takes_torch_tensors():
    kernel = torch.tensor(SMALL, dtype=torch.float32, requires_grad=True)
    assert explore.conv_walk(torch.tensor(SQUARE), kernel).output.tolist() == [[19, 25], [37, 43]]


# What is never used


def test_never_read_is_where_the_gradient_vanishes():
    for input, kernel, settings in conv_configurations(100):
        walk = explore.conv_walk(input, kernel, **settings)
        x = torch.ones(1, 1, *input.shape, requires_grad=True)
        F.conv2d(x, torch.ones(1, 1, *kernel.shape), **settings).sum().backward()
        unread = walk.never_read[walk.source.data].reshape(input.shape)
        np.testing.assert_array_equal(unread, (x.grad == 0)[0, 0])


def test_never_read_is_what_the_floor_drops():
    walk = explore.conv_walk(np.ones((6, 7)), np.ones((3, 3)), stride=(2, 3))
    expected = np.zeros((6, 7), bool)
    expected[5:, :] = expected[:, 6:] = True
    np.testing.assert_array_equal(walk.never_read, expected)
    assert not explore.conv_walk(np.ones((7, 6)), np.ones((3, 3)), stride=(2, 3)).never_read.any()


def test_never_written_is_where_ones_give_zero():
    for input, kernel, settings in transpose_configurations(100):
        walk = explore.conv_transpose_scatter(input, kernel, **settings)
        ones = np.ones(input.shape), np.ones(kernel.shape)
        counts = torch_result(F.conv_transpose2d, *ones, settings)
        unwritten = walk.never_written[walk.target.data].reshape(counts.shape)
        np.testing.assert_array_equal(unwritten, counts == 0)


# The words


@pytest.mark.parametrize(
    ("walk", "words"),
    [
        (
            explore.conv_walk(SQUARE, SMALL),
            f"step 2 of 4: 1{TIMES}0 + 2{TIMES}1 + 4{TIMES}2 + 5{TIMES}3 = 25",
        ),
        (explore.conv_walk([[1, 2, 3]], [[-2]]), f"step 2 of 3: 2{TIMES}{MINUS}2 = {MINUS}4"),
        (
            explore.conv_walk(np.ones((1, 6)), [[1, -2, 3, -4, 0.5]]),
            f"step 2 of 2: 1 {MINUS} 2 + 3 {MINUS} 4 + 0.50 = {MINUS}1.50",
        ),
        (
            explore.conv_transpose_scatter([[3, -1]], [[1, 2]]),
            f"step 2 of 2: {MINUS}1 times every weight, added to the framed output cells",
        ),
    ],
)
def test_words_of_the_second_step(walk, words):
    assert panels.words(walk, 1).replace(panels.NO_BREAK, " ") == words


def test_key_explains_only_what_is_shown():
    assert panels.key(explore.conv_walk(SQUARE, SMALL)) == ""
    floor = explore.conv_walk(SQUARE, SMALL, stride=2, padding=1)
    assert panels.key(floor) == "dashed: zeros put in     hatched: never read"
    cut = explore.conv_transpose_scatter(SQUARE, SMALL, stride=3, padding=1)
    assert panels.key(cut) == "dashed: cut off by padding     hatched: never written"


def test_labels_tell_the_sizes():
    walk = explore.conv_transpose_zero_insertion(SQUARE, SMALL, stride=2)
    assert panels.label(walk.source) == "input 3 x 3\nwith zeros: 7 x 7"
    assert panels.label(walk.target) == "output 6 x 6"


# The panels


def test_target_is_blank_until_it_is_written():
    walk = explore.conv_walk(SQUARE, SMALL)
    assert panels.target_panel(walk, 1).texts.tolist() == [["19", "25"], ["", ""]]
    scatter = explore.conv_transpose_scatter([[1, 2]], [[1]], stride=2)
    assert panels.target_panel(scatter, 0).texts.tolist() == [["1", "0", ""]]  # 0: never written


def test_notes_stand_beside_the_window():
    walk = explore.conv_walk(SQUARE, SMALL)
    weights = [["", TIMES + "0", TIMES + "1"], ["", TIMES + "2", TIMES + "3"], ["", "", ""]]
    assert panels.source_panel(walk, 1).notes.tolist() == weights
    assert not panels.target_panel(walk, 1).notes.any()
    scatter = explore.conv_transpose_scatter([[2, -1]], [[1, 3]])
    assert panels.target_panel(scatter, 1).notes.tolist() == [["", MINUS + "1", MINUS + "3"]]
    assert panels.target_panel(scatter, 0).notes.tolist() == [["+2", "+6", ""]]
    assert not panels.source_panel(scatter, 1).notes.any()


# The figures


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def framed(figure):
    return [box for box in figure.axes[0].patches if to_hex(box.get_edgecolor()) == "#d55e00"]


def hatched(figure):
    return [box for box in figure.axes[0].patches if box.get_hatch()]


def test_frame_shows_the_numbers_of_its_step():
    kernel, products = [[1, 10], [100, 1000]], [[1, 20], [400, 5000]]
    walk = explore.conv_walk(SQUARE, kernel)
    shown = texts(walk.frame(1))
    numbers = [int(text) for text in shown if text.isdecimal()]
    source, kernel, products, target = (
        SQUARE,
        [[1, 10], [100, 1000]],
        [[1, 20], [400, 5000]],
        [4310, 5421],
    )
    assert numbers == [*np.ravel(source), *np.ravel(kernel), *np.ravel(products), *target]
    assert walk.title in shown
    assert "step 2 of 4" in "".join(shown)


@pytest.mark.parametrize(
    ("walk", "frames"),
    [
        (explore.conv_walk(SQUARE, SMALL, stride=2), 4 + 1),
        (explore.conv_transpose_scatter(SQUARE, SMALL, 2, 0, 1, 1), 1 + 4),
        (explore.conv_transpose_zero_insertion(SQUARE, SMALL, 2, 0, 1, 1), 4 + 1),
    ],
)
def test_marks_are_drawn_on_their_cells(walk, frames):
    figure = walk.frame(0)
    assert len(framed(figure)) == frames
    assert len(hatched(figure)) == walk.never_read.sum() + walk.never_written.sum()
    cells = sum(g.values.size for g in (walk.source, walk.kernel, walk.kernel, walk.target))
    assert len(figure.axes[0].patches) == cells


def test_hatching_marks_a_row_between_the_windows():
    boxes = hatched(explore.conv_walk(np.ones((5, 4)), SMALL, stride=(3, 2)).frame(0))
    assert len({box.get_y() for box in boxes}) == 1  # the third of five rows
    assert len(boxes) == 4


def test_strip_goes_from_the_first_step_to_the_last():
    walk = explore.conv_walk(np.ones((4, 4)), SMALL)
    for columns, steps in ((1, [1]), (2, [1, 9]), (4, [1, 4, 6, 9]), (20, list(range(1, 10)))):
        shown = re.findall(r"step\s(\d+)\sof\s9", "\n".join(texts(walk.strip(columns))))
        assert [int(step) for step in shown] == steps
        assert len(framed(walk.strip(columns))) == 5 * len(steps)


def test_figures_stay_within_a_page():
    wide = explore.conv_transpose_zero_insertion(np.ones((4, 6)), np.ones((3, 3)), stride=2)
    for figure in (wide.frame(0), wide.strip()):
        width, height = figure.get_size_inches()
        assert width <= 12.5
        assert height <= 10


def test_frames_are_the_same_file_whatever_the_style():
    first = plots.png(explore.conv_walk(SQUARE, SMALL, 2).frame(0))
    with matplotlib.style.context("dark_background"):
        second = plots.png(explore.conv_walk(SQUARE, SMALL, 2).frame(0))
    assert first == second


# The player


def player_steps(page):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])


def test_player_plays_the_numbers():
    walk = explore.conv_transpose_scatter(SQUARE, [[1, -2]], stride=2, padding=(0, 1))
    steps = player_steps(walk.player()._repr_html_())
    assert len(steps) == walk.frames
    for index, step in enumerate(steps):
        assert step["words"] == panels.words(walk, index)
        written = np.unravel_index(step["target"]["active"], walk.target.values.shape)
        assert sorted(walk.steps[index].writes) == list(zip(*written, strict=True))
        shown = [step["target"]["texts"][place] for place in step["target"]["active"]]
        assert shown == [panels.number(value) for value in walk.totals[index][written]]
        products = [panels.number(value) for value in walk.products(index).flat]
        assert step["products"]["texts"] == products
        assert step["target"]["notes"] == [p if p[0] == MINUS else "+" + p for p in products]
        (read,) = step["source"]["active"]
        assert np.unravel_index(read, walk.source.values.shape) == walk.steps[index].reads[0]


def test_player_marks_the_cells():
    page = explore.conv_walk(SQUARE, SMALL, stride=2, padding=1)
    grid = re.search(r'<div class="grid source".*?</div>', page.player()._repr_html_())[0]
    cells = re.findall(r'<span class="(.*?)">(.*?)</span>', grid)
    assert [text for _, text in cells] == [panels.number(n) for n in page.source.values.flat]
    assert [("others" in marks) for marks, _ in cells] == (~page.source.data).ravel().tolist()
    assert [("unused" in marks) for marks, _ in cells] == page.never_read.ravel().tolist()
    assert page.never_read.sum() == 9


def test_player_is_small_and_needs_nothing_else():
    walk = explore.conv_walk(np.ones((5, 5)), np.ones((3, 3)), padding=1)
    page = walk.player()._repr_html_()
    assert len(page.encode()) < 40_000
    assert not re.search(r"https?:|src=|href=|@import|url\(|\$", page)
    assert page == walk.player()._repr_html_()
    assert repr(walk.player()) == f"Player({walk.title!r})"


def test_player_without_its_script_says_what_to_do():
    page = explore.conv_walk(SQUARE, SMALL).player()._repr_html_()
    rest = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert re.sub(r"<.*?>", "", rest).strip() == "Run this cell to see the kernel walk."


# Refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: explore.conv_walk(SQUARE, np.ones((4, 4))), "kernel=4"),
        (lambda: explore.conv_walk(SQUARE, SMALL, stride=0), "stride=0"),
        (lambda: explore.conv_walk(SQUARE, SMALL, padding=(0, -1)), "padding=-1"),
        (lambda: explore.conv_walk(np.ones((0, 3)), SMALL), "size=0"),
        (
            lambda: explore.conv_transpose_scatter(SQUARE, SMALL, 2, 0, 2),
            "output_padding=2",
        ),
        (
            lambda: explore.conv_transpose_zero_insertion(SQUARE, SMALL, 2, 0, 2),
            "output_padding=2",
        ),
        (
            lambda: explore.conv_walk([SQUARE], SMALL),
            "input has shape (1, 3, 3): pass one channel, (height, width)",
        ),
        (lambda: explore.conv_walk(SQUARE, [1, 2]), "kernel has shape (2,): pass one channel"),
        (
            lambda: explore.conv_walk([[np.inf, 1]], [[1]]),
            "input has infinite or undefined entries",
        ),
        (
            lambda: explore.conv_walk(np.ones((13, 12)), [[1]]),
            "the walk has 13 x 12 = 156 steps, at most 144 can be shown",
        ),
        (
            lambda: explore.conv_transpose_scatter(np.ones((224, 224)), SMALL),
            "the walk has 224 x 224 = 50,176 steps",
        ),
        (
            lambda: explore.conv_walk(np.ones((20, 3)), SMALL, 9, (3, 0)),
            "the input takes 26 x 3 cells, at most 24 a side can be read",
        ),
        (
            lambda: explore.conv_transpose_scatter(SQUARE, SMALL, 12),
            "the output takes 26 x 26 cells, at most 24 a side can be read",
        ),
        (
            lambda: explore.conv_transpose_zero_insertion([[1]], np.ones((1, 26)), 1, (0, 10)),
            "the input takes 1 x 31 cells",
        ),
        (lambda: explore.conv_walk(SQUARE, SMALL).frame(4), "index=4 must be one of the steps 0"),
        (lambda: explore.conv_walk(SQUARE, SMALL).frame(-1), "index=-1 must be one of the steps"),
        (lambda: explore.conv_walk(SQUARE, SMALL).strip(0), "columns=0 must be at least 1"),
        (
            lambda: explore.conv_walk(np.ones((4, 4)), np.ones((3, 3)), padding="same"),
            "padding='same' must be a number of zeros",
        ),
    ],
)
def test_refusals(make, message):
    with refuses(message):
        make()

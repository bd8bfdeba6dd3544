"""The arithmetic against values worked out by hand, against PyTorch and against brute force."""

import random
import re
from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import conv_flop_count

from cnnlib.arithmetic import (
    ReceptiveField,
    contributions,
    conv_cost,
    conv_size,
    conv_transpose_size,
    dropped_pixels,
    hdc,
    hdc_search,
    pool_size,
    receptive_field,
)


def answer_or_none(function, arguments, refusal):
    """Call the function; None stands for its refusal."""
    try:
        return function(**arguments)
    except refusal:
        return None


def agreed_sizes(ours, torchs, draws):
    """Compare both on every draw of arguments; return the sizes, None for what both refuse."""
    sizes = []
    for arguments in draws:
        size = answer_or_none(ours, arguments, ValueError)
        output = answer_or_none(torchs, arguments, RuntimeError)
        if output is None:
            assert size is None, arguments
        else:
            shape = tuple(output.shape[2:])
            assert size == (shape if len(shape) == 2 else shape[0]), arguments
        sizes.append(size)
    return sizes


def assert_both_kinds(sizes):
    """Hold that the draws exercised the formula and the refusals, or the comparison says little."""
    refused = sizes.count(None)
    assert refused > len(sizes) / 10
    assert len(sizes) - refused > len(sizes) / 4


# Sizes, by hand


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((28, 5), 24),
        ((28, 5, 1, 2), 28),
        ((224, 7, 2, 3), 112),
        ((224, 11, 4, 1), 54),
        ((7, 3, 2), 3),
        ((8, 3, 2), 3),  # the floor drops a row
        ((10, 3, 1, 0, 4), 2),  # nine pixels wide
        ((5, 5), 1),
    ],
)
def test_conv_size_by_hand(arguments, expected):
    assert conv_size(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((2, 2), 3),
        ((2, 2, 2), 4),
        ((3, 3, 2, 1), 5),
        ((3, 3, 2, 1, 1), 6),
        ((4, 3, 1, 0, 0, 3), 10),
        ((4, 3, 1, 0, 2, 3), 12),  # smaller than the dilation is enough
    ],
)
def test_conv_transpose_size_by_hand(arguments, expected):
    assert conv_transpose_size(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (dict(size=28, kernel=2), 14),
        (dict(size=112, kernel=3, stride=2, padding=1), 56),
        (dict(size=6, kernel=3, stride=2), 2),
        (dict(size=6, kernel=3, stride=2, ceil_mode=True), 3),
        (dict(size=5, kernel=2, stride=4, padding=1, ceil_mode=True), 2),
        (
            dict(size=3, kernel=2, stride=4, padding=1, ceil_mode=True),
            1,
        ),  # not from the far padding
        (dict(size=4, kernel=5, stride=2, ceil_mode=True), 1),  # hangs over by one
        (dict(size=9, kernel=3, stride=1, dilation=3), 3),
    ],
)
def test_pool_size_by_hand(arguments, expected):
    assert pool_size(**arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((7, 3, 2), 0),
        ((8, 3, 2), 1),
        ((8, 3, 2, 1), 0),  # the padding absorbs it
        ((224, 11, 4, 1), 2),
        ((224, 11, 4, 2), 0),
        ((12, 3, 4, 1), 2),  # windows from -1, 3 and 7 end at 9
        ((8, 2, 1, 0, 3), 0),
        ((8, 2, 3, 0, 3), 1),
        ((1, 1, 7, 3), 1),  # the only window lies in the padding
    ],
)
def test_dropped_pixels_by_hand(arguments, expected):
    assert dropped_pixels(*arguments) == expected


def test_one_pair_makes_the_answer_a_pair():
    assert conv_size((28, 32), 5) == (24, 28)
    assert conv_size(28, (5, 3), padding=(0, 1)) == (24, 28)
    assert conv_size(torch.Size([28, 32]), [5, 3]) == (24, 30)
    assert dropped_pixels((7, 8), 3, 2) == (0, 1)
    assert conv_transpose_size(7, 2, stride=(2, 3)) == (14, 20)
    assert pool_size(28, (2, 4)) == (14, 7)  # the stride follows the kernel on each axis
    assert pool_size(size=(6, 7), kernel=3, stride=2, ceil_mode=True) == (3, 3)


# Sizes, against PyTorch: the same size, or both refuse


def test_conv_size_equals_torch():
    rng = random.Random(0)
    draws = [
        dict(
            size=rng.randint(0, 20),
            kernel=rng.randint(0, 6),
            stride=rng.randint(0, 4),
            padding=rng.randint(-1, 4),
            dilation=rng.randint(0, 4),
        )
        for _ in range(6000)
    ]

    def torchs(size, kernel, stride, padding, dilation):
        weight = torch.zeros(1, 1, kernel)
        return F.conv1d(torch.zeros(1, 1, size), weight, None, stride, padding, dilation)

    assert_both_kinds(agreed_sizes(conv_size, torchs, draws))


def test_conv_transpose_size_equals_torch():
    rng = random.Random(1)
    draws = [
        dict(
            size=rng.randint(0, 8),
            kernel=rng.randint(1, 5),
            stride=rng.randint(0, 4),
            padding=rng.randint(-1, 5),
            output_padding=rng.randint(-1, 3),
            dilation=rng.randint(0, 4),
        )
        for _ in range(6000)
    ]

    def torchs(size, kernel, stride, padding, output_padding, dilation):
        return F.conv_transpose1d(
            torch.zeros(1, 1, size),
            torch.zeros(1, 1, kernel),
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            dilation=dilation,
        )

    assert_both_kinds(agreed_sizes(conv_transpose_size, torchs, draws))


def random_pool(rng):
    return dict(
        size=rng.randint(0, 16),
        kernel=rng.randint(0, 6),
        stride=rng.choice([None, 0, 1, 2, 2, 3, 4, 7]),
        padding=rng.choice([-1, 0, 0, 0, 1, 1, 2, 3]),
        ceil_mode=rng.random() < 0.5,
    )


def test_pool_size_equals_torch_max_pooling():
    rng = random.Random(2)
    draws = [random_pool(rng) | dict(dilation=rng.choice([0, 1, 2, 2, 3])) for _ in range(6000)]

    def torchs(size, kernel, stride, padding, dilation, ceil_mode):
        x = torch.zeros(1, 1, size)
        return F.max_pool1d(x, kernel, stride, padding, dilation, ceil_mode)

    assert_both_kinds(agreed_sizes(pool_size, torchs, draws))


def test_pool_size_equals_torch_average_pooling():
    rng = random.Random(3)
    draws = [random_pool(rng) for _ in range(4000)]

    def torchs(size, kernel, stride, padding, ceil_mode):
        return F.avg_pool1d(torch.zeros(1, 1, size), kernel, stride, padding, ceil_mode)

    assert_both_kinds(agreed_sizes(pool_size, torchs, draws))


def test_pairs_equal_torch_in_two_dimensions():
    rng = random.Random(4)

    def draw(low, high):
        pair = rng.randint(low, high), rng.randint(low, high)
        return rng.choice([pair, pair[0]])

    draws = [
        dict(
            size=(rng.randint(1, 16), rng.randint(1, 16)),
            kernel=draw(1, 5),
            stride=draw(1, 3),
            padding=draw(0, 2),
            dilation=draw(1, 3),
        )
        for _ in range(1500)
    ]

    def convolution(size, kernel, stride, padding, dilation):
        kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        weight = torch.zeros(1, 1, *kernel)
        return F.conv2d(torch.zeros(1, 1, *size), weight, None, stride, padding, dilation)

    def max_pooling(size, kernel, stride, padding, dilation, ceil_mode):
        x = torch.zeros(1, 1, *size)
        return F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)

    assert_both_kinds(agreed_sizes(conv_size, convolution, draws))
    draws = [arguments | dict(ceil_mode=rng.random() < 0.5) for arguments in draws]
    assert_both_kinds(agreed_sizes(pool_size, max_pooling, draws))


def same_or_valid(rng):
    """Draw a convolution with padding by name; a stride above 1 is refused with "same"."""
    return dict(
        kernel=rng.randint(1, 6),
        stride=rng.choice([1, 1, 2]),
        padding=rng.choice(["same", "valid"]),
        dilation=rng.randint(1, 3),
    )


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_padding_by_name_equals_torch():
    rng = random.Random(10)
    draws = [dict(size=rng.randint(1, 20)) | same_or_valid(rng) for _ in range(1500)]

    def torchs(size, kernel, stride, padding, dilation):
        weight = torch.zeros(1, 1, kernel)
        return F.conv1d(torch.zeros(1, 1, size), weight, None, stride, padding, dilation)

    sizes = agreed_sizes(conv_size, torchs, draws)
    assert_both_kinds(sizes)
    for size, arguments in zip(sizes, draws, strict=True):
        if size and arguments["padding"] == "same":
            assert dropped_pixels(**arguments) == 0
        elif size:
            assert dropped_pixels(**arguments) == dropped_pixels(**arguments | dict(padding=0))
    assert conv_size((28, 32), (3, 4), padding="same") == (28, 32)


def test_numpy_integers_are_whole_numbers_that_do_not_overflow():
    small = np.int8
    assert conv_size(small(120), small(5), small(1), small(10), small(1)) == 136
    assert conv_size(np.uint8(5), np.uint8(6), padding=np.uint8(1)) == 2
    assert conv_size((np.uint8(250), 250), 3, padding=np.uint8(9)) == (266, 266)
    assert dropped_pixels(np.uint8(200), small(3), np.uint8(2), np.uint8(90)) == dropped_pixels(
        200, 3, 2, 90
    )
    assert conv_transpose_size(small(100), small(2), small(2)) == 200
    assert pool_size(small(120), small(3), small(1), small(1)) == 120
    assert conv_cost(small(64), small(64), small(3), small(28)) == conv_cost(64, 64, 3, 28)
    assert receptive_field([(small(3), small(2), small(1), small(60))] * 3).size == 841
    assert hdc((small(1), small(100)), small(3)) == hdc((1, 100), 3)
    assert hdc_search(small(2), small(5), small(3)) == hdc_search(2, 5, 3)
    answers = [conv_size(small(28), 3), hdc((small(2),)).m[0], conv_cost(4, small(4), 3, 28).macs]
    assert {type(answer) for answer in answers} == {int}


def test_back_through_the_convolution_of_a_transposed_one():
    rng, beyond = random.Random(11), 0
    for _ in range(1000):
        settings = dict(
            kernel=rng.randint(1, 5),
            stride=rng.randint(1, 4),
            padding=rng.randint(0, 2),
            dilation=rng.randint(1, 6),
        )
        size, more = rng.randint(1, 9), rng.randint(0, 5)
        if more >= max(settings["stride"], settings["dilation"]):
            continue
        try:
            output = conv_transpose_size(size, **settings, output_padding=more)
        except ValueError:
            continue  # all is cropped
        assert conv_size(output, **settings) == size + more // settings["stride"]
        beyond += more >= settings["stride"]
    assert beyond > 50


def test_dropped_pixels_equals_the_tail_that_no_gradient_reaches():
    rng = random.Random(5)
    tails = []
    for _ in range(2000):
        kernel = rng.randint(1, 6)
        stride, padding = rng.randint(1, kernel), rng.randint(0, 3)
        size = rng.randint(max(kernel - 2 * padding, 1), 25)
        x = torch.zeros(1, 1, size, requires_grad=True)
        F.conv1d(x, torch.ones(1, 1, kernel), None, stride, padding).sum().backward()
        read = x.grad.flatten().nonzero()
        tail = size - 1 - read.max().item() if len(read) else size
        assert dropped_pixels(size, kernel, stride, padding) == tail, (
            size,
            kernel,
            stride,
            padding,
        )
        tails.append(tail)
    assert max(tails) >= 3


def test_dropped_pixels_equals_the_pixels_past_every_tap():
    ranges = range(1, 12), range(1, 4), range(1, 9), range(4), range(1, 4)
    for size, kernel, stride, padding, dilation in product(*ranges):
        if dilation * (kernel - 1) + 1 > size + 2 * padding:
            continue
        starts = range(-padding, size + padding - dilation * (kernel - 1), stride)
        last_tap = max(starts) + dilation * (kernel - 1)
        past = [pixel for pixel in range(size) if pixel > last_tap]
        assert dropped_pixels(size, kernel, stride, padding, dilation) == len(past)


# Refusals


REFUSALS = [
    (
        lambda: conv_size(4, 5),
        "kernel=5, 5 pixels wide at dilation=1, must fit size=4 with padding=0: "
        "try size=5 or a smaller kernel",
    ),
    (
        lambda: conv_size(4, 3, padding=1, dilation=4),
        "kernel=3, 9 pixels wide at dilation=4, must fit size=4 with padding=1: "
        "try size=7 or a smaller kernel",
    ),
    (
        lambda: conv_size((28, 4), 5),
        "kernel=5, 5 pixels wide at dilation=1, must fit size=4 with padding=0: "
        "try size=5 or a smaller kernel",
    ),
    (lambda: conv_size(-4, 3), "size=-4 must be a whole number, 1 or more: try size=1"),
    (lambda: conv_size(4, 0), "kernel=0 must be a whole number, 1 or more: try kernel=1"),
    (lambda: conv_size(4, 3, 0), "stride=0 must be a whole number, 1 or more: try stride=1"),
    (lambda: conv_size(4, 3, 1, -1), "padding=-1 must be a whole number, 0 or more: try padding=0"),
    (
        lambda: conv_size(4, 3, dilation=0),
        "dilation=0 must be a whole number, 1 or more: try dilation=1",
    ),
    (lambda: conv_size(28.0, 3), "size=28.0 must be a whole number, 1 or more: try size=1"),
    (
        lambda: conv_size(28, 3, padding="full"),
        "padding='full' must be a whole number, 0 or more: try padding=0",
    ),
    (
        lambda: conv_size(28, (3, 5), (1, 2), "same", 2),
        "padding='same' keeps the size, and stride=2 does not: try padding=4",
    ),
    (
        lambda: conv_size(28, 3, padding=("same", 1)),
        "padding=('same', 1) must be an int or an (h, w) pair: try padding=(3, 3)",
    ),
    (
        lambda: dropped_pixels(28, 3, 3, "same"),
        "padding='same' keeps the size, and stride=3 does not: try padding=1",
    ),
    (
        lambda: receptive_field([(7,), (7, 2, "same")]),
        "padding='same' keeps the size, and stride=2 does not: try padding=3",
    ),
    (
        lambda: conv_transpose_size(28, 5, padding="same"),
        "padding='same' must be a whole number outside an ordinary convolution: try padding=2",
    ),
    (
        lambda: conv_transpose_size(28, 5, padding="valid"),
        "padding='valid' must be a whole number outside an ordinary convolution: try padding=0",
    ),
    (
        lambda: pool_size(28, 3, 1, "same"),
        "padding='same' must be a whole number outside an ordinary convolution: try padding=1",
    ),
    (
        lambda: pool_size(28, 3, 1, "same", dilation=4),  # more than half of the kernel is refused
        "padding='same' must be a whole number outside an ordinary convolution: try padding=1",
    ),
    (
        lambda: conv_size(np.int64(-4), 3),
        f"size={np.int64(-4)!r} must be a whole number, 1 or more: try size=1",
    ),
    (
        lambda: pool_size(28, 2, 2, True),
        "padding=True must be a whole number, 0 or more: try padding=0",
    ),
    (
        lambda: conv_size(28, (3, 3, 3)),
        "kernel=(3, 3, 3) must be an int or an (h, w) pair: try kernel=(3, 3)",
    ),
    (lambda: dropped_pixels(4, 3, 0), "stride=0 must be a whole number, 1 or more: try stride=1"),
    (
        lambda: conv_transpose_size(4, 3, 2, output_padding=2),
        "output_padding=2 must be smaller than stride=2 or dilation=1: try output_padding=1",
    ),
    (
        lambda: conv_transpose_size(4, 3, 1, output_padding=3, dilation=3),
        "output_padding=3 must be smaller than stride=1 or dilation=3: try output_padding=2",
    ),
    (
        lambda: conv_transpose_size(2, 3, 1, padding=2),
        "padding=2 crops both sides and must leave some of 4 output pixels: try padding=1",
    ),
    (
        lambda: pool_size(28, 3, 2, 2),
        "padding=2 must be at most half of kernel=3: try padding=1",
    ),
    (
        lambda: pool_size(28, 3, 1, 2, dilation=2),  # the reach of 5 does not count
        "padding=2 must be at most half of kernel=3: try padding=1",
    ),
    (
        lambda: pool_size(3, 6, 2, ceil_mode=True),
        "kernel=6, 6 pixels wide at dilation=1, must fit size=3 with padding=0: "
        "try size=5 or a smaller kernel",
    ),
    (
        lambda: conv_cost(30, 32, 3, 28, groups=4),
        "groups=4 must divide in_channels=30: try 28 or 32",
    ),
    (lambda: conv_cost(4, 2, 3, 28, groups=4), "groups=4 must divide out_channels=2: try 4"),
    (
        lambda: conv_cost(4, 4, 3, 28, groups=0),
        "groups=0 must be a whole number, 1 or more: try groups=1",
    ),
    (
        lambda: conv_cost(0, 4, 3, 28),
        "in_channels=0 must be a whole number, 1 or more: try in_channels=1",
    ),
    (
        lambda: conv_cost(4, 4, (3, 0), 28),
        "kernel=0 must be a whole number, 1 or more: try kernel=1",
    ),
    (
        lambda: conv_cost(4, 4, 3, (0, 28)),
        "output_size=0 must be a whole number, 1 or more: try output_size=1",
    ),
    (
        lambda: conv_cost(4, 4, 3, (1, 28, 28)),
        "output_size=(1, 28, 28) must be an int or an (h, w) pair: try output_size=(3, 3)",
    ),
    (
        lambda: receptive_field((3, 1, 1, 1)),
        "layers[0]=3 must be (kernel, stride, padding, dilation): "
        "try (3, 1, 1, 1), or (3,) for a kernel alone",
    ),
    (
        lambda: receptive_field([(3,), (3, 1, 1, 1, 1)]),
        "layers[1]=(3, 1, 1, 1, 1) must be (kernel, stride, padding, dilation): "
        "try (3, 1, 1, 1), or (3,) for a kernel alone",
    ),
    (
        lambda: receptive_field([(3, 0)]),
        "stride=0 must be a whole number, 1 or more: try stride=1",
    ),
    (
        lambda: ReceptiveField().through(3, padding=-1),
        "padding=-1 must be a whole number, 0 or more: try padding=0",
    ),
    (lambda: hdc([]), "rates=[] must list a rate for each layer: try rates=(1, 2, 5)"),
    (lambda: hdc(2), "rates=2 must list a rate for each layer: try rates=(1, 2, 5)"),
    (lambda: hdc([1, 0]), "rate=0 must be a whole number, 1 or more: try rate=1"),
    (lambda: hdc([1, 2.0]), "rate=2.0 must be a whole number, 1 or more: try rate=1"),
    (lambda: hdc([1, 2], 0), "kernel=0 must be a whole number, 1 or more: try kernel=1"),
    (lambda: contributions(()), "rates=() must list a rate for each layer: try rates=(1, 2, 5)"),
    (lambda: hdc_search(0, 5), "depth=0 must be a whole number, 1 or more: try depth=1"),
    (lambda: hdc_search(3, 0), "max_rate=0 must be a whole number, 1 or more: try max_rate=1"),
    (lambda: hdc_search(3, 5, 0), "kernel=0 must be a whole number, 1 or more: try kernel=1"),
    (
        lambda: hdc_search(2, 1100),
        "depth=2 with max_rate=1100 and kernel=3 must leave fewer stacks to check: try depth=3, "
        "max_rate=12, kernel=3",
    ),
]


@pytest.mark.parametrize(("refused", "message"), REFUSALS, ids=[text for _, text in REFUSALS])
def test_refusals_name_value_rule_and_remedy(refused, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        refused()


@pytest.mark.parametrize("function", [conv_size, conv_transpose_size, pool_size])
def test_following_the_remedies_ends_in_an_answer(function):
    rng = random.Random(6)
    for _ in range(1000):
        arguments = dict(
            size=rng.randint(-1, 6),
            kernel=rng.randint(0, 6),
            stride=rng.randint(0, 3),
            padding=rng.randint(-1, 6),
            dilation=rng.randint(0, 3),
        )
        if function is conv_transpose_size:
            arguments["output_padding"] = rng.randint(-1, 4)
        for _ in range(len(arguments) + 1):
            try:
                assert function(**arguments) >= 1
                break
            except ValueError as refusal:
                name, value = re.search(r"try (\w+)=(\d+)", str(refusal)).groups()
                arguments[name] = int(value)
        else:
            pytest.fail(f"still refused: {arguments}")


# Cost


def test_conv_cost_by_hand():
    assert conv_cost(192, 32, 5, 28, bias=False) == (153_600, 120_422_400)
    reduce = conv_cost(192, 16, 1, 28)
    expand = conv_cost(16, 32, 5, 28)
    assert reduce.macs + expand.macs == 12_443_648
    assert reduce.params == 192 * 16 + 16
    assert conv_cost(8, 12, (1, 7), (5, 4), groups=4) == (12 * 2 * 7 + 12, 12 * 2 * 7 * 20)


def test_two_3x3_cost_18_25ths_of_one_5x5():
    small, large = conv_cost(64, 64, 3, 28, bias=False), conv_cost(64, 64, 5, 28, bias=False)
    assert 2 * small.macs * 25 == large.macs * 18


def test_conv_cost_equals_torch():
    rng = random.Random(7)
    for _ in range(500):
        groups = rng.choice([1, 1, 2, 3])
        in_channels, out_channels = groups * rng.randint(1, 4), groups * rng.randint(1, 4)
        kernel = rng.randint(1, 4), rng.randint(1, 4)
        bias, transposed = rng.random() < 0.5, rng.random() < 0.5
        layer_class = nn.ConvTranspose2d if transposed else nn.Conv2d
        layer = layer_class(in_channels, out_channels, kernel, stride=2, groups=groups, bias=bias)
        x = torch.zeros(1, in_channels, rng.randint(4, 9), rng.randint(4, 9))
        y = layer(x)
        flops = conv_flop_count(x.shape, layer.weight.shape, y.shape, transposed=transposed)
        positions = tuple((x if transposed else y).shape[2:])
        cost = conv_cost(in_channels, out_channels, kernel, positions, groups, bias)
        assert cost.params == sum(p.numel() for p in layer.parameters())
        assert cost.macs == flops / 2


# Receptive field


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([], (1, 1, 0.0)),
        ([(3,)], (3, 1, 1.0)),
        ([(3, 1, 1)], (3, 1, 0.0)),
        ([(2, 2)], (2, 2, 0.5)),
        ([(3, 1, 1), (3, 1, 1)], (5, 1, 0.0)),
        ([(7, 2, 3), (3, 2, 1)], (11, 4, 0.0)),  # the stem of ResNet
        ([(5, 1, 2), (2, 2), (5,), (2, 2)], (16, 4, 5.5)),  # LeNet
        ([(3, 1, 1, 1), (3, 1, 2, 2), (3, 1, 5, 5)], (17, 1, 0.0)),
    ],
)
def test_receptive_field_by_hand(layers, expected):
    assert receptive_field(layers) == expected


def test_receptive_field_of_pairs_is_a_pair():
    field = receptive_field([((1, 7), 1, (0, 3)), (3, (2, 1), 1), (2, 2)])
    assert field == ReceptiveField(size=(5, 10), stride=(4, 2), offset=(1.0, 0.5))
    assert receptive_field(iter([(3,), (3,)])) == ReceptiveField(3, 1, 1.0).through(3)


def gradient_support(layers, shape):
    """Return the output's shape, the index of its middle and the first and last pixels it sees."""
    x = torch.zeros(1, 1, *shape, dtype=torch.float64, requires_grad=True)
    conv = {1: F.conv1d, 2: F.conv2d}[len(shape)]
    y = x
    for kernel, stride, padding, dilation in layers:
        taps = [kernel] if len(shape) == 1 else kernel
        weight = torch.ones(1, 1, *taps, dtype=torch.float64)
        y = conv(y, weight, None, stride, padding, dilation)
    middle = tuple(length // 2 for length in y.shape[2:])
    y[0, 0][middle].backward()
    seen = x.grad[0, 0].nonzero()
    return middle, seen.min(dim=0).values.tolist(), seen.max(dim=0).values.tolist()


def test_receptive_field_equals_gradient_support():
    rng = random.Random(8)
    for _ in range(300):
        layers = [
            (rng.randint(1, 5), rng.randint(1, 2), rng.randint(0, 3), rng.randint(1, 3))
            for _ in range(rng.randint(1, 4))
        ]
        (middle,), (first,), (last,) = gradient_support(layers, [600])
        field = receptive_field(layers)
        assert 0 < first <= last < 599  # nothing is cut off
        assert last - first + 1 == field.size
        assert (first + last) / 2 == field.offset + middle * field.stride


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_receptive_field_of_padding_by_name_equals_gradient_support():
    rng = random.Random(12)
    for _ in range(100):
        draws = [same_or_valid(rng) for _ in range(rng.randint(1, 4))]
        layers = [tuple((draw | dict(stride=1)).values()) for draw in draws]
        (middle,), (first,), (last,) = gradient_support(layers, [200])
        field = receptive_field(layers)
        assert 0 < first <= last < 199  # nothing is cut off
        assert last - first + 1 == field.size
        assert (first + last) / 2 == field.offset + middle * field.stride


def test_receptive_field_of_pairs_equals_gradient_support():
    rng = random.Random(9)
    for _ in range(30):
        layers = [
            tuple((rng.randint(low, high), rng.randint(low, high)) for low, high in bounds)
            for bounds in [((1, 4), (1, 2), (0, 2), (1, 2))] * 3
        ]
        middle, first, last = gradient_support(layers, [120, 120])
        field = receptive_field(layers)
        for axis in (0, 1):
            assert 0 < first[axis] <= last[axis] < 119
            assert last[axis] - first[axis] + 1 == field.size[axis]
            centre = field.offset[axis] + middle[axis] * field.stride[axis]
            assert (first[axis] + last[axis]) / 2 == centre


# Hybrid dilated convolution


def test_hdc_by_hand():
    gridding = hdc([2, 2, 2])
    assert gridding.m == (2, 2, 2)  # M_2 = 2 <= 3, and yet
    assert gridding.holes == (1, 3, 5, 7, 9, 11)
    assert gridding.receptive_field == 13
    assert gridding.coverage == pytest.approx(49 / 169)
    assert not gridding.accepted

    assert hdc([2, 2, 3]).holes == (1, 13)  # no common divisor, and yet
    assert hdc([1, 2, 5]) == ((1, 2, 5), 3, (1, 2, 5), True, 17, (), 1.0)
    assert hdc((1, 2, 9)).m == (3, 5, 9)
    assert not hdc((1, 2, 9)).accepted
    assert hdc((1, 2, 3, 1, 2, 3)).m == (1, 2, 5, 1, 2, 3)
    assert hdc((1, 2, 3, 1, 2, 3)).accepted
    assert not hdc((5, 2, 1)).accepted  # the order counts for the rule
    assert hdc((5, 2, 1)).holes == ()  # but not for the coverage


def test_hdc_of_a_single_layer():
    assert hdc([1]) == ((1,), 3, (1,), True, 3, (), 1.0)
    assert hdc([2]) == ((2,), 3, (2,), False, 5, (1, 3), (3 / 5) ** 2)


def test_contributions_by_hand():
    assert contributions([1]) == (1, 1, 1)
    assert contributions([1, 1]) == (1, 2, 3, 2, 1)
    assert contributions([1, 2]) == (1, 1, 2, 1, 2, 1, 1)
    assert contributions([2, 2]) == (1, 0, 2, 0, 3, 0, 2, 0, 1)
    assert contributions([1], kernel=1) == (1,)


def test_contributions_in_two_dimensions_are_the_outer_product():
    x = torch.zeros(1, 1, 15, 15, requires_grad=True)
    y = x
    for rate in (2, 2, 3):
        y = F.conv2d(y, torch.ones(1, 1, 3, 3), dilation=rate)
    y.sum().backward()
    row = torch.tensor(contributions([2, 2, 3]), dtype=torch.float32)
    assert torch.equal(x.grad[0, 0], torch.outer(row, row))
    assert (x.grad > 0).float().mean().item() == pytest.approx(hdc([2, 2, 3]).coverage)


def papers_gaps(rates):
    """M_n = r_n, then downwards, as the paper writes it, in a dict with its own indices."""
    n = len(rates)
    r = dict(enumerate(rates, start=1))
    m = {n: r[n]}
    for i in range(n - 1, 0, -1):
        m[i] = max(m[i + 1] - 2 * r[i], m[i + 1] - 2 * (m[i + 1] - r[i]), r[i])
    return m


@pytest.mark.parametrize("kernel", [3, 5])
def test_hdc_equals_brute_force(kernel):
    verdicts = Counter()
    for depth in (2, 3, 4):
        for rates in product(range(1, 7), repeat=depth):
            paths = Counter(map(sum, product(*(range(0, kernel * r, r) for r in rates))))
            field = (kernel - 1) * sum(rates) + 1
            holes = tuple(position for position in range(field) if position not in paths)
            m = papers_gaps(rates)

            stack = hdc(rates, kernel)
            assert contributions(rates, kernel) == tuple(paths[i] for i in range(field))
            assert (
                stack.receptive_field
                == field
                == receptive_field((kernel, 1, 0, rate) for rate in rates).size
            )
            assert stack.holes == holes
            assert stack.coverage == pytest.approx((len(paths) / field) ** 2)
            assert stack.m == tuple(m[i] for i in range(1, depth + 1))
            assert stack.accepted == (rates[0] == 1 and m[2] <= kernel)
            verdicts[stack.accepted, bool(holes)] += 1

            reached = sorted(paths)
            assert max(b - a for a, b in pairwise(reached)) <= m[1]
    assert verdicts[True, True] == 0  # the rule is sufficient
    assert verdicts[False, False] > 0  # and not necessary
    assert verdicts[True, False] > 0
    assert verdicts[False, True] > 0


def test_hdc_search_by_hand():
    assert [stack.rates for stack in hdc_search(1, 5)] == [(1,)]
    assert [stack.rates for stack in hdc_search(2, 5)] == [(1, 3), (1, 2), (1, 1)]
    assert [stack.rates for stack in hdc_search(3, 9)][:3] == [(1, 3, 9), (1, 3, 8), (1, 3, 7)]
    assert hdc_search(3, 5)[0] == hdc((1, 3, 5))
    assert (1, 2, 5) in [stack.rates for stack in hdc_search(3, 5)]


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
def test_hdc_search_lists_what_is_accepted_and_whole_widest_first(kernel):
    found = hdc_search(4, 5, kernel)
    whole = {
        rates
        for rates in product(range(1, 6), repeat=4)
        if hdc(rates, kernel).accepted and not hdc(rates, kernel).holes
    }
    assert {stack.rates for stack in found} == whole
    assert len(found) == len(whole)
    order = [(-stack.receptive_field, stack.rates) for stack in found]
    assert order == sorted(order)


def test_two_taps_are_too_few_for_the_rule():
    stack = hdc((1, 1, 4), kernel=2)
    assert stack.accepted
    assert stack.holes == (3,)
    assert stack.rates not in [found.rates for found in hdc_search(3, 4, kernel=2)]

"""Wrong calls of arithmetic, trace, blocks, models and weights: each refused in words that help.

A row is a name, a call, and the words that its refusal must hold: the argument with its value, the
rule, and what to try. No call builds a large network: checks come before the layers.
"""

import math
import os
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from cnnlib import arithmetic, models, weights
from cnnlib.blocks import (
    attention,
    classic,
    conv,
    dense,
    dilated,
    inception,
    inception_v3,
    inception_v4,
    residual,
    split,
    unet,
)
from cnnlib.models.beyond import ibn_a
from cnnlib.models.classics import GROUPS_11, VGG
from cnnlib.models.densenet import LAYERS_D2L, DenseNet
from cnnlib.models.inception import GoogLeNet, InceptionV3
from cnnlib.models.resnet import LAYERS_18, ResNet, stage, stem_3x3, stem_7x7, stem_bare
from cnnlib.models.segmentation import UNet
from cnnlib.trace import count_parameters, trace

# What is no count of anything: too small, no number, not whole, several, too large.
NO_COUNTS = [0, -1, 1.5, "10", None, math.nan, (1, 2, 3), 10**9]
NO_FLAGS = ["no", None, 2]
NO_BUILDERS = [None, 3, "BasicBlock", nn.ReLU, nn.ReLU()]
NO_SCALES = [-1, "0.17", None, math.nan, math.inf, True]
WIDTHS = (64, (96, 128), (16, 32), 32)


def builds_nothing(*arguments, **options):
    """Stand for a function that forgets its return."""


BLOCKS = {  # with valid arguments, and the counts among them
    conv.conv_bn: dict(in_channels=8, out_channels=8, kernel=3, stride=1, groups=1),
    residual.shortcut: dict(in_channels=8, out_channels=8, stride=1),
    residual.PlainBlock: dict(in_channels=8, out_channels=8, stride=1),
    residual.BasicBlock: dict(in_channels=8, out_channels=8, stride=1),
    residual.Bottleneck: dict(in_channels=8, out_channels=8, stride=1),
    residual.PreActBlock: dict(in_channels=8, out_channels=8, stride=1),
    residual.bn_relu: dict(channels=8),
    split.width_for: dict(out_channels=256, width=64),
    split.ResNeXtBlock: dict(in_channels=8, out_channels=256, stride=1, groups=32, width=4),
    split.IBN: dict(channels=8),
    split.IBNBottleneck: dict(in_channels=8, out_channels=256, stride=1),
    split.Cascade: dict(width=8, scales=4),
    split.SideBySide: dict(width=8, scales=4, stride=2),
    split.Res2NetBlock: dict(in_channels=8, out_channels=256, stride=1, width=26, scales=4),
    attention.SqueezeExcitation: dict(channels=8, reduction=4),
    attention.SEBottleneck: dict(in_channels=8, out_channels=256, stride=1, reduction=16),
    attention.BranchAttention: dict(branches=2, channels=8, hidden=8, bias=True),
    attention.SelectiveKernel: dict(width=8, stride=1),
    attention.SKBottleneck: dict(in_channels=8, out_channels=256, stride=1),
    attention.SplitAttention: dict(width=8, radix=2),
    attention.pooled_shortcut: dict(in_channels=8, out_channels=8, stride=2),
    attention.ResNeStBlock: dict(in_channels=8, out_channels=256, stride=1, width=64, radix=2),
    classic.vgg_group: dict(in_channels=8, out_channels=8, convolutions=1),
    classic.nin_unit: dict(in_channels=8, out_channels=8, kernel=3, stride=1),
    dense.bn_relu_conv: dict(in_channels=8, out_channels=8, kernel=3),
    dense.DenseLayer: dict(in_channels=8, growth_rate=4),
    dense.DenseBlock: dict(in_channels=8, layers=2, growth_rate=4),
    dense.Transition: dict(in_channels=8, out_channels=4),
    dilated.dilated_conv: dict(in_channels=8, out_channels=8, rate=2),
    inception.conv_relu: dict(in_channels=8, out_channels=8, kernel=3, stride=1),
    inception.MiniInception: dict(in_channels=8),
    inception.AuxiliaryHead: dict(in_channels=8, num_classes=4),
    inception_v3.conv_unit: dict(in_channels=8, out_channels=8, kernel=3),
    inception_v3.InceptionB: dict(in_channels=8),
    inception_v3.InceptionD: dict(in_channels=8),
    inception_v3.InceptionE: dict(in_channels=8),
    inception_v3.Fork: dict(in_channels=8, out_channels=8),
    inception_v3.AuxiliaryHeadV3: dict(in_channels=8, num_classes=4),
    inception_v4.average_pool: dict(in_channels=8, out_channels=8),
    unet.double_conv: dict(in_channels=8, out_channels=8),
    unet.UpStep: dict(in_channels=8, out_channels=8),
    unet.PlainUpStep: dict(in_channels=8, out_channels=8),
}

NETWORKS = {  # the builders with counts of their own
    models.resnet18: dict(last_stride=2),
    models.small_resnet: dict(width=16),
    models.unet: dict(width=4),
    models.dilated_net: dict(width=4),
    stem_7x7: dict(in_channels=1, out_channels=8),
    stem_3x3: dict(in_channels=1, out_channels=8),
    stem_bare: dict(in_channels=1, out_channels=8),
}


def counts(builders, values):
    """Return a row for each count of each builder, at each of some values that are none."""
    rows = []
    for build, valid in builders.items():
        for name in [name for name in valid if name != "bias"]:
            for value in values:
                arguments = valid | {name: value}
                words = (f"{name}={value!r}" if build not in PAIRED else repr(value), "try ")
                rows.append((f"{build.__name__}({name}={value!r})", build, arguments, words))
    return rows


CHANNELS = dict(in_channels=8, out_channels=8)
STAGE = CHANNELS | dict(block=residual.BasicBlock, stride=1)
RES2NET = dict(in_channels=8, out_channels=256)
PAIRED = {inception_v3.conv_unit}  # takes (h, w), too, and shows what it was given as a pair


def of_models():
    """Return a row for the channels and for the classes of each model, at each wrong value."""
    rows = []
    for model_name, model in models.MODELS.items():
        for name, usual in {"in_channels": 1, "num_classes": 10}.items():
            for value in NO_COUNTS:
                rule = "must be a whole number from 1 to 1,000,000"
                words = (f"{name}={value!r} {rule}: try {name}={usual}",)
                rows.append((f"{model_name}({name}={value!r})", model.build, {name: value}, words))
    return rows


def of_kind(build, name, values, rule, valid=None):
    """Return a row for one argument that is neither a count nor a table."""
    return [
        (
            f"{build.__name__}({name}={value!r})",
            build,
            (valid or {}) | {name: value},
            (f"{name}={value!r} {rule}", "try "),
        )
        for value in values
    ]


TABLES = {
    "layers": (ResNet, dict(block=residual.BasicBlock), LAYERS_18, [[64], [64, 2], [64, (0, 64)]]),
    "groups": (VGG, {}, GROUPS_11, [[(1,)], [(1, 64, 2)], [("1", 64)], 5]),
    "table": (DenseNet, {}, LAYERS_D2L, [(64, 32), (64, 32, ()), (64, 1.5, (4,)), (64, 32, 4)]),
    "rates": (models.dilated_net, {}, (1, 2, 5), [(0,), (1, -2), (1.5,), 3, "1", ((1, 2),)]),
    "widths": (
        inception.Inception,
        dict(in_channels=8),
        (64, (96, 128), (16, 32), 32),
        [(4, 4, 4, 4), (4, (4, 4), (4, 4)), (0, (4, 4), (4, 4), 4), (4, (4, 4), (4, "4"), 4)],
    ),
}


def of_tables():
    """Return a row for each wrong table; what stands in the message is the whole table."""
    rows = []
    for name, (build, valid, _, wrong) in TABLES.items():
        for value in [*wrong, None, [], {}]:
            words = (f"{name}={value!r} must hold whole numbers from 1", f"try {name}=")
            rows.append(
                (f"{build.__name__}({name}={value!r})", build, valid | {name: value}, words)
            )
    return rows


FLAGS = [
    (models.unet, "padded"),
    (models.unet, "skips"),
    (models.googlenet, "batch_norm"),
    (models.googlenet, "auxiliary"),
    (models.inception_v3, "auxiliary"),
    (models.densenet_d2l, "memory_efficient"),
]
BUILDERS = [
    (models.narrow_resnet, "block", {}),
    (models.cifar_resnet, "block", {}),
    (models.mini_inception, "unit", {}),
    (GoogLeNet, "unit", dict(auxiliary=False)),
    (UNet, "up_step", {}),
    (DenseNet, "stem", dict(table=LAYERS_D2L)),
    (ResNet, "stem", dict(block=residual.BasicBlock, layers=LAYERS_18)),
    (stage, "block", dict(in_channels=8, out_channels=8, blocks=1, stride=1)),
    (inception.Inception, "unit", dict(in_channels=8, widths=WIDTHS)),
    (inception.MiniInception, "unit", dict(in_channels=8)),
    (inception.AuxiliaryHead, "unit", dict(in_channels=8, num_classes=4)),
]

ROWS = [
    *of_models(),
    *counts(BLOCKS, NO_COUNTS[:6]),
    *counts(NETWORKS, NO_COUNTS),
    *of_tables(),
    *(row for build, name in FLAGS for row in of_kind(build, name, NO_FLAGS, "must be True or")),
    *(
        row
        for build, name, valid in BUILDERS
        for row in of_kind(build, name, NO_BUILDERS, "must be a class or a function", valid)
    ),
    *(
        (
            f"{build.__name__}({name} builds nothing)",
            build,
            valid | {name: builds_nothing},
            (f"{name} must return an nn.Module, but returned None", "try "),
        )
        for build, name, valid in BUILDERS
    ),
    *(
        row
        for block in (
            inception_v4.InceptionResNetA,
            inception_v4.InceptionResNetB,
            inception_v4.InceptionResNetC,
        )
        for row in of_kind(block, "scale", NO_SCALES, "must be a finite number of at least 0")
    ),
    *of_kind(inception_v4.InceptionResNetC, "last", NO_FLAGS, "must be True or False"),
    *of_kind(
        ibn_a, "last", NO_COUNTS[:6], "must be a whole", dict(in_channels=8, out_channels=256)
    ),
    *of_kind(split.Res2NetBlock, "scales", [1], "must be a whole number from 2", RES2NET),
    *of_kind(dense.BuffersKept, "net", [None, nn.ReLU], "must be an nn.Module"),
    *of_kind(dense.recomputed, "layer", [None, nn.ReLU], "must be an nn.Module"),
    *of_kind(stage, "blocks", [1001], "must be a whole number from 1 to 1,000", STAGE),
    *of_kind(
        classic.vgg_group,
        "convolutions",
        [1001],
        "must be a whole number from 1 to 1,000",
        CHANNELS,
    ),
    *of_kind(
        dense.DenseBlock,
        "layers",
        [1001],
        "must be a whole number from 1 to 1,000",
        dict(in_channels=8, growth_rate=4),
    ),
    (
        "dilated_net(1001 rates)",
        models.dilated_net,
        dict(rates=(1,) * 1001),
        ("1, 1...", "in lists of at most 1,000", "try rates=(1, 2, 5)"),
    ),
    (
        "conv_bn(a number that Python does not write)",
        conv.conv_bn,
        CHANNELS | dict(kernel=10**5000),
        ("kernel=<int> must be a whole number from 1 to 1,000,000", "try kernel=1"),
    ),
    *of_kind(models.cifar_resnet, "depth", [0, 21, "20", None, 10**30], "must be 6n + 2"),
    *of_kind(
        DenseNet,
        "compression",
        [0, -1, 2, "0.5", None, math.nan, 1e-9],
        "must ",
        dict(table=LAYERS_D2L),
    ),
    *of_kind(
        inception_v3.conv_unit,
        "padding",
        [-1, 1, None, "10"],
        "must be",
        dict(in_channels=8, out_channels=8, kernel=3),
    ),
    *of_kind(
        unet.center_crop,
        "size",
        [None, 4, "44", (9, 4), (0, 4), (4,), (4.0, 4.0), ("4", "4")],
        "must",
        dict(images=torch.zeros(1, 1, 8, 8)),
    ),
    *of_kind(conv.he_init, "net", [None, 3, "net"], "must be an nn.Module"),
    *of_kind(
        inception_v4.StemPool,
        "left",
        [None, 3, nn.ReLU],
        "must be an nn.Module",
        dict(right=nn.ReLU()),
    ),
    *of_kind(
        dense.DenseLayer, "bottleneck", NO_FLAGS, "must be True", dict(in_channels=8, growth_rate=4)
    ),
    *of_kind(
        dense.DenseBlock, "memory_efficient", NO_FLAGS, "must be True", BLOCKS[dense.DenseBlock]
    ),
    *of_kind(unet.double_conv, "padded", NO_FLAGS, "must be True", BLOCKS[unet.double_conv]),
    *of_kind(
        attention.BranchAttention,
        "bias",
        NO_FLAGS,
        "must be True",
        BLOCKS[attention.BranchAttention],
    ),
    *of_kind(InceptionV3, "auxiliary", NO_FLAGS, "must be True or False"),
    *of_kind(conv.conv_bn, "groups", [3], "must divide in_channels=8", BLOCKS[conv.conv_bn]),
    *of_kind(
        classic.nin_unit, "padding", [-1, 0.5, None], "must be a whole", BLOCKS[classic.nin_unit]
    ),
]


@pytest.mark.parametrize(
    ("call", "arguments", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_a_wrong_argument_of_a_block_or_a_model_is_refused(call, arguments, words):
    with torch.device("meta"), pytest.raises(ValueError) as refusal:
        call(**arguments)
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize("build", [*BLOCKS, *NETWORKS], ids=lambda build: build.__name__)
def test_what_the_tables_call_valid_is_taken(build):
    with torch.device("meta"):
        assert build(**(BLOCKS | NETWORKS)[build]) is not None


# Arithmetic, trace and weights

SIZES = dict(size=28, kernel=3, stride=2, padding=0, dilation=1)


def small_net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 10))


def state(**changed):
    return {"weight": torch.zeros(3, 2), "bias": torch.zeros(3)} | changed


OTHER_ROWS = [
    *(
        row
        for function in (arithmetic.conv_size, arithmetic.dropped_pixels, arithmetic.pool_size)
        for name in SIZES
        for row in of_kind(
            function, name, [-1, 1.5, "10", None, math.nan], "must be a whole number", SIZES
        )
        if (function, name, row[2][name]) != (arithmetic.pool_size, "stride", None)
    ),
    *(
        row
        for name in ("in_channels", "out_channels", "groups")
        for row in of_kind(
            arithmetic.conv_cost,
            name,
            NO_COUNTS[:6],
            "must be a whole number",
            dict(in_channels=4, out_channels=4, kernel=3, output_size=28, groups=1),
        )
    ),
    *of_kind(arithmetic.pool_size, "ceil_mode", NO_FLAGS, "must be True or False", SIZES),
    *of_kind(
        arithmetic.conv_cost,
        "bias",
        NO_FLAGS,
        "must be True or False",
        dict(in_channels=4, out_channels=4, kernel=3, output_size=28),
    ),
    *of_kind(arithmetic.receptive_field, "layers", [3, None, {}, "3"], "must list layers"),
    *of_kind(arithmetic.hdc, "rates", [(), 3, None, "12"], "must list a rate for each layer"),
    *of_kind(
        arithmetic.contributions, "rates", [(10**9,), (10**6, 10**6)], "with kernel=3 must have"
    ),
    *of_kind(arithmetic.hdc_search, "depth", [10**9, 10], "with max_rate=10", dict(max_rate=10)),
    *of_kind(arithmetic.hdc_search, "max_rate", [10**9], "and kernel=3", dict(depth=2)),
    *of_kind(arithmetic.receptive_field, "layers", [np.array(3)], "must list layers"),
    *of_kind(arithmetic.conv_size, "kernel", [2**63], "must be a whole number, at most", SIZES),
    (
        "dropped_pixels(size=((3, 3), 3))",
        lambda: arithmetic.dropped_pixels(((3, 3), 3), 3),
        {},
        ("size=(3, 3) must be a whole number", "try size=1"),
    ),
    (
        "conv_size(a number that Python does not write)",
        lambda: arithmetic.conv_size(28, 10**5000),
        {},
        ("kernel=<int> must be a whole number, at most 9,223", "try kernel=1"),
    ),
    (
        "receptive_field(layers without an end)",
        lambda: arithmetic.receptive_field(iter(lambda: (1,), None)),
        {},
        ("layers must be at most 2,000", "try a list of them"),
    ),
    (
        "check_divides(groups=0)",
        lambda: arithmetic.check_divides(0, in_channels=4),
        {},
        ("groups=0 must be a whole number", "try groups=1"),
    ),
    *(
        (
            f"{build.__name__}(images of 3 dimensions)",
            lambda build=build: build(width=4)(torch.zeros(1, 16, 16)),
            {},
            (
                "images of shape (1, 16, 16) must be (N, channels, height, width)",
                "try images[None]",
            ),
        )
        for build in (models.unet, models.dilated_net)
    ),
    (
        "ReceptiveField(size=1.5)",
        lambda: arithmetic.ReceptiveField(size=1.5).through(3),
        {},
        ("size=1.5 must be a whole number", "try size=1"),
    ),
    (
        "ReceptiveField(offset=nan)",
        lambda: arithmetic.ReceptiveField(offset=math.nan).through(3),
        {},
        ("offset=nan must be a finite number", "try offset=0.0"),
    ),
    *(
        (
            f"trace(net={getattr(net, '__name__', repr(net))})",
            trace,
            dict(net=net, input_shape=(1, 28, 28)),
            ("net=", "nn.Module"),
        )
        for net in [None, 3, "lenet", (1, 28, 28), models.lenet, nn.ReLU]
    ),
    *(
        (f"count_parameters({net!r})", count_parameters, dict(net=net), ("net=", "nn.Module"))
        for net in [None, 3, "lenet", nn.ReLU]
    ),
    *(
        (
            f"trace(input_shape={shape!r})",
            lambda shape=shape: trace(small_net(), shape),
            {},
            (f"input_shape={shape!r} must", "try (1, 28, 28)"),
        )
        for shape in [None, "28", (), 1.5, (1, 10**10, 10**10), (10**30, 1, 1)]
    ),
    *(
        (
            f"trace(depth={depth!r})",
            lambda depth=depth: trace(small_net(), (1, 28, 28), depth),
            {},
            (f"depth={depth!r} must be a whole number", "try depth=1"),
        )
        for depth in [0, -1, 1.5, "1", math.nan]
    ),
    (
        "trace(lenet, 32 pixels)",
        lambda: trace(models.lenet(), (1, 32, 32)),
        {},
        (
            "7 (Linear) got (1, 576) but wants in_features=400",
            "the weight takes 400 features, but the input has 576",
        ),
    ),
    *(
        (
            f"weights.load(net, {name})",
            lambda given=given: weights.load(nn.Linear(2, 3), given),
            {},
            words,
        )
        for name, given, words in [
            (
                "nan",
                state(weight=torch.full((3, 2), math.nan)),
                ("finite floating-point numbers, but not all of weight", "try"),
            ),
            (
                "1e300",
                state(weight=torch.full((3, 2), 1e300, dtype=torch.double)),
                ("finite floating-point numbers, but not all of weight", "try"),
            ),
            ("complex", state(weight=torch.zeros(3, 2, dtype=torch.cfloat)), ("complex64", "try")),
            ("meta", state(weight=torch.zeros(3, 2, device="meta")), ("meta", "try")),
            ("int8", state(weight=torch.zeros(3, 2, dtype=torch.int8)), ("torch.int8", "try")),
            ("sparse", state(weight=torch.zeros(3, 2).to_sparse()), ("sparse_coo", "try")),
            ("numpy", state(weight=np.zeros((3, 2))), ("'weight' has the type ndarray", "try")),
            ("list", state(weight=[[0.0]]), ("'weight' has the type list", "try")),
            ("number", state(weight=3), ("'weight' has the type int", "try")),
            ("None", None, ("its type is NoneType", "try weights.load(net")),
            ("a path", "net.pt", ("its type is str", "weights.read(path)")),
            ("nothing", {}, ("in 2 entries", "missing")),
            (
                "names",
                {0: torch.zeros(3, 2)},
                ("map text to tensors, but 0 has the type Tensor", "try"),
            ),
        ]
    ),
    *(
        (f"weights.load({name})", lambda net=net: weights.load(net, state()), {}, words)
        for name, net, words in [
            ("None", None, ("net must be a network", "NoneType", "try")),
            ("ReLU", nn.ReLU(), ("net=ReLU must have weights",)),
            ("LazyLinear", nn.LazyLinear(3), ("net=LazyLinear must have weights", "lazy")),
        ]
    ),
    *(
        (
            f"weights.load(layout={layout!r})",
            lambda layout=layout: weights.load(nn.Linear(2, 3), state(), layout),
            {},
            (f"layout={layout!r} must be 'torchvision' or 'timm'", "try 'torchvision'"),
        )
        for layout in ["keras", None, 3, []]
    ),
    *(
        (
            f"weights.load(skip_head={flag!r})",
            lambda flag=flag: weights.load(nn.Linear(2, 3), state(), skip_head=flag),
            {},
            (f"skip_head={flag!r} must be True or False", "try skip_head=True"),
        )
        for flag in NO_FLAGS
    ),
    *(
        (f"weights.read({path!r})", weights.read, dict(path=path), ("path=", "must be", "try"))
        for path in [3, None, b"net.pt", "", ".", "/dev/zero"]
    ),
    *(
        (
            f"relative_difference({value!r})",
            lambda value=value: weights.relative_difference(value, torch.ones(2)),
            {},
            ("ours and theirs must be floating-point tensors", "try"),
        )
        for value in [None, 3, [1.0, 2.0], torch.ones(2, dtype=torch.int64)]
    ),
]


@pytest.mark.parametrize(
    ("call", "arguments", "words"),
    [row[1:] for row in OTHER_ROWS],
    ids=[row[0] for row in OTHER_ROWS],
)
def test_a_wrong_argument_is_refused(call, arguments, words):
    with pytest.raises(ValueError) as refusal:
        call(**arguments)
    for word in words:
        assert word in str(refusal.value)


def test_the_tables_hold_enough():
    assert len(ROWS) + len(OTHER_ROWS) > 1000
    names = [row[0] for row in ROWS + OTHER_ROWS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_numbers_of_numpy_are_taken_and_do_not_overflow(kind):
    with torch.device("meta"):
        net = models.unet(kind(3), kind(200), width=kind(64)).eval()
        assert net(torch.empty(1, 3, 16, 16)).shape == (1, 200, 16, 16)
        assert net.bottom[0][0].out_channels == 16 * 64
        rates = tuple(map(kind, (1, 2, 5)))
        assert models.dilated_net(width=kind(16), rates=rates)[1][2][0].dilation == (5, 5)
        assert len(models.cifar_resnet(depth=kind(200)).stages[0]) == 33
        assert models.small_resnet(width=kind(128)).head[2].in_features == 512
        assert models.resnet18(last_stride=kind(1)).stages[3][0].residual[0][0].stride == (1, 1)


PRODUCTS = {  # blocks that multiply or add their counts
    attention.BranchAttention: dict(branches=4, channels=64, hidden=64),
    attention.SplitAttention: dict(width=64, radix=4),
    attention.SqueezeExcitation: dict(channels=200, reduction=16),
    dense.DenseLayer: dict(in_channels=8, growth_rate=64),
    dense.DenseBlock: dict(in_channels=200, layers=3, growth_rate=64),
    split.ResNeXtBlock: dict(in_channels=8, out_channels=128, groups=64, width=8),
    split.Res2NetBlock: dict(in_channels=8, out_channels=128, width=64, scales=8),
    unet.UpStep: dict(in_channels=200, out_channels=200),
    unet.PlainUpStep: dict(in_channels=200, out_channels=200),
}


@pytest.mark.parametrize("build", PRODUCTS, ids=lambda build: build.__name__)
def test_bytes_of_numpy_do_not_wrap_around_in_a_block(build):
    counts, flags = PRODUCTS[build], {}
    if build is attention.BranchAttention:
        flags = dict(bias=True)
    with torch.device("meta"):
        nets = [
            build(**{name: kind(count) for name, count in counts.items()}, **flags)
            for kind in (int, np.uint8)
        ]
    shapes, of_bytes = ([x.shape for x in net.state_dict().values()] for net in nets)
    assert shapes == of_bytes


def test_a_network_of_one_stage_keeps_its_size():
    net = ResNet(residual.BasicBlock, [8, (2, 8)], stem=stem_3x3)
    assert net.stages(net.stem(torch.zeros(2, 1, 9, 9))).shape == (2, 8, 9, 9)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((7, 8), "height=7 must be even: pad the images to 8"), ((8, 9), "width=9 must be even")],
)
def test_dilated_net_refuses_odd_sides(shape, words):
    net = models.dilated_net(width=4)
    with pytest.raises(ValueError, match=words):
        net(torch.zeros(1, 1, *shape))
    assert net(torch.zeros(1, 1, 8, 6)).shape == (1, 10, 8, 6)


# Files that are no weights


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_named_pipe_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"must be the path of a file, not of a folder, a pipe"):
        weights.read(tmp_path / "net.pt")


def test_a_descriptor_is_refused_and_stays_open(tmp_path):
    with open(tmp_path / "net.pt", "wb") as file:
        with pytest.raises(ValueError, match=r"path=\d+ must be the path of a file"):
            weights.read(file.fileno())
        os.fstat(file.fileno())


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(state(), path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/9", bytes(10**7))
    with pytest.raises(ValueError, match="damaged"):
        weights.read(path)


def test_a_tensor_that_repeats_one_number_is_refused_if_it_is_larger_than_its_file(tmp_path):
    path = tmp_path / "net.pt"
    torch.save({"weight": torch.zeros(1).expand(10**6, 10**6)}, path)
    with pytest.raises(
        ValueError, match=r"too few for weight \(1000000, 1000000\): save its .cont"
    ):
        weights.read(path)
    torch.save({"weight": torch.arange(3.0).expand(2, 3)}, path)
    assert weights.read(path)["weight"].tolist() == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize(
    "content", [{}, [], torch.zeros(2), {0: torch.zeros(2)}, {None: torch.zeros(2)}]
)
def test_a_file_without_names_of_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"must hold a state dict, a tensor for each name"):
        weights.read(tmp_path / "net.pt")

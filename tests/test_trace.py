"""The trace against hand-computed tables, FlopCounterMode and the support of gradients."""

import copy
import functools
import random
import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as torch_module
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models as torchvision_models
from torchvision.ops import deform_conv2d

from cnnlib.arithmetic import receptive_field
from cnnlib.trace import Row, count_parameters, trace


class Net(nn.Module):
    """Layers by name, and a forward that gets them: one-line networks."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.steps = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.steps(self, x)


def conv(*args, **kwargs):
    return nn.Conv2d(*args, bias=False, **kwargs)


def small_net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 14 * 14, 10),
    )


# Tables, by hand


def test_rows_by_hand():
    assert trace(small_net(), (1, 28, 28)).rows == (
        Row("0", "Conv2d", (4, 28, 28), 4 * 9 + 4, 4 * 9 * 28 * 28, 3),
        Row("1", "BatchNorm2d", (4, 28, 28), 8, 0, 3),
        Row("2", "ReLU", (4, 28, 28), 0, 0, 3),
        Row("3", "MaxPool2d", (4, 14, 14), 0, 0, 4),
        Row("4", "Flatten", (784,), 0, 0, 4),
        Row("5", "Linear", (10,), 7850, 7840, 4 + 13 * 2),
    )


def test_text_is_an_aligned_table():
    net = Net(
        lambda net, x: net.head(net.wide(x) + net.tall(x)),
        wide=nn.Conv2d(3, 64, (1, 5), padding=(0, 2)),
        tall=nn.Conv2d(3, 64, 1),
        head=nn.Sequential(nn.ReLU(), nn.Conv2d(64, 100, 1)),
        spare=nn.Linear(10, 10),
    )
    assert str(trace(net, (3, 32, 32))) == (
        "Net, input 3x32x32\n"
        "\n"
        "Layer   Kind        Output  Params       MACs  Field\n"
        "----------------------------------------------------\n"
        "wide    Conv2d    64x32x32   1,024    983,040    1x5\n"
        "tall    Conv2d    64x32x32     256    196,608      1\n"
        "head.0  ReLU      64x32x32       0          0    1x5\n"
        "head.1  Conv2d   100x32x32   6,500  6,553,600    1x5\n"
        "spare   Linear  not called     110          0      -\n"
        "----------------------------------------------------\n"
        "Total                        7,890  7,733,248"
    )


def test_table_of_resnet18_fits_a_page():
    text = str(trace(network("resnet18"), (3, 224, 224)))
    assert max(map(len, text.splitlines())) <= 100
    assert len(text.splitlines()) == 60 + 6
    assert text.endswith("11,689,512  1,814,073,344")


def test_a_layer_called_twice_counts_its_parameters_once():
    shared = conv(1, 1, 3, padding=1)
    table = trace(nn.Sequential(shared, nn.ReLU(), shared), (1, 8, 8))
    first, _, second = table.rows
    assert (first.name, second.name) == ("0", "0")
    assert (first.params, second.params) == (9, 0)
    assert (first.macs, second.macs) == (576, 576)
    assert (first.receptive_field, second.receptive_field) == (3, 5)


def test_functional_calls_are_booked_on_the_layer_that_makes_them():
    net = Net(
        lambda net, x: F.conv2d(net.first(x), net.first.weight.flip(-1)) @ net.matrix,
        first=conv(1, 1, 1),
        matrix=nn.Parameter(torch.ones(8, 2)),
    )
    first, own = trace(net, (1, 8, 8)).rows
    assert first == Row("first", "Conv2d", (1, 8, 8), 1, 64, 1)
    assert (own.name, own.output_shape, own.params) == ("", (1, 8, 2), 16)
    assert own.macs == 64 + 8 * 8 * 2


def test_parameters_used_without_a_call_belong_to_the_user():
    net = Net(lambda net, x: F.conv2d(x, net.inner.weight), inner=conv(1, 4, 3))
    assert trace(net, (1, 8, 8)).rows == (Row("", "Net", (4, 6, 6), 36, 36 * 36, 3),)


def forgetful_block():
    """The famous slip: conv2 is called twice, conv1 never."""
    return Net(
        lambda net, x: net.conv2(F.relu(net.conv2(x))) + x,
        conv1=conv(4, 4, 3, padding=1),
        conv2=conv(4, 4, 3, padding=1),
    )


def test_a_forgotten_layer_shows():
    table = trace(nn.Sequential(conv(1, 4, 1), forgetful_block()), (1, 8, 8))
    assert [row.name for row in table.rows] == ["0", "1.conv2", "1.conv2", "1.conv1"]
    assert table.rows[-1] == Row("1.conv1", "Conv2d", None, 144, 0, None)
    assert table.total_params == 4 + 2 * 144


def test_uncalled_branches_fold_with_depth():
    uncalled = [row for row in traced("googlenet", 1).rows if row.output_shape is None]
    assert [(row.name, row.kind) for row in uncalled] == [
        ("aux1", "InceptionAux"),
        ("aux2", "InceptionAux"),
    ]
    aux1 = network("googlenet").aux1
    assert uncalled[0].params == sum(p.numel() for p in aux1.parameters())


def test_depth_one_shows_the_direct_calls():
    block = nn.Sequential(conv(1, 4, 3), nn.ReLU(), nn.Sequential(conv(4, 4, 3), nn.MaxPool2d(2)))
    table = trace(nn.Sequential(block, nn.Flatten()), (1, 12, 12), depth=1)
    assert table.rows == (
        Row("0", "Sequential", (4, 4, 4), 36 + 144, 36 * 100 + 144 * 64, 6),
        Row("1", "Flatten", (64,), 0, 0, 6),
    )
    deeper = trace(nn.Sequential(block, nn.Flatten()), (1, 12, 12), depth=2)
    assert [row.name for row in deeper.rows] == ["0.0", "0.1", "0.2", "1"]


def test_outputs_that_are_no_single_tensor():
    pair = Net(lambda net, x: (None, {"out": x[:, :1]}))
    assert trace(pair, (2, 4, 4)).rows[0].output_shape == (1, 4, 4)
    nothing = nn.Sequential(Net(lambda net, x: None), Net(lambda net, x: None))
    assert [row.output_shape for row in trace(nothing, (2, 4, 4)).rows] == [(), ()]
    assert "-" in str(trace(nothing, (2, 4, 4)))


def test_a_network_that_catches_an_error_goes_on():
    def tries(net, x):
        try:
            return net.wrong(x)
        except RuntimeError:
            return net.right(x)

    net = Net(tries, wrong=nn.Sequential(conv(5, 1, 1)), right=conv(1, 1, 1))
    table = trace(net, (1, 4, 4))
    assert [row.name for row in table.rows if row.output_shape] == ["right"]
    assert (table.total_params, table.total_macs) == (6, 16)


def test_parameters_are_counted_once():
    shared = conv(1, 1, 3)
    net = nn.Sequential(shared, shared, nn.BatchNorm2d(1), nn.Conv2d(1, 2, 1))
    net[2].requires_grad_(False)  # frozen, they are parameters all the same
    assert count_parameters(net) == 9 + 2 + 4 == trace(net, (1, 8, 8)).total_params
    assert count_parameters(nn.ReLU()) == 0


def test_parameters_without_a_size_are_not_counted():
    with pytest.raises(ValueError, match=r"lazy layer has not run.*try net\(images\) first"):
        count_parameters(nn.Sequential(nn.LazyConv2d(4, 3)))


# Totals, with torch as the oracle

NETWORKS = {
    "vgg16": ({}, 224),
    "resnet18": ({}, 96),
    "resnet50": ({}, 224),
    "densenet121": ({}, 64),
    "inception_v3": ({"init_weights": False}, 299),
    "googlenet": ({"init_weights": False}, 224),
    "mobilenet_v3_small": ({}, 224),
    "shufflenet_v2_x1_0": ({}, 64),
    "convnext_tiny": ({}, 224),
    "efficientnet_b0": ({}, 64),
    "swin_t": ({}, 64),
    "vit_b_16": ({}, 224),
}


def network(name):
    """Build a network of torchvision without spending time on its weights."""
    arguments, _ = NETWORKS[name]
    with torch.device("meta"):
        return getattr(torchvision_models, name)(**arguments)


@functools.cache
def traced(name, depth=None):
    _, size = NETWORKS[name]
    return trace(network(name), (3, size, size), depth)


@pytest.mark.parametrize("name", NETWORKS)
def test_totals_equal_torch(name):
    table, net = traced(name), network(name)
    image = torch.zeros(1, *table.input_shape, device="meta")
    with FlopCounterMode(display=False) as counter:
        net.eval()(image)
    assert table.total_params == sum(p.numel() for p in net.parameters())
    assert table.total_macs == counter.get_total_flops() // 2 > 0


@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_totals_do_not_depend_on_depth(name):
    tables = [traced(name, depth) for depth in (1, 2, 3, None)]
    assert len({table.total_params for table in tables}) == 1
    assert len({table.total_macs for table in tables}) == 1
    lengths = [len(table.rows) for table in tables]
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]


def with_numbers(net):
    """Make a network that cannot run on the meta device."""
    return Net(lambda net, x: net.inner(x * (1 + x.sum().item())), inner=net)


@pytest.mark.parametrize("wrap", [lambda net: net, with_numbers], ids=["meta", "real"])
def test_attention_is_counted(wrap):
    net = torchvision_models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16
    )
    patches, tokens = 16, 17
    layer = tokens * 8 * (3 * 8 + 8) + 2 * tokens * tokens * 8 + 2 * tokens * 8 * 16
    by_hand = patches * 3 * 4 * 4 * 8 + 2 * layer + 8 * 1000
    assert trace(wrap(net), (3, 16, 16)).total_macs == by_hand == 40_800


def ones(x, *shape):
    return torch.ones(shape, device=x.device)


LSTM = 4 * 5 * (8 + 5)  # four gates of 5 units, from 8 inputs and 5 states, at each of 8 rows
PRODUCTS = {
    "bilinear": (Net(lambda net, x: net.b(x[0, 0], x[0, 0]), b=nn.Bilinear(8, 8, 5)), 8 * 5 * 64),
    "GRU": (Net(lambda net, x: net.b(x[:, 0])[0], b=nn.GRU(8, 5)), 8 * 3 * 5 * (8 + 5)),
    "RNN": (Net(lambda net, x: net.b(x[:, 0])[0], b=nn.RNN(8, 5)), 8 * 5 * (8 + 5)),
    "LSTMCell": (Net(lambda net, x: net.b(x[0, 0])[0], b=nn.LSTMCell(8, 5)), 8 * LSTM),
    "matrix times vector": (lambda net, x: ones(x, 10, 64) @ x.flatten(), 640),
    "and a bias": (lambda net, x: torch.addmv(ones(x, 3), ones(x, 3, 8), x[0, 0, 0]), 24),
    "dot": (lambda net, x: x.flatten() @ x.flatten(), 64),
    "baddbmm": (lambda net, x: torch.baddbmm(x[0], x[0], x[0]), 512),
    "einsum": (lambda net, x: torch.einsum("nchw,ow->ncho", x, ones(x, 3, 8)), 8 * 8 * 3),
    "tensordot": (lambda net, x: torch.tensordot(x, ones(x, 8, 3), 1), 8 * 8 * 3),
    "attention": (lambda net, x: F.scaled_dot_product_attention(x, x, x), 2 * 8 * 8 * 8),
}


@pytest.mark.parametrize("wrap", [lambda net: net, with_numbers], ids=["meta", "real"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_by_hand(name, wrap):
    net, macs = PRODUCTS[name]
    table = trace(wrap(net if isinstance(net, nn.Module) else Net(net)), (1, 8, 8))
    assert (table.total_macs, table.rows[-1].macs) == (macs, macs)
    assert not any("MACs" in note for note in table.notes)


NO_PRODUCTS = {
    "pooling": lambda net, x: F.adaptive_max_pool2d(F.lp_pool2d(F.avg_pool2d(x, 2), 2, 1), 2),
    "norms": lambda net, x: F.group_norm(F.instance_norm(F.layer_norm(x, [8])), 1),
    "softmax": lambda net, x: F.normalize(F.log_softmax(x.softmax(1), 1), dim=1),
    "interpolation": lambda net, x: F.interpolate(
        F.interpolate(x, scale_factor=2, mode="bilinear"), size=9, mode="bicubic"
    ),
    "grid": lambda net, x: F.grid_sample(
        x, F.affine_grid(ones(x, 1, 2, 3), x.shape, True), align_corners=True
    ),
    "views": lambda net, x: torch.cat([x.flip(1), x.roll(1, 2), x.permute(0, 1, 3, 2)], 1)[:, 1:],
    "windows": lambda net, x: F.fold(F.unfold(x, 3), (8, 8), 3),
    "numbers": lambda net, x: x.sort(-1).values.cumsum(1) + x.std() + x.topk(1, 1).values,
    "distance": lambda net, x: torch.linalg.vector_norm(x - 1, dim=1) + torch.dist(x, x),
    "picked": lambda net, x: torch.gather(x[:, [0]], 1, torch.zeros_like(x).long()).tril(),
    "activations": lambda net, x: F.hardswish(F.prelu(F.gelu(F.glu(x, 2)), ones(x, 1))),
}


@pytest.mark.parametrize("name", NO_PRODUCTS)
def test_what_is_no_product_is_free(name):
    table = trace(Net(NO_PRODUCTS[name]), (1, 8, 8))
    assert [row.macs for row in table.rows] == [0]
    assert not any("MACs" in note for note in table.notes)


UNCOUNTED = {
    "fft": (lambda net, x: torch.fft.rfft2(x).real, "aten._fft_r2c"),
    "distances": (lambda net, x: torch.cdist(x, x), "aten._cdist_forward"),
    "inverse": (lambda net, x: torch.linalg.inv(x), "aten.linalg_inv_ex"),
    "custom": (lambda net, x: twice_an_image(x), "cnnlib_tests.twice_an_image"),
    "outer product": (lambda net, x: torch.addr(x[0, 0], x[0, 0, 0], x[0, 0, 0]), "aten.addr"),
    "in place": (lambda net, x: ones(x, 8, 8).addmm_(x[0, 0], x[0, 0]), "aten.addmm_"),
    "summed products": (lambda net, x: torch.addbmm(x[0, 0], x[0], x[0]), "aten.addbmm"),
    "deformable convolution": (
        lambda net, x: deform_conv2d(x, ones(x, 1, 18, 8, 8), ones(x, 2, 1, 3, 3), padding=1),
        "torchvision.deform_conv2d",
    ),
}


@torch.library.custom_op("cnnlib_tests::twice_an_image", mutates_args=())
def twice_an_image(x: torch.Tensor) -> torch.Tensor:
    """Stand for an operation of an extension, which torch cannot look into."""
    return 2 * x


@twice_an_image.register_fake
def _(x):
    return torch.empty_like(x)


@pytest.mark.parametrize("name", UNCOUNTED)
def test_macs_that_are_not_known_are_not_zero(name):
    operation, op = UNCOUNTED[name]
    table = trace(nn.Sequential(conv(1, 1, 1), Net(operation)), (1, 8, 8))
    assert [row.macs for row in table.rows] == [64, None]
    assert table.total_macs == 64
    assert f"MACs ? in 1: {op} has no formula here, so the total leaves it out." in table.notes


def test_unknown_macs_in_the_table():
    net = nn.Sequential(conv(1, 1, 1), Net(lambda net, x: torch.fft.rfft2(x).real), nn.ReLU())
    table = trace(net, (1, 8, 8))
    assert str(table) == (
        "Sequential, input 1x8x8\n"
        "\n"
        "Layer  Kind    Output  Params  MACs  Field\n"
        "------------------------------------------\n"
        "0      Conv2d   1x8x8       1    64      1\n"
        "1      Net      1x8x5       0     ?      -\n"
        "2      ReLU     1x8x5       0     0      -\n"
        "------------------------------------------\n"
        "Total                       1    64\n"
        "\n"
        "MACs ? in 1: aten._fft_r2c has no formula here, so the total leaves it out.\n"
        "Field - from 1 on: aten._fft_r2c is not followed."
    )
    page = table._repr_html_()
    assert [line[5] for line in Cells(page).lines] == ["MACs", "64", "?", "0", "64"]
    assert all(f"<p>{note}</p>" in page for note in table.notes)


def test_totals_with_unknown_macs_do_not_depend_on_depth():
    block = nn.Sequential(conv(1, 1, 1), Net(lambda net, x: torch.fft.rfft2(x).real), conv(1, 1, 1))
    tables = [trace(nn.Sequential(block), (1, 8, 8), depth) for depth in (1, None)]
    assert [table.total_macs for table in tables] == [64 + 40] * 2
    assert [row.macs for row in tables[0].rows] == [None]
    assert [row.macs for row in tables[1].rows] == [64, None, 40]


# Receptive fields


def support(net, shape):
    """Measure how far the gradient of any single output reaches, along height and width."""
    net = copy.deepcopy(net).double().eval()
    for param in net.parameters():
        nn.init.uniform_(param, 0.5, 1.5)
    image = torch.rand(1, *shape, dtype=torch.double, requires_grad=True)
    output = net(image)
    reach = []
    for axis, others in ((-2, (0, 1, 3)), (-1, (0, 1, 2))):
        middle = output.shape[axis] // 2
        widths = [0]
        for place in range(max(0, middle - 8), min(middle + 8, output.shape[axis])):
            line = output.select(axis, place).sum()
            (gradient,) = torch.autograd.grad(line, image, retain_graph=True, allow_unused=True)
            seen = gradient.abs().sum(others).nonzero()
            widths.append(int(seen.max() - seen.min()) + 1 if len(seen) else 0)
        reach.append(max(widths))
    return reach[0] if reach[0] == reach[1] else tuple(reach)


def twice(in_channels, padding=1):
    return nn.Sequential(conv(in_channels, 1, 3, padding=padding), conv(1, 1, 3, padding=padding))


def unet_forward(net, x):
    """Run a U-Net of two levels, cropping the skips where the convolutions are unpadded."""
    first = net.down1(x)
    second = net.down2(F.avg_pool2d(first, 2))
    y = net.bottom(F.avg_pool2d(second, 2))
    for skip, up, block in ((second, net.up2, net.merge2), (first, net.up1, net.merge1)):
        y = up(y)
        crop = (skip.shape[-1] - y.shape[-1]) // 2
        kept = skip[..., crop : skip.shape[-2] - crop, crop : skip.shape[-1] - crop]
        y = block(torch.cat([kept, y], 1))
    return y


def unet(padding):
    return Net(
        unet_forward,
        **{name: twice(1, padding) for name in ("down1", "down2", "bottom")},
        **{name: twice(2, padding) for name in ("merge1", "merge2")},
        **{name: nn.ConvTranspose2d(1, 1, 2, stride=2) for name in ("up1", "up2")},
    )


def sequence(*layers):
    return nn.Sequential(*layers)


UNBORDERED = (1, 48, 60)
FIELDS = {
    "oblong kernel": sequence(conv(1, 1, 3), conv(1, 1, (1, 7), stride=2)),
    "pools": sequence(nn.AvgPool2d(3, 2, 1), conv(1, 1, 3), nn.AvgPool2d(2, ceil_mode=True)),
    "dilated": sequence(conv(1, 1, 3, dilation=2), conv(1, 1, (3, 5), dilation=(3, 1))),
    "inception": Net(
        lambda net, x: torch.cat([net.one(x), net.tall(x), net.wide(x)], 1),
        one=conv(1, 1, 1),
        tall=conv(1, 1, (3, 1), padding=(1, 0)),
        wide=conv(1, 1, (1, 5), padding=(0, 2)),
    ),
    "residual": sequence(
        conv(1, 2, 3),
        Net(lambda net, x: F.relu(net.path(x) + net.short(x)), path=twice(2), short=conv(2, 1, 1)),
        conv(1, 1, 3, stride=2),
    ),
    "windows side by side": Net(
        lambda net, x: net.even(F.pad(x, (1, 0, 1, 0))) + net.even(F.pad(x, (0, 1, 0, 1))),
        even=conv(1, 1, 2),
    ),
    "strided slices": Net(lambda net, x: net.a(x[:, :, ::2, 1::3]), a=conv(1, 1, 3)),
    "negative slices": Net(
        lambda net, x: net.a(x)[:, :, -9:] + x[:, :, 30:39, :-2], a=conv(1, 1, 3)
    ),
    "reflected border": sequence(nn.ReflectionPad2d((1, 0, 2, 1)), conv(1, 1, 4)),
    "nearest": sequence(nn.AvgPool2d(4), nn.Upsample(scale_factor=2), conv(1, 1, 3), conv(1, 1, 2)),
    "nearest, uneven": sequence(nn.AvgPool2d(2), nn.Upsample(scale_factor=1.5), conv(1, 1, 3)),
    "nearest twice": sequence(
        *(nn.AvgPool2d(4), conv(1, 1, 3)),
        *(nn.Upsample(scale_factor=2), conv(1, 1, 3)),
        *(nn.Upsample(scale_factor=2), conv(1, 1, 3)),
    ),
    "bilinear": sequence(
        *(nn.AvgPool2d(4), nn.Upsample(scale_factor=2, mode="bilinear"), conv(1, 1, 3)),
        nn.Upsample(scale_factor=3, mode="bilinear"),
    ),
    "bilinear, smaller": sequence(nn.Upsample((12, 12), mode="bilinear"), conv(1, 1, 3)),
    "pixel shuffle": sequence(nn.AvgPool2d(2), conv(1, 4, 3), nn.PixelShuffle(2), conv(1, 1, 3)),
    "transposed": sequence(
        *(nn.AvgPool2d(4), conv(1, 1, 3), nn.ConvTranspose2d(1, 1, 4, 2, 1), conv(1, 1, 3)),
        *(nn.ConvTranspose2d(1, 1, 3, 2, 1, 1), conv(1, 1, 3)),
    ),
    "transposed, with gaps": sequence(
        nn.AvgPool2d(4), nn.ConvTranspose2d(1, 1, 2, 3), conv(1, 1, 2)
    ),
    "transposed, dilated": sequence(nn.ConvTranspose2d(1, 1, 3, 1, 2, dilation=2)),
    "up and down": sequence(
        *(nn.AvgPool2d(2), nn.Upsample(scale_factor=2), conv(1, 1, 3, stride=2), conv(1, 1, 3))
    ),
    "adaptive": sequence(conv(1, 1, 3), nn.AdaptiveAvgPool2d((5, 7))),
    "adaptive, then more": sequence(conv(1, 1, 3), nn.AdaptiveAvgPool2d(5), conv(1, 1, 2)),
    "adaptive, larger": sequence(nn.AvgPool2d(12), nn.AdaptiveAvgPool2d(7)),
    "global": sequence(conv(1, 1, 3, stride=2), nn.AdaptiveAvgPool2d(1), conv(1, 1, 1)),
    "linear": sequence(
        *(conv(1, 2, 3), nn.AvgPool2d(5), nn.Flatten(), nn.ReLU(), nn.Linear(2 * 9 * 11, 3)),
        nn.Unflatten(1, (3, 1, 1)),
    ),
    "squeeze and excitation": Net(
        lambda net, x: net.b(net.a(x) * net.a(x).mean((2, 3), keepdim=True).sigmoid()),
        a=conv(1, 1, 3),
        b=conv(1, 1, 3),
    ),
    "excitation of one pixel": sequence(
        nn.AvgPool2d((48, 60)), Net(lambda net, x: x * x.mean((2, 3), keepdim=True))
    ),
    "instance norm": sequence(conv(1, 1, 3), nn.InstanceNorm2d(1), conv(1, 1, 3)),
    "group norm": sequence(conv(1, 2, 3), nn.GroupNorm(2, 2)),
    "channel attention map": Net(
        lambda net, x: torch.cat([x.mean(1, keepdim=True), net.a(x).amax(1, keepdim=True)], 1),
        a=conv(1, 3, 3, padding=1),
    ),
    "mean over the width": Net(
        lambda net, x: net.a(x).mean(3, keepdim=True) + net.a(x), a=conv(1, 1, 3)
    ),
    "channel shuffle": Net(
        lambda net, x: net.b(net.a(x).unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2)),
        a=conv(1, 4, 3),
        b=conv(4, 1, 3),
    ),
    "split": Net(
        lambda net, x: sum(part for part in net.a(x).chunk(2, 1)) + net.a(x)[:, :1],
        a=conv(1, 4, 3),
    ),
    "stack": Net(
        lambda net, x: torch.stack([net.a(x), net.b(x)], 1).sum(1),
        a=conv(1, 2, 3, padding=1),
        b=conv(1, 2, 5, padding=2),
    ),
    "unet": unet(padding=1),
    "unet, cropped": unet(padding=0),
}


@pytest.mark.parametrize("name", FIELDS)
def test_field_equals_the_support_of_the_gradient(name):
    shape = (1, 144, 144) if name.startswith("unet") else UNBORDERED
    expected = support(FIELDS[name], shape)
    (row,) = trace(nn.Sequential(FIELDS[name]), shape, depth=1).rows
    assert row.receptive_field == expected


def random_layer(draw):
    """Draw (kernel, stride, padding, dilation) in pairs."""
    choices = ((1, 2, 3, 4), (1, 1, 2, 3), (0, 1), (1, 2))
    return tuple((draw.choice(values), draw.choice(values)) for values in choices)


@pytest.mark.parametrize("seed", range(20))
def test_field_of_a_chain_equals_the_formula(seed):
    draw = random.Random(seed)
    layers = [random_layer(draw) for _ in range(4)]
    convolutions = [
        conv(1, 1, kernel, stride, padding, dilation)
        for kernel, stride, padding, dilation in layers
    ]
    table = trace(nn.Sequential(*convolutions), (1, 400, 400))
    for depth, row in enumerate(table.rows, start=1):
        height, width = receptive_field(layers[:depth]).size
        assert row.receptive_field == (height if height == width else (height, width))


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        # Araujo et al. 2019, Computing Receptive Fields of Convolutional Neural Networks, table 1.
        ("vgg16", "features", 212),
        ("inception_v3", "Mixed_7c", 1311),
        ("densenet121", "features", 2071),
        # By hand: 11 after the stem, 8 for each of 4 convolutions at jump 4; then in each stage
        # one convolution at the jump before it and three at twice that.
        ("resnet18", "layer4", 435),
        # By hand: 4 after the stem; blocks of 7x7 at the jumps 4, 8, 16, 32, three, three, nine
        # and three of them; between the stages convolutions of 2x2.
        ("convnext_tiny", "features", 4 + 72 + 4 + 144 + 8 + 864 + 16 + 576),
    ],
)
def test_published_fields(name, layer, size):
    fields = {row.name: row.receptive_field for row in traced(name, 1).rows}
    assert fields[layer] == size


SQUARE = (8, 8, 8)  # channels, height and width that a careless rule mistakes for each other
UNKNOWN = {
    "roll": lambda net, x: x.roll(1, 2),
    "select": lambda net, x: x[..., 3],
    "side by side": lambda net, x: torch.cat([x, x], 2),
    "two rates": lambda net, x: x[:, :, ::2] + x[:, :, :4],
    "dilated and strided transpose": lambda net, x: F.conv_transpose2d(
        x, torch.ones(8, 1, 3, 3, device=x.device), stride=2, dilation=2
    ),
    "image as a kernel": lambda net, x: F.conv2d(torch.ones(1, 8, 8, 8, device=x.device), x),
    "image and kernel": lambda net, x: F.conv2d(x, x[:, :, :3, :3]),
    "pool of another shape": lambda net, x: F.max_pool2d(x.reshape(1, 4, 16, 8), 2),
    "windows of another shape": lambda net, x: x.view(1, 8, 2, 4, 8),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_field_that_cannot_be_told_is_none_from_there_on(name):
    net = nn.Sequential(conv(8, 8, 3, padding=1), Net(UNKNOWN[name]), nn.ReLU())
    table = trace(net, SQUARE)
    assert [row.receptive_field for row in table.rows] == [3, None, None]
    assert str(table).splitlines()[-5].endswith(" -")


PLACES_IN_OTHER_DIMENSIONS = {  # with the field by hand; 8 places of a 3x3 field see 10 pixels
    "transpose": (lambda net, x: x.transpose(1, 2), 3),
    "permute": (lambda net, x: x.permute(0, 2, 3, 1), 3),
    "narrowing mean": (lambda net, x: x.mean(3), (3, 10)),
    "linear on columns": (lambda net, x: F.linear(x, torch.ones(8, 8, device=x.device)), (3, 10)),
    "one-dimensional": (
        lambda net, x: F.conv1d(x[0], torch.ones(8, 8, 3, device=x.device)),
        (10, 5),
    ),
}


@pytest.mark.parametrize("name", PLACES_IN_OTHER_DIMENSIONS)
def test_height_and_width_are_followed_into_other_dimensions(name):
    steps, side = PLACES_IN_OTHER_DIMENSIONS[name]
    net = nn.Sequential(conv(8, 8, 3, padding=1), Net(steps), nn.ReLU())
    assert [row.receptive_field for row in trace(net, SQUARE).rows] == [3, side, side]


def test_writing_through_a_view_makes_the_field_unknown():
    def overwrite(net, x):
        canvas = torch.zeros(x.shape)
        canvas[:, :, 2:] = net.wide(x)[:, :, 2:]
        return net.pointwise(canvas + x)

    net = Net(overwrite, wide=conv(1, 1, 5, padding=2), pointwise=conv(1, 1, 1))
    assert [row.receptive_field for row in trace(net, (1, 9, 9)).rows] == [5, None]


def test_an_in_place_relu_on_a_view_changes_nothing():
    def forward(net, x):
        y = net.first(x)
        F.relu_(y.flatten(1))
        return net.second(y)

    net = Net(forward, first=conv(1, 1, 3), second=conv(1, 1, 3))
    assert [row.receptive_field for row in trace(net, (1, 9, 9)).rows] == [3, 5]


# Where it runs


def test_vgg16_takes_neither_time_nor_memory():
    with torch.device("meta"):
        net = torchvision_models.vgg16()
    net = net.to_empty(device="cpu")
    start = time.perf_counter()
    with torch.profiler.profile(profile_memory=True) as profile:
        trace(net, (3, 224, 224))
    assert time.perf_counter() - start < 2
    allocated = sum(max(0, event.self_cpu_memory_usage) for event in profile.key_averages())
    assert allocated < 1e6


def test_an_image_that_no_machine_could_hold():
    table = trace(conv(3, 64, 3, padding=1), (3, 200_000, 200_000))
    assert table.rows[0].output_shape == (64, 200_000, 200_000)


def test_tensors_made_in_forward_take_no_memory_either():
    net = Net(lambda net, x: net.a(x + torch.arange(2e5) + torch.tensor([1.0])), a=conv(1, 1, 1))
    assert trace(net, (1, 200_000, 200_000)).total_macs == 200_000**2


def test_a_failure_takes_no_memory_either():
    net = nn.Sequential(conv(1, 1, 3), nn.Linear(10, 10))
    assert "in_features=10" in message_of(net, (1, 200_000, 200_000))


NEED_NUMBERS = {
    "if": lambda net, x: net.a(x) if x.sum() == 0 else x,
    "item": lambda net, x: net.a(x) * x.max().item(),
    "numpy": lambda net, x: net.a(torch.from_numpy(x.numpy())),
    "nonzero": lambda net, x: net.a(x)[:, :, torch.nonzero(x[0, 0, 0] == 0)[:, 0]],
}


@pytest.mark.parametrize("needs", NEED_NUMBERS)
def test_networks_that_need_numbers_run_on_their_own_device(needs):
    table = trace(Net(NEED_NUMBERS[needs], a=conv(1, 2, 3, padding=1)), (1, 8, 8))
    row = next(row for row in table.rows if row.name == "a")
    assert (row.output_shape, row.params, row.macs) == ((2, 8, 8), 18, 1152)
    assert row.receptive_field == (None if needs == "numpy" else 3)  # numpy does not tell torch


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes(dtype):
    assert trace(small_net().to(dtype), (1, 28, 28)).total_params == 40 + 8 + 7850


def test_a_lazy_network_stays_lazy():
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(10))
    assert trace(net, (1, 8, 8)).total_params == 40 + 1450
    assert net[0].has_uninitialized_params() and net[2].has_uninitialized_params()


LAZY = {
    "batch norm": (nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyBatchNorm1d()),
    "instance norm": (nn.LazyConvTranspose2d(4, 3), nn.LazyInstanceNorm2d()),
}


@pytest.mark.parametrize("name", LAZY)
def test_lazy_norms(name):
    net = nn.Sequential(*LAZY[name])
    table = trace(net, (2, 200_000, 8))  # of no memory, although nothing is initialized yet
    assert all(
        module.has_uninitialized_params() for module in net if hasattr(module, "cls_to_become")
    )
    assert not any("Lazy" in row.kind for row in table.rows)
    assert table.rows[1].params == 2 * 4


def test_lazy_layers_that_are_not_called():
    net = Net(lambda net, x: net.used(x), used=nn.LazyConv2d(4, 3), unused=nn.LazyConv2d(4, 3))
    assert [(row.name, row.params) for row in trace(net, (2, 8, 8)).rows] == [
        ("used", 4 * 2 * 9 + 4),
        ("unused", 0),
    ]


class Gate(nn.Module):
    """A block that torch.jit can compile."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x):
        y = self.norm(self.conv(x))
        return y * y.sigmoid()


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning"
)
@pytest.mark.parametrize(
    "compile_it", [torch.jit.script, lambda net: torch.jit.trace(net, torch.zeros(1, 2, 8, 8))]
)
def test_a_scripted_module_is_refused(compile_it):
    scripted = compile_it(Gate().eval())
    for net in (scripted, nn.Sequential(nn.Conv2d(1, 2, 3), scripted)):
        with pytest.raises(
            ValueError, match=r"^net=\w+ must run in Python.* before torch.jit.script"
        ):
            trace(net, (2, 12, 12))


def listed_layers():
    """Another famous slip: layers in a list, whose parameters nobody finds."""
    net = Net(lambda net, x: net.head(net.layers[1](net.layers[0](x))), head=conv(2, 1, 1))
    net.layers = [nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)]
    return net


def test_weights_that_are_no_parameters_are_noted():
    table = trace(listed_layers(), (1, 8, 8))
    assert (table.total_params, table.total_macs) == (2, 18 * 36 + 36 * 16 + 2 * 16)
    (note,) = table.notes
    assert note.startswith("(network) uses 58 weights that are not parameters of the network")
    assert "nn.ModuleList" in note


def test_a_norm_in_a_list_is_noted_too():
    net = Net(lambda net, x: net.head(net.layers[0](x)), head=conv(2, 1, 1))
    net.layers = [nn.BatchNorm2d(2).eval()]
    table = trace(net, (2, 8, 8))
    assert [(row.name, row.params, row.macs) for row in table.rows] == [
        ("head", 2, 128),
        ("", 0, 0),
    ]
    assert table.notes[0].startswith("(network) uses 4 weights that are not parameters")


def test_weights_used_twice_are_noted_once():
    net = Net(lambda net, x: net.layers[0](net.layers[0](x)))
    net.layers = [conv(1, 1, 3)]
    (note,) = trace(net, (1, 8, 8)).notes
    assert note.startswith("(network) uses 9 weights")


def test_a_layer_made_in_forward_is_noted():
    net = nn.Sequential(Net(lambda net, x: nn.Conv2d(1, 2, 3)(x)), nn.ReLU())
    assert trace(net, (1, 8, 8)).notes[0].startswith("0 uses 20 weights that are not parameters")


def test_weights_that_are_parameters_have_no_note():
    shared = conv(1, 1, 3, padding=1)
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 4, 3))
    nets = small_net(), nn.Sequential(shared, shared), with_numbers(small_net()), normed
    assert [trace(net, (1, 28, 28)).notes for net in nets] == [()] * 4


def test_reparametrised_layers():
    with pytest.warns(FutureWarning):
        old = nn.utils.weight_norm(nn.Conv2d(1, 4, 3))
    new = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3))
    table = trace(nn.Sequential(old, new), (1, 8, 8))
    assert table.rows[0].params == 36 + 4 + 4  # although a hook uses some, before the forward
    assert table.total_params == (36 + 4 + 4) + (144 + 4 + 4)
    assert table.total_macs == 36 * 36 + 144 * 16


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_callers_grad_mode_does_not_matter(context):
    with context():
        inside = trace(small_net(), (1, 28, 28))
    assert inside == trace(small_net(), (1, 28, 28))


# It leaves the network as it found it


class Diary(nn.Module):
    """A network with a state of every kind, some of which its forward changes."""

    def __init__(self, last):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout()
        self.last = last
        self.register_buffer("calls", torch.zeros(1))
        self.seen = None

    def forward(self, x):
        self.calls += 1
        self.seen = self.norm(self.conv(x))
        noise = torch.rand(3).sum()
        return self.last(self.dropout(self.seen) * noise)


def diary(last):
    torch.manual_seed(0)
    net = Diary(last).train()
    net.norm.eval()
    net(torch.rand(2, 1, 8, 8)).sum().backward()
    net.conv.register_forward_hook(lambda *_: None)
    net.register_forward_pre_hook(lambda *_: None)
    net.seen = "untouched"
    return net


def hooks_of(module):
    return {key: dict(value) for key, value in vars(module).items() if key.endswith("hooks")}


def everything(net):
    """Write down all that a run could change."""
    tensors = [*net.parameters(), *net.buffers()]
    return {
        "modes": [module.training for module in net.modules()],
        "hooks": [hooks_of(module) for module in net.modules()],
        "global hooks": {
            key: dict(value)
            for key, value in vars(torch_module).items()
            if key.startswith("_global") and isinstance(value, dict)
        },
        "attributes": [sorted(vars(module)) for module in net.modules()],
        "identities": [(id(x), x.data_ptr(), x.device, x.requires_grad) for x in tensors],
        "values": [x.tolist() for x in tensors],
        "versions": [x._version for x in tensors],
        "gradients": [(id(p.grad), p.grad.tolist()) for p in net.parameters()],
        "seen": net.seen,
        "random state": torch.get_rng_state().tolist(),
        "grad mode": torch.is_grad_enabled(),
        "attention": torch.backends.mha.get_fastpath_enabled(),
        "new tensors": torch.empty(0).device,
    }


def break_late(x):
    raise RuntimeError("the last layer breaks")


@pytest.mark.parametrize(
    ("run_last", "fails"),
    [
        (lambda x: x, False),
        (lambda x: x * x.sum().item(), False),
        (break_late, True),
        (lambda x: break_late(x.sum().item()), True),
    ],
    ids=["meta", "real", "failing on meta", "failing for real"],
)
def test_nothing_is_left_behind(run_last, fails):
    last = Net(lambda net, x: x)
    net = diary(last)
    last.steps = lambda net, x: run_last(x)
    torch.backends.mha.set_fastpath_enabled(True)
    before = everything(net)
    if fails:
        with pytest.raises(ValueError, match="the last layer breaks"):
            trace(net, (1, 8, 8))
    else:
        trace(net, (1, 8, 8))
    after = everything(net)
    for kind in before:
        assert after[kind] == before[kind], kind


def test_it_runs_in_eval_mode_without_gradients_on_true_parameters():
    def forward(net, x):
        notes.append((net.training, torch.is_grad_enabled(), type(net.scale)))
        return x * net.scale

    notes = []
    net = Net(forward, scale=nn.Parameter(torch.ones(1))).train()
    trace(net, (1, 4, 4))
    assert notes == [(False, False, nn.Parameter)] and net.training


# When the network fails


def message_of(net, shape):
    with pytest.raises(ValueError) as caught:
        trace(net, shape)
    assert caught.value.__cause__ is not None
    return str(caught.value)


def test_a_failure_names_layer_got_wanted_and_what_ran():
    net = Net(
        lambda net, x: net.conv2(net.stem(x)),
        stem=nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
        conv2=nn.Conv2d(32, 64, 3),
    )
    first, second, third = message_of(net, (1, 8, 8)).splitlines()
    assert first == (
        "conv2 (Conv2d) got (1, 16, 8, 8) but wants in_channels=32: "
        "set in_channels=16, or give it 32."
    )
    assert second == "Ran before it: stem.0 (Conv2d) -> 16x8x8, stem.1 (ReLU) -> 16x8x8."
    assert third.startswith("The error: ")


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (
            nn.Linear(100, 10),
            "but wants in_features=100: put nn.Flatten() before it and set in_features=128",
        ),
        (nn.BatchNorm2d(3), "got (1, 2, 8, 8) but wants num_features=3: set num_features=2"),
        (nn.GroupNorm(1, 3), "got (1, 2, 8, 8) but wants num_channels=3: set num_channels=2"),
        (nn.ConvTranspose2d(3, 1, 2), "got (1, 2, 8, 8) but wants in_channels=3"),
        (
            nn.Conv2d(2, 4, 9),
            "The error: the kernel covers 9x9 pixels, but the padded input has only 8x8",
        ),
        (nn.MaxPool2d(9), "The error: Given input size: (2x8x8). Calculated output size: (2x0"),
        (Net(lambda net, x: torch.cat([x, x[:, :, 1:]], 1)), "1 (Net) got (1, 2, 8, 8).\n"),
        (Net(lambda net, x: x.nope), "The error: 'Tensor' object has no attribute 'nope'"),
    ],
)
def test_failures_say_what_was_wanted(layer, expected):
    message = message_of(nn.Sequential(nn.ReLU(), layer), (2, 8, 8))
    assert expected in message
    assert message.startswith("1 (")
    assert "Ran before it: 0 (ReLU) -> 2x8x8." in message


@pytest.mark.parametrize(
    ("net", "shape", "expected"),
    [
        (
            nn.Sequential(nn.Conv2d(1, 6, 5), nn.MaxPool2d(2), nn.Linear(6 * 12 * 12, 10)),
            (1, 28, 28),
            "wants in_features=864, which is 6*12*12: put nn.Flatten() before it.",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 6, 5), nn.Linear(6, 10)),
            (1, 28, 28),
            "wants in_features=6, the channels: pool to 1x1 and put nn.Flatten() before it.",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(100, 10)),
            (1, 8, 8),
            "got (1, 64) but wants in_features=100: set in_features=64, or give it 100.",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Conv2d(1, 6, 5)),
            (1, 28, 28),
            "got (1, 784) but wants a map, (1, 1, height, width): a Flatten or a Linear comes too",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 6, 5)),
            (224, 160, 3),
            "wants in_channels=3: input_shape ends with the channels, try (3, 224, 160).",
        ),
        (
            Net(lambda net, x: None, a=nn.ModuleList([nn.ReLU()])).a,
            (1, 8, 8),
            "has no forward: nn.Sequential calls its layers, or call them one by one",
        ),
        (
            nn.MultiheadAttention(8, 2),
            (1, 8, 8),
            "takes 3 inputs (query, key, value), and trace passes one image: trace a module that",
        ),
    ],
)
def test_the_remedy_fits_the_mistake(net, shape, expected):
    assert expected in message_of(net, shape)


def test_a_forward_of_two_inputs():
    class Difference(nn.Module):
        def forward(self, left, right, *, scale=1):
            return (left - right) * scale

    message = message_of(Difference(), (1, 8, 8))
    assert "takes 2 inputs (left, right), and trace passes one image" in message
    with pytest.raises(ValueError, match="unsupported operand") as caught:  # not its own mistake
        trace(Net(lambda net, x: x + None), (1, 8, 8))
    assert "one image" not in str(caught.value)


def test_a_number_of_the_same_name_in_a_network_is_no_hint():
    net = Net(lambda net, x: net.a(x).nope, a=nn.ReLU())
    net.num_features = 256
    assert "wants" not in message_of(net, (1, 8, 8))


def test_a_failure_at_the_start_and_after_many_layers():
    assert "Ran before it: nothing." in message_of(conv(3, 1, 1), (1, 8, 8))
    many = nn.Sequential(*(nn.Identity() for _ in range(9)), conv(3, 1, 1))
    assert "Ran before it: 6 (Identity)" in message_of(many, (1, 8, 8))


def test_a_failure_on_real_numbers_is_told_too():
    net = Net(lambda net, x: net.a(x * x.sum().item()), a=conv(3, 1, 1))
    assert message_of(net, (1, 8, 8)).startswith("a (Conv2d) got (1, 1, 8, 8) but wants in_chan")


def test_a_network_that_cannot_be_copied():
    net = nn.ReLU()
    net.stream = (number for number in range(3))
    assert "copy.deepcopy" in message_of(net, (1, 8, 8))


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nn.ReLU, (1, 8, 8)), r"net=<class .*ReLU'> must be an nn.Module: build the network"),
        ((nn.ReLU(), (8, 8)), r"input_shape=\(8, 8\) must be \(channels, height, width\).*try"),
        ((nn.ReLU, (1, 8, 8)), r"build the network, then pass it: ReLU\(...\) builds one"),
        (
            (torchvision_models.resnet18, (3, 8, 8)),
            r"must be an nn.Module.*: resnet18\(...\) builds",
        ),
        ((nn.ReLU(), (1, 3, 8, 8)), r"input_shape=\(1, 3, 8, 8\) must be .* without the batch"),
        ((nn.ReLU(), (2, 3, 8, 9)), r"without the batch: try \(3, 8, 9\)"),
        ((nn.ReLU(), (8, 9)), r"with the channels and without the batch: try \(1, 8, 9\)"),
        ((nn.ReLU(), 28), r"try \(1, 28, 28\)"),
        (
            (nn.ReLU(), torch.zeros(2, 3, 8, 9)),
            r"<Tensor of shape \(2, 3, 8, 9\)> .* try \(3, 8, 9\)",
        ),
        ((nn.ReLU(), np.zeros((8, 9))), r"<ndarray of shape \(8, 9\)> must be .* try \(1, 8, 9\)"),
        ((nn.ReLU(), "1x8x8"), r"input_shape='1x8x8' must be .* try \(1, 28, 28\)"),
        ((nn.ReLU(), 28), r"input_shape=28 must be \(channels, height, width\)"),
        ((nn.ReLU(), (0, 8, 8)), r"channels=0 in input_shape=.* whole number from 1: try"),
        ((nn.ReLU(), (1, -8, 8)), r"height=-8 in input_shape"),
        ((nn.ReLU(), (1, 8, 8.0)), r"width=8.0 in input_shape"),
        ((nn.ReLU(), (True, 8, 8)), r"channels=True in input_shape"),
        ((nn.ReLU(), (1, 8, 8), 0), r"depth=0 must be a whole number from 1: try depth=1"),
        ((nn.ReLU(), (1, 8, 8), 1.5), r"depth=1.5 must be"),
        ((nn.ReLU(), (1, 8, 8), True), r"depth=True must be"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        trace(*arguments)


def test_numbers_of_numpy_are_taken():
    shape = tuple(np.array([1, 28, 28]))
    table = trace(small_net(), shape, np.int64(1))
    assert table == trace(small_net(), (1, 28, 28), 1)
    assert str(table) == str(trace(small_net(), [1, 28, 28], 1))


# In a notebook


class Cells(HTMLParser):
    """Collects the lines of an HTML table, and all attributes."""

    def __init__(self, html):
        super().__init__()
        self.lines, self.attributes, self.bars, self.open_tags = [], set(), [], []
        self.feed(html)
        assert not self.open_tags

    def handle_starttag(self, tag, attributes):
        self.open_tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self.lines[-1].append("")
        if tag == "span":
            self.bars.append(dict(attributes)["style"])

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        if self.lines and self.open_tags and self.open_tags[-1] in ("td", "th"):
            self.lines[-1][-1] += data.strip()
        if self.open_tags and self.open_tags[-1] == "summary":
            self.summary = data


def test_html_holds_the_same_table_and_the_shares():
    table = trace(nn.Sequential(conv(1, 1, 2), conv(1, 3, 1)), (1, 5, 5))  # 4 and 3; 64 and 48
    html = table._repr_html_()
    page = Cells(html)
    assert page.lines == [
        ["Layer", "Kind", "Output", "Params", "", "MACs", "", "Field"],
        ["0", "Conv2d", "1x4x4", "4", "57.1%", "64", "57.1%", "2"],
        ["1", "Conv2d", "3x4x4", "3", "42.9%", "48", "42.9%", "2"],
        ["Total", "", "", "7", "", "112", "", ""],
    ]
    assert page.attributes == {"style", "open", "tabindex"}
    assert [bar.split(";")[3] for bar in page.bars] == ["width:60px"] * 2 + ["width:45px"] * 2
    assert html == trace(nn.Sequential(conv(1, 1, 2), conv(1, 3, 1)), (1, 5, 5))._repr_html_()


def test_html_of_a_long_table_is_folded_under_its_totals():
    for rows, folded in ((25, False), (26, True)):
        html = trace(nn.Sequential(conv(1, 2, 1), *(nn.ReLU() for _ in range(rows - 1))), (1, 9, 9))
        page = Cells(html._repr_html_())
        assert page.summary == "Sequential, input 1x9x9: 2 parameters, 162 MACs"
        assert ("open" not in page.attributes) == folded


def test_html_keeps_its_header_while_it_scrolls():
    html = trace(small_net(), (1, 28, 28))._repr_html_()
    box, header = (re.search(rf'<{tag} style="([^"]*)"', html).group(1) for tag in ("div", "thead"))
    assert "max-height" in box and "overflow:auto" in box
    assert 'overflow:auto" tabindex="0"' in html  # else no key scrolls it
    assert "position:sticky;top:0" in header
    assert "background:var(--jp-layout-color0," in header  # that of the page, light or dark


def test_html_of_a_network_without_parameters_and_with_an_odd_name():
    odd = type("Net<b>", (nn.ReLU,), {})
    page = trace(odd(), (1, 4, 4))._repr_html_()
    assert "<b>" not in page and "Net&lt;b&gt;" in page
    assert Cells(page).bars == []


def test_html_of_resnet18_is_of_modest_size():
    table = traced("resnet18")
    assert len(table._repr_html_()) < 30_000
    assert repr(table) == str(table)


def test_a_network_that_prints_its_numbers_is_traced():
    def forward(net, x):
        x = net.conv(x)
        assert f"{x.mean():.3f}"
        return x

    assert trace(Net(forward, conv=conv(1, 2, 3)), (1, 8, 8)).total_macs == 2 * 9 * 36


def test_marks_in_a_profile_are_free():
    def forward(net, x):
        with torch.profiler.record_function("block"):
            return net.conv(x)

    table = trace(Net(forward, conv=conv(1, 2, 3)), (1, 8, 8))
    assert table.total_macs == 2 * 9 * 36
    assert "?" not in str(table)


def test_a_network_that_forgot_to_set_itself_up_is_told_how():
    class Forgetful(nn.Module):
        def __init__(self):
            self.size = 2

    with pytest.raises(ValueError, match=r"net=Forgetful must .*try super\(\)\.__init__\(\)"):
        trace(Forgetful(), (1, 8, 8))


def test_weights_in_place_of_a_network_are_not_printed():
    weights = nn.Linear(99, 99).state_dict()
    with pytest.raises(ValueError, match=r"net=an? \w+Dict must be") as refusal:
        trace(weights, (1, 8, 8))
    assert len(str(refusal.value)) < 200

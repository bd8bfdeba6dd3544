"""AlexNet, VGG and NiN against their tables, sums by hand, and torchvision."""

import pytest
import torch
import torchvision
from torch import nn

from cnnlib import models, weights
from cnnlib.trace import trace
from parity import COLOUR, assert_same_logits


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def on_meta(make, *args):
    with torch.device("meta"):
        return make(*args).eval()


def conv(kernel, in_channels, out_channels):
    """Parameters of a convolution with a bias."""
    return (kernel**2 * in_channels + 1) * out_channels


def linears(features, num_classes):
    """Parameters of three linear layers with two times 4,096 units between."""
    return (features + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * num_classes


def sizes(net, *kinds):
    """The output shapes of the layers of some kinds, at 224 grey pixels."""
    return [row.output_shape for row in trace(net, (1, 224, 224)).rows if row.kind in kinds]


def test_alexnet_by_hand():
    net = on_meta(models.alexnet)
    convolutions = (
        conv(11, 1, 96)
        + conv(5, 96, 256)
        + conv(3, 256, 384)
        + conv(3, 384, 384)
        + conv(3, 384, 256)
    )
    assert parameters(net) == convolutions + linears(6400, 10) == 46_764_746
    assert sizes(net, "Conv2d", "MaxPool2d", "Flatten") == [
        (96, 54, 54),
        (96, 26, 26),
        (256, 26, 26),
        (256, 12, 12),
        (384, 12, 12),
        (384, 12, 12),
        (256, 12, 12),
        (256, 5, 5),
        (6400,),
    ]


def test_alexnets_multiplications_by_hand():
    convolutions = (
        54**2 * 121 * 96 + 26**2 * 25 * 96 * 256 + 12**2 * 9 * (256 * 384 + 384 * 384 + 384 * 256)
    )
    linear = 6400 * 4096 + 4096 * 4096 + 4096 * 10
    assert trace(on_meta(models.alexnet), (1, 224, 224)).total_macs == convolutions + linear


@pytest.mark.parametrize(
    ("name", "channels", "sides", "count"),
    [
        (
            "vgg11",
            [64, 128, 256, 256, 512, 512, 512, 512],
            [224, 112, 56, 56, 28, 28, 14, 14],
            128_806_154,
        ),
        (
            "vgg11_quarter",
            [16, 32, 64, 64, 128, 128, 128, 128],
            [224, 112, 56, 56, 28, 28, 14, 14],
            43_093_322,
        ),
        (
            "vgg16",
            [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512],
            [224, 224, 112, 112, 56, 56, 56, 28, 28, 28, 14, 14, 14],
            134_300_362,
        ),
    ],
)
def test_vgg_by_hand(name, channels, sides, count):
    net = on_meta(getattr(models, name))
    convolutions = sum(conv(3, i, o) for i, o in zip([1, *channels], channels, strict=False))
    assert parameters(net) == convolutions + linears(49 * channels[-1], 10) == count
    assert sizes(net, "Conv2d") == [
        (width, side, side) for width, side in zip(channels, sides, strict=True)
    ]
    assert sizes(net, "MaxPool2d")[-1] == (channels[-1], 7, 7)
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == int(name[3:5])


@pytest.mark.parametrize(("name", "count"), [("vgg11", 132_863_336), ("vgg16", 138_357_544)])
def test_vgg_gives_torchvisions_logits(name, count):
    """At 224 pixels, where torchvision's adaptive pooling to 7x7 changes nothing."""
    theirs = on_meta(getattr(torchvision.models, name)).to_empty(device="cpu")
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        fan_in = parameter[0].numel()
        nn.init.normal_(parameter, std=(2 / fan_in) ** 0.5 if parameter.ndim > 1 else 0.05)
    ours = on_meta(getattr(models, name), *COLOUR.values()).to_empty(device="cpu")
    assert weights.load(ours, theirs.state_dict()) == []
    assert parameters(ours) == count
    assert_same_logits(ours, theirs, 224, 224)


def test_vgg_without_its_head_skips_torchvisions_last_layer():
    state = on_meta(torchvision.models.vgg11).state_dict()
    skipped = weights.load(on_meta(models.vgg11, 3, 10), state, skip_head=True)
    assert skipped == ["classifier.6.weight", "classifier.6.bias"]


def test_nin_by_hand():
    net = on_meta(models.nin)
    units = [(11, 1, 96), (5, 96, 256), (3, 256, 384), (3, 384, 10)]
    count = sum(conv(k, i, o) + 2 * conv(1, o, o) for k, i, o in units)
    assert parameters(net) == count == 1_992_166
    assert sizes(net, "Conv2d")[::3] == [(96, 54, 54), (256, 26, 26), (384, 12, 12), (10, 5, 5)]
    assert sizes(net, "MaxPool2d") == [(96, 26, 26), (256, 12, 12), (384, 5, 5)]
    assert sum(isinstance(m, nn.ReLU) for m in net.modules()) == 12


def test_nins_smallest_image():
    net = on_meta(models.nin)
    assert net(torch.empty(1, 1, 67, 67, device="meta")).shape == (1, 10)
    with pytest.raises(RuntimeError, match="too small"):
        net(torch.empty(1, 1, 66, 66, device="meta"))


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg11_quarter", "vgg16", "nin"])
def test_dropout_of_a_half_as_published(name):
    drops = [m.p for m in on_meta(getattr(models, name)).modules() if isinstance(m, nn.Dropout)]
    assert drops == ([0.5] if name == "nin" else [0.5, 0.5])


def test_convolutions_start_with_he_weights():
    torch.manual_seed(0)
    for net in (models.nin(), models.alexnet()):
        for module in net.modules():
            if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
                expected = (2 / (module.weight[0, 0].numel() * module.out_channels)) ** 0.5
                assert module.weight.std().item() == pytest.approx(expected, rel=0.05)

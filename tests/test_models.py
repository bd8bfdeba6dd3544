"""The models against their tables and against torchvision."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from cnnlib import models, weights
from cnnlib.blocks.residual import BasicBlock, PlainBlock
from parity import COLOUR, assert_same_logits, randomise

COUNTS = {  # exact, for colour images and 1,000 classes
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def on_meta(make, *args, **kwargs):
    with torch.device("meta"):
        return make(*args, **kwargs).eval()


# Networks that take an image of another size than 64, in pixels.
SIZES = {
    "alexnet": 224,
    "inception_resnet_v2": 75,
    "inception_v3": 75,
    "inception_v4": 75,
    "lenet": 28,
    "mini_inception": 28,
    "mini_resnet": 28,
    "nin": 67,
    "vgg11": 224,
    "vgg11_quarter": 224,
    "vgg16": 224,
}


@pytest.mark.parametrize("name", models.__all__)
def test_in_channels_and_num_classes_come_first_and_by_keyword(name):
    size = SIZES.get(name, 64)
    net = on_meta(getattr(models, name), in_channels=3, num_classes=7)
    x = torch.empty(2, 3, size, size, device="meta")
    assert net(x).shape[:2] == (2, 7)
    assert parameters(net) == parameters(on_meta(getattr(models, name), 3, 7))
    grey = on_meta(getattr(models, name))
    assert grey(x[:, :1]).shape[:2] == (2, 10)


@pytest.mark.parametrize("name", COUNTS)
def test_resnet_has_the_published_parameters(name):
    assert parameters(on_meta(getattr(models, name), 3, 1000)) == COUNTS[name]


@pytest.mark.parametrize("name", COUNTS)
def test_resnet_gives_torchvisions_logits(name):
    theirs = randomise(getattr(torchvision.models, name)(weights=None))
    ours = getattr(models, name)(**COLOUR).eval()
    assert weights.load(ours, theirs.state_dict()) == []
    assert_same_logits(ours, theirs, 65, 98)


def test_preact_resnet18_gives_timms_logits():
    theirs = randomise(timm.create_model("resnetv2_18"))
    ours = models.preact_resnet18(**COLOUR).eval()
    given, state = theirs.state_dict(), {}
    for name in given:  # timm registers a block's projection first, we last
        if "downsample" not in name:
            state[name] = given[name].flatten(1) if name == "head.fc.weight" else given[name]
        projection = name.replace("conv2.weight", "downsample.conv.weight")
        if projection != name and projection in given:
            state[projection] = given[projection]
    assert weights.load(ours, state, layout="timm") == []
    assert_same_logits(ours, theirs, 65, 98)


@pytest.mark.parametrize("depth", [8, 20, 56, 110])
@pytest.mark.parametrize("block", [PlainBlock, BasicBlock])
def test_a_cifar_resnet_has_the_depth_it_is_asked_for(depth, block):
    net = on_meta(models.cifar_resnet, depth=depth, block=block)
    layers = [
        name
        for name, module in net.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and "shortcut" not in name
    ]
    assert len(layers) == depth
    x, sides = torch.empty(1, 1, 28, 28, device="meta"), []
    for part in (net.stem, *net.stages):
        x = part(x)
        sides.append(tuple(x.shape[1:]))
    assert sides == [(16, 28, 28), (16, 28, 28), (32, 14, 14), (64, 7, 7)]


def test_resnet20_has_the_papers_parameters_and_two_projections():
    """The paper says 0.27M; a colour image, ten classes, and two 1x1 projections it has not."""
    assert parameters(on_meta(models.cifar_resnet, 3)) == 269_722 + 16 * 32 + 64 + 32 * 64 + 128


@pytest.mark.parametrize(("depth", "remedy"), [(18, 14), (21, 20), (2, 8), (-4, 8)])
def test_other_depths_are_refused(depth, remedy):
    with pytest.raises(ValueError, match=rf"depth={depth} must be 6n \+ 2.*try {remedy}$"):
        models.cifar_resnet(depth=depth)


def test_mini_resnet_by_hand():
    conv, block = 26 * 16 + (400 + 1) * 32, 2 * (9 * 256 + 32) + 2 * (9 * 1024 + 64)
    assert parameters(models.mini_resnet()) == conv + block + 513 * 10


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_last_stride_1_keeps_the_rows_of_the_last_stage(name):
    x = torch.empty(1, 1, 224, 224, device="meta")
    sides = {}
    for last_stride in (1, 2):
        net = on_meta(getattr(models, name), last_stride=last_stride)
        sides[last_stride] = net.stages(net.stem(x)).shape[-1]
    assert sides == {1: 14, 2: 7}


@pytest.mark.parametrize(("plain", "residual"), [("plain18", "resnet18"), ("plain34", "resnet34")])
def test_plain_net_is_the_residual_net_without_shortcuts(plain, residual):
    plain, residual = (on_meta(getattr(models, name)) for name in (plain, residual))
    shortcuts = sum(p.numel() for name, p in residual.named_parameters() if "shortcut" in name)
    assert parameters(residual) - parameters(plain) == shortcuts > 0
    assert not any("shortcut" in name for name, _ in plain.named_parameters())


def test_stages_of_resnet18_at_96():
    net = on_meta(models.resnet18)
    x = torch.empty(1, 1, 96, 96, device="meta")
    shapes = []
    for part in (net.stem, *net.stages, net.head):
        x = part(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(64, 24, 24), (64, 24, 24), (128, 12, 12), (256, 6, 6), (512, 3, 3), (10,)]


def test_lenet_by_hand():
    net = models.lenet()
    conv = (25 + 1) * 6 + (25 * 6 + 1) * 16
    assert parameters(net) == conv + 401 * 120 + 121 * 84 + 85 * 10 == 61_706
    kinds = [type(layer).__name__ for layer in net]
    assert kinds.count("Sigmoid") == 4
    assert kinds.count("AvgPool2d") == 2
    bound = (6 / (400 + 120)) ** 0.5
    assert 0.99 * bound < net[7].weight.abs().max() <= bound

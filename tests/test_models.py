"""The models against their tables and against torchvision."""

import functools
import importlib
import inspect
import pkgutil
import types

import pytest
import timm
import torch
import torchvision
from torch import nn

from cnnlib import models, weights
from cnnlib.blocks.residual import BasicBlock, PlainBlock
from cnnlib.models import MODELS
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


@pytest.mark.parametrize("name", MODELS)
def test_in_channels_and_num_classes_come_first_and_by_keyword(name):
    build, size = MODELS[name].build, MODELS[name].recipe.size
    net = on_meta(build, in_channels=3, num_classes=7)
    x = torch.empty(2, 3, size, size, device="meta")
    assert net(x).shape[:2] == (2, 7)
    assert parameters(net) == parameters(on_meta(build, 3, 7))
    assert on_meta(build)(x[:, :1]).shape[:2] == (2, 10)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_gives_its_classes_to_images_or_to_their_pixels(name):
    model = MODELS[name]
    x = torch.empty(1, 1, model.recipe.size, model.recipe.size, device="meta")
    pixels = x.shape[2:] if model.family == "segmentation" else ()
    assert on_meta(model.build)(x).shape == (1, 10, *pixels)


@pytest.mark.parametrize("name", ["inception_v3", "inception_v4", "inception_resnet_v2"])
def test_the_smallest_image_of_an_inception_network_has_75_pixels(name):
    net = on_meta(getattr(models, name))
    assert net(torch.empty(1, 1, 75, 75, device="meta")).shape == (1, 10)
    with pytest.raises(RuntimeError, match=r"Kernel size|Output size is too small"):
        net(torch.empty(1, 1, 74, 74, device="meta"))


def test_the_table_names_what_the_package_has():
    """Readers and editors see the imports, the table is what programs read: they must agree."""
    assert set(models.__all__) == {"MODELS", "Model", "Recipe", *MODELS}
    assert all(getattr(models, name) is model.build for name, model in MODELS.items())


def test_every_function_that_builds_a_model_has_a_row():
    found = {
        name
        for module in pkgutil.iter_modules(models.__path__, "cnnlib.models.")
        for name, value in vars(importlib.import_module(module.name)).items()
        if isinstance(value, functools.partial | types.FunctionType)
        and list(inspect.signature(value).parameters)[:2] == ["in_channels", "num_classes"]
    }
    assert found == set(MODELS)


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

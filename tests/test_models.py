"""The models against their tables and against torchvision."""

import pytest
import torch
import torchvision
from torch import nn

from cnnlib import models

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
    "inception_resnet_v2": 75,
    "inception_v3": 75,
    "inception_v4": 75,
    "lenet": 28,
    "mini_inception": 28,
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


def copy_in_order(ours, theirs):
    """Copy parameters and buffers from torchvision's ResNet: same layers, other names.

    torchvision registers a block's projection last and so do we: the order of both is the same.
    """
    weights = list(theirs.state_dict().values())
    state = dict(zip(ours.state_dict(), weights, strict=True))
    ours.load_state_dict(state)


def randomise_norms(net):
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_resnet_gives_torchvisions_logits(name):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None).eval()
    randomise_norms(theirs)
    ours = getattr(models, name)(in_channels=3, num_classes=1000).eval()
    copy_in_order(ours, theirs)
    x = torch.randn(2, 3, 97, 130)
    with torch.inference_mode():
        expected, found = theirs(x), ours(x)
    assert (found - expected).norm() / expected.norm() < 1e-4


@pytest.mark.parametrize("name", ["resnet101", "resnet152"])
def test_deep_resnets_have_torchvisions_layers(name):
    theirs = on_meta(getattr(torchvision.models, name), weights=None)
    ours = on_meta(getattr(models, name), 3, 1000)
    assert [tuple(p.shape) for p in ours.parameters()] == [
        tuple(p.shape) for p in theirs.parameters()
    ]
    strides = [
        [m.stride for m in net.modules() if isinstance(m, nn.Conv2d)] for net in (ours, theirs)
    ]
    assert strides[0] == strides[1]


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
    for part in (net.stem, net.stage2, net.stage3, net.stage4, net.stage5, net.head):
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

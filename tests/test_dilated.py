"""Dilated convolution and the net that stacks it: cost and field do as the arithmetic says."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnlib.arithmetic import contributions, conv_cost
from cnnlib.blocks.dilated import dilated_conv
from cnnlib.models import dilated_net
from cnnlib.trace import trace

STACKS = {"plain": (1, 1, 1), "gridding": (2, 2, 2), "saw-tooth": (1, 2, 3), "wide": (1, 2, 5)}


@pytest.mark.parametrize("rate", [1, 2, 5, 8])
def test_a_dilated_kernel_is_a_larger_one_with_zeros_between(rate):
    torch.manual_seed(rate)
    unit = dilated_conv(2, 3, rate)
    wide = torch.zeros(3, 2, 2 * rate + 1, 2 * rate + 1)
    wide[..., ::rate, ::rate] = unit[0].weight.data
    x = torch.randn(2, 2, 9, 12)
    expected = F.conv2d(x, wide, padding=rate)
    assert torch.allclose(unit[0](x), expected, atol=1e-6)
    assert expected.shape == (2, 3, 9, 12)


def test_convolution_normalisation_relu():
    unit = dilated_conv(4, 6, 2)
    assert [type(layer) for layer in unit] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert sum(p.numel() for p in unit.parameters()) == 9 * 4 * 6 + 2 * 6


@pytest.mark.parametrize("rates", STACKS.values(), ids=STACKS)
def test_every_stack_of_three_costs_the_same(rates):
    table = trace(dilated_net(1, 11, rates, width=16), (1, 64, 64))
    stem = conv_cost(1, 16, 2, 32, bias=False)
    layer = conv_cost(16, 16, 3, 32, bias=False)
    head = conv_cost(16, 11, 1, 32)
    norms = 4 * 2 * 16
    assert table.total_params == stem.params + 3 * layer.params + head.params + norms == 7_291
    assert table.total_macs == stem.macs + 3 * layer.macs + head.macs


def test_image_and_classes_and_width():
    net = dilated_net(3, 5, rates=(1, 2), width=8)
    assert net(torch.rand(2, 3, 10, 14)).shape == (2, 5, 10, 14)
    assert [unit[0].dilation[0] for unit in net[1]] == [1, 2]
    assert [unit[0].weight.shape[1] for unit in dilated_net()[1]] == [16, 16, 16]


def reached(net, size, row, column):
    """Return which pixels of an image the score of one pixel depends on."""
    image = torch.rand(1, 1, size, size, dtype=torch.double, requires_grad=True)
    net(image)[0, :, row, column].sum().backward()
    return image.grad[0, 0] != 0


def let_everything_pass(net):
    """Shift the normalisations so far that no ReLU cuts, and no path is lost to it."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 100)
    return net.double().eval()


@pytest.mark.parametrize("seed", range(12))
def test_the_field_has_the_holes_that_the_rates_leave(seed):
    """One position of the rates' field is a patch of 2x2 pixels."""
    torch.manual_seed(seed)
    generator = random.Random(seed)
    rates = tuple(generator.randint(1, 5) for _ in range(generator.randint(1, 3)))
    net = let_everything_pass(dilated_net(1, 3, rates, width=4))
    line = torch.tensor(contributions(rates)) > 0
    patches = line[:, None] & line
    expected = patches.repeat_interleave(2, 0).repeat_interleave(2, 1)
    size = len(expected)
    middle = size // 2
    for row, column in [(middle, middle), (middle - 1, middle)]:
        assert torch.equal(reached(net, size, row, column), expected)


def test_gridding_loses_pixels_and_the_saw_tooth_none():
    for rates, share in [((2, 2, 2), (7 / 13) ** 2), ((1, 2, 3), 1), ((1, 2, 5), 1)]:
        net = let_everything_pass(dilated_net(1, 3, rates, width=4))
        size = 2 * len(contributions(rates))
        seen = reached(net, size, size // 2, size // 2)
        assert seen.double().mean().item() == pytest.approx(share)


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    net = dilated_net(1, 3, width=4)
    F.cross_entropy(net(torch.rand(2, 1, 16, 16)), torch.randint(3, (2, 16, 16))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())

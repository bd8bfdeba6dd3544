"""The blocks of conv and residual: shapes, parameters, gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnlib.blocks.conv import conv_bn, conv_bn_relu, he_init
from cnnlib.blocks.residual import BasicBlock, Bottleneck, PlainBlock, PreActBlock, shortcut

BLOCKS = [PlainBlock, BasicBlock, Bottleneck, PreActBlock]


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def pass_through(norm):
    """Make variance plus epsilon exactly 1: in evaluation the normalisation divides by 1."""
    norm.running_var.fill_(0.75)
    norm.eps = 0.25


def switch_off(block):
    """Make the residual zero: the scale of its last normalisation becomes 0."""
    nn.init.zeros_(block.residual[-1][1].weight)
    return block.eval()


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_conv_bn_keeps_or_divides_the_size(kernel, stride):
    for size in (7, 8, 9, 14):
        y = conv_bn(4, 6, kernel, stride, groups=2)(torch.rand(2, 4, size, size))
        assert y.shape == (2, 6, -(-size // stride), -(-size // stride))


def test_conv_bn_has_no_bias_and_the_relu_comes_last():
    conv, norm = conv_bn(4, 6, 3)
    assert conv.bias is None
    assert isinstance(norm, nn.BatchNorm2d)
    assert [type(layer) for layer in conv_bn_relu(4, 6, 3)] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert conv_bn(4, 6, 3, groups=2)[0].weight.shape == (6, 2, 3, 3)


def test_he_init_draws_the_variance_of_the_paper():
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 128, 5)
    he_init(conv)
    assert conv.weight.std().item() == pytest.approx((2 / (128 * 25)) ** 0.5, rel=0.02)
    assert conv.weight.mean().item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("in_channels", "out_channels", "stride"), [(8, 8, 1), (8, 16, 1), (8, 8, 2), (8, 16, 2)]
)
@pytest.mark.parametrize("size", [7, 8])
def test_block_shapes(block, in_channels, out_channels, stride, size):
    y = block(in_channels, out_channels, stride)(torch.rand(2, in_channels, size, size + 2))
    assert y.shape == (2, out_channels, -(-size // stride), -(-(size + 2) // stride))


def test_shortcut_is_the_identity_only_where_shapes_agree():
    assert isinstance(shortcut(8, 8, 1), nn.Identity)
    for arguments in [(8, 16, 1), (8, 8, 2)]:
        conv, norm = shortcut(*arguments)
        assert conv.kernel_size == (1, 1)
        assert isinstance(norm, nn.BatchNorm2d)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_without_residual_the_block_is_the_relu_of_its_input(block):
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(switch_off(block(8, 8))(x), x.relu())


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_without_residual_a_projecting_block_is_the_relu_of_its_shortcut(block):
    block = switch_off(block(8, 16, stride=2))
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(block(x), block.shortcut(x).relu())


def test_basic_block_by_hand():
    """All convolutions pass the centre on with weight 2, normalisation divides by 1."""
    block = BasicBlock(1, 1).eval()
    for conv, norm in (block.residual[0][:2], block.residual[1]):
        nn.init.dirac_(conv.weight)
        conv.weight.data *= 2
        pass_through(norm)
    x = torch.tensor([[[[3.0, -1.0]]]])
    assert block(x).tolist() == [[[[3 * 2 * 2 + 3, 0]]]]


def test_the_addition_has_no_parameters():
    assert (
        parameters(BasicBlock(64, 64)) == parameters(PlainBlock(64, 64)) == 2 * (9 * 64 * 64 + 128)
    )
    assert parameters(BasicBlock(64, 128, 2)) - parameters(PlainBlock(64, 128, 2)) == 64 * 128 + 256
    assert parameters(Bottleneck(256, 256)) == 2 * 256 * 64 + 9 * 64 * 64 + 2 * (64 + 64 + 256)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_parameter_gets_a_gradient(block):
    block = block(8, 16, stride=2)
    block(torch.randn(2, 8, 6, 6)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


def test_derivative_of_the_sum_is_one_plus_that_of_the_residual():
    block = BasicBlock(1, 1).eval().double()
    x = torch.rand(1, 1, 3, 3, dtype=torch.double) + 5  # far from the ReLU's corner
    nn.init.constant_(block.residual[1][1].bias, 5)
    whole = torch.autograd.functional.jacobian(block, x).view(9, 9)
    residual = torch.autograd.functional.jacobian(block.residual, x).view(9, 9)
    assert torch.allclose(whole, residual + torch.eye(9, dtype=torch.double))


def test_the_bottleneck_strides_in_its_3x3():
    block = Bottleneck(8, 16, stride=2)
    assert [conv[0].stride for conv in block.residual] == [(1, 1), (2, 2), (1, 1)]
    assert BasicBlock(8, 16, stride=2).residual[0][0].stride == (2, 2)


def test_bottleneck_refuses_channels_that_no_quarter_divides():
    with pytest.raises(ValueError, match=r"out_channels=30 must be a multiple of 4.*try 32"):
        Bottleneck(16, 30)


def test_relu_in_place_does_not_reach_the_shortcut():
    x = torch.randn(2, 8, 6, 6)
    before = x.clone()
    BasicBlock(8, 8)(x)
    assert torch.equal(x, before)
    assert F.relu(x).min() == 0


def test_without_residual_a_preactivation_block_is_the_identity():
    """Nothing stands after the sum: negative values pass, too."""
    block = PreActBlock(8, 8)
    nn.init.zeros_(block.residual[2].weight)
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(block(x), x)


def test_a_preactivation_block_projects_what_is_activated():
    block = PreActBlock(8, 16, stride=2).eval()
    nn.init.zeros_(block.residual[2].weight)
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(block(x), block.projection(block.activation(x)))
    assert torch.equal(block(-x.abs()), torch.zeros(2, 16, 3, 3))


def test_a_preactivation_block_costs_what_the_basic_block_costs():
    assert parameters(PreActBlock(64, 64)) == parameters(BasicBlock(64, 64))

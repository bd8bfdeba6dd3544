"""Convolution, batch normalisation and ReLU: the unit that the figures stack."""

from torch import nn

from cnnlib.arithmetic import check_divides
from cnnlib.blocks.arguments import check_counts, check_modules


def conv_bn(in_channels, out_channels, kernel, stride=1, groups=1):
    """Build a convolution followed by batch normalisation.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)), for an odd
        kernel

    Args:
        in_channels: In channels.
        out_channels: Out channels.
        kernel: Side of the kernel in pixels. Each side of the input gets kernel // 2 zeros.
        stride: Stride in pixels.
        groups: Number of groups of channels, which do not mix.

    Raises:
        ValueError: A count is not a whole number from 1, or the groups do not divide the channels.

    Source:
        Ioffe and Szegedy 2015. The convolution has no bias, since the normalisation would subtract
        it with the mean.
    """
    check_counts(
        in_channels=in_channels,
        out_channels=out_channels,
        kernel=kernel,
        stride=stride,
        groups=groups,
    )
    check_divides(groups, in_channels=in_channels, out_channels=out_channels)
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_channels),
    )


def conv_bn_relu(in_channels, out_channels, kernel, stride=1, groups=1):
    """Build a convolution followed by batch normalisation and a ReLU.

    Shape and Args:
        As in `conv_bn`.

    Raises:
        ValueError: As in `conv_bn`.
    """
    return nn.Sequential(
        *conv_bn(in_channels, out_channels, kernel, stride, groups), nn.ReLU(inplace=True)
    )


def he_init(net):
    """Draw every convolution's weights from N(0, 2 / fan_out), in place.

    fan_out is out_channels x kernel area. A ReLU halves the variance and the 2 makes up for it, so
    gradients keep their size from layer to layer. Batch normalisation starts at scale 1 and shift
    0, which is PyTorch's default.

    Raises:
        ValueError: `net` is not an nn.Module.

    Source:
        He et al. 2015, section 2.2, "backward propagation case".
    """
    check_modules(net=net)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

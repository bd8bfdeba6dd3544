"""The residual blocks of He et al. 2016, and the plain pair that they are compared with."""

import torch.nn.functional as F
from torch import nn

from cnnlib.blocks.arguments import check_counts
from cnnlib.blocks.conv import conv_bn, conv_bn_relu


def shortcut(in_channels, out_channels, stride):
    """Build the shortcut past a residual: identity, or a 1x1 convolution if the shape changes.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))

    Raises:
        ValueError: A count is not a whole number from 1.

    Source:
        He et al. 2016, section 3.3, option B.
    """
    check_counts(in_channels=in_channels, out_channels=out_channels, stride=stride)
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return conv_bn(in_channels, out_channels, 1, stride)


class PlainBlock(nn.Module):
    """Two 3x3 convolutions in a row: BasicBlock without its shortcut.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))

    Raises:
        ValueError: A count is not a whole number from 1.

    Source:
        He et al. 2016, figure 3 middle.
    """

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.stack = nn.Sequential(
            conv_bn_relu(in_channels, out_channels, 3, stride),
            conv_bn_relu(out_channels, out_channels, 3),
        )

    def forward(self, x):
        return self.stack(x)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))

    Raises:
        ValueError: A count is not a whole number from 1.

    Source:
        He et al. 2016, figure 5 left. The first convolution has the stride.
    """

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.residual = nn.Sequential(
            conv_bn_relu(in_channels, out_channels, 3, stride),
            conv_bn(out_channels, out_channels, 3),
        )
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        return F.relu(self.residual(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 1x1 convolution to a quarter of the channels, a 3x3, a 1x1 back, beside a shortcut.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))

    Raises:
        ValueError: A count is not a whole number from 1, or `out_channels` is not a multiple of 4.

    Source:
        He et al. 2016, figure 5 right.

    Departures:
        In the paper the first 1x1 has the stride and skips three of four pixels. Here the 3x3 has
        it, as in torchvision (version "1.5").
    """

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        check_counts(out_channels=out_channels)
        if out_channels % 4:
            raise ValueError(
                f"out_channels={out_channels} must be a multiple of 4, since the 3x3 works on a "
                f"quarter of them: try {out_channels // 4 * 4 + 4}"
            )
        width = out_channels // 4
        self.residual = nn.Sequential(
            conv_bn_relu(in_channels, width, 1),
            conv_bn_relu(width, width, 3, stride),
            conv_bn(width, out_channels, 1),
        )
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        return F.relu(self.residual(x) + self.shortcut(x))


def bn_relu(channels):
    """Build the batch normalisation and ReLU that pre-activation puts before a convolution.

    Shape:
        (N, channels, H, W) -> (N, channels, H, W)

    Raises:
        ValueError: `channels` is not a whole number from 1.
    """
    check_counts(channels=channels)
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class PreActBlock(nn.Module):
    """BasicBlock with normalisation and ReLU before each convolution, and nothing after the sum.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))

    Raises:
        ValueError: A count is not a whole number from 1.

    Source:
        He et al. 2016b (Identity Mappings in Deep Residual Networks), figure 1 right. A block that
        changes the shape projects the activated input, as in the authors' code.
    """

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        check_counts(in_channels=in_channels, out_channels=out_channels, stride=stride)
        self.activation = bn_relu(in_channels)
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            bn_relu(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        )
        self.projection = None
        if stride != 1 or in_channels != out_channels:
            self.projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x):
        activated = self.activation(x)
        shortcut = x if self.projection is None else self.projection(activated)
        return self.residual(activated) + shortcut

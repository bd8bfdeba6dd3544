"""Bottlenecks that weight channels or branches by the whole map: SE, SK, ResNeSt."""

import torch
import torch.nn.functional as F
from torch import nn

from cnnlib._checks import check_flags
from cnnlib.blocks.arguments import check_counts
from cnnlib.blocks.conv import conv_bn, conv_bn_relu
from cnnlib.blocks.residual import shortcut
from cnnlib.blocks.split import width_for


class SqueezeExcitation(nn.Module):
    """A gate for each channel, between 0 and 1, computed from the means of all channels.

    Shape:
        (N, channels, H, W) -> (N, channels, H, W)

    Args:
        channels: In and out channels.
        reduction: Channels per number in the hidden layer of the gate, the paper's r.

    Raises:
        ValueError: A count is not a whole number from 1.

    Source:
        Hu et al. 2018, figure 2. Both fully connected layers are 1x1 convolutions of a 1x1 map.
    """

    def __init__(self, channels, reduction=16):
        super().__init__()
        channels, reduction = check_counts(channels=channels, reduction=reduction)
        hidden = max(channels // reduction, 1)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return x * self.gate(x)


class SEBottleneck(nn.Module):
    """Bottleneck with a gate for each channel at the end of its residual.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))

    Raises:
        ValueError: A count is not a whole number from 1, or `width_for` refuses the channels.

    Source:
        Hu et al. 2018, figure 3.
    """

    def __init__(self, in_channels, out_channels, stride=1, reduction=16):
        super().__init__()
        width = width_for(out_channels)
        self.residual = nn.Sequential(
            conv_bn_relu(in_channels, width, 1),
            conv_bn_relu(width, width, 3, stride),
            conv_bn(width, out_channels, 1),
            SqueezeExcitation(out_channels, reduction),
        )
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        return F.relu(self.residual(x) + self.shortcut(x))


class BranchAttention(nn.Module):
    """The share of each branch in each channel: shares sum to 1 and depend on all channels.

    Shape:
        (N, branches, channels, H, W) -> (N, branches, channels, 1, 1)

    Args:
        branches: Number of maps to choose from.
        channels: Channels of each map.
        hidden: Channels between squeezing and choosing.
        bias: Whether the two 1x1 convolutions add a bias.

    Raises:
        ValueError: A count is not a whole number from 1, or a flag is not True or False.

    Source:
        Li et al. 2019, figure 1, "Fuse" and "Select"; likewise Zhang et al. 2022, figure 2.
    """

    def __init__(self, branches, channels, hidden, bias):
        super().__init__()
        check_flags(bias=bias)
        branches, channels, hidden = check_counts(
            branches=branches, channels=channels, hidden=hidden
        )
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1, bias=bias),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
        )
        self.choose = nn.Conv2d(hidden, branches * channels, 1, bias=bias)

    def forward(self, branches):
        scores = self.choose(self.squeeze(branches.sum(dim=1)))
        return scores.view(*branches.shape[:3], 1, 1).softmax(dim=1)


class SelectiveKernel(nn.Module):
    """A 3x3 and a 3x3 with dilation 2, mixed per channel by attention.

    Shape:
        (N, width, H, W) -> (N, width, ceil(H / stride), ceil(W / stride))

    Raises:
        ValueError: A count is not a whole number from 1.

    Source:
        Li et al. 2019, figure 1.

    Departures:
        Each branch reads half of the input channels, as in timm, so both together cost as much as
        one 3x3. In the paper each branch reads all channels, in 32 groups.
    """

    def __init__(self, width, stride=1):
        super().__init__()
        check_counts(width=width, stride=stride)
        half = width // 2
        self.near = conv_bn_relu(half, width, 3, stride)
        self.far = nn.Sequential(
            nn.Conv2d(width - half, width, 3, stride, padding=2, dilation=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.attention = BranchAttention(2, width, hidden=max(width // 16, 8), bias=False)

    def forward(self, x):
        left, right = x.chunk(2, dim=1)
        branches = torch.stack([self.near(left), self.far(right)], dim=1)
        return (self.attention(branches) * branches).sum(dim=1)


class SKBottleneck(nn.Module):
    """Bottleneck with selective kernels in place of the 3x3.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))

    Raises:
        ValueError: A count is not a whole number from 1, or `width_for` refuses the channels.

    Source:
        Li et al. 2019, table 1.
    """

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        width = width_for(out_channels)
        self.residual = nn.Sequential(
            conv_bn_relu(in_channels, width, 1),
            SelectiveKernel(width, stride),
            conv_bn(width, out_channels, 1),
        )
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        return F.relu(self.residual(x) + self.shortcut(x))


class SplitAttention(nn.Module):
    """A 3x3 in `radix` groups that each yield all channels, mixed per channel by attention.

    Shape:
        (N, width, H, W) -> (N, width, H, W)

    Args:
        width: In and out channels.
        radix: Number of groups, and of maps to choose from; the paper's R.

    Raises:
        ValueError: A count is not a whole number from 1, or the radix does not divide the width.

    Source:
        Zhang et al. 2022, figure 2, with one cardinal group.
    """

    def __init__(self, width, radix=2):
        super().__init__()
        width, radix = check_counts(width=width, radix=radix)
        self.radix = radix
        self.splits = conv_bn_relu(width, radix * width, 3, groups=radix)
        hidden = max(radix * width // 4, 32)
        self.attention = BranchAttention(radix, width, hidden, bias=True)

    def forward(self, x):
        splits = self.splits(x).unflatten(1, (self.radix, -1))
        return (self.attention(splits) * splits).sum(dim=1)


def pooled_shortcut(in_channels, out_channels, stride):
    """Build a shortcut with a strided average pooling, since a strided 1x1 would skip pixels.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))

    Raises:
        ValueError: A count is not a whole number from 1.

    Source:
        He et al. 2019 (Bag of Tricks), figure 2(c): ResNet-D.
    """
    check_counts(in_channels=in_channels, out_channels=out_channels, stride=stride)
    if stride == 1:
        return shortcut(in_channels, out_channels, stride)
    return nn.Sequential(
        nn.AvgPool2d(stride, ceil_mode=True), conv_bn(in_channels, out_channels, 1)
    )


class ResNeStBlock(nn.Module):
    """Bottleneck with split attention in place of the 3x3, followed by a strided pooling.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))

    Args:
        in_channels: In channels.
        out_channels: Out channels.
        stride: Stride of the pooling.
        width: Channels of the split attention per 256 out channels, a multiple of the radix.
        radix: Number of maps among which the attention chooses.

    Raises:
        ValueError: As in `width_for` and `SplitAttention`.

    Source:
        Zhang et al. 2022, figure 2, and section 3.3 for the pooling and the shortcut.
    """

    def __init__(self, in_channels, out_channels, stride=1, width=64, radix=2):
        super().__init__()
        check_counts(stride=stride)
        width = width_for(out_channels, width)
        self.residual = nn.Sequential(
            conv_bn_relu(in_channels, width, 1),
            SplitAttention(width, radix),
            nn.AvgPool2d(3, stride, padding=1) if stride > 1 else nn.Identity(),
            conv_bn(width, out_channels, 1),
        )
        self.shortcut = pooled_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        return F.relu(self.residual(x) + self.shortcut(x))

"""Bottlenecks that split their channels: ResNeXt into groups, IBN into halves, Res2Net into scales.

`width_for` returns the channels of the 3x3 for all bottlenecks of this file and of `attention`.
"""

from math import gcd

import torch
import torch.nn.functional as F
from torch import nn

from cnnlib._checks import check_count
from cnnlib.blocks.arguments import check_counts
from cnnlib.blocks.conv import conv_bn, conv_bn_relu
from cnnlib.blocks.residual import shortcut


def width_for(out_channels, width=64):
    """Return the channels of a bottleneck's 3x3, in proportion to its out channels.

    Args:
        out_channels: Out channels of the block.
        width: Channels of the 3x3 per 256 out channels. 64 is the quarter of He et al. 2016.


    Raises:
        ValueError: A count is not a whole number from 1, or the proportion yields no whole number.
    """
    out_channels, width = check_counts(out_channels=out_channels, width=width)
    step = 256 // gcd(width, 256)
    if out_channels < step or out_channels % step:
        raise ValueError(
            f"out_channels={out_channels} must be a multiple of {step}, since the 3x3 has {width} "
            f"channels per 256 out channels: try {out_channels // step * step + step}"
        )
    return width * out_channels // 256


class ResNeXtBlock(nn.Module):
    """Bottleneck whose 3x3 works in groups that do not mix, and is wider in return.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))

    Args:
        in_channels: In channels.
        out_channels: Out channels.
        stride: Stride of the 3x3.
        groups: Number of groups of the 3x3, the paper's cardinality C.
        width: Channels per group and 256 out channels, the paper's d.

    Raises:
        ValueError: A count is not a whole number from 1, or `width_for` refuses the channels.

    Source:
        Xie et al. 2017, figure 3(c) and table 1.
    """

    def __init__(self, in_channels, out_channels, stride=1, groups=32, width=4):
        super().__init__()
        [groups] = check_counts(groups=groups)
        inner = groups * width_for(out_channels, width)
        self.residual = nn.Sequential(
            conv_bn_relu(in_channels, inner, 1),
            conv_bn_relu(inner, inner, 3, stride, groups),
            conv_bn(inner, out_channels, 1),
        )
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        return F.relu(self.residual(x) + self.shortcut(x))


class IBN(nn.Module):
    """Instance normalisation for the first half of the channels, batch normalisation for the rest.

    Shape:
        (N, channels, H, W) -> (N, channels, H, W)

    Raises:
        ValueError: `channels` is not a whole number from 1.

    Source:
        Pan et al. 2018, figure 3(a).
    """

    def __init__(self, channels):
        super().__init__()
        check_counts(channels=channels)
        self.halves = [channels // 2, channels - channels // 2]
        self.instance = nn.InstanceNorm2d(self.halves[0], affine=True)
        self.batch = nn.BatchNorm2d(self.halves[1])

    def forward(self, x):
        first, rest = x.split(self.halves, dim=1)
        return torch.cat([self.instance(first), self.batch(rest)], dim=1)


class IBNBottleneck(nn.Module):
    """Bottleneck whose first normalisation is half instance and half batch normalisation.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))

    Raises:
        ValueError: A count is not a whole number from 1, or `width_for` refuses the channels.

    Source:
        Pan et al. 2018, figure 3(a): IBN-a.
    """

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        check_counts(in_channels=in_channels)
        width = width_for(out_channels)
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, width, 1, bias=False),
            IBN(width),
            nn.ReLU(inplace=True),
            conv_bn_relu(width, width, 3, stride),
            conv_bn(width, out_channels, 1),
        )
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        return F.relu(self.residual(x) + self.shortcut(x))


class Cascade(nn.Module):
    """Splits of the channels, each convolved together with the result of the previous one.

    Shape:
        (N, scales x width, H, W) -> (N, scales x width, H, W)

    Args:
        width: Channels of a split.
        scales: Number of splits, the paper's s. The last one passes unchanged.

    Raises:
        ValueError: A count is not a whole number from 1.

    Source:
        Gao et al. 2021, figure 2(b).

    Departures:
        In the paper the first split passes unchanged. Here it is the last, as in the authors' code.
    """

    def __init__(self, width, scales):
        super().__init__()
        check_counts(width=width, scales=scales)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(scales - 1)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(scales - 1))

    def forward(self, x):
        *splits, last = x.chunk(len(self.convs) + 1, dim=1)
        done = []
        for split, conv, norm in zip(splits, self.convs, self.norms, strict=True):
            together = split + done[-1] if done else split
            done.append(F.relu(norm(conv(together))))
        return torch.cat([*done, last], dim=1)


class SideBySide(nn.Module):
    """Splits of the channels, each convolved alone, the last one pooled, to begin a stage.

    Shape:
        (N, scales x width, H, W) -> (N, scales x width, ceil(H / stride), ceil(W / stride))

    Args:
        width: Channels of a split.
        scales: Number of splits.
        stride: Stride of the 3x3. At 2, a result no longer has the size of the next split.

    Raises:
        ValueError: A count is not a whole number from 1.

    Source:
        The code of Gao et al. 2021, for the first block of each stage; the paper does not say.
    """

    def __init__(self, width, scales, stride):
        super().__init__()
        check_counts(width=width, scales=scales, stride=stride)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False) for _ in range(scales - 1)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(scales - 1))
        self.pool = nn.AvgPool2d(3, stride, padding=1)

    def forward(self, x):
        *splits, last = x.chunk(len(self.convs) + 1, dim=1)
        parts = zip(splits, self.convs, self.norms, strict=True)
        done = [F.relu(norm(conv(split))) for split, conv, norm in parts]
        return torch.cat([*done, self.pool(last)], dim=1)


class Res2NetBlock(nn.Module):
    """Bottleneck with a cascade of small 3x3 convolutions in place of the large one.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))

    Args:
        in_channels: In channels.
        out_channels: Out channels.
        stride: Stride of the 3x3.
        width: Channels per split and 256 out channels, the paper's w.
        scales: Number of splits, the paper's s; at least 2.

    Raises:
        ValueError: A count is not a whole number from 1, or `width_for` refuses the channels.

    Source:
        Gao et al. 2021, figure 2(b). A block that changes the shape begins a stage, so its splits
        stand side by side.
    """

    def __init__(self, in_channels, out_channels, stride=1, width=26, scales=4):
        super().__init__()
        stride, scales = check_counts(stride=stride, scales=scales)
        check_count("scales", scales, least=2, usual=4)
        width = width_for(out_channels, width)
        begins = stride != 1 or in_channels != out_channels
        self.residual = nn.Sequential(
            conv_bn_relu(in_channels, scales * width, 1),
            SideBySide(width, scales, stride) if begins else Cascade(width, scales),
            conv_bn(scales * width, out_channels, 1),
        )
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        return F.relu(self.residual(x) + self.shortcut(x))

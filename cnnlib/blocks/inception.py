"""The Inception blocks of Szegedy et al. 2015 and of Ioffe and Szegedy 2015, and a small one.

Every block reads its input with several parallel arms and concatenates their outputs. The arms are
attributes, and `forward` ends with the concatenation.
"""

import torch
from torch import nn

from cnnlib.blocks.arguments import check_builders, check_built, check_counts, check_table
from cnnlib.blocks.conv import conv_bn_relu


def conv_relu(in_channels, out_channels, kernel, stride=1):
    """Build a convolution with a bias, followed by a ReLU: the unit of the first GoogLeNet.

    Shape and Args:
        As in `conv_bn_relu`.

    Raises:
        ValueError: A count is not a whole number from 1.
    """
    check_counts(in_channels=in_channels, out_channels=out_channels, kernel=kernel, stride=stride)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2), nn.ReLU(inplace=True)
    )


def check_widths(widths):
    """Refuse anything but a row of table 1 of Szegedy et al. 2015."""
    row_3a = (64, (96, 128), (16, 32), 32)
    check_table("widths", widths, (int, (int, int), (int, int), int), row_3a)


class Inception(nn.Module):
    """1x1, 3x3, 5x5 and a pooling side by side, with 1x1 convolutions to keep them cheap.

    Shape:
        (N, in_channels, H, W) -> (N, one + three + five + pool, H, W)

    Args:
        in_channels: In channels.
        widths: A row of table 1: (one, (reduce, three), (reduce, five), pool), in channels.
        unit: The function that builds a convolution: `conv_relu`, or `conv_bn_relu` to normalise.

    Raises:
        ValueError: `widths` is not a row of the table, or `in_channels` is not a whole number
            from 1.

    Source:
        Szegedy et al. 2015, figure 2b.
    """

    def __init__(self, in_channels, widths, unit=conv_relu):
        super().__init__()
        check_widths(widths)
        check_builders(unit=unit)
        one, (reduce3, three), (reduce5, five), pool = widths
        self.one = unit(in_channels, one, 1)
        check_built(unit=self.one)
        self.three = nn.Sequential(unit(in_channels, reduce3, 1), unit(reduce3, three, 3))
        self.five = nn.Sequential(unit(in_channels, reduce5, 1), unit(reduce5, five, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), unit(in_channels, pool, 1))

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)


class BNInception(nn.Module):
    """An Inception block with batch normalisation, and two 3x3 convolutions in place of the 5x5.

    Shape and Args:
        As in `Inception`.

    Raises:
        ValueError: As in `Inception`.

    Source:
        Ioffe and Szegedy 2015, figure 5.
    """

    def __init__(self, in_channels, widths):
        super().__init__()
        check_widths(widths)
        one, (reduce3, three), (reduce5, five), pool = widths
        self.one = conv_bn_relu(in_channels, one, 1)
        self.three = nn.Sequential(
            conv_bn_relu(in_channels, reduce3, 1), conv_bn_relu(reduce3, three, 3)
        )
        self.double_three = nn.Sequential(
            conv_bn_relu(in_channels, reduce5, 1),
            conv_bn_relu(reduce5, five, 3),
            conv_bn_relu(five, five, 3),
        )
        self.pool = nn.Sequential(nn.AvgPool2d(3, 1, padding=1), conv_bn_relu(in_channels, pool, 1))

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.double_three(x), self.pool(x)], dim=1)


class MiniInception(nn.Module):
    """A block of fixed width for 28-pixel images: 16 + 24 + 24 + 24 channels.

    Shape:
        (N, in_channels, H, W) -> (N, 88, H, W)

    Raises:
        ValueError: `in_channels` is not a whole number from 1.

    Departures:
        No arm has a single 3x3: one has a 5x5, one has two 3x3, as in Inception-v3.
    """

    def __init__(self, in_channels, unit=conv_relu):
        super().__init__()
        check_builders(unit=unit)
        self.one = unit(in_channels, 16, 1)
        check_built(unit=self.one)
        self.five = nn.Sequential(unit(in_channels, 16, 1), unit(16, 24, 5))
        self.double_three = nn.Sequential(
            unit(in_channels, 16, 1), unit(16, 24, 3), unit(24, 24, 3)
        )
        self.pool = nn.Sequential(nn.AvgPool2d(3, 1, padding=1), unit(in_channels, 24, 1))

    def forward(self, x):
        return torch.cat([self.one(x), self.five(x), self.double_three(x), self.pool(x)], dim=1)


class AuxiliaryHead(nn.Module):
    """A small classifier on a middle layer, which receives an extra gradient from it.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes)

    Raises:
        ValueError: A count is not a whole number from 1.

    Source:
        Szegedy et al. 2015, section 5.

    Departures:
        The paper pools 5x5 with stride 3: 14x14 -> 4x4. Here every size becomes 4x4.
    """

    def __init__(self, in_channels, num_classes, unit=conv_relu):
        super().__init__()
        check_counts(num_classes=num_classes)
        check_builders(unit=unit)
        self.features = nn.Sequential(nn.AdaptiveAvgPool2d(4), unit(in_channels, 128, 1))
        check_built(unit=self.features[1])
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(128 * 4 * 4, 1024),
            nn.ReLU(inplace=True),
            nn.Dropout(0.7),
            nn.Linear(1024, num_classes),
        )

    def forward(self, x):
        return self.classifier(self.features(x))

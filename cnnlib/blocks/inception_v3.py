"""The blocks of Inception-v3: large kernels factorised into small and flat ones.

Source:
    Szegedy et al. 2016, "Rethinking the Inception Architecture", figures 4 to 7 and 10, with the
    channels of the published code.
"""

import torch
from torch import nn

from cnnlib.blocks.arguments import check_counts, check_padding, check_table


def conv_unit(in_channels, out_channels, kernel, stride=1, padding="same"):
    """Build a convolution followed by batch normalisation with eps 0.001 and a ReLU.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, H, W), or with padding="valid"
        (N, out_channels, floor((H - kernel) / stride) + 1, floor((W - kernel) / stride) + 1)

    Args:
        in_channels: In channels.
        out_channels: Out channels.
        kernel: Side of the kernel in pixels, or (height, width).
        stride: Stride in pixels. Above 1 it needs padding="valid".
        padding: Either "same", which keeps the size, or "valid", which adds nothing.

    Raises:
        ValueError: A count is not a whole number from 1, or no convolution takes the padding.
    """
    check_counts(in_channels=in_channels, out_channels=out_channels, stride=stride)
    check_table(
        "kernel", kernel if isinstance(kernel, tuple) else (kernel, kernel), (int, int), (1, 7)
    )
    check_padding(padding, stride)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(out_channels, eps=0.001),
        nn.ReLU(inplace=True),
    )


class InceptionA(nn.Module):
    """The block at 35x35.

    Shape:
        (N, in_channels, H, W) -> (N, 224 + pool_channels, H, W)

    Raises:
        ValueError: A count is not a whole number from 1.

    Source:
        Szegedy et al. 2016, figure 5.

    Departures:
        As in the published code, one arm keeps its 5x5, which the figure replaces by two 3x3.
    """

    def __init__(self, in_channels, pool_channels):
        super().__init__()
        self.one = conv_unit(in_channels, 64, 1)
        self.five = nn.Sequential(conv_unit(in_channels, 48, 1), conv_unit(48, 64, 5))
        self.double_three = nn.Sequential(
            conv_unit(in_channels, 64, 1), conv_unit(64, 96, 3), conv_unit(96, 96, 3)
        )
        self.pool = nn.Sequential(
            nn.AvgPool2d(3, 1, padding=1), conv_unit(in_channels, pool_channels, 1)
        )

    def forward(self, x):
        return torch.cat([self.one(x), self.five(x), self.double_three(x), self.pool(x)], dim=1)


class InceptionB(nn.Module):
    """The reduction from 35x35 to 17x17: two strided arms beside a pooling.

    Shape:
        (N, in_channels, H, W) -> (N, 480 + in_channels, floor((H - 1) / 2), floor((W - 1) / 2))

    Raises:
        ValueError: `in_channels` is not a whole number from 1.

    Source:
        Szegedy et al. 2016, figure 10.
    """

    def __init__(self, in_channels):
        super().__init__()
        self.three = conv_unit(in_channels, 384, 3, stride=2, padding="valid")
        self.double_three = nn.Sequential(
            conv_unit(in_channels, 64, 1),
            conv_unit(64, 96, 3),
            conv_unit(96, 96, 3, stride=2, padding="valid"),
        )
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x):
        return torch.cat([self.three(x), self.double_three(x), self.pool(x)], dim=1)


class InceptionC(nn.Module):
    """The block at 17x17: 7x7 as 1x7 and 7x1.

    Shape:
        (N, in_channels, H, W) -> (N, 768, H, W)

    Args:
        in_channels: In channels.
        width: Channels between the flat kernels: 128, 160, 160 and 192 in the four blocks.

    Raises:
        ValueError: A count is not a whole number from 1.

    Source:
        Szegedy et al. 2016, figure 6, n = 7.
    """

    def __init__(self, in_channels, width):
        super().__init__()
        self.one = conv_unit(in_channels, 192, 1)
        self.seven = nn.Sequential(
            conv_unit(in_channels, width, 1),
            conv_unit(width, width, (1, 7)),
            conv_unit(width, 192, (7, 1)),
        )
        self.double_seven = nn.Sequential(
            conv_unit(in_channels, width, 1),
            conv_unit(width, width, (7, 1)),
            conv_unit(width, width, (1, 7)),
            conv_unit(width, width, (7, 1)),
            conv_unit(width, 192, (1, 7)),
        )
        self.pool = nn.Sequential(nn.AvgPool2d(3, 1, padding=1), conv_unit(in_channels, 192, 1))

    def forward(self, x):
        return torch.cat([self.one(x), self.seven(x), self.double_seven(x), self.pool(x)], dim=1)


class InceptionD(nn.Module):
    """The reduction from 17x17 to 8x8.

    Shape:
        (N, in_channels, H, W) -> (N, 512 + in_channels, floor((H - 1) / 2), floor((W - 1) / 2))

    Raises:
        ValueError: `in_channels` is not a whole number from 1.

    Source:
        The published code; the paper gives the outline in figure 10.
    """

    def __init__(self, in_channels):
        super().__init__()
        self.three = nn.Sequential(
            conv_unit(in_channels, 192, 1), conv_unit(192, 320, 3, stride=2, padding="valid")
        )
        self.seven_three = nn.Sequential(
            conv_unit(in_channels, 192, 1),
            conv_unit(192, 192, (1, 7)),
            conv_unit(192, 192, (7, 1)),
            conv_unit(192, 192, 3, stride=2, padding="valid"),
        )
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x):
        return torch.cat([self.three(x), self.seven_three(x), self.pool(x)], dim=1)


class Fork(nn.Module):
    """A flat and a tall kernel side by side: the end of an arm in the widest blocks.

    Shape:
        (N, in_channels, H, W) -> (N, 2 * out_channels, H, W)

    Args:
        in_channels: In channels.
        out_channels: Out channels of each of the two kernels.

    Raises:
        ValueError: A count is not a whole number from 1.
    """

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.flat = conv_unit(in_channels, out_channels, (1, 3))
        self.tall = conv_unit(in_channels, out_channels, (3, 1))

    def forward(self, x):
        return torch.cat([self.flat(x), self.tall(x)], dim=1)


class InceptionE(nn.Module):
    """The block at 8x8: 1x3 and 3x1 side by side, for many features on the coarsest grid.

    Shape:
        (N, in_channels, H, W) -> (N, 2048, H, W)

    Raises:
        ValueError: `in_channels` is not a whole number from 1.

    Source:
        Szegedy et al. 2016, figure 7.
    """

    def __init__(self, in_channels):
        super().__init__()
        self.one = conv_unit(in_channels, 320, 1)
        self.three = nn.Sequential(conv_unit(in_channels, 384, 1), Fork(384, 384))
        self.double_three = nn.Sequential(
            conv_unit(in_channels, 448, 1), conv_unit(448, 384, 3), Fork(384, 384)
        )
        self.pool = nn.Sequential(nn.AvgPool2d(3, 1, padding=1), conv_unit(in_channels, 192, 1))

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.double_three(x), self.pool(x)], dim=1)


class AuxiliaryHeadV3(nn.Module):
    """The auxiliary classifier at 17x17.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes), for H and W of at least 17

    Raises:
        ValueError: A count is not a whole number from 1.

    Source:
        Szegedy et al. 2016, section 4 and figure 8.
    """

    def __init__(self, in_channels, num_classes):
        super().__init__()
        check_counts(num_classes=num_classes)
        self.features = nn.Sequential(
            nn.AvgPool2d(5, stride=3),
            conv_unit(in_channels, 128, 1),
            conv_unit(128, 768, 5, padding="valid"),
            nn.AdaptiveAvgPool2d(1),
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(768, num_classes))

    def forward(self, x):
        return self.classifier(self.features(x))

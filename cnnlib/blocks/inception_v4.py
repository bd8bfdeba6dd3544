"""The blocks of Inception-v4 and of Inception-ResNet-v2.

Source:
    Szegedy et al. 2017, "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
    Learning", figures 3 to 9 and 16 to 19, with the channels of the published code.
"""

import torch
import torch.nn.functional as F
from torch import nn

from cnnlib._checks import check_flags, check_number
from cnnlib.blocks.arguments import check_modules, check_table
from cnnlib.blocks.inception_v3 import Fork, conv_unit


def average_pool(in_channels, out_channels):
    """Build the pooling arm: a 3x3 mean that ignores the padding, and a 1x1.

    Raises:
        ValueError: A count is not a whole number from 1.
    """
    return nn.Sequential(
        nn.AvgPool2d(3, 1, padding=1, count_include_pad=False),
        conv_unit(in_channels, out_channels, 1),
    )


class StemPool(nn.Module):
    """A strided convolution and a pooling side by side.

    Shape:
        (N, in_channels, H, W)
        -> (N, out_channels + in_channels, floor((H - 1) / 2), floor((W - 1) / 2))

    Args:
        left: The arm whose channels come first.
        right: The other arm.

    Raises:
        ValueError: An arm is not an nn.Module.

    Source:
        Szegedy et al. 2017, figure 3: the first fork of the stem, with the pooling on the left, and
        the third, with the pooling on the right.
    """

    def __init__(self, left, right):
        super().__init__()
        check_modules(left=left, right=right)
        self.left, self.right = left, right

    def forward(self, x):
        return torch.cat([self.left(x), self.right(x)], dim=1)


class StemFork(nn.Module):
    """A short arm beside one with flat kernels.

    Shape:
        (N, 160, H, W) -> (N, 192, H - 2, W - 2)

    Source:
        Szegedy et al. 2017, figure 3: the second fork of the stem.
    """

    def __init__(self):
        super().__init__()
        self.three = nn.Sequential(conv_unit(160, 64, 1), conv_unit(64, 96, 3, padding="valid"))
        self.seven_three = nn.Sequential(
            conv_unit(160, 64, 1),
            conv_unit(64, 64, (1, 7)),
            conv_unit(64, 64, (7, 1)),
            conv_unit(64, 96, 3, padding="valid"),
        )

    def forward(self, x):
        return torch.cat([self.three(x), self.seven_three(x)], dim=1)


class InceptionV4A(nn.Module):
    """The block at 35x35.

    Shape:
        (N, 384, H, W) -> (N, 384, H, W)

    Source:
        Szegedy et al. 2017, figure 4.
    """

    def __init__(self):
        super().__init__()
        self.one = conv_unit(384, 96, 1)
        self.three = nn.Sequential(conv_unit(384, 64, 1), conv_unit(64, 96, 3))
        self.double_three = nn.Sequential(
            conv_unit(384, 64, 1), conv_unit(64, 96, 3), conv_unit(96, 96, 3)
        )
        self.pool = average_pool(384, 96)

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.double_three(x), self.pool(x)], dim=1)


class ReductionA(nn.Module):
    """The reduction from 35x35 to 17x17, shared by both networks.

    Shape:
        (N, in_channels, H, W)
        -> (N, n + m + in_channels, floor((H - 1) / 2), floor((W - 1) / 2))

    Args:
        in_channels: In channels.
        widths: Table 1's (k, l, m, n): the three convolutions of the deep arm, and the shallow one.

    Raises:
        ValueError: `in_channels` or one of the widths is not a whole number from 1.

    Source:
        Szegedy et al. 2017, figure 7 and table 1.
    """

    def __init__(self, in_channels, widths):
        super().__init__()
        check_table("widths", widths, (int, int, int, int), (192, 224, 256, 384))
        k, l, m, n = widths  # noqa: E741  the letters of table 1
        self.three = conv_unit(in_channels, n, 3, stride=2, padding="valid")
        self.double_three = nn.Sequential(
            conv_unit(in_channels, k, 1),
            conv_unit(k, l, 3),
            conv_unit(l, m, 3, stride=2, padding="valid"),
        )
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x):
        return torch.cat([self.three(x), self.double_three(x), self.pool(x)], dim=1)


class InceptionV4B(nn.Module):
    """The block at 17x17.

    Shape:
        (N, 1024, H, W) -> (N, 1024, H, W)

    Source:
        Szegedy et al. 2017, figure 5, with flat and tall kernels ordered as in the published code.
    """

    def __init__(self):
        super().__init__()
        self.one = conv_unit(1024, 384, 1)
        self.seven = nn.Sequential(
            conv_unit(1024, 192, 1), conv_unit(192, 224, (1, 7)), conv_unit(224, 256, (7, 1))
        )
        self.double_seven = nn.Sequential(
            conv_unit(1024, 192, 1),
            conv_unit(192, 192, (7, 1)),
            conv_unit(192, 224, (1, 7)),
            conv_unit(224, 224, (7, 1)),
            conv_unit(224, 256, (1, 7)),
        )
        self.pool = average_pool(1024, 128)

    def forward(self, x):
        return torch.cat([self.one(x), self.seven(x), self.double_seven(x), self.pool(x)], dim=1)


class ReductionV4B(nn.Module):
    """The reduction from 17x17 to 8x8 of Inception-v4.

    Shape:
        (N, 1024, H, W) -> (N, 1536, floor((H - 1) / 2), floor((W - 1) / 2))

    Source:
        Szegedy et al. 2017, figure 8.
    """

    def __init__(self):
        super().__init__()
        self.three = nn.Sequential(
            conv_unit(1024, 192, 1), conv_unit(192, 192, 3, stride=2, padding="valid")
        )
        self.seven_three = nn.Sequential(
            conv_unit(1024, 256, 1),
            conv_unit(256, 256, (1, 7)),
            conv_unit(256, 320, (7, 1)),
            conv_unit(320, 320, 3, stride=2, padding="valid"),
        )
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x):
        return torch.cat([self.three(x), self.seven_three(x), self.pool(x)], dim=1)


class InceptionV4C(nn.Module):
    """The block at 8x8, two arms of which end in a fork.

    Shape:
        (N, 1536, H, W) -> (N, 1536, H, W)

    Source:
        Szegedy et al. 2017, figure 6.
    """

    def __init__(self):
        super().__init__()
        self.one = conv_unit(1536, 256, 1)
        self.three = nn.Sequential(conv_unit(1536, 384, 1), Fork(384, 256))
        self.double_three = nn.Sequential(
            conv_unit(1536, 384, 1),
            conv_unit(384, 448, (3, 1)),
            conv_unit(448, 512, (1, 3)),
            Fork(512, 256),
        )
        self.pool = average_pool(1536, 256)

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.double_three(x), self.pool(x)], dim=1)


class InceptionResNetStem(nn.Module):
    """The block that ends the stem of Inception-ResNet-v2.

    Shape:
        (N, 192, H, W) -> (N, 320, H, W)

    Source:
        The published code. The paper's figure has the stem of Inception-v4 here.
    """

    def __init__(self):
        super().__init__()
        self.one = conv_unit(192, 96, 1)
        self.five = nn.Sequential(conv_unit(192, 48, 1), conv_unit(48, 64, 5))
        self.double_three = nn.Sequential(
            conv_unit(192, 64, 1), conv_unit(64, 96, 3), conv_unit(96, 96, 3)
        )
        self.pool = average_pool(192, 64)

    def forward(self, x):
        return torch.cat([self.one(x), self.five(x), self.double_three(x), self.pool(x)], dim=1)


class InceptionResNetA(nn.Module):
    """Three arms, concatenated, projected by a 1x1 to the channels of the input, and added to it.

    Shape:
        (N, 320, H, W) -> (N, 320, H, W)

    Args:
        scale: Factor of the residual before the addition. Without it, networks this wide diverge.

    Raises:
        ValueError: `scale` is not a finite number from 0.

    Source:
        Szegedy et al. 2017, figures 16 and 20.
    """

    def __init__(self, scale=0.17):
        super().__init__()
        check_number("scale", scale, usual=0.17, least=0)
        self.scale = scale
        self.one = conv_unit(320, 32, 1)
        self.three = nn.Sequential(conv_unit(320, 32, 1), conv_unit(32, 32, 3))
        self.double_three = nn.Sequential(
            conv_unit(320, 32, 1), conv_unit(32, 48, 3), conv_unit(48, 64, 3)
        )
        self.expand = nn.Conv2d(128, 320, 1)

    def forward(self, x):
        arms = torch.cat([self.one(x), self.three(x), self.double_three(x)], dim=1)
        return F.relu(x + self.scale * self.expand(arms))


class InceptionResNetB(nn.Module):
    """The residual block at 17x17.

    Shape:
        (N, 1088, H, W) -> (N, 1088, H, W)

    Args:
        scale: As in `InceptionResNetA`.

    Raises:
        ValueError: `scale` is not a finite number from 0.

    Source:
        Szegedy et al. 2017, figures 17 and 20.
    """

    def __init__(self, scale=0.10):
        super().__init__()
        check_number("scale", scale, usual=0.10, least=0)
        self.scale = scale
        self.one = conv_unit(1088, 192, 1)
        self.seven = nn.Sequential(
            conv_unit(1088, 128, 1), conv_unit(128, 160, (1, 7)), conv_unit(160, 192, (7, 1))
        )
        self.expand = nn.Conv2d(384, 1088, 1)

    def forward(self, x):
        arms = torch.cat([self.one(x), self.seven(x)], dim=1)
        return F.relu(x + self.scale * self.expand(arms))


class ReductionResNetB(nn.Module):
    """The reduction from 17x17 to 8x8 of Inception-ResNet-v2.

    Shape:
        (N, 1088, H, W) -> (N, 2080, floor((H - 1) / 2), floor((W - 1) / 2))

    Source:
        Szegedy et al. 2017, figure 18.
    """

    def __init__(self):
        super().__init__()
        self.three = nn.Sequential(
            conv_unit(1088, 256, 1), conv_unit(256, 384, 3, stride=2, padding="valid")
        )
        self.narrow_three = nn.Sequential(
            conv_unit(1088, 256, 1), conv_unit(256, 288, 3, stride=2, padding="valid")
        )
        self.double_three = nn.Sequential(
            conv_unit(1088, 256, 1),
            conv_unit(256, 288, 3),
            conv_unit(288, 320, 3, stride=2, padding="valid"),
        )
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x):
        return torch.cat(
            [self.three(x), self.narrow_three(x), self.double_three(x), self.pool(x)], dim=1
        )


class InceptionResNetC(nn.Module):
    """The residual block at 8x8.

    Shape:
        (N, 2080, H, W) -> (N, 2080, H, W)

    Args:
        scale: As in `InceptionResNetA`.
        last: Whether it is the last block, which adds the unscaled residual without a ReLU.

    Raises:
        ValueError: `scale` is not a finite number from 0, or `last` is not True or False.

    Source:
        Szegedy et al. 2017, figures 19 and 20.
    """

    def __init__(self, scale=0.20, last=False):
        super().__init__()
        check_number("scale", scale, usual=0.20, least=0)
        check_flags(last=last)
        self.scale, self.last = scale, last
        self.one = conv_unit(2080, 192, 1)
        self.three = nn.Sequential(
            conv_unit(2080, 192, 1), conv_unit(192, 224, (1, 3)), conv_unit(224, 256, (3, 1))
        )
        self.expand = nn.Conv2d(448, 2080, 1)

    def forward(self, x):
        residual = self.expand(torch.cat([self.one(x), self.three(x)], dim=1))
        return x + residual if self.last else F.relu(x + self.scale * residual)

"""The repeated parts of VGG and Network in Network."""

from torch import nn

from cnnlib._checks import check_count
from cnnlib.blocks.arguments import check_counts


def vgg_group(in_channels, out_channels, convolutions):
    """Build 3x3 convolutions, each followed by a ReLU, and a pooling that halves the size.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, floor(H / 2), floor(W / 2))

    Raises:
        ValueError: A count is not a whole number from 1.
    """
    check_counts(in_channels=in_channels, out_channels=out_channels, convolutions=convolutions)
    group = nn.Sequential()
    for _ in range(convolutions):
        group.append(nn.Conv2d(in_channels, out_channels, 3, padding=1))
        group.append(nn.ReLU())
        in_channels = out_channels
    return group.append(nn.MaxPool2d(2))


def nin_unit(in_channels, out_channels, kernel, stride=1, padding=0):
    """Build a convolution and two 1x1 convolutions, each followed by a ReLU.

    The 1x1 convolutions are two linear layers, applied to each position separately.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, floor((H + 2 padding - kernel) / stride) + 1,
        likewise for W)

    Raises:
        ValueError: A count is not a whole number from 1, or the padding is not one from 0.
    """
    check_counts(in_channels=in_channels, out_channels=out_channels, kernel=kernel, stride=stride)
    check_count("padding", padding, least=0, usual=0)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 1),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 1),
        nn.ReLU(),
    )

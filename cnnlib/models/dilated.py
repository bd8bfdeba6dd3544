"""A small network that gives each pixel a class and widens its field by dilation alone."""

from torch import nn

from cnnlib.blocks.dilated import dilated_conv


def dilated_net(in_channels=1, num_classes=10, rates=(1, 2, 5), width=16):
    """Build a network of dilated 3x3 convolutions that work at half resolution throughout.

    The first layer turns patches of 2x2 pixels into positions. The last one scores each position,
    and its four pixels share the scores. So a hole that the rates leave in the field is a hole in
    the image. Parameters and multiplications do not depend on the rates.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes, H, W), for even H and W

    Args:
        in_channels: Channels of the image: 1 for grey, 3 for colour.
        num_classes: Classes of a pixel, background included.
        rates: The rate of each 3x3 convolution, input first, in positions of 2x2 pixels.
        width: Channels between the layers.

    Source:
        Wang et al. 2018, section 3.2, for the rates.

    Departures:
        The paper sets the rates in a ResNet. Here nothing but them widens the field.
    """
    stem = nn.Sequential(
        nn.Conv2d(in_channels, width, 2, stride=2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
    stack = nn.Sequential(*(dilated_conv(width, width, rate) for rate in rates))
    # A transposed convolution would print a pattern of its own over that of the rates.
    head = nn.Sequential(nn.Conv2d(width, num_classes, 1), nn.Upsample(scale_factor=2))
    return nn.Sequential(stem, stack, head)

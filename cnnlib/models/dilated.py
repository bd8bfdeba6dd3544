"""A small segmentation network that widens its field by dilation alone."""

from torch import nn

from cnnlib.blocks.dilated import dilated_conv


def dilated_net(in_channels=1, num_classes=10, rates=(1, 2, 5), width=16):
    """Build a network of dilated 3x3 convolutions at half resolution.
    """
    stem = nn.Sequential(nn.Conv2d(in_channels, width, 2, stride=2, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
    stack = nn.Sequential(*(dilated_conv(width, width, rate) for rate in rates))
    head = nn.ConvTranspose2d(width, num_classes, 2, stride=2)
    return nn.Sequential(stem, stack, head)

"""Dilated convolutions: a wider receptive field for the same parameters, at full resolution."""

from torch import nn

from cnnlib.blocks.arguments import check_counts


def dilated_conv(in_channels, out_channels, rate):
    """Build a dilated 3x3 convolution followed by batch normalisation and a ReLU.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, H, W), since the padding equals the rate

    Args:
        in_channels: In channels.
        out_channels: Out channels.
        rate: Pixels from one tap to the next. 1 is the ordinary convolution.

    Raises:
        ValueError: A count is not a whole number from 1.

    Source:
        Yu and Koltun 2016, section 2.
    """
    check_counts(in_channels=in_channels, out_channels=out_channels, rate=rate)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=rate, dilation=rate, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )

"""The parts of the U-Net of Ronneberger et al. 2015: double convolution and the step up."""

import torch
from torch import nn

from cnnlib._checks import check_flags, shown
from cnnlib.blocks.arguments import check_counts
from cnnlib.blocks.conv import conv_bn_relu


def double_conv(in_channels, out_channels, padded=True):
    """Build two 3x3 convolutions, each followed by a ReLU.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, H, W), or (H - 4, W - 4) unpadded

    Args:
        in_channels: In channels.
        out_channels: Out channels.
        padded: Whether to pad each convolution by 1 and to normalise after it.

    Raises:
        ValueError: A count is not a whole number from 1, or a flag is not True or False.

    Source:
        Ronneberger et al. 2015, figure 1, the blue arrows.

    Departures:
        The paper has the unpadded form. Most code today pads and uses batch normalisation.
    """
    check_counts(in_channels=in_channels, out_channels=out_channels)
    check_flags(padded=padded)
    if padded:
        return nn.Sequential(
            conv_bn_relu(in_channels, out_channels, 3),
            conv_bn_relu(out_channels, out_channels, 3),
        )
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3),
        nn.ReLU(inplace=True),
    )


def check_crop(images, size):
    """Refuse images that are no batch, and a size that does not lie within them."""
    sides = getattr(images, "shape", ())[2:]
    is_pair = isinstance(size, tuple | list) and len(size) == 2
    if len(sides) != 2 or not is_pair or not all(hasattr(side, "__index__") for side in size):
        raise ValueError(
            f"size={shown(size)} must be (height, width), and images a batch: try (28, 28)"
        )
    if any(new < 1 or new > old for old, new in zip(sides, size, strict=True)):
        raise ValueError(f"size={shown(size)} must lie within the images: try {tuple(sides)}")


def center_crop(images, size):
    """Crop images to their centre. If the margins cannot be equal, the end loses one more pixel.

    Shape:
        (N, C, >= H, >= W) -> (N, C, H, W)

    Args:
        images: A batch of images.
        size: (H, W) in pixels.

    Raises:
        ValueError: `images` is not a batch, or the size does not lie within it.
    """
    check_crop(images, size)
    top, left = ((old - new) // 2 for old, new in zip(images.shape[2:], size, strict=True))
    height, width = size
    return images[..., top : top + height, left : left + width]


class UpStep(nn.Module):
    """A 2x2 transposed convolution with stride 2, joined by the skip, and two 3x3 convolutions.

    Shape:
        (N, in_channels, H, W) and a skip (N, out_channels, >= 2H, >= 2W)
        -> (N, out_channels, 2H, 2W), or (2H - 4, 2W - 4) unpadded

    Raises:
        ValueError: A count is not a whole number from 1, or a flag is not True or False.

    Source:
        Ronneberger et al. 2015, figure 1: one green, one grey and two blue arrows. The grey one,
        "copy and crop", keeps the centre of the skip; the padded form has nothing to crop.
    """

    def __init__(self, in_channels, out_channels, padded=True):
        super().__init__()
        in_channels, out_channels = check_counts(in_channels=in_channels, out_channels=out_channels)
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.convs = double_conv(2 * out_channels, out_channels, padded)

    def forward(self, x, skip):
        x = self.up(x)
        skip = center_crop(skip, x.shape[2:])
        return self.convs(torch.cat([skip, x], dim=1))


class PlainUpStep(nn.Module):
    """An UpStep without the skip: everything that it reads has passed the bottom of the U.

    The transposed convolution also makes the channels that the skip would bring. So the other
    convolutions keep their size, and the step has no fewer parameters than an UpStep.

    Shape:
        (N, in_channels, H, W) and a skip that is ignored
        -> (N, out_channels, 2H, 2W), or (2H - 4, 2W - 4) unpadded

    Raises:
        ValueError: A count is not a whole number from 1, or a flag is not True or False.
    """

    def __init__(self, in_channels, out_channels, padded=True):
        super().__init__()
        in_channels, out_channels = check_counts(in_channels=in_channels, out_channels=out_channels)
        self.up = nn.ConvTranspose2d(in_channels, 2 * out_channels, 2, stride=2)
        self.convs = double_conv(2 * out_channels, out_channels, padded)

    def forward(self, x, skip):
        return self.convs(self.up(x))

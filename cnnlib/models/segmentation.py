"""Networks that classify each pixel: the U-Net, and one that widens its view by dilation."""

import torch
from torch import nn

from cnnlib._checks import check_flags
from cnnlib.blocks.arguments import check_builders, check_built, check_counts, check_table
from cnnlib.blocks.dilated import dilated_conv
from cnnlib.blocks.unet import PlainUpStep, UpStep, double_conv


class UNet(nn.Module):
    """Four steps down, four steps up, and skip connections across.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes, H, W), or (H - 184, W - 184) unpadded

    Args:
        up_step: The class of the step up, called with (in_channels, out_channels, padded).
        width: Channels at full resolution. Each step down doubles them.
        padded: As in `double_conv`.
        in_channels: Channels of the image: 1 for grey, 3 for colour.
        num_classes: Classes of a pixel, background included.

    Raises:
        ValueError: In `forward`, if the image cannot be halved evenly four times.

    Source:
        Ronneberger et al. 2015, figure 1.

    Departures:
        The paper has dropout at the bottom of the U; here there is none.
    """

    def __init__(self, up_step, width=64, padded=True, in_channels=1, num_classes=10):
        super().__init__()
        in_channels, num_classes, width = check_counts(
            in_channels=in_channels, num_classes=num_classes, width=width
        )
        check_flags(padded=padded)
        check_builders(up_step=up_step)
        c1, c2, c3, c4, c5 = width, 2 * width, 4 * width, 8 * width, 16 * width
        self.padded = padded
        self.down1 = double_conv(in_channels, c1, padded)
        self.down2 = double_conv(c1, c2, padded)
        self.down3 = double_conv(c2, c3, padded)
        self.down4 = double_conv(c3, c4, padded)
        self.bottom = double_conv(c4, c5, padded)
        self.pool = nn.MaxPool2d(2)
        self.up4 = up_step(c5, c4, padded)
        check_built(up_step=self.up4)
        self.up3 = up_step(c4, c3, padded)
        self.up2 = up_step(c3, c2, padded)
        self.up1 = up_step(c2, c1, padded)
        self.head = nn.Conv2d(c1, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x):
        _check_size(x, self.padded)
        skip1 = self.down1(x)
        skip2 = self.down2(self.pool(skip1))
        skip3 = self.down3(self.pool(skip2))
        skip4 = self.down4(self.pool(skip3))
        x = self.bottom(self.pool(skip4))
        x = self.up4(x, skip4)
        x = self.up3(x, skip3)
        x = self.up2(x, skip2)
        x = self.up1(x, skip1)
        return self.head(x)


def _sides(images: torch.Tensor) -> list[tuple[str, int]]:
    """Return the height and the width of images by name, or refuse what is no batch."""
    shape = tuple(getattr(images, "shape", ()))
    if len(shape) != 4:
        raise ValueError(
            f"images of shape {shape} must be (N, channels, height, width): try images[None]"
        )
    return [("height", shape[2]), ("width", shape[3])]


def _check_size(images: torch.Tensor, padded: bool) -> None:
    """Refuse images whose maps would differ in size where a skip connection joins them.

    Padded, each side must be a multiple of 16. Unpadded, each double convolution removes 4 pixels:
    a side of 188 becomes 4, and every 16 additional pixels give 16 more.
    """
    smallest = 16 if padded else 188
    for name, side in _sides(images):
        if side < smallest or (side - smallest) % 16:
            steps = max(0, -(-(side - smallest) // 16))
            rule = "a multiple of 16" if padded else "188 plus a multiple of 16"
            raise ValueError(
                f"{name}={side} must be {rule}: pad the images to {smallest + 16 * steps}"
            )


def unet(
    in_channels: int = 1,
    num_classes: int = 10,
    width: int = 64,
    padded: bool = True,
    skips: bool = True,
) -> UNet:
    """Build a U-Net.

    Args:
        in_channels: Channels of the image: 1 for grey, 3 for colour.
        num_classes: Classes of a pixel, background included.
        width: Channels at full resolution, 64 in the paper.
        padded: True keeps the size, with batch normalisation. False is the network of the paper,
            whose output is 184 pixels smaller than its input.
        skips: Whether to have the skip connections; without them each step up is a `PlainUpStep`.
    """
    check_flags(skips=skips)
    return UNet(UpStep if skips else PlainUpStep, width, padded, in_channels, num_classes)


class PatchStem(nn.Sequential):
    """The layers that turn patches of 2x2 pixels into positions; they leave no pixel over.

    Shape:
        (N, in_channels, H, W) -> (N, width, H / 2, W / 2), for even H and W

    Raises:
        ValueError: In `forward`, if a side of the image is odd.
    """

    def forward(self, images):
        for name, side in _sides(images):
            if side % 2:
                raise ValueError(f"{name}={side} must be even: pad the images to {side + 1}")
        return super().forward(images)


def dilated_net(
    in_channels: int = 1, num_classes: int = 10, rates=(1, 2, 5), width: int = 16
) -> nn.Sequential:
    """Build a network of dilated 3x3 convolutions that work at half resolution throughout.

    The first layer turns patches of 2x2 pixels into positions. The last one scores each position,
    and its four pixels share the scores. So a hole in the receptive field of the rates is a hole in
    the image. Parameters and multiplications do not depend on the rates.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes, H, W), for even H and W

    Args:
        in_channels: Channels of the image: 1 for grey, 3 for colour.
        num_classes: Classes of a pixel, background included.
        rates: The rate of each 3x3 convolution, from input to output, in positions of 2x2 pixels.
        width: Channels between the layers.

    Raises:
        ValueError: In `forward`, if a side of the image is odd.

    Source:
        Wang et al. 2018, section 3.2, for the rates.

    Departures:
        The paper sets the rates in a ResNet. Here nothing else widens the receptive field.
    """
    in_channels, num_classes, width = check_counts(
        in_channels=in_channels, num_classes=num_classes, width=width
    )
    rates = check_table("rates", rates, [int], (1, 2, 5))
    stem = PatchStem(
        nn.Conv2d(in_channels, width, 2, stride=2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
    stack = nn.Sequential(*(dilated_conv(width, width, rate) for rate in rates))
    # A transposed convolution would add a pattern of its own to that of the rates.
    head = nn.Sequential(nn.Conv2d(width, num_classes, 1), nn.Upsample(scale_factor=2))
    return nn.Sequential(stem, stack, head)

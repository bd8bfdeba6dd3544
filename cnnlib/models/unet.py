"""The U-Net of Ronneberger et al. 2015, which gives each pixel a class."""

from torch import nn

from cnnlib.blocks.unet import PlainUpStep, UpStep, double_conv


class UNet(nn.Module):
    """Four steps down, four steps up, and skips across.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes, H, W), or (H - 184, W - 184) unpadded

    Args:
        up_step: The class of the step up, called with (in_channels, out_channels, padded).
        width: Channels at full resolution. Each step down doubles them.
        padded: As in `double_conv`.
        in_channels: Channels of the image: 1 for grey, 3 for colour.
        num_classes: Classes of a pixel, background included.

    Raises:
        ValueError: In `forward`: the image does not halve evenly four times.

    Source:
        Ronneberger et al. 2015, figure 1.

    Departures:
        The paper drops out features at the bottom of the U; here nothing is dropped.
    """

    def __init__(self, up_step, width=64, padded=True, in_channels=1, num_classes=10):
        super().__init__()
        c1, c2, c3, c4, c5 = width, 2 * width, 4 * width, 8 * width, 16 * width
        self.padded = padded
        self.down1 = double_conv(in_channels, c1, padded)
        self.down2 = double_conv(c1, c2, padded)
        self.down3 = double_conv(c2, c3, padded)
        self.down4 = double_conv(c3, c4, padded)
        self.bottom = double_conv(c4, c5, padded)
        self.pool = nn.MaxPool2d(2)
        self.up4 = up_step(c5, c4, padded)
        self.up3 = up_step(c4, c3, padded)
        self.up2 = up_step(c3, c2, padded)
        self.up1 = up_step(c2, c1, padded)
        self.head = nn.Conv2d(c1, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x):
        check_size(x, self.padded)
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


def check_size(images, padded):
    """Refuse images that do not halve evenly four times: their maps would not meet when they join.

    Padded, a side is a multiple of 16. Unpadded, it loses 4 pixels at each double convolution: 188
    pixels leave 4, and 16 more leave 16 more.
    """
    smallest = 16 if padded else 188
    for name, side in zip(("height", "width"), images.shape[2:], strict=True):
        if side < smallest or (side - smallest) % 16:
            steps = max(0, -(-(side - smallest) // 16))
            rule = "a multiple of 16" if padded else "188 plus a multiple of 16"
            raise ValueError(
                f"{name}={side} must be {rule}: pad the images to {smallest + 16 * steps}"
            )


def unet(in_channels=1, num_classes=10, width=64, padded=True, skips=True):
    """Build a U-Net.

    Args:
        in_channels: Channels of the image: 1 for grey, 3 for colour.
        num_classes: Classes of a pixel, background included.
        width: Channels at full resolution, 64 in the paper.
        padded: True keeps the size, with batch normalisation. False is the paper's net, whose
            output is 184 pixels smaller than its input.
        skips: False leaves out the skip connections, as `PlainUpStep` has it.
    """
    return UNet(UpStep if skips else PlainUpStep, width, padded, in_channels, num_classes)

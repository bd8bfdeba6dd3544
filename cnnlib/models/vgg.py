"""The VGG networks: groups of 3x3 convolutions, a pooling after each."""

from torch import nn

from cnnlib.blocks.classic import vgg_group
from cnnlib.blocks.conv import he_init

# Simonyan and Zisserman 2015, table 1, columns A and D: (convolutions, channels) for each group.
GROUPS_11 = [(1, 64), (1, 128), (2, 256), (2, 512), (2, 512)]
GROUPS_16 = [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]
# Column A with a quarter of the channels: enough for small grey images, at a fifteenth of the cost.
GROUPS_11_QUARTER = [(1, 16), (1, 32), (2, 64), (2, 128), (2, 128)]


class VGG(nn.Module):
    """Five groups of convolutions and three linear layers, for 224x224 images.

    Shape:
        (N, in_channels, 224, 224) -> (N, num_classes)

    Args:
        groups: The table: (convolutions, channels) for each group.
        in_channels: Channels of the image: 1 for grey, 3 for colour.
        num_classes: Classes to tell apart.

    Source:
        Simonyan and Zisserman 2015, table 1.

    Departures:
        Convolutions start as He et al. 2015 have it. The paper trained its deep columns from the
        weights of the shallow one, since from small random weights they did not learn.
    """

    def __init__(self, groups, in_channels=1, num_classes=10):
        super().__init__()
        self.groups = nn.Sequential()
        for convolutions, channels in groups:
            self.groups.append(vgg_group(in_channels, channels, convolutions))
            in_channels = channels
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(in_channels * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, num_classes),
        )
        he_init(self)

    def forward(self, x):
        return self.head(self.groups(x))


def vgg11(in_channels=1, num_classes=10):
    """Build VGG-11: 8 convolutions and 3 linear layers."""
    return VGG(GROUPS_11, in_channels, num_classes)


def vgg16(in_channels=1, num_classes=10):
    """Build VGG-16: 13 convolutions and 3 linear layers."""
    return VGG(GROUPS_16, in_channels, num_classes)


def vgg11_quarter(in_channels=1, num_classes=10):
    """Build VGG-11 with a quarter of the channels; the linear layers keep their 4,096."""
    return VGG(GROUPS_11_QUARTER, in_channels, num_classes)

"""The residual networks of He et al. 2016, table 1, and their plain companions."""

from torch import nn

from cnnlib.blocks.conv import conv_bn_relu, he_init
from cnnlib.blocks.residual import BasicBlock, Bottleneck, PlainBlock

# He et al. 2016, table 1: (blocks, channels that leave each block) for stages conv2_x to conv5_x.
LAYERS_18 = [(2, 64), (2, 128), (2, 256), (2, 512)]
LAYERS_34 = [(3, 64), (4, 128), (6, 256), (3, 512)]
LAYERS_50 = [(3, 256), (4, 512), (6, 1024), (3, 2048)]
LAYERS_101 = [(3, 256), (4, 512), (23, 1024), (3, 2048)]
LAYERS_152 = [(3, 256), (8, 512), (36, 1024), (3, 2048)]


def stage(block, in_channels, out_channels, blocks, stride):
    """Stack `blocks` blocks; the first one changes channels and size.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))
    """
    first = block(in_channels, out_channels, stride)
    return nn.Sequential(first, *(block(out_channels, out_channels) for _ in range(blocks - 1)))


class ResNet(nn.Module):
    """A stem, four stages of one block, global average pooling, one linear layer.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes); the last stage works at H / 32 x W / 32

    Args:
        block: The class of the block, called with (in_channels, out_channels, stride).
        layers: A row of table 1: (blocks, channels) for each of the four stages.
        in_channels: Channels of the image: 1 for grey, 3 for colour.
        num_classes: Classes to tell apart.

    Source:
        He et al. 2016, table 1.
    """

    def __init__(self, block, layers, in_channels=1, num_classes=10):
        super().__init__()
        (n2, c2), (n3, c3), (n4, c4), (n5, c5) = layers
        self.stem = nn.Sequential(
            conv_bn_relu(in_channels, 64, 7, stride=2),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.stage2 = stage(block, 64, c2, n2, stride=1)
        self.stage3 = stage(block, c2, c3, n3, stride=2)
        self.stage4 = stage(block, c3, c4, n4, stride=2)
        self.stage5 = stage(block, c4, c5, n5, stride=2)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c5, num_classes))
        he_init(self)

    def forward(self, x):
        x = self.stem(x)
        x = self.stage2(x)
        x = self.stage3(x)
        x = self.stage4(x)
        x = self.stage5(x)
        return self.head(x)


def plain18(in_channels=1, num_classes=10):
    """Build the 18-layer network without shortcuts."""
    return ResNet(PlainBlock, LAYERS_18, in_channels, num_classes)


def plain34(in_channels=1, num_classes=10):
    """Build the 34-layer network without shortcuts."""
    return ResNet(PlainBlock, LAYERS_34, in_channels, num_classes)


def resnet18(in_channels=1, num_classes=10):
    """Build ResNet-18."""
    return ResNet(BasicBlock, LAYERS_18, in_channels, num_classes)


def resnet34(in_channels=1, num_classes=10):
    """Build ResNet-34."""
    return ResNet(BasicBlock, LAYERS_34, in_channels, num_classes)


def resnet50(in_channels=1, num_classes=10):
    """Build ResNet-50: (3 + 4 + 6 + 3) x 3 + 2 layers."""
    return ResNet(Bottleneck, LAYERS_50, in_channels, num_classes)


def resnet101(in_channels=1, num_classes=10):
    """Build ResNet-101."""
    return ResNet(Bottleneck, LAYERS_101, in_channels, num_classes)


def resnet152(in_channels=1, num_classes=10):
    """Build ResNet-152."""
    return ResNet(Bottleneck, LAYERS_152, in_channels, num_classes)

"""The residual networks of He et al. 2016 and their plain companions: one skeleton, many tables."""

from numbers import Integral

from torch import nn

from cnnlib._checks import shown
from cnnlib.blocks.arguments import check_builders, check_built, check_counts, check_table
from cnnlib.blocks.conv import conv_bn_relu, he_init
from cnnlib.blocks.residual import BasicBlock, Bottleneck, PlainBlock, PreActBlock, bn_relu

# He et al. 2016, table 1: out channels of the stem, then (blocks, out channels) for each of the
# stages conv2_x to conv5_x.
LAYERS_18 = [64, (2, 64), (2, 128), (2, 256), (2, 512)]
LAYERS_34 = [64, (3, 64), (4, 128), (6, 256), (3, 512)]
LAYERS_50 = [64, (3, 256), (4, 512), (6, 1024), (3, 2048)]
LAYERS_101 = [64, (3, 256), (4, 512), (23, 1024), (3, 2048)]
LAYERS_152 = [64, (3, 256), (8, 512), (36, 1024), (3, 2048)]


def stem_7x7(in_channels: int, out_channels: int) -> nn.Sequential:
    """Build the stem for large images: a 7x7 convolution and a pooling, each with stride 2.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / 4), ceil(W / 4))
    """
    return nn.Sequential(
        conv_bn_relu(in_channels, out_channels, 7, stride=2),
        nn.MaxPool2d(3, stride=2, padding=1),
    )


def stem_3x3(in_channels: int, out_channels: int) -> nn.Sequential:
    """Build the stem for small images: one 3x3 convolution that keeps the size.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, H, W)
    """
    return conv_bn_relu(in_channels, out_channels, 3)


def stage(block, in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Stack blocks, the first of which changes the channels and the size.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))
    """
    check_builders(block=block)
    check_counts(blocks=blocks)
    first = block(in_channels, out_channels, stride)
    check_built(block=first)
    return nn.Sequential(first, *(block(out_channels, out_channels) for _ in range(blocks - 1)))


class ResNet(nn.Module):
    """A stem, stages of one block, global average pooling, one linear layer.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes). The first stage keeps the size of the stem's
        output, and each later one halves it.

    Args:
        block: The class of the block, or any function that builds one from (in_channels,
            out_channels, stride=1).
        layers: The table: channels of the stem, then (blocks, channels) for each stage.
        in_channels: Channels of the image: 1 for grey, 3 for colour.
        num_classes: Number of classes.
        stem: A function that builds the stem from (in_channels, out_channels).
        last_stride: Stride of the last stage, if it is not the only one. 1 keeps its rows and
            columns, for tasks that need to know not only what there is but also where.

    Source:
        He et al. 2016, table 1. last_stride=1: Sun et al. 2018, section 3.1.
    """

    def __init__(self, block, layers, in_channels=1, num_classes=10, stem=stem_7x7, last_stride=2):
        super().__init__()
        in_channels, num_classes, last_stride = check_counts(
            in_channels=in_channels, num_classes=num_classes, last_stride=last_stride
        )
        check_builders(block=block, stem=stem)
        channels, *table = check_table("layers", layers, [int, (int, int)], LAYERS_18)
        strides = [1, *[2] * (len(table) - 2), last_stride][: len(table)]
        self.stem = stem(in_channels, channels)
        check_built(stem=self.stem)
        self.stages = nn.Sequential()
        for (blocks, out_channels), stride in zip(table, strides, strict=True):
            self.stages.append(stage(block, channels, out_channels, blocks, stride))
            channels = out_channels
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)
        )
        he_init(self)

    def forward(self, x):
        return self.head(self.stages(self.stem(x)))


def plain18(in_channels: int = 1, num_classes: int = 10) -> ResNet:
    """Build the 18-layer network without shortcuts."""
    return ResNet(PlainBlock, LAYERS_18, in_channels, num_classes)


def plain34(in_channels: int = 1, num_classes: int = 10) -> ResNet:
    """Build the 34-layer network without shortcuts."""
    return ResNet(PlainBlock, LAYERS_34, in_channels, num_classes)


def resnet18(in_channels: int = 1, num_classes: int = 10, last_stride: int = 2) -> ResNet:
    """Build ResNet-18."""
    return ResNet(BasicBlock, LAYERS_18, in_channels, num_classes, last_stride=last_stride)


def resnet34(in_channels: int = 1, num_classes: int = 10, last_stride: int = 2) -> ResNet:
    """Build ResNet-34."""
    return ResNet(BasicBlock, LAYERS_34, in_channels, num_classes, last_stride=last_stride)


def resnet50(in_channels: int = 1, num_classes: int = 10, last_stride: int = 2) -> ResNet:
    """Build ResNet-50: (3 + 4 + 6 + 3) x 3 + 2 layers."""
    return ResNet(Bottleneck, LAYERS_50, in_channels, num_classes, last_stride=last_stride)


def resnet101(in_channels: int = 1, num_classes: int = 10, last_stride: int = 2) -> ResNet:
    """Build ResNet-101."""
    return ResNet(Bottleneck, LAYERS_101, in_channels, num_classes, last_stride=last_stride)


def resnet152(in_channels: int = 1, num_classes: int = 10, last_stride: int = 2) -> ResNet:
    """Build ResNet-152."""
    return ResNet(Bottleneck, LAYERS_152, in_channels, num_classes, last_stride=last_stride)


def stem_bare(in_channels: int, out_channels: int) -> nn.Sequential:
    """Build the large stem of a pre-activation network: no normalisation, no ReLU.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / 4), ceil(W / 4))
    """
    check_counts(in_channels=in_channels, out_channels=out_channels)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 7, stride=2, padding=3, bias=False),
        nn.MaxPool2d(3, stride=2, padding=1),
    )


def preact_resnet18(in_channels: int = 1, num_classes: int = 10) -> ResNet:
    """Build ResNet-18 of pre-activation blocks.

    No normalisation and ReLU follow the last sum, so the head begins with them.

    Source:
        He et al. 2016b (Identity Mappings in Deep Residual Networks), appendix.
    """
    net = ResNet(PreActBlock, LAYERS_18, in_channels, num_classes, stem=stem_bare)
    net.head.insert(0, bn_relu(512))
    return net


def cifar_resnet(
    in_channels: int = 1, num_classes: int = 10, depth: int = 20, block=BasicBlock
) -> ResNet:
    """Build a network of 6n + 2 layers for images of about 32 pixels: 20, 32, 44, 56, 110.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes); the stages work at H, H / 2 and H / 4

    Args:
        in_channels: Channels of the image: 1 for grey, 3 for colour.
        num_classes: Number of classes.
        depth: Convolutions of the stem and the residuals, and the linear layer.
        block: BasicBlock, or PlainBlock for the network without shortcuts.

    Raises:
        ValueError: `depth` is not 6n + 2, from 8 to 1,202.

    Source:
        He et al. 2016, section 4.2.

    Departures:
        The paper's shortcuts fill new channels with zeros (option A); these project (option B).
    """
    whole = isinstance(depth, Integral)
    nearest = min(max(depth - (depth - 2) % 6, 8), 1202) if whole else 20
    if not whole or depth != nearest:
        raise ValueError(
            f"depth={shown(depth)} must be 6n + 2, since three stages of n blocks have two layers "
            f"each, and at most the paper's 1,202: try {nearest}"
        )
    n = (int(depth) - 2) // 6
    layers = [16, (n, 16), (n, 32), (n, 64)]
    return ResNet(block, layers, in_channels, num_classes, stem=stem_3x3)


def mini_resnet(in_channels: int = 1, num_classes: int = 10) -> nn.Sequential:
    """Build a residual network for 28-pixel images: two convolutions with a block after each.

    Shape:
        (N, in_channels, 28, 28) -> (N, num_classes)
    """
    in_channels, num_classes = check_counts(in_channels=in_channels, num_classes=num_classes)
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        BasicBlock(16, 16),
        nn.Conv2d(16, 32, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        BasicBlock(32, 32),
        nn.Flatten(),
        nn.Linear(512, num_classes),
    )


def stem_pooled(in_channels: int, out_channels: int) -> nn.Sequential:
    """Build a stem for small images that halves them: a 3x3 convolution and a pooling.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, floor(H / 2), floor(W / 2))
    """
    return nn.Sequential(conv_bn_relu(in_channels, out_channels, 3), nn.MaxPool2d(2))


def small_resnet(in_channels: int = 1, num_classes: int = 10, width: int = 16) -> ResNet:
    """Build a residual network for 28-pixel images: a convolution, a pooling and three blocks.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes); the blocks work at H / 2, H / 4 and H / 8

    Args:
        in_channels: Channels of the image: 1 for grey, 3 for colour.
        num_classes: Number of classes.
        width: Channels of the first block; the others have two and four times as many.
    """
    [width] = check_counts(width=width)
    layers = [width, (1, width), (1, 2 * width), (1, 4 * width)]
    return ResNet(BasicBlock, layers, in_channels, num_classes, stem=stem_pooled)

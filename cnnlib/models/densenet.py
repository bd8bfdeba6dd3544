"""The densely connected networks of Huang et al. 2017, and a small one."""

from numbers import Real

from torch import nn

from cnnlib._checks import check_flags, shown
from cnnlib.blocks.arguments import check_builders, check_built, check_counts, check_table
from cnnlib.blocks.dense import DenseBlock, Transition
from cnnlib.blocks.residual import bn_relu
from cnnlib.models.resnet import stem_7x7

# Huang et al. 2017, table 1: out channels of the stem, growth rate, layers of each block.
LAYERS_121 = (64, 32, (6, 12, 24, 16))
LAYERS_169 = (64, 32, (6, 12, 32, 32))
LAYERS_201 = (64, 32, (6, 12, 48, 32))
LAYERS_161 = (96, 48, (6, 12, 36, 24))
LAYERS_D2L = (64, 32, (4, 4, 4, 4))


class DenseNet(nn.Module):
    """A stem, dense blocks with a transition between them, global average pooling, a linear layer.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes). Each transition halves the size and drops the
        last row or column of an odd size.

    Args:
        table: Channels of the stem, growth rate, and the number of layers of each block.
        in_channels: Channels of the image: 1 for grey, 3 for colour.
        num_classes: Number of classes.
        bottleneck: Whether each 3x3 has a 1x1 convolution before it (the B of DenseNet-BC).
        compression: The fraction of its channels that a transition keeps (the C, where below 1).
        stem: A function that builds the stem from (in_channels, out_channels).
        memory_efficient: Whether to save memory in training by computing more: see `DenseBlock`.

    Raises:
        ValueError: `compression` is not above 0 and at most 1, or a transition keeps no channel.

    Source:
        Huang et al. 2017, table 1, with the stem and the initial weights of the published code.
    """

    def __init__(
        self,
        table,
        in_channels=1,
        num_classes=10,
        bottleneck=True,
        compression=0.5,
        stem=stem_7x7,
        memory_efficient=False,
    ):
        super().__init__()
        in_channels, num_classes = check_counts(in_channels=in_channels, num_classes=num_classes)
        check_flags(bottleneck=bottleneck, memory_efficient=memory_efficient)
        check_builders(stem=stem)
        channels, growth_rate, blocks = check_table("table", table, (int, int, [int]), LAYERS_121)
        if not isinstance(compression, Real) or not 0 < compression <= 1:
            raise ValueError(
                f"compression={shown(compression)} must be above 0 and at most 1, since a "
                "transition keeps this fraction of its channels: try 0.5"
            )
        self.stem = stem(in_channels, channels)
        check_built(stem=self.stem)
        self.blocks = nn.Sequential()
        for i, layers in enumerate(blocks):
            if i > 0:
                kept = int(channels * compression)
                if not kept:
                    raise ValueError(
                        f"compression={compression} must keep at least one of the {channels} "
                        f"channels before a transition: try 0.5"
                    )
                self.blocks.append(Transition(channels, kept))
                channels = kept
            self.blocks.append(
                DenseBlock(channels, layers, growth_rate, bottleneck, memory_efficient)
            )
            channels += layers * growth_rate
        self.head = nn.Sequential(
            bn_relu(channels),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He et al. 2015 with fan_in: a layer has far more in channels than out channels.
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))


def densenet121(
    in_channels: int = 1, num_classes: int = 10, memory_efficient: bool = False
) -> DenseNet:
    """Build DenseNet-121: 2 x (6 + 12 + 24 + 16) + 3 + 2 layers with weights."""
    return DenseNet(LAYERS_121, in_channels, num_classes, memory_efficient=memory_efficient)


def densenet169(
    in_channels: int = 1, num_classes: int = 10, memory_efficient: bool = False
) -> DenseNet:
    """Build DenseNet-169."""
    return DenseNet(LAYERS_169, in_channels, num_classes, memory_efficient=memory_efficient)


def densenet201(
    in_channels: int = 1, num_classes: int = 10, memory_efficient: bool = False
) -> DenseNet:
    """Build DenseNet-201."""
    return DenseNet(LAYERS_201, in_channels, num_classes, memory_efficient=memory_efficient)


def densenet161(
    in_channels: int = 1, num_classes: int = 10, memory_efficient: bool = False
) -> DenseNet:
    """Build DenseNet-161, the wide one."""
    return DenseNet(LAYERS_161, in_channels, num_classes, memory_efficient=memory_efficient)


def densenet_d2l(
    in_channels: int = 1, num_classes: int = 10, memory_efficient: bool = False
) -> DenseNet:
    """Build a small DenseNet without bottlenecks: four blocks of four layers.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes), for sides of 29 pixels or more

    Source:
        Zhang et al., Dive into Deep Learning, section 8.7.
    """
    return DenseNet(
        LAYERS_D2L, in_channels, num_classes, bottleneck=False, memory_efficient=memory_efficient
    )

"""The Inception networks, v1 to v4, and a small one for 28-pixel images."""

from torch import nn

from cnnlib._checks import check_flags
from cnnlib.blocks import inception_v3 as v3
from cnnlib.blocks import inception_v4 as v4
from cnnlib.blocks.arguments import check_builders, check_built, check_counts
from cnnlib.blocks.conv import conv_bn_relu
from cnnlib.blocks.inception import AuxiliaryHead, Inception, MiniInception, conv_relu
from cnnlib.blocks.inception_v3 import conv_unit

# Szegedy et al. 2015, table 1: in channels and (1x1, (reduce, 3x3), (reduce, 5x5), pool).
STAGE_3 = [(192, (64, (96, 128), (16, 32), 32)), (256, (128, (128, 192), (32, 96), 64))]
STAGE_4 = [
    (480, (192, (96, 208), (16, 48), 64)),
    (512, (160, (112, 224), (24, 64), 64)),
    (512, (128, (128, 256), (24, 64), 64)),
    (512, (112, (144, 288), (32, 64), 64)),
    (528, (256, (160, 320), (32, 128), 128)),
]
STAGE_5 = [(832, (256, (160, 320), (32, 128), 128)), (832, (384, (192, 384), (48, 128), 128))]


def _classifier(channels: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Build a global average pooling, a dropout and one linear layer."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(channels, num_classes),
    )


class GoogLeNet(nn.Module):
    """A stem, nine Inception blocks in three stages, global average pooling, one linear layer.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes). In training with auxiliary heads: a tuple of
        three, the network's own scores first.

    Args:
        unit: The function that builds a convolution: `conv_relu` or `conv_bn_relu`.
        auxiliary: Whether to have the two auxiliary heads.
        in_channels: Channels of the image: 1 for grey, 3 for colour.
        num_classes: Number of classes.

    Source:
        Szegedy et al. 2015, table 1.

    Departures:
        No local response normalisation in the stem. The paper's poolings round up; here they pad
        by 1, which gives the same sizes.
    """

    def __init__(self, unit, auxiliary, in_channels=1, num_classes=10):
        super().__init__()
        in_channels, num_classes = check_counts(in_channels=in_channels, num_classes=num_classes)
        check_builders(unit=unit)
        check_flags(auxiliary=auxiliary)
        self.stem = nn.Sequential(
            unit(in_channels, 64, 7, stride=2),
            nn.MaxPool2d(3, stride=2, padding=1),
            unit(64, 64, 1),
            unit(64, 192, 3),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        check_built(unit=self.stem[0])
        self.stage3 = nn.Sequential(*(Inception(c, widths, unit) for c, widths in STAGE_3))
        self.pool3 = nn.MaxPool2d(3, stride=2, padding=1)
        self.stage4a = Inception(*STAGE_4[0], unit)
        self.stage4bcd = nn.Sequential(*(Inception(c, widths, unit) for c, widths in STAGE_4[1:4]))
        self.stage4e = Inception(*STAGE_4[4], unit)
        self.pool4 = nn.MaxPool2d(3, stride=2, padding=1)
        self.stage5 = nn.Sequential(*(Inception(c, widths, unit) for c, widths in STAGE_5))
        if auxiliary:
            self.auxiliary4a = AuxiliaryHead(512, num_classes, unit)
            self.auxiliary4d = AuxiliaryHead(528, num_classes, unit)
        self.auxiliary = auxiliary
        self.head = _classifier(1024, num_classes, dropout=0.4)

    def forward(self, x):
        x = self.pool3(self.stage3(self.stem(x)))
        after_4a = self.stage4a(x)
        after_4d = self.stage4bcd(after_4a)
        x = self.pool4(self.stage4e(after_4d))
        scores = self.head(self.stage5(x))
        if self.auxiliary and self.training:
            return scores, self.auxiliary4a(after_4a), self.auxiliary4d(after_4d)
        return scores


def googlenet(
    in_channels: int = 1, num_classes: int = 10, batch_norm: bool = False, auxiliary: bool = False
) -> GoogLeNet:
    """Build GoogLeNet (Inception v1), as published without batch normalisation."""
    check_flags(batch_norm=batch_norm)
    return GoogLeNet(conv_bn_relu if batch_norm else conv_relu, auxiliary, in_channels, num_classes)


def stem_v3(in_channels: int) -> nn.Sequential:
    """Build the stem of Inception-v3, with which Inception-ResNet-v2 also begins.

    Shape:
        (N, in_channels, H, W) -> (N, 192, H', W'), for example 299 -> 35 pixels
    """
    return nn.Sequential(
        conv_unit(in_channels, 32, 3, stride=2, padding="valid"),
        conv_unit(32, 32, 3, padding="valid"),
        conv_unit(32, 64, 3),
        nn.MaxPool2d(3, stride=2),
        conv_unit(64, 80, 1),
        conv_unit(80, 192, 3, padding="valid"),
        nn.MaxPool2d(3, stride=2),
    )


class InceptionV3(nn.Module):
    """Inception-v3.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes). In training with the auxiliary head: a tuple of
        two, the network's own scores first. 299x299 in the paper, and in training with the
        auxiliary head; at least 75x75 otherwise.

    Args:
        auxiliary: Whether to have the auxiliary head.
        in_channels: Channels of the image: 1 for grey, 3 for colour.
        num_classes: Number of classes.

    Source:
        Szegedy et al. 2016, table 1, with the channels of the published code.
    """

    def __init__(self, auxiliary, in_channels=1, num_classes=10):
        super().__init__()
        in_channels, num_classes = check_counts(in_channels=in_channels, num_classes=num_classes)
        check_flags(auxiliary=auxiliary)
        self.stem = stem_v3(in_channels)
        self.stage35 = nn.Sequential(
            v3.InceptionA(192, 32), v3.InceptionA(256, 64), v3.InceptionA(288, 64)
        )
        self.stage17 = nn.Sequential(
            v3.InceptionB(288), *(v3.InceptionC(768, width) for width in (128, 160, 160, 192))
        )
        if auxiliary:
            self.auxiliary17 = v3.AuxiliaryHeadV3(768, num_classes)
        self.stage8 = nn.Sequential(v3.InceptionD(768), v3.InceptionE(1280), v3.InceptionE(2048))
        self.auxiliary = auxiliary
        self.head = _classifier(2048, num_classes, dropout=0.5)

    def forward(self, x):
        middle = self.stage17(self.stage35(self.stem(x)))
        scores = self.head(self.stage8(middle))
        if self.auxiliary and self.training:
            return scores, self.auxiliary17(middle)
        return scores


def inception_v3(
    in_channels: int = 1, num_classes: int = 10, auxiliary: bool = False
) -> InceptionV3:
    """Build Inception-v3."""
    return InceptionV3(auxiliary, in_channels, num_classes)


def inception_v4(in_channels: int = 1, num_classes: int = 10) -> nn.Sequential:
    """Build Inception-v4, which has no residual connections.

    Source:
        Szegedy et al. 2017, figure 9.
    """
    in_channels, num_classes = check_counts(in_channels=in_channels, num_classes=num_classes)
    return nn.Sequential(
        conv_unit(in_channels, 32, 3, stride=2, padding="valid"),
        conv_unit(32, 32, 3, padding="valid"),
        conv_unit(32, 64, 3),
        v4.StemPool(nn.MaxPool2d(3, stride=2), conv_unit(64, 96, 3, stride=2, padding="valid")),
        v4.StemFork(),
        v4.StemPool(conv_unit(192, 192, 3, stride=2, padding="valid"), nn.MaxPool2d(3, stride=2)),
        *(v4.InceptionV4A() for _ in range(4)),
        v4.ReductionA(384, (192, 224, 256, 384)),
        *(v4.InceptionV4B() for _ in range(7)),
        v4.ReductionV4B(),
        *(v4.InceptionV4C() for _ in range(3)),
        _classifier(1536, num_classes, dropout=0.2),
    )


def inception_resnet_v2(in_channels: int = 1, num_classes: int = 10) -> nn.Sequential:
    """Build Inception-ResNet-v2.

    Source:
        Szegedy et al. 2017, figure 15, with the depths of the published code: 10, 20 and 10 blocks.
    """
    in_channels, num_classes = check_counts(in_channels=in_channels, num_classes=num_classes)
    return nn.Sequential(
        *stem_v3(in_channels),
        v4.InceptionResNetStem(),
        *(v4.InceptionResNetA() for _ in range(10)),
        v4.ReductionA(320, (256, 256, 384, 384)),
        *(v4.InceptionResNetB() for _ in range(20)),
        v4.ReductionResNetB(),
        *(v4.InceptionResNetC() for _ in range(9)),
        v4.InceptionResNetC(last=True),
        conv_unit(2080, 1536, 1),
        _classifier(1536, num_classes, dropout=0.2),
    )


def mini_inception(in_channels: int = 1, num_classes: int = 10, unit=conv_relu) -> nn.Sequential:
    """Build a small Inception network for 28-pixel images.

    Shape:
        (N, in_channels, 28, 28) -> (N, num_classes)
    """
    in_channels, num_classes = check_counts(in_channels=in_channels, num_classes=num_classes)
    check_builders(unit=unit)
    return nn.Sequential(
        nn.Conv2d(in_channels, 10, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        MiniInception(10, unit),
        nn.Conv2d(88, 20, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        MiniInception(20, unit),
        nn.Flatten(),
        nn.Linear(1408, num_classes),
    )

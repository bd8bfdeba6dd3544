"""Successors of ResNet: other blocks in the skeleton and the table of ResNet-50."""

from functools import partial

from torch import nn

from cnnlib.blocks.arguments import check_counts
from cnnlib.blocks.attention import ResNeStBlock, SEBottleneck, SKBottleneck
from cnnlib.blocks.conv import conv_bn_relu
from cnnlib.blocks.residual import Bottleneck
from cnnlib.blocks.split import IBNBottleneck, Res2NetBlock, ResNeXtBlock
from cnnlib.models.resnet import LAYERS_50, ResNet


def resnext50_32x4d(in_channels: int = 1, num_classes: int = 10) -> ResNet:
    """Build ResNeXt-50 with 32 groups of width 4."""
    return ResNet(ResNeXtBlock, LAYERS_50, in_channels, num_classes)


def ibn_a(in_channels: int, out_channels: int, stride: int = 1, last: int = 2048) -> nn.Module:
    """Build a block of an IBN-a network, which has no instance normalisation in its last stage.

    Args:
        in_channels: In channels.
        out_channels: Out channels.
        stride: Stride of the 3x3 convolution.
        last: Out channels of the last stage, by which its blocks are recognised.

    Source:
        Pan et al. 2018, section 3.3: deep features discriminate classes and keep their contrast.
    """
    check_counts(out_channels=out_channels, last=last)
    block = Bottleneck if out_channels == last else IBNBottleneck
    return block(in_channels, out_channels, stride)


def resnet50_ibn(in_channels: int = 1, num_classes: int = 10) -> ResNet:
    """Build ResNet-50 with half instance and half batch normalisation: IBN-a."""
    return ResNet(ibn_a, LAYERS_50, in_channels, num_classes)


def se_resnet50(in_channels: int = 1, num_classes: int = 10) -> ResNet:
    """Build SE-ResNet-50."""
    return ResNet(SEBottleneck, LAYERS_50, in_channels, num_classes)


def sk_resnet50(in_channels: int = 1, num_classes: int = 10) -> ResNet:
    """Build ResNet-50 with selective kernels, like timm's skresnet50."""
    return ResNet(SKBottleneck, LAYERS_50, in_channels, num_classes)


def res2net50_26w_4s(in_channels: int = 1, num_classes: int = 10) -> ResNet:
    """Build Res2Net-50 with 4 scales of width 26."""
    return ResNet(Res2NetBlock, LAYERS_50, in_channels, num_classes)


def stem_deep(in_channels: int, out_channels: int) -> nn.Sequential:
    """Build a stem of three 3x3 convolutions, the first with stride 2, and a pooling with stride 2.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / 4), ceil(W / 4))

    Source:
        He et al. 2019 (Bag of Tricks), figure 2(b): ResNet-C.
    """
    check_counts(out_channels=out_channels)
    half = out_channels // 2
    return nn.Sequential(
        conv_bn_relu(in_channels, half, 3, stride=2),
        conv_bn_relu(half, half, 3),
        conv_bn_relu(half, out_channels, 3),
        nn.MaxPool2d(3, stride=2, padding=1),
    )


def resnest50(in_channels: int = 1, num_classes: int = 10) -> ResNet:
    """Build ResNeSt-50 with radix 2, like timm's resnest50d."""
    return ResNet(ResNeStBlock, LAYERS_50, in_channels, num_classes, stem=stem_deep)


# The narrow networks, for 28-pixel images: one table, and blocks whose settings give every network
# about as many MACs as the first.
LAYERS_NARROW = [16, (2, 64), (2, 128)]
NARROW_BLOCKS = {
    "ResNet": Bottleneck,
    "ResNeXt": partial(ResNeXtBlock, groups=16, width=8),
    "IBN": partial(ibn_a, last=128),
    "SE": partial(SEBottleneck, reduction=4),
    "SK": SKBottleneck,
    "Res2Net": partial(Res2NetBlock, width=24),
    "ResNeSt": partial(ResNeStBlock, width=56),
}


def narrow_resnet(in_channels: int = 1, num_classes: int = 10, block=Bottleneck) -> ResNet:
    """Build a narrow network of bottlenecks, or of any block, for 28-pixel images.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes); the two stages work at H / 4 and H / 8

    Args:
        in_channels: Channels of the image: 1 for grey, 3 for colour.
        num_classes: Number of classes.
        block: The class of the block, or a function that builds one, as in `ResNet`.
    """
    return ResNet(block, LAYERS_NARROW, in_channels, num_classes)


narrow_resnext = partial(narrow_resnet, block=NARROW_BLOCKS["ResNeXt"])
narrow_ibn = partial(narrow_resnet, block=NARROW_BLOCKS["IBN"])
narrow_se = partial(narrow_resnet, block=NARROW_BLOCKS["SE"])
narrow_sk = partial(narrow_resnet, block=NARROW_BLOCKS["SK"])
narrow_res2net = partial(narrow_resnet, block=NARROW_BLOCKS["Res2Net"])
narrow_resnest = partial(narrow_resnet, block=NARROW_BLOCKS["ResNeSt"])

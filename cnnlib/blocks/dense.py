"""The parts of a DenseNet: the layer, the block of layers, and the step between blocks."""

from contextlib import nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cnnlib._checks import check_flags
from cnnlib.blocks.arguments import check_counts, check_modules
from cnnlib.blocks.residual import bn_relu


def bn_relu_conv(in_channels, out_channels, kernel):
    """Build batch normalisation and a ReLU followed by a convolution that keeps the size.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, H, W), for an odd kernel

    Raises:
        ValueError: A count is not a whole number from 1.
    """
    check_counts(in_channels=in_channels, out_channels=out_channels, kernel=kernel)
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(*bn_relu(in_channels), conv)


class DenseLayer(nn.Module):
    """A 3x3 convolution that reads all earlier maps and adds a few new ones.

    Shape:
        Any number of (N, C_i, H, W), in_channels channels in total -> (N, growth_rate, H, W)

    Args:
        in_channels: In channels, of all inputs in total.
        growth_rate: Channels that the layer adds, k in the paper.
        bottleneck: Whether a 1x1 convolution to 4 x growth_rate channels comes first.

    Raises:
        ValueError: A count is not a whole number from 1, or a flag is not True or False.

    Source:
        Huang et al. 2017, section 3, "composite function" and "bottleneck layers".
    """

    def __init__(self, in_channels, growth_rate, bottleneck=True):
        super().__init__()
        in_channels, growth_rate = check_counts(in_channels=in_channels, growth_rate=growth_rate)
        check_flags(bottleneck=bottleneck)
        width = 4 * growth_rate if bottleneck else in_channels
        self.one = bn_relu_conv(in_channels, width, 1) if bottleneck else nn.Identity()
        self.three = bn_relu_conv(width, growth_rate, 3)

    def forward(self, *features):
        return self.three(self.one(torch.cat(features, dim=1)))


class BuffersKept:
    """A context that restores a network's buffers, the running statistics, when it ends.

    It can be entered repeatedly: each backward pass through a graph enters it once.

    Raises:
        ValueError: `net` is not an nn.Module.
    """

    def __init__(self, net):
        check_modules(net=net)
        self.net = net

    def __enter__(self):
        self.before = [buffer.clone() for buffer in self.net.buffers()]

    def __exit__(self, *error):
        for buffer, value in zip(self.net.buffers(), self.before, strict=True):
            buffer.copy_(value)


def recomputed(layer, *features):
    """Run a layer without storing its activations, and run it again for its gradients.

    The second run sees the same batch, which must not enter the running statistics twice.

    Raises:
        ValueError: `layer` is not an nn.Module.
    """
    check_modules(layer=layer)
    return checkpoint(
        layer,
        *features,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), BuffersKept(layer)),
    )


class DenseBlock(nn.Module):
    """Layers that each read the input and the outputs of all layers before them.

    Shape:
        (N, in_channels, H, W) -> (N, in_channels + layers x growth_rate, H, W)

    Args:
        in_channels: In channels, k_0 in the paper.
        layers: Number of layers.
        growth_rate: Channels that each layer adds, k in the paper.
        bottleneck: Whether a 1x1 convolution precedes each 3x3.
        memory_efficient: Whether to store only the outputs of the layers and to recompute the other
            activations for the gradients. Gradients and running statistics are bitwise the same if
            the network stays in training mode from the forward to the backward pass.

    Raises:
        ValueError: A count is not a whole number from 1, or a flag is not True or False.

    Source:
        Huang et al. 2017, figure 1 and equation 2. memory_efficient: Pleiss et al. 2017.
    """

    def __init__(self, in_channels, layers, growth_rate, bottleneck=True, memory_efficient=False):
        super().__init__()
        in_channels, layers, growth_rate = check_counts(
            in_channels=in_channels, layers=layers, growth_rate=growth_rate
        )
        check_flags(memory_efficient=memory_efficient)
        self.memory_efficient = memory_efficient
        self.layers = nn.ModuleList(
            DenseLayer(in_channels + i * growth_rate, growth_rate, bottleneck)
            for i in range(layers)
        )

    def forward(self, x):
        features = [x]
        for layer in self.layers:
            if self.memory_efficient:
                features.append(recomputed(layer, *features))
            else:
                features.append(layer(*features))
        return torch.cat(features, dim=1)


class Transition(nn.Module):
    """The step between two blocks: a 1x1 convolution to fewer channels and a 2x2 pooling.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, floor(H / 2), floor(W / 2))

    Raises:
        ValueError: A count is not a whole number from 1.

    Source:
        Huang et al. 2017, section 3, "pooling layers" and "compression".
    """

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = bn_relu_conv(in_channels, out_channels, 1)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x):
        return self.pool(self.conv(x))

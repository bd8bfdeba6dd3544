"""Network in Network: the classifier is convolutions, too."""

from torch import nn

from cnnlib.blocks.classic import nin_unit
from cnnlib.blocks.conv import he_init


def nin(in_channels=1, num_classes=10):
    """Build NiN: four units, poolings between; the last has a channel for each class.

    There is no linear layer: a class's score is the mean of its channel. That saves most of
    AlexNet's parameters, and images of other sizes fit, from 67 pixels. The ReLU that ends the
    last unit keeps every score at 0 or above.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes); 224x224 in the paper

    Source:
        Lin et al. 2014, figure 2, in the shape that their ImageNet code gave it: that of AlexNet.
    """
    net = nn.Sequential(
        nin_unit(in_channels, 96, 11, stride=4),
        nn.MaxPool2d(3, stride=2),
        nin_unit(96, 256, 5, padding=2),
        nn.MaxPool2d(3, stride=2),
        nin_unit(256, 384, 3, padding=1),
        nn.MaxPool2d(3, stride=2),
        nn.Dropout(0.5),
        nin_unit(384, num_classes, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    he_init(net)
    return net

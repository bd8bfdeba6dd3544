"""The classics before Inception: LeNet, AlexNet, the VGG networks, Network in Network."""

from torch import nn

from cnnlib.blocks.arguments import check_counts, check_table
from cnnlib.blocks.classic import nin_unit, vgg_group
from cnnlib.blocks.conv import he_init

# Simonyan and Zisserman 2015, table 1, columns A and D: (convolutions, channels) for each group.
GROUPS_11 = [(1, 64), (1, 128), (2, 256), (2, 512), (2, 512)]
GROUPS_16 = [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]
# Column A with a quarter of the channels: enough for small grey images, at a fifteenth of the cost.
GROUPS_11_QUARTER = [(1, 16), (1, 32), (2, 64), (2, 128), (2, 128)]


def lenet(in_channels: int = 1, num_classes: int = 10) -> nn.Sequential:
    """Build LeNet for 28x28 images: two convolutions, two poolings, three linear layers.

    Shape:
        (N, in_channels, 28, 28) -> (N, num_classes)

    Source:
        LeCun et al. 1998, figure 2.

    Departures:
        Sigmoid in place of the scaled tanh, plain average pooling in place of the trainable one, a
        linear head in place of the Gaussian one, and 28x28 padded by 2 in place of 32x32. Every map
        of the second convolution sees all six of the first. The first linear layer is their C5, a
        5x5 convolution of 5x5 maps. Weights are initialised as in Glorot and Bengio 2010.
    """
    in_channels, num_classes = check_counts(in_channels=in_channels, num_classes=num_classes)
    net = nn.Sequential(
        nn.Conv2d(in_channels, 6, 5, padding=2),
        nn.Sigmoid(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Sigmoid(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.Sigmoid(),
        nn.Linear(120, 84),
        nn.Sigmoid(),
        nn.Linear(84, num_classes),
    )
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
    return net


def alexnet(in_channels: int = 1, num_classes: int = 10) -> nn.Sequential:
    """Build AlexNet for 224x224 images: five convolutions, three poolings, three linear layers.

    Shape:
        (N, in_channels, 224, 224) -> (N, num_classes)

    Source:
        Krizhevsky et al. 2012, section 3.5.

    Departures:
        One stream in place of the paper's two, which split the network over two GPUs, and no local
        response normalisation. torchvision's AlexNet has another table, with 64, 192, 384, 256 and
        256 channels, so its weights do not fit. Convolutions are initialised as in He et al. 2015.
    """
    in_channels, num_classes = check_counts(in_channels=in_channels, num_classes=num_classes)
    net = nn.Sequential(
        nn.Conv2d(in_channels, 96, 11, stride=4, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(96, 256, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        *_linear_layers(256 * 5 * 5, num_classes),
    )
    he_init(net)
    return net


def _linear_layers(features: int, num_classes: int) -> nn.Sequential:
    """Build the three linear layers that AlexNet and VGG end with, with dropout between them."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(features, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, num_classes),
    )


class VGG(nn.Module):
    """Five groups of convolutions and three linear layers, for 224x224 images.

    Shape:
        (N, in_channels, 224, 224) -> (N, num_classes)

    Args:
        groups: The table: (convolutions, channels) for each group.
        in_channels: Channels of the image: 1 for grey, 3 for colour.
        num_classes: Number of classes.

    Source:
        Simonyan and Zisserman 2015, table 1.

    Departures:
        Convolutions are initialised as in He et al. 2015. The paper initialised its deep networks
        with the weights of the shallow one, since they did not learn from small random weights.
    """

    def __init__(self, groups, in_channels=1, num_classes=10):
        super().__init__()
        in_channels, num_classes = check_counts(in_channels=in_channels, num_classes=num_classes)
        self.groups = nn.Sequential()
        for convolutions, channels in check_table("groups", groups, [(int, int)], GROUPS_11):
            self.groups.append(vgg_group(in_channels, channels, convolutions))
            in_channels = channels
        self.head = _linear_layers(in_channels * 7 * 7, num_classes)
        he_init(self)

    def forward(self, x):
        return self.head(self.groups(x))


def vgg11(in_channels: int = 1, num_classes: int = 10) -> VGG:
    """Build VGG-11: 8 convolutions and 3 linear layers."""
    return VGG(GROUPS_11, in_channels, num_classes)


def vgg16(in_channels: int = 1, num_classes: int = 10) -> VGG:
    """Build VGG-16: 13 convolutions and 3 linear layers."""
    return VGG(GROUPS_16, in_channels, num_classes)


def vgg11_quarter(in_channels: int = 1, num_classes: int = 10) -> VGG:
    """Build VGG-11 with a quarter of the channels; the linear layers keep their 4,096 features."""
    return VGG(GROUPS_11_QUARTER, in_channels, num_classes)


def nin(in_channels: int = 1, num_classes: int = 10) -> nn.Sequential:
    """Build Network in Network: four units with poolings between them, and no linear layer.

    The last unit has one channel per class, and the score of a class is the mean of its channel.
    That saves most of AlexNet's parameters and allows other image sizes, from 67 pixels. The ReLU
    that ends the last unit keeps every score at 0 or above.

    Shape:
        (N, in_channels, H, W) -> (N, num_classes); 224x224 in the paper

    Source:
        Lin et al. 2014, figure 2, with the channels and kernels of their ImageNet code, which are
        those of AlexNet.
    """
    in_channels, num_classes = check_counts(in_channels=in_channels, num_classes=num_classes)
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

"""LeNet-5, the network that read cheques."""

from torch import nn


def lenet(in_channels=1, num_classes=10):
    """Build LeNet for 28x28 images: two convolutions, two poolings, three linear layers.

    Shape:
        (N, in_channels, 28, 28) -> (N, num_classes)

    Source:
        LeCun et al. 1998, figure 2.

    Departures:
        Sigmoid for the scaled tanh, plain average pooling for the trainable one, every map of the
        second convolution sees all six of the first, a linear head for the Gaussian one; 28x28
        padded by 2 in place of 32x32. Weights start as Glorot and Bengio 2010 have it: with
        sigmoids, PyTorch's default barely learns.
    """
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

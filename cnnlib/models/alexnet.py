"""AlexNet, with which deep convolutional networks won ImageNet."""

from torch import nn

from cnnlib.blocks.conv import he_init


def alexnet(in_channels=1, num_classes=10):
    """Build AlexNet for 224x224 images: five convolutions, three poolings, three linear layers.

    Shape:
        (N, in_channels, 224, 224) -> (N, num_classes)

    Source:
        Krizhevsky et al. 2012, section 3.5.

    Departures:
        One stream for the paper's two, which were one network cut in half for two small GPUs, and
        no local response normalisation. torchvision's AlexNet is another table, with 64, 192, 384,
        256 and 256 channels: its weights do not fit. Convolutions start as He et al. 2015 have it.
    """
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
        nn.Flatten(),
        nn.Linear(256 * 5 * 5, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, num_classes),
    )
    he_init(net)
    return net

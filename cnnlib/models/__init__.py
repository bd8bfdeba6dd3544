"""A model is a table of a paper: one file a family, the table written as data."""

from cnnlib.models.dilated import dilated_net
from cnnlib.models.lenet import lenet
from cnnlib.models.resnet import (
    plain18,
    plain34,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)
from cnnlib.models.unet import unet

__all__ = [
    "dilated_net",
    "lenet",
    "plain18",
    "plain34",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "unet",
]

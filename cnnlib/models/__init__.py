"""A model is a table of a paper: one file a family, the table written as data."""

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

__all__ = [
    "lenet",
    "plain18",
    "plain34",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
]

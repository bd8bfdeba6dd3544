"""A model is a table of a paper: one file a family, the table written as data."""

from cnnlib.models.alexnet import alexnet
from cnnlib.models.beyond import (
    narrow_resnet,
    res2net50_26w_4s,
    resnest50,
    resnet50_ibn,
    resnext50_32x4d,
    se_resnet50,
    sk_resnet50,
)
from cnnlib.models.densenet import (
    densenet121,
    densenet161,
    densenet169,
    densenet201,
    densenet_d2l,
)
from cnnlib.models.dilated import dilated_net
from cnnlib.models.inception import (
    googlenet,
    inception_resnet_v2,
    inception_v3,
    inception_v4,
    mini_inception,
)
from cnnlib.models.lenet import lenet
from cnnlib.models.nin import nin
from cnnlib.models.resnet import (
    cifar_resnet,
    mini_resnet,
    plain18,
    plain34,
    preact_resnet18,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    small_resnet,
)
from cnnlib.models.unet import unet
from cnnlib.models.vgg import vgg11, vgg11_quarter, vgg16

__all__ = [
    "alexnet",
    "cifar_resnet",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "densenet_d2l",
    "dilated_net",
    "googlenet",
    "inception_resnet_v2",
    "inception_v3",
    "inception_v4",
    "lenet",
    "mini_inception",
    "mini_resnet",
    "narrow_resnet",
    "nin",
    "plain18",
    "plain34",
    "preact_resnet18",
    "res2net50_26w_4s",
    "resnest50",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet50_ibn",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "se_resnet50",
    "sk_resnet50",
    "small_resnet",
    "unet",
    "vgg11",
    "vgg11_quarter",
    "vgg16",
]

"""A model is a table of a paper: one file per family, the table written as data.

Each takes in_channels (1 for grey images, 3 for colour) and num_classes first. MODELS lists them
with their usual recipes, for the command line, the bench, the leaderboard and the tests. To add a
model, write its function, and import it and add its row here.
"""

from cnnlib.models.beyond import (
    narrow_ibn,
    narrow_res2net,
    narrow_resnest,
    narrow_resnet,
    narrow_resnext,
    narrow_se,
    narrow_sk,
    res2net50_26w_4s,
    resnest50,
    resnet50_ibn,
    resnext50_32x4d,
    se_resnet50,
    sk_resnet50,
)
from cnnlib.models.classics import alexnet, lenet, nin, vgg11, vgg11_quarter, vgg16
from cnnlib.models.densenet import densenet121, densenet161, densenet169, densenet201, densenet_d2l
from cnnlib.models.inception import (
    googlenet,
    inception_resnet_v2,
    inception_v3,
    inception_v4,
    mini_inception,
)
from cnnlib.models.recipe import Model, Recipe
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
from cnnlib.models.segmentation import dilated_net, unet

# Shared recipes, by image size in pixels. The papers' tables are for 224.
_AT_224 = Recipe(224, batch_size=128, lr=0.05)
_AT_299 = Recipe(299, batch_size=32, lr=0.05)
_AT_96 = Recipe(96, batch_size=128, lr=0.05)
_MINI = Recipe(28, batch_size=64, lr=0.01, momentum=0.5)
_NARROW = Recipe(28, batch_size=128, lr=0.05)
_SCENES = Recipe(64, batch_size=64, lr=0.05, momentum=0.9)

# The seven models on the board that are not narrow have the recipes of the usual comparison (Zhang
# et al., Dive into Deep Learning), with 10 epochs each.
MODELS = {
    "lenet": Model(lenet, Recipe(28, 256, lr=0.9), "classic", on_board=True),
    "alexnet": Model(alexnet, Recipe(224, 128, lr=0.01), "classic", on_board=True),
    "vgg11": Model(vgg11, _AT_224, "classic"),
    "vgg16": Model(vgg16, _AT_224, "classic"),
    "vgg11_quarter": Model(vgg11_quarter, _AT_224, "classic", on_board=True),
    "nin": Model(nin, Recipe(224, 128, lr=0.1), "classic", on_board=True),
    "googlenet": Model(googlenet, Recipe(96, 128, lr=0.1), "inception", on_board=True),
    "inception_v3": Model(inception_v3, _AT_299, "inception"),
    "inception_v4": Model(inception_v4, _AT_299, "inception"),
    "inception_resnet_v2": Model(inception_resnet_v2, _AT_299, "inception"),
    "mini_inception": Model(mini_inception, _MINI, "inception"),
    "plain18": Model(plain18, _AT_96, "residual"),
    "plain34": Model(plain34, _AT_96, "residual"),
    "resnet18": Model(resnet18, Recipe(96, 256, lr=0.05), "residual", on_board=True),
    "resnet34": Model(resnet34, _AT_96, "residual"),
    "resnet50": Model(resnet50, _AT_224, "residual"),
    "resnet101": Model(resnet101, _AT_224, "residual"),
    "resnet152": Model(resnet152, _AT_224, "residual"),
    "preact_resnet18": Model(preact_resnet18, _AT_96, "residual"),
    "cifar_resnet": Model(cifar_resnet, Recipe(28, 128, 0.05, momentum=0.9), "residual"),
    "mini_resnet": Model(mini_resnet, _MINI, "residual"),
    "small_resnet": Model(small_resnet, Recipe(28, 128, 0.1, momentum=0.9), "residual"),
    "densenet121": Model(densenet121, _AT_224, "dense"),
    "densenet161": Model(densenet161, _AT_224, "dense"),
    "densenet169": Model(densenet169, _AT_224, "dense"),
    "densenet201": Model(densenet201, _AT_224, "dense"),
    "densenet_d2l": Model(densenet_d2l, Recipe(96, 256, lr=0.1), "dense", on_board=True),
    "resnext50_32x4d": Model(resnext50_32x4d, _AT_224, "beyond"),
    "resnet50_ibn": Model(resnet50_ibn, _AT_224, "beyond"),
    "se_resnet50": Model(se_resnet50, _AT_224, "beyond"),
    "sk_resnet50": Model(sk_resnet50, _AT_224, "beyond"),
    "res2net50_26w_4s": Model(res2net50_26w_4s, _AT_224, "beyond"),
    "resnest50": Model(resnest50, _AT_224, "beyond"),
    "narrow_resnet": Model(narrow_resnet, _NARROW, "beyond", on_board=True),
    "narrow_resnext": Model(narrow_resnext, _NARROW, "beyond", on_board=True),
    "narrow_ibn": Model(narrow_ibn, _NARROW, "beyond", on_board=True),
    "narrow_se": Model(narrow_se, _NARROW, "beyond", on_board=True),
    "narrow_sk": Model(narrow_sk, _NARROW, "beyond", on_board=True),
    "narrow_res2net": Model(narrow_res2net, _NARROW, "beyond", on_board=True),
    "narrow_resnest": Model(narrow_resnest, _NARROW, "beyond", on_board=True),
    "dilated_net": Model(dilated_net, _SCENES, "segmentation"),
    "unet": Model(unet, _SCENES, "segmentation"),
}

__all__ = ["MODELS", "Model", "Recipe", *MODELS]

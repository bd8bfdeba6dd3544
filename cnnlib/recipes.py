"""How each network is trained when nobody says otherwise: size, batch, learning rate."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """A way to train a network by stochastic gradient descent.

    Args:
        size: Side of the images in pixels.
        batch_size: Images in a batch.
        lr: Learning rate.
        momentum: Fraction of the last step that the next one keeps.
    """

    size: int
    batch_size: int
    lr: float
    momentum: float = 0.0


# For what is not listed below: the tables of the ImageNet networks are those of 224 pixels.
ORDINARY = Recipe(size=224, batch_size=128, lr=0.05)
SMALLER = Recipe(size=96, batch_size=128, lr=0.05)  # beside ResNet-18
LARGER = Recipe(size=299, batch_size=32, lr=0.05)

# The first seven are the usual comparison of the classics, 10 epochs each.
RECIPES = {
    "lenet": Recipe(28, 256, 0.9),
    "alexnet": Recipe(224, 128, 0.01),
    "vgg11_quarter": Recipe(224, 128, 0.05),
    "nin": Recipe(224, 128, 0.1),
    "googlenet": Recipe(96, 128, 0.1),
    "resnet18": Recipe(96, 256, 0.05),
    "densenet_d2l": Recipe(96, 256, 0.1),
    **dict.fromkeys(("plain18", "plain34", "preact_resnet18", "resnet34"), SMALLER),
    **dict.fromkeys(("inception_v3", "inception_v4", "inception_resnet_v2"), LARGER),
    "narrow_resnet": Recipe(28, 128, 0.05),
    "mini_inception": Recipe(28, 64, 0.01, momentum=0.5),
    "mini_resnet": Recipe(28, 64, 0.01, momentum=0.5),
    "small_resnet": Recipe(28, 128, 0.1, momentum=0.9),
    "cifar_resnet": Recipe(28, 128, 0.05, momentum=0.9),
    "unet": Recipe(64, 64, 0.05, momentum=0.9),
    "dilated_net": Recipe(64, 64, 0.05, momentum=0.9),
}


def recipe(model):
    """Return the recipe of a model by its name; of an unlisted one, an ordinary recipe."""
    return RECIPES.get(model, ORDINARY)

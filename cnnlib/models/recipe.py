"""The row of a model in the table of all models, and its usual training recipe."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Recipe:
    """How to train a network: stochastic gradient descent at a constant learning rate.

    Args:
        size: Side of the images in pixels.
        batch_size: Images per batch.
        lr: Learning rate.
        momentum: Fraction of the previous step that is added to the next one.
    """

    size: int
    batch_size: int
    lr: float
    momentum: float = 0.0


@dataclass(frozen=True)
class Model:
    """A row of the table of models.

    Args:
        build: The function that builds the network from (in_channels=1, num_classes=10).
        recipe: How it is usually trained.
        family: The group that it belongs to. Models of "segmentation" classify each pixel and train
            on scenes; all others classify each image.
        on_board: Whether the leaderboard measures it by default.
    """

    build: Callable[..., nn.Module]
    recipe: Recipe
    family: str
    on_board: bool = False

"""Pictures: they take arrays and records, and return a figure.

diagram   a block drawn from the module itself
figures   images, training curves, confusion matrix
walk      a kernel walks over its input: frames, a strip of them, and a player
"""

from cnnlib.plots.diagram import block_arms, block_diagram
from cnnlib.plots.figures import (
    confusion_matrix,
    image_grid,
    layer_profile,
    loss_bands,
    loss_curve,
    misclassified,
    png,
    roofline,
    show,
    trade_off,
    training_curves,
)
from cnnlib.plots.walk import (
    Walk,
    conv_transpose_scatter,
    conv_transpose_zero_insertion,
    conv_walk,
)

__all__ = [
    "Walk",
    "block_arms",
    "block_diagram",
    "confusion_matrix",
    "conv_transpose_scatter",
    "conv_transpose_zero_insertion",
    "conv_walk",
    "image_grid",
    "layer_profile",
    "loss_bands",
    "loss_curve",
    "misclassified",
    "png",
    "roofline",
    "show",
    "trade_off",
    "training_curves",
]

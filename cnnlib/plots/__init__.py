"""Pictures: they take arrays and records, and return a figure.

diagram   a block drawn from the module itself
figures   images, training curves, confusion matrix
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

__all__ = [
    "block_arms",
    "block_diagram",
    "confusion_matrix",
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

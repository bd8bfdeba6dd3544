"""Pictures: functions that take arrays and records and return a figure.

diagram   a block drawn from the module itself
figures   images, training curves, seeds, confusion matrix
scenes    images above their label maps
stages    a whole network, one box per stage
"""

from cnnlib.plots.diagram import block_diagram
from cnnlib.plots.figures import (
    confusion_matrix,
    image_grid,
    image_html,
    layer_profile,
    loss_curve,
    misclassified,
    number_grid,
    png,
    seeds,
    show,
    training_curves,
)
from cnnlib.plots.scenes import scene_grid
from cnnlib.plots.stages import stage_diagram

__all__ = [
    "block_diagram",
    "confusion_matrix",
    "image_grid",
    "image_html",
    "layer_profile",
    "loss_curve",
    "misclassified",
    "number_grid",
    "png",
    "scene_grid",
    "seeds",
    "show",
    "stage_diagram",
    "training_curves",
]

"""Extra: a kernel that slides over its input, and explorers of sizes and receptive fields."""

from cnnlib.explore.explorers import conv_explorer, dilation_explorer, transposed_explorer
from cnnlib.explore.sliding_window import (
    SlidingWindow,
    conv_steps,
    transposed_scatter_steps,
    transposed_zero_insertion_steps,
)

__all__ = [
    "SlidingWindow",
    "conv_explorer",
    "conv_steps",
    "dilation_explorer",
    "transposed_explorer",
    "transposed_scatter_steps",
    "transposed_zero_insertion_steps",
]

"""Extra: a kernel that slides over its input, and explorers of sizes and fields.

Nothing else in the package imports it.
"""

from cnnlib.explore.sliding_window import (
    Walk,
    conv_transpose_scatter,
    conv_transpose_zero_insertion,
    conv_walk,
)

__all__ = [
    "Walk",
    "conv_transpose_scatter",
    "conv_transpose_zero_insertion",
    "conv_walk",
]

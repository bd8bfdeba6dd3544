"""Explorers: change a hyperparameter, and the formula, the sizes and the picture follow.

If no layer takes the hyperparameters, or a picture would be too large to read, the reason appears
instead.
"""

from numbers import Integral

import numpy as np

from cnnlib._checks import check_count, shown
from cnnlib.arithmetic import contributions, hdc
from cnnlib.explore.page import Page, first_step, table
from cnnlib.explore.sliding_window import MAX_SIDE, conv_steps, transposed_scatter_steps

LARGEST = 512  # pixels
LONGEST = 99  # pixels of a field, as in page.js
MOST = 1_000_000  # of any hyperparameter
ROWS, COLUMNS = np.ogrid[:LARGEST, :LARGEST]
PIXELS = (1 + 5 * ROWS**2 + 3 * COLUMNS**2 + 7 * ROWS * COLUMNS) % 13 % 6  # no visible pattern
WEIGHTS = (ROWS**2 + 3 * COLUMNS**2 + 5 * ROWS * COLUMNS + 2 * ROWS) % 7 % 4 - 1


def conv_explorer(
    size: int = 7, kernel: int = 3, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Page:
    """Explore a convolution: its output size, the pixels it never reads, and each of its steps.

    The controls start with these hyperparameters, named as in torch.
    """
    options = dict(stride=stride, padding=padding, dilation=dilation)
    return _sliding_page("Convolution explorer", "conv", conv_steps, size, kernel, options)


def transposed_explorer(
    size: int = 3,
    kernel: int = 3,
    stride: int = 2,
    padding: int = 0,
    output_padding: int = 0,
    dilation: int = 1,
) -> Page:
    """Explore a transposed convolution: its output size, and the steps of both views of it.

    The controls start with these hyperparameters, named as in torch.
    """
    title, steps = "Transposed convolution explorer", transposed_scatter_steps
    options = dict(stride=stride, padding=padding, output_padding=output_padding, dilation=dilation)
    return _sliding_page(title, "scatter", steps, size, kernel, options)


def dilation_explorer(rates: tuple[int, ...] = (1, 2, 5), kernel: int = 3) -> Page:
    """Explore a stack of dilated convolutions: its field, the HDC rule, and what it never reads.

    The controls start with these rates (the dilation of each layer, input first) and this kernel.

    Raises:
        ValueError: The rates or the kernel are not whole numbers, or too large.
    """
    kernel = check_count("kernel", kernel, LARGEST, usual=3)
    if not isinstance(rates, tuple | list) or not 1 <= len(rates) <= LARGEST:
        raise ValueError(
            f"rates={shown(rates)} must list a rate for each layer: try rates=(1, 2, 5)"
        )
    rates = tuple(check_count("rate", rate, usual=1) for rate in rates)
    listed, field = ", ".join(map(str, rates)), 1 + (kernel - 1) * sum(rates)
    title = f"Dilation explorer: rates {listed}, kernel {kernel}"
    if field > LONGEST:  # known before anything is counted
        width = f"field={field} pixels must be at most {LONGEST} to be shown"
        static = f"<p>{width}: try smaller rates</p>"
    else:
        counted = f"{len(hdc(rates, kernel).holes)} of {field} positions are holes"
        paths = np.array([contributions(rates, kernel)])
        static = table(f"{title}: {counted}. Paths from each position to the output:", paths)
    return Page(title, static, {"kind": "dilation", "values": {"rates": listed, "kernel": kernel}})


def _sliding_page(title, kind, steps, size, kernel, options):
    """Return a page whose static form is the first step, or the reason why there is none."""
    for name, value in {"size": size, "kernel": kernel, **options}.items():
        if not isinstance(value, Integral | float) or isinstance(value, bool):
            raise ValueError(f"{name}={shown(value)} must be a whole number: try {name}=1")
        if not abs(value) <= MOST:
            raise ValueError(f"{name}={shown(value)} must be at most {MOST:,}: try {name}=1")
    try:
        check_count("size", size, LARGEST, usual=7)
        check_count("kernel", kernel, LARGEST, usual=3)
        static = first_step(steps(PIXELS[:size, :size], WEIGHTS[:kernel, :kernel], **options))
    except ValueError as refusal:
        static = f"<p>{refusal}</p>"
    data = {
        "kind": kind,
        "values": {"size": size, "kernel": kernel, **options},
        "pixels": PIXELS[:MAX_SIDE, :MAX_SIDE].tolist(),
        "weights": WEIGHTS[:MAX_SIDE, :MAX_SIDE].tolist(),
    }
    return Page(title, static, data)

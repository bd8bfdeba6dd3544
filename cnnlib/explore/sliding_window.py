"""A kernel walks over its input.

A convolution reads a window of the input and writes one output; a transposed convolution reads one
input and writes a window of the output. A step of either multiplies and adds, for each tap,

    target[write] += source[read] * kernel[tap]
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from cnnlib.arithmetic import conv_size, conv_transpose_size
from cnnlib.explore.frames import draw_frame, draw_strip
from cnnlib.explore.player import Player
from cnnlib.plots.figures import as_array

MAX_STEPS = 144
MAX_SIDE = 24  # cells: smaller ones could not be read


class Step(NamedTuple):
    """One position of the kernel: the cell (row, column) that each tap reads and writes."""

    reads: list
    writes: list


@dataclass(frozen=True, eq=False)
class Grid:
    """Numbers in cells.

    Attributes:
        name: what they are.
        values: the numbers.
        data: which cells belong to the data; the others are zeros put in, or cut off in the end.
        others: what the grid is called with those others.
    """

    name: str
    values: np.ndarray
    data: np.ndarray
    others: str = ""

    def mask(self, cells):
        """Tell for each cell of the grid whether it is one of these."""
        mask = np.zeros(self.values.shape, bool)
        for cell in cells:
            mask[cell] = True
        return mask


@dataclass(frozen=True, eq=False)
class Walk:
    """A kernel's walk, a frame for each step.

    Attributes:
        title: what walks, and with which hyperparameters.
        source: the cells that the kernel reads.
        kernel: its weights.
        target: the cells that the products are added to, zero at the start.
        steps: where the kernel stands, in order.
    """

    title: str
    source: Grid = field(repr=False)
    kernel: Grid = field(repr=False)
    target: Grid = field(repr=False)
    steps: list = field(repr=False)

    @property
    def frames(self):
        """The number of frames."""
        return len(self.steps)

    @property
    def output(self):
        """The result of the whole walk, without what padding cuts off."""
        rows, columns = self.target.data.any(axis=1), self.target.data.any(axis=0)
        return self.totals[-1][np.ix_(rows, columns)]

    @cached_property
    def never_read(self):
        """Which cells of the source no step reads."""
        return ~self.source.mask(cell for step in self.steps for cell in step.reads)

    @cached_property
    def never_written(self):
        """Which cells of the target no step writes."""
        return ~self.target.mask(cell for step in self.steps for cell in step.writes)

    @cached_property
    def totals(self):
        """The target's numbers after each step."""
        values, totals = self.target.values, []
        for index, step in enumerate(self.steps):
            values = values.copy()
            for cell, product in zip(step.writes, self.products(index).flat, strict=True):
                values[cell] += product
            totals.append(values)
        return totals

    def products(self, index):
        """Multiply what a step reads by the weights, in the shape of the kernel."""
        read = [self.source.values[cell] for cell in self.steps[index].reads]
        return np.reshape(read, self.kernel.values.shape) * self.kernel.values

    def frame(self, index):
        """Draw a step: source, kernel, products, target, and the sum in words.

        Raises:
            ValueError: there is no such step.
        """
        if not 0 <= index < self.frames:
            raise ValueError(f"index={index} must be one of the steps 0 to {self.frames - 1}")
        return draw_frame(self, index)

    def strip(self, columns=4):
        """Draw steps spread evenly from the first to the last, the source above the target.

        Raises:
            ValueError: fewer than one column.
        """
        if columns < 1:
            raise ValueError(f"columns={columns} must be at least 1")
        return draw_strip(self, columns)

    def player(self):
        """Give the walk with buttons and a slider, for a notebook and its export to HTML."""
        return Player(self)


def conv_walk(input, kernel, stride=1, padding=0, dilation=1):
    """Walk a kernel over an input as a convolution does: read a window, write its sum.

    Shape:
        input (H, W), kernel (k_h, k_w)

    Args:
        input: numbers of one channel.
        kernel: weights.
        stride: input cells from one window to the next.
        padding: zeros added on each side.
        dilation: input cells from one tap to the next.

    Raises:
        ValueError: a shape or hyperparameter that no convolution takes, or a walk too large to
            be read.
    """
    input, kernel = _matrix("input", input), _matrix("kernel", kernel)
    if isinstance(padding, str):
        raise ValueError(
            f"padding={padding!r} must be a number of zeros, or a pair: try padding=0 for 'valid'"
        )
    output_size = conv_size(input.shape, kernel.shape, stride, padding, dilation)
    title = f"Convolution: stride {stride}, padding {padding}, dilation {dilation}"
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    _require_readable(output_size, input=input.shape + 2 * padding, kernel=kernel.shape)

    return Walk(
        title,
        Grid("input", *_surround(input, padding, padding), "padded"),
        _all_data("kernel", kernel),
        _all_data("output", np.zeros(output_size)),
        _gather(output_size, kernel.shape, stride, dilation),
    )


def conv_transpose_scatter(input, kernel, stride=1, padding=0, output_padding=0, dilation=1):
    """Walk a transposed convolution as it is defined: each input adds a scaled kernel.

    Shape:
        input (H, W), kernel (k_h, k_w)

    Args:
        input: numbers of one channel.
        kernel: weights.
        stride: output cells from one scaled kernel to the next.
        padding: output cells cut off on each side.
        output_padding: output cells added at the far edges.
        dilation: output cells from one tap to the next.

    Raises:
        ValueError: a shape or hyperparameter that no transposed convolution takes, or a walk too
            large to be read.
    """
    input, kernel = _matrix("input", input), _matrix("kernel", kernel)
    output_size = conv_transpose_size(
        input.shape, kernel.shape, stride, padding, output_padding, dilation
    )
    title = (
        f"Transposed convolution by scatter: stride {stride}, padding {padding}, "
        f"output_padding {output_padding}, dilation {dilation}"
    )
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    _require_readable(input.shape, kernel=kernel.shape, output=output_size + 2 * padding)

    steps = []
    for position in np.ndindex(input.shape):
        window = _window(position * stride, kernel.shape, dilation)
        steps.append(Step(reads=[position] * len(window), writes=window))
    return Walk(
        title,
        _all_data("input", input),
        _all_data("kernel", kernel),
        Grid("output", *_surround(np.zeros(output_size), padding, padding), "before the cut"),
        steps,
    )


def conv_transpose_zero_insertion(input, kernel, stride=1, padding=0, output_padding=0, dilation=1):
    """Walk a transposed convolution as a convolution of the input with zeros put in.

    There are stride - 1 zeros between the inputs and dilation * (kernel - 1) - padding around
    them; the kernel is flipped both ways and moves by one cell.

    Shape:
        input (H, W), kernel (k_h, k_w)

    Args:
        input: numbers of one channel.
        kernel: weights.
        stride: one more than the zeros between two inputs.
        padding: how many fewer zeros lie around the input.
        output_padding: zeros more at the far edges.
        dilation: cells from one tap to the next.

    Raises:
        ValueError: a shape or hyperparameter that no transposed convolution takes, or a walk too
            large to be read.
    """
    input, kernel = _matrix("input", input), _matrix("kernel", kernel)
    output_size = conv_transpose_size(
        input.shape, kernel.shape, stride, padding, output_padding, dilation
    )
    title = (
        f"Transposed convolution by zero insertion: stride {stride}, padding {padding}, "
        f"output_padding {output_padding}, dilation {dilation}"
    )
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    margin = dilation * np.subtract(kernel.shape, 1) - padding
    # Where padding is larger than the kernel reaches, the walk starts inside the input instead.
    before, start = np.maximum(margin, 0), np.maximum(-margin, 0)
    after = np.maximum(margin + _pair(output_padding), 0)
    spread_size = np.subtract(input.shape, 1) * stride + 1
    _require_readable(output_size, input=spread_size + before + after, kernel=kernel.shape)

    spread, is_input = np.zeros(spread_size), np.zeros(spread_size, bool)
    spread[:: stride[0], :: stride[1]] = input
    is_input[:: stride[0], :: stride[1]] = True
    values, _ = _surround(spread, before, after)
    data, _ = _surround(is_input, before, after)
    return Walk(
        title,
        Grid("input", values, data, "with zeros"),
        _all_data("flipped\nkernel", np.flip(kernel)),
        _all_data("output", np.zeros(output_size)),
        _gather(output_size, kernel.shape, 1, dilation, start),
    )


def _gather(output_size, kernel_size, stride, dilation, start=0):
    """List the steps of a convolution whose first window lies at `start`."""
    steps = []
    for position in np.ndindex(*output_size):
        window = _window(start + position * _pair(stride), kernel_size, dilation)
        steps.append(Step(reads=window, writes=[position] * len(window)))
    return steps


def _window(corner, kernel_size, dilation):
    """List the cells under the taps of a kernel whose first tap lies on `corner`."""
    return [tuple(corner + tap * dilation) for tap in np.ndindex(*kernel_size)]


def _surround(values, before, after):
    """Put zeros around an array; return it with a mask of where the array lies in it."""
    margins = list(zip(before, after, strict=True))
    return np.pad(values, margins), np.pad(np.ones(values.shape, bool), margins)


def _all_data(name, values):
    return Grid(name, values, np.ones(values.shape, bool))


def _pair(value):
    return np.broadcast_to(value, 2)


def _matrix(name, values):
    values = as_array(values).astype(float)
    if values.ndim != 2:
        raise ValueError(f"{name} has shape {values.shape}: pass one channel, (height, width)")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has infinite or undefined entries: pass small numbers")
    return values


def _require_readable(steps, **sizes):
    """Refuse a walk of too many steps, or over grids whose cells would be too small."""
    count = steps[0] * steps[1]
    if count > MAX_STEPS:
        raise ValueError(
            f"the walk has {steps[0]} x {steps[1]} = {count:,} steps, at most {MAX_STEPS} can be "
            "shown: try a smaller input"
        )
    for name, size in sizes.items():
        if max(size) > MAX_SIDE:
            raise ValueError(
                f"the {name} takes {size[0]} x {size[1]} cells, at most {MAX_SIDE} a side can be "
                "read: try a smaller one"
            )

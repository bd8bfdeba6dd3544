"""The steps of a kernel that slides over its input.

A convolution reads a window of the input and writes one output; a transposed convolution reads one
input and writes a window of the output. A step of either multiplies and adds, for each tap:

    target[write] += source[read] * kernel[tap]
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cnnlib._checks import check_count
from cnnlib.arithmetic import conv_size, conv_transpose_size
from cnnlib.explore.page import Page, player
from cnnlib.explore.stills import draw_steps
from cnnlib.plots._inputs import check_numbers

MAX_STEPS = 144
MAX_SIDE = 24  # cells; smaller ones would be illegible
MAX_DRAWN = 12  # steps side by side
MAX_NUMBER = 1e9

Size = int | tuple[int, int]


@dataclass(frozen=True, eq=False)
class Grid:
    """A matrix of numbers, drawn as cells.

    Args:
        label: What the numbers are, and how many.
        values: The numbers.
        data: Which cells belong to the data; the others are inserted zeros or will be cut off.
    """

    label: str
    values: np.ndarray
    data: np.ndarray

    def mask(self, cells: np.ndarray) -> np.ndarray:
        """Return for each cell whether it is among these, which are numbered row by row."""
        return np.isin(np.arange(self.values.size), cells).reshape(self.values.shape)


@dataclass(frozen=True, eq=False)
class SlidingWindow:
    """The steps of a kernel that slides over its input.

    Args:
        title: The operation and its hyperparameters.
        source: The cells that the kernel reads.
        kernel: The weights.
        target: The cells that the products are added to, zero at the start.
        reads: The cell that each tap reads, (steps, taps); cells are numbered row by row.
        writes: The cell that each tap writes, likewise.
    """

    title: str
    source: Grid = field(repr=False)
    kernel: Grid = field(repr=False)
    target: Grid = field(repr=False)
    reads: np.ndarray = field(repr=False)
    writes: np.ndarray = field(repr=False)

    @property
    def num_steps(self) -> int:
        """The number of steps."""
        return len(self.reads)

    @cached_property
    def products(self) -> np.ndarray:
        """The products of weights and input of each step, (steps, k_h, k_w)."""
        products = self.source.values.flat[self.reads] * self.kernel.values.ravel()
        return products.reshape(-1, *self.kernel.values.shape)

    @cached_property
    def totals(self) -> np.ndarray:
        """The numbers in the target after each step, (steps, height, width)."""
        added = np.zeros((self.num_steps, self.target.values.size))
        steps = np.arange(self.num_steps)[:, None]
        np.add.at(added, (steps, self.writes), self.products.reshape(self.writes.shape))
        return added.cumsum(axis=0).reshape(-1, *self.target.values.shape)

    @property
    def output(self) -> np.ndarray:
        """The result of all steps, without the part that padding cuts off."""
        rows, columns = self.target.data.any(axis=1), self.target.data.any(axis=0)
        return self.totals[-1][np.ix_(rows, columns)]

    @cached_property
    def never_read(self) -> np.ndarray:
        """Which cells of the source no step reads."""
        return ~self.source.mask(self.reads)

    @cached_property
    def never_written(self) -> np.ndarray:
        """Which cells of the target no step writes."""
        return ~self.target.mask(self.writes)

    def draw(self, *indices: int) -> Figure:
        """Draw steps, each with its source and its target; without indices, draw the last one.

        Raises:
            ValueError: There is no such step, or there are too many to draw.
        """
        last = self.num_steps - 1
        check_count("len(indices)", len(indices), MAX_DRAWN, least=0)
        steps = [check_count("index", index, last, least=0, usual=last) for index in indices]
        return draw_steps(self, steps or [last])

    def player(self) -> Page:
        """Return the steps with buttons and a slider, for a notebook and its export to HTML."""
        return player(self)


def conv_steps(
    input: Any, kernel: Any, stride: Size = 1, padding: Size = 0, dilation: Size = 1
) -> SlidingWindow:
    """Return the steps of a convolution, which reads a window and writes its weighted sum.

    Shape:
        input (H, W), kernel (k_h, k_w)

    Args:
        input: Numbers of one channel.
        kernel: Weights.
        stride: Input cells from one window to the next.
        padding: Zeros added on each side.
        dilation: Input cells from one tap to the next.

    Raises:
        ValueError: No convolution takes this shape or hyperparameter, or there are more steps or
            cells than one can read.
    """
    input, kernel = _matrix("input", input), _matrix("kernel", kernel)
    if isinstance(padding, str):
        raise ValueError(
            f"padding={padding!r} must be a number of zeros, or a pair: try padding=0 for 'valid'"
        )
    output_size = conv_size(input.shape, kernel.shape, stride, padding, dilation)
    title = f"Convolution: stride {stride}, padding {padding}, dilation {dilation}"
    source_size = input.shape + 2 * _pair(padding)
    _require_readable(output_size, input=(source_size, "padding"), kernel=(kernel.shape, ""))
    source = _place("input", input, source_size, padding, others="padded")
    return _gather(title, source, _place("kernel", kernel), output_size, stride, dilation)


def transposed_scatter_steps(
    input: Any,
    kernel: Any,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    dilation: Size = 1,
) -> SlidingWindow:
    """Return the steps of a transposed convolution by definition: each input adds a kernel.

    Shape:
        input (H, W), kernel (k_h, k_w)

    Args:
        input: Numbers of one channel.
        kernel: Weights.
        stride: Output cells from one scaled kernel to the next.
        padding: Output cells cut off on each side.
        output_padding: Output cells added at the far edges.
        dilation: Output cells from one tap to the next.

    Raises:
        ValueError: No transposed convolution takes this shape or hyperparameter, or there are more
            steps or cells than one can read.
    """
    input, kernel = _matrix("input", input), _matrix("kernel", kernel)
    sizes = input.shape, kernel.shape, stride, padding, output_padding, dilation
    output_size = conv_transpose_size(*sizes)
    target_size = output_size + 2 * _pair(padding)
    _require_readable(input.shape, kernel=(kernel.shape, ""), output=(target_size, "stride"))
    target = _place("output", np.zeros(output_size), target_size, padding, others="before the cut")
    corners, taps = _cells(target, input.shape, stride), _cells(target, kernel.shape, dilation)
    return SlidingWindow(
        _transposed_title("scatter", *sizes[2:]),
        source=_place("input", input),
        kernel=_place("kernel", kernel),
        target=target,
        reads=np.arange(input.size)[:, None].repeat(kernel.size, axis=1),
        writes=np.add.outer(corners, taps),
    )


def transposed_zero_insertion_steps(
    input: Any,
    kernel: Any,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    dilation: Size = 1,
) -> SlidingWindow:
    """Return the steps of a transposed convolution as a convolution with inserted zeros.

    There are stride - 1 zeros between the inputs and dilation * (kernel - 1) - padding around
    them, plus output_padding at the far edges. The kernel is flipped both ways and moves by one
    cell. Shapes, arguments and errors are those of `transposed_scatter_steps`.
    """
    input, kernel = _matrix("input", input), _matrix("kernel", kernel)
    sizes = input.shape, kernel.shape, stride, padding, output_padding, dilation
    output_size = conv_transpose_size(*sizes)
    margin = _pair(dilation) * np.subtract(kernel.shape, 1) - padding
    # If padding is larger than the kernel's reach, the first window starts inside the input.
    before, start = np.maximum(margin, 0), np.maximum(-margin, 0)
    after = np.maximum(margin + output_padding, 0)
    source_size = before + np.subtract(input.shape, 1) * stride + 1 + after
    _require_readable(output_size, input=(source_size, "stride"), kernel=(kernel.shape, ""))
    source = _place("input", input, source_size, before, stride, others="with zeros")
    flipped = _place("flipped kernel", np.flip(kernel))
    title = _transposed_title("zero insertion", *sizes[2:])
    return _gather(title, source, flipped, output_size, 1, dilation, start)


def _transposed_title(view, stride, padding, output_padding, dilation):
    return (
        f"Transposed convolution by {view}: stride {stride}, padding {padding}, "
        f"output_padding {output_padding}, dilation {dilation}"
    )


def _gather(title, source, kernel, output_size, stride, dilation, start=0):
    """Return the steps of a convolution whose first window lies at `start`."""
    target = _place("output", np.zeros(output_size))
    corners = _cells(source, output_size, stride, start)
    reads = np.add.outer(corners, _cells(source, kernel.values.shape, dilation))
    writes = np.arange(len(corners))[:, None].repeat(kernel.values.size, axis=1)
    return SlidingWindow(title, source, kernel, target, reads, writes)


def _cells(grid, count, spacing, start=0):
    """List the cells of a grid in `count` rows and columns that are `spacing` apart."""
    rows, columns = _lattice(count, spacing, start)
    return (rows * grid.values.shape[1] + columns).ravel()


def _lattice(count, spacing, start):
    """Return the rows and the columns of a lattice of cells, ready to index an array."""
    axes = zip(_pair(start), _pair(spacing), count, strict=True)
    return np.ix_(*(first + step * np.arange(number) for first, step, number in axes))


def _place(name, values, shape=None, start=0, spacing=1, others=""):
    """Place numbers in a grid of zeros, from `start` on and `spacing` cells apart."""
    shape = values.shape if shape is None else shape
    label = f"{name} {values.shape[0]} x {values.shape[1]}"
    numbers, data = np.zeros(shape), np.zeros(shape, bool)
    cells = _lattice(values.shape, spacing, start)
    numbers[cells], data[cells] = values, True
    if not data.all():
        label += f"\n{others}: {shape[0]} x {shape[1]}"
    return Grid(label, numbers, data)


def _pair(value):
    return np.broadcast_to(value, 2).astype(int)  # NumPy's bytes wrap around


def _matrix(name, values):
    values = check_numbers(name, values).astype(float)
    if values.ndim != 2:
        raise ValueError(f"{name} has shape {values.shape}: try one channel, (height, width)")
    if (np.abs(values) > MAX_NUMBER).any():
        raise ValueError(f"{name} must hold numbers of at most {MAX_NUMBER:g}: try smaller ones")
    return values


def _require_readable(steps, **grids):
    """Refuse too many steps, and grids (size, other remedy) whose cells would be tiny."""
    count = steps[0] * steps[1]
    if count > MAX_STEPS:
        raise ValueError(
            f"steps={count:,}, {steps[0]} x {steps[1]}, must be at most {MAX_STEPS} to be shown: "
            "try a smaller input"
        )
    for name, ((rows, columns), cause) in grids.items():
        if max(rows, columns) > MAX_SIDE:
            remedy = f"input or {cause}" if cause else name
            raise ValueError(
                f"{name}={rows} x {columns} cells must be at most {MAX_SIDE} per side to be shown: "
                f"try a smaller {remedy}"
            )

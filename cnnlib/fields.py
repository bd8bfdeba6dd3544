"""Receptive fields of a forward pass, followed through every operation along every path.

For a chain of layers `arithmetic.receptive_field` has the formula. Here branches join, functional
calls count as much as layers, and after upsampling neighbours see windows of different sizes. So
the positions of a tensor carry the interval of pixels that they see.
"""

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten


class ReceptiveFields(TorchDispatchMode):
    """Follows what tensors see of an image: `with ReceptiveFields(image) as fields: net(image)`.

    The field is the theoretical one: padding counts as pixels, and where paths join, their windows
    join. What mixes all places (global pooling, a Linear after flattening, instance norm) sees all
    that any place saw. An operation that is not known here makes the field None.

    Args:
        image: (N, C, H, W).
    """

    def __init__(self, image):
        super().__init__()
        self.axes = WeakTensorKeyDictionary()
        self.axes[image] = [Axis(length) for length in image.shape[-2:]]

    def of(self, tensor):
        """Return the pixels that one value of a tensor sees: a side, or (height, width)."""
        axes = self.axes.get(tensor)
        if axes is None:
            return None
        height, width = (axis.widest() for axis in axes)
        return height if height == width else (height, width)

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        """Run an operation, then note what its results see."""
        output = op(*args, **(kwargs or {}))
        results = [x for x in tree_leaves(output) if isinstance(x, Tensor)]
        sources = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        sources = [x for x in sources if x in self.axes]
        if sources and results:
            axes = _axes_after(op, args, results[0], sources, [self.axes[x] for x in sources])
            for x in results:
                written_through_a_view = x is args[0] and x._base is not None
                if written_through_a_view and self.axes.get(x, ()) != axes:
                    self.axes[x._base] = None
                self.axes[x] = axes
        return output


@dataclass(frozen=True)
class Axis:
    """What the positions along one axis of a tensor, height or width, see of the image.

    Position i sees the pixels from first[i] to last[i]. The two hold one period of a pattern that
    goes on in both directions, `shift` pixels further with each period. A period is one position
    until upsampling makes neighbours see differently. A shift of 0 says that all see the same.
    """

    length: int
    first: tuple[int, ...] = (0,)
    last: tuple[int, ...] = (0,)
    shift: int = 1

    def seen_by(self, position):
        """Return the first and last pixel; a position outside the tensor sees the padding."""
        periods, phase = divmod(position, len(self.first))
        return self.first[phase] + periods * self.shift, self.last[phase] + periods * self.shift

    def widest(self):
        """Return the most pixels that a position of the tensor sees."""
        first, last = self.first[: self.length], self.last[: self.length]
        return max(end - start + 1 for start, end in zip(first, last, strict=True))

    def read(self, length, every, step, window):
        """Return the axis of an operation whose output i reads the inputs of window(i).

        Args:
            length: positions of the output.
            every: output positions after which the windows repeat.
            step: input positions that the windows have moved by then.
            window: gives the first and the last input for an output position.
        """
        periods = len(self.first) // math.gcd(len(self.first), step)
        windows = [window(i) for i in range(every * periods)]
        return Axis(
            length,
            first=tuple(self.seen_by(start)[0] for start, _ in windows),
            last=tuple(self.seen_by(end)[1] for _, end in windows),
            shift=self.shift * step * periods // len(self.first),
        )

    def convolved(self, length, kernel, stride=1, padding=0, dilation=1):
        """Return the axis after a convolution or a pooling."""
        span = dilation * (kernel - 1)

        def window(i):
            return i * stride - padding, i * stride - padding + span

        return self.read(length, every=1, step=stride, window=window)

    def transposed(self, length, kernel, stride, padding, dilation):
        """Return the axis after a transposed convolution."""
        if stride > 1 and dilation > 1:
            return None  # the inputs that meet at an output are then no interval
        span = dilation * (kernel - 1)

        def window(i):
            return -((span - padding - i) // stride), (i + padding) // stride

        return self.read(length, every=stride, step=1, window=window)

    def resized(self, length, window):
        """Return the axis of an output whose windows lie evenly over the whole input."""
        common = math.gcd(length, self.length)
        return self.read(length, length // common, self.length // common, window)

    def pooled_to(self, length):
        """Return the axis after adaptive pooling."""
        n = self.length
        return self.resized(length, lambda i: (i * n // length, -(-(i + 1) * n // length) - 1))

    def nearest(self, length):
        """Return the axis after resizing by the nearest position."""
        return self.resized(length, lambda i: (i * self.length // length,) * 2)

    def interpolated(self, length):
        """Return the axis after resizing by linear interpolation between centres."""

        def window(i):
            centre, unit = (2 * i + 1) * self.length - length, 2 * length
            return centre // unit, -(-centre // unit)

        return self.resized(length, window)

    def mixed(self):
        """Return the axis of an output in which every position sees what any of them saw."""
        return Axis(1, self.seen_by(0)[:1], self.seen_by(self.length - 1)[1:], shift=0)

    def union(self, other):
        """Return what two axes see together; None if they move at different rates."""
        if 0 in (self.shift, other.shift) or self.length != other.length:
            self, other = self.mixed(), other.mixed()
        period = math.lcm(len(self.first), len(other.first))
        shift = self.shift * period // len(self.first)
        if shift != other.shift * period // len(other.first):
            return None
        pairs = [(self.seen_by(i), other.seen_by(i)) for i in range(period)]
        return Axis(
            self.length,
            first=tuple(min(one[0], two[0]) for one, two in pairs),
            last=tuple(max(one[1], two[1]) for one, two in pairs),
            shift=shift,
        )


def _union(axes_of_sources):
    """Return the axes that all sources see together."""
    return [
        reduce(lambda one, two: one and one.union(two), same_axis)
        for same_axis in zip(*axes_of_sources, strict=True)
    ]


def _is_map(axes, x):
    """Tell whether the last two dimensions of a tensor still are its height and width."""
    sizes = x.shape[-2:]
    return len(sizes) == 2 and all(
        axis.shift == 0 or axis.length == size for axis, size in zip(axes, sizes, strict=True)
    )


def _axes_after(op, args, result, sources, axes_of_sources):
    """Return the axes of an operation's results; `sources` are the arguments that have axes."""
    if None in axes_of_sources:
        return None
    axes, rule, x = _union(axes_of_sources), op.overloadpacket, sources[0]
    if None in axes:
        return None
    all_see_the_same = not any(axis.shift for pair in axes_of_sources for axis in pair)
    if all_see_the_same or torch.Tag.pointwise in op.tags or rule in _PLACE_BY_PLACE:
        return axes
    if rule in (aten.cat, aten.stack):
        return axes if _is_map(axes, result) == _is_map(axes_of_sources[0], x) else None
    if len(sources) > 1 or x is not args[1 if rule is aten.addmm else 0]:
        return None
    after = []
    if rule in _MIXING:
        after = list(_MIXING[rule](axes, *args))
    elif rule in _ON_MAPS and _is_map(axes, x):
        after = list(_ON_MAPS[rule](axes, result, *args))
    return None if None in after or len(after) != 2 else after


# Each result comes from the inputs at its own place, as in all that torch tags as pointwise.
_PLACE_BY_PLACE = {
    *(aten.alias, aten.clone, aten.copy_, aten.detach, aten._to_copy, aten.empty_like),
    *(aten.view, aten._unsafe_view, aten.squeeze, aten.unsqueeze, aten.bernoulli_),
    *(aten.hardswish, aten.hardswish_, aten._prelu_kernel),
    aten._native_batch_norm_legit_no_training,
}


# Operations that may mix places: rule(axes, *args) -> axes, or [] if it cannot tell


def _mix(axes, *_):
    return [axis.mixed() for axis in axes]


def _mix_rows(axes, row):
    """Mix the values of each row; a row that holds whole maps mixes all places."""
    return _mix(axes) if row % math.prod(axis.length for axis in axes) == 0 else []


def _batch_norm(axes, x, weight, bias, mean, variance, training, *_):
    return _mix(axes) if training else axes


def _reduce(axes, x, dims=None, keepdim=False, *_):
    if dims is None or dims == []:
        return _mix(axes)
    dims = {dim % x.ndim - x.ndim for dim in ([dims] if isinstance(dims, int) else dims)}
    if not _is_map(axes, x):
        return _mix_rows(axes, x.shape[-1]) if -1 in dims else []
    if len(dims & {-2, -1}) == 1 and not keepdim:
        return []
    return [axis.mixed() if dim in dims else axis for dim, axis in zip((-2, -1), axes, strict=True)]


_MIXING = {
    aten.mm: lambda axes, x, weight: _mix_rows(axes, x.shape[-1]),
    aten.addmm: lambda axes, bias, x, weight: _mix_rows(axes, x.shape[-1]),
    aten.native_layer_norm: lambda axes, x, shape, *_: _mix_rows(axes, math.prod(shape)),
    aten.native_group_norm: _mix,
    aten.native_batch_norm: _batch_norm,
    aten.cudnn_batch_norm: _batch_norm,
    **dict.fromkeys([aten.mean, aten.sum, aten.amax, aten.amin, aten.max, aten.min], _reduce),
}


# Operations on height and width, the last two dimensions: rule(axes, result, *args) -> axes


def _convolution(axes, result, x, weight, bias, stride, padding, dilation, transposed, *_):
    step = Axis.transposed if transposed else Axis.convolved
    sizes, kernel = result.shape[-2:], weight.shape[-2:]
    return map(step, axes, sizes, kernel, stride[-2:], padding[-2:], dilation[-2:])


def _max_pool(axes, result, x, kernel, stride=(), padding=(0, 0), dilation=(1, 1), *_):
    return map(Axis.convolved, axes, result.shape[-2:], kernel, stride or kernel, padding, dilation)


def _average_pool(axes, result, x, kernel, stride=(), padding=(0, 0), *_):
    return _max_pool(axes, result, x, kernel, stride, padding)


def _adaptive_pool(axes, result, *_):
    return map(Axis.pooled_to, axes, result.shape[-2:])


def _nearest(axes, result, *_):
    return map(Axis.nearest, axes, result.shape[-2:])


def _bilinear(axes, result, x, size, align_corners, *_):
    return [] if align_corners else map(Axis.interpolated, axes, result.shape[-2:])


def _pad(axes, result, x, padding, *_):
    left, top = padding[0], padding[2] if len(padding) > 2 else 0
    return map(Axis.convolved, axes, result.shape[-2:], (1, 1), (1, 1), (top, left))


def _slice(axes, result, x, dim=0, start=None, end=None, step=1):
    first = slice(start, end).indices(x.shape[dim])[0]
    axes = list(axes)
    place = dim % x.ndim - x.ndim
    if place >= -2:
        axes[place] = axes[place].convolved(result.shape[place], 1, step, -first)
    return axes


def _view(axes, result, x, *_):
    """Keep the axes if height and width still are where they were in memory."""
    same = (x.shape[-2:], x.stride()[-2:]) == (result.shape[-2:], result.stride()[-2:])
    return axes if same else []


_ON_MAPS = {
    aten.convolution: _convolution,
    aten.max_pool2d_with_indices: _max_pool,
    aten.avg_pool2d: _average_pool,
    aten._adaptive_avg_pool2d: _adaptive_pool,
    aten.adaptive_max_pool2d: _adaptive_pool,
    aten.upsample_nearest2d: _nearest,
    aten.pixel_shuffle: _nearest,
    aten.upsample_bilinear2d: _bilinear,
    aten.slice: _slice,
    **dict.fromkeys([aten.constant_pad_nd, aten.reflection_pad2d, aten.replication_pad2d], _pad),
    **dict.fromkeys([aten.select, aten.split, aten.split_with_sizes, aten.unbind], _view),
    **dict.fromkeys([aten.permute, aten.transpose], _view),
}

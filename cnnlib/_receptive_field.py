"""Receptive fields of a forward pass, followed through every operation along every path.

For a chain of layers `arithmetic.receptive_field` has the formula. Here branches join, functional
calls count as much as layers, and after upsampling neighbours see windows of different sizes. So
each tensor carries two things: what its positions along height and width see of the image, and
which of its dimensions hold these positions.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial, reduce
from itertools import chain
from math import ceil, floor

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary


class ReceptiveFields(TorchDispatchMode):
    """Tracks what tensors see of an image: `with ReceptiveFields(image) as fields: net(image)`.

    The field is the theoretical one: an interval of pixels along the height and one along the
    width. Padding counts as pixels at every depth, and where paths join, their windows join.

    Some operations mix all positions: global pooling, a Linear after flattening, instance norm.
    Their outputs all see one interval, which covers everything that any position saw, padding
    included. A gate joins this interval with the windows of the path that it multiplies. The
    windows keep growing from layer to layer while the common interval stays, so a gated path never
    sees less than the same path without the gate.

    If the channels of one position see different pixels, as after a space-to-depth, the position
    sees them all. An operation without a rule loses the field, and `of` returns its name.

    Args:
        image: A batch (N, C, H, W).
    """

    def __init__(self, image):
        super().__init__()
        height, width = image.shape[-2:]
        self.seen = WeakTensorKeyDictionary()  # a _Seen, or the name of the operation that lost it
        self.seen[image] = _seen(
            {"height": _Axis(height), "width": _Axis(width)},
            [_other(1), _other(image.shape[1]), [("height", height)], [("width", width)]],
        )

    def of(self, tensor: Tensor) -> tuple[int | tuple[int, int] | None, str | None]:
        """Return the pixels that one value of a tensor sees: a side, or (height, width).

        The second result is the name of the operation that lost them, if any. Both are None for a
        tensor that does not depend on the image.
        """
        seen = self.seen.get(tensor)
        if not isinstance(seen, _Seen):
            return None, seen
        height, width = (axis.widest() for axis in seen.axes.values())
        return height if height == width else (height, width), None

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        """Run an operation, then note what its results see."""
        output = op(*args, **(kwargs or {}))
        call = _OpCall(self.seen, op, args, kwargs or {})
        if call.known and not call.name.startswith("new_") and not call.name.endswith("_like"):
            for result in tree_leaves(output):
                if isinstance(result, Tensor):
                    seen = call.seen_by(result)
                    is_written = any(result is x for x in call.tensors[:1])
                    if is_written and result._base is not None and self.seen.get(result) != seen:
                        self.seen[result._base] = f"{op.overloadpacket} into a part of a tensor"
                    self.seen[result] = seen
        return output


# What positions see


@dataclass(frozen=True)
class _Axis:
    """What the positions along the height or the width of a tensor see of the image.

    Position i sees the pixels from the first to the last of windows[i]. The windows are one period
    of a pattern that continues in both directions, `shift` pixels further with each period. There
    is one window until upsampling makes neighbours differ. All positions also see `common`; if
    there are no windows, they see only that.
    """

    length: int
    windows: tuple[tuple[int, int], ...] = ((0, 0),)
    shift: int = 1
    common: tuple[int, int] | None = None

    def window(self, position):
        """Return the first and last pixel that a position sees; it may lie in the padding."""
        periods, phase = divmod(position, len(self.windows))
        first, last = self.windows[phase]
        return first + periods * self.shift, last + periods * self.shift

    def interval(self, position):
        """Return the window of a position, joined with the common interval."""
        return _hull(self.window(position) if self.windows else None, self.common)

    def widest(self):
        """Return the most pixels that a position sees; a common interval is farthest at an end."""
        places, period = range(self.length), max(1, len(self.windows))
        intervals = map(self.interval, {*places[:period], *places[-period:]})
        return max(last - first + 1 for first, last in intervals)

    def read(self, length, step, window):
        """Return the axis of an operation whose output i reads the inputs of window(i).

        From one output to the next, the window moves by `step` inputs, an int or a Fraction.
        """
        if not self.windows:
            return replace(self, length=length)
        periods = len(self.windows) // math.gcd(len(self.windows), step.numerator)
        ends = [window(i) for i in range(step.denominator * periods)]
        windows = tuple((self.window(start)[0], self.window(end)[1]) for start, end in ends)
        shift = self.shift * step.numerator * periods // len(self.windows)
        return replace(self, length=length, windows=windows, shift=shift)

    def convolved(self, length, kernel, stride=1, padding=0, dilation=1):
        """Return the axis after a convolution or a pooling."""
        far = dilation * (kernel - 1) - padding
        return self.read(length, stride, lambda i: (i * stride - padding, i * stride + far))

    def transposed(self, length, kernel, stride, padding, dilation):
        """Return the axis after a transposed convolution."""
        if stride > 1 and dilation > 1:
            raise _NotFollowedError  # then the inputs of one output form no interval
        step, far = Fraction(1, stride), dilation * (kernel - 1) - padding
        return self.read(
            length, step, lambda i: (ceil((i - far) * step), floor((i + padding) * step))
        )

    def pooled_to(self, length):
        """Return the axis after adaptive pooling."""
        if length == 1:
            return self.mixed()
        step = Fraction(self.length, length)
        return self.read(length, step, lambda i: (floor(i * step), ceil((i + 1) * step) - 1))

    def resized(self, length, mode="nearest", scale=None, align_corners=False):
        """Return the axis after an interpolation, which reads the inputs around each centre.

        The mode is "nearest", "nearest-exact" or "linear". The scale is in outputs per input; None
        derives it from the lengths.
        """
        if self.length == 1:
            return self.mixed()
        scale = Fraction(scale).limit_denominator(1000) if scale else Fraction(length, self.length)
        step = 1 / scale
        if align_corners:  # the outer centres coincide, not the outer borders
            step = Fraction(self.length - 1, max(length - 1, 1))
        half = Fraction(0 if align_corners or mode == "nearest" else 1, 2)

        def window(i):
            place = (i + half) * step - (half if mode == "linear" else 0)
            return floor(place), ceil(place) if mode == "linear" else floor(place)

        return self.read(length, step, window)

    def mixed(self):
        """Return the axis of one position, which sees everything that any position saw."""
        ends = self.interval(0), self.interval(self.length - 1)
        return _Axis(1, windows=(), shift=0, common=_hull(*ends))

    def union(self, other):
        """Return what two axes see together, if their windows move at the same rate."""
        common = _hull(self.common, other.common)
        if not self.windows or not other.windows:
            return replace(self if self.windows else other, common=common)
        period = math.lcm(len(self.windows), len(other.windows))
        shift = self.shift * period // len(self.windows)
        if self.length != other.length or shift != other.shift * period // len(other.windows):
            raise _NotFollowedError
        windows = tuple(_hull(self.window(i), other.window(i)) for i in range(period))
        return _Axis(self.length, windows, shift, common)


def _hull(*intervals):
    """Return the smallest interval around some intervals, each of which may be None."""
    known = [interval for interval in intervals if interval is not None]
    return (min(i[0] for i in known), max(i[1] for i in known)) if known else None


# Where the positions lie


@dataclass(frozen=True)
class _Seen:
    """What the values of a tensor see: both axes, and the parts of each dimension.

    A part is the meaning and the size of a factor of a dimension: flattening (C, H, W) gives a
    dimension with three parts, ("other", C), ("height", H) and ("width", W). A "scattered" part
    holds all positions in some order, like image tokens behind a class token. An axis that is in no
    dimension has one position, or all of its positions see the same.
    """

    axes: dict[str, _Axis]
    dims: tuple[tuple[tuple[str, int], ...], ...]

    def places(self, *dims):
        """Return the names of the axes in these dimensions."""
        names = {of for dim in dims for of, _ in self.dims[dim]} - {"other"}
        return {*self.axes} if "scattered" in names else names

    def located(self):
        """Return the names of the axes in any dimension."""
        return self.places(*range(len(self.dims)))

    def axis_at(self, dim):
        """Return the name of the axis along which a dimension runs, or None."""
        if not self.places(dim):
            natural = {-2: "height", -1: "width"}.get(dim)  # in a map of one position
            alone = natural and not self.dims[dim] and natural not in self.located()
            return natural if alone and self.axes[natural].windows else None
        (name, _), *rest = self.dims[dim]
        if rest or name not in self.axes:
            raise _NotFollowedError
        return name

    def placed(self, dims):
        """Return this with other dimensions."""
        return _seen(self.axes, dims)

    def resized(self, sizes):
        """Return this with these dimensions, keyed by number, resized and without positions."""
        dims = enumerate(self.dims)
        return self.placed([_other(sizes[i]) if i in sizes else parts for i, parts in dims])

    def mixed_over(self, *dims):
        """Return this after mixing: each position in these dimensions sees what any of them saw."""
        names = self.places(*dims)
        axes = {n: axis.mixed() if n in names else axis for n, axis in self.axes.items()}
        return _seen(axes, self.dims)

    def without_places(self, *dims):
        """Return this if these dimensions hold no positions, or only ones that see the same."""
        if any(self.axes[n].mixed().common != self.axes[n].common for n in self.places(*dims)):
            raise _NotFollowedError
        return self.mixed_over(*dims)


def _seen(axes, dims):
    """Return a _Seen in normal form: no part of size 1, and no two adjacent "other" parts."""
    moving = {name for name, axis in axes.items() if axis.windows}
    if moving:
        moving.add("scattered")
    tidy = []
    for parts in dims:
        tidy.append([])
        for of, size in parts:
            of = of if of in moving else "other"
            if of == "other" and tidy[-1] and tidy[-1][-1][0] == "other":
                size *= tidy[-1].pop()[1]
            if size != 1:
                tidy[-1].append((of, size))
    return _Seen(axes, tuple(map(tuple, tidy)))


def _other(size):
    return (("other", size),)


def _joined(seens, shape):
    """Return what tensors see once combined elementwise, broadcast to a shape."""
    dims = []
    for dim in range(-len(shape), 0):
        placed = {seen.dims[dim] for seen in seens if -dim <= len(seen.dims) and seen.places(dim)}
        if len(placed) > 1:
            raise _NotFollowedError
        dims.append(placed.pop() if placed else _other(shape[dim]))
    names = [of for of, _ in chain(*dims) if of != "other"]
    if len(names) != len(set(names)):
        raise _NotFollowedError  # a map and its transpose
    axes = {}
    for name in seens[0].axes:
        parts = [(seen.axes[name], name in seen.located()) for seen in seens]
        if any(located for _, located in parts):
            parts = [(axis if located else axis.mixed(), located) for axis, located in parts]
        axes[name] = reduce(_Axis.union, [axis for axis, _ in parts])
    return _seen(axes, dims)


# One operation


class _NotFollowedError(Exception):
    """There is no rule for the field after this operation."""


class _OpCall:
    """A call of an operation: its name, its arguments by name, and what its tensors see."""

    def __init__(self, seen, op, args, kwargs):
        self.op, self.name = op, op._schema.name.split("::")[1]
        if not self.name.startswith("_"):
            self.name = self.name.removesuffix("_")  # relu_ is relu
        names = [argument.name for argument in op._schema.arguments]
        defaults = {a.name: a.default_value for a in op._schema.arguments if a.has_default_value()}
        self.arguments = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
        self.tensors = [x for x in args if isinstance(x, Tensor)]
        self.seen, self.result = seen.get, None
        sources = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x in seen]
        self.known = [seen[x] for x in sources]

    def __getitem__(self, name):
        return self.arguments.get(name)

    def seen_by(self, result):
        """Return what a result sees, or the name of the operation that lost it."""
        if lost := next((seen for seen in self.known if isinstance(seen, str)), None):
            return lost
        self.result, sizes = result, dict(enumerate(result.shape))
        try:
            seen = self._followed()
            if all(math.prod(size for _, size in seen.dims[i]) == sizes[i] for i in sizes):
                return seen
        except Exception:  # a rule may not foresee the arguments, and the trace goes on
            pass
        if any(seen.located() for seen in self.known):
            return str(self.op.overloadpacket)
        # Whatever the operation does, all its results see the same.
        return _joined([seen.placed([]) for seen in self.known], result.shape)

    def _followed(self):
        """Find the rule of the operation and apply it."""
        if self._is_place_by_place():
            return _joined(self.known, self.result.shape)
        if self.name in _OF_SEVERAL:
            return _OF_SEVERAL[self.name](self)
        first, *others = self.known  # the others may be weights, even those of a gate
        if self.seen(self.tensors[0]) is not first or any(other.located() for other in others):
            raise _NotFollowedError
        seen = _OF_ONE[self.name](first, self)
        return _joined([seen, *(other.placed([]) for other in others)], self.result.shape)

    def _is_place_by_place(self):
        """Return whether each output depends only on the inputs at its own position."""
        packet = getattr(torch.ops.aten, self.name, None)
        twin = getattr(packet, self.op._overloadname, self.op)  # of relu_ it is relu
        tags = {*self.op.tags, *twin.tags}  # torch tags only one of them in some cases
        return torch.Tag.pointwise in tags or self.name in _PLACE_BY_PLACE


_PLACE_BY_PLACE = {
    *("alias", "clone", "copy", "detach", "_to_copy", "lift_fresh", "native_dropout"),
    *("leaky_relu", "hardswish", "_prelu_kernel", "log_sigmoid_forward", "rrelu_with_noise"),
    *("_native_batch_norm_legit_no_training", "_batch_norm_no_update"),
}


# Operations that move positions or mix them: rule(seen, call) -> _Seen


def _view(seen, call):
    """Split the same values, in the same order, into the dimensions of another shape."""
    parts = list(chain(*_seen(seen.axes, [chain(*seen.dims)]).dims))
    dims = []
    for size in call.result.shape:
        dims.append([])
        while size > 1:
            of, length = parts.pop(0)
            if of == "other" and length % size == 0:
                parts.insert(0, (of, length // size))
                length = size
            if size % length:
                raise _NotFollowedError  # it splits an axis, or joins its end to channels
            dims[-1].append((of, length))
            size //= length
            parts = [part for part in parts if part[1] > 1]
    return seen.placed(dims)


def _transpose(seen, call):
    dims = list(seen.dims)
    one, two = (0, -1) if call.name == "t" else (call["dim0"], call["dim1"])
    dims[one], dims[two] = dims[two], dims[one]
    return seen.placed(dims)


def _repeat(seen, call):
    added = [()] * (len(call["repeats"]) - len(seen.dims))
    repeats = zip(call["repeats"], [*added, *seen.dims], strict=True)
    return seen.placed([(*_other(count), *parts) for count, parts in repeats])


def _pick(seen, call):
    """Follow indexing along one dimension that holds no positions."""
    [(dim, index)] = [(i, index) for i, index in enumerate(call["indices"]) if index is not None]
    picked = map(_other, call.result.shape[dim : dim + index.ndim])
    seen = seen.without_places(dim)
    return seen.placed([*seen.dims[:dim], *picked, *seen.dims[dim + 1 :]])


def _along(seen, call, mixes=False):
    """Follow a change or, if it mixes, a reduction of the given dimensions (None: all)."""
    dims, count = call["dim"] if call["dims"] is None else call["dims"], len(seen.dims)
    dims = {dim % count for dim in ([dims] if isinstance(dims, int) else dims or range(count))}
    seen = seen.mixed_over(*dims) if mixes else seen.without_places(*dims)
    if call.result.ndim < count:
        return seen.placed([parts for dim, parts in enumerate(seen.dims) if dim not in dims])
    return seen.resized({dim: call.result.shape[dim] for dim in dims})


def _norm(seen, call):
    """Follow a group norm, or a batch norm that uses the statistics of its input."""
    if call["training"] is False:
        return seen
    return seen.without_places(1).mixed_over(*range(2, len(seen.dims)))


# Operations along height and width, in whichever dimensions: rule(seen, call) -> _Seen


def _moved(seen, call, along, step, *arguments):
    """Apply step(axis, new length, arguments) to the axis in each of some dimensions.

    Dimensions count from the last. An argument is one value for all of them, or a list of values.
    """
    axes, dims = dict(seen.axes), list(seen.dims)
    arguments = [list(x) if isinstance(x, (list, tuple)) else [x] for x in arguments]
    arguments = [x * len(along) if len(x) == 1 else x for x in arguments]
    for dim, *own in zip(along, *arguments, strict=True):
        name, length = seen.axis_at(dim), call.result.shape[dim]
        dims[dim] = ((name or "other", length),)
        if name:
            axes[name] = step(axes[name], length, *own)
    return _seen(axes, dims)


_LAST_TWO = (-2, -1)


def _slice(seen, call):
    dim = call["dim"] % len(seen.dims) - len(seen.dims)
    size = call.tensors[0].shape[dim]
    if call.result.shape[dim] == size:
        return seen
    first = slice(call["start"], call["end"]).indices(size)[0]
    return _moved(seen, call, [dim], _Axis.convolved, 1, call["step"], -first)


def _convolution(seen, call):
    kernel = call["weight"].shape[2:]
    seen = seen.mixed_over(1) if call["groups"] == 1 else seen.without_places(1)
    step = _Axis.transposed if call["transposed"] else _Axis.convolved
    windows = kernel, call["stride"], call["padding"], call["dilation"]
    seen = seen.resized({1: call.result.shape[1]})
    return _moved(seen, call, range(-len(kernel), 0), step, *windows)


def _pool(seen, call):
    kernel, last = call["kernel_size"], range(-3, 0) if "3d" in call.name else _LAST_TWO
    windows = kernel, call["stride"] or kernel, call["padding"], call["dilation"] or 1
    return _moved(seen, call, last, _Axis.convolved, *windows)


def _resize(seen, call):
    mode = "linear" if "linear" in call.name else "nearest" + "-exact" * ("exact" in call.name)
    scales = call["scale_factors"] or [call["scales_h"], call["scales_w"]]
    return _moved(seen, call, _LAST_TWO, _Axis.resized, mode, scales, call["align_corners"])


def _pixel_shuffle(seen, call):
    channels = len(seen.dims) - 3
    seen = seen.without_places(channels).resized({channels: call.result.shape[channels]})
    return _moved(seen, call, _LAST_TWO, _Axis.resized, "nearest")


def _pad(seen, call):
    """Follow padding with constants, or with copies, which count as pixels beyond the border."""
    left = (call["pad"] or call["padding"])[::2][::-1]
    return _moved(seen, call, range(-len(left), 0), _Axis.convolved, 1, 1, left)


def _rule_of(rule, names):
    return dict.fromkeys(names.split(), rule)


_OF_ONE = {
    **_rule_of(_view, "view _unsafe_view _reshape_alias squeeze unsqueeze"),
    **_rule_of(_transpose, "transpose t"),
    "permute": lambda seen, call: seen.placed([seen.dims[dim] for dim in call["dims"]]),
    "expand": lambda seen, call: _joined([seen], call.result.shape),
    **{"repeat": _repeat, "slice": _slice, "index": _pick, "pixel_shuffle": _pixel_shuffle},
    **_rule_of(_along, "select unbind split split_with_sizes index_select roll flip glu"),
    **_rule_of(
        partial(_along, mixes=True),
        "mean sum amax amin max min argmax std var std_mean var_mean norm linalg_vector_norm "
        "logsumexp _softmax _log_softmax _safe_softmax",
    ),
    **_rule_of(
        lambda seen, call: seen.mixed_over(*range(-len(call["normalized_shape"]), 0)),
        "native_layer_norm _fused_rms_norm",
    ),
    **_rule_of(_norm, "native_group_norm native_batch_norm cudnn_batch_norm miopen_batch_norm"),
    **_rule_of(_norm, "_native_batch_norm_legit"),
    **_rule_of(_convolution, "convolution _convolution"),
    **_rule_of(_pool, "avg_pool2d avg_pool3d max_pool2d_with_indices"),
    **_rule_of(
        lambda seen, call: _moved(seen, call, _LAST_TWO, _Axis.pooled_to),
        "_adaptive_avg_pool2d adaptive_max_pool2d",
    ),
    **_rule_of(_resize, "upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d"),
    **_rule_of(_pad, "constant_pad_nd reflection_pad2d replication_pad2d"),
}


# Operations of several tensors: rule(call) -> _Seen


def _product(call):
    """Follow the matrix product of the last two tensors; a first of three is added to it."""
    *bias, one, two = map(call.seen, call.tensors)
    factors = [seen for seen in bias if seen]
    if one:
        one = one.mixed_over(-1)
        factors.append(one.placed([*one.dims[:-1], ()]))
    if two:
        # Entry (i, j) sees position i of one map and position j of the other. Only i is followed:
        # the entry counts as seeing every j, as it does after the softmax.
        two = two.mixed_over(-2, -1) if one and one.located() else two.mixed_over(-2)
        factors.append(two.placed([*two.dims[:-2], (), two.dims[-1]]))
    return _joined(factors, call.result.shape)


def _attention(call):
    """Follow attention: every query sees itself and all keys and values."""
    query, *others = map(call.seen, call.tensors[:3])
    seens = [seen.mixed_over(-2, -1).placed([*seen.dims[:-2], (), ()]) for seen in others if seen]
    if query:
        query = query.mixed_over(-1)
        seens.append(query.placed([*query.dims[:-1], ()]))
    return _joined(seens, call.result.shape)


def _concatenate(call):
    """Join tensors; along a dimension that holds positions, only one tensor may hold them."""
    at, size = call["dim"] % call.result.ndim, call.result.shape[call["dim"]]
    seens = [seen for seen in map(call.seen, call["tensors"]) if seen]
    if call.name == "stack":
        seens = [seen.placed([*seen.dims[:at], (), *seen.dims[at:]]) for seen in seens]
    holding = [seen for seen in seens if seen.places(at)]
    if len(holding) > 1 or any(seen.places(at) != seen.located() for seen in holding):
        raise _NotFollowedError
    parts = {True: (("scattered", size),), False: _other(1)}
    dims = [(*seen.dims[:at], parts[seen in holding], *seen.dims[at + 1 :]) for seen in seens]
    return _joined(list(map(_Seen.placed, seens, dims)), call.result.shape)


_OF_SEVERAL = {
    **_rule_of(_product, "mm bmm addmm baddbmm"),
    **_rule_of(
        _attention,
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention",
    ),
    **_rule_of(_concatenate, "cat stack"),
}

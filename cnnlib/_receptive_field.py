"""Receptive fields of a forward pass, followed through every operation along every path.

For a chain of layers `arithmetic.receptive_field` has the formula. Here branches join, functional
calls count as much as layers, and after upsampling neighbours see windows of different sizes. So
every tensor carries two things: what the positions along height and width see of the image, and in
which of its dimensions these positions lie.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from itertools import accumulate, chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten


class ReceptiveFields(TorchDispatchMode):
    """Follows what tensors see of an image: `with ReceptiveFields(image) as fields: net(image)`.

    The field is the theoretical one: an interval of pixels along height and along width. Padding
    counts as pixels, at every depth, and where paths join, their windows join.

    Some operations mix all places: global pooling, a Linear after flattening, instance norm. Their
    outputs all see one interval, which holds all that any place saw, the padding included. A gate
    joins this interval with the windows of the path that it multiplies. The windows go on to grow
    from layer to layer and the common interval stays, so a gated path never sees less than the
    same path without the gate.

    Where channels of one position see different pixels, as after PixelUnshuffle, the position sees
    them all. After an operation that is not known here the field is None, and `lost_by` names it.

    Args:
        image: (N, C, H, W).
    """

    def __init__(self, image):
        super().__init__()
        height, width = image.shape[-2:]
        self.seen = WeakTensorKeyDictionary()
        self.seen[image] = _seen(
            {"height": Axis(height), "width": Axis(width)},
            [_other(1), _other(image.shape[1]), [Part("height", height)], [Part("width", width)]],
        )
        self.pools = WeakTensorKeyDictionary()  # from the indices of a max pooling to its windows

    def of(self, tensor):
        """Return the pixels that one value of a tensor sees: a side, or (height, width)."""
        seen = self.seen.get(tensor)
        if not isinstance(seen, Seen):
            return None
        height, width = (axis.widest() for axis in seen.axes.values())
        return height if height == width else (height, width)

    def lost_by(self, tensor):
        """Return the name of the operation that lost the field of a tensor, None if none did."""
        seen = self.seen.get(tensor)
        return seen if isinstance(seen, str) else None

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        """Run an operation, then note what its results see."""
        output = op(*args, **(kwargs or {}))
        results = [x for x in tree_leaves(output) if isinstance(x, Tensor)]
        sources = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        sources = [x for x in sources if x in self.seen]
        call = _OpCall(self, op, args, kwargs, sources)
        if call.rule is aten.max_pool2d_with_indices:
            self.pools[results[1]] = _pool_windows(call.arguments, 2)
        if sources and call.rule not in _SEE_NOTHING:
            for place, result in enumerate(results):
                seen = call.seen_by(results, place)
                written_through_a_view = result is call.tensor and result._base is not None
                if written_through_a_view and self.seen.get(result) != seen:
                    self.seen[result._base] = f"{op.overloadpacket} into a part of a tensor"
                self.seen[result] = seen
        return output


# What positions see


@dataclass(frozen=True)
class Axis:
    """What the positions along one axis of a tensor, height or width, see of the image.

    Position i sees the pixels from first[i] to last[i]. The two hold one period of a pattern that
    goes on in both directions, `shift` pixels further with each period. A period is one position
    until upsampling makes neighbours see differently. What all positions see beside their windows
    is `common`; without windows, where first and last are empty, they all see just that.
    """

    length: int
    first: tuple[int, ...] = (0,)
    last: tuple[int, ...] = (0,)
    shift: int = 1
    common: tuple[int, int] | None = None

    def window(self, position):
        """Return the first and last pixel; a position outside the tensor sees the padding."""
        periods, phase = divmod(position, len(self.first))
        return self.first[phase] + periods * self.shift, self.last[phase] + periods * self.shift

    def interval(self, position):
        """Return the window of a position, joined with what all positions see."""
        return _hull(self.window(position) if self.first else None, self.common)

    def widest(self):
        """Return the most pixels that a position of the tensor sees."""
        one_period = range(min(len(self.first), self.length))
        positions = {0, self.length - 1, *one_period}  # beside what is common, an end sees most
        return max(last - first + 1 for first, last in map(self.interval, positions))

    def read(self, length, every, step, window):
        """Return the axis of an operation whose output i reads the inputs of window(i).

        Args:
            length: positions of the output.
            every: output positions after which the windows repeat.
            step: input positions that the windows have moved by then.
            window: gives the first and the last input for an output position.
        """
        if not self.first:
            return replace(self, length=length)
        periods = len(self.first) // math.gcd(len(self.first), step)
        ends = [window(i)[:: -1 if self.shift < 0 else 1] for i in range(every * periods)]
        return replace(
            self,
            length=length,
            first=tuple(self.window(start)[0] for start, _ in ends),
            last=tuple(self.window(end)[1] for _, end in ends),
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
            raise _NotFollowedError  # the inputs that meet at an output are then no interval
        span = dilation * (kernel - 1)

        def window(i):
            return -((span - padding - i) // stride), (i + padding) // stride

        return self.read(length, every=stride, step=1, window=window)

    def pooled_to(self, length):
        """Return the axis after adaptive pooling."""
        n = self.length
        if length == 1:
            return self.mixed()
        common = math.gcd(length, n)
        return self.read(
            length,
            every=length // common,
            step=n // common,
            window=lambda i: (i * n // length, -(-(i + 1) * n // length) - 1),
        )

    def resized(self, length, mode, scale=None, align_corners=False):
        """Return the axis after an interpolation, each output from the inputs around its centre.

        Args:
            length: positions of the output.
            mode: "nearest", "nearest-exact", "linear" or "cubic".
            scale: output positions per input position; None takes the ratio of the lengths.
            align_corners: whether the outer centres, not the outer borders, fall together.
        """
        if self.length == 1:
            return self.mixed()
        if align_corners:
            step = Fraction(self.length - 1, max(length - 1, 1))
        elif scale:
            step = 1 / Fraction(scale).limit_denominator(1000)
        else:
            step = Fraction(self.length, length)
        half = Fraction(0 if align_corners or mode == "nearest" else 1, 2)

        def window(i):
            centre = (i + half) * step
            if mode.startswith("nearest"):
                return (math.floor(centre),) * 2
            first, last = math.floor(centre - half), math.ceil(centre - half)
            return (first - 1, last + 1) if mode == "cubic" and first < last else (first, last)

        return self.read(length, step.denominator, step.numerator, window)

    def flipped(self):
        """Return the axis in the opposite order."""
        return self.read(self.length, 1, -1, lambda i: (self.length - 1 - i,) * 2)

    def mixed(self):
        """Return the axis of an output in which every position sees what any of them saw."""
        ends = self.interval(0), self.interval(self.length - 1)
        return Axis(1, first=(), last=(), shift=0, common=_hull(*ends))

    def union(self, other):
        """Return what two axes see together, if their windows move at the same rate."""
        common = _hull(self.common, other.common)
        if not self.first or not other.first:
            moving = self if self.first else other
            return replace(moving, common=common)
        period = math.lcm(len(self.first), len(other.first))
        shift = self.shift * period // len(self.first)
        if self.length != other.length or shift != other.shift * period // len(other.first):
            raise _NotFollowedError
        windows = [_hull(self.window(i), other.window(i)) for i in range(period)]
        first, last = zip(*windows, strict=True)
        return Axis(self.length, first, last, shift, common)


def _hull(*intervals):
    """Return the smallest interval around intervals, of which some may be None."""
    known = [interval for interval in intervals if interval is not None]
    return (min(i[0] for i in known), max(i[1] for i in known)) if known else None


# Where the positions lie


class Part(NamedTuple):
    """A factor of a dimension's size; flattening (C, H, W) gives a dimension of three parts.

    Args:
        of: "height" or "width"; "other" for channels and all else; "scattered" for a dimension
            that holds all positions somewhere, as image tokens behind a class token.
        size: how many.
    """

    of: str
    size: int


@dataclass(frozen=True)
class Seen:
    """What the values of a tensor see: both axes, and the parts of each dimension.

    An axis that is no part of any dimension has one position, or all see the same along it.
    """

    axes: dict[str, Axis]
    dims: tuple[tuple[Part, ...], ...]

    def places(self, dim):
        """Return the names of the axes that lie in a dimension."""
        names = {part.of for part in self.dims[dim]} - {"other"}
        return {*self.axes} if "scattered" in names else names

    def located(self):
        """Return the names of the axes that lie in any dimension."""
        return set().union(*map(self.places, range(len(self.dims))))

    def axis_at(self, dim):
        """Return the name of the axis along which a dimension runs, None if it is none."""
        if not self.places(dim):
            natural = {-2: "height", -1: "width"}.get(dim)
            of_one_place = natural and not self.dims[dim] and natural not in self.located()
            return natural if of_one_place and self.axes[natural].first else None
        (name, _), *rest = self.dims[dim]
        if rest or name not in self.axes:
            raise _NotFollowedError
        return name

    def repeats_as_places(self):
        """Return this with (height, other) in one dimension read as an axis of repeated places."""
        axes, dims = dict(self.axes), list(self.dims)
        for dim, parts in enumerate(dims):
            if len(parts) == 2 and parts[0].of in axes and parts[1].of == "other":
                name, size = parts[0].of, math.prod(part.size for part in parts)
                axes[name] = axes[name].resized(size, "nearest")
                dims[dim] = [Part(name, size)]
        return _seen(axes, dims)

    def mixed_over(self, *dims):
        """Return this with every place along some dimensions seeing what any of them saw."""
        names = set().union(*map(self.places, dims))
        axes = {n: axis.mixed() if n in names else axis for n, axis in self.axes.items()}
        return _seen(axes, self.dims)

    def placed(self, dims):
        """Return this with other dimensions."""
        return _seen(self.axes, dims)

    def joined_with_constant(self, other):
        """Return this after a join with a tensor whose values all see the same."""
        if other.located():
            raise _NotFollowedError
        axes = {name: axis.union(other.axes[name].mixed()) for name, axis in self.axes.items()}
        return _seen(axes, self.dims)


def _seen(axes, dims):
    """Return a Seen in its one normal form: no part of size 1, no two others side by side."""
    moving = {name for name, axis in axes.items() if axis.first}
    if moving:
        moving.add("scattered")
    tidy = []
    for parts in dims:
        tidy.append([])
        for of, size in parts:
            of = of if of in moving else "other"
            if of == "other" and tidy[-1] and tidy[-1][-1].of == "other":
                size *= tidy[-1].pop().size
            if size != 1:
                tidy[-1].append(Part(of, size))
    return Seen(axes, tuple(map(tuple, tidy)))


def _other(size):
    return (Part("other", size),)


def _joined(seens, shape):
    """Return what tensors see together that meet place by place, broadcast to a shape."""
    dims = []
    for dim in range(-len(shape), 0):
        placed = {seen.dims[dim] for seen in seens if -dim <= len(seen.dims) and seen.places(dim)}
        if len(placed) > 1:
            raise _NotFollowedError
        dims.append(placed.pop() if placed else _other(shape[dim]))
    names = [part.of for part in chain(*dims) if part.of != "other"]
    if len(names) != len(set(names)):
        raise _NotFollowedError  # a map and its transpose
    axes = {}
    for name in seens[0].axes:
        parts = [(seen.axes[name], name in seen.located()) for seen in seens]
        if any(located for _, located in parts):
            parts = [(axis if located else axis.mixed(), located) for axis, located in parts]
        axes[name] = reduce(Axis.union, [axis for axis, _ in parts])
    return _seen(axes, dims)


# One operation


class _NotFollowedError(Exception):
    """The field after this operation cannot be told."""


class _OpCall:
    """A call of an operation: its arguments by their names, and what its tensors see."""

    def __init__(self, fields, op, args, kwargs, sources):
        names = [argument.name for argument in op._schema.arguments]
        defaults = {a.name: a.default_value for a in op._schema.arguments if a.has_default_value()}
        self.arguments = {**defaults, **dict(zip(names, args, strict=False)), **(kwargs or {})}
        self.op, self.rule, self.sources = op, _rule_of(op), sources
        self.tensor = args[0] if args else None
        self.fields, self.result = fields, None

    def __getitem__(self, name):
        return self.arguments[name]

    def seen(self, tensor):
        """Return what an argument sees, None for one that does not come from the image."""
        return self.fields.seen.get(tensor) if isinstance(tensor, Tensor) else None

    def seen_by(self, results, place):
        """Return what a result sees, or the name of the operation that lost it."""
        known = [self.seen(x) for x in self.sources]
        if lost := next((seen for seen in known if isinstance(seen, str)), None):
            return lost
        self.result = results[place]
        try:
            return self._followed(known, results, place)
        except Exception:  # also where a rule does not foresee the arguments: the trace goes on
            if any(seen.located() for seen in known):
                return str(self.op.overloadpacket)
            # Whatever the operation does, all its results see the same.
            seen = _joined([seen.placed([]) for seen in known], ())
            return seen.placed([_other(size) for size in self.result.shape])

    def _followed(self, known, results, place):
        """Find the rule of the operation and apply it."""
        if self.rule in _PIECES:
            return _piece(self, place)
        if self.result.shape != results[0].shape:
            raise _NotFollowedError
        if _is_place_by_place(self.op):
            return _joined(known, self.result.shape)
        if self.rule in _OF_SEVERAL:
            return _OF_SEVERAL[self.rule](self)
        return self._of_one_tensor()

    def _of_one_tensor(self):
        """Follow the first argument; the others may be weights, even those of a gate."""
        seen = self.seen(self.tensor)
        if seen is None or self.rule not in _OF_ONE:
            raise _NotFollowedError
        after = _OF_ONE[self.rule](seen, self)
        for x in self.sources:
            if x is not self.tensor:
                after = after.joined_with_constant(self.seen(x))
        return after


def _rule_of(op):
    """Return the operation without its variant: relu for relu_."""
    name = op._schema.name.split("::")[1]
    in_place = name.endswith("_") and not name.startswith("_") and op.namespace == "aten"
    return getattr(aten, name[:-1], op.overloadpacket) if in_place else op.overloadpacket


def _is_place_by_place(op):
    """Tell whether each result comes from the inputs at its own place."""
    rule = _rule_of(op)
    variants = (op, getattr(rule, op._overloadname, op))  # torch has not tagged all of both
    return rule in _PLACE_BY_PLACE or any(torch.Tag.pointwise in v.tags for v in variants)


# Beside all that torch tags as pointwise.
_PLACE_BY_PLACE = {
    *(aten.alias, aten.clone, aten.copy, aten.copy_, aten.detach, aten._to_copy, aten.lift_fresh),
    *(aten.leaky_relu, aten.hardswish, aten._prelu_kernel, aten.log_sigmoid_forward),
    *(aten.rrelu_with_noise, aten.native_dropout, aten.tril, aten.triu),
    *(aten._native_batch_norm_legit_no_training, aten._batch_norm_no_update),
}

# The values of these results do not come from the values of their arguments.
_SEE_NOTHING = {
    *(aten.empty_like, aten.zeros_like, aten.ones_like, aten.full_like, aten.rand_like),
    *(aten.randn_like, aten.randint_like, aten.new_empty, aten.new_zeros, aten.new_ones),
    *(aten.new_full, aten.new_empty_strided, aten.bernoulli, aten.zero),
}


# Operations that move places: rule(seen, call) -> Seen


def _view(seen, call):
    """Divide the same values, in the same order, into the dimensions of another shape."""
    parts = list(chain(*_seen(seen.axes, [chain(*seen.dims)]).dims))
    dims = []
    for size in call.result.shape:
        dims.append([])
        while size > 1:
            of, length = parts.pop(0)
            if of == "other" and length % size == 0:
                parts.insert(0, Part(of, length // size))
                length = size
            if size % length:
                raise _NotFollowedError  # it divides an axis, or joins the end of one to channels
            dims[-1].append(Part(of, length))
            size //= length
            parts = [part for part in parts if part.size > 1]
    return seen.placed(dims)


def _permute(seen, call):
    return seen.placed([seen.dims[dim] for dim in call["dims"]])


def _transpose(seen, call):
    dims = list(seen.dims)
    one, two = (0, len(dims) - 1) if call.rule is aten.t else (call["dim0"], call["dim1"])
    dims[one], dims[two] = dims[two], dims[one]
    return seen.placed(dims)


def _expand(seen, call):
    return _joined([seen], call.result.shape)


def _repeat(seen, call):
    added = [()] * (len(call["repeats"]) - len(seen.dims))
    repeats = zip(call["repeats"], [*added, *seen.dims], strict=True)
    return seen.placed([(*_other(count), *parts) for count, parts in repeats])


def _flip(seen, call):
    if not any(seen.places(dim) for dim in call["dims"]):
        return seen
    dims = {dim % len(seen.dims) - len(seen.dims) for dim in call["dims"]}
    turn = [Axis.flipped if dim in dims else _keep for dim in (-2, -1)]
    return _moved(seen, call, [lambda axis, _, step=step: step(axis) for step in turn])


def _keep(axis, *_):
    return axis


def _select(seen, call):
    seen = _without_places(seen, call["dim"])
    dims = list(seen.dims)
    del dims[call["dim"]]
    return seen.placed(dims)


def _slice(seen, call):
    dim = call["dim"] % len(seen.dims) - len(seen.dims)
    first = slice(call["start"], call["end"]).indices(call.tensor.shape[dim])[0]
    return _cut(seen, call, dim, first, call["step"])


def _cut(seen, call, dim, first, step=1):
    """Take the places from `first` on, every `step`-th, along one dimension."""
    length = call.result.shape[dim]
    if length == call.tensor.shape[dim]:
        return seen
    seen = seen.repeats_as_places()
    if any(part.of == "scattered" for part in seen.dims[dim]):
        seen = _without_places(seen, dim)
    name, dims = seen.axis_at(dim), list(seen.dims)
    dims[dim] = _other(length) if name is None else (Part(name, length),)
    if name is None:
        return seen.placed(dims)
    axes = {**seen.axes, name: seen.axes[name].convolved(length, 1, step, -first)}
    return _seen(axes, dims)


def _piece(call, place):
    """Follow one of the pieces into which a tensor is divided along a dimension."""
    seen, dim = call.seen(call.tensor), call["dim"] % call.tensor.ndim - call.tensor.ndim
    if call.rule is aten.unbind:
        return _select(seen, call)
    sizes = call.arguments.get("split_size", call.arguments.get("split_sizes"))
    first = place * sizes if isinstance(sizes, int) else list(accumulate(sizes, initial=0))[place]
    return _cut(seen, call, dim, first)


def _pick(seen, call):
    """Follow picking by numbers along neighbouring dimensions that hold no places."""
    indices = call["indices"]
    picked = [dim for dim, index in enumerate(indices) if index is not None]
    by_mask = any(indices[dim].dtype == torch.bool and indices[dim].ndim > 1 for dim in picked)
    if by_mask or picked != list(range(picked[0], picked[-1] + 1)):
        raise _NotFollowedError
    seen = _without_places(seen, *picked)
    before, after = seen.dims[: picked[0]], seen.dims[picked[-1] + 1 :]
    new = call.result.ndim - len(before) - len(after)
    sizes = call.result.shape[len(before) : len(before) + new]
    return seen.placed([*before, *map(_other, sizes), *after])


def _along_channels(seen, call):
    """Follow what changes the order or number of values along dimensions that hold no places."""
    dims = call.arguments.get("dims", call.arguments.get("dim", 1))
    dims = [dims] if isinstance(dims, int) else dims or range(len(seen.dims))
    seen = _without_places(seen, *dims)
    sizes = {dim % len(seen.dims): call.result.shape[dim] for dim in dims}
    return seen.placed(
        [_other(sizes[dim]) if dim in sizes else parts for dim, parts in enumerate(seen.dims)]
    )


def _without_places(seen, *dims):
    """Return what a tensor sees along dimensions without places, or in which all see the same."""
    names = set().union(*map(seen.places, dims))
    if any(seen.axes[name].mixed().common != seen.axes[name].common for name in names):
        raise _NotFollowedError
    return seen.mixed_over(*dims)


# Operations that mix places: rule(seen, call) -> Seen


def _reduce(seen, call):
    dims = call.arguments.get("dim")
    dims = [dims] if isinstance(dims, int) else dims or range(len(seen.dims))
    dims = {dim % len(seen.dims) for dim in dims}
    mixed = seen.mixed_over(*dims)
    keep = call.result.ndim == len(seen.dims)
    kept = [() if dim in dims else parts for dim, parts in enumerate(mixed.dims)]
    return mixed.placed([parts for dim, parts in enumerate(kept) if keep or dim not in dims])


def _mix_along(seen, call):
    mixed, dim = seen.mixed_over(call["dim"]), call["dim"] % len(seen.dims)
    own = mixed.dims[dim] if mixed.places(dim) else _other(call.result.shape[dim])
    return mixed.placed([*mixed.dims[:dim], own, *mixed.dims[dim + 1 :]])


def _layer_norm(seen, call):
    return seen.mixed_over(*range(-len(call["normalized_shape"]), 0))


def _group_norm(seen, call):
    seen = _without_places(seen, 1)
    return seen.mixed_over(*range(2, len(seen.dims)))


def _batch_norm(seen, call):
    if not call.arguments.get("training", True):
        return seen
    return seen.mixed_over(*(dim for dim in range(len(seen.dims)) if dim != 1))


def _linear(seen, call):
    mixed = seen.mixed_over(-1)
    return mixed.placed([*mixed.dims[:-1], _other(call.result.shape[-1])])


# Operations along height and width, wherever these lie: rule(seen, call) -> Seen


def _moved(seen, call, steps):
    """Change the axes in the last dimensions, each by its step(axis, length) -> Axis."""
    seen = seen.repeats_as_places()
    axes, dims = dict(seen.axes), list(seen.dims)
    for dim, step in zip(range(-len(steps), 0), steps, strict=True):
        name, length = seen.axis_at(dim), call.result.shape[dim]
        dims[dim] = _other(length) if name is None else (Part(name, length),)
        if name is not None:
            axes[name] = step(axes[name], length)
    return _seen(axes, dims)


def _each(step, *arguments):
    """Return one step for each dimension, with its share of the arguments."""
    return [
        lambda axis, length, own=own: step(axis, length, *own)
        for own in zip(*arguments, strict=True)
    ]


def _convolution(seen, call):
    count = call.result.ndim - 2
    if seen.places(1) and call["groups"] != 1:
        raise _NotFollowedError
    seen = seen.mixed_over(1)
    seen = seen.placed([seen.dims[0], _other(call.result.shape[1]), *seen.dims[2:]])
    windows = [_per_dim(call[name], count) for name in ("stride", "padding", "dilation")]
    step = Axis.transposed if call["transposed"] else Axis.convolved
    return _moved(seen, call, _each(step, call["weight"].shape[2:], *windows))


def _pool(count):
    def rule(seen, call):
        return _moved(seen, call, _each(Axis.convolved, *_pool_windows(call.arguments, count)))

    return rule


def _pool_windows(arguments, count):
    """Return kernel, stride, padding and dilation of a pooling, each for every dimension."""
    kernel = _per_dim(arguments["kernel_size"], count)
    stride = _per_dim(arguments["stride"] or kernel, count)
    padding = _per_dim(arguments.get("padding", 0), count)
    dilation = _per_dim(arguments.get("dilation", 1), count)
    return kernel, stride, padding, dilation


def _per_dim(value, count):
    """Return an argument, one number for all dimensions or one for each, as a list."""
    value = [value] if isinstance(value, int) else list(value)
    return value * count if len(value) == 1 else value


def _adaptive_pool(count):
    return lambda seen, call: _moved(seen, call, [Axis.pooled_to] * count)


def _unpool(call):
    """Follow a max unpooling, which knows of the pooling only where the maxima were."""
    windows, seen = call.fields.pools.get(call["indices"]), call.seen(call.tensor)
    if windows is None or seen is None:
        raise _NotFollowedError
    return _moved(seen, call, _each(Axis.transposed, *windows))


def _resize(mode, *names):
    def rule(seen, call):
        scales = [call.arguments.get(name) for name in names]
        if call.arguments.get("scale_factors"):
            scales = call["scale_factors"]
        corners = call.arguments.get("align_corners", False)

        def step(axis, length, scale):
            return axis.resized(length, mode, scale, corners)

        return _moved(seen, call, _each(step, scales))

    return rule


def _pixel_shuffle(seen, call):
    seen = _without_places(seen, -3)
    seen = seen.placed([*seen.dims[:-3], _other(call.result.shape[-3]), *seen.dims[-2:]])
    return _moved(seen, call, [lambda axis, length: axis.resized(length, "nearest")] * 2)


def _pixel_unshuffle(seen, call):
    seen = _without_places(seen, -3)
    factor = call["downscale_factor"]
    seen = seen.placed([*seen.dims[:-3], _other(call.result.shape[-3]), *seen.dims[-2:]])
    return _moved(seen, call, _each(Axis.convolved, [factor] * 2, [factor] * 2))


def _pad(seen, call):
    """Follow padding with constants, or with copies of the border, which are as far away."""
    sides = call.arguments.get("pad", call.arguments.get("padding"))
    steps = [
        lambda axis, length, left=left: axis.convolved(length, 1, padding=left)
        for left in sides[::2][::-1]
    ]
    return _moved(seen, call, steps)


def _im2col(seen, call):
    """Follow nn.Unfold, which writes the windows of all places into columns."""
    windows = [call[name] for name in ("kernel_size", "stride", "padding", "dilation")]
    lengths = [
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, padding, dilation in zip(
            call.tensor.shape[-2:], *windows, strict=True
        )
    ]
    steps = _each(lambda axis, _, length, *own: axis.convolved(length, *own), lengths, *windows)
    seen = _moved(seen, call, steps)
    height, width = ((Part(name, seen.axes[name].length),) for name in ("height", "width"))
    return seen.placed([seen.dims[0], _other(call.result.shape[1]), height + width])


def _unfold(seen, call):
    """Follow Tensor.unfold, which puts the windows along one dimension into a new one."""
    dim = call["dimension"] % len(seen.dims)
    seen = seen.repeats_as_places()
    name, length = seen.axis_at(dim - len(seen.dims)), call.result.shape[dim]
    axes, dims = dict(seen.axes), [*seen.dims, _other(call["size"])]
    dims[dim] = _other(length) if name is None else (Part(name, length),)
    if name is not None:
        axes[name] = axes[name].convolved(length, call["size"], call["step"])
    return _seen(axes, dims)


_OF_ONE = {
    **dict.fromkeys([aten.view, aten._unsafe_view, aten._reshape_alias], _view),
    **dict.fromkeys([aten.squeeze, aten.unsqueeze], _view),
    **dict.fromkeys([aten.transpose, aten.t], _transpose),
    **{aten.permute: _permute, aten.expand: _expand, aten.repeat: _repeat, aten.flip: _flip},
    **{aten.select: _select, aten.slice: _slice, aten.unfold: _unfold},
    **dict.fromkeys([aten.index, aten._unsafe_index], _pick),
    **dict.fromkeys([aten.index_select, aten.roll, aten.glu], _along_channels),
    **dict.fromkeys([aten.cumsum, aten.cumprod, aten.channel_shuffle], _along_channels),
    **dict.fromkeys([aten.mean, aten.sum, aten.nansum, aten.prod, aten.logsumexp], _reduce),
    **dict.fromkeys([aten.amax, aten.amin, aten.max, aten.min, aten.aminmax], _reduce),
    **dict.fromkeys([aten.argmax, aten.argmin, aten.any, aten.all, aten.median], _reduce),
    **dict.fromkeys([aten.std, aten.var, aten.std_mean, aten.var_mean], _reduce),
    **dict.fromkeys([aten.norm, aten.linalg_vector_norm, aten.count_nonzero], _reduce),
    **dict.fromkeys([aten._softmax, aten._log_softmax, aten._safe_softmax], _mix_along),
    **dict.fromkeys([aten.sort, aten.topk], _mix_along),
    **dict.fromkeys([aten.native_layer_norm, aten._fused_rms_norm], _layer_norm),
    **dict.fromkeys([aten.native_batch_norm, aten.cudnn_batch_norm], _batch_norm),
    **dict.fromkeys([aten._native_batch_norm_legit, aten.miopen_batch_norm], _batch_norm),
    **{aten.native_group_norm: _group_norm, aten.linear: _linear},
    **dict.fromkeys([aten.convolution, aten._convolution], _convolution),
    **{aten.avg_pool1d: _pool(1), aten.avg_pool2d: _pool(2), aten.avg_pool3d: _pool(3)},
    **{aten.max_pool2d_with_indices: _pool(2), aten.max_pool3d_with_indices: _pool(3)},
    **{aten.adaptive_avg_pool1d: _adaptive_pool(1), aten._adaptive_avg_pool2d: _adaptive_pool(2)},
    **{aten.adaptive_max_pool2d: _adaptive_pool(2), aten._adaptive_avg_pool3d: _adaptive_pool(3)},
    aten.upsample_nearest1d: _resize("nearest", "scales"),
    aten.upsample_nearest2d: _resize("nearest", "scales_h", "scales_w"),
    aten._upsample_nearest_exact1d: _resize("nearest-exact", "scales"),
    aten._upsample_nearest_exact2d: _resize("nearest-exact", "scales_h", "scales_w"),
    aten.upsample_linear1d: _resize("linear", "scales"),
    aten.upsample_bilinear2d: _resize("linear", "scales_h", "scales_w"),
    aten.upsample_bicubic2d: _resize("cubic", "scales_h", "scales_w"),
    **{aten.pixel_shuffle: _pixel_shuffle, aten.pixel_unshuffle: _pixel_unshuffle},
    **dict.fromkeys([aten.constant_pad_nd, aten.reflection_pad1d, aten.reflection_pad2d], _pad),
    **dict.fromkeys([aten.replication_pad1d, aten.replication_pad2d], _pad),
    aten.im2col: _im2col,
}


# Operations of several tensors: rule(call) -> Seen


def _product(left, right, bias=None):
    """Return the rule of a matrix product of the arguments with these names."""

    def rule(call):
        one, two = call.seen(call[left]), call.seen(call[right])
        factors = [call.seen(call[bias])] if bias and call.seen(call[bias]) else []
        is_vector = call[right].ndim == 1
        if one:
            one = one.mixed_over(-1)
            factors.append(one.placed(one.dims[:-1] if is_vector else [*one.dims[:-1], ()]))
        if two and is_vector:
            factors.append(two.mixed_over(-1).placed([]))
        elif two:
            two = two.mixed_over(-2)
            if one and one.located():
                # Entry (i, j) sees place i of one map and place j of the other. Only the first is
                # followed; the entry counts as seeing every j, as it does after the softmax.
                two = two.mixed_over(-1)
            factors.append(two.placed([*two.dims[:-2], (), two.dims[-1]]))
        return _joined(factors, call.result.shape)

    return rule


def _attention(call):
    """Let every query see itself and all keys and values."""
    query, *others = (call.seen(call[name]) for name in ("query", "key", "value"))
    seens = [seen.mixed_over(-2, -1).placed([*seen.dims[:-2], (), ()]) for seen in others if seen]
    if query:
        query = query.mixed_over(-1)
        seens.append(query.placed([*query.dims[:-1], ()]))
    return _joined(seens, call.result.shape)


def _bilinear_form(call):
    """Follow nn.Bilinear: row i of the result sees row i of both arguments."""
    if call["sumdim"] != [2, 3]:
        raise _NotFollowedError
    rows = [call.seen(call[name]) for name in ("i1", "i3")]
    rows = [seen.mixed_over(-1) for seen in rows if seen]
    return _joined([seen.placed([seen.dims[0], ()]) for seen in rows], call.result.shape)


def _stack(call):
    at = call["dim"] % call.result.ndim
    seens = [seen for seen in map(call.seen, call["tensors"]) if seen]
    seens = [seen.placed([*seen.dims[:at], (), *seen.dims[at:]]) for seen in seens]
    return _joined(seens, call.result.shape)


def _concatenate(call):
    """Join the tensors' places; along a dimension that holds places, in the order that results."""
    dim, length = call["dim"] % call.result.ndim, call.result.shape[call["dim"]]
    seens = [seen for seen in map(call.seen, call["tensors"]) if seen]
    holding = [seen for seen in seens if seen.places(dim)]
    flattened = {seen.dims[dim][seen.dims[dim][0].of == "other" :] for seen in holding}
    if not holding:
        parts = _other(length)
    elif len(flattened) == 1 and len(holding) == len(call["tensors"]):  # as (C, H, W) of each
        places = flattened.pop()
        parts = (*_other(length // math.prod(part.size for part in places)), *places)
    elif len(holding) == 1 and holding[0].places(dim) == holding[0].located():
        parts = (Part("scattered", length),)
    else:
        raise _NotFollowedError
    aligned = []
    for seen in seens:
        own = parts if seen.places(dim) else ()
        aligned.append(seen.placed([*seen.dims[:dim], own, *seen.dims[dim + 1 :]]))
    return _joined(aligned, call.result.shape)


def _col2im(call):
    """Follow nn.Fold, which adds up columns where their windows overlap."""
    seen = call.seen(call.tensor)
    names = [part.of for part in seen.dims[2]] if seen else None
    if names != ["height", "width"] or seen.places(1):
        raise _NotFollowedError
    windows = [call[name] for name in ("kernel_size", "stride", "padding", "dilation")]
    seen = seen.placed([seen.dims[0], _other(call.result.shape[1]), *([p] for p in seen.dims[2])])
    return _moved(seen, call, _each(Axis.transposed, *windows))


_OF_SEVERAL = {
    **{aten.mm: _product("self", "mat2"), aten.bmm: _product("self", "mat2")},
    **{aten.mv: _product("self", "vec"), aten.dot: _product("self", "tensor")},
    aten.addmm: _product("mat1", "mat2", bias="self"),
    aten.baddbmm: _product("batch1", "batch2", bias="self"),
    aten.addmv: _product("mat", "vec", bias="self"),
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention: _attention,
    aten._scaled_dot_product_efficient_attention: _attention,
    aten._scaled_dot_product_cudnn_attention: _attention,
    **{aten._trilinear: _bilinear_form, aten.max_unpool2d: _unpool, aten.col2im: _col2im},
    **{aten.stack: _stack, aten.cat: _concatenate},
}

_PIECES = {
    *(aten.split, aten.split_with_sizes, aten.unbind),
    *(aten.unsafe_split, aten.unsafe_split_with_sizes),
}

"""The arithmetic of convolutions: sizes, cost, receptive fields and hybrid dilation.

Arguments are named as in torch. `padding` is the amount on ONE side; a convolution also takes
torch's "same" and "valid". Where torch takes an int or an (h, w) pair, so do these functions, and
one pair among the arguments makes the result a pair.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from numbers import Real
from typing import Any, NamedTuple, ParamSpec

from cnnlib._checks import MOST, check_flags, is_whole, shown

Ints = Any  # an int for both axes, or an (h, w) pair; the result is of the same kind
_Arguments = ParamSpec("_Arguments")


def _pair(name, value):
    """Return the (h, w) of a pair, or of an int, which applies to both axes."""
    if not isinstance(value, (tuple, list)):
        return value, value
    if len(value) != 2 or any(isinstance(entry, str) for entry in value):
        raise ValueError(f"{name}={value} must be an int or an (h, w) pair: try {name}=(3, 3)")
    return tuple(value)


def _per_axis(formula: Callable[_Arguments, Any]) -> Callable[_Arguments, Any]:
    """Let a formula for one axis also take (h, w) pairs, and then return a pair."""
    signature = inspect.signature(formula)

    @functools.wraps(formula)
    def on_ints_or_pairs(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        if not any(isinstance(value, (tuple, list)) for value in given.values()):
            return formula(**given)
        pairs = {name: _pair(name, value) for name, value in given.items()}
        return tuple(formula(**{name: pairs[name][axis] for name in pairs}) for axis in (0, 1))

    return on_ints_or_pairs


def _whole(least, **values):
    """Return the values as Python ints, which, unlike NumPy's, never overflow."""
    for name, value in values.items():
        if not is_whole(value) or not least <= value <= MOST:
            too_large = is_whole(value) and value > MOST
            rule = f"at most {MOST:,}" if too_large else f"{least} or more"
            raise ValueError(
                f"{name}={shown(value)} must be a whole number, {rule}: try {name}={least}"
            )
    return [int(value) for value in values.values()]


def _shape(size, kernel, stride, dilation):
    return _whole(1, size=size, kernel=kernel, stride=stride, dilation=dilation)


def check_divides(groups: int, **channels: int) -> None:
    """Refuse a number of groups that does not divide the channels."""
    groups, *counts = _whole(1, groups=groups, **channels)
    for name, value in zip(channels, counts, strict=True):
        if value % groups:
            above = value + groups - value % groups
            below = above - groups
            remedy = f"{below} or {above}" if below else f"{above}"
            raise ValueError(f"groups={groups} must divide {name}={value}: try {remedy}")


def _require_number(padding, number):
    """Refuse "same" and "valid", which only a convolution takes, and suggest a number."""
    if isinstance(padding, str):
        raise ValueError(
            f"padding={padding!r} must be a whole number outside an ordinary convolution: "
            f"try padding={number if padding == 'same' else 0}"
        )


def _near_padding(padding, kernel, stride, dilation):
    """Return the pixels that a convolution adds before the first one."""
    if not isinstance(padding, str):
        return _whole(0, padding=padding)[0]
    if padding == "valid":
        return 0
    if padding == "same":
        near = dilation * (kernel - 1) // 2  # torch adds the odd pixel at the far edge
        if stride != 1:
            raise ValueError(
                f"padding='same' keeps the size, and stride={stride} does not: try padding={near}"
            )
        return near
    return _whole(0, padding=padding)[0]


def _windows(size, kernel, stride, padding, dilation, overhang=0):
    """Count the windows; the last one may extend `overhang` pixels past the far edge."""
    reach = dilation * (kernel - 1) + 1
    room = size + 2 * padding + overhang - reach
    if room < 0:
        raise ValueError(
            f"kernel={kernel}, {reach} pixels wide at dilation={dilation}, must fit size={size} "
            f"with padding={padding}: try size={size - room} or a smaller kernel"
        )
    return room // stride + 1


# Sizes


@_per_axis
def conv_size(
    size: Ints, kernel: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> Ints:
    """Return a convolution's output size, floor((n + 2p - d(k - 1) - 1) / s) + 1.

    Args:
        size: Input pixels.
        kernel: Taps.
        stride: Input pixels from one window to the next.
        padding: Pixels added on each side. "valid" adds none; "same" adds dilation * (kernel - 1)
            in total, which keeps the size, and needs stride 1.
        dilation: Pixels from one tap to the next; 1 is the ordinary convolution.

    Raises:
        ValueError: Torch would refuse, or a value is not a whole number.
    """
    size, kernel, stride, dilation = _shape(size, kernel, stride, dilation)
    near = _near_padding(padding, kernel, stride, dilation)
    return size if padding == "same" else _windows(size, kernel, stride, near, dilation)


@_per_axis
def dropped_pixels(
    size: Ints, kernel: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
) -> Ints:
    """Count the input pixels at the far edge that lie past the last window and are never read.

    They are what the floor in `conv_size` drops, minus the share that is padding. Pixels that a
    wide stride or dilation skips earlier are not counted. The arguments are those of `conv_size`.
    """
    size, kernel, stride, dilation = _shape(size, kernel, stride, dilation)
    windows = conv_size(size, kernel, stride, padding, dilation)
    near = _near_padding(padding, kernel, stride, dilation)
    last_read = (windows - 1) * stride - near + dilation * (kernel - 1)
    return min(max(size - 1 - last_read, 0), size)


@_per_axis
def conv_transpose_size(
    size: Ints,
    kernel: Ints,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
) -> Ints:
    """Return a transposed convolution's output size, (n - 1)s - 2p + d(k - 1) + o + 1.

    Args:
        size: Input pixels.
        kernel: Taps.
        stride: Output pixels from one scattered kernel to the next.
        padding: Output pixels cropped on each side.
        output_padding: Extra output pixels at the far edge, fewer than the stride or the dilation.
            Below the stride, it picks one of the sizes that the same convolution maps to `size`;
            from there on, that convolution maps the output to size + output_padding // stride.
        dilation: Pixels from one tap to the next.

    Raises:
        ValueError: Torch would refuse, or a value is not a whole number.
    """
    size, kernel, stride, dilation = _shape(size, kernel, stride, dilation)
    _require_number(padding, dilation * (kernel - 1) // 2)
    padding, output_padding = _whole(0, padding=padding, output_padding=output_padding)
    if output_padding >= max(stride, dilation):
        raise ValueError(
            f"output_padding={output_padding} must be smaller than stride={stride} or "
            f"dilation={dilation}: try output_padding={max(stride, dilation) - 1}"
        )
    uncropped = (size - 1) * stride + dilation * (kernel - 1) + output_padding + 1
    if uncropped <= 2 * padding:
        raise ValueError(
            f"padding={padding} crops both sides and must leave some of {uncropped} output "
            f"pixels: try padding={(uncropped - 1) // 2}"
        )
    return uncropped - 2 * padding


@_per_axis
def pool_size(
    size: Ints,
    kernel: Ints,
    stride: Ints = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Ints:
    """Return a pooling layer's output size.

    With ceil_mode the last window may extend past the far edge, but it must start inside the input
    or the near padding.

    Args:
        size: Input pixels.
        kernel: Taps.
        stride: Input pixels from one window to the next. None: the kernel.
        padding: Pixels added on each side, at most half the kernel.
        dilation: Pixels from one tap to the next (max pooling only, in torch).
        ceil_mode: Whether to round up, where a convolution rounds down.

    Raises:
        ValueError: Torch would refuse, or a value is not a whole number.
    """
    check_flags(ceil_mode=ceil_mode)
    stride = kernel if stride is None else stride
    size, kernel, stride, dilation = _shape(size, kernel, stride, dilation)
    _require_number(padding, min(dilation * (kernel - 1), kernel) // 2)
    [padding] = _whole(0, padding=padding)
    if 2 * padding > kernel:
        raise ValueError(
            f"padding={padding} must be at most half of kernel={kernel}: try padding={kernel // 2}"
        )
    overhang = stride - 1 if ceil_mode else 0
    windows = _windows(size, kernel, stride, padding, dilation, overhang)
    if ceil_mode and (windows - 1) * stride >= size + padding:
        windows -= 1
    return windows


# Cost


class Cost(NamedTuple):
    """Parameters, and multiply-accumulates per image."""

    params: int
    macs: int


def conv_cost(
    in_channels: int,
    out_channels: int,
    kernel: Ints,
    output_size: Ints,
    groups: int = 1,
    bias: bool = True,
) -> Cost:
    """Return the Cost of a 2-D convolution; an int kernel or size is a square.

    The MACs do not include adding the bias. A transposed convolution costs the same, with its input
    size in place of `output_size`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Taps.
        output_size: Output pixels.
        groups: Independent convolutions, each on its share of the channels.
        bias: Whether each output channel has a bias.

    Raises:
        ValueError: The groups do not divide the channels, or a value is below 1.
    """
    check_flags(bias=bias)
    in_channels, out_channels, groups = _whole(
        1, in_channels=in_channels, out_channels=out_channels, groups=groups
    )
    check_divides(groups, in_channels=in_channels, out_channels=out_channels)
    kernel_h, kernel_w = _pair("kernel", kernel)
    output_h, output_w = _pair("output_size", output_size)
    kernel_h, output_h = _whole(1, kernel=kernel_h, output_size=output_h)
    kernel_w, output_w = _whole(1, kernel=kernel_w, output_size=output_w)
    weights = out_channels * (in_channels // groups) * kernel_h * kernel_w
    return Cost(params=weights + out_channels * bias, macs=weights * output_h * output_w)


# Receptive field


class ReceptiveField(NamedTuple):
    """The input pixels that can reach one output, on each axis.

    Output i sees `size` pixels, centred on offset + i * stride, where input pixel 0 has its centre
    at 0. So it sees offset + i * stride - (size - 1) / 2 to offset + i * stride + (size - 1) / 2,
    padding included. All three are in input pixels; the offset of an even-sized field ends in .5.
    """

    size: Ints = 1
    stride: Ints = 1
    offset: float | tuple[float, float] = 0.0

    def through(
        self, kernel: Ints, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1
    ) -> "ReceptiveField":
        """Return the field after one more convolution or pooling."""
        field = _through(*self, kernel, stride, padding, dilation)
        if isinstance(field, ReceptiveField):
            return field
        return ReceptiveField(*zip(*field, strict=True))


@_per_axis
def _through(field_size, field_stride, field_offset, kernel, stride, padding, dilation):
    field_size, field_stride = _whole(1, size=field_size, stride=field_stride)
    if not isinstance(field_offset, Real) or not abs(field_offset) <= MOST:
        raise ValueError(f"offset={shown(field_offset)} must be a finite number: try offset=0.0")
    kernel, stride, dilation = _whole(1, kernel=kernel, stride=stride, dilation=dilation)
    near = _near_padding(padding, kernel, stride, dilation)
    span = dilation * (kernel - 1)
    return ReceptiveField(
        size=field_size + span * field_stride,
        stride=field_stride * stride,
        offset=field_offset + (span / 2 - near) * field_stride,
    )


def receptive_field(layers: Iterable[Sequence]) -> ReceptiveField:
    """Return the ReceptiveField of a chain of convolutions and poolings.

    Args:
        layers: One (kernel, stride, padding, dilation) per layer, input first. Trailing entries
            default to torch's 1, 0, 1: (3,) is a plain 3x3 and ((1, 7),) a 1x7.
    """
    is_scalar = getattr(layers, "ndim", 1) == 0  # an array, and yet Iterable
    if is_scalar or not isinstance(layers, Iterable) or isinstance(layers, (str, Mapping)):
        raise ValueError(f"layers={shown(layers)} must list layers: try layers=[(3, 1, 1), (2, 2)]")
    field = ReceptiveField()
    for index, layer in enumerate(layers):
        if index == 2000:  # a generator may be endless
            raise ValueError("layers must be at most 2,000: try a list of them")
        if not isinstance(layer, (tuple, list)) or not 1 <= len(layer) <= 4:
            raise ValueError(
                f"layers[{index}]={shown(layer)} must be (kernel, stride, padding, dilation): "
                "try (3, 1, 1, 1), or (3,) for a kernel alone"
            )
        field = field.through(*layer)
    return field


# Hybrid dilated convolution


class HDC(NamedTuple):
    """What a stack of dilated convolutions sees, by the paper's rule and by counting.

    m is (M_1, ..., M_n). `accepted` is our reading of the rule: M_2 <= kernel (one layer has none)
    and r_1 = 1, which rules out the common factor that the paper forbids. receptive_field is in
    pixels along one axis, and holes are the positions 0 ... receptive_field - 1 along it that no
    path reaches. coverage is the fraction of the square 2-D field that some path reaches.
    """

    rates: tuple[int, ...]
    kernel: int
    m: tuple[int, ...]
    accepted: bool
    receptive_field: int
    holes: tuple[int, ...]
    coverage: float


_MOST_STEPS = 2 * 10**7  # additions, a matter of seconds


def _stack(rates, kernel):
    """Return the rates of a stack and its kernel as Python ints."""
    if not isinstance(rates, (tuple, list)) or not rates:
        raise ValueError(
            f"rates={shown(rates)} must list a rate for each layer: try rates=(1, 2, 5)"
        )
    rates, [kernel] = tuple(_whole(1, rate=rate)[0] for rate in rates), _whole(1, kernel=kernel)
    field = sum(rates) * (kernel - 1) + 1
    if field * kernel * len(rates) > _MOST_STEPS:
        raise ValueError(
            f"rates={shown(rates)} with kernel={kernel} must have a smaller field: try (1, 2, 5)"
        )
    return rates, kernel


def contributions(rates: Sequence[int], kernel: int = 3) -> tuple[int, ...]:
    """Count the paths from each position of the field to the output, along one axis.

    A square kernel's 2-D map is the outer product of this row with itself.

    Args:
        rates: The dilation of each layer, input first; the stride is 1.
        kernel: Taps along an axis, the same in every layer.
    """
    rates, kernel = _stack(rates, kernel)
    paths = [1]
    for rate in rates:
        wider = [0] * (len(paths) + rate * (kernel - 1))
        for tap in range(kernel):
            for position, count in enumerate(paths):
                wider[position + tap * rate] += count
        paths = wider
    return tuple(paths)


def _largest_gaps(rates):
    """Return (M_1, ..., M_n), where M_i bounds the gaps that layers i to n leave."""
    gaps = [rates[-1]]
    for rate in reversed(rates[:-1]):
        gap = gaps[0]
        gaps.insert(0, max(gap - 2 * rate, gap - 2 * (gap - rate), rate))
    return tuple(gaps)


def hdc(rates: Sequence[int], kernel: int = 3) -> HDC:
    """Return the HDC of a stack: the paper's rule, and the brute-force count that decides.

    Args:
        rates: The dilation of each layer, input first.
        kernel: Taps along an axis, the same in every layer.

    Source:
        Wang et al. 2018, Understanding Convolution for Semantic Segmentation, section 3.2.
    """
    stack, kernel = _stack(rates, kernel)
    paths = contributions(stack, kernel)
    holes = tuple(position for position, count in enumerate(paths) if count == 0)
    m = _largest_gaps(stack)
    return HDC(
        rates=stack,
        kernel=kernel,
        m=m,
        accepted=stack[0] == 1 and (len(m) == 1 or m[1] <= kernel),
        receptive_field=len(paths),
        holes=holes,
        coverage=((len(paths) - len(holes)) / len(paths)) ** 2,
    )


def hdc_search(depth: int, max_rate: int, kernel: int = 3) -> list[HDC]:
    """List the HDC of each stack that the rule accepts and that has no holes, widest field first.

    Both are checked, since 2 taps are too few for the rule: it accepts (1, 1, 4), which has holes.

    Args:
        depth: Number of layers.
        max_rate: The largest dilation to try; there are max_rate ** (depth - 1) stacks to check.
        kernel: Taps along an axis, the same in every layer.
    """
    depth, max_rate, kernel = _whole(1, depth=depth, max_rate=max_rate, kernel=kernel)
    widest = depth * max_rate * kernel
    if depth > 20 or max_rate ** (depth - 1) * widest * kernel > _MOST_STEPS:
        raise ValueError(
            f"depth={depth} with max_rate={max_rate} and kernel={kernel} must leave fewer stacks "
            "to check: try depth=3, max_rate=12, kernel=3"
        )
    later_rates = product(range(1, max_rate + 1), repeat=depth - 1)
    stacks = (hdc((1, *rates), kernel) for rates in later_rates)
    valid = [stack for stack in stacks if stack.accepted and not stack.holes]
    return sorted(valid, key=lambda stack: (-stack.receptive_field, stack.rates))

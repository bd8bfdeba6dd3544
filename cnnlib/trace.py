"""The per-layer shape trace of any network: shapes, parameters, multiplications, receptive fields.

`trace` runs a copy of the network once, on tensors that have a shape but no memory, and writes down
each layer as it is called. Torch's own FlopCounterMode counts the multiplications.
"""

import copy
import dataclasses
import math
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from html import escape
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from cnnlib.fields import ReceptiveFields

# What a reader gets


@dataclass(frozen=True)
class Row:
    """One call of a layer; or a layer that owns parameters and was never called.

    Args:
        name: the path inside the network, "" for the network itself.
        kind: the class of the layer.
        output_shape: without the batch; None if the layer was never called.
        params: learnable numbers, counted in the call that is the first to use them.
        macs: multiply-accumulates for one image.
        receptive_field: pixels that one output can see, padding included: the side of a square,
            else (height, width); None if it cannot be told.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...] | None
    params: int
    macs: int
    receptive_field: int | tuple[int, int] | None


@dataclass(frozen=True, repr=False)
class Trace:
    """The rows of a network in the order of its calls, shown as a table."""

    kind: str
    input_shape: tuple[int, int, int]
    rows: tuple[Row, ...]

    @property
    def total_params(self):
        """The parameters of the network, each counted once."""
        return sum(row.params for row in self.rows)

    @property
    def total_macs(self):
        """The multiply-accumulates of the network for one image."""
        return sum(row.macs for row in self.rows)

    def __repr__(self):
        table = [_HEADINGS, *map(_cells, self.rows), self._total_cells()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        head, *body, total = [_text_line(cells, widths) for cells in table]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        return "\n".join([self._title(), "", head, rule, *body, rule, total])

    def _repr_html_(self):
        lines = [
            _html_line(
                _cells(row),
                _html_bar(row.params, [other.params for other in self.rows], _PARAMS_COLOUR),
                _html_bar(row.macs, [other.macs for other in self.rows], _MACS_COLOUR),
            )
            for row in self.rows
        ]
        return "\n".join(
            [
                f"<p>{escape(self._title())}</p>",
                f"<table><thead>{_html_line(_HEADINGS, tag='th')}</thead><tbody>",
                *lines,
                "</tbody><tfoot>",
                _html_line(self._total_cells(), tag="th"),
                "</tfoot></table>",
            ]
        )

    def _title(self):
        return f"{self.kind}, input {_shape_text(self.input_shape)}"

    def _total_cells(self):
        return ["Total", "", "", f"{self.total_params:,}", f"{self.total_macs:,}", ""]


_HEADINGS = ["Layer", "Kind", "Output", "Params", "MACs", "Field"]
_SIDES = ["left", "left", "right", "right", "right", "right"]
_PARAMS_COLOUR, _MACS_COLOUR = "#4c8bc4", "#e08a2e"  # legible on light and dark, and to all eyes


def _shape_text(shape):
    return "x".join(map(str, shape)) or "-"


def _cells(row):
    side = row.receptive_field
    return [
        row.name or "(network)",
        row.kind,
        "not called" if row.output_shape is None else _shape_text(row.output_shape),
        f"{row.params:,}",
        f"{row.macs:,}",
        "-" if side is None else _shape_text(side if isinstance(side, tuple) else [side]),
    ]


def _text_line(cells, widths):
    aligned = [
        cell.ljust(width) if side == "left" else cell.rjust(width)
        for cell, width, side in zip(cells, widths, _SIDES, strict=True)
    ]
    return "  ".join(aligned).rstrip()


def _html_line(cells, params_bar="", macs_bar="", tag="td"):
    columns = [
        f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>'
        for cell, side in zip(cells, _SIDES, strict=True)
    ]
    for place, bar in ((5, macs_bar), (4, params_bar)):  # after their numbers, last one first
        style = "text-align:left;white-space:nowrap"
        columns.insert(place, f'<{tag} style="{style}">{bar}</{tag}>')
    return f"<tr>{''.join(columns)}</tr>"


def _html_bar(part, parts, colour):
    """Draw a share of the sum, the largest share 60 pixels long, with the percentage beside it."""
    if round(part / max(sum(parts), 1), 3) == 0:
        return ""
    style = f"display:inline-block;width:{60 * part / max(parts):.0f}px;height:9px"
    return f'<span style="{style};background-color:{colour}"></span> {part / sum(parts):.1%}'


# The run


def trace(net, input_shape, depth=None):
    """Run a copy of the network on one image, in eval mode, and return its Trace.

    The copy lives on the meta device, where tensors have a shape and no memory. A network that
    asks for the numbers (`if x.sum() > 0`) is run once more, on its own device.

    Args:
        net: any nn.Module that takes a batch of images.
        input_shape: (channels, height, width) of one image.
        depth: how many calls deep the rows go. 1 shows the layers that the network itself calls,
            each with everything inside it; None shows the innermost. The totals are the same.

    Raises:
        ValueError: an argument is refused, or the network fails; then the message names the
            layer, what it got and wanted, and what ran before it.
    """
    _check_arguments(net, input_shape, depth)
    for device in ("meta", None):
        recorder = _Recorder()
        try:
            root = recorder.run(net, input_shape, device)
        except Exception as error:
            if device == "meta" and _needs_memory(error):
                continue
            raise ValueError(recorder.explain(error)) from error
        rows = tuple(_rows(root, depth or math.inf))
        return Trace(type(net).__name__, tuple(input_shape), rows)


def _check_arguments(net, input_shape, depth):
    if not isinstance(net, nn.Module):
        raise ValueError(f"net={net!r} must be an nn.Module: build the network, then pass it")
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3:
        raise ValueError(
            f"input_shape={input_shape!r} must be (channels, height, width), with the channels and "
            "without the batch: try (1, 28, 28)"
        )
    for name, value in zip(("channels", "height", "width"), input_shape, strict=True):
        if not _is_positive(value):
            raise ValueError(
                f"{name}={value!r} in input_shape={input_shape!r} must be a whole number, 1 or "
                "more: try (1, 28, 28)"
            )
    if depth is not None and not _is_positive(depth):
        raise ValueError(
            f"depth={depth!r} must be a whole number, 1 or more, or None for all: try depth=1"
        )


def _is_positive(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _needs_memory(error):
    """Tell whether an operation failed because its tensors are on the meta device."""
    return isinstance(error, NotImplementedError) or "meta" in str(error)


def _copy_network(net, device):
    """Copy a network, with its tensors on another device; None keeps them on their own."""
    copies = {}
    for module in net.modules():
        for tensor in tree_leaves(vars(module)):
            if isinstance(tensor, Tensor) and not is_lazy(tensor):
                twin = tensor.detach().to(device or tensor.device, copy=True)
                if isinstance(tensor, nn.Parameter):
                    twin = nn.Parameter(twin, tensor.requires_grad)
                copies[id(tensor)] = twin
    return copy.deepcopy(net, copies)


def _blank_image(net, input_shape, device):
    """Make a batch of one image of the network's own dtype, on the network's own device."""
    tensors = chain(net.parameters(), net.buffers())
    like = next((x for x in tensors if x.is_floating_point()), torch.empty(0, device=device))
    return torch.zeros(1, *input_shape, dtype=like.dtype, device=like.device)


@contextmanager
def _isolated(net, device):
    """Run without gradients, keep the random state, and make new tensors on the device."""
    gpus = {param.device.index for param in net.parameters() if param.device.type == "cuda"}
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it is one operation, with no known flops
    on_device = torch.device(device) if device else nullcontext()
    try:
        with torch.no_grad(), torch.random.fork_rng(gpus), on_device:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)


@dataclass(eq=False)
class _Call:
    """One call of a module: what its own forward did, and the calls inside it."""

    name: str
    module: nn.Module
    input_shapes: list = dataclasses.field(default_factory=list)
    calls: list = dataclasses.field(default_factory=list)
    params: list = dataclasses.field(default_factory=list)
    flops: int = 0
    output_shape: tuple | None = None
    receptive_field: int | tuple | None = None

    def __iter__(self):
        """Yield this call and all calls inside it."""
        yield self
        for call in self.calls:
            yield from call

    def __str__(self):
        return f"{self.name or 'the network'} ({type(self.module).__name__})"


def _rows(call, depth):
    """Yield the rows of a call; last, in a row of its own, what its forward did outside layers."""
    whole = depth == 0 or not call.calls
    if not whole:
        for inner in call.calls:
            yield from _rows(inner, depth - 1)
    counted = list(call) if whole else [call]
    params = sum(param.numel() for part in counted for param in part.params)
    flops = sum(part.flops for part in counted)
    if whole or params or flops:
        kind, seen = type(call.module).__name__, call.receptive_field
        yield Row(call.name, kind, call.output_shape, params, flops // 2, seen)


class _Recorder(TorchDispatchMode):
    """Books what a forward pass does on the innermost running call."""

    def __init__(self):
        super().__init__()
        self.running = []
        self.unused_params = {}
        self.fields = None
        self.flop_counter = FlopCounterMode(display=False)
        self.booked_flops = 0

    @torch.inference_mode(False)  # in inference mode operations arrive in larger pieces
    def run(self, net, input_shape, device):
        """Run a copy of the network on one image and return the call of the network."""
        net = _copy_network(net, device).eval()
        image = _blank_image(net, input_shape, device)
        self.unused_params = {id(param): param for param in net.parameters()}
        self.fields = ReceptiveFields(image)
        root = _Call("", net, [tuple(image.shape)])
        self.running.append(root)
        for name, module in net.named_modules():
            if module is not net:
                enter = partial(self._enter, name)
                module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True)
                module.register_forward_hook(self._leave)
        with _isolated(net, device), self.flop_counter, self.fields, self:
            self._leave(net, (image,), net(image))
        self._add_unused_params(root)
        return root

    def _enter(self, name, module, args, kwargs):
        self._book_flops()
        shapes = [tuple(x.shape) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        call = _Call(name, module, shapes)
        self.running[-1].calls.append(call)
        self.running.append(call)

    def _leave(self, module, args, output):
        self._book_flops()
        call = self.running.pop()
        while call.module is not module:  # a call inside it failed, and the network went on
            call = self.running.pop()
        outputs = [x for x in tree_leaves(output) if isinstance(x, Tensor)]
        shape = tuple(outputs[0].shape) if outputs else ()
        call.output_shape = shape[1:] if shape[:1] == (1,) else shape
        call.receptive_field = self.fields.of(outputs[0]) if outputs else None

    def _book_flops(self):
        flops = self.flop_counter.get_total_flops()
        self.running[-1].flops += flops - self.booked_flops
        self.booked_flops = flops

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        """Run an operation and book the parameters that it is the first to use."""
        if op is torch.ops.aten.convolution.default:
            _check_channels(*args)
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        self.running[-1].params += self._claim(inputs)
        return op(*args, **(kwargs or {}))

    def _claim(self, tensors):
        """Return the parameters among these tensors that nothing has used before."""
        return [self.unused_params.pop(id(x)) for x in tensors if id(x) in self.unused_params]

    def _add_unused_params(self, root):
        """Book what nothing used on the call of its module, or on one that stands for no call."""
        calls = {call.name: call for call in root}

        def call_of(name):
            if name not in calls:
                calls[name] = _Call(name, root.module.get_submodule(name))
                call_of(name.rpartition(".")[0]).calls.append(calls[name])
            return calls[name]

        for name, module in root.module.named_modules():
            if unused := self._claim(module.parameters(recurse=False)):
                call_of(name).params += unused

    def explain(self, error):
        """Say which layer failed, what it got and wanted, and what ran before it."""
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if not self.running:
            return (
                f"trace runs a copy of the network, and copy.deepcopy could not make it: {reason}"
            )
        root, call = self.running[0], self.running[-1]
        ran = [done for done in root if not done.calls and done.output_shape is not None]
        before = [f"{done} -> {_shape_text(done.output_shape)}" for done in ran[-3:]]
        return (
            f"{call} got {', '.join(map(str, call.input_shapes))}{_mismatch(call)}.\n"
            f"Ran before it: {', '.join(before) or 'nothing'}.\n"
            f"The error: {reason}"
        )


def _check_channels(x, weight, bias, stride, padding, dilation, transposed, output_pad, groups):
    """Refuse a wrong number of channels, which on the meta device some convolutions take."""
    wanted = weight.shape[0] if transposed else weight.shape[1] * groups
    if x.shape[1] != wanted:
        raise RuntimeError(f"the weight takes {wanted} channels, the input has {x.shape[1]}")


def _mismatch(call):
    """Say which channel argument of a layer does not fit its input, and how to mend it."""
    shape = call.input_shapes[0] if call.input_shapes else ()
    arguments = {"in_channels": 1, "num_features": 1, "num_channels": 1, "in_features": -1}
    for name, dim in arguments.items():
        wanted = getattr(call.module, name, None)
        if wanted is not None and len(shape) > 1 and shape[dim] != wanted:
            return f" but wants {name}={wanted}: set {name}={shape[dim]}, or give it {wanted}"
    return ""

"""The per-layer shape trace of any network: shapes, parameters, multiplications, receptive fields.

`trace` runs a copy of the network once, on tensors that have a shape but no memory, and records
each layer as it is called. Torch's own FlopCounterMode counts the multiplications, with formulas
added for operations that it does not know. An operation that has no formula is shown as "?".
"""

import copy
import dataclasses
import inspect
import math
import re
from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from html import escape
from itertools import chain
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from cnnlib._checks import check_count, shown
from cnnlib._receptive_field import ReceptiveFields

# What a reader gets


@dataclass(frozen=True)
class Row:
    """One call of a layer, or a layer that owns parameters and was never called.

    Args:
        name: The path inside the network; "" for the network itself.
        kind: The class of the layer.
        output_shape: The shape without the batch; None if the layer was never called.
        params: Learnable numbers, counted in the first call that uses them.
        macs: Multiply-accumulates of convolutions and matrix products for one image; None if such
            an operation has no formula.
        receptive_field: Pixels that one output can see, padding included: the side of a square,
            or (height, width); None if it is unknown.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...] | None
    params: int
    macs: int | None
    receptive_field: int | tuple[int, int] | None

    def cells(self) -> list[str]:
        """Return the cells of this row in a table."""
        side = self.receptive_field
        return [
            self.name or "(network)",
            self.kind,
            "not called" if self.output_shape is None else _shape_text(self.output_shape),
            f"{self.params:,}",
            "?" if self.macs is None else f"{self.macs:,}",
            "-" if side is None else _shape_text(side if isinstance(side, tuple) else [side]),
        ]


@dataclass(frozen=True, repr=False)
class Trace:
    """The rows of a network in the order of its calls, shown as a table.

    Args:
        kind: The class of the network.
        input_shape: (channels, height, width) of the image.
        rows: One Row per call that is shown.
        total_macs: The multiply-accumulates for one image, as far as they are known.
        notes: Sentences below the table, about what is unknown.
    """

    kind: str
    input_shape: tuple[int, int, int]
    rows: tuple[Row, ...]
    total_macs: int
    notes: tuple[str, ...] = ()

    @property
    def total_params(self) -> int:
        """The parameters of the network, each counted once."""
        return sum(row.params for row in self.rows)

    def __repr__(self):
        table = self._table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        line = "  ".join(f"{{:{side}{width}}}" for side, width in zip(_SIDES, widths, strict=True))
        head, *body, total = [line.format(*cells).rstrip() for cells in table]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        notes = ["", *self.notes] if self.notes else []
        return "\n".join([self._title(), "", head, rule, *body, rule, total, *notes])

    def _repr_html_(self):
        """Return a foldable table with bars for the shares; a long one starts folded."""
        head, *body, total = self._table()
        params = _html_bars([row.params for row in self.rows], _PARAMS_COLOUR)
        macs = _html_bars([row.macs or 0 for row in self.rows], _MACS_COLOUR)
        rows = "\n".join(map(_html_line, body, params, macs))
        notes = "\n".join(f"<p>{escape(note)}</p>" for note in self.notes)
        totals = f"{self.total_params:,} parameters, {self.total_macs:,} MACs"
        return f"""<details{"" if len(self.rows) > _LONG else " open"}>
<summary>{escape(self._title())}: {totals}</summary>
<div style="{_BOX}" tabindex="0"><table style="white-space:nowrap">
<thead style="{_STICKY}">{_html_line(head, tag="th")}</thead>
<tbody>
{rows}
</tbody>
<tfoot>{_html_line(total, tag="th")}</tfoot>
</table></div></details>
{notes}"""

    def _title(self):
        return f"{self.kind}, input {_shape_text(self.input_shape)}"

    def _table(self):
        total = ["Total", "", "", f"{self.total_params:,}", f"{self.total_macs:,}", ""]
        return [_HEADINGS, *(row.cells() for row in self.rows), total]


_HEADINGS = ["Layer", "Kind", "Output", "Params", "MACs", "Field"]
_SIDES = "<<>>>>"  # the alignment of each column
_PARAMS_COLOUR, _MACS_COLOUR = "#4c8bc4", "#e08a2e"  # legible on light and dark, to all eyes
_LONG = 25  # rows; the box below holds so many without scrolling
_BOX = "max-height:60em;overflow:auto"
_STICKY = "position:sticky;top:0;background:var(--jp-layout-color0,Canvas)"  # no row shows through


def _shape_text(shape):
    return "x".join(map(str, shape)) or "-"


def _html_line(cells, params_bar="", macs_bar="", tag="td"):
    name, kind, output, params, macs, side = map(escape, cells)
    columns = [("left", name), ("left", kind), ("right", output), ("right", params)]
    columns += [("left", params_bar), ("right", macs), ("left", macs_bar), ("right", side)]
    texts = [f'<{tag} style="text-align:{side}">{text}</{tag}>' for side, text in columns]
    return f"<tr>{''.join(texts)}</tr>"


def _html_bars(parts, colour):
    """Draw each part as a bar with its percentage of the sum; the longest bar has 60 pixels."""
    style = f"display:inline-block;height:9px;background-color:{colour};width"
    shares = [part / max(sum(parts), 1) for part in parts]
    return [
        f'<span style="{style}:{60 * share / max(shares):.0f}px"></span>&nbsp;{share:.1%}'
        if round(share, 3)
        else ""
        for share in shares
    ]


def count_parameters(net: nn.Module) -> int:
    """Count the learnable numbers of a network, each of them once.

    Raises:
        ValueError: It is no network, or has a lazy layer that has not run, whose size is unknown.
    """
    check_module(net)
    if any(is_lazy(param) for param in net.parameters()):
        raise ValueError(
            "net must know the sizes of its parameters, but a lazy layer has not run yet: try "
            "net(images) first"
        )
    return sum(param.numel() for param in net.parameters())


# The run


_LARGEST = 2**48  # numbers of an image: with wider layers behind it, the counts still fit 63 bits


def trace(net: nn.Module, input_shape: Sequence[int], depth: int | None = None) -> Trace:
    """Run a copy of the network on one image, in eval mode, and return its Trace.

    The copy lives on the meta device, where tensors have a shape but no memory. A network that
    reads their values (`if x.sum() > 0`) is run once more, on its own device.

    MACs are those of convolutions and matrix products; everything else is free. What is unknown
    appears as "?" or "-", and a note below the table names the operation.

    Args:
        net: Any nn.Module that takes a batch of images.
        input_shape: (channels, height, width) of one image.
        depth: How many levels of calls to show. 1 shows the layers that the network itself calls,
            each with everything inside it; None shows the innermost. The totals are the same.

    Raises:
        ValueError: An argument is invalid or the network fails. In that case the message names the
            layer, what it got and wanted, and what ran before it.
    """
    _check_arguments(net, input_shape, depth)
    for device in ("meta", None):
        recorder = _Recorder()
        try:
            root = recorder.run(net, input_shape, device)
        except Exception as error:
            if device == "meta" and needs_memory(error):
                continue
            raise ValueError(recorder.explain(error)) from error
        break
    entries = list(_rows(root, depth or math.inf))
    channels, height, width = map(int, input_shape)
    return Trace(
        type(net).__name__,
        (channels, height, width),
        rows=tuple(row for row, _ in entries),
        total_macs=sum(call.flops for call in root) // 2,
        notes=tuple(_notes(root, entries)),
    )


def check_module(net: Any, name: str = "net") -> None:
    """Refuse anything that is not a network, such as its class or a function that builds one."""
    if not isinstance(net, nn.Module):
        builder = getattr(net, "__name__", None)
        remedy = f": {builder}(...) builds one, pass that" if builder else ""
        given = repr(net) if builder else f"a {type(net).__name__}"
        raise ValueError(
            f"{name}={given} must be an nn.Module: build the network, then pass it{remedy}"
        )
    if not hasattr(net, "_modules"):
        raise ValueError(
            f"{name}={type(net).__name__} must set itself up: try super().__init__() as the first "
            "line of its __init__"
        )


def _check_arguments(net, input_shape, depth):
    check_module(net)
    if any(isinstance(module, torch.jit.ScriptModule) for module in net.modules()):
        raise ValueError(
            f"net={type(net).__name__} must run in Python, but torch.jit has compiled part of it: "
            "try the network from before torch.jit.script or torch.jit.trace"
        )
    text = shown(input_shape)
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3:
        if hasattr(input_shape, "shape"):
            text = f"<{type(input_shape).__name__} of shape {tuple(input_shape.shape)}>"
        raise ValueError(
            f"input_shape={text} must be (channels, height, width), with the channels and "
            f"without the batch: try {_likely_shape(input_shape)}"
        )
    for name, value in zip(("channels", "height", "width"), input_shape, strict=True):
        if not _is_positive(value):
            raise ValueError(
                f"{name}={shown(value)} in input_shape={text} must be a whole number from 1: try "
                "(1, 28, 28)"
            )
    if math.prod(map(int, input_shape)) > _LARGEST:
        raise ValueError(
            f"input_shape={text} must hold at most {_LARGEST:,} numbers: try (1, 28, 28)"
        )
    if depth is not None:
        check_count("depth", depth, usual=1)


def _is_positive(value):
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1


def _likely_shape(value):
    """Guess the shape of one image from a batch, its shape, or a size without channels."""
    shape = tuple(getattr(value, "shape", value if isinstance(value, (tuple, list)) else ()))
    if _is_positive(value) and value <= _LARGEST:
        shape = (value, value)
    if not 2 <= len(shape) <= 4 or not all(map(_is_positive, shape)):
        return (1, 28, 28)
    return tuple(map(int, (1, *shape)[-3:]))


def needs_memory(error: Exception) -> bool:
    """Return whether an operation failed because its tensors are on the meta device."""
    said = str(error)  # formatting a tensor in an f-string also reads its value
    return isinstance(error, NotImplementedError) or "meta" in said or "__format__" in said


def copy_network(net: nn.Module, device: torch.device | str | None) -> nn.Module:
    """Copy a network to a device; None leaves each tensor on its own."""
    copies: dict[int, Any] = {}
    for module in net.modules():
        for tensor in tree_leaves(vars(module)):
            if is_lazy(tensor):
                settings: Any = {"device": device or tensor.device, "dtype": tensor.dtype}
                copies[id(tensor)] = type(tensor)(requires_grad=tensor.requires_grad, **settings)
            elif isinstance(tensor, Tensor):
                twin = tensor.detach().to(device or tensor.device, copy=True)
                if isinstance(tensor, nn.Parameter):
                    twin = nn.Parameter(twin, tensor.requires_grad)
                copies[id(tensor)] = twin
    return copy.deepcopy(net, copies)


def _blank_image(net, input_shape, device):
    """Make a batch of one image with the dtype and the device of the network."""
    tensors = chain(net.parameters(), net.buffers())
    like = next((x for x in tensors if x.is_floating_point()), torch.empty(0, device=device))
    return torch.zeros(1, *input_shape, dtype=like.dtype, device=like.device)


@contextmanager
def _isolated(net, device):
    """Disable gradients, preserve the random state, and make new tensors on the device."""
    gpus = {param.device.index for param in net.parameters() if param.device.type == "cuda"}
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a single operation that has no formula
    on_device = torch.device(device) if device else nullcontext()
    try:
        with torch.no_grad(), torch.random.fork_rng(gpus), on_device:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)


@dataclass(eq=False)
class _Call:
    """One call of a module: what its own forward did, and the calls that it made."""

    name: str
    module: nn.Module
    input_shapes: list = dataclasses.field(default_factory=list)
    calls: list = dataclasses.field(default_factory=list)
    params: list = dataclasses.field(default_factory=list)
    foreign_params: list = dataclasses.field(default_factory=list)
    flops: int = 0
    uncounted: list = dataclasses.field(default_factory=list)
    output_shape: tuple | None = None
    receptive_field: int | tuple | None = None
    field_lost_by: str | None = None

    def __iter__(self):
        """Yield this call and all calls inside it."""
        yield self
        for call in self.calls:
            yield from call

    def __str__(self):
        return f"{self.name or 'the network'} ({type(self.module).__name__})"


def _rows(call, depth):
    """Yield the rows of a call, each with the calls that it covers.

    What the forward of the call did outside layers has its own row, the last one.
    """
    whole = depth == 0 or not call.calls
    if not whole:
        for inner in call.calls:
            yield from _rows(inner, depth - 1)
    counted = list(call) if whole else [call]
    params = [param for part in counted for param in part.params]
    flops = sum(part.flops for part in counted)
    unknown = any(part.uncounted for part in counted)
    foreign = any(part.foreign_params for part in counted)
    if whole or params or flops or unknown or foreign:
        row = Row(
            name=call.name,
            kind=type(call.module).__name__,
            output_shape=call.output_shape,
            params=sum(0 if is_lazy(param) else param.numel() for param in params),
            macs=None if unknown else flops // 2,
            receptive_field=call.receptive_field,
        )
        yield row, counted


def _notes(root, entries):
    """Yield a sentence for each thing that is unknown, naming the operation and the layer."""
    for op in dict.fromkeys(op for call in root for op in call.uncounted):
        names = [row.name for row, calls in entries if any(op in call.uncounted for call in calls)]
        yield (
            f"MACs ? in {_names_text(names)}: {op} has no formula here, so the total leaves it out."
        )
    lost_in = {}
    for row, (call, *_) in entries:
        if call.field_lost_by:
            lost_in.setdefault(call.field_lost_by, row.name)
    for op, name in lost_in.items():
        yield f"Field - from {_names_text([name])} on: {op} is not followed."
    if root.output_shape and not root.receptive_field and not root.field_lost_by:
        yield "Field - of the output: no operations of torch lead from the image to it."
    for row, calls in entries:
        if foreign := [param for call in calls for param in call.foreign_params]:
            numbers = sum(param.numel() for param in foreign)
            yield (
                f"{_names_text([row.name])} uses {numbers:,} weights that are not parameters of "
                "the network, so Params leaves them out and no optimiser sees them: keep layers in "
                "nn.ModuleList or nn.Sequential, not in a list."
            )


def _names_text(names):
    names = [name or "(network)" for name in dict.fromkeys(names)]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# What counts as multiply-accumulates

_aten = torch.ops.aten
_FORMULAS = {  # besides those of torch's counter
    _aten.mv: lambda matrix, vector, **_: 2 * math.prod(matrix),
    _aten.addmv: lambda bias, matrix, vector, **_: 2 * math.prod(matrix),
    _aten.dot: lambda one, two, **_: 2 * math.prod(one),
    # nn.Bilinear: every entry of the weight meets a pair of inputs.
    _aten._trilinear: lambda one, weight, *_, **__: 2 * math.prod(one[:-1]) * math.prod(weight),
    _aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: (
        2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    ),
}

# Words in the names of those aten operations that multiply matrices, convolve or solve equations.
# All others are free by the course's convention: elementwise operations, sums and other reductions,
# pooling, norms, softmax, interpolation, and whatever only moves values.
_WORDS_OF_PRODUCTS = {
    *("mm", "addmm", "baddbmm", "addbmm", "bmm", "matmul", "mv", "addmv", "dot", "vdot", "addr"),
    *("linear", "bilinear", "conv", "convolution", "attention", "transformer", "lstm", "gru"),
    *("rnn", "fft", "linalg", "cholesky", "solve", "cdist", "pdist", "euclidean", "ormqr"),
}
_FREE_IN_SPITE_OF_THE_NAME = {"linalg_vector_norm", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell"}


def _has_unknown_macs(op):
    """Return whether an operation without a formula may multiply matrices."""
    if op.overloadpacket in flop_registry or op.overloadpacket in _FORMULAS:
        return False
    namespace, name = op._schema.name.split("::")
    free = torch.Tag.pointwise in op.tags or name in _FREE_IN_SPITE_OF_THE_NAME
    if free or namespace == "profiler":  # a marker for profiles, which DataParallel also sets
        return False
    words = set(re.split(r"[_\d]+d?", name))
    products = not words.isdisjoint(_WORDS_OF_PRODUCTS) and "upsample" not in words
    return products or namespace not in ("aten", "prim", "prims")


class _OneModule(nullcontext):
    """Replaces the counter's own record of module calls, which fails on some parameters."""

    parents = ("Global",)


# One pass


class _Recorder(TorchDispatchMode):
    """Attributes what a forward pass does to the innermost running call."""

    def __init__(self):
        super().__init__()
        self.running = []
        self.unused_params = {}
        self.own_params = set()
        self.fields = None
        self.flop_counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
        self.flop_counter.mod_tracker = _OneModule()
        self.booked_flops = 0

    @torch.inference_mode(False)  # inference mode dispatches larger operations
    def run(self, net, input_shape, device):
        """Run a copy of the network on one image and return the call of the network."""
        net = copy_network(net, device).eval()
        image = _blank_image(net, input_shape, device)
        self.unused_params = {id(param): param for param in net.parameters()}
        self.own_params = set(self.unused_params)
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
        while call.module is not module:  # a call inside it failed, but the network went on
            call = self.running.pop()
        outputs = [x for x in tree_leaves(output) if isinstance(x, Tensor)]
        shape = tuple(outputs[0].shape) if outputs else ()
        call.output_shape = shape[1:] if shape[:1] == (1,) else shape
        if outputs:
            call.receptive_field, call.field_lost_by = self.fields.of(outputs[0])

    def _book_flops(self):
        flops = self.flop_counter.get_total_flops()
        self.running[-1].flops += flops - self.booked_flops
        self.booked_flops = flops

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        """Run an operation; record the parameters that it uses first, and unknown work."""
        if op is _aten.convolution.default:
            _check_convolution(*args)
        if op in (_aten.mm.default, _aten.addmm.default):
            _check_product(*args[-2:])
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        call = self.running[-1]
        call.params += self._claim(inputs)
        if _has_unknown_macs(op):
            call.uncounted.append(str(op.overloadpacket))
        for x in inputs:
            if isinstance(x, nn.Parameter) and id(x) not in self.own_params:
                self.own_params.add(id(x))  # record it once
                call.foreign_params.append(x)
        return op(*args, **(kwargs or {}))

    def _claim(self, tensors):
        """Return the parameters among these tensors that have not been used before."""
        return [self.unused_params.pop(id(x)) for x in tensors if id(x) in self.unused_params]

    def _add_unused_params(self, root):
        """Attribute unused parameters to the call of their module, or to a placeholder call."""
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
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if not self.running:
            return (
                f"trace runs a copy of the network, and copy.deepcopy could not make it: {reason}"
            )
        root, call = self.running[0], self.running[-1]
        ran = [done for done in root if not done.calls and done.output_shape is not None]
        before = [f"{done} -> {_shape_text(done.output_shape)}" for done in ran[-3:]]
        return (
            f"{call} got {', '.join(map(str, call.input_shapes))}{_hint(call, root, error)}.\n"
            f"Ran before it: {', '.join(before) or 'nothing'}.\n"
            f"The error: {reason}"
        )


def _check_convolution(x, weight, bias, stride, padding, dilation, transposed, out_pad, groups):
    """Refuse what the meta device accepts by mistake or torch words inconsistently."""
    wanted = weight.shape[0] if transposed else weight.shape[1] * groups
    if x.shape[1] != wanted:
        raise RuntimeError(f"the weight takes {wanted} channels, but the input has {x.shape[1]}")
    if not transposed:
        rank = weight.ndim - 2
        pads, rates = list(padding) * rank, list(dilation) * rank
        kernel = [rate * (k - 1) + 1 for k, rate in zip(weight.shape[2:], rates, strict=False)]
        room = [size + 2 * pad for size, pad in zip(x.shape[2:], pads, strict=False)]
        if any(k > size for k, size in zip(kernel, room, strict=True)):
            raise RuntimeError(
                f"the kernel covers {_shape_text(kernel)} pixels, but the padded input has only "
                f"{_shape_text(room)}"
            )


def _check_product(x, weight):
    """Refuse what torch words otherwise than for a convolution."""
    if x.ndim == weight.ndim == 2 and x.shape[1] != weight.shape[0]:
        wanted, given = weight.shape[0], x.shape[1]
        raise RuntimeError(f"the weight takes {wanted} features, but the input has {given}")


def _hint(call, root, error):
    """Say what a layer wants instead of its input, and how to fix it."""
    shape = call.input_shapes[0] if call.input_shapes else ()
    if call is root and not call.calls and isinstance(error, TypeError):
        names = _required_inputs(call.module)
        if len(names) != 1:
            return (
                f" but its forward takes {len(names)} inputs ({', '.join(names)}), and trace "
                "passes one image: trace a module that takes the image and makes the other inputs"
            )
    if isinstance(call.module, (nn.ModuleList, nn.ModuleDict)):
        return ", and has no forward: nn.Sequential calls its layers, or call them one by one"
    if any(name != "parametrizations" for name, _ in call.module.named_children()):
        return ""  # in a container such an attribute may mean anything
    arguments = {"in_channels": 1, "num_features": 1, "num_channels": 1, "in_features": -1}
    for name, dim in arguments.items():
        wanted = getattr(call.module, name, None)
        if wanted is not None and len(shape) > 1 and shape[dim] != wanted:
            return f" but wants {_remedy(name, wanted, shape, dim, root.input_shapes[0])}"
    return ""


def _remedy(name, wanted, shape, dim, image_shape):
    """Say how many channels or features a layer wants, and the likeliest fix."""
    wants = f"{name}={wanted}"
    if len(shape) == 4 and shape == image_shape and shape[-1] == wanted and dim == 1:
        _, height, width, channels = shape
        return f"{wants}: input_shape ends with the channels, try ({channels}, {height}, {width})"
    if len(shape) == 2 and dim == 1 and name == "in_channels":
        return f"a map, (1, {wanted}, height, width): a Flatten or a Linear comes too early"
    if len(shape) == 4 and name == "in_features":
        size = math.prod(shape[1:])
        if wanted == size:
            return f"{wants}, which is {'*'.join(map(str, shape[1:]))}: put nn.Flatten() before it"
        if wanted == shape[1]:
            return f"{wants}, the channels: pool to 1x1 and put nn.Flatten() before it"
        return f"{wants}: put nn.Flatten() before it and set in_features={size}"
    return f"{wants}: set {name}={shape[dim]}, or give it {wanted}"


def _required_inputs(module):
    """Return the names of the inputs that a forward requires."""
    parameters = inspect.signature(module.forward).parameters.values()
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in optional]

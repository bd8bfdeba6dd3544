"""What a module computes, as a graph, found by running it on tensors that have no memory.

The names of classes do not matter: a node is a call of a torch function that reads a map.
"""

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from cnnlib._checks import shown
from cnnlib.trace import check_module, copy_network

LAYERS = {"conv", "pool", "linear", "other"}
_NORMS = {"batch_norm": "BN", "instance_norm": "IN", "group_norm": "GN", "layer_norm": "LN"}
_SMALL = _NORMS | {"relu": "ReLU", "gelu": "GELU", "silu": "SiLU", "sigmoid": "sigmoid"}
_SMALL |= {name: name for name in ("tanh", "softmax", "dropout")}
_SIGNS = dict.fromkeys(("add", "radd", "iadd"), "+") | dict.fromkeys(("mul", "rmul", "imul"), "×")
_RESHAPES = {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "contiguous", "get"}
_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_CONV_TRANSPOSE = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups")
_SIDE = 32  # pixels of an input whose shape is not given


@dataclass(eq=False)
class Node:
    """One operation on maps.

    Args:
        kind: "input", "output", "conv", "pool", "linear", "small" (normalisation, activation,
            scaling), "+", "×", "Σ", "concatenate", "stack", "split", or "other".
        label: The text in its box.
        inputs: The nodes that it reads.
        shape: The shape of its output, without the batch.
        note: Settings of a convolution besides kernel, channels and stride, such as groups.
        path: The name of the innermost module that ran it.
        before: Labels of small operations before it, which are drawn in the same box.
        after: Labels of small operations after it, likewise.
    """

    kind: str
    label: str
    inputs: list["Node"]
    shape: tuple[int, ...]
    note: str = ""
    path: str = ""
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def graph(block: nn.Module, input_shapes: Sequence[Sequence[int]] | None = None) -> list[Node]:
    """Run a copy of a block and return its nodes as they are drawn, the output last.

    A small operation shares the box of the previous layer or, where normalisation comes first, of
    the next one. A concatenation that begins with everything that another one has joined reads
    that one instead.

    Args:
        block: The module.
        input_shapes: The shape of each input, without the batch. None: guess the channels of a
            block that takes one input.

    Raises:
        ValueError: The block fails on such inputs.
    """
    nodes = record(block, input_shapes)
    _chain_concatenations(nodes)
    for node in reversed(list(nodes)):
        if node.kind not in {"input", "output"} and not consumers(nodes, node):
            nodes.remove(node)
    for node in list(nodes):
        _fold(nodes, node)
    return nodes


def consumers(nodes: Iterable[Node], node: Node) -> list[Node]:
    """Return the nodes that read a node."""
    return [other for other in nodes if node in other.inputs]


def record(
    block: nn.Module, input_shapes: Sequence[Sequence[int]] | None = None, name: str = "block"
) -> list[Node]:
    """Run a copy of a block and return a node per call, the output last. Args as in `graph`."""
    check_module(block, name)
    if input_shapes is not None:
        _check_shapes(input_shapes)
    parameters = inspect.signature(block.forward).parameters.values()
    names = [str(parameter) for parameter in parameters if parameter.default is parameter.empty]
    error = None
    for shapes in [input_shapes] if input_shapes else _likely_shapes(block):
        try:
            return _Recorder().run(copy_network(block, "meta").eval(), shapes, names)
        except Exception as failure:
            error = error or failure  # the first shape is the likeliest
    raise ValueError(
        f"input_shapes={shown(input_shapes)} must be what {type(block).__name__} takes: try one "
        f"(channels, height, width) for each input: {', '.join(names)}. It fails: {error}"
    ) from error


def _check_shapes(shapes: Any) -> None:
    """Refuse anything that is not one (channels, height, width) for each input."""
    listed = isinstance(shapes, tuple | list) and len(shapes) > 0
    if not listed or not all(map(_is_shape, shapes)):
        raise ValueError(
            f"input_shapes={shown(shapes)} must hold one (channels, height, width) for each input: "
            "try input_shapes=[(1, 28, 28)]"
        )


def _is_shape(shape: Any) -> bool:
    sides = shape if isinstance(shape, tuple | list) else ()
    return len(sides) == 3 and all(isinstance(x, Integral) and 0 < int(x) < 2**31 for x in sides)


def _likely_shapes(block: nn.Module) -> list[list[tuple[int, int, int]]]:
    """Return input shapes with the first layer's channels or a multiple: some split their input."""
    counts = (getattr(m, "in_channels", getattr(m, "num_features", 0)) for m in block.modules())
    channels = next(filter(None, counts), 1)
    return [[(channels * k, _SIDE, _SIDE)] for k in range(1, 9)]


class _Recorder(TorchFunctionMode):
    """Records every call of a torch function that reads what depends on the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.sources: dict[int, Node] = {}  # by the id of a tensor
        self.alive: list[Tensor] = []  # so that no id is reused
        self.paths = [""]

    def run(self, net: nn.Module, shapes: Sequence[Sequence[int]], names: list[str]) -> list[Node]:
        images = [torch.zeros(1, *shape, device="meta") for shape in shapes]
        for i, image in enumerate(images):
            name = f"{names[0][1:]}[{i}]" if names[0].startswith("*") else names[i]
            label = f"{name if len(images) > 1 else 'input'}, {image.shape[1]}"
            self._remember([image], Node("input", label, [], tuple(image.shape[1:])))
        for path, module in net.named_modules():
            module.register_forward_pre_hook(lambda *_, path=path: self.paths.append(path))
            module.register_forward_hook(lambda *_: self.paths.__delitem__(-1))
        with torch.no_grad(), self:
            result = net(*images)
        ends = [self.sources[id(x)] for x in tree_leaves(result) if id(x) in self.sources]
        return [*self.nodes, Node("output", "", ends, ends[-1].shape)]

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        outputs = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        read = [x for x in tree_leaves((args, kwargs)) if id(x) in self.sources]
        if not (outputs and read):
            return result
        inputs = list(dict.fromkeys(self.sources[id(x)] for x in read))
        name = function.__name__.strip("_")
        unchanged = name in {"getitem", "cat"} and outputs[0].shape == read[0].shape
        if name in _RESHAPES or unchanged:
            node = inputs[0]
        else:
            kind, label, *note = _describe(name, args, kwargs, len(inputs), outputs)
            shape = tuple(outputs[0].shape[1:])
            node = Node(kind, label, inputs, shape, "".join(note), self.paths[-1])
        self._remember(outputs, node)
        return result

    def _remember(self, tensors: list[Tensor], node: Node) -> None:
        if node not in self.nodes:
            self.nodes.append(node)
        self.sources |= {id(tensor): node for tensor in tensors}
        self.alive += tensors


def _describe(name: str, args: Any, kwargs: Any, inputs: int, outputs: list[Tensor]) -> Sequence:
    """Return the kind and the label of a call, and a note for a convolution."""
    channels = outputs[0].shape[1]
    if name.startswith("conv"):
        return _describe_convolution(name, args, kwargs, channels)
    if "_pool" in name:
        return "pool", _pooling(name, args, kwargs, tuple(outputs[0].shape[2:]))
    if name in _SMALL:
        return "small", _SMALL[name]
    if name in _SIGNS and inputs > 1:
        return _SIGNS[name], _SIGNS[name]
    if name in _SIGNS:
        number = next((x for x in args if isinstance(x, (int, float))), "weight")
        return "small", f"{_SIGNS[name]} {number}"
    if name in {"linear", "cat"}:
        word = {"cat": "concatenate"}.get(name, name)
        return word, f"{word}, {channels}"
    if len(outputs) > 1:
        widths = [part.shape[1] for part in outputs]
        equal = f"{len(widths)} x {channels}"
        text = equal if len(set(widths)) == 1 else " + ".join(map(str, widths))
        return "split", f"split, {text}"
    word = {"sum": "Σ", "getitem": "crop"}.get(name, name)
    return word if word in {"Σ", "stack"} else "other", word


def _describe_convolution(name: str, args: Any, kwargs: Any, channels: int) -> Sequence:
    transposed = name.startswith("conv_transpose")
    names = (*_CONV_TRANSPOSE, "dilation") if transposed else _CONV
    given = dict(zip(names, args, strict=False)) | kwargs
    step, groups = _step(given.get("stride", 1)), given.get("groups", 1)
    dilation = _first(given.get("dilation", 1))
    notes = {
        f"transposed{step}": transposed,
        f"dilation {dilation}": dilation > 1,
        f"{groups} groups": groups > 1,
    }
    label = f"{_sides(given['weight'].shape[2:])}, {channels}{'' if transposed else step}"
    return "conv", label, ", ".join(note for note, holds in notes.items() if holds)


def _pooling(name: str, args: Any, kwargs: Any, sides: tuple[int, ...]) -> str:
    word = "max" if "max" in name else "mean"
    if name.startswith("adaptive"):
        return f"global {word}" if sides == (1, 1) else f"{word}, to {_sides(sides)}"
    given = dict(zip(("input", "kernel_size", "stride"), args, strict=False)) | kwargs
    kernel = given["kernel_size"]
    return f"{word} {_sides(kernel)}{_step(given.get('stride') or kernel)}"


def _first(value: Any) -> int:
    return value if isinstance(value, int) else value[0]


def _sides(kernel: Any) -> str:
    return f"{kernel}x{kernel}" if isinstance(kernel, int) else "x".join(map(str, kernel))


def _step(stride: Any) -> str:
    return f" /{_first(stride)}" if _first(stride) > 1 else ""


def _chain_concatenations(nodes: list[Node]) -> None:
    parts = {node: list(node.inputs) for node in nodes if node.kind == "concatenate"}
    for node, joined in parts.items():
        for earlier, start in parts.items():
            if len(start) < len(joined) and joined[: len(start)] == start:
                node.inputs = [earlier, *joined[len(start) :]]  # the longest wins
    for inner in parts:
        users = consumers(nodes, inner)
        if len(users) == 1 and users[0].kind == "concatenate":
            place = users[0].inputs.index(inner)
            users[0].inputs[place : place + 1] = inner.inputs
            nodes.remove(inner)


def _fold(nodes: list[Node], node: Node) -> None:
    """Put a small operation into the box of its neighbour if nothing branches off between."""
    if not node.inputs:
        return
    source = node.inputs[0]
    alone = consumers(nodes, source) == [node]
    if node.kind in LAYERS and alone and _normalises(source):
        node.before, node.inputs = source.label.split(", "), source.inputs
        nodes.remove(source)
    elif node.kind == "small" and alone:
        normalised_first = source.before or any(map(_normalises, source.inputs))
        if source.kind == "small":
            source.label += f", {node.label}"
        elif source.kind in LAYERS and not normalised_first:
            source.after.append(node.label)
        else:
            return
        nodes.remove(node)
        for user in consumers(nodes, node):
            user.inputs = [source if x is node else x for x in user.inputs]


def _normalises(node: Node) -> bool:
    return node.kind == "small" and node.label.split(", ")[0] in _NORMS.values()

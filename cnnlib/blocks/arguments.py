"""Checks of the arguments of blocks and models: each refusal says what to type.

Torch takes a layer of 0 channels in silence, and what it refuses it refuses deep inside a network,
in words that do not name the argument.
"""

import inspect
from typing import Any

from torch import nn

from cnnlib._checks import check_count, shown

_MOST = 10**6  # channels or classes; a layer of more does not fit into memory
_DEEPEST = 1000  # layers or blocks in a row; more take minutes to build
_LAYERS = {"blocks", "convolutions", "layers", "scales"}

# What to try instead of a wrong count; 1 for all other names.
_USUAL = {"num_classes": 10, "width": 64, "out_channels": 16, "channels": 16, "scales": 4}

# What a function that builds layers is called with, and one to try.
_BUILDERS = {
    "block": ("in_channels, out_channels, stride=1", "cnnlib.blocks.residual.BasicBlock"),
    "stem": ("in_channels, out_channels", "cnnlib.models.resnet.stem_3x3"),
    "unit": ("in_channels, out_channels, kernel", "cnnlib.blocks.conv.conv_bn_relu"),
    "up_step": ("in_channels, out_channels, padded", "cnnlib.blocks.unet.UpStep"),
}


def check_counts(**counts: Any) -> list[int]:
    """Return whole numbers from 1 as ints, in the given order."""
    return [
        check_count(name, count, _DEEPEST if name in _LAYERS else _MOST, usual=_USUAL.get(name, 1))
        for name, count in counts.items()
    ]


def check_builders(**builders: Any) -> None:
    """Refuse anything but functions and classes that build layers from the usual arguments."""
    for name, builder in builders.items():
        takes, usual = _BUILDERS[name]
        if isinstance(builder, nn.Module) or not _can_take(builder, takes.split(", ")):
            raise ValueError(
                f"{name}={shown(builder)} must be a class or a function that builds layers from "
                f"({takes}): try {usual}"
            )


def _can_take(builder, names):
    """Return whether a function takes these arguments, with and without those with a default."""
    try:
        for given in (names, [name for name in names if "=" not in name]):
            inspect.signature(builder).bind(*given)
    except (TypeError, ValueError):  # a builtin may have no signature
        return False
    return True


def check_built(**built: Any) -> None:
    """Refuse what a builder returned unless it is a module."""
    for name, module in built.items():
        if not isinstance(module, nn.Module):
            raise ValueError(
                f"{name} must return an nn.Module, but returned {shown(module)}: end it with "
                f"return, or try {_BUILDERS[name][1]}"
            )


def check_modules(**modules: Any) -> None:
    """Refuse anything but modules that are built already."""
    for name, module in modules.items():
        if not isinstance(module, nn.Module) or not hasattr(module, "_modules"):
            raise ValueError(f"{name}={shown(module)} must be an nn.Module: try {name}=nn.ReLU()")


def check_padding(padding: Any, stride: int) -> None:
    """Refuse any padding but "valid" and, with stride 1, "same"."""
    names = ("valid", "same") if stride == 1 else ("valid",)
    if not isinstance(padding, str) or padding not in names:
        raise ValueError(f"padding={shown(padding)} must be one of {names}: try padding='valid'")


def check_table(name: str, table: Any, kind: type | tuple | list, usual: Any) -> Any:
    """Return a table of whole numbers from 1 as nested lists of ints.

    Args:
        name: The name of the argument.
        table: Tuples and lists of whole numbers.
        kind: How they are nested, such as (int, [int]). A tuple has a fixed length, and a list may
            go on with entries like its last one.
        usual: A valid table, as a remedy.
    """
    try:
        return _entries(table, kind)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name}={shown(table)} must hold whole numbers from 1, nested as in the example, in "
            f"lists of at most {_DEEPEST:,}: try {name}={usual!r}"
        ) from None


def _entries(table, kind):
    if kind is int:
        return check_counts(entry=table)[0]
    if not isinstance(table, tuple | list) or len(table) > _DEEPEST:
        raise TypeError("an entry is not nested, or too long")
    further = len(table) - len(kind) if isinstance(kind, list) else 0
    return [_entries(*both) for both in zip(table, [*kind, *kind[-1:] * further], strict=True)]

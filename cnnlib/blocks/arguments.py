"""Checks of the arguments of blocks and models: each refusal says what to type.

Torch takes a layer of 0 channels in silence, and what it refuses it refuses deep inside a network,
in words that do not name the argument.
"""

from typing import Any

from torch import nn

from cnnlib._checks import check_count

_MOST = 10**6  # channels or classes; a layer of more does not fit into memory

# What to try instead of a wrong count; 1 for all other names.
_USUAL = {"num_classes": 10, "width": 64, "out_channels": 16, "channels": 16, "scales": 4}

# What to try in place of something that builds no layers.
_BUILDERS = {
    "block": "cnnlib.blocks.residual.BasicBlock",
    "stem": "cnnlib.models.resnet.stem_3x3",
    "unit": "cnnlib.blocks.conv.conv_bn_relu",
    "up_step": "cnnlib.blocks.unet.UpStep",
}


def check_counts(**counts: Any) -> list[int]:
    """Return whole numbers from 1 as ints, in the given order."""
    return [
        check_count(name, count, _MOST, usual=_USUAL.get(name, 1)) for name, count in counts.items()
    ]


def check_builders(**builders: Any) -> None:
    """Refuse anything but functions and classes, which build layers."""
    for name, builder in builders.items():
        if not callable(builder):
            raise ValueError(
                f"{name}={builder!r} must be a class or a function that builds layers: "
                f"try {_BUILDERS[name]}"
            )


def check_modules(**modules: Any) -> None:
    """Refuse anything but modules that are built already."""
    for name, module in modules.items():
        if not isinstance(module, nn.Module):
            raise ValueError(f"{name}={module!r} must be an nn.Module: try {name}=nn.ReLU()")


def check_padding(padding: Any, stride: int) -> None:
    """Refuse any padding but "valid" and, with stride 1, "same"."""
    names = ("valid", "same") if stride == 1 else ("valid",)
    if not isinstance(padding, str) or padding not in names:
        raise ValueError(f"padding={padding!r} must be one of {names}: try padding='valid'")


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
            f"{name}={table!r} must hold whole numbers from 1, nested as in the example: "
            f"try {name}={usual!r}"
        ) from None


def _entries(table, kind):
    if kind is int:
        return check_counts(entry=table)[0]
    if not isinstance(table, tuple | list):
        raise TypeError("an entry is not nested")
    further = len(table) - len(kind) if isinstance(kind, list) else 0
    return [_entries(*both) for both in zip(table, [*kind, *kind[-1:] * further], strict=True)]

"""Checks of what figures take: numbers, class indices, names, and dictionaries from labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cnnlib._checks import shown


def as_array(values: Any) -> np.ndarray:
    """Return a list, an array or a tensor on any device as a NumPy array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        if values.dtype == torch.bfloat16:  # NumPy has no such type
            values = values.float()
    return np.asarray(values)


def check_numbers(name: str, values: Any, ndim: int | None = None) -> np.ndarray:
    """Return finite numbers as an array, or refuse them; if `ndim` is given, also refuse none."""
    try:
        array = as_array(values)
    except (RuntimeError, TypeError, ValueError) as error:  # no rows of one length; no memory
        raise ValueError(f"{name} must be numbers in rows of one length: {error}") from error
    # NumPy before 1.24 makes an array of objects from rows of several lengths.
    if array.ndim == 0 or (array.size and array.dtype.kind not in "biuf"):
        raise ValueError(
            f"{name} of type {type(values).__name__} must be numbers in rows of one length: try a "
            "list, an array or a tensor of them"
        )
    if array.size and not np.isfinite(array).all():
        raise ValueError(
            f"{name} must be finite, but one is {array[~np.isfinite(array)][0]}: try leaving it out"
        )
    if ndim and not array.size:
        raise ValueError(f"{name} is empty: pass at least one number")
    if ndim and array.ndim != ndim:
        wanted = "a list of numbers" if ndim == 1 else "lists of numbers"
        raise ValueError(f"{name} has shape {array.shape}: pass {wanted}")
    return array


def check_index(
    name: str, values: Any, shape: tuple[int, ...], classes: Sequence[str]
) -> np.ndarray:
    """Return class indices of a shape as an array, or refuse what is not one per place."""
    indices = check_numbers(name, values)
    if indices.shape != shape or indices.dtype.kind not in "iu":
        raise ValueError(
            f"{name} of shape {indices.shape} and type {indices.dtype} must be class indices of "
            f"shape {shape}: try scores.argmax(1)"
        )
    if indices.min() < 0 or indices.max() >= len(classes):
        raise ValueError(
            f"{name} has indices from {indices.min()} to {indices.max()} for {len(classes)} "
            "classes: name every class"
        )
    return indices


def check_names(name: str, values: Any, count: int | None = None, of: str = "") -> None:
    """Refuse anything that is not a list of names, and another number of them than the count."""
    is_list = isinstance(values, Sequence | np.ndarray) and getattr(values, "ndim", 1) > 0
    if not is_list or isinstance(values, str | bytes):
        raise ValueError(f"{name}={shown(values)} must be a list of names: try {name}=['a', 'b']")
    if count is not None and len(values) != count:
        raise ValueError(f"{name} has {len(values)} names for {count} {of}: pass one for each")


def check_labelled(name: str, values: Any, least: int = 1) -> None:
    """Refuse anything that is not a dictionary with at least so many entries."""
    if not isinstance(values, Mapping) or len(values) < least:
        raise ValueError(
            f"{name}={shown(values)} must be a dictionary from labels, with {least} or more: try "
            f"{name}={{'mine': ...}}"
        )


def check_text(name: str, value: Any, content: str) -> None:
    """Refuse anything that is not a text, and a blank one."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name}={shown(value)} must not be empty: {content}")

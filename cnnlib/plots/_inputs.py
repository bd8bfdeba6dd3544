"""Checks of what figures take: numbers, and dictionaries from labels to them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

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


def check_figure(figure: Any) -> None:
    """Refuse anything that is not a figure of matplotlib."""
    if not isinstance(figure, Figure):
        raise ValueError(
            f"figure of type {type(figure).__name__} must be a matplotlib Figure: try what a "
            "function of cnnlib.plots returns"
        )

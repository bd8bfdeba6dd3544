"""Checks of counts, seeds, sizes and devices: each refusal says what to type."""

from numbers import Integral
from typing import Any

import torch


def check_count(
    name: str, value: Any, most: int | None = None, *, least: int = 1, usual: int = 128
) -> int:
    """Return a whole number from least to most as an int, or refuse it and suggest the usual."""
    if not _is_whole(value) or value < least or (most is not None and value > most):
        limit = f"from {least}" if most is None else f"from {least} to {most:,}"
        proposal = usual if most is None else min(most, usual)
        raise ValueError(f"{name}={value!r} must be a whole number {limit}: try {name}={proposal}")
    return int(value)


def check_device(device: Any) -> torch.device:
    """Return the device, or for None a GPU if there is one; it must be able to hold data."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        empty = torch.empty(0, device=device)
        empty.cpu()  # which the device "meta" cannot do
        return empty.device
    except (AssertionError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"device={str(device)!r} must be a device of this machine: try device='cpu'"
        ) from error


def check_image_size(size: Any) -> tuple[int, int]:
    """Return a size in pixels, given as one side or as (height, width), as (height, width)."""
    sides = size if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2 or not all(_is_whole(side) and side >= 1 for side in sides):
        raise ValueError(
            f"size={size!r} must be a number of pixels from 1, or (height, width): try size=28"
        )
    return int(sides[0]), int(sides[1])


def check_seed(seed: Any) -> int:
    """Return a seed as an int. Twice the seed plus 1 must also be a valid seed for torch."""
    if not _is_whole(seed):
        raise ValueError(f"seed={seed!r} must be a whole number: try seed=0")
    if not -(2**62) <= seed < 2**63:
        raise ValueError(f"seed={seed!r} must be from -2**62 to 2**63 - 1: try seed=0")
    return int(seed)


def _is_whole(value):
    """Return whether a value is an integer of Python or NumPy, and not a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)

"""Checks of counts, numbers, seeds, sizes, devices and tensors: each refusal says what to type."""

import math
from numbers import Integral, Real
from typing import Any

import torch

MOST_PIXELS = 4096  # of a side
_LARGEST = 1e300  # no number of ours comes near it, and a float holds it


def check_count(
    name: str, value: Any, most: int | None = None, *, least: int = 1, usual: int = 128
) -> int:
    """Return a whole number from least to most as an int, or refuse it and suggest the usual."""
    if not _is_whole(value) or value < least or (most is not None and value > most):
        limit = f"from {least}" if most is None else f"from {least} to {most:,}"
        proposal = usual if most is None else min(most, usual)
        raise ValueError(f"{name}={value!r} must be a whole number {limit}: try {name}={proposal}")
    return int(value)


def check_number(
    name: str, value: Any, *, usual: float, least: float | None = None, below: float = math.inf
) -> float:
    """Return a finite number as a float: above 0, or of at least `least`, and below a limit."""
    is_real = isinstance(value, Real) and not isinstance(value, bool)
    in_range = is_real and -_LARGEST < value < min(below, _LARGEST)
    if not in_range or (value <= 0 if least is None else value < least):
        rule = "above 0" if least is None else f"of at least {least:g}"
        limit = f" and below {below:g}" if below < math.inf else ""
        raise ValueError(
            f"{name}={value!r} must be a finite number {rule}{limit}: try {name}={usual:g}"
        )
    return float(value)


def check_flags(**flags: Any) -> None:
    """Refuse anything but True and False, such as "no", which Python takes for true."""
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise ValueError(f"{name}={flag!r} must be True or False: try {name}=True")


def check_device(device: Any) -> torch.device:
    """Return the device, or for None a GPU if there is one; it must be able to hold data."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if isinstance(device, bool):
            raise TypeError("a bool is no device, though torch takes it as a number")
        empty = torch.empty(0, device=device)
        empty.cpu()  # which the device "meta" cannot do
        return empty.device
    except (AssertionError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"device={str(device)!r} must be a device of this machine: try device='cpu'"
        ) from error


def check_image_size(size: Any) -> tuple[int, int]:
    """Return a size in pixels, given as one side or as (height, width), as (height, width)."""
    sides = size if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2 or not all(_is_whole(side) and 1 <= side <= MOST_PIXELS for side in sides):
        raise ValueError(
            f"size={size!r} must be a number of pixels from 1 to {MOST_PIXELS:,}, or "
            "(height, width): try size=28"
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

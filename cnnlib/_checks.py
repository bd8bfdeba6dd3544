"""Checks of counts, numbers, seeds, sizes, devices and tensors: each refusal says what to type."""

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # arithmetic is pure Python
    import torch

MOST = 2**63 - 1  # of anything: torch counts in 64 bits
MOST_PIXELS = 4096  # of a side
_LARGEST = 1e300  # no number of ours comes near it, and a float holds it


def shown(value: Any) -> str:
    """Return how a refusal shows a value: shortened, or by its type where it has no repr."""
    try:
        text = repr(value)
    except Exception:  # for example, Python writes no int of 5,000 digits
        return f"<{type(value).__name__}>"
    return text if len(text) <= 200 else f"{text[:200]}..."


def is_whole(value: Any) -> bool:
    """Return whether a value is an integer of Python or NumPy, and not a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_count(
    name: str, value: Any, most: int = MOST, *, least: int = 1, usual: int = 128
) -> int:
    """Return a whole number from least to most as an int, or refuse it and suggest the usual."""
    whole = is_whole(value)
    if not whole or not least <= value <= most:
        limit = f" to {most:,}" if most < MOST or (whole and value > most) else ""
        raise ValueError(
            f"{name}={shown(value)} must be a whole number from {least}{limit}: "
            f"try {name}={min(most, usual)}"
        )
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
            f"{name}={shown(value)} must be a finite number {rule}{limit}: try {name}={usual:g}"
        )
    return float(value)


def check_flags(**flags: Any) -> None:
    """Refuse anything but True and False, such as "no", which Python takes for true."""
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise ValueError(f"{name}={shown(flag)} must be True or False: try {name}=True")


def check_device(device: Any) -> "torch.device":
    """Return the device, or for None a GPU if there is one; it must be able to hold data."""
    import torch

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
    if len(sides) != 2 or not all(is_whole(side) and 1 <= side <= MOST_PIXELS for side in sides):
        raise ValueError(
            f"size={shown(size)} must be a number of pixels from 1 to {MOST_PIXELS:,}, or "
            "(height, width): try size=28"
        )
    return int(sides[0]), int(sides[1])


def check_seed(seed: Any) -> int:
    """Return a seed as an int. Twice the seed plus 1 must also be a valid seed for torch."""
    if not is_whole(seed) or not -(2**62) <= seed < 2**63:
        rule = "must be a whole number from -2**62 to 2**63 - 1"
        raise ValueError(f"seed={shown(seed)} {rule}: try seed=0")
    return int(seed)

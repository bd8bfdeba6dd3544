"""Self-checks for the notebooks: they print a line or two and never fail on a wrong answer."""

import textwrap
import traceback
from typing import Any

_LONGEST_VALUE = 80  # characters
_LONGEST_ERROR = 200


def prediction(guess: Any, actual: Any, hint: str = "", tolerance: float = 0) -> None:
    """Print a guess beside the actual value, which stays hidden until there is a guess.

    Args:
        guess: The learner's guess, or None until there is one.
        actual: The actual value.
        hint: What to think about after a wrong guess.
        tolerance: How far a number may be off, in its own units.
    """
    if _is_blank(guess):
        print("No prediction yet: write yours above, run that cell, then this one.")
    elif _same(guess, actual, tolerance):
        print(f"Your prediction is right: {_show(actual)}.")
    else:
        print(f"You predicted {_show(guess)}; it is {_show(actual)}.{_hint(hint)}")


def answer(mine: Any, expected: Any, hint: str = "", tolerance: float = 0) -> None:
    """Print whether an exercise is solved, without giving the solution away.

    Args:
        mine: The learner's answer, or None or ... until there is one.
        expected: The right answer. Where it is a float, mine may differ by a millionth of it.
        hint: What to think about after a wrong answer.
        tolerance: How far a number may be off, in its own units.
    """
    if _is_blank(mine):
        print("Not answered yet.")
    elif _same(mine, expected, tolerance):
        print("Correct.")
    else:
        print(f"Not yet: you have {_show(mine)} ({type(mine).__name__}).{_hint(hint)}")


def cases(function: Any, expected: list[tuple[tuple, Any]], hint: str = "") -> None:
    """Print whether a learner's function gives the right results, or the first one it gets wrong.

    Args:
        function: The learner's function, or None until there is one.
        expected: A list of (args, result), where args is a tuple.
        hint: What to think about when a case goes wrong.

    Raises:
        ValueError: `expected` holds no case.
    """
    if not expected:
        raise ValueError("expected=[] must hold a case: try [((2, 3), 5)], as for a sum")
    results = [None if _is_blank(function) else _result_of(function, args) for args, _ in expected]
    if all(map(_is_blank, results)):
        print("Not answered yet.")
        return
    name = getattr(function, "__name__", type(function).__name__)
    for (args, right), result in zip(expected, results, strict=True):
        call = f"{name}({', '.join(_show(value) for value in args)})"
        if isinstance(result, Exception):
            error = textwrap.shorten(
                "".join(traceback.format_exception_only(result)), _LONGEST_ERROR
            )
            print(f"Not yet: {call} stops with {error}{_hint(hint)}")
            return
        if not _same(result, right):
            print(f"Not yet: {call} gives {_show(result)}, expected {_show(right)}.{_hint(hint)}")
            return
    print(f"Correct: all {len(expected)} cases.")


def _result_of(function, args):
    try:
        return function(*args)
    except Exception as error:
        return error


def _is_blank(value):
    return value is None or value is Ellipsis or value is NotImplemented


def _same(mine, right, tolerance=0):
    mine, right = _plain(mine), _plain(right)
    if _is_number(mine) and _is_number(right):
        # A count must be exact; a float may come from single precision.
        slack = max(tolerance, 1e-6 * abs(right)) if isinstance(right, float) else tolerance
        return right - slack <= mine <= right + slack
    if isinstance(mine, (tuple, list)) and isinstance(right, (tuple, list)):
        return len(mine) == len(right) and all(
            _same(*pair, tolerance) for pair in zip(mine, right, strict=True)
        )
    try:
        return type(mine) is type(right) and bool(mine == right)
    except Exception:  # for example, a dict that holds a tensor of several values
        return False


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(value):
    """Convert a tensor, an array or a NumPy number to Python lists and numbers."""
    try:
        return value.tolist()
    except Exception:  # most values have no such method, and a meta tensor has no data
        return value


def _show(value):
    """Write a value in one short line that is the same on every machine."""
    text = _write(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _write(value):
    value = _plain(value)
    if isinstance(value, tuple):
        items = ", ".join(_write(item) for item in value)
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, list):
        return f"[{', '.join(_write(item) for item in value)}]"
    if isinstance(value, float):
        return repr(round(value, 6))
    if value is None or isinstance(value, (bool, int, str)):
        return repr(value)
    # A repr may contain an address.
    return getattr(value, "__name__", f"<{type(value).__name__}>")


def _hint(hint):
    return f"\nHint: {hint}" if hint else ""

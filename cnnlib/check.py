"""Self-checks for the notebooks: they print a line or two and never fail on a wrong answer.

Nothing is kept unless you call `keep` once. Then `progress` shows what is done in all notebooks.
"""

import contextlib
import copy
import io
import linecache
import math
import sys
import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from cnnlib import _diary
from cnnlib._checks import check_number

_LONGEST_VALUE = 80  # characters
_MOST_VALUES = 1_000_000  # of a tensor that is converted to numbers
_LONGEST_ERROR = 200
_LONGEST_NUMBER = 4000  # digits; Python writes few more


def prediction(guess: Any, actual: Any, hint: str = "", tolerance: float = 0) -> None:
    """Print a guess beside the actual value, which stays hidden until there is a guess.

    Args:
        guess: The learner's guess, or None until there is one.
        actual: The actual value.
        hint: What to think about after a wrong guess.
        tolerance: How far a number may be off, in its own units.

    Raises:
        ValueError: The hint is not a text, or the tolerance not a number from 0.
    """
    _check_question(hint, tolerance)
    if _is_blank(guess):
        print("No prediction yet: write yours above, run that cell, then this one.")
        return
    if (wrote := _kind(guess)) != (asked := _kind(actual)):
        print(f"You wrote {wrote}, and the answer is {asked}: write one above, and run both cells.")
        return
    if right := _same(guess, actual, tolerance):
        print(f"Your prediction is right: {_show(actual)}.")
    else:
        print(f"You predicted {_show(guess)}; it is {_show(actual)}.{_hint(hint)}")
    _note(sys._getframe(1), _show(guess), right)


def answer(mine: Any, expected: Any, hint: str = "", tolerance: float = 0) -> None:
    """Print whether an exercise is solved, without giving the solution away.

    Args:
        mine: The learner's answer, or None or ... until there is one.
        expected: The right answer. Where it is a float, mine may differ by a millionth of it.
        hint: What to think about after a wrong answer.
        tolerance: How far a number may be off, in its own units.

    Raises:
        ValueError: The hint is not a text, or the tolerance not a number from 0.
    """
    _check_question(hint, tolerance)
    if _is_blank(mine):
        print("Not answered yet.")
        return
    if right := _same(mine, expected, tolerance):
        print("Correct.")
    else:
        print(f"Not yet: you have {_show(mine)} ({type(mine).__name__}).{_hint(hint)}")
    _note(sys._getframe(1), _show(mine), right)


def cases(function: Any, expected: list[tuple[tuple, Any]], hint: str = "") -> None:
    """Print whether a learner's function gives the right results, or the first one it gets wrong.

    Args:
        function: The learner's function, or None until there is one.
        expected: A list of (args, result), where args is a tuple.
        hint: What to think about when a case goes wrong.

    Raises:
        ValueError: `expected` is not a list of cases, or it is empty, or the hint is not a text.
    """
    _check_question(hint)
    if not _is_list(expected) or not expected or not all(map(_is_case, expected)):
        raise ValueError(
            f"expected={_show(expected)} must hold a case or more, each a tuple of arguments and a "
            "result: try [((2, 3), 5)], as for a sum"
        )
    if not _is_blank(function) and not callable(function):
        print(f"Not yet: what you wrote is {_kind(function)}, and must be a function or a class.")
        return
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        results = [
            None if _is_blank(function) else _result_of(function, args) for args, _ in expected
        ]
    print(printed.getvalue(), end="")
    if not all(map(_is_blank, results)):
        verdict = _verdict(function, expected, results, hint)
        print(verdict)
        _note(sys._getframe(1), _name(function, "your function"), verdict.startswith("Correct"))
    elif printed.getvalue():
        print("Not yet: your function prints, but returns None. Write return in place of print.")
    else:
        print("Not answered yet.")


def keep() -> None:
    """Keep from now on what you predict and answer, in every notebook of this folder.

    The file `my_progress.json` beside the notebooks holds it. Nothing is sent anywhere. Delete the
    file, and nothing is kept any longer.

    Raises:
        ValueError: This is not a notebook that Jupyter or VS Code has named, or its folder cannot
            be written.
    """
    print(f"What you predict and answer is kept in {_diary.begin(sys._getframe(1))}.")


def progress(folder: str | Path | None = None) -> None:
    """Print for each notebook which predictions are made and which exercises are solved.

    Args:
        folder: The folder of the notebooks; None: that of the notebook that calls this.

    Raises:
        ValueError: Nothing has been kept, or the file is broken.
    """
    print(_diary.summary(folder))


def _note(frame: FrameType, said: str, right: bool) -> None:
    """Keep a guess or an answer, if the learner wants that; a fault is told and stops nothing."""
    try:
        _diary.note(frame, said, right)
    except (OSError, ValueError) as error:
        print(f"This was not kept: {error}")


def _check_question(hint, tolerance=0):
    """Refuse what the author of a question got wrong; a learner's answer is never refused."""
    if not isinstance(hint, str):
        raise ValueError(f"hint={_show(hint)} must be a text: try hint='Count the padding.'")
    check_number("tolerance", tolerance, usual=0, least=0)


def _is_list(value):
    return isinstance(value, (tuple, list))


def _is_case(value):
    return _is_list(value) and len(value) == 2 and _is_list(value[0])


def _verdict(function, expected, results, hint):
    """Return the sentence about a learner's function, from its result in each case."""
    name = _name(function, type(function).__name__)
    for (args, right), result in zip(expected, results, strict=True):
        call = f"{name}({', '.join(_show(value) for value in args)})"
        if isinstance(result, Exception | SystemExit):
            error = textwrap.shorten(
                "".join(traceback.format_exception_only(result)), _LONGEST_ERROR
            )
            return f"Not yet: {call} stops with {error}{_hint(hint)}"
        if not _same(result, right):
            return f"Not yet: {call} gives {_show(result)}, expected {_show(right)}.{_hint(hint)}"
    return f"Correct: all {len(expected)} cases." if len(expected) > 1 else "Correct."


def _result_of(function, args):
    with contextlib.suppress(Exception):  # such as a generator, which cannot be copied
        args = copy.deepcopy(args)  # the function may change what it is given
    try:
        return function(*args)
    except (Exception, SystemExit) as error:
        return error


def _is_blank(value):
    return value is None or value is Ellipsis or value is NotImplemented


def _same(mine, right, tolerance=0):
    mine, right = _plain(mine), _plain(right)
    try:
        if _is_number(mine) and _is_number(right):
            # A count must be exact; a float may come from single precision.
            slack = max(tolerance, 1e-6 * abs(right)) if isinstance(right, float) else tolerance
            return right - slack <= mine <= right + slack
        if _is_list(mine) and _is_list(right):
            return len(mine) == len(right) and all(
                _same(*pair, tolerance) for pair in zip(mine, right, strict=True)
            )
        return type(mine) is type(right) and bool(mine == right)
    except Exception:  # a dict that holds a tensor of several values, a list that holds itself
        return False


def _kind(value):
    """Return in words what kind of value this is."""
    value = _plain(value)
    if isinstance(value, bool):
        return "True or False"
    if _is_list(value):
        return "a list or tuple"
    if isinstance(value, str):
        return "a text"
    return "a number" if _is_number(value) else f"a value of type {type(value).__name__}"


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(value):
    """Convert a tensor, an array or a NumPy number to lists and numbers, unless it is huge."""
    try:
        return value.tolist() if math.prod(getattr(value, "shape", ())) <= _MOST_VALUES else value
    except Exception:  # most values have no such method, and a meta tensor has no data
        return value


def _show(value: Any) -> str:
    """Write a value in one short line that is the same on every machine."""
    text = ""
    try:
        for piece in _pieces(value):
            text += piece
            if len(text) > _LONGEST_VALUE:  # a list may be endless, or hold itself
                return text[: _LONGEST_VALUE - 3] + "..."
    except Exception:  # for example, of a list with an __iter__ of the learner
        return f"<{type(value).__name__}>"
    return text


def _pieces(value: Any) -> Iterator[str]:
    value = _plain(value)
    if _is_list(value):
        before, after = "()" if isinstance(value, tuple) else "[]"
        yield before
        for i, item in enumerate(value):
            yield ", " if i else ""
            yield from _pieces(item)
        yield "," + after if isinstance(value, tuple) and len(value) == 1 else after
    elif isinstance(value, int) and abs(value) > 10**_LONGEST_NUMBER:
        yield f"a number of about {math.log10(abs(value)):,.0f} digits"
    elif isinstance(value, float):
        yield repr(round(value, 6))
    elif value is None or isinstance(value, (int, str)):
        yield repr(value)
    else:  # a repr may contain an address
        yield _name(value, f"<{type(value).__name__}>")


def _name(value: Any, otherwise: str) -> str:
    """Return the name of a function or a class; of anything else, the other text."""
    try:
        return str(value.__name__)
    except Exception:  # most values have no such name, and a learner's may raise
        return otherwise


def _hint(hint):
    return f"\nHint: {hint}" if hint else ""


def _tell_what_is_missing(shell, kind, error, trace, tb_offset=None):
    """Answer a name that is missing where a cell calls a check; else show the error as usual."""
    frame = traceback.extract_tb(trace)[-1]
    cell = "".join(linecache.getlines(frame.filename))
    if frame.name == "<module>" and "check." in cell:
        print(f"Not yet: {error}. Write it under this name, run that cell, then this one.")
    else:
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)


if "IPython" in sys.modules and (notebook := sys.modules["IPython"].get_ipython()):
    notebook.set_custom_exc((NameError,), _tell_what_is_missing)

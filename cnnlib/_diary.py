"""What a learner predicted and answered, in one JSON file beside the notebooks, if wanted."""

import ast
import json
import linecache
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

from cnnlib import _atomic

_FILE = "my_progress.json"
_KINDS = ("prediction", "answer", "cases")
_RIGHT, _WRONG, _OPEN = "■▣□"


def begin(frame: FrameType) -> Path:
    """Begin the file, unless it is there already, and return its path."""
    path = _folder() / _FILE
    if _notebook(frame) is None:
        raise ValueError("keep() must be called in a notebook: try it in JupyterLab or VS Code")
    if path.exists():
        _read(path)
        return path
    try:
        _write(path, {})
    except OSError as error:
        raise ValueError(
            f"{path} must be a file that can be written, but {error.strerror}: try a copy of the "
            "notebooks in a folder of yours"
        ) from error
    return path


def note(frame: FrameType, said: str, right: bool) -> None:
    """Keep what was said to the question that a notebook's cell asks, if there is a file."""
    path, notebook = _folder() / _FILE, _notebook(frame)
    if notebook is None or not path.exists():
        return
    source = "".join(linecache.getlines(frame.f_code.co_filename))
    for _, question, call in _questions(source):
        if call.lineno <= frame.f_lineno <= (call.end_lineno or call.lineno):
            kept = _read(path)
            kept.setdefault(notebook, {})[question] = {"said": said, "right": right}
            _write(path, kept)


def summary(folder: str | Path | None) -> str:
    """Return a line for each notebook with questions, which holds a mark for each question."""
    if not isinstance(folder, str | Path | None):
        raise ValueError(
            f"folder of type {type(folder).__name__} must be the path of a folder: try progress()"
        )
    folder = _folder() if folder is None else Path(folder)
    path = folder / _FILE
    if not path.exists():
        raise ValueError(f"{path} must be there: try check.keep(), then answer a question")
    kept = _read(path)
    rows: list[tuple[str, ...]] = [("notebook", "predictions", "exercises")]
    for file in sorted(folder.rglob("*.ipynb"), key=lambda file: (file.parent != folder, file)):
        if ".ipynb_checkpoints" not in file.parts and file.is_file():
            states = _states(file, kept.get(file.stem, {}))
            rows += [(file.stem, *map(_marks, states))] if any(states) else []
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    lines = ["".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, "", f"{_RIGHT} right   {_WRONG} not right yet   {_OPEN} open"])


def _states(file: Path, kept: dict[str, dict]) -> tuple[list[str], list[str]]:
    """Return a mark for each prediction and for each exercise of a notebook."""
    try:
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} must be a notebook: try to copy it anew") from error
    predictions: list[str] = []
    exercises: list[str] = []
    for source in sources:
        for kind, question, _ in _questions(source):
            answered = kept.get(question)
            mark = _OPEN if answered is None else _RIGHT if answered["right"] else _WRONG
            (predictions if kind == "prediction" else exercises).append(mark)
    return predictions, exercises


def _marks(states: list[str]) -> str:
    done = len(states) - states.count(_OPEN)
    return f"{''.join(states)} {done} of {len(states)}" if states else ""


def _questions(source: str) -> Iterator[tuple[str, str, ast.Call]]:
    """Yield the kind, the text and the call of each check in a cell."""
    with suppress(SyntaxError):  # a learner may leave a cell unfinished
        for node in ast.walk(ast.parse(re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE))):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name("check"), attr=kind), args=[_, *_]):
                    if kind in _KINDS:
                        yield kind, ", ".join(map(ast.unparse, node.args[:2])), node


def _notebook(frame: FrameType) -> str | None:
    """Return the name of the notebook that runs a frame, where Jupyter or VS Code tells it."""
    path = os.environ.get("JPY_SESSION_NAME") or frame.f_globals.get("__vsc_ipynb_file__")
    return Path(path).stem if path else None


def _folder() -> Path:
    """Return the folder of the lectures; `deeper`, which lies in it, shares its file."""
    here = Path.cwd()
    return here.parent if here.name == "deeper" else here


def _read(path: Path) -> dict[str, dict[str, dict]]:
    """Read the file: by notebook and by question, what was said and whether it was right."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8") if path.is_file() else "")
        answers = [answer for notebook in kept.values() for answer in notebook.values()]
        whole = all(isinstance(answer["right"], bool) for answer in answers)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is damaged: try to mend it, or delete it and begin anew")
    return kept


def _write(path: Path, kept: dict[str, dict[str, dict]]) -> None:
    _atomic.write(path, (json.dumps(kept, indent=1, ensure_ascii=False) + "\n").encode())

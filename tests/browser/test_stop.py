"""Stop, pressed in the middle of every training of a lecture."""

import ast
import re

import nbformat
import pytest
from test_notebooks import CHOSEN

import notebooks

pytestmark = pytest.mark.browser

# The first cell: a training says that it has begun, even where the notebook shows nothing of it,
# and is slow enough for a hand.
SLOWED = """\
def slow_down():
    import sys
    import time
    from itertools import count

    from cnnlib.train import EpochMetrics

    add, numbers, page = EpochMetrics.add, count(1), sys.stdout

    def add_slowly(metrics, *batch, **rate):
        if metrics.epoch == 1 and not metrics.labels:
            print(f"training {next(numbers)} has begun", file=page, flush=True)
        add(metrics, *batch, **rate)
        time.sleep(0.5)

    EpochMetrics.add = add_slowly


slow_down()"""
END = "Every cell has run."


def called(tree):
    """Return the names of the functions and methods that are called in a syntax tree."""
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {getattr(function, "attr", getattr(function, "id", None)) for function in functions}


def trains(path):
    """Return whether a notebook trains live: a statement that defines nothing calls what trains."""
    training = {"fit", "run", "add"}  # of cnnlib, and then what the notebook builds on them
    for cell in notebooks.code_cells(path):
        for statement in ast.parse(cell.source).body:
            if not called(statement) & training:
                continue
            if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
                return True
            training.add(statement.name)
    return False


@pytest.mark.parametrize(
    "path", [path for path in CHOSEN if trains(path)], ids=lambda path: path.stem
)
def test_whatever_is_stopped_the_rest_of_a_notebook_runs(lab, course, path):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(SLOWED))
    notebook.cells.append(nbformat.v4.new_code_cell(f"print({END!r})"))
    copy = path.relative_to(notebooks.ROOT).with_stem(f"{path.stem}_stopped")
    nbformat.write(notebook, course / copy)
    lab.open(copy)
    lab.run_all()
    for stops in range(100):
        begun = f"training {stops + 1} has begun"
        news = lab.outputs.filter(has_text=re.compile(f"{begun}|{END}|Traceback"))
        news.first.wait_for(state="attached")
        if not news.filter(has_text=begun).count():
            break
        lab.stop()
    lab.wait()
    assert lab.failures() == []
    texts = "\n".join(lab.outputs.all_inner_texts())
    assert END in texts
    assert len(re.findall("stopped", texts, re.IGNORECASE)) >= stops > 0
    lab.close()

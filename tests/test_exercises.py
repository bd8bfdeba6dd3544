"""The solved twin of each notebook: folded solutions pass the checks that follow them."""

import ast

import pytest

import notebooks

EXERCISES = [
    (path, i)
    for path in notebooks.PATHS
    for i, cell in enumerate(notebooks.read(path))
    if "exercise" in notebooks.tags(cell)
]


def toolbox(path):
    """Run a notebook's imports and definitions: all that an exercise may build on."""
    namespace = {}
    kinds = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)
    for cell in notebooks.code_cells(path):
        if "exercise" not in notebooks.tags(cell):
            tree = ast.parse(cell.source)
            tree.body = [node for node in tree.body if isinstance(node, kinds)]
            exec(compile(tree, path.name, "exec"), namespace)
    return namespace


@pytest.mark.parametrize(("path", "i"), EXERCISES, ids=lambda value: getattr(value, "stem", value))
def test_solution_passes_its_check(path, i, capsys):
    cells = notebooks.read(path)
    stub, check, solved = cells[i], cells[i + 1], cells[i + 2]
    namespace = toolbox(path)
    exec(stub.source, namespace)
    exec(check.source, namespace)
    assert "Not answered yet" in capsys.readouterr().out
    exec(notebooks.solution(solved), namespace)
    exec(check.source, namespace)
    printed = capsys.readouterr().out
    assert "Correct" in printed
    assert "Not" not in printed


@pytest.mark.parametrize("path", notebooks.PATHS, ids=lambda path: path.stem)
def test_has_exercises(path):
    assert len([1 for exercise, _ in EXERCISES if exercise == path]) >= 2

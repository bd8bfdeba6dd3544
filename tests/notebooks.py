"""The course's notebooks as the tests see them."""

import ast
import re
from pathlib import Path

import nbformat

from tools import refresh_notebooks

ROOT = Path(__file__).parent.parent
PATHS = refresh_notebooks.all_notebooks()


def read(path):
    """Return the cells of a notebook."""
    return nbformat.read(path, as_version=4).cells


def code_cells(path):
    """Return the code cells of a notebook."""
    return [cell for cell in read(path) if cell.cell_type == "code"]


def tags(cell):
    """Return the tags of a cell as a set."""
    return set(cell.metadata.get("tags", []))


def solution(cell):
    """Return the Python code inside the folded solution of a Markdown cell, or nothing."""
    if "<details>" not in cell.source or "```python\n" not in cell.source:
        return None
    return cell.source.split("```python\n")[1].split("```")[0]


def sources(path):
    """Return the Python code of a notebook's cells and folded solutions, magics left out."""
    cells = [
        cell.source if cell.cell_type == "code" else solution(cell) or "" for cell in read(path)
    ]
    return [re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE) for source in cells]


def without_docstrings(tree):
    """Remove the docstrings of a syntax tree, in place, and return it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree

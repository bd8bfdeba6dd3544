"""The grammar of a docstring: one summary line, sections in one order, entries in one style."""

import ast
import re

import pytest

import notebooks

SECTIONS = ["Shape", "Args", "Returns", "Yields", "Raises", "Source", "Departures"]
HEADING = re.compile(rf"^({'|'.join(SECTIONS)}|Shape and Args):$", re.M)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)

PATHS = sorted((notebooks.ROOT / "cnnlib").rglob("*.py"))
pytestmark = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def docstrings(path):
    """Return the docstrings of a file."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [
        text for node in nodes if isinstance(node, DOCUMENTED) if (text := ast.get_docstring(node))
    ]


def sections(docstring):
    """Return the sections of a docstring: pairs of a heading and what stands below it."""
    _, *parts = HEADING.split(docstring)
    return list(zip(parts[::2], parts[1::2], strict=True))


def entries(body):
    """Return the entries of a section, such as "size: Input pixels.", each in one line."""
    return [" ".join(entry.split()) for entry in re.split(r"\n {4}(?=\S)", body)[1:]]


def test_begins_with_one_sentence(path):
    bad = [text for text in docstrings(path) if not re.match(r"[^a-z\n].*\.(\n\n|\Z)", text)]
    assert bad == []


def test_sections_stand_in_order_and_have_known_names(path):
    for text in docstrings(path):
        names = [name for name, _ in sections(text) if name in SECTIONS]
        assert names == sorted(names, key=SECTIONS.index), text
        assert not re.search(r"^(Attributes|Arguments|Parameters|Note|Example)s?:$", text, re.M)


def test_entries_are_sentences(path):
    found = [
        entry
        for text in docstrings(path)
        for name, body in sections(text)
        if name in {"Args", "Raises"}
        for entry in entries(body)
    ]
    assert [entry for entry in found if not re.match(r'\w+: [^a-z].*\."?$', entry)] == []


def test_says_return_whether(path):
    text = "\n".join(docstrings(path))
    assert not re.search(r"\b(Tell|Say) whether\b|\bspread\b|\btrainings\b", text)


def test_a_block_says_what_it_refuses(path):
    if path.parent.name == "blocks":
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = [node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
        public = [node for node in named if not node.name.startswith(("_", "check_"))]
        checked = [node for node in public if "check_" in ast.unparse(node)]
        assert [n.name for n in checked if "Raises:" not in ast.get_docstring(n)] == []


def test_public_names_have_docstrings(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    public = [node for node in classes if not node.name.startswith("_")]
    owned = [node for owner in [tree, *public] for node in owner.body]
    named = [node for node in owned if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    names = [n.name for n in named if not n.name.startswith("_") and not ast.get_docstring(n)]
    assert [name for name in names if name != "forward"] == []  # its class says what it does

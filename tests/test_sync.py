"""What stands twice must be the same: block cells and package, import arrows and plan."""

import ast

import pytest

import notebooks

PACKAGE = notebooks.ROOT / "cnnlib"

# Which part of the package may import which: the arrows point one way.
ARROWS = {
    "_receptive_field": set(),
    "arithmetic": set(),
    "backend": set(),
    "blocks": set(),
    "check": set(),
    "plots": set(),
    "recipes": set(),
    "trace": {"_receptive_field"},
    "models": {"blocks"},
    "weights": set(),
    "data": {"plots"},
    "progress": {"plots"},
    "preflight": {"trace"},
    "train": {"backend", "plots", "preflight", "progress"},
    "explore": {"arithmetic", "plots"},
    "measure": {"backend", "data", "models", "recipes", "trace", "train"},
    "__main__": {"backend", "data", "measure", "models", "recipes", "trace", "train"},
}


def part(path):
    """Return the part of the package that a file belongs to: its module or its folder."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_parts(tree):
    """Return the parts of the package that a module imports."""
    parts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        parts |= {name.split(".")[1] for name in names if name.startswith("cnnlib.")}
    return parts


def test_imports_point_one_way():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = part(path)
        parts = imported_parts(ast.parse(path.read_text(encoding="utf-8"))) - {name, "__init__"}
        found.setdefault(name, set()).update(parts)
    found.pop("__init__")
    assert found == ARROWS


def definitions(tree):
    """Return the classes and functions at the top of a module or cell, by name."""
    kinds = (ast.ClassDef, ast.FunctionDef)
    return {node.name: node for node in tree.body if isinstance(node, kinds)}


def dump(node):
    return ast.dump(notebooks.without_docstrings(node))


BLOCKS = {
    name: node
    for path in sorted((PACKAGE / "blocks").glob("*.py"))
    for name, node in definitions(ast.parse(path.read_text())).items()
}
TAUGHT = [
    (path.stem, name, node)
    for path in notebooks.PATHS
    for cell in notebooks.code_cells(path)
    if not cell.source.startswith("%")
    for name, node in definitions(ast.parse(cell.source)).items()
    if name in BLOCKS
]


@pytest.mark.parametrize(("notebook", "name", "node"), TAUGHT, ids=lambda value: str(value)[:24])
def test_block_cell_equals_the_package(notebook, name, node):
    assert dump(node) == dump(BLOCKS[name])


def test_each_block_is_taught_once():
    taught = [name for _, name, _ in TAUGHT]
    classes = {name for name, node in BLOCKS.items() if isinstance(node, ast.ClassDef)}
    assert classes <= set(taught)
    assert len(taught) == len(set(taught))


@pytest.mark.parametrize("name", [name for name in BLOCKS if name[0].isupper()])
def test_a_block_is_small(name):
    node = BLOCKS[name]
    lines = ast.unparse(notebooks.without_docstrings(node)).splitlines()
    arguments = definitions(node)["__init__"].args.args
    assert len(lines) <= 25
    assert len(arguments) - 1 <= 5

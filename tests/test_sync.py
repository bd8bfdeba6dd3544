"""What stands twice must be the same: block cells and package, import arrows and plan."""

import ast

import pytest

import notebooks

PACKAGE = notebooks.ROOT / "cnnlib"

# Which part of the package may import which: the arrows point one way.
ARROWS = {
    "arithmetic": set(),
    "blocks": set(),
    "check": set(),
    "engine": set(),
    "fields": set(),
    "plots": {"arithmetic"},
    "trace": {"arithmetic", "fields"},
    "widgets": {"arithmetic", "plots", "trace"},
    "models": {"blocks"},
    "weights": {"models"},
    "data": {"plots"},
    "live": {"plots"},
    "preflight": {"engine", "trace"},
    "train": {"engine", "live", "plots", "preflight"},
    "recipes": set(),
    "bench": {"data", "engine", "models", "recipes", "trace", "train"},
    "leaderboard": {"bench", "data", "models", "recipes", "trace", "train"},
    "ablation": {"bench", "data", "train"},
    "__main__": {
        "ablation",
        "bench",
        "data",
        "engine",
        "leaderboard",
        "models",
        "recipes",
        "trace",
        "train",
    },
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


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_imports_point_one_way(path):
    name = part(path)
    found = imported_parts(ast.parse(path.read_text())) - {name}
    assert found <= ARROWS.get(name, set())


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

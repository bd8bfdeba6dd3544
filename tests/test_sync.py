"""The house keeps to its plan: arrows of imports, size of the core, and one body for each name."""

import ast
from collections import defaultdict

import pytest

import notebooks

PACKAGE = notebooks.ROOT / "cnnlib"

# All else is the core, which imports none of them.
EXTRAS = {"check", "_diary", "explore", "measure", "__main__"}
GROWING = {"blocks", "models"}  # one more figure or table of a paper is always welcome
CORE_LINES = 5_200  # lines of the core without them that are not blank, docstrings included

# Which part of the package may import which: the arrows point one way.
ARROWS = {
    "_atomic": set(),
    "_checks": set(),
    "_receptive_field": set(),
    "arithmetic": {"_checks"},
    "_cuda_graph": set(),
    "_checkpoint": {"_atomic", "backend"},
    "backend": {"_checks", "_cuda_graph"},
    "blocks": {"_checks", "arithmetic"},
    "_diary": {"_atomic"},
    "check": {"_checks", "_diary"},
    "plots": {"_checks", "trace"},
    "trace": {"_checks", "_receptive_field"},
    "models": {"_checks", "blocks"},
    "weights": {"_checks"},
    "data": {"_atomic", "_checks", "plots"},
    "progress": {"plots"},
    "preflight": {"_checkpoint", "_checks", "backend", "trace"},
    "train": {"_checkpoint", "_checks", "backend", "data", "plots", "preflight", "progress"},
    "explore": {"_checks", "arithmetic", "plots"},
    "measure": {
        "_atomic",
        "_checks",
        "backend",
        "data",
        "models",
        "plots",
        "preflight",
        "trace",
        "train",
    },
    "__main__": {"backend", "data", "measure", "models", "trace", "train"},
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


def test_the_core_imports_no_extra():
    assert not [name for name in ARROWS.keys() - EXTRAS if ARROWS[name] & EXTRAS]


def test_the_core_stays_small():
    core = [path for path in PACKAGE.rglob("*.py") if part(path) not in EXTRAS | GROWING]
    lines = [line for path in core for line in path.read_text(encoding="utf-8").splitlines()]
    assert len([line for line in lines if line.strip()]) <= CORE_LINES


def definitions(tree):
    """Return the classes and functions at the top of a module or cell, by name."""
    kinds = (ast.ClassDef, ast.FunctionDef)
    return {node.name: node for node in tree.body if isinstance(node, kinds)}


class _WithoutChecks(ast.NodeTransformer):
    """Removes checks of arguments: check_counts(width=width), or width, radix = check_counts(...).

    The second form makes Python's integers of NumPy's, which may wrap around in a product.
    """

    def visit_Expr(self, node):
        return None if _is_check(node.value) else node

    def visit_Assign(self, node):
        if not _is_check(node.value):
            return node
        returned = [x.id for x in ast.walk(node.targets[0]) if isinstance(x, ast.Name)]
        checked = [(keyword.arg, ast.unparse(keyword.value)) for keyword in node.value.keywords]
        return None if checked == [(name, name) for name in returned] else node


def _is_check(value):
    """Return whether an expression is the call of a check."""
    return getattr(getattr(value, "func", None), "id", "").startswith("check_")


def dump(node):
    """Return a syntax tree as text, without its docstrings and checks: a figure has neither."""
    return ast.dump(_WithoutChecks().visit(notebooks.without_docstrings(node)))


IN_PACKAGE = [
    (path, name, node)
    for path in sorted(PACKAGE.rglob("*.py"))
    for name, node in definitions(ast.parse(path.read_text(encoding="utf-8"))).items()
]
BLOCKS = {name: node for path, name, node in IN_PACKAGE if part(path) == "blocks"}
BODIES = defaultdict(list)  # of one name in several modules
for _, name, node in IN_PACKAGE:
    BODIES[name].append(dump(node))
COPIES = [
    (path.stem, name, node)
    for path in notebooks.PATHS
    for source in notebooks.sources(path)
    for name, node in definitions(ast.parse(source)).items()
    if name in BODIES
]


@pytest.mark.parametrize(("notebook", "name", "node"), COPIES, ids=lambda value: str(value)[:24])
def test_a_name_of_the_package_has_the_body_of_the_package(notebook, name, node):
    assert dump(node) in BODIES[name]


def test_only_blocks_are_copied_and_each_is_taught_once():
    taught = [name for _, name, _ in COPIES]
    classes = {name for name, node in BLOCKS.items() if isinstance(node, ast.ClassDef)}
    assert classes <= set(taught)
    assert set(taught) <= set(BLOCKS)
    assert len(taught) == len(set(taught))


def unhinted(function):
    """Return the arguments of a function that carry no type hint, and "return" if that has none."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    names = [argument.arg for argument in every if argument.annotation is None]
    return names + ["return"] * (function.returns is None)


def test_public_functions_carry_type_hints():
    missing = {
        f"{path.stem}.{name}": unhinted(node)
        for path, name, node in IN_PACKAGE
        if part(path) not in {"blocks", "models"} and not part(path).startswith("_")
        if not name.startswith("_") and isinstance(node, ast.FunctionDef) and unhinted(node)
    }
    assert missing == {}


@pytest.mark.parametrize("name", [name for name in BLOCKS if name[0].isupper()])
def test_a_block_is_small(name):
    node = BLOCKS[name]
    lines = ast.unparse(notebooks.without_docstrings(node)).splitlines()
    arguments = definitions(node)["__init__"].args.args
    assert len(lines) <= 25
    assert len(arguments) - 1 <= 5

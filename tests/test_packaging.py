"""What plain pip installs is what the notebooks and the package import: no less and no more."""

import ast
import re
import sys
import tomllib

import pytest

import notebooks

PYPROJECT = tomllib.loads((notebooks.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, GROUPS = PYPROJECT["project"], PYPROJECT["dependency-groups"]
ENVIRONMENT = (notebooks.ROOT / "environment.yml").read_text(encoding="utf-8")

IMPORT_NAMES = {"ipython": "IPython"}  # of packages that are imported under another name
OPENS_THE_NOTEBOOKS = {"jupyterlab"}  # and is imported by none
D2L = "d2l==1.0.3"

NOTEBOOKS = sorted(
    path
    for path in (notebooks.ROOT / "notebooks").rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)
MODULES = sorted((notebooks.ROOT / "cnnlib").rglob("*.py"))


def names(requirements):
    """Return the names under which required packages are imported."""
    found = {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}
    return {IMPORT_NAMES.get(name, name) for name in found}


INSTALLED = names(PROJECT["dependencies"])


def imports(source):
    """Return the packages that Python code imports beyond the standard library and cnnlib."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return {name.split(".")[0] for name in found} - sys.stdlib_module_names - {"cnnlib"}


def imports_of(path):
    """Return what a module or a notebook imports, folded solutions included."""
    if path.suffix == ".py":
        return imports(path.read_text(encoding="utf-8"))
    found = set()
    for cell in notebooks.read(path):
        source = cell.source if cell.cell_type == "code" else notebooks.solution(cell) or ""
        found |= imports(re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE))
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_what_is_installed(path):
    assert imports_of(path) <= INSTALLED


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_what_is_installed_and_the_bench_d2l(path):
    allowed = {"d2l"} if path.name == "bench.py" else set()
    assert imports_of(path) <= INSTALLED | allowed


def test_nothing_is_installed_in_vain():
    used = set().union(*(imports_of(path) for path in NOTEBOOKS + MODULES))
    assert used >= INSTALLED - OPENS_THE_NOTEBOOKS


def test_imports_are_found_wherever_they_stand():
    source = "import a.b, os\nfrom c.d import e\ndef f():\n    import g\nfrom cnnlib import trace"
    assert imports(source) == {"a", "c", "g"}


def test_d2l_is_an_extra_and_there_for_development():
    assert "d2l" not in INSTALLED
    assert PROJECT["optional-dependencies"] == {"bench": [D2L]}
    assert D2L in GROUPS["dev"]
    assert f"- {D2L}\n" in ENVIRONMENT


@pytest.mark.parametrize("requirement", PROJECT["dependencies"])
def test_each_range_has_a_lower_end_and_no_upper_one(requirement):
    assert re.fullmatch(r"[\w.-]+>=[\d.]+(; python_version >= '3\.\d+')?", requirement)


def test_both_ways_to_install_ask_for_the_same_torch():
    for name in ("torch", "torchvision"):
        (range_,) = [r for r in PROJECT["dependencies"] if re.match(rf"{name}\b", r)]
        assert f"- {range_}\n" in ENVIRONMENT

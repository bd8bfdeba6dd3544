"""What plain pip installs is what the notebooks and the package import: no less and no more."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest

import notebooks

PYPROJECT = tomllib.loads((notebooks.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, GROUPS = PYPROJECT["project"], PYPROJECT["dependency-groups"]
TESTS = notebooks.ROOT / "tests"
README, CONTRIBUTING, CHANGELOG = (
    (notebooks.ROOT / f"{name}.md").read_text(encoding="utf-8")
    for name in ("README", "CONTRIBUTING", "CHANGELOG")
)
ENVIRONMENT = (notebooks.ROOT / "environment.yml").read_text(encoding="utf-8")

IMPORT_NAMES = {
    "ipython": "IPython",
    "jupyter-client": "jupyter_client",
}  # of packages that are imported under another name
USED_BY_NO_IMPORT = {"jupyterlab", "ipywidgets"}  # one opens the notebooks, timm wants the other
D2L = "d2l==1.0.3"

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
    return set().union(*map(imports, notebooks.sources(path)))


@pytest.mark.parametrize("path", notebooks.PATHS, ids=lambda path: path.stem)
def test_a_notebook_imports_what_is_installed(path):
    assert imports_of(path) <= INSTALLED


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_what_is_installed_and_the_bench_d2l(path):
    allowed = {"d2l"} if path.name == "bench.py" else set()
    assert imports_of(path) <= INSTALLED | allowed


def test_nothing_is_installed_in_vain():
    used = set().union(*(imports_of(path) for path in notebooks.PATHS + MODULES))
    assert used >= INSTALLED - USED_BY_NO_IMPORT


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


def test_links_lead_to_files():
    texts = [README, CONTRIBUTING, CHANGELOG]
    links = {link for text in texts for link in re.findall(r"\]\(([^:)#]+)\)", text)}
    assert links
    assert not [link for link in links if not (notebooks.ROOT / link).exists()]


def test_contributing_names_tests_and_files_that_exist():
    sources = [path.read_text(encoding="utf-8") for path in TESTS.glob("test_*.py")]
    tests = set(re.findall(r"^def (test_\w+)", "\n".join(sources), re.M))
    named = set(re.findall(r"`(test_\w+)`", CONTRIBUTING))
    assert named and named <= tests
    files = set(re.findall(r"`((?:tests|tools|cnnlib)/[\w/.]+|test_\w+\.py)`", CONTRIBUTING))
    assert files
    assert not [
        f for f in files if not any((root / f).exists() for root in (notebooks.ROOT, TESTS))
    ]


def test_citation_and_changelog_name_the_version():
    version = PROJECT["version"]
    assert f"\nversion: {version}\n" in (notebooks.ROOT / "CITATION.cff").read_text(
        encoding="utf-8"
    )
    assert re.search(r"^## (\S+):", CHANGELOG, re.M)[1] == version


def test_the_first_example_prints_what_readme_shows(capsys, fp32):
    code, shown = re.search(r"```python\n(.*?)```.*?```text\n(.*?)```", README, re.S).groups()
    assert len([line for line in code.splitlines() if line]) <= 12
    exec(code, {})
    printed = capsys.readouterr().out
    table = re.match(r".*^Total[^\n]*\n", shown, re.S | re.M)[0]
    assert printed.startswith(table)  # what follows, the trained numbers, are the machine's
    assert (
        len(re.findall(r"^ +\d+ ", shown, re.M)) == len(re.findall(r"^ +\d+ ", printed, re.M)) == 3
    )


def pytest_says(*arguments):
    """Return what pytest prints, started at the root with these arguments, its plugins included."""
    command = [sys.executable, "-m", "pytest", "-v", "--trace-config", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *arguments], cwd=notebooks.ROOT, capture_output=True, text=True, check=True
    ).stdout


def test_a_named_test_starts_without_workers_and_nbval():
    said = pytest_says("tests/test_packaging.py::test_imports_are_found_wherever_they_stand")
    assert "1 passed" in said
    assert "dsession" not in said
    assert "nbval.plugin" not in said


def test_a_named_notebook_is_collected_cell_by_cell():
    said = pytest_says("--collect-only", "notebooks/01_conv_arithmetic.ipynb")
    assert "Cell 0" in said

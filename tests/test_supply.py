"""What the course takes from others, and what it lets them do: packages, networks, code, pages."""

import ast
import json
import re
import shutil
import subprocess
import sys

import pytest

import notebooks

ROOT = notebooks.ROOT
PACKAGE = sorted((ROOT / "cnnlib").rglob("*.py"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.skipif(not shutil.which("uv"), reason="needs uv, which made the lock")
def test_the_lock_is_that_of_the_project():
    command = ["uv", "lock", "--check", "--offline"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_locked_file_has_a_hash_and_comes_over_https():
    lock = (ROOT / "uv.lock").read_text()
    files = re.findall(r"\{ url = .*\}", lock)
    assert len(files) > 1000
    assert [f for f in files if not re.match(r'\{ url = "https://[^"]+", hash = "sha256:', f)] == []
    assert set(re.findall(r"source = \{ (\w+) = ", lock)) == {"registry", "editable"}


# Networks

WATCH = """
import importlib, pkgutil, sys

def refuse(event, arguments):
    if event in {"socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request"}:
        raise PermissionError(f"{event} {arguments}")

sys.addaudithook(refuse)
import cnnlib
for module in pkgutil.walk_packages(cnnlib.__path__, "cnnlib."):
    importlib.import_module(module.name)
print(*sorted(name for name in sys.modules if name.startswith("cnnlib.")))
"""


def test_no_module_uses_a_network_when_it_is_imported(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{WATCH}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    names = [path.relative_to(ROOT).with_suffix("").parts for path in PACKAGE]
    wanted = {".".join(parts).removesuffix(".__init__") for parts in names} - {"cnnlib"}
    assert set(done.stdout.split()) == wanted


# Code

RUNS_CODE = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path"}
UNPACKS_CODE = {"pickle", "marshal", "shelve", "yaml", "joblib", "dill", "cloudpickle"}
REACHES_OUT = {"subprocess", "socket", "urllib", "http", "requests", "ftplib", "ctypes"}
ALLOWED = {
    ("_files", "urllib"): "downloads Fashion-MNIST, and verifies it before it is written",
    ("backend", "ctypes"): "asks the C library to keep its heap",
    ("doctor", "subprocess"): "a constant for the notebook kernel that it starts",
    ("recording", "compile"): "runs cells of the user's own notebook, as Jupyter does",
    ("recording", "exec"): "runs cells of the user's own notebook, as Jupyter does",
    ("records", "subprocess"): "asks git for the commit, without a shell",
}


def used(tree):
    """Return the calls and imports of a module that can run code or reach out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from {ast.unparse(node.func)} & RUNS_CODE
        elif isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
            yield from names & (UNPACKS_CODE | REACHES_OUT)
        elif isinstance(node, ast.ImportFrom):
            yield from {(node.module or "").split(".")[0]} & (UNPACKS_CODE | REACHES_OUT)


def test_the_package_runs_no_foreign_code():
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE}
    assert {(path.stem, name) for path, tree in trees.items() for name in used(tree)} == set(
        ALLOWED
    )


def test_files_are_loaded_as_tensors_alone_and_nothing_goes_through_a_shell():
    for path in PACKAGE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                settings = {each.arg: ast.unparse(each.value) for each in node.keywords}
                assert "shell" not in settings, path
                if ast.unparse(node.func) in ("torch.load", "torch.jit.load", "np.load"):
                    assert settings.get("weights_only") == "True", path


# Pages

LOADS = re.compile(
    r"<(?:script|link|img|iframe|source|video|audio|embed|object)\b[^>]*?"
    r"\b(?:src|href|data)\s*=\s*[\"']?\s*(?:https?:)?//"
    r"|@import\s|url\(\s*[\"']?(?:https?:)?//|import\s*\(?\s*[\"']https?:"
    r"|XMLHttpRequest|WebSocket|importScripts|\bfetch\([\"'`]"
    r"|!\[[^\]]*\]\(\s*(?:https?:)?//",
    re.IGNORECASE,
)


def shown(notebook):
    """Return the prose of a notebook, and its outputs that are not pictures."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            yield "".join(cell["source"])
        for output in cell.get("outputs", []):
            for kind, data in output.get("data", {}).items():
                if not kind.startswith("image/"):
                    yield "".join(data) if isinstance(data, list) else json.dumps(data)


@pytest.mark.parametrize("path", notebooks.PATHS, ids=lambda path: path.stem)
def test_a_notebook_loads_nothing_from_elsewhere(path):
    found = [LOADS.search(text) for text in shown(json.loads(path.read_text(encoding="utf-8")))]
    assert [match[0] for match in found if match] == []


def test_pages_of_the_package_and_the_site_load_nothing_from_elsewhere():
    parts = [*(ROOT / "cnnlib").rglob("*.*"), *(ROOT / "docs").glob("*.md")]
    parts += [*(ROOT / "docs" / "_static").rglob("*.*"), ROOT / "docs" / "conf.py"]
    text = {p.name: p.read_text(encoding="utf-8") for p in parts if p.suffix[1:] in KINDS}
    assert {p.suffix[1:] for p in parts} >= KINDS
    assert {name: match[0] for name in text if (match := LOADS.search(text[name]))} == {}


KINDS = {"css", "js", "md", "py"}


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js">',
        "<link rel=stylesheet href=//fonts.example/x.css>",
        "@import url(x.css)",
        "background: url('https://example.org/x.png')",
        "import('https://example.org/x.js')",
        "![a picture](https://example.org/x.png)",
    ],
)
def test_what_loads_is_recognised(text):
    assert LOADS.search(text)


def test_links_that_only_lead_elsewhere_are_fine():
    assert not LOADS.search('<a href="https://example.org">[x](https://example.org)</a>')


# Servers and workflows

WEAKENS = re.compile(
    r"--ip\b|\.ip\b\s*=|0\.0\.0\.0|\.token|token\s*=|\.password|allow_origin|allow_remote|xsrf"
)


def test_no_printed_command_opens_jupyter_to_others():
    """It listens on this machine alone, and asks for its token."""
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "tools").glob("*.py")]
    texts += [*PACKAGE, ROOT / "environment.yml", ROOT / ".ci" / "run"]
    lines = [line for path in texts for line in path.read_text(encoding="utf-8").splitlines()]
    for path in notebooks.PATHS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        lines += [line for cell in cells for line in cell["source"]]
    commands = [line for line in lines if re.search(r"jupyter[- ](lab|notebook|server)", line)]
    assert len(commands) >= 3
    assert [line for line in commands if WEAKENS.search(line)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_pins_its_actions_and_may_do_little(path):
    """A tag of an action can be moved to other code, a commit cannot."""
    text = path.read_text(encoding="utf-8")
    actions = re.findall(r"uses: (.*)", text)
    assert [each for each in actions if not re.fullmatch(r"\S+@[0-9a-f]{40} # v[\d.]+", each)] == []
    assert "\npermissions:\n  contents: read\n\n" in text
    assert text.count("persist-credentials: false") == text.count("actions/checkout@")
    jobs = text.partition("\njobs:\n")[2]
    writers = [job for job in re.split(r"\n(?=  \w+:\n)", jobs) if ": write" in job]
    assert all("run:" not in job for job in writers)  # what may write runs no code of ours
    assert "pull_request_target" not in text

"""What an import costs: only torch, and no package that draws, shows or downloads."""

import os
import subprocess
import sys

import pytest

import notebooks

HEAVY = {
    "IPython", "cnnlib.measure", "d2l", "ipywidgets", "matplotlib", "pandas", "torch._dynamo",
    "torchvision",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", ["cnnlib.data", "cnnlib.models", "cnnlib.train", "cnnlib.__main__"]
)
def test_an_import_takes_only_what_it_needs(name):
    code = f"import sys, {name}; print(*sys.modules)"
    fresh = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(notebooks.ROOT)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert fresh.returncode == 0, fresh.stderr
    assert HEAVY & set(fresh.stdout.split()) == set()

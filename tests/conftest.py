"""What unit tests share: the device and the precision that they run on are theirs, not the machine's."""

from pathlib import Path

import pytest
import torch

from chromium import CHROMIUM

BROWSER_TESTS = Path(__file__).parent / "browser"

GPU = torch.cuda.is_available()
if GPU:
    torch.cuda.init()  # while it can be seen


def pytest_configure(config):
    """Register the marks of these tests."""
    config.addinivalue_line("markers", "cuda: needs a CUDA device; every other test hides it")
    config.addinivalue_line("markers", "browser: needs Chromium")


def pytest_collection_modifyitems(items):
    """Skip the tests in a browser where there is none."""
    for item in items:
        if item.get_closest_marker("browser") and not CHROMIUM:
            item.add_marker(pytest.mark.skip(reason="no Chromium on this machine"))


def pytest_terminal_summary(terminalreporter, config):
    """Say which tests were left out, and why."""
    if config.option.markexpr == "not slow":
        terminalreporter.write_line("Left out: slow tests. Add -m slow to run them.")
    asked = {Path(argument.partition("::")[0]).resolve() for argument in config.args}
    if not CHROMIUM:
        terminalreporter.write_line("Tests in a browser were left out: there is no Chromium here.")
    elif asked & {*BROWSER_TESTS.parents}:
        terminalreporter.write_line(
            "Left out: JupyterLab in a browser. Name tests/browser to run it."
        )


@pytest.fixture(autouse=True)
def device(request, monkeypatch):
    """Hide the GPU from every test but those of the mark `cuda`, which need one."""
    if request.node.get_closest_marker("cuda"):
        if not GPU:
            pytest.skip("needs a CUDA device")
    else:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # for the processes that a test starts


@pytest.fixture
def fp32(monkeypatch):
    """Let "auto" be fp32: the numbers of this test are those of float32, on every machine."""
    monkeypatch.setenv("CNNLIB_PRECISION", "fp32")


@pytest.fixture
def measured(monkeypatch):
    """Let "auto" be what the machine does best, whatever CNNLIB_PRECISION says outside."""
    monkeypatch.delenv("CNNLIB_PRECISION", raising=False)

"""What unit tests share: the device and the precision that they run on are theirs, not the machine's."""

import pytest
import torch

GPU = torch.cuda.is_available()
if GPU:
    torch.cuda.init()  # while it can be seen


def pytest_configure(config):
    """Register the marks of these tests."""
    config.addinivalue_line("markers", "cuda: needs a CUDA device; every other test hides it")


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

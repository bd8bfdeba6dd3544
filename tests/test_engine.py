"""Precision and memory format."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cnnlib import engine as module
from cnnlib.engine import bf16_pays, engine


def test_fp32_changes_nothing():
    run = engine("cpu", "fp32")
    net = run.place(nn.Conv2d(1, 4, 3))
    images = torch.rand(2, 1, 8, 8)
    with run.autocast():
        assert net(run.place_images(images)).dtype is torch.float32
    assert run.precision == "fp32"


def test_bf16_computes_in_bf16_and_keeps_weights_in_fp32():
    run = engine("cpu", "bf16")
    net = run.place(nn.Conv2d(3, 4, 3))
    images = run.place_images(torch.rand(2, 3, 8, 8))
    assert images.is_contiguous(memory_format=torch.channels_last)
    with run.autocast():
        outputs = net(images)
    assert outputs.dtype is torch.bfloat16
    assert net.weight.dtype is torch.float32
    assert run.precision == "bf16"
    exact = nn.functional.conv2d(images, net.weight, net.bias)
    assert (outputs.float() - exact).norm() / exact.norm() < 1e-2


def test_auto_follows_what_pays(monkeypatch):
    monkeypatch.setattr(module, "bf16_pays", lambda device: True)
    assert engine("cpu").precision == "bf16"
    monkeypatch.setattr(module, "bf16_pays", lambda device: False)
    assert engine("cpu").precision == "fp32"


@pytest.mark.parametrize(
    ("fp32", "bf16", "pays"),
    [(2.0, 1.0, True), (1.0, 1.0, False), (1.0, 0.5, True), (1.4, 1.0, False), (1.0, 40.0, False)],
)
def test_the_cpu_is_timed(monkeypatch, fp32, bf16, pays):
    """A clock that the matrix products drive, at a given time each."""
    now = [0.0]

    def product(a, b):
        now[0] += bf16 if a.dtype is torch.bfloat16 else fp32

    monkeypatch.setattr(module.torch, "mm", product)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert bf16_pays.__wrapped__("cpu") is pays


def test_other_devices_stay_in_fp32():
    assert not bf16_pays("mps")


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"precision='fp16' must be 'auto', 'bf16' or 'fp32': try"):
        engine("cpu", "fp16")

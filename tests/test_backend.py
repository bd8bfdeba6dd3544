"""Precision and memory format."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cnnlib import backend as module
from cnnlib._cuda_graph import GraphedStep, captured_settings, is_capturable
from cnnlib.backend import bf16_is_faster, channels_last_is_faster, choose_backend


def test_fp32_changes_nothing():
    backend = choose_backend("cpu", "fp32")
    net = backend.to_device(nn.Conv2d(1, 4, 3))
    images = torch.rand(2, 1, 8, 8)
    with backend.autocast():
        assert net(backend.to_memory_format(images)).dtype is torch.float32
    assert backend.precision == "fp32"


def test_bf16_computes_in_bf16_and_keeps_weights_in_fp32():
    backend = choose_backend("cpu", "bf16")
    net = backend.to_device(nn.Conv2d(3, 4, 3))
    images = backend.to_memory_format(torch.rand(2, 3, 8, 8))
    assert images.is_contiguous(memory_format=torch.channels_last)
    with backend.autocast():
        outputs = net(images)
    assert outputs.dtype is torch.bfloat16
    assert net.weight.dtype is torch.float32
    assert backend.precision == "bf16"
    exact = nn.functional.conv2d(images, net.weight, net.bias)
    assert (outputs.float() - exact).norm() / exact.norm() < 1e-2


def test_auto_follows_what_pays(monkeypatch, measured):
    monkeypatch.setattr(module, "bf16_is_faster", lambda device: True)
    assert choose_backend("cpu").precision == "bf16"
    monkeypatch.setattr(module, "bf16_is_faster", lambda device: False)
    assert choose_backend("cpu").precision == "fp32"


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
    assert bf16_is_faster.__wrapped__("cpu") is pays


def test_other_devices_stay_in_fp32():
    assert not bf16_is_faster("mps")


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"precision='fp16' must be 'auto', 'bf16' or 'fp32': try"):
        choose_backend("cpu", "fp16")


@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
@pytest.mark.parametrize("pays", [True, False])
def test_the_environment_decides_what_auto_is(monkeypatch, wanted, pays):
    monkeypatch.setattr(module, "bf16_is_faster", lambda device: pays)
    monkeypatch.setenv("CNNLIB_PRECISION", wanted)
    monkeypatch.setattr(module, "channels_last_is_faster", lambda device: True)
    backend = choose_backend("cpu")
    assert (backend.precision, backend.memory_format) == (wanted, torch.channels_last)
    monkeypatch.setattr(module, "channels_last_is_faster", lambda device: False)
    assert choose_backend("cpu") == choose_backend("cpu", wanted)
    assert choose_backend("cpu", "fp32").precision == "fp32"  # what a caller asks for comes first
    assert choose_backend("cpu", "bf16").precision == "bf16"
    monkeypatch.setenv("CNNLIB_PRECISION", "auto")
    assert choose_backend("cpu").precision == ("bf16" if pays else "fp32")


def test_an_unknown_precision_in_the_environment_is_refused_by_its_name(monkeypatch):
    monkeypatch.setenv("CNNLIB_PRECISION", "fp8")
    with pytest.raises(ValueError, match=r"CNNLIB_PRECISION='fp8' must be .*: try CNNLIB_PRECISI"):
        choose_backend("cpu")


def test_auto_takes_channels_last_on_a_cpu_with_onednn(monkeypatch, measured):
    monkeypatch.setattr(module, "bf16_is_faster", lambda device: False)
    for onednn, memory_format in ((True, torch.channels_last), (False, torch.contiguous_format)):
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda has=onednn: has)
        backend = choose_backend("cpu", "auto")
        assert (backend.precision, backend.memory_format) == ("fp32", memory_format)
        assert choose_backend("cpu", "fp32").memory_format is torch.contiguous_format
        assert choose_backend("cpu", "bf16").memory_format is torch.channels_last
    assert not channels_last_is_faster("cuda")


# A capture without a GPU: what a replay would do is done by the step itself, on the tensors that
# the graph holds, and with the settings that it was captured with.


class OnPaper(GraphedStep):
    """A GraphedStep whose graph is kept by Python."""

    def __init__(self, step, optimizer):
        super().__init__(step, optimizer, torch.device("cpu"))
        self.ran = []

    def warm_up(self, batch):
        self.ran.append("warm-up")
        return self.step(*batch)

    def capture(self, batch):
        self.ran.append("capture")
        group = self.optimizer.param_groups[0]
        self.settings = captured_settings(self.optimizer)
        self.batch = [tensor.clone() for tensor in batch]
        self.lrs = [torch.tensor(0.0)]
        self.results = (torch.zeros(()),)
        momentum = group["momentum"]

        def replay():
            self.ran.append("replay")
            before = dict(group)
            group.update(lr=self.lrs[0].item(), momentum=momentum)
            self.results[0].copy_(self.step(*self.batch)[0])
            group.update(before)

        self.graph = SimpleNamespace(replay=replay)


def train_on_paper(wrap, cycle_momentum=False):
    """Return the losses of 14 steps, one of them short, under a schedule, and the step."""
    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.5, total_steps=15, cycle_momentum=cycle_momentum
    )

    def step(x, y):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return (loss.detach(),)

    step = wrap(step, optimizer)
    losses = []
    for i in range(14):
        count = 5 if i == 9 else 8
        (loss,) = step(torch.randn(count, 4), torch.randint(3, (count,)))
        losses.append(loss)
        schedule.step()
    return [loss.item() for loss in losses], step


def test_a_replay_has_each_batch_and_each_learning_rate():
    plain, _ = train_on_paper(lambda step, optimizer: step)
    replayed, step = train_on_paper(OnPaper)
    assert replayed == pytest.approx(plain, rel=1e-6)
    assert len(set(replayed)) == 14
    assert step.ran == ["warm-up"] * 3 + ["capture"] + ["replay"] * 10


def test_a_setting_that_a_graph_holds_fast_ends_the_replays():
    plain, _ = train_on_paper(lambda step, optimizer: step, cycle_momentum=True)
    replayed, step = train_on_paper(OnPaper, cycle_momentum=True)
    assert replayed == pytest.approx(plain, rel=1e-6)
    assert 1 <= step.ran.count("replay") <= 2  # the cycle comes by the same momentum twice


def test_a_step_that_waits_for_the_device_is_not_captured():
    class Waiting(OnPaper):
        def warm_up(self, batch):
            self.eager = self.steps == 3
            return super().warm_up(batch)

    plain, _ = train_on_paper(lambda step, optimizer: step)
    replayed, step = train_on_paper(Waiting)
    assert replayed == plain
    assert step.ran == ["warm-up"] * 3


def test_a_step_that_cannot_be_captured_runs_on_with_one_warning():
    class Failing(OnPaper):
        def capture(self, batch):
            self.ran.append("capture")
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    plain, _ = train_on_paper(lambda step, optimizer: step)
    with pytest.warns(UserWarning, match="runs without a CUDA graph.*stream is capturing$") as said:
        replayed, step = train_on_paper(Failing)
    assert len(said) == 1
    assert replayed == plain
    assert step.ran == ["warm-up"] * 3 + ["capture"]


def test_no_memory_for_a_capture_is_no_reason_to_go_on():
    class Full(OnPaper):
        def capture(self, batch):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        train_on_paper(Full)


def test_what_can_be_captured():
    net = nn.Sequential(nn.Linear(2, 2))

    def allowed(optimizer, **options):
        return is_capturable(net, optimizer(net.parameters(), 0.1, **options))

    assert allowed(torch.optim.SGD, fused=True)
    assert not allowed(torch.optim.SGD)
    assert not allowed(torch.optim.Adam, fused=True)
    assert allowed(torch.optim.Adam, fused=True, capturable=True)
    handle = net[0].register_forward_hook(lambda *_: None)
    assert not allowed(torch.optim.SGD, fused=True)
    handle.remove()
    assert allowed(torch.optim.SGD, fused=True)


def test_a_cpu_captures_nothing():
    net, step = nn.Linear(2, 2), object()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, fused=True)
    assert choose_backend("cpu", graph=True).maybe_capture(step, net, optimizer) is step


def test_only_one_process_with_a_gpu_captures(monkeypatch):
    monkeypatch.setattr(module, "check_device", torch.device)  # there is none here
    assert choose_backend("cuda", "fp32", graph=True).graph
    assert not choose_backend("cuda", "fp32", graph=False).graph
    assert not choose_backend("cpu", "fp32", graph=True).graph


# Memory of a CPU


def test_memory_is_given_back_after_an_error(monkeypatch):
    calls = []
    library = SimpleNamespace(
        mallopt=lambda *setting: calls.append(setting), malloc_trim=lambda pad: calls.append(pad)
    )
    monkeypatch.setattr(module, "_glibc", lambda: library)
    with pytest.raises(ValueError, match="in between"), choose_backend("cpu").retain_heap():
        assert calls == [(-4, 0), (-1, 2**31 - 1)]
        raise ValueError("in between")
    assert calls[2:] == [(-4, 65536), (-3, 2**25), (-1, 2**26), 0]


@pytest.mark.parametrize("found", [None, "library"])
def test_memory_of_other_devices_and_other_libraries_is_left_alone(monkeypatch, found):
    monkeypatch.setattr(module, "_glibc", lambda: found)
    backend = replace(choose_backend("cpu"), device=torch.device("cuda" if found else "cpu"))
    with backend.retain_heap():
        pass


def test_only_glibc_is_asked(monkeypatch):
    monkeypatch.setattr(module.sys, "platform", "win32")
    assert module._glibc.__wrapped__() is None
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: object())
    assert module._glibc.__wrapped__() is None

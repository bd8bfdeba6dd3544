"""What this machine is, how fast it can be, and what an action costs on it."""

import contextlib
import gc
import importlib.metadata
import inspect
import io
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnlib._checks import check_count, check_device, check_number
from cnnlib.backend import choose_backend
from cnnlib.data import Batches, Data
from cnnlib.preflight import check_network
from cnnlib.train import DivergenceError, History, fit

DTYPES = (torch.float32, torch.bfloat16)  # for the timed matrix products
_RESET_PEAK = "5"  # written to clear_refs, it resets VmHWM: see proc(5)


def device_type() -> str:
    """Return the type of device on which a measurement runs: "cuda" if there is a GPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def environment_info(device: str) -> dict:
    """Return the machine, the versions and the precision of a measurement."""
    device = check_device(device).type
    versions = {"python": platform.python_version()}
    for name in ("torch", "torchvision", "d2l", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": {
            "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        },
        "versions": versions,
        "precision": choose_backend(device).precision,
    }


def _cpu_name() -> str:
    """Return the name of the processor, if the system knows it."""
    with contextlib.suppress(OSError):
        for entry in Path("/proc/cpuinfo").read_text().splitlines():
            if entry.startswith("model name"):
                return entry.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# The limits of the machine


def measure_limits(device: str) -> dict:
    """Measure the two limits of the roofline.

    Returns:
        A dictionary with peak_flops, the operations per second in a matrix product, and bandwidth,
        the bytes per second in a copy.
    """
    return {
        "peak_flops": max(measure_matmul_flops(device, dtype) for dtype in DTYPES),
        "bandwidth": measure_bandwidth(device),
    }


def measure_matmul_flops(device: str, dtype: torch.dtype, seconds: float = 2.0) -> float:
    """Measure the operations per second in the product of two matrices.

    Args:
        device: The type of device.
        dtype: The type of the numbers.
        seconds: How long to repeat the product. The fastest run counts.
    """
    device = check_device(device).type
    seconds = check_number("seconds", seconds, least=0, below=3600, usual=2)
    if not isinstance(dtype, torch.dtype) or dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} must be one of {DTYPES}: try torch.float32")
    side = 8192 if device == "cuda" else 1536
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    end, fastest = time.perf_counter() + seconds, math.inf
    while time.perf_counter() < end or fastest == math.inf:
        taken, _ = timed(device, lambda: matrix @ matrix)
        fastest = min(fastest, taken)
    return 2 * side**3 / fastest


def measure_bandwidth(device: str) -> float:
    """Measure the bytes per second that a copy reads and writes; the fastest of five counts."""
    device = check_device(device).type
    source = torch.ones(64 * 2**20, device=device)
    target = torch.empty_like(source)
    fastest = min(timed(device, lambda: target.copy_(source))[0] for _ in range(5))
    return 2 * source.nbytes / fastest


# The cost of an action


def timed(device: str, action: Callable[[], object]) -> tuple[float, int | None]:
    """Return the seconds that an action takes until the device is done, and its peak memory.

    The memory is in bytes: what torch allocates on a GPU, else what this process holds on Linux,
    without its child processes; None on other systems.
    """
    if isinstance(action, nn.Module) or not callable(action):
        raise ValueError(f"action={action!r} must be a function without arguments: try lambda: 1")
    device = check_device(device).type
    gc.collect()
    _reset_peak_memory(device)
    start = time.perf_counter()
    action()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, _peak_memory(device)


def _reset_peak_memory(device: str) -> None:
    """Reset the peak memory to the memory in use now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text(_RESET_PEAK)


def _peak_memory(device: str) -> int | None:
    """Return the peak memory in bytes since the last reset, if the system knows it."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError):
        for entry in Path("/proc/self/status").read_text().splitlines():
            if entry.startswith("VmHWM:"):
                return int(entry.split()[1]) * 1024
    return None


def check_build(build: Any) -> Callable[[], nn.Module]:
    """Return a function that builds a network with new weights each time, or refuse what does not.

    What the function itself raises is left as it is.
    """
    if isinstance(build, nn.Module) or not callable(build):
        given = type(build).__name__ if isinstance(build, nn.Module) else repr(build)
        raise ValueError(
            f"build={given} must be a function that builds a network: try build=lambda: "
            "cnnlib.models.lenet()"
        )
    name = getattr(build, "__name__", repr(build))
    try:
        inspect.signature(build).bind()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"build={name} must take no arguments: try build=lambda: {name}(...)"
        ) from error
    first, second = build(), build()
    check_network(first)
    if not {*map(id, first.parameters())}.isdisjoint(map(id, second.parameters())):
        raise ValueError(
            f"build={name} must build new weights per seed, but it returns the same ones twice: "
            "try a function that builds the network"
        )
    return build


def final_accuracy(history: History) -> float:
    """Return the test accuracy after the last epoch of a training that came to its end.

    Raises:
        KeyboardInterrupt: It was interrupted.
        DivergenceError: Its test loss is infinite or NaN.
    """
    if history.interrupted:
        raise KeyboardInterrupt
    if not math.isfinite(history.last.test_loss):
        raise DivergenceError(
            f"the test loss is {history.last.test_loss} after the last epoch, at "
            f"lr={history.recipe['lr']:g}: try a smaller one"
        )
    return history.last.test_accuracy


def measure_training_rate(
    net: nn.Module, images: torch.Tensor, labels: torch.Tensor, seconds: float = 1.0
) -> float:
    """Measure the images per second of training steps alone, without loading and evaluation.

    Args:
        net: A network, which is trained at a negligible learning rate.
        images: A batch of images on the device.
        labels: Their labels.
        seconds: Duration of each of three runs, whose median counts.
    """
    seconds = check_number("seconds", seconds, least=0, below=3600, usual=1)
    device = repeated_batch(images, labels, 1).device.type

    def seconds_for(steps: int) -> float:
        data = repeated_batch(images, labels, steps)
        with quiet():
            return timed(device, lambda: fit(net, data, 1, lr=1e-6, plot=False))[0]

    seconds_for(2)
    steps = max(2, math.ceil(2 * seconds / seconds_for(2)))
    return steps * len(images) / statistics.median(seconds_for(steps) for _ in range(3))


@dataclass(eq=False, repr=False)
class RepeatedBatch(Batches):
    """One batch, already on the device, several times per epoch."""

    times: int = 1

    def __post_init__(self):  # not that of Batches: these images are not bytes, but a network's
        self.times = check_count("times", self.times, usual=2)

    def __len__(self):
        return self.times

    def epoch(self, number, seed=None):
        """Yield the batch unchanged, again and again."""
        return iter([(self.images, self.labels)] * self.times)


def repeated_batch(images: torch.Tensor, labels: torch.Tensor, times: int) -> Data:
    """Return Data with one batch to train on several times, and one image of it to test on."""
    are_tensors = all(isinstance(x, torch.Tensor) for x in (images, labels))
    if not are_tensors or images.ndim != 4 or not 0 < len(images) == labels.shape[:1].numel():
        raise ValueError(
            "images and labels must be one batch of tensors: try next(iter(data.train))"
        )
    size = (images.shape[2], images.shape[3])
    train = RepeatedBatch(images, labels, size, len(images), shuffle=False, times=times)
    test = RepeatedBatch(images[:1], labels[:1], size, 1, shuffle=False)
    return Data(train, test, classes=(), source="one batch")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress printed output, warnings and progress displays."""
    before = os.environ.get("CNNLIB_LIVE")
    os.environ["CNNLIB_LIVE"] = "0"
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # d2l starts more workers than a small CPU has cores
            yield
    finally:
        os.environ.pop("CNNLIB_LIVE")
        if before is not None:
            os.environ["CNNLIB_LIVE"] = before

"""Whether a machine is ready for the course: packages, device, data, kernel, one training."""

import importlib.metadata
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from subprocess import DEVNULL

import torch
from jupyter_client.manager import start_new_kernel

from cnnlib.backend import choose_backend
from cnnlib.data import fashion_mnist
from cnnlib.data._files import fetch
from cnnlib.measure.machine import device_type, quiet
from cnnlib.models import small_resnet
from cnnlib.train import adamw, fit, one_cycle

_PACKAGES = ("torch", "torchvision", "timm", "matplotlib", "jupyterlab", "ipykernel")
_PYTHONS = ((3, 11), (3, 13))
_KERNEL_SECONDS = 120
_GIGABYTE = 1e9
_LECTURE = 20  # times as long as the training of the last check
_MOST_MINUTES = 10  # of waiting in a lecture of 90
_FREE_GIGABYTES = 1  # for the data, its unpacked files and what a learner saves


class Problem(Exception):
    """What a check has found wrong, and what to do about it."""

    def __init__(self, what: str, remedy: str):
        super().__init__(what)
        self.remedy = remedy


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        name: What was checked.
        fine: Whether nothing is wrong.
        text: What was found.
        remedy: What to type or to do, "" if nothing is wrong.
    """

    name: str
    fine: bool
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{'ok   ' if self.fine else 'WRONG'} {self.name:9} {self.text}"
        return line if self.fine else f"{line}\n{'':15} -> {self.remedy}"


def examine(checks: Mapping[str, Callable[[], str]] | None = None) -> list[Finding]:
    """Run every check, also after one has found something wrong.

    Args:
        checks: By the name of each, a function that returns what it found, or raises a Problem.
            None: those of this module.
    """
    return [_run(name, check) for name, check in (_CHECKS if checks is None else checks).items()]


def _run(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except Problem as problem:
        return Finding(name, False, str(problem), problem.remedy)
    except Exception as error:  # which must not hide what the other checks find
        return Finding(
            name, False, f"{type(error).__name__}: {error}", "try uv sync, or pip install ."
        )


def _python() -> str:
    """Check the version of Python."""
    version = platform.python_version()
    if not _PYTHONS[0] <= sys.version_info[:2] <= _PYTHONS[1]:
        raise Problem(f"Python {version} is not 3.11, 3.12 or 3.13", "try uv python install 3.12")
    return f"Python {version}"


def _packages() -> str:
    """Check that the packages of the course are installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise Problem(f"{name} is not installed", "try uv sync, or pip install .") from None
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _device() -> str:
    """Say on which device the notebooks will train."""
    backend = choose_backend(device_type())
    kind = torch.cuda.get_device_name() if backend.device.type == "cuda" else "CPU"
    return f"{kind}, {torch.get_num_threads()} threads, {backend.precision}"


def _disk() -> str:
    """Check that there is room in the folder that one works in."""
    free = shutil.disk_usage(".").free / _GIGABYTE
    if free < _FREE_GIGABYTES:
        raise Problem(f"only {free:.1f} GB are free", f"free {_FREE_GIGABYTES} GB on this disk")
    return f"{free:.0f} GB free"


def _data() -> str:
    """Check that Fashion-MNIST is there and intact, or download it."""
    try:
        return f"Fashion-MNIST in {fetch()}"
    except (OSError, ValueError) as error:
        raise Problem(
            f"no Fashion-MNIST, so the notebooks will use a synthetic stand-in: {error}",
            "put the four files on a memory stick, and try CNNLIB_DATA=FOLDER",
        ) from error


def _kernel() -> str:
    """Check that a notebook's kernel starts and finds this very package."""
    try:
        manager, client = start_new_kernel(startup_timeout=_KERNEL_SECONDS, stderr=DEVNULL)
    except Exception as error:  # what a broken kernel raises depends on how it is broken
        raise Problem(
            f"no kernel starts: {error}", "try python -m ipykernel install --user"
        ) from error
    lines: list[str] = []
    try:
        client.execute_interactive(
            "import cnnlib, sys; print(sys.executable)",
            timeout=_KERNEL_SECONDS,
            output_hook=lambda message: lines.append(message["content"].get("text", "")),
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    python = "".join(lines).strip()
    if python != sys.executable:
        raise Problem(
            f"notebooks would run with {python or 'a Python without cnnlib'}, not with this one",
            "try python -m ipykernel install --user, with this Python",
        )
    return "a notebook's kernel starts and finds cnnlib"


def _training() -> str:
    """Train a small network on a few images, and say how long the code of a lecture takes here."""
    data, net = fashion_mnist(28, 50, train=2000, test=500), small_resnet(width=8)
    start = time.perf_counter()
    with quiet():
        history = fit(net, data, 2, 0.01, optimizer=adamw, schedule=one_cycle)
    seconds = time.perf_counter() - start
    minutes = seconds * _LECTURE / 60
    found = (
        f"2,000 images twice in {seconds:.1f} s, test accuracy {history.last.test_accuracy:.2f}"
        f"{history.banner and ' (synthetic stand-in)'}; the code of a lecture takes about "
        f"{minutes:.0f} minutes"
    )
    if minutes > _MOST_MINUTES:
        raise Problem(
            found,
            "end other programs, or try a faster machine; a lecture can also be read without "
            "running it, since the notebooks hold their outputs",
        )
    return found


_CHECKS = {
    "Python": _python,
    "packages": _packages,
    "device": _device,
    "disk": _disk,
    "data": _data,
    "kernel": _kernel,
    "training": _training,
}

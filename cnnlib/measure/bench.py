"""Our training loop against another: same network, initial weights, recipe, images and machine.

The two loops take turns (ours, theirs, ours, theirs ...), so that a busy moment of the machine
affects both. The clock covers building the loaders, all epochs, and the evaluation after each.
"""

import contextlib
import copy
import functools
import importlib.util
import statistics
import struct
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import FashionMNIST

from cnnlib._checks import check_count, check_seed
from cnnlib.backend import choose_backend
from cnnlib.data import Batches, Data, fashion_mnist
from cnnlib.measure.machine import (
    DTYPES,
    device_type,
    environment_info,
    measure_matmul_flops,
    quiet,
    repeated_batch,
    timed,
)
from cnnlib.measure.records import load_previous, make_folder, this_machine, write_json
from cnnlib.models import MODELS
from cnnlib.trace import count_parameters, trace
from cnnlib.train import fit, sgd

_BATCHES_ON_CPU = 20  # for images above 28 pixels, whose epoch takes most of an hour
_STEPS_ALONE = 10
_WORKERS = 4  # per loader, as in d2l


@dataclass(frozen=True)
class _Job:
    """The task of both loops: train a model by plain stochastic gradient descent."""

    model: str
    size: int  # side of the images in pixels
    batch_size: int
    lr: float
    epochs: int
    train: int  # images
    test: int  # images
    seed: int  # sets initial weights and orders
    device: str


def bench(
    names: list[str],
    *,
    against: str = "d2l",
    rounds: int = 3,
    epochs: int = 1,
    batches: int | None = None,
    seed: int = 0,
    folder: str | Path = "my_results",
) -> tuple[dict, Path]:
    """Measure both loops for some networks, and write the table after each network.

    Rows of other networks stay in the file if they come from this machine, with the same versions
    and settings. Any other file is left unchanged, and the table goes into a new file beside it.

    Args:
        names: Names of models.
        against: The other loop. "d2l": its loader and train_ch6, unchanged. "strong": the same loop
            with pinned memory, persistent workers, channels last, and autocast where it is faster.
        rounds: Warm runs of each loop, after one cold run of each.
        epochs: Passes over the training images.
        batches: Batches per epoch. None: all 60,000 images, but 20 batches on a CPU for networks
            with images above 28 pixels.
        seed: Sets the initial weights and the orders.
        folder: The folder of the JSON file.

    Returns:
        A dictionary with hardware, versions, the speed of matrix products, and a row per network,
        each with the commit that was measured; and the path of its file.

    Raises:
        ValueError: There are too few batches (d2l's loop plots five times per epoch), or d2l is not
            installed.
    """
    if batches is not None:  # or all of them
        batches = check_count("batches", batches, 200, least=5, usual=5)
    if isinstance(against, str) and against == "d2l" and importlib.util.find_spec("d2l") is None:
        raise ValueError(
            "against='d2l' needs d2l 1.0.3, which is not installed: try pip install --no-deps "
            "d2l==1.0.3, and pip install pandas requests scipy"
        )
    if not isinstance(against, str) or against not in _LOOPS:
        raise ValueError(f"against={against!r} must be one of {list(_LOOPS)}: try 'strong'")
    listed = isinstance(names, list | tuple) and len(names) > 0
    if not listed or not all(isinstance(name, str) and name in MODELS for name in names):
        raise ValueError(f"names={names!r} must be names of models, in a list: try ['lenet']")
    if pixels := [name for name in names if MODELS[name].family == "segmentation"]:
        raise ValueError(f"names: {pixels[0]!r} must classify images, not pixels: try ['lenet']")
    rounds = check_count("rounds", rounds, usual=3)
    epochs, seed = check_count("epochs", epochs, usual=1), check_seed(seed)
    make_folder(folder)
    device = device_type()
    peaks = {str(d).removeprefix("torch."): measure_matmul_flops(device, d) for d in DTYPES}
    settings = {"epochs": epochs, "batches": batches, "seed": seed}
    record = environment_info(device) | {"against": against, **settings, "flops_per_second": peaks}
    file = Path(folder) / f"bench_{against}_{device}.json"
    path, old = load_previous(file, record, **settings)
    record["rows"] = old.get("rows", [])
    for name in names:
        job = _make_job(name, epochs, batches, seed)
        row = _compare(job, against, rounds, max(peaks.values()))
        record["rows"] = [other for other in record["rows"] if other["model"] != name] + [row]
        print(line(row))
        write_json(path, record)
    return record, path


def _make_job(name: str, epochs: int, batches: int | None, seed: int) -> _Job:
    """Return the job of training a network by its usual recipe, but with plain SGD."""
    usual, device = MODELS[name].recipe, device_type()
    if batches is None and device == "cpu" and usual.size > 28:
        batches = _BATCHES_ON_CPU
    train = 60_000 if batches is None else min(60_000, batches * usual.batch_size)
    return _Job(
        name, usual.size, usual.batch_size, usual.lr, epochs, train, train // 6, seed, device
    )


def _compare(job: _Job, against: str, rounds: int, peak_flops: float) -> dict:
    """Run both loops in turn and return a row of the table."""
    net = MODELS[job.model].build()
    macs = trace(net, (1, job.size, job.size)).total_macs
    with tempfile.TemporaryDirectory() as folder, quiet():
        data = _load(job, device="cpu")
        for part in ("train", "test"):
            write_images(Path(folder) / "data", part, getattr(data, part))
        images, labels = data.train.take(torch.arange(min(job.batch_size, len(data.train.labels))))
        batch = images.to(job.device), labels.to(job.device)
        loops = {"ours": Ours(job, folder), "theirs": _LOOPS[against](job, folder)}
        found: dict = {side: {"whole": [], "loader": [], "step": []} for side in loops}
        for _ in range(1 + rounds):
            for side, loop in loops.items():
                train = functools.partial(loop.train, _started(net, job))
                found[side]["whole"].append(timed(job.device, train))
        for _ in range(rounds):
            for side, loop in loops.items():
                found[side]["loader"].append(timed(job.device, loop.load)[0])
                step = functools.partial(loop.step, _started(net, job), *batch)
                found[side]["step"].append(timed(job.device, step)[0])
        ours, theirs = (_summarise(job, one, macs, peak_flops) for one in found.values())
    ratios = [b / a for a, b in zip(ours["seconds"], theirs["seconds"], strict=True)]
    return asdict(job) | {
        "commit": this_machine()["commit"],
        "data": data.source,
        "params": count_parameters(net),
        "macs": macs,
        "precision": choose_backend(job.device).precision,
        "ours": ours,
        "theirs": theirs,
        "ratio": ours["images_per_second"] / theirs["images_per_second"],
        "range": [min(ratios), max(ratios)],
        "cold_ratio": theirs["cold_seconds"] / ours["cold_seconds"],
        "step_ratio": ours["step_images_per_second"] / theirs["step_images_per_second"],
        "loader_ratio": ours["loader_images_per_second"] / theirs["loader_images_per_second"],
    }


def _summarise(job: _Job, found: dict, macs: int, peak_flops: float) -> dict:
    """Turn the measurements of one loop into its part of a row."""
    (cold, _), *warm = found["whole"]
    seconds = [taken for taken, _ in warm]
    step_rate = _STEPS_ALONE * job.batch_size / statistics.median(found["step"])
    return {
        "images_per_second": job.train * job.epochs / statistics.median(seconds),
        "seconds": seconds,
        "cold_seconds": cold,
        "peak_memory_bytes": max((peak for _, peak in warm if peak is not None), default=None),
        "loader_images_per_second": job.train / statistics.median(found["loader"]),
        "step_images_per_second": step_rate,
        # Forward once, backward twice, two operations per multiply-accumulate.
        "share_of_peak": 6 * macs * step_rate / peak_flops,
    }


def _load(job: _Job, device: str):
    """Load the images of a job as a user would."""
    return fashion_mnist(
        job.size, job.batch_size, train=job.train, test=job.test, device=device, seed=job.seed
    )


# The loops


class _Loop:
    """A way to load and train: `loaders()` -> (train, test), and `fit(net, train, test, epochs)`.

    Args:
        job: The task.
        folder: The folder that holds the images, in data/FashionMNIST/raw.
    """

    def __init__(self, job, folder):
        self.job, self.folder = job, Path(folder)

    def train(self, net):
        """Load, train, evaluate."""
        self.fit(net, *self.loaders(), self.job.epochs)

    def load(self):
        """Read every training image once."""
        for _ in self.loaders()[0]:
            pass

    def step(self, net, images, labels):
        """Train on one batch, again and again."""
        self.fit(net, [(images, labels)] * _STEPS_ALONE, [(images[:1], labels[:1])], 1)


class Ours(_Loop):
    """Our loop: fashion_mnist and fit."""

    def loaders(self):
        """Load as a user would."""
        data = _load(self.job, self.job.device)
        return data.train, data.test

    def fit(self, net, train, test, epochs):
        """Train by plain stochastic gradient descent."""
        plain, job = functools.partial(sgd, momentum=0), self.job
        data = Data(train, test, classes=(), source="bench")
        history = fit(net, data, epochs, job.lr, optimizer=plain, seed=job.seed, plot=False)
        if history.interrupted:  # fit returns early; half a run measures nothing
            raise KeyboardInterrupt

    def step(self, net, images, labels):
        """Train on one batch, again and again."""
        data = repeated_batch(images, labels, _STEPS_ALONE)
        self.fit(net, data.train, data.test, 1)


class D2L(_Loop):
    """The loop of d2l: load_data_fashion_mnist and train_ch6, unchanged but for the live plot."""

    def __init__(self, job, folder):
        from d2l import torch as d2l

        super().__init__(job, folder)
        self.d2l = d2l
        d2l.Animator = _NoPlot

    def loaders(self):
        """Load as its readers do, from a folder beside the images: d2l reads ../data."""
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        size = self.job.size if self.job.size != 28 else None
        with contextlib.chdir(work):
            return self.d2l.load_data_fashion_mnist(self.job.batch_size, resize=size)

    def fit(self, net, train, test, epochs):
        """Call train_ch6, which draws the same initial weights as ours."""
        torch.manual_seed(self.job.seed)
        self.d2l.train_ch6(net, train, test, epochs, self.job.lr, torch.device(self.job.device))


class _NoPlot:
    """An Animator that draws nothing."""

    def __init__(self, **options):
        """Accept the options of an Animator."""

    def add(self, x, y):
        """Draw nothing."""


class Strong(_Loop):
    """The loop of d2l as a careful reader improves it by the usual advice."""

    def loaders(self):
        """Build loaders with pinned memory and persistent workers."""
        steps = [transforms.ToTensor()]
        if self.job.size != 28:
            steps.insert(0, transforms.Resize(self.job.size))
        return [
            DataLoader(
                FashionMNIST(self.folder / "data", train, transforms.Compose(steps)),
                self.job.batch_size,
                shuffle=train,
                num_workers=_WORKERS,
                persistent_workers=True,
                pin_memory=self.job.device == "cuda",
            )
            for train in (True, False)
        ]

    def fit(self, net, train, test, epochs):
        """Train with channels last, autocast where it is faster, and sums kept on the device."""
        backend = choose_backend(self.job.device)
        net = net.to(self.job.device, memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(net.parameters(), self.job.lr)
        for _ in range(epochs):
            net.train()
            total = torch.zeros((), device=self.job.device)
            for images, labels in map(self.to_device, train):
                optimizer.zero_grad()
                with backend.autocast():
                    loss = F.cross_entropy(net(images), labels)
                loss.backward()
                optimizer.step()
                total += loss.detach()
            net.eval()
            with torch.inference_mode(), backend.autocast():
                for images, labels in map(self.to_device, test):
                    total += (net(images).argmax(1) == labels).sum()
            total.item()

    def to_device(self, batch):
        """Move images and labels to the device without waiting for it."""
        images, labels = batch
        images = images.to(self.job.device, non_blocking=True, memory_format=torch.channels_last)
        return images, labels.to(self.job.device, non_blocking=True)


_LOOPS: dict[str, type[_Loop]] = {"d2l": D2L, "strong": Strong}


def _started(net: nn.Module, job: _Job) -> nn.Module:
    """Return a copy of a network with the initial weights that d2l's train_ch6 draws."""

    def glorot(layer):
        if type(layer) in (nn.Linear, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)

    torch.manual_seed(job.seed)
    return copy.deepcopy(net).apply(glorot)


def write_images(root: Path, part: str, batches: Batches) -> None:
    """Write images and labels where torchvision looks for the unpacked Fashion-MNIST."""
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    prefix = {"train": "train", "test": "t10k"}[part]
    _write_idx(folder / f"{prefix}-images-idx3-ubyte", batches.images[:, 0])
    _write_idx(folder / f"{prefix}-labels-idx1-ubyte", batches.labels)


def _write_idx(path: Path, numbers: torch.Tensor) -> None:
    """Write bytes in the IDX format of MNIST.

    The first number stands for unsigned bytes (8) and the number of dimensions: 0x803 for images.
    The length of each dimension follows. All of them are big-endian 32-bit integers.
    """
    header = struct.pack(f">{1 + numbers.ndim}i", 0x800 + numbers.ndim, *numbers.shape)
    path.write_bytes(header + numbers.byte().numpy().tobytes())


# The table as text

HEADER = (
    "model           size  batch    ours/s  theirs/s   ratio  (least  most)    cold    step  loader"
)


def line(row: dict) -> str:
    """Return a row as text, aligned with HEADER."""
    return (
        f"{row['model']:<15} {row['size']:>4}  {row['batch_size']:>5}  "
        f"{row['ours']['images_per_second']:>8,.0f}  {row['theirs']['images_per_second']:>8,.0f}  "
        f"{row['ratio']:>5.2f}x  ({row['range'][0]:>5.2f} {row['range'][1]:>5.2f})  "
        f"{row['cold_ratio']:>5.2f}x  {row['step_ratio']:>5.2f}x  {row['loader_ratio']:>5.1f}x"
    )

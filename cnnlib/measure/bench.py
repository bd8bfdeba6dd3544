"""Our training loop beside another one: same network, first weights, recipe, images and machine.

Two loops run in turn (ours, theirs, ours, theirs ...): a busy moment of the machine strikes both.
The clock covers building the loaders, all epochs, and the evaluation after each.
"""

import contextlib
import copy
import functools
import gc
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import statistics
import struct
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from cnnlib import models
from cnnlib.backend import engine
from cnnlib.data import fashion_mnist
from cnnlib.recipes import recipe
from cnnlib.trace import trace
from cnnlib.train import evaluate, fit, sgd

BATCHES_ON_A_CPU = 20  # of a network for images above 28 pixels; an epoch takes most of an hour
STEPS_ALONE = 10
MACHINE = ("device", "cpu", "cores", "threads")  # what tells one from another
WORKERS = 4  # d2l's number


@dataclass(frozen=True)
class Job:
    """What both loops have to do.

    Args:
        model: Name of the network.
        size: Side of the images in pixels.
        batch_size: Images in a batch.
        lr: Learning rate of plain stochastic gradient descent.
        epochs: Passes over the training images.
        train: Training images.
        test: Test images.
        seed: Decides first weights and orders.
        device: Where both train.
    """

    model: str
    size: int
    batch_size: int
    lr: float
    epochs: int
    train: int
    test: int
    seed: int
    device: str


def bench(names, against="d2l", rounds=3, epochs=1, batches=None, seed=0, folder="my_results"):
    """Measure networks, and write the table after each of them.

    Rows of other networks from this machine, with the same versions and budget, stay in the file.
    Any other file is left as it is, and the table goes beside it.

    Args:
        names: Names of models.
        against: "d2l", its loader and train_ch6 unchanged; or "strong", the same loop with pinned
            memory, persistent workers, channels last and autocast where it pays.
        rounds: Warm runs of each loop. One cold run of each comes before.
        epochs: Passes over the training images.
        batches: Batches in an epoch. None: all of 60,000 images; on a CPU, of networks for more
            than 28 pixels, 20.
        seed: Decides first weights and orders.
        folder: Where the JSON file goes, or None.

    Returns:
        A dictionary: hardware, versions, the peak in matrix products, and a row for each network;
        and the path of the file that holds it.

    Raises:
        ValueError: There are too few batches: d2l's loop plots five times in an epoch. Or d2l is
            not installed.
    """
    if batches is not None and not 5 <= batches <= 200:
        raise ValueError(f"batches={batches} must be from 5 to 200, or None for all: try batches=5")
    if against == "d2l" and importlib.util.find_spec("d2l") is None:
        raise ValueError(
            "against='d2l' needs d2l 1.0.3, which is not installed: try pip install --no-deps "
            "d2l==1.0.3, and pip install pandas requests scipy"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    peaks = {str(dtype).removeprefix("torch."): peak(device, dtype) for dtype in PEAK_TYPES}
    budget = {"epochs": epochs, "batches": batches, "seed": seed}
    record = surroundings(device) | {"against": against, **budget, "flops_per_second": peaks}
    path, old = None, {}
    if folder is not None:
        path, old = resume(Path(folder) / f"bench_{against}_{device}.json", record, **budget)
    record["rows"] = old.get("rows", [])
    for name in names:
        job = make_job(name, epochs, batches, seed, device)
        row = compare(job, against, rounds, max(peaks.values()))
        record["rows"] = [other for other in record["rows"] if other["model"] != name] + [row]
        print(line(row))
        if path is not None:
            write_json(path, record)
    return record, path


def resume(path, about, **settings):
    """Return the file that a measurement goes into, and what that file holds already.

    A file of another machine, other versions, another precision or other settings is never touched:
    the measurement then goes into the next free name beside it, such as bench_d2l_cpu-2.json.

    Args:
        path: A JSON file, which need not exist.
        about: What `surroundings` returned here.
        settings: What the file has to hold under these names, such as its budget.

    Returns:
        The path, and a dictionary, {} of a new file.

    Raises:
        ValueError: A file is no JSON.
    """
    path = Path(path)
    for number in count(2):
        if not path.exists():
            return path, {}
        old = read_json(path)
        if isinstance(old, dict) and is_of(about, old) and settings.items() <= old.items():
            return path, old
        path = path.with_stem(f"{path.stem.removesuffix(f'-{number - 1}')}-{number}")


def is_of(about, old):
    """Return whether a measurement was made on this machine, with these versions and precision."""
    there = old.get("about", old)
    hardware = there.get("hardware", {})
    return (
        all(hardware.get(key) == about["hardware"][key] for key in MACHINE)
        and there.get("versions") == about["versions"]
        and there.get("precision", about["precision"]) == about["precision"]
    )


def read_json(path):
    """Read a JSON file; a broken one is named."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must hold JSON, and it is broken: move it away") from error


def write_json(path, record):
    """Write a JSON file, and its folder, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def make_job(name, epochs, batches, seed, device):
    """Return the job of a network by its usual recipe."""
    usual = recipe(name)
    if batches is None and device == "cpu" and usual.size > 28:
        batches = BATCHES_ON_A_CPU
    train = 60_000 if batches is None else min(60_000, batches * usual.batch_size)
    return Job(
        name, usual.size, usual.batch_size, usual.lr, epochs, train, train // 6, seed, device
    )


def compare(job, against, rounds, peak_flops):
    """Run both loops in turn and return the row of the table."""
    net = getattr(models, job.model)()
    macs = trace(net, (1, job.size, job.size)).total_macs
    images = job.train * job.epochs
    with tempfile.TemporaryDirectory() as folder, quiet():
        data = fashion_mnist(28, train=job.train, test=job.test, device="cpu", seed=job.seed)
        for part in ("train", "test"):
            write_images(Path(folder) / "data", part, getattr(data, part))
        sides = {"ours": Ours(job), "theirs": {"d2l": D2L, "strong": Strong}[against](job, folder)}
        found = {name: {"seconds": [], "peak_memory_bytes": []} for name in sides}
        for _ in range(1 + rounds):
            for name, side in sides.items():
                trained = started(net, job)
                seconds, memory = timed(job.device, lambda s=side, t=trained: s.train(t))
                found[name]["seconds"].append(seconds)
                found[name]["peak_memory_bytes"].append(memory)
                found[name]["net"] = trained
        for _ in range(rounds):
            for name, side in sides.items():
                alone = found[name].setdefault("alone", {"loader": [], "step": []})
                alone["loader"].append(timed(job.device, side.load)[0])
                trained, batch = started(net, job), first_batch(job, data)
                alone["step"].append(
                    timed(job.device, lambda s=side, t=trained, b=batch: s.step(t, *b))[0]
                )
        results = {
            name: summarise(job, one, images, macs, peak_flops) for name, one in found.items()
        }
    ours, theirs = results["ours"], results["theirs"]
    ratios = [b / a for a, b in zip(ours["seconds"], theirs["seconds"], strict=True)]
    return asdict(job) | {
        "data": data.source,
        "params": sum(p.numel() for p in net.parameters()),
        "macs": macs,
        "precision": engine(job.device).precision,
        "ours": ours,
        "theirs": theirs,
        "ratio": ours["images_per_second"] / theirs["images_per_second"],
        "spread": [min(ratios), max(ratios)],
        "cold_ratio": theirs["cold_seconds"] / ours["cold_seconds"],
        "step_ratio": ours["step_images_per_second"] / theirs["step_images_per_second"],
        "loader_ratio": ours["loader_images_per_second"] / theirs["loader_images_per_second"],
    }


def summarise(job, found, images, macs, peak_flops):
    """Turn the seconds of one loop into its part of a row."""
    cold, *warm = found["seconds"]
    loader, step = (statistics.median(found["alone"][name]) for name in ("loader", "step"))
    step_rate = STEPS_ALONE * job.batch_size / step
    test = fashion_mnist(
        job.size, job.batch_size, train=10, test=job.test, device=job.device, seed=job.seed
    ).test
    metrics = evaluate(found["net"], test, precision="fp32")
    memory = [peak for peak in found["peak_memory_bytes"][1:] if peak is not None]
    return {
        "images_per_second": images / statistics.median(warm),
        "seconds": warm,
        "cold_seconds": cold,
        "peak_memory_bytes": max(memory, default=None),
        "loader_images_per_second": job.train / loader,
        "step_images_per_second": step_rate,
        # Forward once, backward twice, two operations for a multiply-accumulate.
        "share_of_peak": 6 * macs * step_rate / peak_flops,
        "test_loss": metrics.loss,
        "test_accuracy": metrics.accuracy,
    }


# The loops. Each has train(net), load() for the loader alone, step(net, images, labels) for steps.


class Ours:
    """fashion_mnist and fit."""

    def __init__(self, job):
        self.job = job

    def data(self):
        """Load as a user does."""
        job = self.job
        return fashion_mnist(
            job.size,
            job.batch_size,
            train=job.train,
            test=job.test,
            device=job.device,
            seed=job.seed,
        )

    def train(self, net):
        """Load, train, evaluate."""
        self.fit(net, self.data(), self.job.epochs)

    def fit(self, net, data, epochs):
        """Train by plain stochastic gradient descent."""
        plain, job = functools.partial(sgd, momentum=0), self.job
        history = fit(net, data, epochs, job.lr, optimizer=plain, seed=job.seed, plot=False)
        if history.interrupted:  # fit ends early and says so; here, half a run measures nothing
            raise KeyboardInterrupt

    def load(self):
        """Read every training image once."""
        for _ in self.data().train:
            pass

    def step(self, net, images, labels):
        """Train on one batch, again and again."""
        self.fit(net, OneBatch(images, labels, STEPS_ALONE), 1)


class OneBatch:
    """What fit asks of a Data and of its batches: one batch several times, tested on one image."""

    def __init__(self, images, labels, times):
        self.images, self.labels, self.times = images, labels, times
        self.device, self.batch_size = images.device, len(images)
        self.shape, self.source, self.banner = images.shape[1:], "one batch", ""
        self.train = self

    @property
    def test(self):
        """One image."""
        return OneBatch(self.images[:1], self.labels[:1], 1)

    def reseed(self, seed):
        """Keep the order, since there is none."""

    def regroup(self, batch_size, part, parts):
        """Keep the batch."""
        return self

    def __len__(self):
        return self.times

    def __iter__(self):
        for _ in range(self.times):
            yield self.images, self.labels


class D2L:
    """d2l's load_data_fashion_mnist and train_ch6, unchanged but for the plot that moves."""

    def __init__(self, job, folder):
        from d2l import torch as d2l

        self.job, self.d2l = job, d2l
        # Its loader looks into ../data: so it runs in a folder beside ours.
        self.work = Path(folder) / "work"
        self.work.mkdir()
        d2l.Animator = NoPlot

    def loaders(self):
        """Load as its readers do."""
        size = self.job.size if self.job.size != 28 else None
        with contextlib.chdir(self.work):
            return self.d2l.load_data_fashion_mnist(self.job.batch_size, resize=size)

    def train(self, net):
        """Load, train, evaluate."""
        self.fit(net, *self.loaders(), self.job.epochs)

    def fit(self, net, train, test, epochs):
        """Call train_ch6, which draws the first weights itself: the same as ours."""
        torch.manual_seed(self.job.seed)
        self.d2l.train_ch6(net, train, test, epochs, self.job.lr, torch.device(self.job.device))

    def load(self):
        """Read every training image once."""
        for _ in self.loaders()[0]:
            pass

    def step(self, net, images, labels):
        """Train on one batch, again and again."""
        self.fit(net, [(images, labels)] * STEPS_ALONE, [(images[:1], labels[:1])], 1)


class NoPlot:
    """An Animator that draws nothing."""

    def __init__(self, **options):
        """Take what an Animator takes."""

    def add(self, x, y):
        """Draw nothing."""


class Strong:
    """What a careful reader makes of that loop with the usual advice."""

    def __init__(self, job, folder):
        self.job, self.root = job, Path(folder) / "data"
        self.run = engine(job.device, graph=False)

    def loaders(self):
        """Build loaders with pinned memory and workers that stay."""
        from torchvision import transforms
        from torchvision.datasets import FashionMNIST

        steps = [transforms.ToTensor()]
        if self.job.size != 28:
            steps.insert(0, transforms.Resize(self.job.size))
        for train in (True, False):
            images = FashionMNIST(self.root, train, transforms.Compose(steps))
            yield DataLoader(
                images,
                self.job.batch_size,
                shuffle=train,
                num_workers=WORKERS,
                persistent_workers=True,
                pin_memory=self.job.device == "cuda",
            )

    def train(self, net):
        """Load, train, evaluate."""
        self.fit(net, *self.loaders(), self.job.epochs)

    def fit(self, net, train, test, epochs):
        """Train with channels last, autocast where it pays, and sums that stay on the device."""
        net = net.to(self.job.device, memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(net.parameters(), self.job.lr)
        for _ in range(epochs):
            net.train()
            total = torch.zeros((), device=self.job.device)
            for images, labels in train:
                images, labels = self.move(images, labels)
                optimizer.zero_grad()
                with self.run.autocast():
                    loss = F.cross_entropy(net(images), labels)
                loss.backward()
                optimizer.step()
                total += loss.detach()
            net.eval()
            with torch.inference_mode(), self.run.autocast():
                for images, labels in test:
                    images, labels = self.move(images, labels)
                    total += (net(images).argmax(1) == labels).sum()
            total.item()

    def move(self, images, labels):
        """Bring a batch to the device."""
        images = images.to(self.job.device, non_blocking=True, memory_format=torch.channels_last)
        return images, labels.to(self.job.device, non_blocking=True)

    def load(self):
        """Read every training image once."""
        for _ in next(self.loaders()):
            pass

    def step(self, net, images, labels):
        """Train on one batch, again and again."""
        self.fit(net, [(images, labels)] * STEPS_ALONE, [(images[:1], labels[:1])], 1)


# What surrounds a run


def started(net, job):
    """Return a copy of a network with the first weights that d2l's train_ch6 draws."""

    def glorot(layer):
        if type(layer) in (nn.Linear, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)

    torch.manual_seed(job.seed)
    return copy.deepcopy(net).apply(glorot)


def first_batch(job, data):
    """Return one batch, resized and on the device."""
    batches = copy.copy(data.train)
    batches.size = (job.size, job.size)
    images, labels = batches.take(torch.arange(min(job.batch_size, len(batches.labels))))
    return images.to(job.device), labels.to(job.device)


def write_images(root, part, batches):
    """Write images and labels where torchvision looks for the unpacked Fashion-MNIST."""
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    prefix = {"train": "train", "test": "t10k"}[part]
    images, labels = batches.images[:, 0].numpy(), batches.labels.byte().numpy()
    header = struct.pack(">4i", 0x803, *images.shape)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    header = struct.pack(">2i", 0x801, len(labels))
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def timed(device, action):
    """Return the seconds that an action takes until the device is done, and the peak memory."""
    gc.collect()
    reset_peak_memory(device)
    start = time.perf_counter()
    action()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, peak_memory(device)


def reset_peak_memory(device):
    """Begin to measure: on a GPU what torch allocates, on Linux what this process holds."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device):
    """Return the bytes held at the worst moment; workers of a loader are not counted."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError):
        for entry in Path("/proc/self/status").read_text().splitlines():
            if entry.startswith("VmHWM:"):
                return int(entry.split()[1]) * 1024
    return None


PEAK_TYPES = (torch.float32, torch.bfloat16)


def peak(device, dtype, seconds=2.0):
    """Measure the operations a second in the product of two matrices."""
    side = 8192 if device == "cuda" else 1536
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    end, fastest = time.perf_counter() + seconds, float("inf")
    while time.perf_counter() < end or fastest == float("inf"):
        taken, _ = timed(device, lambda: matrix @ matrix)
        fastest = min(fastest, taken)
    return 2 * side**3 / fastest


@contextlib.contextmanager
def quiet():
    """Print nothing and move nothing: both loops would."""
    before = os.environ.get("CNNLIB_LIVE")
    os.environ["CNNLIB_LIVE"] = "0"
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # d2l starts more workers than a small machine has
            yield
    finally:
        os.environ.pop("CNNLIB_LIVE")
        if before is not None:
            os.environ["CNNLIB_LIVE"] = before


def surroundings(device):
    """Say on what machine, and with what, a table was measured."""
    versions = {}
    for name in ("torch", "torchvision", "d2l", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": {
            "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        },
        "versions": {"python": platform.python_version(), **versions},
        "precision": engine(device).precision,
    }


def cpu_name():
    """Return the processor's name, where the system tells it."""
    with contextlib.suppress(OSError):
        for entry in Path("/proc/cpuinfo").read_text().splitlines():
            if entry.startswith("model name"):
                return entry.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# The table as text

HEADER = (
    "model           size  batch    ours/s  theirs/s   ratio  (least  most)    cold    step  loader"
)


def line(row):
    """Return a row as text, aligned with HEADER."""
    return (
        f"{row['model']:<15} {row['size']:>4}  {row['batch_size']:>5}  "
        f"{row['ours']['images_per_second']:>8,.0f}  {row['theirs']['images_per_second']:>8,.0f}  "
        f"{row['ratio']:>5.2f}x  ({row['spread'][0]:>5.2f} {row['spread'][1]:>5.2f})  "
        f"{row['cold_ratio']:>5.2f}x  {row['step_ratio']:>5.2f}x  {row['loader_ratio']:>5.1f}x"
    )

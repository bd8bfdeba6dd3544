"""The leaderboard: what each network costs, how fast it trains, how well it does; all alike."""

import copy
import functools
import json
import math
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnnlib import models
from cnnlib.data import fashion_mnist
from cnnlib.measure.bench import OneBatch, peak, quiet, surroundings, timed, write_json
from cnnlib.models.beyond import NARROW_BLOCKS
from cnnlib.recipes import recipe
from cnnlib.trace import trace
from cnnlib.train import adamw, fit, one_cycle, sgd


@dataclass(frozen=True)
class Budget:
    """What every network of a leaderboard is given.

    Args:
        train: Training images.
        test: Test images.
        epochs: Passes over the training images. The accuracy is that after the last one.
        seeds: Trainings of each network. The seed decides first weights and orders.
        batch_size: Images in a batch; None: that of the network's usual recipe.
        lr: Highest learning rate of AdamW, in one cycle; None: the network's usual recipe, by
            stochastic gradient descent at a constant rate.
    """

    train: int
    test: int
    epochs: int
    seeds: int
    batch_size: int | None = None
    lr: float | None = None


CLASSIC = Budget(60_000, 10_000, epochs=10, seeds=3)  # the published comparison
QUICK = Budget(2_048, 1_000, epochs=2, seeds=3, batch_size=32, lr=1e-3)

# The networks of the comparison: a function that builds each, and the side of its images in pixels.
NETWORKS = {
    name: (getattr(models, name), recipe(name).size)
    for name in (
        "lenet",
        "alexnet",
        "vgg11_quarter",
        "nin",
        "googlenet",
        "resnet18",
        "densenet_d2l",
    )
} | {
    f"narrow {name}": (functools.partial(models.narrow_resnet, block=block), 28)
    for name, block in NARROW_BLOCKS.items()
}


@dataclass(frozen=True)
class Entry:
    """The row of one network.

    Args:
        name: What the row is called.
        size: Side of its images in pixels.
        batch_size: Images in a batch.
        params: Learnable numbers.
        macs: Multiply-accumulates of one image, forward.
        step_traffic: Bytes that its operations read and write, each tensor once an operation.
        step_memory: Bytes that it holds at least: weights, gradients, and what the forward pass
            keeps for the backward pass.
        images_per_second: Training steps alone, on a batch that is there.
        accuracies: Fraction of the test images, a number for each seed, after the last epoch.
    """

    name: str
    size: int
    batch_size: int
    params: int
    macs: int
    step_traffic: int
    step_memory: int
    images_per_second: float
    accuracies: list

    @property
    def accuracy(self):
        """The mean over the seeds."""
        return statistics.mean(self.accuracies)

    @property
    def spread(self):
        """The standard deviation over the seeds; of one seed there is none."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else math.nan

    @property
    def step_flops(self):
        """Operations of one training step: forward once, backward twice, two for each MAC.

        The first layer needs a little less: its images need no gradient.
        """
        return 6 * self.macs * self.batch_size

    @property
    def flops_per_second(self):
        """Operations a second while it trained."""
        return self.images_per_second * self.step_flops / self.batch_size

    @property
    def intensity(self):
        """Operations for each byte that is read or written."""
        return self.step_flops / self.step_traffic


@dataclass
class Leaderboard:
    """Networks that were measured in the same way, on the same machine.

    Args:
        budget: What each of them is given.
        about: Date, hardware and versions, and the machine's two limits: peak_flops, operations a
            second in a product of matrices, and bandwidth, bytes a second in a copy.
        rows: The entries.
    """

    budget: Budget
    about: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)

    def add(self, name, build, size=None, device=None):
        """Measure a network and append its row; one of the same name gives way.

        Args:
            name: What the row is called. Where it is a model's, its usual recipe holds.
            build: A function without arguments that builds the network, with new weights.
            size: Side of its images in pixels. None: that of the usual recipe.
            device: None: the GPU where there is one, else the CPU.

        Returns:
            The Entry.
        """
        budget, usual = self.budget, recipe(name)
        data = fashion_mnist(
            size or usual.size,
            budget.batch_size or usual.batch_size,
            train=budget.train,
            test=budget.test,
            device=device,
        )
        if data.banner:
            print(data.banner)
        self.about = (self.about or limits(data.device.type)) | {"data": data.source}
        settings = fit_settings(budget, usual)
        images, labels = next(iter(data.train))
        accuracies = []
        for seed in range(budget.seeds):
            torch.manual_seed(seed)
            net = build()
            with quiet():
                history = fit(net, data, budget.epochs, seed=seed, plot=False, **settings)
            if history.interrupted:
                raise KeyboardInterrupt
            accuracies.append(history.last["test_accuracy"])
            print(f"{name}, seed {seed}: {accuracies[-1]:.3f} of the test images", flush=True)
        entry = Entry(
            name,
            data.shape[1],
            data.train.batch_size,
            **costs(net, data.shape, data.train.batch_size),
            images_per_second=training_rate(net, images, labels),
            accuracies=accuracies,
        )
        self.rows = [row for row in self.rows if row.name != name] + [entry]
        return entry

    def __getitem__(self, name):
        """Return the row of a network."""
        return next(row for row in self.rows if row.name == name)

    def __str__(self):
        lines = [
            "network          size      params        MACs   memory  accuracy  spread"
            "   images/s  GFLOP/s  of peak"
        ]
        lines += [
            f"{row.name:15}  {row.size:4}  {row.params:10,}  {row.macs / 1e6:8,.1f} M"
            f"  {row.step_memory / 1e6:5,.0f} M  {row.accuracy:8.3f}  {row.spread:6.3f}"
            f"  {row.images_per_second:9,.0f}  {row.flops_per_second / 1e9:7,.0f}"
            f"  {row.flops_per_second / self.about['peak_flops']:7.0%}"
            for row in self.rows
        ]
        return "\n".join(lines)

    __repr__ = __str__

    def write(self, path):
        """Write the table to a JSON file."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path):
        """Read a table that `write` wrote."""
        return cls.from_record(json.loads(Path(path).read_text(encoding="utf-8")))

    @classmethod
    def from_record(cls, record):
        """Return the table of what a JSON file holds."""
        rows = [Entry(**row) for row in record["rows"]]
        return cls(Budget(**record["budget"]), record["about"], rows)


def fit_settings(budget, usual):
    """Return learning rate, optimiser and schedule as `fit` takes them."""
    if budget.lr is None:
        return {"lr": usual.lr, "optimizer": functools.partial(sgd, momentum=usual.momentum)}
    return {"lr": budget.lr, "optimizer": adamw, "schedule": one_cycle}


def pareto(rows, cost):
    """Return the rows that no other row beats, the cheapest first.

    A row is beaten where another is at least as accurate for at most the same cost, and better in
    one of both.

    Args:
        rows: Entries.
        cost: A function of an entry: less is better.
    """
    front, best = [], -math.inf
    for row in sorted(rows, key=lambda row: (cost(row), -row.accuracy)):
        if row.accuracy > best:
            front.append(row)
            best = row.accuracy
    return front


# The costs of a training step. Nothing is timed, so they are the same on every machine.


def costs(net, shape, batch_size):
    """Count what one training step of a network costs, on tensors without memory.

    Args:
        net: A network; it stays as it is.
        shape: (C, H, W) of an image.
        batch_size: Images in a batch.

    Returns:
        A dictionary: params, macs, step_traffic, step_memory, as in `Entry`.
    """
    table = trace(net, shape)
    net = copy.deepcopy(net).to("meta").train()
    images = torch.empty(batch_size, *shape, device="meta")
    labels = torch.empty(batch_size, dtype=torch.long, device="meta")
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with Traffic() as traffic:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = F.cross_entropy(net(images), labels)
        loss.backward()
    weights = {p.untyped_storage()._cdata: p.untyped_storage() for p in net.parameters()}
    gradients = sum(storage.nbytes() for storage in weights.values())
    return {
        "params": table.total_params,
        "macs": table.total_macs,
        "step_traffic": traffic.bytes,
        "step_memory": sum(s.nbytes() for s in (kept | weights).values()) + gradients,
    }


class Traffic(TorchDispatchMode):
    """Count the bytes that operations read and write: each tensor once an operation."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        """Run one operation. A view, as a reshape, moves nothing."""
        result = operation(*args, **(kwargs or {}))
        if not operation.is_view:
            tensors = {id(t): t for t in tree_leaves((args, kwargs, result))}.values()
            self.bytes += sum(t.nbytes for t in tensors if isinstance(t, torch.Tensor))
        return result


# What is timed


def training_rate(net, images, labels, seconds=1.0):
    """Return images a second of training steps alone: the median of three times `seconds`."""

    def steps(count):
        with quiet():
            fit(net, OneBatch(images, labels, count), 1, lr=1e-6, plot=False)

    device = images.device.type
    timed(device, lambda: steps(2))
    taken, _ = timed(device, lambda: steps(2))
    count = max(2, math.ceil(2 * seconds / taken))
    times = [timed(device, lambda: steps(count))[0] for _ in range(3)]
    return count * len(images) / statistics.median(times)


def limits(device):
    """Return what a machine is, its operations a second, and the bytes a second of a copy."""
    source = torch.ones(64 * 2**20, device=device)
    target = torch.empty_like(source)
    fastest = min(timed(device, lambda: target.copy_(source))[0] for _ in range(5))
    return surroundings(device) | {
        "peak_flops": max(peak(device, dtype) for dtype in (torch.float32, torch.bfloat16)),
        "bandwidth": 2 * source.nbytes / fastest,
    }

"""The leaderboard: cost, training speed and accuracy of networks, all measured alike."""

import copy
import functools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnnlib._checks import check_count, check_number
from cnnlib.data import fashion_mnist
from cnnlib.data.batches import LARGEST_BATCH
from cnnlib.measure.machine import (
    check_build,
    device_type,
    environment_info,
    final_accuracy,
    measure_limits,
    measure_training_rate,
    quiet,
)
from cnnlib.measure.records import load_previous, read_json, write_json
from cnnlib.models import MODELS, Recipe
from cnnlib.trace import trace
from cnnlib.train import adamw, fit, one_cycle, sgd


@dataclass(frozen=True)
class Protocol:
    """How every network of a leaderboard is trained and tested.

    Args:
        train: Training images.
        test: Test images.
        epochs: Passes over the training images. The accuracy is measured after the last one.
        seeds: Training runs per network. The seed sets the initial weights and the orders.
        batch_size: Images per batch. None: as in the recipe of the network.
        lr: Highest learning rate of AdamW with one cycle. None: the recipe of the network, by
            stochastic gradient descent at a constant learning rate.
    """

    train: int
    test: int
    epochs: int
    seeds: int
    batch_size: int | None = None
    lr: float | None = None

    def __post_init__(self):
        for name, usual in {"train": 2048, "test": 1000, "epochs": 2, "seeds": 3}.items():
            object.__setattr__(self, name, check_count(name, getattr(self, name), usual=usual))
        if self.batch_size is not None:
            size = check_count("batch_size", self.batch_size, LARGEST_BATCH, usual=32)
            object.__setattr__(self, "batch_size", size)
        if self.lr is not None:
            object.__setattr__(self, "lr", check_number("lr", self.lr, usual=0.001))


CLASSIC = Protocol(60_000, 10_000, epochs=10, seeds=3)  # as published, but for the initial weights
SMALL = Protocol(2_048, 1_000, epochs=2, seeds=3, batch_size=32, lr=1e-3)
PROTOCOLS = {"classic": CLASSIC, "small": SMALL}


@dataclass(frozen=True)
class Entry:
    """The row of one network.

    Args:
        name: The name of the row.
        size: Side of its images in pixels.
        batch_size: Images per batch.
        params: Number of learnable parameters.
        macs: Multiply-accumulates of a forward pass per image.
        step_traffic: Bytes that a step reads and writes, each tensor once per operation.
        step_memory: Bytes that a step holds at least: weights, gradients, and what the forward pass
            keeps for the backward pass.
        images_per_second: Speed of training steps alone, on a batch that is already on the device.
        accuracies: Test accuracy after the last epoch, as a fraction, one number per seed.
    """

    name: str
    size: int
    batch_size: int
    params: int
    macs: int
    step_traffic: int
    step_memory: int
    images_per_second: float
    accuracies: list[float]

    def __post_init__(self):
        _check_name("name", self.name)
        for name in ("size", "batch_size", "params", "macs", "step_traffic", "step_memory"):
            check_count(name, getattr(self, name), usual=1)
        check_number("images_per_second", self.images_per_second, usual=1000)
        if not isinstance(self.accuracies, list) or not self.accuracies:
            raise ValueError(f"accuracies={self.accuracies!r} must be a list: try [0.9]")
        for accuracy in self.accuracies:
            check_number("accuracies", accuracy, least=0, usual=0.9)

    @property
    def accuracy(self) -> float:
        """The mean accuracy over the seeds."""
        return statistics.mean(self.accuracies)

    @property
    def std(self) -> float:
        """The standard deviation of the accuracy over the seeds; NaN for a single seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else math.nan

    @property
    def step_flops(self) -> int:
        """Operations of one training step: one forward and two for backward, two per MAC.

        The first layer needs slightly less, since its images need no gradient.
        """
        return 6 * self.macs * self.batch_size

    @property
    def flops_per_second(self) -> float:
        """Operations per second during training."""
        return self.images_per_second * self.step_flops / self.batch_size

    @property
    def intensity(self) -> float:
        """Operations per byte read or written."""
        return self.step_flops / self.step_traffic


@dataclass
class Leaderboard:
    """Networks that were measured in the same way on the same machine.

    Args:
        protocol: How each network is trained and tested.
        about: Date, hardware, versions, precision and the limits of the machine, as in
            `environment_info` and `measure_limits`.
        rows: One Entry per network.
    """

    protocol: Protocol
    about: dict = field(default_factory=dict)
    rows: list[Entry] = field(default_factory=list)

    def __post_init__(self):
        _check_protocol(self.protocol)
        is_list = isinstance(self.rows, list) and all(isinstance(row, Entry) for row in self.rows)
        if not is_list or not isinstance(self.about, dict):
            raise ValueError("rows must be a list of entries, and about a dictionary: try neither")

    def add(
        self,
        name: str,
        build: Callable[[], nn.Module] | None = None,
        *,
        size: int | None = None,
        recipe: Recipe | None = None,
        device: str | None = None,
    ) -> Entry:
        """Measure a network and append its row, which replaces any row of the same name.

        `board.add("resnet18")` measures a model of the table MODELS, and `board.add("mine", build)`
        a network of your own.

        Args:
            name: The name of the row; without `build`, the name of a model.
            build: A function without arguments that builds the network with new weights.
            size: Side of the images in pixels. None: as in the recipe; 28 for a network of your own
                without one.
            recipe: How to train this network, instead of by the protocol.
            device: A torch device. None: a GPU if there is one, else the CPU.

        Returns:
            The Entry.

        Raises:
            ValueError: There is no model of this name, neither the protocol nor you give a recipe
                for a network of your own, the network does not take these images, or `build`
                returns the same weights again.
        """
        _check_name("name", name)
        if build is not None:
            check_build(build)
        if not isinstance(recipe, Recipe | None):
            raise ValueError(
                f"recipe={recipe!r} must be a Recipe: try Recipe(size=28, batch_size=128, lr=0.05)"
            )
        protocol = (
            self.protocol if recipe is None else replace(self.protocol, batch_size=None, lr=None)
        )
        if build is None:
            if name not in MODELS:
                raise ValueError(
                    f"name={name!r} must be a model where build is None: try build=your_function"
                )
            if MODELS[name].family == "segmentation":
                raise ValueError(
                    f"name={name!r} must classify images, not pixels: try name='lenet'"
                )
            build, recipe = MODELS[name].build, recipe or MODELS[name].recipe
        elif recipe is None:
            recipe = _recipe_of(protocol)
        data = fashion_mnist(
            recipe.size if size is None else size,
            protocol.batch_size or recipe.batch_size,
            train=protocol.train,
            test=protocol.test,
            device=device,
        )
        if data.banner:
            print(data.banner)
        self.about = (self.about or _about(data.device.type)) | {"data": data.source}
        settings = _fit_settings(protocol, recipe)
        cost = costs(build(), data.shape, data.train.batch_size)  # refuses what does not fit
        accuracies = []
        for seed in range(check_count("seeds", protocol.seeds, usual=3)):
            torch.manual_seed(seed)
            net = build()
            with quiet():
                history = fit(net, data, protocol.epochs, seed=seed, plot=False, **settings)
            accuracies.append(final_accuracy(history))
            print(f"{name}, seed {seed}: {accuracies[-1]:.3f} of the test images", flush=True)
        images, labels = next(data.train.epoch(1))
        entry = Entry(
            name,
            data.shape[1],
            data.train.batch_size,
            **cost,
            images_per_second=measure_training_rate(net, images, labels),
            accuracies=accuracies,
        )
        self.rows = [row for row in self.rows if row.name != name] + [entry]
        return entry

    def __getitem__(self, name: str) -> Entry:
        """Return the row of a network.

        Raises:
            ValueError: There is no such row.
        """
        rows = {row.name: row for row in self.rows}
        if not isinstance(name, str) or name not in rows:
            raise ValueError(f"name={name!r} must be a row: try one of {list(rows)}, or add it")
        return rows[name]

    def __str__(self) -> str:
        lines = [
            "network          size      params        MACs   memory  accuracy     std"
            "   images/s  GFLOP/s  of peak"
        ]
        lines += [
            f"{row.name:15}  {row.size:4}  {row.params:10,}  {row.macs / 1e6:8,.1f} M"
            f"  {row.step_memory / 1e6:5,.0f} M  {row.accuracy:8.3f}  {row.std:6.3f}"
            f"  {row.images_per_second:9,.0f}  {row.flops_per_second / 1e9:7,.0f}"
            f"  {row.flops_per_second / self.about.get('peak_flops', math.nan):7.0%}"
            for row in self.rows
        ]
        return "\n".join(lines)

    __repr__ = __str__

    def write(self, path: str | Path) -> None:
        """Write the table to a JSON file."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: str | Path) -> "Leaderboard":
        """Read a table that `write` wrote.

        Raises:
            ValueError: There is no such file, or it holds no leaderboard.
        """
        return cls._from_record(read_json(path), path)

    @classmethod
    def resume(cls, path: str | Path, protocol: Protocol) -> tuple["Leaderboard", Path]:
        """Return the table in a file of this machine and protocol, or else an empty one.

        The second result is the path of that file or of a new one, as in `load_previous`.
        """
        _check_protocol(protocol)
        about = _about(device_type())
        path, old = load_previous(path, about, protocol=asdict(protocol))
        return cls._from_record(old, path) if old else cls(protocol, about), path

    @classmethod
    def _from_record(cls, record: dict, path: str | Path) -> "Leaderboard":
        try:
            rows = [Entry(**row) for row in record["rows"]]
            return cls(Protocol(**record["protocol"]), record["about"], rows)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} must hold a leaderboard, and it does not: move it away"
            ) from error


def _about(device: str) -> dict:
    """Return a description of the machine and its limits."""
    return environment_info(device) | measure_limits(device)


def _recipe_of(protocol: Protocol) -> Recipe:
    """Return the recipe that a protocol sets for every network, on 28-pixel images."""
    if protocol.batch_size is None or protocol.lr is None:
        raise ValueError(
            "recipe=None must be a Recipe, since this protocol leaves it to each network: try "
            "recipe=Recipe(size=28, batch_size=128, lr=0.05)"
        )
    return Recipe(28, protocol.batch_size, protocol.lr)


def _check_name(argument: str, name: Any) -> None:
    """Refuse anything that cannot name a row."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"{argument}={name!r} must be a text: try {argument}='lenet'")


def _check_protocol(protocol: Any) -> None:
    """Refuse anything that is not a Protocol, such as its name."""
    if not isinstance(protocol, Protocol):
        raise ValueError(f"protocol={protocol!r} must be a Protocol: try leaderboard.SMALL")


def _fit_settings(protocol: Protocol, recipe: Recipe) -> dict:
    """Return learning rate, optimiser and schedule as arguments of `fit`."""
    if protocol.lr is None:
        return {"lr": recipe.lr, "optimizer": functools.partial(sgd, momentum=recipe.momentum)}
    return {"lr": protocol.lr, "optimizer": adamw, "schedule": one_cycle}


def pareto(rows: Sequence[Entry], cost: Callable[[Entry], float]) -> list[Entry]:
    """Return the rows that no other row beats, the cheapest first.

    One row beats another if it is at least as accurate at no greater cost, and better in one of the
    two.

    Args:
        rows: The entries to compare.
        cost: A function of an entry; less is better.

    Raises:
        ValueError: There is anything but entries, or a cost is not a finite number.
    """
    if not isinstance(rows, list | tuple) or not all(hasattr(row, "accuracy") for row in rows):
        raise ValueError(f"rows of type {type(rows).__name__} must be entries: try board.rows")
    if isinstance(cost, nn.Module) or not callable(cost):
        raise ValueError(f"cost={cost!r} must be a function of an entry: try lambda row: row.macs")
    for row in rows:
        check_number("cost", cost(row), least=0, usual=1)
    front, best = [], -math.inf
    for row in sorted(rows, key=lambda row: (cost(row), -row.accuracy)):
        if row.accuracy > best:
            front.append(row)
            best = row.accuracy
    return front


# The costs of a training step. Nothing is timed, so they are the same on every machine.


def costs(net: nn.Module, shape: tuple[int, int, int], batch_size: int) -> dict[str, int]:
    """Count the cost of one training step of a network, on tensors without memory.

    Args:
        net: A network, which is not changed.
        shape: (C, H, W) of an image.
        batch_size: Images per batch.

    Returns:
        A dictionary with params, macs, step_traffic and step_memory, as in `Entry`.
    """
    table = trace(net, shape)
    batch_size = check_count("batch_size", batch_size, LARGEST_BATCH)
    net = copy.deepcopy(net).to("meta").train()
    images = torch.empty(batch_size, *shape, device="meta")
    labels = torch.empty(batch_size, dtype=torch.long, device="meta")
    kept = set()  # tensors that share their numbers have the same storage

    def keep(tensor):
        kept.add(tensor.untyped_storage())
        return tensor

    try:
        with Traffic() as traffic:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = F.cross_entropy(net(images), labels)
            loss.backward()
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"net={type(net).__name__} must give scores (N, classes) that the cross-entropy can "
            f"train, on tensors without memory, but that fails: {error}: try cnnlib.models.lenet()"
        ) from error
    weights = {p.untyped_storage() for p in net.parameters()}
    gradients = sum(storage.nbytes() for storage in weights)
    return {
        "params": table.total_params,
        "macs": table.total_macs,
        "step_traffic": traffic.bytes,
        "step_memory": sum(s.nbytes() for s in kept | weights) + gradients,
    }


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write, each tensor once per operation."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        """Run one operation. A view, such as a reshape, moves nothing."""
        result = operation(*args, **(kwargs or {}))
        if not operation.is_view:
            tensors = {id(t): t for t in tree_leaves((args, kwargs, result))}.values()
            self.bytes += sum(t.nbytes for t in tensors if isinstance(t, torch.Tensor))
        return result

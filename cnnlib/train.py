"""The training loop, its evaluation, and the record that it leaves."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from cnnlib import preflight, progress
from cnnlib.backend import Backend, choose_backend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cnnlib.data import Batches, Data


def budget() -> str:
    """Return how much to train: the environment variable CNNLIB_BUDGET, if it is set.

    "quick" is live on a CPU, and the default there; "study" is what a claim needs on a CPU, run
    once and recorded; "full" is for a GPU, and the default there.

    Raises:
        ValueError: CNNLIB_BUDGET is none of the three.
    """
    wanted = os.environ.get("CNNLIB_BUDGET") or ("full" if torch.cuda.is_available() else "quick")
    if wanted not in ("quick", "study", "full"):
        raise ValueError(
            f"CNNLIB_BUDGET={wanted!r} must be 'quick', 'study' or 'full': try CNNLIB_BUDGET=quick"
        )
    return wanted


# Optimisers and schedules. On a GPU a step is replayed as a CUDA graph, which runs no Python. So
# the optimiser is fused: its kernel reads the learning rate from a tensor on the device. Adam also
# counts its steps there (capturable). A schedule may change the learning rate only: every other
# setting is part of the graph, so `one_cycle` leaves the momentum, for Adam beta1, as it is.


def sgd(
    parameters: Iterable[Tensor], lr: float, momentum: float = 0.9, **settings: Any
) -> Optimizer:
    """Build the default optimiser: stochastic gradient descent, with torch's other settings."""
    parameters = list(parameters)
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    optimizer = SGD(parameters, lr, momentum, fused=fused, **settings)
    if momentum:
        for p in parameters:  # the fused one wants all of them, and some gradients may come later
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def nesterov(parameters: Iterable[Tensor], lr: float) -> Optimizer:
    """Build SGD with Nesterov's momentum of 0.9 and a weight decay of 5e-4."""
    return sgd(parameters, lr, weight_decay=5e-4, nesterov=True)


def adamw(parameters: Iterable[Tensor], lr: float) -> Optimizer:
    """Build Adam with decoupled weight decay, the optimiser that forgives most."""
    parameters = list(parameters)
    return AdamW(parameters, lr, fused=True, capturable=all(p.is_cuda for p in parameters))


def constant(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Build the default schedule: the learning rate stays what it is."""
    return ConstantLR(optimizer, factor=1.0)


def one_cycle(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Build a schedule that climbs to the learning rate and then falls to nearly nothing.

    Source:
        Smith and Topin 2019.
    Departures:
        The momentum is not cycled.
    """
    highest = optimizer.param_groups[0]["lr"]
    return OneCycleLR(optimizer, highest, total_steps=steps, cycle_momentum=False)


def fit(
    net: nn.Module,
    data: Data,
    epochs: int,
    lr: float,
    *,
    optimizer: Callable[..., Optimizer] | None = None,
    schedule: Callable[..., LRScheduler] | None = None,
    loss: Callable[..., Tensor] | None = None,
    seed: int = 0,
    precision: str = "auto",
    checkpoint: str | os.PathLike | None = None,
    graph: bool = True,
    plot: bool = True,
) -> History:
    """Train a network, and evaluate it on the test images after each epoch.

    The network moves to the device of the data and is trained in place; a lazy one is initialised.
    The Stop button (KeyboardInterrupt) ends training early: the network keeps what it has learned,
    and the History the losses of the unfinished epoch.

    In processes that torchrun started, each one trains on its part of every batch, and the first
    one prints, draws and writes. The mean gradient and the loss are those of the whole batch; batch
    normalisation sees the part only, and keeps the running statistics of the first process.

    Args:
        net: A network that takes the images of `data` and returns a score for each class. In
            training it may return a tuple, with these scores first, for a `loss` that takes it.
        data: A `Data`, with its train and test batches.
        epochs: Passes over the training images.
        lr: Learning rate; the schedule multiplies or replaces it.
        optimizer: A function (parameters, lr) -> optimizer. None: `sgd`.
        schedule: A function (optimizer, steps) -> learning rate scheduler, stepped after each
            batch. None: `constant`.
        loss: A function (outputs, labels) -> mean loss of the batch. None: the cross-entropy.
        seed: Decides the order of the images and what dropout drops, not the initial weights.
        precision: "bf16"; "fp32", whose numbers are those of a loop written out; or "auto": what
            the environment variable CNNLIB_PRECISION says, else what is fastest on this machine.
            The History says which one it was.
        checkpoint: A path. After each epoch the weights are written there, whole or not at all.
        graph: On a GPU, with a fused optimiser: capture the step as a CUDA graph and replay it.
            Say False if `net` or `loss` has side effects in Python, such as appending to a list.
        plot: In a notebook, show a table and the curve of the loss. False: print a line per epoch,
            which suits several short runs in one cell.

    Returns:
        The History, one row per epoch.

    Raises:
        ValueError: An argument is out of range or of the wrong kind, or the network does not fit
            the data.
        DivergenceError: The loss became infinite or not a number. This error, and any other that
            ends training, has the History of the epochs before as its `history`.
    """
    preflight.check_network(net)
    preflight.check_recipe(data, epochs, lr, seed, checkpoint)
    preflight.check_functions(optimizer, schedule, loss)
    backend = choose_backend(data.device, precision, graph)
    batches = backend.shard(data.train)
    backend = preflight.check_training(net, data, backend, loss)
    model = backend.parallel(backend.to_device(net))
    optim = (optimizer or sgd)(net.parameters(), lr)
    scheduler = (schedule or constant)(optim, epochs * len(batches))
    criterion = loss or F.cross_entropy
    torch.manual_seed(seed + backend.rank)

    def step(images, labels):
        optim.zero_grad()
        with backend.autocast():
            outputs = model(backend.to_memory_format(images))
            batch_loss = criterion(outputs, labels)
        batch_loss.backward()
        optim.step()
        return batch_loss.detach(), _count_correct(outputs, labels)

    step = backend.maybe_capture(step, net, optim)
    history = History(_describe(net, data, backend, epochs, lr, seed, len(batches)), data.banner)
    display = progress.show_progress(history, plot, silent=backend.rank > 0)
    try:
        with backend.retain_heap():
            for epoch in range(1, epochs + 1):
                net.train()
                metrics = EpochMetrics(epoch, backend)
                for number, (images, labels) in enumerate(batches.epoch(epoch, seed), start=1):
                    batch_loss, correct = step(images, labels)
                    metrics.add(batch_loss, correct, labels, lr=optim.param_groups[0]["lr"])
                    scheduler.step()
                    if number % backend.steps_between_reads == 0:
                        history.losses += metrics.read()
                    display.after_batch()
                history.losses += metrics.read()
                history.rows.append(metrics.finish(_measure(net, data.test, criterion, backend)))
                display.after_epoch()
                if checkpoint is not None and backend.rank == 0:
                    _save(net, checkpoint)
    except KeyboardInterrupt:
        history.interrupted = True
    except Exception as error:
        error.history = history  # type: ignore[attr-defined]
        raise
    finally:
        display.close()
        net.eval()
    return history


def _count_correct(outputs, labels):
    """Return how many labels the scores predict; of a tuple of outputs, the first has them."""
    scores = outputs[0] if isinstance(outputs, tuple) else outputs
    return (scores.argmax(1) == labels).sum()


def evaluate(
    net: nn.Module,
    batches: Batches,
    loss: Callable[..., Tensor] | None = None,
    precision: str = "auto",
) -> Metrics:
    """Measure a network on labelled images, without training it.

    The network moves to the device of the batches and is left in evaluation mode. All processes
    must call this, each with the whole batches.

    Args:
        net: A network that returns a score for each class.
        batches: The train or test batches of a `Data`.
        loss: A function (outputs, labels) -> mean loss of the batch. None: the cross-entropy.
        precision: As in `fit`.

    Returns:
        The Metrics.

    Raises:
        ValueError: The network does not take the images.
    """
    preflight.check_network(net)
    preflight.check_batches(batches)
    preflight.check_functions(loss=loss)
    backend = choose_backend(batches.device, precision)
    backend = preflight.check_evaluation(net, batches, backend)
    return _measure(net, batches, loss or F.cross_entropy, backend)


def _measure(net, batches, loss, backend):
    """Measure a network as `evaluate` does. All processes must call this: they share the work.

    Each keeps the buffers of the first one.
    """
    backend.to_device(net).eval()  # outside inference mode, where moved weights could not train on
    with torch.inference_mode():
        backend.broadcast_buffers(net)
        total_loss, confusion = 0, 0
        for images, labels in backend.shard_for_evaluation(batches):
            with backend.autocast():
                outputs = net(backend.to_memory_format(images))
                total_loss += loss(outputs, labels) * len(labels)
            classes = outputs.shape[1]
            cells = labels.flatten() * classes + outputs.argmax(1).flatten()
            confusion += torch.bincount(cells, minlength=classes**2).view(classes, classes)
        total_loss, confusion = map(backend.all_reduce_sum, (total_loss, confusion))
    return Metrics(total_loss.item() / len(batches.labels), confusion.cpu())


def gradient_norms(net: nn.Module, images: Tensor, labels: Tensor) -> list[float]:
    """Return the norm of the gradient of each convolution's weight, first layer first.

    1x1 convolutions, such as the projection of a shortcut, are left out. The network is left in
    training mode, and keeps no gradient.

    Raises:
        ValueError: There is no larger convolution.
    """
    weights = [
        module.weight
        for module in net.modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)
    ]
    if not weights:
        raise ValueError(
            f"net={type(net).__name__} has no convolution larger than 1x1: try a network with one"
        )
    loss = F.cross_entropy(net.train()(images), labels)
    return [gradient.norm().item() for gradient in torch.autograd.grad(loss, weights)]


@dataclass(frozen=True)
class Metrics:
    """What an evaluation found.

    Args:
        loss: Mean loss, in nats where it is the cross-entropy.
        confusion: Counts (K, K): a row for each true class, a column for each predicted one.
    """

    loss: float
    confusion: Tensor

    @property
    def accuracy(self) -> float:
        """The fraction of labels that were predicted."""
        return (self.confusion.trace() / self.confusion.sum()).item()

    @property
    def mean_iou(self) -> float:
        """The mean, over the classes that occur, of intersection over union.

        Of the pixels that are a class or were taken for it, the fraction that are both.
        """
        both = self.confusion.diag()
        either = self.confusion.sum(0) + self.confusion.sum(1) - both
        return (both / either)[either > 0].mean().item()


class DivergenceError(FloatingPointError):
    """The loss became infinite or not a number. `history` holds the epochs before."""


class EpochMetrics:
    """The sums of one training epoch. What is added stays on the device until it is read."""

    def __init__(self, epoch: int, backend: Backend):
        self.epoch, self.backend = epoch, backend
        self.start = time.perf_counter()
        self.unread: list[tuple[Tensor, int, float]] = []  # loss, images and lr of each batch
        self.batches = self.images = self.labels = 0
        self.loss_sum = self.lr = 0.0
        self.correct = torch.zeros((), device=backend.device)

    def add(self, loss: Tensor, correct: Tensor, labels: Tensor, lr: float) -> None:
        """Count one batch."""
        self.unread.append((loss, len(labels), lr))
        self.correct += correct
        self.labels += labels.numel()

    def read(self) -> list[float]:
        """Return the losses since the last read, means over the processes.

        All processes must call this after the same batch: so all of them see a divergence.

        Raises:
            DivergenceError: One of the losses is infinite or not a number.
        """
        unread, self.unread = self.unread, []
        if not unread:
            return []
        total = self.backend.all_reduce_sum(torch.stack([loss for loss, _, _ in unread]))
        losses = (total / self.backend.world_size).tolist()
        for loss, (_, images, lr) in zip(losses, unread, strict=True):
            self.batches += 1
            if not math.isfinite(loss):
                raise DivergenceError(
                    f"the loss is {loss} in epoch {self.epoch}, batch {self.batches}, at lr={lr:g}:"
                    f" try a smaller one, such as lr={lr / 10:g}"
                )
            self.images += images
            self.loss_sum += loss * images
            self.lr = lr
        return losses

    def finish(self, test: Metrics) -> Epoch:
        """Return the row of this epoch, whose batches have been read, with its test."""
        correct = self.backend.all_reduce_sum(self.correct).item()
        seconds = time.perf_counter() - self.start
        return Epoch(
            epoch=self.epoch,
            lr=self.lr,
            train_loss=self.loss_sum / self.images,
            train_accuracy=correct / (self.labels * self.backend.world_size),
            test_loss=test.loss,
            test_accuracy=test.accuracy,
            images_per_second=self.images * self.backend.world_size / seconds,
            seconds=seconds,
        )


@dataclass(frozen=True)
class Epoch:
    """One completed epoch: a row of a History.

    Args:
        epoch: Its number, from 1.
        lr: Learning rate of the last batch.
        train_loss: Mean over the epoch, while the network changed.
        train_accuracy: Fraction of labels, likewise.
        test_loss: Mean, after the epoch.
        test_accuracy: Fraction of labels, likewise.
        images_per_second: Training images over the whole epoch, its evaluation included.
        seconds: Length of the whole epoch.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    images_per_second: float
    seconds: float


@dataclass
class History:
    """The record of a training run.

    Args:
        recipe: What was trained, on what, and how.
        banner: A warning that belongs beside every number of this run, or nothing.
        rows: One Epoch for each completed epoch.
        losses: The training loss of every batch, those of an unfinished epoch included.
        interrupted: Whether the run was stopped before its last epoch ended.
    """

    recipe: dict = field(default_factory=dict)
    banner: str = ""
    rows: list[Epoch] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    interrupted: bool = False

    @property
    def last(self) -> Epoch:
        """The row of the last completed epoch.

        Raises:
            ValueError: There is none.
        """
        if not self.rows:
            raise ValueError("rows=[] must hold a completed epoch: train for longer")
        return self.rows[-1]

    @property
    def title(self) -> str:
        """What was trained, on what, in which precision and where, in one line."""
        about = self.recipe
        if not about:
            return ""
        return (
            f"{about['net']} on {about['train_images']:,} images "
            f"{'x'.join(map(str, about['shape']))} of {about['data']}, {about['precision']} on "
            f"{about['device']}"
        )

    def plot(self) -> Figure:
        """Draw loss and accuracy over the epochs; before the second, the loss of each batch."""
        from cnnlib import plots  # a training without pictures needs no matplotlib

        if len(self.rows) > 1:
            return plots.training_curves(self.rows)
        return plots.loss_curve(self.losses, self.recipe["batches"])

    def __repr__(self):
        head = [line for line in (self.banner, self.title) if line]
        return "\n".join([*head, progress.HEADER, *map(progress.row_text, self.rows)])


def _save(net, path):
    """Write the weights of a network to a file, whole or not at all."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    torch.save(net.state_dict(), part)
    part.replace(path)


def _describe(net, data, backend, epochs, lr, seed, batches):
    """Return what a run depends on, for its History."""
    return {
        "net": "Sequential network" if type(net) is nn.Sequential else type(net).__name__,
        "data": data.source,
        "shape": list(data.shape),
        "train_images": len(data.train.labels),
        "test_images": len(data.test.labels),
        "batch_size": data.train.batch_size,
        "batches": batches,
        "epochs": int(epochs),
        "lr": float(lr),
        "seed": int(seed),
        "device": str(data.device),
        "precision": backend.precision,
        "processes": backend.world_size,
        "torch": torch.__version__,
    }

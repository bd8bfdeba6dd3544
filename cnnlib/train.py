"""The training loop, its evaluation, and the record that it leaves."""

import json
import math
import os
import time
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from cnnlib.backend import engine
from cnnlib.preflight import check_network, check_outputs, initialise_lazy, suited
from cnnlib.progress import Live


def budget():
    """Return the scale of a recipe that suits this machine: "full" on a GPU, "quick" on a CPU.

    The environment variable CNNLIB_BUDGET overrides it.

    Raises:
        ValueError: CNNLIB_BUDGET is neither "full" nor "quick".
    """
    wanted = os.environ.get("CNNLIB_BUDGET") or ("full" if torch.cuda.is_available() else "quick")
    if wanted not in ("full", "quick"):
        raise ValueError(
            f"CNNLIB_BUDGET={wanted!r} must be 'full' or 'quick': unset it, and the machine decides"
        )
    return wanted


def sgd(parameters, lr, momentum=0.9):
    """Build the default optimiser: stochastic gradient descent, fused where torch has it."""
    parameters = list(parameters)
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    optimizer = torch.optim.SGD(parameters, lr, momentum, fused=fused)
    if momentum:
        for p in parameters:  # the fused one wants all of them, and some gradients may come later
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def adamw(parameters, lr):
    """Build Adam with decoupled weight decay, the optimiser that forgives most.

    On a GPU its state stays there, so that a step can be recorded as a CUDA graph.
    """
    parameters = list(parameters)
    on_gpu = all(p.is_cuda for p in parameters)
    return torch.optim.AdamW(parameters, lr, fused=True, capturable=on_gpu)


def constant(optimizer, steps):
    """Build the default schedule: the learning rate stays what it is."""
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def one_cycle(optimizer, steps):
    """Build a schedule that climbs to the learning rate and then falls to nearly nothing.

    Source:
        Smith and Topin 2019. The momentum stays as it is.
    """
    highest = optimizer.param_groups[0]["lr"]
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, highest, total_steps=steps, cycle_momentum=False
    )


def fit(
    net,
    data,
    epochs,
    lr,
    *,
    optimizer=None,
    schedule=None,
    loss=None,
    seed=0,
    precision="auto",
    checkpoint=None,
    graph=True,
    plot=True,
):
    """Train a network, and evaluate it on the test images after each epoch.

    The network moves to the device of the data and is trained in place. One row is printed an
    epoch; in a notebook a curve moves meanwhile, and a picture of all epochs stays. The Stop button
    (KeyboardInterrupt) ends training early, and the network keeps what it has learned.

    Before the first step the network is looked at: a lazy one is initialised, and one that cannot
    train on these images is refused, with the layer and what to change.

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
        seed: Decides the order of the images and what dropout drops. The first weights are yours.
        precision: "bf16"; "fp32", whose numbers are those of a loop written out; or "auto": what
            the environment variable CNNLIB_PRECISION says, else what this machine does best. The
            History says which one it was.
        checkpoint: A path. After each epoch the weights are written there, whole or not at all.
        graph: On a GPU, with a fused optimiser: record the step as a CUDA graph and replay it.
            Say False where `net` or `loss` runs Python that counts, as a list that it appends to.
        plot: Draw the curves, in a notebook.

    Returns:
        The History, one row an epoch.

    Raises:
        ValueError: An argument is out of range or of the wrong kind, or the network does not fit
            the data.
        Diverged: The loss became infinite or not a number. This error, and any other that ends
            training, holds the epochs before in its `history`.
    """
    check_arguments(net, data, epochs, lr, optimizer, schedule, loss, seed, checkpoint)
    run = engine(data.device, precision, graph)
    batches = run.to_train(data.train)
    initialise_lazy(net, torch.zeros(1, *data.shape))
    run = check_network(net, data, run, loss)
    model = run.parallel(run.place(net))
    optimizer = (optimizer or sgd)(net.parameters(), lr)
    schedule = (schedule or constant)(optimizer, epochs * len(batches))
    loss = loss or F.cross_entropy
    torch.manual_seed(seed + run.rank)
    data.train.reseed(seed)

    def step(images, labels):
        optimizer.zero_grad()
        with run.autocast():
            outputs = model(run.place_images(images))
            batch_loss = loss(outputs, labels)
        batch_loss.backward()
        optimizer.step()
        return batch_loss.detach(), count_correct(outputs, labels)

    step = run.fastest(step, net, optimizer)
    history = History(describe(net, data, run, epochs, lr, seed), data.banner)
    live = Live(history, len(batches), plot, silent=run.rank > 0)
    try:
        with run.keep_memory():
            for epoch in range(1, epochs + 1):
                net.train()
                tally = Tally(epoch, run)
                for images, labels in batches:
                    batch_loss, correct = step(images, labels)
                    tally.add(batch_loss, correct, labels, lr=optimizer.param_groups[0]["lr"])
                    schedule.step()
                    live.after_batch(tally)
                history.add(tally, measure(net, data.test, loss, run))
                live.after_epoch()
                if checkpoint is not None and run.rank == 0:
                    save(net, checkpoint)
    except KeyboardInterrupt:
        history.interrupted = True
    except Exception as stop:
        stop.history = history
        raise
    finally:
        live.close()
        net.eval()
    return history


def count_correct(outputs, labels):
    """Return how many labels the scores predict; of a tuple of outputs, the first has them."""
    scores = outputs[0] if isinstance(outputs, tuple) else outputs
    return (scores.argmax(1) == labels).sum()


def evaluate(net, batches, loss=None, precision="auto"):
    """Measure a network on labelled images, without training it.

    The network moves to the device of the batches and is left in evaluation mode.

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
    check_network_kind(net)
    if not all(hasattr(batches, name) for name in ("labels", "shape", "device")):
        has_test = ", such as data.test" if hasattr(batches, "test") else ""
        raise ValueError(
            f"batches={type(batches).__name__} must be the batches of a Data{has_test}: "
            "try batches=fashion_mnist().test"
        )
    check_loss(loss)
    run = engine(batches.device, precision)
    initialise_lazy(net, torch.zeros(1, *batches.shape))
    run, outputs = suited(net, batches.shape, run)
    check_outputs(net, outputs, batches.labels, loss or F.cross_entropy)
    return measure(net, batches, loss or F.cross_entropy, run)


@torch.inference_mode()
def measure(net, batches, loss, run):
    """Measure a network as `evaluate` does, with the Engine of its training.

    Args:
        net: A network.
        batches: The train or test batches of a `Data`.
        loss: A function (outputs, labels) -> mean loss of the batch.
        run: The Engine.

    Returns:
        The Metrics.
    """
    run.place(net).eval()
    run.agree(net)
    total_loss, confusion = 0, 0
    for images, labels in run.to_evaluate(batches):
        with run.autocast():
            outputs = net(run.place_images(images))
            total_loss += loss(outputs, labels) * len(labels)
        classes = outputs.shape[1]
        cells = labels.flatten() * classes + outputs.argmax(1).flatten()
        confusion += torch.bincount(cells, minlength=classes**2).view(classes, classes)
    total_loss, confusion = run.total(total_loss), run.total(confusion)
    return Metrics(total_loss.item() / len(batches.labels), confusion.cpu())


@dataclass(frozen=True)
class Metrics:
    """What an evaluation found.

    Args:
        loss: Mean loss, in nats where it is the cross-entropy.
        confusion: Counts (K, K): a row for each true class, a column for each predicted one.
    """

    loss: float
    confusion: torch.Tensor

    @property
    def accuracy(self):
        """The fraction of labels that were predicted."""
        return (self.confusion.trace() / self.confusion.sum()).item()

    @property
    def mean_iou(self):
        """The mean, over the classes that occur, of intersection over union.

        Of the pixels that are a class or were taken for it, the fraction that are both.
        """
        both = self.confusion.diag()
        either = self.confusion.sum(0) + self.confusion.sum(1) - both
        return (both / either)[either > 0].mean().item()


class Diverged(FloatingPointError):
    """The loss became infinite or not a number. `history` holds the epochs before."""


class Tally:
    """The sums of one epoch, on the device: reading one makes the CPU wait for the GPU."""

    def __init__(self, epoch, run):
        self.epoch, self.run = epoch, run
        self.start = time.perf_counter()
        self.losses, self.sizes, self.rates = [], [], []
        self.correct = torch.zeros((), device=run.device)
        self.labels = 0

    def add(self, loss, correct, labels, lr):
        """Count one batch."""
        self.losses.append(loss)
        self.sizes.append(len(labels))
        self.rates.append(lr)
        self.correct += correct
        self.labels += labels.numel()

    def gather(self):
        """Count what all processes have counted; their parts of a batch are equal."""
        if (processes := self.run.processes) > 1:
            self.losses = list(self.run.total(torch.stack(self.losses)) / processes)
            self.sizes = [size * processes for size in self.sizes]
            self.correct = self.run.total(self.correct)
            self.labels *= processes

    def read(self):
        """Wait for the device and return the loss of each batch so far.

        Raises:
            Diverged: One of them is infinite or not a number.
        """
        losses = torch.stack(self.losses).tolist()
        for batch, (loss, lr) in enumerate(zip(losses, self.rates, strict=True), start=1):
            if not math.isfinite(loss):
                raise Diverged(
                    f"the loss is {loss} in epoch {self.epoch}, batch {batch}, at lr={lr:g}: "
                    f"try a smaller one, such as lr={lr / 10:g}"
                )
        return losses


@dataclass
class History:
    """The record of a training run.

    Args:
        recipe: What was trained, on what, and how.
        banner: A warning that belongs beside every number of this run, or nothing.
        rows: A dictionary an epoch: epoch, lr (of the last batch), train_loss, train_accuracy,
            test_loss, test_accuracy (accuracies are fractions), images_per_second, seconds. The two
            training numbers are means over the epoch, while the network changed; the speed counts
            training images over the whole epoch, its evaluation included.
        losses: The training loss of every batch of these epochs.
        interrupted: Whether the run was stopped before its last epoch ended.
    """

    recipe: dict = field(default_factory=dict)
    banner: str = ""
    rows: list = field(default_factory=list)
    losses: list = field(default_factory=list)
    interrupted: bool = False

    @property
    def last(self):
        """The row of the last completed epoch.

        Raises:
            ValueError: There is none.
        """
        if not self.rows:
            raise ValueError("rows=[] must hold a completed epoch: train for longer")
        return self.rows[-1]

    def add(self, tally, test):
        """Append an epoch: the Tally of its training, the Metrics of its test."""
        tally.gather()
        losses = tally.read()
        seconds = time.perf_counter() - tally.start
        images = sum(tally.sizes)
        self.losses += losses
        self.rows.append(
            {
                "epoch": tally.epoch,
                "lr": tally.rates[-1],
                "train_loss": sum(
                    loss * size for loss, size in zip(losses, tally.sizes, strict=True)
                )
                / images,
                "train_accuracy": tally.correct.item() / tally.labels,
                "test_loss": test.loss,
                "test_accuracy": test.accuracy,
                "images_per_second": images / seconds,
                "seconds": seconds,
            }
        )

    @property
    def title(self):
        """What was trained, on what, in which precision and where, in one line."""
        about = self.recipe
        if "precision" not in about:
            return ""
        return (
            f"{about['net']} on {about['train_images']:,} images "
            f"{'x'.join(map(str, about['shape']))} of {about['data']}, {about['precision']} on "
            f"{about['device']}"
        )

    def plot(self):
        """Draw loss and accuracy over the epochs; of a single epoch, the loss of each batch."""
        from cnnlib import plots  # a training without pictures needs no matplotlib

        if len(self.rows) == 1:
            return plots.loss_curve(self.losses, len(self.losses))
        return plots.training_curves(self.rows)

    def to_json(self):
        """Return the record as JSON text."""
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def header():
        """Return the head of the table that `row` continues."""
        return "epoch  train loss  train acc  test loss  test acc  images/s  seconds"

    @staticmethod
    def row(row):
        """Return a row as text, aligned with `header`."""
        return (
            "{epoch:5}  {train_loss:10.4f}  {train_accuracy:9.4f}  {test_loss:9.4f}  "
            "{test_accuracy:8.4f}  {images_per_second:8,.0f}  {seconds:7.1f}"
        ).format(**row)

    def __repr__(self):
        title = [self.title] * bool(self.title)
        return "\n".join([*title, self.header(), *map(self.row, self.rows)])


def save(net, path):
    """Write the weights of a network to a file, whole or not at all."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    torch.save(net.state_dict(), part)
    part.replace(path)


def check_arguments(net, data, epochs, lr, optimizer, schedule, loss, seed, checkpoint):
    """Refuse what `fit` cannot train with, and say what to type."""
    check_network_kind(net)
    if not all(hasattr(data, name) for name in ("train", "test", "shape", "device")):
        raise ValueError(
            f"data={type(data).__name__} must be a Data, with training and test images: "
            "try data=fashion_mnist()"
        )
    if not isinstance(epochs, Integral) or isinstance(epochs, bool) or epochs < 1:
        raise ValueError(f"epochs={epochs!r} must be a whole number of at least 1: try epochs=1")
    if not isinstance(lr, Real) or isinstance(lr, bool) or not 0 < lr < math.inf:
        raise ValueError(f"lr={lr!r} must be a finite number above 0: try lr=0.05")
    if not isinstance(seed, Integral) or isinstance(seed, bool) or abs(seed) >= 2**62:
        raise ValueError(f"seed={seed!r} must be a whole number below 2**62: try seed=0")
    functions = {
        "optimizer": (optimizer, torch.optim.Optimizer, "(parameters, lr)", "torch.optim.Adam"),
        "schedule": (schedule, LRScheduler, "(optimizer, steps)", "cnnlib.train.one_cycle"),
    }
    for name, (value, instance, arguments, example) in functions.items():
        finished = isinstance(value, instance)  # fit builds it, from the network that it trains
        if value is not None and (finished or not callable(value)):
            given = f"{type(value).__name__}(...)" if finished else repr(value)
            raise ValueError(f"{name}={given} must be a function {arguments}: try {name}={example}")
    check_loss(loss)
    if checkpoint is not None:
        possible = isinstance(checkpoint, str | os.PathLike) and Path(checkpoint).name
        if not possible or not Path(checkpoint).parent.is_dir() or Path(checkpoint).is_dir():
            raise ValueError(
                f"checkpoint={str(checkpoint)!r} must be a file in a folder that exists: make the "
                "folder first, or name another file"
            )


def check_loss(loss):
    """Refuse a loss that cannot be called, or is the class of one."""
    if loss is not None and (isinstance(loss, type) or not callable(loss)):
        raise ValueError(
            f"loss={loss!r} must be a function (outputs, labels): try "
            "loss=torch.nn.functional.cross_entropy"
        )


def check_network_kind(net):
    """Refuse what is no network, such as the class of one."""
    if isinstance(net, type):
        raise ValueError(
            f"net={net.__name__} must be a network, not the class of one: try {net.__name__}()"
        )
    if not isinstance(net, nn.Module):
        raise ValueError(f"net={net!r} must be an nn.Module: build the network, then pass it")


def describe(net, data, run, epochs, lr, seed):
    """Write down what a run depends on, for its History."""
    return {
        "net": type(net).__name__,
        "data": data.source,
        "shape": list(data.shape),
        "train_images": len(data.train.labels),
        "test_images": len(data.test.labels),
        "batch_size": data.train.batch_size,
        "epochs": int(epochs),
        "lr": float(lr),
        "seed": int(seed),
        "device": str(data.device),
        "precision": run.precision,
        "processes": run.processes,
        "torch": torch.__version__,
    }

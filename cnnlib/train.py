"""The training loop, its evaluation, and the record that it leaves."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from cnnlib import preflight, progress
from cnnlib._checkpoint import Checkpoint, crc32_of
from cnnlib._checks import check_flags, check_number
from cnnlib.backend import Backend, choose_backend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cnnlib.data import Batches, Data


def budget() -> str:
    """Return the training budget: "quick", "study" or "full".

    "quick" suits live runs and is the default on a CPU; "study" is what a claim needs on a CPU, run
    once and recorded; "full" is the default on a GPU. CNNLIB_BUDGET overrides the default.

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
# setting is part of the graph, so `one_cycle` does not change the momentum (beta1 for Adam).


def sgd(
    parameters: Iterable[Tensor], lr: float, momentum: float = 0.9, **settings: Any
) -> Optimizer:
    """Build the default optimiser, SGD with momentum; other settings go to torch unchanged."""
    lr = check_number("lr", lr, usual=0.05)
    momentum = check_number("momentum", momentum, least=0, below=1, usual=0.9)
    parameters = preflight.check_parameters(parameters)
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    try:
        optimizer = SGD(parameters, lr, momentum, fused=fused, **settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"settings={settings} must be those of torch's SGD: {error}") from error
    if momentum:
        for p in parameters:  # fused SGD needs them all at once, and some gradients may come later
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def nesterov(parameters: Iterable[Tensor], lr: float) -> Optimizer:
    """Build SGD with Nesterov's momentum of 0.9 and a weight decay of 5e-4."""
    return sgd(parameters, lr, weight_decay=5e-4, nesterov=True)


def adamw(parameters: Iterable[Tensor], lr: float) -> Optimizer:
    """Build Adam with decoupled weight decay, the most forgiving optimiser."""
    lr = check_number("lr", lr, usual=0.001)
    parameters = preflight.check_parameters(parameters)
    return AdamW(parameters, lr, fused=True, capturable=all(p.is_cuda for p in parameters))


def constant(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Build the default schedule: a constant learning rate."""
    preflight.check_steps(optimizer, steps)
    return ConstantLR(optimizer, factor=1.0)


def one_cycle(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Build a schedule that rises to the learning rate and then falls to almost zero.

    Source:
        Smith and Topin 2019.
    Departures:
        The momentum is not cycled.
    """
    steps = preflight.check_steps(optimizer, steps)
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
    and the History keeps the losses of the unfinished epoch.

    Under torchrun, each process trains on its shard of every batch, and only rank 0 prints, draws
    and writes. The gradient and the loss are those of the whole batch. Batch normalisation sees the
    shard alone, and the running statistics of rank 0 are kept.

    Args:
        net: A network that takes the images of `data` and returns a score for each class. In
            training it may return a tuple that begins with these scores, if `loss` accepts one.
        data: The training and test batches.
        epochs: Passes over the training images.
        lr: Learning rate; the schedule multiplies or replaces it.
        optimizer: A function (parameters, lr) -> optimizer. None: `sgd`.
        schedule: A function (optimizer, steps) -> learning rate scheduler, stepped after each
            batch. None: `constant`.
        loss: A function (outputs, labels) -> mean loss of the batch. None: the cross-entropy.
        seed: Sets the order of the images and the dropout masks, but not the initial weights.
        precision: "bf16"; "fp32", which gives the same numbers as a hand-written loop; or "auto":
            the environment variable CNNLIB_PRECISION, else the fastest on this machine. The
            History records the choice.
        checkpoint: A path to which all that the next epoch depends on is written, atomically, after
            each epoch; `weights.read` finds the weights in it. A training that finds its own file
            continues after the last epoch in it and ends as if it had never been interrupted: on
            the same CPU, with as many threads and at most two processes, to the bit.
        graph: Whether to capture the step as a CUDA graph, on a GPU with a fused optimiser. Pass
            False if `net` or `loss` has side effects in Python, such as appending to a list.
        plot: Whether a notebook shows a table and the loss curve. False: one printed line per
            epoch, which suits several short runs in one cell.

    Returns:
        The History, one row per epoch.

    Raises:
        ValueError: An argument is out of range or of the wrong kind, the network does not fit the
            data, or the checkpoint, which stays as it is, belongs to another training.
        DivergenceError: The loss became infinite or NaN. Like any other error that ends training,
            it carries the History so far as its attribute `history`.
    """
    preflight.check_network(net)
    preflight.check_data(data)
    preflight.check_recipe(epochs, lr, seed, checkpoint)
    preflight.check_functions(optimizer, schedule, loss)
    check_flags(graph=graph, plot=plot)
    epochs, lr, seed = int(epochs), float(lr), int(seed)  # they may be numbers of NumPy
    backend = choose_backend(data.device, precision, graph)
    batches = backend.shard(data.train)
    backend = preflight.check_training(net, data, backend, loss)
    model = backend.parallel(backend.to_device(net))
    optim = preflight.build("optimizer", optimizer or sgd, net.parameters(), lr)
    preflight.check_optimizer(optim, net)
    steps = epochs * len(batches)
    scheduler = preflight.build("schedule", schedule or constant, optim, steps)
    preflight.check_schedule(scheduler, optim, steps)
    criterion = preflight.checked_loss(loss or F.cross_entropy)
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
    if checkpoint is not None:
        named = loss or F.cross_entropy  # without the checks around it
        identity = _identify(history.recipe, data, backend, named, net, optim, scheduler)
        parts = {"history": history, "state_dict": net, "optimizer": optim, "schedule": scheduler}
        saved = Checkpoint(checkpoint, identity, parts, backend)
        saved.resume()
    display = progress.show_progress(history, plot, silent=backend.rank > 0)
    try:
        with backend.retain_heap():
            for epoch in range(len(history.rows) + 1, epochs + 1):
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
                if checkpoint is not None and math.isfinite(history.last.test_loss):
                    saved.save()
    except KeyboardInterrupt:
        history.interrupted = True
    except Exception as error:
        error.history = history  # type: ignore[attr-defined]
        raise
    finally:
        if checkpoint is not None:
            saved.close()
        display.close()
        net.eval()
    return history


def _count_correct(outputs, labels):
    """Count the labels predicted correctly; in a tuple of outputs, the scores come first."""
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
    must call this, each with all of the batches.

    Args:
        net: A network that returns a score for each class.
        batches: The train or test batches of a `Data`.
        loss: A function (outputs, labels) -> mean loss of the batch. None: the cross-entropy.
        precision: As in `fit`.

    Returns:
        The Metrics.

    Raises:
        ValueError: The network does not fit the batches.
    """
    preflight.check_network(net)
    preflight.check_batches(batches)
    preflight.check_functions(loss=loss)
    backend = choose_backend(batches.device, precision)
    backend = preflight.check_evaluation(net, batches, backend)
    criterion = preflight.checked_loss(loss or F.cross_entropy)
    return _measure(net, batches, criterion, backend)


def _measure(net, batches, loss, backend):
    """Measure a network as `evaluate` does.

    All processes must call this: they share the work, with the buffers of rank 0.
    """
    backend.to_device(net).eval()  # outside inference mode, where moved weights could not train on
    with torch.inference_mode():
        backend.broadcast_buffers(net)
        total_loss, confusion = 0, 0
        for images, labels in backend.shard_for_evaluation(batches):
            with backend.autocast():
                outputs = net(backend.to_memory_format(images))
                preflight.check_scores_alone(net, outputs)
                total_loss += loss(outputs, labels) * len(labels)
            classes = outputs.shape[1]
            cells = labels.flatten() * classes + outputs.argmax(1).flatten()
            confusion += torch.bincount(cells, minlength=classes**2).view(classes, classes)
        total_loss, confusion = map(backend.all_reduce_sum, (total_loss, confusion))
    return Metrics(total_loss.item() / len(batches.labels), confusion.cpu())


def gradient_norms(net: nn.Module, images: Tensor, labels: Tensor) -> list[float]:
    """Return the norm of the gradient of each convolution's weight, first layer first.

    1x1 convolutions, such as the projection of a shortcut, are left out. The network is left in
    training mode, without gradients.

    Raises:
        ValueError: No convolution is larger than 1x1, or one is frozen or not used, or the network
            does not fit the batch.
    """
    preflight.check_network(net)
    weights = [
        module.weight
        for module in net.modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)
    ]
    if not weights or not all(weight.requires_grad for weight in weights):
        raise ValueError(
            f"net={type(net).__name__} must have convolutions larger than 1x1, none of them "
            "frozen: try a network with one, or net.requires_grad_(True)"
        )
    preflight.check_batch(net, images, labels)
    loss = F.cross_entropy(net.train()(images), labels)
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    if any(gradient is None for gradient in gradients):
        raise ValueError(f"net={type(net).__name__} must use all of its convolutions in forward")
    return [gradient.norm().item() for gradient in gradients]


@dataclass(frozen=True)
class Metrics:
    """The results of an evaluation.

    Args:
        loss: Mean loss, in nats for the cross-entropy.
        confusion: Counts (K, K): one row per true class, one column per predicted class.
    """

    loss: float
    confusion: Tensor

    @property
    def accuracy(self) -> float:
        """The fraction of labels that were predicted correctly."""
        return (self.confusion.trace() / self.confusion.sum()).item()

    @property
    def mean_iou(self) -> float:
        """The mean intersection over union of the classes that occur.

        For each class: the pixels both labelled and predicted as it, over those that are either.
        """
        both = self.confusion.diag()
        either = self.confusion.sum(0) + self.confusion.sum(1) - both
        return (both / either)[either > 0].mean().item()


class DivergenceError(FloatingPointError):
    """The loss became infinite or NaN; `history` holds the completed epochs."""


class EpochMetrics:
    """Running sums of one training epoch, which stay on the device until they are read."""

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
        """Return the losses since the last read, averaged over the processes.

        All processes must call this after the same batch, so that all of them see a divergence.

        Raises:
            DivergenceError: One of the losses is infinite or NaN.
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
                    f" try a smaller one, such as lr={min(lr / 10, 0.1):g}"
                )
            self.images += images
            self.loss_sum += loss * images
            self.lr = lr
        return losses

    def finish(self, test: Metrics) -> Epoch:
        """Return the row of this epoch, once all batches are read and the test set is evaluated."""
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
        train_loss: Mean training loss over the epoch, while the network changed.
        train_accuracy: Fraction of the training labels predicted correctly, likewise.
        test_loss: Mean test loss after the epoch.
        test_accuracy: Fraction of the test labels predicted correctly, likewise.
        images_per_second: Training images per second of the whole epoch, including evaluation.
        seconds: Duration of the whole epoch.
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
        banner: A warning to show beside every number of this run, or "".
        rows: One Epoch per completed epoch.
        losses: The training loss of every batch, including those of an unfinished epoch.
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
            ValueError: No epoch was completed.
        """
        if not self.rows:
            raise ValueError("rows=[] must hold a completed epoch: try training for longer")
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

    def state_dict(self) -> dict:
        """Return the epochs so far, for a checkpoint."""
        return {"rows": [asdict(row) for row in self.rows], "losses": self.losses}

    def load_state_dict(self, state: dict) -> None:
        """Return to the epochs of a checkpoint.

        Raises:
            ValueError: They are more than the recipe has.
        """
        done, planned = len(state["rows"]), self.recipe["epochs"]
        if done > planned:
            raise ValueError(
                f"epochs={planned} must be at least the {done} that the checkpoint has: "
                f"try epochs={done}, or another file"
            )
        self.rows, self.losses = [Epoch(**row) for row in state["rows"]], state["losses"]

    def plot(self) -> Figure:
        """Draw loss and accuracy per epoch, or after a single epoch the loss of each batch."""
        from cnnlib import plots  # training without pictures needs no matplotlib

        if len(self.rows) > 1:
            return plots.training_curves(self.rows)
        return plots.loss_curve(self.losses, self.recipe.get("batches", 1))

    def __repr__(self):
        head = [line for line in (self.banner, self.title) if line]
        return "\n".join([*head, progress.HEADER, *map(progress.row_text, self.rows)])


def _describe(net, data, backend, epochs, lr, seed, batches):
    """Return everything that a run depends on, for its History."""
    return {
        "net": "Sequential network" if type(net) is nn.Sequential else type(net).__name__,
        "data": data.source,
        "shape": list(data.shape),
        "train_images": len(data.train.labels),
        "test_images": len(data.test.labels),
        "batch_size": data.train.batch_size,
        "batches": batches,
        "epochs": epochs,
        "lr": lr,
        "seed": seed,
        "device": str(data.device),
        "precision": backend.precision,
        "processes": backend.world_size,
        "torch": str(torch.__version__),
    }


def _identify(recipe, data, backend, loss, net, optimizer, scheduler):
    """Return what tells a training from others, as text, so far as it can be known.

    A function is known by its name. The number of epochs counts unless the rate is constant.
    """
    settings = scheduler.state_dict().items()
    identity = recipe | {
        "data_crc32": crc32_of([(each.images, each.labels) for each in (data.train, data.test)]),
        "transforms": [_name(each) for each in getattr(data.train, "transforms", ())],
        "loss": _name(loss),
        "memory_format": backend.memory_format,
        "graph": backend.graph,
        "optimizer": type(optimizer).__name__,
        **optimizer.defaults,
        "schedule": type(scheduler).__name__,
        **{name: value for name, value in settings if isinstance(value, int | float | list)},
        **{name: list(tensor.shape) for name, tensor in net.state_dict().items()},
    }
    if isinstance(scheduler, ConstantLR):
        del identity["epochs"]
    return {name: str(value) for name, value in identity.items()}


def _name(function):
    """Return the name of a function, or that of its kind where it has none."""
    return getattr(function, "__qualname__", type(function).__qualname__)

"""Checks before the first training step, so that mistakes fail early and in plain words.

A copy of the network runs one forward pass on the meta device, where images have a shape but no
data. That takes milliseconds and changes neither the network nor the random state. Each check
raises a ValueError that says what is wrong and what to try.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from cnnlib._checkpoint import check_path
from cnnlib._checks import check_count, check_seed
from cnnlib.backend import Backend
from cnnlib.trace import copy_network, needs_memory, trace

_ONE_VALUE = "Expected more than 1 value per channel"  # torch's refusal to normalise a batch of one
_OTHER_SIZE = "must match the size"  # how torch refuses tensors of different shapes

# What functions given to `fit` build, what cannot step alone, what they take, and an example.
_BUILT = {
    "optimizer": (Optimizer, LBFGS, "(parameters, lr)", "torch.optim.Adam"),
    "schedule": (LRScheduler, ReduceLROnPlateau, "(optimizer, steps)", "cnnlib.train.one_cycle"),
}


def check_network(net: Any) -> None:
    """Refuse anything that is not a network, such as its class."""
    if isinstance(net, type):
        raise ValueError(
            f"net={net.__name__} must be a network, not its class: try {net.__name__}()"
        )
    if not isinstance(net, nn.Module):
        raise ValueError(f"net={net!r} must be an nn.Module: build the network, then pass it")


def check_batches(batches: Any) -> None:
    """Refuse anything that is not Batches, such as a whole Data."""
    if not all(hasattr(batches, name) for name in ("labels", "shape", "device")):
        has_test = ", such as data.test" if hasattr(batches, "test") else ""
        raise ValueError(
            f"batches={type(batches).__name__} must be the batches of a Data{has_test}: "
            "try batches=fashion_mnist().test"
        )


def check_recipe(data: Any, epochs: Any, lr: Any, seed: Any, checkpoint: Any) -> None:
    """Refuse arguments of `fit` that are out of range or of the wrong kind."""
    if not all(hasattr(data, name) for name in ("train", "test", "shape", "device")):
        raise ValueError(
            f"data={type(data).__name__} must be a Data, with training and test images: "
            "try data=fashion_mnist()"
        )
    check_count("epochs", epochs, usual=1)
    check_seed(seed)
    if not isinstance(lr, Real) or isinstance(lr, bool) or not 0 < float(lr) < math.inf:
        raise ValueError(f"lr={lr!r} must be a finite number above 0: try lr=0.05")
    if checkpoint is not None:
        check_path(checkpoint)


def check_functions(optimizer: Any = None, schedule: Any = None, loss: Any = None) -> None:
    """Refuse anything that is not a function, such as an optimiser: `fit` builds its own."""
    for name, value, refused, arguments, example in (
        ("optimizer", optimizer, Optimizer, "(parameters, lr)", "torch.optim.Adam"),
        ("schedule", schedule, LRScheduler, "(optimizer, steps)", "cnnlib.train.one_cycle"),
        ("loss", loss, type, "(outputs, labels)", "torch.nn.functional.cross_entropy"),
    ):
        if value is not None and (isinstance(value, refused) or not callable(value)):
            built = isinstance(value, Optimizer | LRScheduler)
            given = f"{type(value).__name__}(...)" if built else repr(value)
            raise ValueError(f"{name}={given} must be a function {arguments}: try {name}={example}")


def build(name: str, function: Callable, *arguments: Any) -> Any:
    """Return the optimiser or the schedule that a function builds, ready to step by itself."""
    kind, refused, taken, example = _BUILT[name]
    try:
        built = function(*arguments)
    except (AttributeError, TypeError, ValueError) as error:
        remedy = "" if ": try " in str(error) else f": try {name}={example}"
        raise ValueError(f"{name} must be a function {taken}: {error}{remedy}") from error
    if not isinstance(built, kind) or isinstance(built, refused):
        raise ValueError(
            f"{name} must return an object of the class {kind.__name__} that steps without "
            f"arguments, not {type(built).__name__}: try {name}={example}"
        )
    return built


def checked_loss(loss: Callable) -> Callable:
    """Return a loss that refuses to give anything but one number per batch."""

    def refuse(problem, cause=None):
        name = getattr(loss, "__name__", type(loss).__name__)
        raise ValueError(
            f"loss={name} must return one number, with a gradient in training, but {problem}: "
            "try loss=torch.nn.functional.cross_entropy"
        ) from cause

    def checked(outputs, labels):
        try:
            value = loss(outputs, labels)
        except (TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and _OTHER_SIZE not in str(error):
                raise  # such as a lack of memory
            refuse(f"it fails: {error}", error)
        if not isinstance(value, Tensor):
            refuse(f"it returns a {type(value).__name__}")
        if value.ndim > 0:
            refuse(f"it returns a tensor of shape {tuple(value.shape)}")
        if torch.is_grad_enabled() and not value.requires_grad:
            refuse("its number has no gradient")
        return value

    return checked


def check_training(net: nn.Module, data: Any, backend: Backend, loss: Any) -> Backend:
    """Refuse a network that cannot train on the data, and initialise a lazy one.

    Returns:
        The Backend, with the memory format that suits the network.
    """
    name, weights = type(net).__name__, list(net.parameters())
    if not any(weight.requires_grad for weight in weights):
        raise ValueError(
            f"net={name} has no weights to train: give it a layer with weights, or set "
            "requires_grad_(True)"
        )
    if other := {weight.dtype for weight in weights} - {torch.float32}:
        raise ValueError(
            f"net={name} must have float32 weights, but some are {other.pop()}: "
            "try net.float(), and precision='bf16' for speed"
        )
    count, batch_size = len(data.train.labels), data.train.batch_size
    single = backend.world_size == 1 and 1 in (count % batch_size, batch_size)
    try:
        backend, outputs = _rehearse(net, data.train, backend, images=1 if single else 2)
    except ValueError as error:
        if _ONE_VALUE not in str(error):
            raise
        sizes = chain(range(batch_size - 1, 1, -1), range(batch_size + 1, count + 1))
        remedies = [f"batch_size={size}" for size in sizes if count % size != 1][:1]
        if count > batch_size > 1:
            remedies.append(f"train={count - 1}")
        raise ValueError(
            f"train={count} images in batches of batch_size={batch_size} leave a batch of one "
            "image, and batch normalisation needs more than one value per channel: "
            f"try {' or '.join(remedies) or 'train=2, batch_size=2'}"
        ) from error
    if isinstance(outputs, tuple) and loss is None:
        raise ValueError(
            f"net={name} returns a tuple, which the cross-entropy does not take: "
            "try loss=lambda outputs, labels: F.cross_entropy(outputs[0], labels)"
        )
    return backend


def check_evaluation(net: nn.Module, batches: Any, backend: Backend) -> Backend:
    """Refuse a network that does not fit the batches, and initialise a lazy one."""
    return _rehearse(net, batches, backend, images=2)[0]


def _rehearse(net, batches, backend, images):
    """Return the Backend and the outputs of a network, once these fit the labels."""
    _initialise_lazy(net, batches.shape)
    backend, outputs = choose_memory_format(net, batches.shape, backend, images)
    if outputs is not None:
        _check_scores(type(net).__name__, outputs, batches.labels)
    return backend, outputs


def _initialise_lazy(net, shape):
    """Initialise the lazy layers of a network with one forward pass."""
    tensors = list(chain(net.parameters(), net.buffers()))
    if not any(map(is_lazy, tensors)):
        return
    with torch.inference_mode(False), torch.no_grad():
        try:
            net.eval()(torch.zeros(1, *shape, device=tensors[0].device))
        except Exception:
            trace(net, tuple(shape))  # fails in the same way, and names the layer
            raise


def _check_scores(name, outputs, labels):
    """Refuse outputs without scores, and scores that do not fit the labels."""
    scores = outputs[0] if isinstance(outputs, tuple) and outputs else outputs
    if not isinstance(scores, Tensor):
        raise ValueError(
            f"net={name} returns a {type(outputs).__name__}, but must return scores, or a tuple "
            "with the scores first: change its forward, or wrap it in a network that does"
        )
    if scores.ndim != labels.ndim + 1 or scores.shape[2:] != labels.shape[1:]:
        wanted = "x".join(["N", "classes", *map(str, labels.shape[1:])])
        given = "x".join(["N", *map(str, scores.shape[1:])])
        raise ValueError(
            f"net={name} gives scores of shape {given}, but these labels need {wanted}: change "
            "its last layers"
        )
    largest = int(labels.max())
    if scores.shape[1] <= largest:
        raise ValueError(
            f"net={name} gives {scores.shape[1]} scores, but the labels go up to {largest}: build "
            f"it with {largest + 1} classes"
        )


def choose_memory_format(
    net: nn.Module, shape: tuple[int, ...], backend: Backend, images: int = 2
) -> tuple[Backend, Any]:
    """Run a training forward pass on the meta device, and find the network's memory format.

    `x.view(x.size(0), -1)` fails on channels-last maps, so a network that calls it gets contiguous
    images. So does a network that cannot run on the meta device, such as one that looks at the
    values of its images.

    Returns:
        The Backend, and the outputs on the meta device, or None if the network cannot run there.

    Raises:
        ValueError: The network does not accept such images; the message names the layer.
    """
    contiguous = replace(backend, memory_format=torch.contiguous_format)
    try:
        twin = copy_network(getattr(net, "_orig_mod", net), "meta").train()  # not the compiled one
    except Exception:  # it holds what cannot be copied, such as an open file
        return contiguous, None
    for module in twin.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    try:
        with torch.no_grad(), torch.device("meta"), _KeepMemoryFormat(backend.memory_format):
            return backend, twin(torch.empty(images, *shape))
    except Exception as error:
        if "view size is not compatible" in str(error) and backend != contiguous:
            return choose_memory_format(net, shape, contiguous, images)
        if _ONE_VALUE in str(error):
            raise
        if not needs_memory(error):
            trace(net, shape)
    return contiguous, None


class _KeepMemoryFormat(TorchDispatchMode):
    """Put the results of all operations into one memory format.

    On a real device, operations keep the format of their inputs; on the meta device some lose it.
    Copies are left alone, since the network itself chooses their format.
    """

    def __init__(self, memory_format):
        super().__init__()
        self.memory_format = memory_format

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        """Run one operation."""
        result = operation(*args, **(kwargs or {}))
        if operation.is_view or operation is torch.ops.aten.clone.default:
            return result

        def reorder(x):
            is_map = isinstance(x, Tensor) and x.ndim == 4
            return x.contiguous(memory_format=self.memory_format) if is_map else x

        return tree_map(reorder, result)

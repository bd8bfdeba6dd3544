"""Checks before the first training step, so that mistakes fail early and in plain words.

A copy of the network runs one forward pass on the meta device, where images have a shape but no
data. That takes milliseconds and changes neither the network nor the random state. Each check
raises a ValueError that says what is wrong and what to try.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import LBFGS, Optimizer, SparseAdam
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler, ReduceLROnPlateau, StepLR
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from cnnlib._checkpoint import check_path
from cnnlib._checks import check_count, check_number, check_seed, shown
from cnnlib.backend import Backend, choose_backend
from cnnlib.trace import check_module, copy_network, needs_memory, trace

_ONE_VALUE = "Expected more than 1 value per channel"  # torch's refusal to normalise a batch of one
# How torch refuses tensors of other shapes, types or counts than a loss takes.
_MISFITS = ("must match the size", "not implemented for", "should be defined", "expected ")
_MOST_EPOCHS = 1_000_000  # years of training

# What functions given to `fit` build, what cannot step alone, what they take, and an example.
_BUILT: dict[str, tuple[type, Any, str, str]] = {
    "optimizer": (Optimizer, (LBFGS, SparseAdam), "(parameters, lr)", "torch.optim.Adam"),
    "schedule": (LRScheduler, ReduceLROnPlateau, "(optimizer, steps)", "cnnlib.train.one_cycle"),
}
UNKNOWN = object()  # the outputs of a network that cannot run before its training


def check_network(net: Any) -> None:
    """Refuse anything that is not a network with a forward and with numbers in its weights."""
    check_module(net)
    name = type(net).__name__
    if getattr(net.forward, "__name__", "") == "_forward_unimplemented":
        raise ValueError(
            f"net={name} must define forward(self, images): try nn.Sequential for layers in a row"
        )
    if any(x.is_meta and not is_lazy(x) for x in chain(net.parameters(), net.buffers())):
        raise ValueError(f"net={name} must have numbers in its weights: build it on the CPU")


def _check_float32(net):
    """Refuse a network with other weights than float32."""
    if other := {weight.dtype for weight in net.parameters()} - {torch.float32}:
        raise ValueError(
            f"net={type(net).__name__} must have float32 weights, but some are {other.pop()}: "
            "try net.float(), and precision='bf16' for speed"
        )


def check_batches(batches: Any) -> None:
    """Refuse anything that is not Batches with valid labels, such as a whole Data."""
    if not all(hasattr(batches, name) for name in ("labels", "shape", "device")):
        has_test = ", such as data.test" if hasattr(batches, "test") else ""
        raise ValueError(
            f"batches={type(batches).__name__} must be the batches of a Data{has_test}: "
            "try batches=fashion_mnist().test"
        )
    labels = batches.labels
    if not len(labels) or labels.is_meta or labels.dtype not in (torch.int64, torch.uint8):
        raise ValueError(
            f"batches.labels of shape {tuple(labels.shape)} and type {labels.dtype} must be int64 "
            "class indices, at least one, on a CPU or a GPU: try fashion_mnist()"
        )
    if (lowest := int(labels.min())) < 0:
        raise ValueError(f"batches.labels must be class indices from 0, but one is {lowest}")


def check_data(data: Any) -> None:
    """Refuse anything that is not a Data whose training and test images are alike."""
    if not all(hasattr(data, name) for name in ("train", "test", "shape", "device")):
        raise ValueError(
            f"data={type(data).__name__} must be a Data, with training and test images: "
            "try data=fashion_mnist()"
        )
    for batches in (data.train, data.test):
        check_batches(batches)
    train, test = ((tuple(each.shape), each.device) for each in (data.train, data.test))
    if train != test:
        raise ValueError(
            f"data.test has images {test[0]} on {test[1]}, but must have those of data.train, "
            f"{train[0]} on {train[1]}: try taking both from one Data"
        )


def check_recipe(epochs: Any, lr: Any, seed: Any, checkpoint: Any) -> None:
    """Refuse arguments of `fit` that are out of range or of the wrong kind."""
    check_count("epochs", epochs, _MOST_EPOCHS, usual=1)
    check_seed(seed)
    check_number("lr", lr, usual=0.05)
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
    for kind, setting in ((StepLR, "steps // 3"), (ExponentialLR, "0.01 ** (1 / steps)")):
        if schedule is kind:  # its second argument is not the number of steps
            raise ValueError(
                f"schedule={kind.__name__} must be a function (optimizer, steps): try "
                f"schedule=lambda optimizer, steps: {kind.__name__}(optimizer, {setting})"
            )


def check_parameters(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Return the weights of a network as a list, or refuse what is not."""
    is_list = isinstance(parameters, Iterable) and not isinstance(parameters, Tensor | np.ndarray)
    found = list(parameters) if is_list else []
    if not found or not all(isinstance(x, Tensor) and x.is_leaf for x in found):
        raise ValueError(
            f"parameters={shown(parameters)} must be the weights of a network: try net.parameters()"
        )
    if any(map(is_lazy, found)):
        raise ValueError("parameters of lazy layers must have a size: try net(images) first")
    return found


def check_steps(optimizer: Any, steps: Any) -> int:
    """Return the number of steps of a schedule as an int, or refuse what `fit` would not pass."""
    if not isinstance(optimizer, Optimizer):
        raise ValueError(
            f"optimizer={optimizer!r} must be an optimiser: try sgd(net.parameters(), lr=0.05)"
        )
    return check_count("steps", steps, usual=1000)


def build(name: str, function: Callable, *arguments: Any) -> Any:
    """Return the optimiser or the schedule that a function builds, ready to step by itself."""
    kind, refused, taken, example = _BUILT[name]
    try:
        built = function(*arguments)
    except Exception as error:
        remedy = "" if ": try " in str(error) else f": try {name}={example}"
        raise ValueError(f"{name} must be a function {taken}: {error}{remedy}") from error
    if not isinstance(built, kind) or isinstance(built, refused):
        raise ValueError(
            f"{name} must return an object of the class {kind.__name__} that steps without "
            f"arguments, not {type(built).__name__}: try {name}={example}"
        )
    return built


def check_optimizer(optimizer: Optimizer, net: nn.Module) -> None:
    """Refuse an optimiser of another network."""
    weights = {id(weight) for weight in net.parameters()}
    if weights.isdisjoint(id(each) for group in optimizer.param_groups for each in group["params"]):
        raise ValueError(
            "optimizer must hold weights of net: try optimizer=lambda parameters, lr: "
            f"{type(optimizer).__name__}(parameters, lr)"
        )


def check_schedule(schedule: LRScheduler, optimizer: Optimizer, steps: int) -> None:
    """Refuse a schedule of another optimiser, and one that ends too soon."""
    if schedule.optimizer is not optimizer:
        raise ValueError(
            "schedule must change the rate of the optimizer that it is given: try "
            "schedule=cnnlib.train.one_cycle"
        )
    if (planned := getattr(schedule, "total_steps", steps)) < steps:
        raise ValueError(
            f"schedule must last for all {steps} steps, but ends after {planned}: try "
            "total_steps=steps"
        )


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
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            fits = not any(words in str(error) for words in _MISFITS)
            if isinstance(error, RuntimeError) and fits:
                raise  # such as a lack of memory
            refuse(f"it fails: {error}", error)
        if not isinstance(value, Tensor):
            refuse(f"it returns a {type(value).__name__}")
        if value.ndim > 0:
            refuse(f"it returns a tensor of shape {tuple(value.shape)}")
        if value.is_complex():
            refuse("its number is complex")
        if torch.is_grad_enabled() and not value.requires_grad:
            scores = outputs[0] if isinstance(outputs, tuple) else outputs
            if isinstance(scores, Tensor) and not scores.requires_grad:
                raise ValueError(
                    "net must give scores with a gradient in training: try its forward without "
                    "detach(), numpy() and no_grad()"
                )
            refuse("its number has no gradient")
        return value

    return checked


def check_training(net: nn.Module, data: Any, backend: Backend, loss: Any) -> Backend:
    """Refuse a network that cannot train on the data, and initialise a lazy one.

    Returns:
        The Backend, with the memory format that suits the network.
    """
    name = type(net).__name__
    if not any(weight.requires_grad for weight in net.parameters()):
        raise ValueError(
            f"net={name} has no weights to train: give it a layer with weights, or set "
            "requires_grad_(True)"
        )
    if any(weight.is_inference() for weight in net.parameters() if not is_lazy(weight)):
        raise ValueError(f"net={name} must be built outside torch.inference_mode to train")
    _check_float32(net)
    count, batch_size = len(data.train.labels), data.train.batch_size
    single = backend.world_size == 1 and 1 in (count % batch_size, batch_size)
    try:
        backend, outputs = _rehearse(net, data.train, backend, 1 if single else 2, training=True)
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
    if isinstance(outputs, tuple):
        return check_evaluation(net, data.test, backend)
    if outputs is not UNKNOWN:
        _check_scores(name, outputs, data.test.labels, len(outputs))
    return backend


def check_evaluation(net: nn.Module, batches: Any, backend: Backend) -> Backend:
    """Refuse a network that does not fit the batches, and initialise a lazy one."""
    backend, outputs = _rehearse(net, batches, backend, images=2, training=False)
    if outputs is UNKNOWN:
        _check_float32(net)
    else:
        check_scores_alone(net, outputs)
    return backend


def check_scores_alone(net: nn.Module, outputs: Any) -> None:
    """Refuse anything but scores, which is all that evaluation takes."""
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"net={type(net).__name__} returns a {type(outputs).__name__}, but must return its "
            "scores alone in evaluation: try a tuple only if self.training"
        )


def check_batch(net: nn.Module, images: Any, labels: Any) -> None:
    """Refuse images and labels that are not a batch which the network can train on."""
    is_batch = isinstance(images, Tensor) and images.ndim == 4 and images.dtype == torch.float32
    if not is_batch or not isinstance(labels, Tensor) or labels.shape[:1] != images.shape[:1]:
        given = [getattr(each, "shape", type(each).__name__) for each in (images, labels)]
        raise ValueError(
            f"images and labels of {given[0]} and {given[1]} must be one batch of float32 "
            "images (N, C, H, W) and their labels: try next(iter(data.train))"
        )
    backend = choose_backend(images.device, "fp32")
    batches = SimpleNamespace(labels=labels, shape=images.shape[1:], device=images.device)
    check_batches(batches)
    _check_float32(net)
    _, outputs = _rehearse(net, batches, backend, len(images), training=True)
    check_scores_alone(net, outputs)


def _rehearse(net, batches, backend, images, training):
    """Return the Backend and the outputs of a network, once these fit the labels."""
    if training and not torch.is_grad_enabled():
        raise ValueError("torch must record gradients in training: try it outside torch.no_grad()")
    _initialise_lazy(net, batches.shape)
    backend, outputs = choose_memory_format(net, batches.shape, backend, images, training)
    if outputs is not UNKNOWN:
        _check_scores(type(net).__name__, outputs, batches.labels, images)
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


def _check_scores(name, outputs, labels, images):
    """Refuse outputs without scores, and scores that do not fit the labels."""
    scores = outputs[0] if isinstance(outputs, tuple) and outputs else outputs
    if not isinstance(scores, Tensor):
        raise ValueError(
            f"net={name} returns a {type(outputs).__name__}, but must return scores, or a tuple "
            "with the scores first: change its forward, or wrap it in a network that does"
        )
    if not scores.is_floating_point():
        raise ValueError(
            f"net={name} gives scores of type {scores.dtype}, but these must be floating-point "
            "numbers: return what the last layer gives, without argmax or a comparison"
        )
    wanted = (images, *labels.shape[1:])
    if scores.ndim != labels.ndim + 1 or (len(scores), *scores.shape[2:]) != wanted:
        wanted = "x".join(["N", "classes", *map(str, labels.shape[1:])])
        is_mean = scores.ndim == labels.ndim + 1 and len(scores) != images
        batch = str(len(scores)) if is_mean else "N"
        given = "x".join([batch, *map(str, scores.shape[1:])])
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
    net: nn.Module, shape: tuple[int, ...], backend: Backend, images: int = 2, training: bool = True
) -> tuple[Backend, Any]:
    """Run a forward pass on the meta device, and find the network's memory format.

    `x.view(x.size(0), -1)` fails on channels-last maps, so a network that calls it gets contiguous
    images. So does a network that cannot run on the meta device, such as one that looks at the
    values of its images; a copy of that runs on its own device, on random images.

    Returns:
        The Backend, and the outputs, or UNKNOWN if the copy cannot run or there can be none.

    Raises:
        ValueError: The network does not accept such images; the message names the layer.
    """
    contiguous = replace(backend, memory_format=torch.contiguous_format)
    for device in ("meta", None):
        try:  # not on the compiled one
            twin = copy_network(getattr(net, "_orig_mod", net), device).train(training)
        except Exception:  # it holds what cannot be copied, such as an open file
            break
        for module in twin.modules():
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
        try:
            if device == "meta":
                return backend, _run(twin, (images, *shape), backend.memory_format)
            return contiguous, _run_with_numbers(twin, (images, *shape), backend.device)
        except Exception as error:
            if "view size is not compatible" in str(error) and backend != contiguous:
                return choose_memory_format(net, shape, contiguous, images, training)
            if _ONE_VALUE in str(error):
                raise ValueError(f"{_ONE_VALUE} in a batch: try two images or more") from error
            if device == "meta" and needs_memory(error):
                continue
            trace(net, shape)
    return contiguous, UNKNOWN


def _run(net, shape, memory_format):
    """Return the outputs for images of the meta device."""
    with torch.no_grad(), torch.device("meta"), _KeepMemoryFormat(memory_format):
        return net(torch.empty(shape))


def _run_with_numbers(net, shape, device):
    """Return the outputs for random images on the device of the network."""
    device = next((x.device for x in chain(net.parameters(), net.buffers())), device)
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        return net(torch.rand(shape, device=device))


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

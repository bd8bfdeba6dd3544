"""What is looked at before the first step of a training, so that it fails early and in words.

A copy of the network runs forward once, on images that have a shape but no memory: that takes
milliseconds, and changes neither the network nor the random numbers.
"""

from dataclasses import replace
from itertools import chain

import torch
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from cnnlib.trace import copy_network, needs_memory, trace


def initialise_lazy(net, images):
    """Give the lazy layers of a network their weights, by one forward pass.

    Args:
        net: A network; one without lazy layers is left alone.
        images: A batch of images (N, C, H, W).

    Raises:
        ValueError: The network does not take the images; the message names the layer.
    """
    tensors = list(chain(net.parameters(), net.buffers()))
    if not any(map(is_lazy, tensors)):
        return
    with torch.inference_mode(False), torch.no_grad():
        try:
            net.eval()(images[:1].to(tensors[0].device, copy=True))
        except Exception:
            trace(net, tuple(images.shape[1:]))  # the same failure, told layer by layer
            raise


def check_network(net, data, run, loss=None):
    """Refuse a network that cannot train on the data, and choose how its images lie in memory.

    Args:
        net: A network without lazy layers.
        data: A `Data`.
        run: An Engine.
        loss: The loss function of the caller, or None.

    Returns:
        The Engine for this network, as `suited` returns it.

    Raises:
        ValueError: The network has nothing to train or is not of float32, does not take the images,
            gives scores that do not fit the labels, or normalises a last batch of one image.
    """
    weights = list(net.parameters())
    if not any(weight.requires_grad for weight in weights):
        raise ValueError(
            f"net={type(net).__name__} has no weights to train: give it a layer with weights, or "
            "set requires_grad_(True)"
        )
    if other := {weight.dtype for weight in weights} - {torch.float32}:
        raise ValueError(
            f"net={type(net).__name__} must have weights of float32, and some are of "
            f"{other.pop()}: try net.float(), and precision='bf16' for speed"
        )
    run, outputs = suited(net, data.shape, run)
    check_outputs(net, outputs, data.train.labels, loss)
    count, batch_size = len(data.train.labels), data.train.batch_size
    if outputs is not None and run.processes == 1 and 1 in (count % batch_size, batch_size):
        refuse_one_image(net, data.shape, count, batch_size, run)
    return run


def check_outputs(net, outputs, labels, loss=None):
    """Refuse outputs that are no scores, or do not fit the labels.

    Args:
        net: The network, for its name.
        outputs: What it makes of a batch, or None where nothing could be seen.
        labels: Class indices (N,), or (N, H, W) with a class for every pixel.
        loss: The loss function of the caller, or None.

    Raises:
        ValueError: They are neither scores nor, for a loss that takes it, a tuple with scores
            first; there are fewer scores than classes, or not one set of them for each label.
    """
    if outputs is None:
        return
    name, largest = type(net).__name__, int(labels.max())
    scores = outputs[0] if isinstance(outputs, tuple) and outputs else outputs
    if not isinstance(scores, torch.Tensor):
        raise ValueError(
            f"net={name} returns a {type(outputs).__name__}, and must return scores, or a tuple "
            "with the scores first: change its forward, or wrap it in a network that does"
        )
    if scores is not outputs and loss is None:
        raise ValueError(
            f"net={name} returns a {type(outputs).__name__}, which the cross-entropy does not "
            "take: try loss=lambda outputs, labels: F.cross_entropy(outputs[0], labels)"
        )
    if scores.ndim != labels.ndim + 1 or scores.shape[2:] != labels.shape[1:]:
        wanted = "x".join(["N", "classes", *map(str, labels.shape[1:])])
        given = "x".join(["N", *map(str, scores.shape[1:])])
        raise ValueError(
            f"net={name} gives scores of the shape {given}, and these labels want {wanted}: change "
            "its last layers"
        )
    if scores.shape[1] <= largest:
        raise ValueError(
            f"net={name} gives {scores.shape[1]} scores, and the labels go up to {largest}: build "
            f"it with {largest + 1} classes"
        )


def suited(net, shape, run):
    """Rehearse a forward pass in training, and find the memory format that the network takes.

    `x.view(x.size(0), -1)` in a forward pass refuses maps whose channels lie side by side. A
    network that does so gets its images in the order that it expects; so does one that asks for
    numbers, which has none here.

    Args:
        net: A network.
        shape: (C, H, W) of an image.
        run: An Engine.

    Returns:
        The Engine, in the contiguous format where the network needs it, and its outputs for two
        images, without memory. They are None where nothing could be seen.

    Raises:
        ValueError: The network does not take such images; the message names the layer.
    """
    contiguous = replace(run, memory_format=torch.contiguous_format)
    try:
        twin = blank_copy(net)
    except Exception:  # it holds what cannot be copied, such as an open file
        return contiguous, None
    try:
        return run, rehearse(twin, 2, shape, run.memory_format)
    except Exception as error:
        if "view size is not compatible" in str(error) and run != contiguous:
            return suited(net, shape, contiguous)
        if not needs_memory(error):
            trace(net, shape)
    return contiguous, None


def blank_copy(net):
    """Return a copy of a network in training, without memory, that calls no hooks."""
    twin = copy_network(getattr(net, "_orig_mod", net), "meta").train()  # not the compiled one
    for module in twin.modules():
        module._forward_hooks.clear()  # these are for what is really computed
        module._forward_pre_hooks.clear()
    return twin


def rehearse(twin, images, shape, memory_format):
    """Return what a network without memory makes of blank images."""
    with torch.no_grad(), torch.device("meta"), AllMaps(memory_format):
        return twin(torch.empty(images, *shape))


def refuse_one_image(net, shape, count, batch_size, run):
    """Refuse a batch of one image where batch normalisation has one value for each channel."""
    try:
        rehearse(blank_copy(net), 1, shape, run.memory_format)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        sizes = chain(range(batch_size - 1, 1, -1), range(batch_size + 1, count + 1))
        remedies = [f"batch_size={size}" for size in sizes if count % size != 1][:1]
        if count > batch_size > 1:
            remedies.append(f"train={count - 1}")
        raise ValueError(
            f"train={count} images in batches of batch_size={batch_size} leave a batch of one "
            "image, and batch normalisation needs more than one value for each channel: "
            f"try {' or '.join(remedies) or 'train=2, batch_size=2'}"
        ) from error


class AllMaps(TorchDispatchMode):
    """Let the maps that leave an operation lie in one memory format.

    Without memory some operations lose the format that they keep on a device. So all are taken to
    keep it, but for a copy, whose format the network itself asks for.
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
            maps = isinstance(x, torch.Tensor) and x.ndim == 4
            return x.contiguous(memory_format=self.memory_format) if maps else x

        return tree_map(reorder, result)

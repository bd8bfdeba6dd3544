"""What is looked at before the first step of a training, so that it fails early and in words.

A copy of the network runs forward once, on images that have a shape but no memory: that takes
milliseconds, and changes neither the network nor the random numbers.
"""

from dataclasses import replace
from itertools import chain

import torch
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from cnnlib.engine import has_hooks
from cnnlib.trace import copy_network, trace


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


def check_network(net, data, run):
    """Refuse a network that cannot train on the data, and choose how its images lie in memory.

    A network that runs Python in hooks, is compiled, or asks for numbers in its forward pass is
    not looked at.

    Args:
        net: A network without lazy layers.
        data: A `Data`.
        run: An Engine.

    Returns:
        The Engine for this network, as `suited` returns it.

    Raises:
        ValueError: The network does not take the images, gives fewer scores than there are classes,
            or normalises a last batch of one image.
    """
    run, scores = suited(net, data.shape, run)
    if scores is None:
        return run
    largest = int(data.train.labels.max())
    if scores.ndim < 2 or scores.shape[1] <= largest:
        given = "no score" if scores.ndim < 2 else f"{scores.shape[1]} scores"
        raise ValueError(
            f"net={type(net).__name__} gives {given} for each image, and the labels go up to "
            f"{largest}: build it with num_classes={largest + 1}"
        )
    count, batch_size = len(data.train.labels), data.train.batch_size
    if run.processes == 1 and 1 in (count % batch_size, batch_size):
        refuse_one_image(net, data.shape, count, batch_size, run)
    return run


def suited(net, shape, run):
    """Rehearse a forward pass in training, and find the memory format that the network takes.

    `x.view(x.size(0), -1)` in a forward pass refuses maps whose channels lie side by side. A
    network that does so gets its images in the order that it expects.

    Args:
        net: A network.
        shape: (C, H, W) of an image.
        run: An Engine.

    Returns:
        The Engine, in the contiguous format where the network needs it, and the scores of two
        images, without memory. These are None where nothing could be seen.

    Raises:
        ValueError: The network does not take such images; the message names the layer.
    """
    if has_hooks(net) or any(module._compiled_call_impl for module in net.modules()):
        return run, None
    try:
        return run, rehearse(net, 2, shape, run.memory_format)
    except Exception as error:
        if "view size is not compatible" in str(error) and run.memory_format is torch.channels_last:
            return suited(net, shape, replace(run, memory_format=torch.contiguous_format))
        if not isinstance(error, NotImplementedError) and "meta" not in str(error):
            trace(net, shape)
    return run, None


def rehearse(net, images, shape, memory_format):
    """Return the scores of blank images from a copy of the network in training, without memory."""
    twin = copy_network(net, "meta").train()
    with torch.no_grad(), torch.device("meta"), ConvolutionsKeep(memory_format):
        outputs = twin(torch.empty(images, *shape))
    scores = outputs[0] if isinstance(outputs, tuple) else outputs
    return scores if isinstance(scores, torch.Tensor) else None


def refuse_one_image(net, shape, count, batch_size, run):
    """Refuse a batch of one image where batch normalisation has one value for each channel."""
    try:
        rehearse(net, 1, shape, run.memory_format)
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


class ConvolutionsKeep(TorchDispatchMode):
    """Let maps leave a convolution in one memory format, as on a device with memory."""

    def __init__(self, memory_format):
        super().__init__()
        self.memory_format = memory_format

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        """Run one operation."""
        result = operation(*args, **(kwargs or {}))
        if operation is torch.ops.aten.convolution.default and result.ndim == 4:
            result = result.contiguous(memory_format=self.memory_format)
        return result

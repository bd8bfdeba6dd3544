"""Trivial baselines: what a network has to beat before its accuracy or mean IoU says anything.

Each is a network, so `evaluate` measures it as it measures any other, on the same images.
"""

import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnlib._checks import check_count, check_seed
from cnnlib.data import Batches, Data
from cnnlib.measure.machine import final_accuracy, quiet
from cnnlib.preflight import check_data
from cnnlib.train import Metrics, adamw, evaluate, fit, one_cycle

_LR = 0.01  # of 0.001 to 0.1, the best for both on 6,000 held-out images of Fashion-MNIST
_BATCH_SIZE = 1000  # images for which the nearest neighbours are sought at once
_CHUNK = 8192  # training images among which they are sought at once
_GREYS = 256
_MOST_MACS = 10**9  # whose weights take 4 GB


def baselines(
    data: Data, *, macs: int = 200_000, epochs: int = 3, seed: int = 0
) -> dict[str, float]:
    """Measure the trivial baselines on the test images of a data set.

    With a class per image, the accuracy of: "majority", the commonest class; "linear layer", on the
    pixels; "MLP", one hidden layer; "nearest neighbour", the class of the training image whose
    pixels differ least. The two that train do so by AdamW, in one cycle up to a learning rate of
    0.01. The training images are not transformed.

    With a class per pixel, the mean IoU of: "all background"; "commonest class", which each
    position has most often; "grey threshold", the background below a grey and one class above,
    chosen for the best mean IoU on the training images.

    Args:
        data: A `Data`.
        macs: Multiply-accumulates per image of the MLP: see `mlp`.
        epochs: Passes over the training images of the two that train.
        seed: Decides initial weights and orders of those. The others do not depend on it.

    Returns:
        A dictionary from the name of each to its accuracy or mean IoU.

    Raises:
        ValueError: The MACs do not allow one hidden unit.
    """
    check_data(data)
    data = data.with_transforms()
    classes = len(data.classes)
    if not classes > (largest := max(int(part.labels.max()) for part in (data.train, data.test))):
        raise ValueError(
            f"data.classes={data.classes} must name every class, but labels go up to {largest}: "
            "try data=fashion_mnist()"
        )
    if data.has_label_maps:
        counts = torch.stack([(data.train.labels == k).sum(0) for k in range(classes)])
        nets = {
            "all background": _Constant(torch.zeros_like(counts[0]), classes),
            "commonest class": _Constant(counts.argmax(0), classes),
            "grey threshold": _best_threshold(data.train, classes),
        }
        return {name: evaluate(net, data.test).mean_iou for name, net in nets.items()}
    majority = _Constant(data.train.labels.bincount().argmax(), classes)
    nearest = _NearestNeighbour(data.train, classes)
    torch.manual_seed(check_seed(seed))
    linear = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(data.shape), classes))
    return {
        "majority": evaluate(majority, data.test).accuracy,
        "linear layer": _train(linear, data, epochs, seed),
        "MLP": _train(mlp(data, macs), data, epochs, seed),
        "nearest neighbour": evaluate(nearest, data.test.rebatch(_BATCH_SIZE)).accuracy,
    }


def _train(net: nn.Module, data: Data, epochs: int, seed: int) -> float:
    """Train a network by the recipe of the baselines, and return its accuracy."""
    with quiet():
        history = fit(
            net, data, epochs, _LR, optimizer=adamw, schedule=one_cycle, seed=seed, plot=False
        )
    return final_accuracy(history)


def mlp(data: Data, macs: int) -> nn.Sequential:
    """Build a multilayer perceptron for some images, with the widest hidden layer in its budget.

    Args:
        data: A `Data`.
        macs: Multiply-accumulates per image, such as those of the network that it stands beside.

    Raises:
        ValueError: There are too few for one hidden unit.
    """
    check_data(data)
    macs = check_count("macs", macs, _MOST_MACS, usual=200_000)
    pixels, classes = math.prod(data.shape), len(data.classes)
    hidden = macs // (pixels + classes)
    if hidden < 1:
        raise ValueError(
            f"macs={macs} must allow a hidden unit on {pixels} pixels: try macs={pixels + classes}"
        )
    layers = nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, classes)
    return nn.Sequential(nn.Flatten(), *layers)


class _Constant(nn.Module):
    """Answer every image alike.

    Shape:
        (N, C, H, W) -> (N, classes) for one label, (N, classes, H, W) for a label map
    """

    def __init__(self, label: Tensor, classes: int):
        super().__init__()
        self.register_buffer("scores", F.one_hot(label, classes).movedim(-1, 0).float())

    def forward(self, images):
        return self.scores.expand(len(images), *self.scores.shape)


class _NearestNeighbour(nn.Module):
    """Answer with the label of the nearest training image, the first of several.

    Distances are sums of squared differences of bytes, exact in float64.

    Shape:
        (N, C, H, W) -> (N, classes)
    """

    def __init__(self, batches: Batches, classes: int):
        super().__init__()
        everything = torch.arange(len(batches.labels), device=batches.device)
        chunks = [_bytes(batches.take(chosen)[0]) for chosen in everything.split(_CHUNK)]
        self.register_buffer("images", torch.cat(chunks).flatten(1))
        self.register_buffer("labels", batches.labels)
        self.classes = classes

    def forward(self, images):
        found = _bytes(images).flatten(1).double()
        nearest, label = torch.tensor(torch.inf, device=images.device), self.labels[0]
        for known, labels in zip(self.images.split(_CHUNK), self.labels.split(_CHUNK), strict=True):
            known = known.double()
            # |a - b|^2 = |a|^2 - 2ab + |b|^2, and the first is the same for all neighbours
            distances, index = (known.square().sum(1) - 2 * found @ known.T).min(1)
            label = torch.where(distances < nearest, labels[index], label)
            nearest = torch.minimum(distances, nearest)
        return F.one_hot(label, self.classes).float()


def _bytes(images: Tensor) -> Tensor:
    """Return images with values in 0..1 as the bytes that they come from."""
    return (images * 255).round().byte()


class _Threshold(nn.Module):
    """Answer with a class where a pixel is at least as bright as a grey, else with background.

    Shape:
        (N, 1, H, W) -> (N, classes, H, W)
    """

    def __init__(self, grey: int, label: int, classes: int):
        super().__init__()
        self.grey, self.label, self.classes = grey, label, classes

    def forward(self, images):
        labels = self.label * (_bytes(images[:, 0]) >= self.grey)
        return F.one_hot(labels, self.classes).movedim(-1, 1).float()


def _best_threshold(batches: Batches, classes: int) -> _Threshold:
    """Find the grey, the darkest of several, and the class with the best mean IoU on scenes."""
    counts = torch.zeros(_GREYS * classes, dtype=torch.long)  # of each grey in each class
    for images, labels in batches.epoch(1):
        cells = _bytes(images[:, 0]).long() * classes + labels
        counts += cells.flatten().bincount(minlength=len(counts)).cpu()
    counts = counts.view(_GREYS, classes)
    total = counts.sum(0)
    below = F.pad(counts.cumsum(0), (0, 0, 1, 0))[:-1]  # a row for each threshold

    def mean_iou(choice):
        grey, label = choice
        confusion = torch.zeros(classes, classes, dtype=torch.long)
        confusion[:, 0] = below[grey]
        confusion[:, label] += total - below[grey]
        return Metrics(0.0, confusion).mean_iou

    return _Threshold(*max(product(range(_GREYS), range(1, classes)), key=mean_iou), classes)

"""Batches of labelled images that stay on the device, and the dataset that `fit` takes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnlib._checks import check_count, check_flags, check_image_size, check_seed
from cnnlib.data.transforms import random_crop, random_flip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SYNTHETIC = "synthetic stand-in"
LARGEST_BATCH = 1_000_000  # images
BANNER = (
    "!!! SYNTHETIC STAND-IN, NOT FASHION-MNIST: that is not here and could not be downloaded.\n"
    "!!! Numbers from these pictures say nothing about the real data. See CNNLIB_DATA in README.md."
)


@dataclass(eq=False, repr=False)
class Batches:
    """Labelled images that stay on the device and are read batch by batch.

    Each `for images, labels in batches` reads one more epoch, starting from epoch 1. The images are
    float32 (N, C, H, W) in 0..1, as torchvision's ToTensor returns them, and the labels are int64.
    The last batch may be short.

    Args:
        images: Bytes (count, C, h, w).
        labels: Class indices (count), or label maps (count, H, W) with a class for every pixel.
        size: (H, W) of the images in a batch, in pixels. They are resized batch by batch and
            rounded to bytes, as PIL does.
        batch_size: Images per batch.
        shuffle: Whether each epoch has its own order.
        seed: Sets the order of every epoch.
        transforms: Functions that change each batch of images in turn, such as `random_flip`.

    Raises:
        ValueError: An argument is of the wrong kind or shape.
    """

    images: Tensor
    labels: Tensor
    size: tuple[int, int]
    batch_size: int
    shuffle: bool
    seed: int = 0
    transforms: tuple[Callable[[Tensor], Tensor], ...] = ()
    _shard: tuple[int, int] = (0, 1)  # index and number of shards
    _epochs: int = field(default=0, init=False)  # begun so far; a copy starts again

    def __post_init__(self):
        """Check the arguments."""
        images, labels = self.images, self.labels
        is_bytes = isinstance(images, Tensor) and images.dtype == torch.uint8
        if not is_bytes or images.ndim != 4 or not images.numel():
            raise ValueError(
                f"images of {_kind(images)} must be bytes (count, C, h, w): try a tensor of dtype "
                "uint8, from 0 to 255"
            )
        self.size = check_image_size(self.size)
        shapes = (images.shape[:1], (*images.shape[:1], *self.size))
        if (
            not isinstance(labels, Tensor)
            or labels.dtype != torch.int64
            or labels.shape not in shapes
            or labels.device != images.device
        ):
            raise ValueError(
                f"labels of {_kind(labels)} must be int64 of shape {tuple(shapes[0])}, or "
                f"{shapes[1]} for label maps, on {images.device}: try labels.long()"
            )
        self.batch_size = check_count("batch_size", self.batch_size, LARGEST_BATCH)
        check_flags(shuffle=self.shuffle)
        self.seed = check_seed(self.seed)
        if not isinstance(self.transforms, tuple | list) or not all(map(_changes, self.transforms)):
            raise ValueError(
                f"transforms={self.transforms!r} must be functions from images to images: try "
                "data.with_transforms(random_flip)"
            )

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.images.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """The (C, H, W) of an image in a batch."""
        return (self.images.shape[1], *self.size)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        index, num_shards = self._shard
        return -(-len(range(index, len(self.labels), num_shards)) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Read the next epoch of this object, from 1."""
        self._epochs += 1
        return self.epoch(self._epochs)

    def epoch(self, number: int, seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Read the batches of one epoch, whose order depends only on the seed and the number.

        Both together seed a NumPy generator, which tells (1, 2) from (2, 1) and (0, 3). It runs on
        the CPU, so the order is the same on every device.

        Args:
            number: Number of the epoch, from 1.
            seed: Sets the order. None: the seed of these batches.

        Raises:
            ValueError: The number or the seed is out of range.
        """
        number = check_count("number", number, usual=1)
        seed = check_seed(self.seed if seed is None else seed)
        order = np.arange(len(self.labels))
        if self.shuffle:
            np.random.default_rng((seed % 2**64, number)).shuffle(order)
        index, num_shards = self._shard
        mine = torch.from_numpy(order[index::num_shards]).to(self.device)
        return map(self._batch, mine.split(self.batch_size))

    def _batch(self, chosen):
        images, labels = self.take(chosen)
        for transform in self.transforms:
            images = _transformed(transform, images)
        return images, labels

    def take(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images with these indices, resized and not transformed, and their labels.

        Raises:
            ValueError: The indices are not a tensor of integers in one dimension.
        """
        is_index = isinstance(chosen, Tensor) and chosen.dtype == torch.int64 and chosen.ndim == 1
        if not is_index or chosen.is_meta:
            raise ValueError(
                f"chosen of {_kind(chosen)} must be indices in one dimension: try torch.arange(8)"
            )
        images = self.images[chosen].float()
        if images.shape[-2:] != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
            images.round_()
        return images.div_(255), self.labels[chosen]

    def rebatch(self, batch_size: int) -> "Batches":
        """Return the same images in batches of another size."""
        return replace(self, batch_size=batch_size)

    def shard(self, index: int, num_shards: int) -> "Batches":
        """Return shard `index`, from 0, of `num_shards` equal shards of each batch.

        Raises:
            ValueError: There are more shards than images, or there is no shard of this index.
        """
        num_shards = check_count("num_shards", num_shards, usual=1)
        index = check_count("index", index, num_shards - 1, least=0, usual=0)
        if num_shards > len(self.labels):
            raise ValueError(
                f"num_shards={num_shards} must be at most the {len(self.labels)} images: "
                "keep more of them"
            )
        batch_size = max(1, self.batch_size // num_shards)
        first, step = self._shard
        shard = (first + step * index, step * num_shards)
        return replace(self, batch_size=batch_size, _shard=shard)


def _kind(value):
    """Return the type of a value, and the shape of a tensor, as text."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else repr(type(value))


def _changes(transform):
    """Return whether a transform can be called; a class, such as nn.Dropout, only builds one."""
    return callable(transform) and not isinstance(transform, type)


def _transformed(transform, images):
    """Return what a transform makes of a batch of images, which must be such a batch again."""
    name = getattr(transform, "__name__", type(transform).__name__)
    try:
        changed = transform(images)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"transform={name} must take a batch of images {tuple(images.shape)}, but it fails: "
            f"{error}. Try random_flip"
        ) from error
    same = isinstance(changed, Tensor) and changed.shape == images.shape
    if not same or changed.dtype != images.dtype or changed.device != images.device:
        raise ValueError(
            f"transform={name} must return a batch as it takes it, {_kind(images)}, but it returns "
            f"{_kind(changed)}: try random_flip"
        )
    return changed


@dataclass(frozen=True, repr=False)
class Data:
    """A dataset for `fit`: training and test batches, and what they show.

    Args:
        train: Shuffled Batches.
        test: Batches in a fixed order.
        classes: The name of each class.
        source: Where the images come from: "Fashion-MNIST" or "synthetic stand-in".
    """

    train: Batches
    test: Batches
    classes: tuple[str, ...]
    source: str

    def __post_init__(self):
        """Check the parts."""
        parts = isinstance(self.train, Batches) and isinstance(self.test, Batches)
        named = isinstance(self.classes, tuple | list) and isinstance(self.source, str)
        if not parts or not named:
            rule = "train and test must be Batches, classes a tuple, source a text"
            raise ValueError(f"{rule}: try fashion_mnist()")

    @property
    def shape(self) -> tuple[int, int, int]:
        """The (C, H, W) of an image as the network sees it."""
        return self.train.shape

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.train.device

    @property
    def has_label_maps(self) -> bool:
        """Whether every pixel has a class, as in scenes, rather than every image."""
        return self.train.labels.ndim > 1

    @property
    def banner(self) -> str:
        """A warning to show beside every number from the stand-in; empty for real data."""
        return BANNER if self.source == SYNTHETIC else ""

    def __str__(self):
        line = (
            f"{self.source}: {len(self.train.labels):,} training and {len(self.test.labels):,} "
            f"test images, {'x'.join(map(str, self.shape))}, on {self.device}"
        )
        return f"{self.banner}\n{line}" if self.banner else line

    __repr__ = __str__

    def select_classes(self, *names: str) -> "Data":
        """Return the Data of some classes, labelled 0, 1, ... in the given order.

        Raises:
            ValueError: A name is unknown or repeated, no name is given, or the labels are maps.
        """
        if self.has_label_maps:
            asked = f"select_classes({', '.join(map(repr, names))})"
            raise ValueError(
                f"{asked} needs one class per image, and a scene has one per pixel: "
                f"use fashion_mnist().{asked}"
            )
        for name in names:
            if not isinstance(name, str) or name not in self.classes:
                raise ValueError(f"name={name!r} must be a class: try one of {self.classes}")
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"names={names} must be one class or several different ones: "
                f"try select_classes{self.classes[:2]}"
            )
        kept = torch.tensor([self.classes.index(name) for name in names], device=self.device)

        def select(batches):
            index, labels = (batches.labels[:, None] == kept).nonzero(as_tuple=True)
            if not len(index):
                raise ValueError(
                    f"names={names} must have training and test images, and a part has none: "
                    "try fashion_mnist() with more images"
                )
            return replace(batches, images=batches.images[index], labels=labels)

        return replace(self, train=select(self.train), test=select(self.test), classes=names)

    def hold_out(self, count: int, seed: int = 0) -> "Data":
        """Return the Data with some training images held out, which replace the test images.

        A choice made by an accuracy is fitted to the images behind it. So choose a rate or a recipe
        on held-out images, and evaluate the choice once on the test images.

        Args:
            count: Images to hold out.
            seed: Sets which images.

        Raises:
            ValueError: The count leaves no training or no held-out images, or the seed is invalid.
        """
        images, labels = self.train.images, self.train.labels
        count = check_count("count", count, len(labels) - 1, usual=-(-len(labels) // 10))
        generator = torch.Generator().manual_seed(check_seed(seed))
        order = torch.randperm(len(labels), generator=generator).to(self.device)
        held, kept = order[:count], order[count:]
        return replace(
            self,
            train=replace(self.train, images=images[kept], labels=labels[kept]),
            test=replace(self.test, images=images[held], labels=labels[held]),
        )

    def with_transforms(self, *transforms: Callable[[Tensor], Tensor]) -> "Data":
        """Return the Data with training images that change at random in each epoch.

        Args:
            transforms: Functions, applied in turn, from a batch of images (N, C, H, W) to one of
                the same shape, such as `random_flip`. Labels and test images stay unchanged, so
                images with label maps may change in brightness but must not move.
        """
        moving = {random_flip, random_crop}.intersection(filter(callable, transforms))
        if moving and self.has_label_maps:
            raise ValueError(
                f"transforms must not move images with label maps, as {moving.pop().__name__} "
                "does: try one that changes their brightness"
            )
        return replace(self, train=replace(self.train, transforms=transforms))

    def show(self, count: int | None = None) -> "Figure":
        """Draw the first training images with their classes or label maps.

        Args:
            count: Number of images. None: 16 images or 6 scenes.
        """
        from cnnlib import plots  # here, since matplotlib is slow to import

        usual = 6 if self.has_label_maps else 16
        count = check_count("count", usual if count is None else count, usual=usual)
        first = torch.arange(min(count, len(self.train.labels)), device=self.device)
        images, labels = self.train.take(first)
        if self.has_label_maps:
            figure = plots.scene_grid(images, {"labels": labels}, self.classes)
        else:
            figure = plots.image_grid(images, [self.classes[label] for label in labels])
        if self.banner:
            figure.suptitle(f"{self.source}, not Fashion-MNIST", y=1.08, color="#D55E00")
        return figure

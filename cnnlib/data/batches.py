"""Batches of labelled images that stay on the device, and the data set that `fit` takes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnlib.data._checks import check_count, check_seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SYNTHETIC = "synthetic stand-in"
BANNER = (
    "!!! SYNTHETIC STAND-IN, NOT FASHION-MNIST: that is not here and could not be downloaded.\n"
    "!!! Numbers from these pictures say nothing about the real data. See CNNLIB_DATA in README.md."
)


@dataclass(eq=False, repr=False)
class Batches:
    """Labelled images that stay on the device, and are read batch by batch.

    `for images, labels in batches` reads one epoch: epoch 1, the next time epoch 2, and so on. The
    images are float32 (N, C, H, W) with values in 0..1, as torchvision's ToTensor has them, and the
    labels are int64. The last batch may be short.

    Args:
        images: Bytes (count, C, h, w).
        labels: Class indices (count), or label maps (count, H, W) with a class for every pixel.
        size: (H, W) of the images in a batch, in pixels. They are resized batch by batch, and
            rounded to bytes, as PIL does it.
        batch_size: Images per batch.
        shuffle: Whether each epoch has an order of its own.
        seed: Decides the orders.
        transforms: Functions that change each batch of images in turn, such as `random_flip`.
    """

    images: Tensor
    labels: Tensor
    size: tuple[int, int]
    batch_size: int
    shuffle: bool
    seed: int = 0
    transforms: tuple[Callable[[Tensor], Tensor], ...] = ()
    _shard: tuple[int, int] = (0, 1)  # the index of this shard, and how many there are
    _epochs: int = field(default=0, init=False)  # that were begun; a copy begins anew

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
        """Read the batches of one epoch, whose order follows from the seed and the number alone.

        The two together seed a generator of NumPy, which keeps (1, 2) apart from (2, 1) and (0, 3).
        It runs on the CPU, so every device has the same order.

        Args:
            number: Number of the epoch, from 1.
            seed: Decides the orders. None: the seed of these batches.

        Raises:
            ValueError: There is no such epoch, or it is no seed.
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
            images = transform(images)
        return images, labels

    def take(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images with these indices, resized and not transformed, and their labels."""
        images = self.images[chosen].float()
        if images.shape[-2:] != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
            images.round_()
        return images.div_(255), self.labels[chosen]

    def rebatch(self, batch_size: int) -> "Batches":
        """Return the same images in batches of another size."""
        return replace(self, batch_size=batch_size)

    def shard(self, index: int, num_shards: int) -> "Batches":
        """Return part `index`, from 0, of `num_shards` equal parts of each batch.

        Raises:
            ValueError: There are more parts than images.
        """
        if num_shards > len(self.labels):
            raise ValueError(
                f"num_shards={num_shards} must be at most the {len(self.labels)} images: "
                "keep more of them"
            )
        batch_size = max(1, self.batch_size // num_shards)
        return replace(self, batch_size=batch_size, _shard=(index, num_shards))


@dataclass(frozen=True, repr=False)
class Data:
    """A data set for `fit`: its training and test batches, and what they are.

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
        """Whether there is a class for every pixel, as in scenes, and not for every image."""
        return self.train.labels.ndim > 1

    @property
    def banner(self) -> str:
        """A warning that belongs beside every number from the stand-in; empty for real data."""
        return BANNER if self.source == SYNTHETIC else ""

    def __str__(self):
        line = (
            f"{self.source}: {len(self.train.labels):,} training and {len(self.test.labels):,} "
            f"test images, {'x'.join(map(str, self.shape))}, on {self.device}"
        )
        return f"{self.banner}\n{line}" if self.banner else line

    __repr__ = __str__

    def select_classes(self, *names: str) -> "Data":
        """Return the Data of some classes, labelled 0, 1, ... in the order given.

        Raises:
            ValueError: There is no class of that name, or one is named twice, or none is; or the
                labels are maps.
        """
        if self.has_label_maps:
            asked = f"select_classes({', '.join(map(repr, names))})"
            raise ValueError(
                f"{asked} needs one class per image, and a scene has one per pixel: "
                f"use fashion_mnist().{asked}"
            )
        for name in names:
            if name not in self.classes:
                raise ValueError(f"name={name!r} must be a class: try one of {self.classes}")
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"names={names} must be one class or several different ones: "
                f"try select_classes{self.classes[:2]}"
            )
        kept = torch.tensor([self.classes.index(name) for name in names], device=self.device)

        def select(batches):
            index, labels = (batches.labels[:, None] == kept).nonzero(as_tuple=True)
            return replace(batches, images=batches.images[index], labels=labels)

        return replace(self, train=select(self.train), test=select(self.test), classes=names)

    def hold_out(self, count: int, seed: int = 0) -> "Data":
        """Return the Data whose test images are some of the training images, taken from those.

        What is chosen by an accuracy is fitted to the images that gave it. So choose a rate or a
        recipe by images held out, and test it once, when it is chosen.

        Args:
            count: Images to hold out.
            seed: Decides which.

        Raises:
            ValueError: No training images would be left, or none held out, or it is no seed.
        """
        images, labels = self.train.images, self.train.labels
        count = check_count("count", count, len(labels) - 1)
        generator = torch.Generator().manual_seed(check_seed(seed))
        order = torch.randperm(len(labels), generator=generator).to(self.device)
        held, kept = order[:count], order[count:]
        return replace(
            self,
            train=replace(self.train, images=images[kept], labels=labels[kept]),
            test=replace(self.test, images=images[held], labels=labels[held]),
        )

    def with_transforms(self, *transforms: Callable[[Tensor], Tensor]) -> "Data":
        """Return the Data whose training images are changed at random, anew in each epoch.

        Args:
            transforms: Functions of a batch of images (N, C, H, W), applied in turn, that return
                one of that shape, such as `random_flip`. Labels and test images stay as they are:
                so images with label maps may change in brightness, but must not move.
        """
        return replace(self, train=replace(self.train, transforms=transforms))

    def show(self, count: int | None = None) -> "Figure":
        """Draw the first training images with their classes, or above their label maps.

        Args:
            count: How many. None: 16 images, or 6 scenes.
        """
        from cnnlib import plots  # here, because matplotlib takes long to import

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

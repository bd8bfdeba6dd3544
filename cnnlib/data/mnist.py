"""Fashion-MNIST, resident on the device, or a drawn stand-in where it cannot be had."""

import copy
import hashlib
import os
import shutil
import socket
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from platformdirs import user_cache_path
from torchvision.datasets import FashionMNIST

from cnnlib import plots
from cnnlib.data import standin

REAL, STAND_IN = "Fashion-MNIST", "drawn stand-in"
BANNER = (
    "!!! DRAWN STAND-IN, NOT FASHION-MNIST: the archives are not here and could not be fetched.\n"
    "!!! Numbers from these pictures say nothing about the real data. See CNNLIB_DATA in README.md."
)
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
COUNTS = {"train": 60_000, "test": 10_000}
UNPACKED_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


UNREACHABLE = set()  # folders for which this process has tried a download in vain


class Batches:
    """Labelled images that stay on the device, and are iterated a batch at a time.

    Each pass yields (images, labels): images float32 (N, C, H, W) with values in 0..1, as
    torchvision's ToTensor has them, and labels int64. The last batch may be short.

    Args:
        images: Bytes (count, C, h, w).
        labels: Class indices (count,), or (count, H, W) with a class for every pixel.
        size: (H, W), in pixels, of the images that are yielded. They are resized a batch at a time,
            and rounded to bytes, as PIL does it.
        batch_size: Images in a batch.
        shuffle: Whether each pass has an order of its own.
        seed: Decides the orders. They are drawn on the CPU, so every device has the same.
        changes: Functions that change each batch of images in turn, such as `random_flip`.
    """

    def __init__(self, images, labels, size, batch_size, shuffle, seed=0, changes=()):
        self.images, self.labels = images, labels
        self.size, self.batch_size, self.shuffle, self.seed = size, batch_size, shuffle, seed
        self.generator = torch.Generator()
        self.reseed(seed)
        self.part, self.parts = 0, 1
        self.changes = changes

    @property
    def device(self):
        """Where the images are."""
        return self.images.device

    def reseed(self, seed):
        """Start the sequence of orders again."""
        self.generator.manual_seed(seed)

    def regroup(self, batch_size, part=0, parts=1):
        """Return the same images in batches of another size, or one part of each batch.

        All parts draw the same orders, so together they have the batches that one would have.

        Args:
            batch_size: Images in a batch, the other parts included.
            part: Number of the part, from 0.
            parts: How many parts there are.

        Raises:
            ValueError: There are more parts than images.
        """
        if parts > len(self.labels):
            raise ValueError(
                f"parts={parts} must be at most the {len(self.labels)} images: keep more of them"
            )
        batches = copy.copy(self)  # the random generator is shared: to reseed one is to reseed all
        batches.batch_size, batches.part, batches.parts = max(1, batch_size // parts), part, parts
        return batches

    def __len__(self):
        """Return the number of batches."""
        count = len(range(self.part, len(self.labels), self.parts))
        return -(-count // self.batch_size)

    def __iter__(self):
        count = len(self.labels)
        if self.shuffle:
            order = torch.randperm(count, generator=self.generator).to(self.device)
        else:
            order = torch.arange(count, device=self.device)
        for chosen in order[self.part :: self.parts].split(self.batch_size):
            images, labels = self.take(chosen)
            for change in self.changes:
                images = change(images)
            yield images, labels

    def take(self, chosen):
        """Return the images with these indices, resized, and their labels."""
        images = self.images[chosen].float()
        if images.shape[-2:] != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
            images.round_()
        return images.div_(255), self.labels[chosen]

    def only(self, kept):
        """Return Batches of the images whose label is in `kept`, labelled by its place there."""
        index, label = torch.nonzero(self.labels[:, None] == kept, as_tuple=True)
        settings = self.size, self.batch_size, self.shuffle, self.seed, self.changes
        return Batches(self.images[index], label, *settings)


@dataclass(frozen=True, repr=False)
class Data:
    """A data set for `fit`: its training and test batches, and what they are.

    Args:
        train: Shuffled Batches.
        test: Batches in a fixed order.
        classes: The name of each class.
        source: Where the images come from: "Fashion-MNIST" or "drawn stand-in".
    """

    train: Batches
    test: Batches
    classes: tuple
    source: str

    @property
    def shape(self):
        """The (C, H, W) of an image as the network sees it."""
        return (self.train.images.shape[1], *self.train.size)

    @property
    def device(self):
        """Where the images are."""
        return self.train.device

    @property
    def banner(self):
        """A warning that belongs beside every number from the stand-in; empty for real data."""
        return BANNER if self.source == STAND_IN else ""

    def __str__(self):
        line = (
            f"{self.source}: {len(self.train.labels):,} training and {len(self.test.labels):,} "
            f"test images, {'x'.join(map(str, self.shape))}, on {self.device}"
        )
        return f"{self.banner}\n{line}" if self.banner else line

    __repr__ = __str__

    def only(self, *names):
        """Return the Data of some classes, labelled 0, 1, ... in the order given.

        Raises:
            ValueError: There is no class of that name.
        """
        for name in names:
            if name not in self.classes:
                raise ValueError(f"name={name!r} must be a class: try one of {self.classes}")
        kept = torch.tensor([self.classes.index(name) for name in names], device=self.device)
        return Data(self.train.only(kept), self.test.only(kept), names, self.source)

    def hold_out(self, count, seed=0):
        """Return the Data whose test images are some of the training images, taken from those.

        What is chosen by an accuracy is fitted to the images that gave it. So choose a rate or a
        recipe by images held out, and test it once, when it is chosen.

        Args:
            count: Images to hold out.
            seed: Decides which.

        Raises:
            ValueError: No training images would be left, or none held out.
        """
        images = len(self.train.labels)
        check_count("count", count, images - 1)
        order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
        held, kept = order.to(self.device).split([count, images - count])
        train, test = copy.copy(self.train), copy.copy(self.test)
        for batches, chosen in ((train, kept), (test, held)):
            batches.images, batches.labels = self.train.images[chosen], self.train.labels[chosen]
        return replace(self, train=train, test=test)

    def augmented(self, *changes):
        """Return the Data whose training images are changed at random, anew in each pass.

        Args:
            changes: Functions of a batch of images (N, C, H, W), applied in turn, that return one
                of that shape, such as `random_flip`. The test images stay as they are.
        """
        train = copy.copy(self.train)
        train.changes = changes
        return replace(self, train=train)

    def show(self, count=16):
        """Draw the first training images with the names of their classes."""
        count = min(count, len(self.train.labels))
        images, labels = self.train.take(torch.arange(count, device=self.device))
        figure = plots.image_grid(images, [self.classes[label] for label in labels])
        if self.banner:
            figure.suptitle("drawn stand-in, not Fashion-MNIST", y=1.08, color="#D55E00")
        return figure


def fashion_mnist(
    size=28, batch_size=128, *, train=None, test=None, device=None, root=None, seed=0
):
    """Load Fashion-MNIST onto a device.

    The archives are looked for in `root`, else in the folder that CNNLIB_DATA names, else in the
    user's cache folder, and are downloaded where they are missing or damaged. If that fails, a
    drawn stand-in with the same classes takes their place, and says so.

    Args:
        size: Side of the images in pixels, or (height, width). The originals are 28x28.
        batch_size: Images in a batch.
        train: Training images to keep, drawn evenly from the classes. None: all 60,000.
        test: Test images to keep, likewise. None: all 10,000.
        device: None: the GPU where there is one, else the CPU.
        root: A folder for the archives, which lie in its FashionMNIST/raw.
        seed: Decides which images are kept, and the order of the training batches.

    Returns:
        The Data.

    Raises:
        ValueError: A size or a count is out of range, or the folder is not one.
    """
    size = check_size(size)
    check_count("batch_size", batch_size)
    keep = {"train": train, "test": test}
    for part, count in keep.items():
        keep[part] = check_count(part, COUNTS[part] if count is None else count, COUNTS[part])
    device = check_device(device)
    check_seed(seed)
    folder = data_folder(root)
    try:
        folder = fetch(folder)
        source = REAL
    except (OSError, RuntimeError) as error:  # no network, a full disk, a server that is down
        print(f"Fashion-MNIST is not to be had: {error}")
        source = STAND_IN
    generator = torch.Generator().manual_seed(seed)
    batches = {}
    for part, count in keep.items():
        if source == REAL:
            images, labels = read(folder, part)
            chosen = draw_evenly(labels, count, generator)
            images, labels = images[chosen], labels[chosen]
        else:
            images, labels = standin.draw(count, seed=2 * seed + (part == "test"))
        shuffle = part == "train"
        batches[part] = Batches(
            images.to(device), labels.to(device), size, batch_size, shuffle, seed
        )
    return Data(**batches, classes=CLASSES, source=source)


def draw_evenly(labels, count, generator):
    """Return sorted indices of `count` labels, the same number from each class (or one more)."""
    by_class = [torch.nonzero(labels == k).flatten() for k in range(len(CLASSES))]
    chosen = []
    for k, indices in enumerate(by_class):
        share = count // len(by_class) + (k < count % len(by_class))
        chosen.append(indices[torch.randperm(len(indices), generator=generator)[:share]])
    return torch.cat(chosen).sort().values


# The archives


def data_folder(root):
    """Return the folder of the archives: root, else CNNLIB_DATA, else the user's cache."""
    name, folder = "root", root
    if folder is None:
        name, folder = "CNNLIB_DATA", os.environ.get("CNNLIB_DATA") or user_cache_path("cnnlib")
    folder = Path(folder).expanduser()
    if any(part.exists() and not part.is_dir() for part in (folder, *folder.parents)):
        raise ValueError(
            f"{name}={str(folder)!r} must be a folder: name the one that holds FashionMNIST/raw, "
            "or a new one"
        )
    return folder


def fetch(folder):
    """Make sure that the four unpacked files are in the folder, whole.

    Of a damaged or half-written file the name is printed; it is unpacked or downloaded again. One
    process at a time does that. A download that failed is not tried again by this process. Archives
    that lie directly in the folder are copied to where torchvision looks for them, and those in a
    folder that cannot be written, into the user's cache.

    Returns:
        The folder that has them in its FashionMNIST/raw.

    Raises:
        OSError: They cannot be had.
        RuntimeError: Likewise, as torchvision says it.
    """
    raw = folder / "FashionMNIST" / "raw"
    if not missing(raw):
        return folder
    given = next((place for place in (folder, raw) if has_archives(place)), None)
    if given and not os.access(given, os.W_OK):
        folder = user_cache_path("cnnlib")
        raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "fashion_mnist.lock"):
        remove_damaged(raw)
        if missing(raw) and given and given != raw:
            for name, _ in FashionMNIST.resources:
                shutil.copyfile(given / name, raw / name)
        if missing(raw):
            download(folder, raw)
        if missing(raw):
            raise OSError(f"still damaged after unpacking: {', '.join(missing(raw))}")
    return folder


def has_archives(place):
    """Whether all four archives lie in a folder, whole."""
    return all(md5(place / name) == expected for name, expected in FashionMNIST.resources)


def download(folder, raw):
    """Unpack what is there and download what is not; after a failure, not again."""
    if folder in UNREACHABLE and not has_archives(raw):
        raise OSError("a download failed before; restart the kernel to try again")
    try:
        with socket_timeout(10):
            FashionMNIST(folder, download=True)
    except (OSError, RuntimeError):
        UNREACHABLE.add(folder)
        raise


def missing(raw):
    """Return the names of the unpacked files that are not there, or not whole."""
    return [name for name, expected in UNPACKED_MD5.items() if md5(raw / name) != expected]


def remove_damaged(raw):
    """Remove archives and unpacked files with a wrong checksum, and name them."""
    archives = dict(FashionMNIST.resources)
    for name, expected in (archives | UNPACKED_MD5).items():
        if (raw / name).exists() and md5(raw / name) != expected:
            print(f"{name} is damaged or half-written: it is replaced")
            (raw / name).unlink()


def md5(path):
    """Return the checksum of a file, or None if there is no such file."""
    if not path.is_file():
        return None
    about = path.stat()
    return checksum(path, about.st_size, about.st_mtime_ns)


@cache
def checksum(path, size, modified):
    """Return the checksum of a file, which is read again only when it has changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def read(folder, part):
    """Return images (count, 1, 28, 28) and labels (count,) of the train or test part."""
    files = FashionMNIST(folder, train=part == "train")
    return files.data[:, None], files.targets


@contextmanager
def socket_timeout(seconds):
    """Give up on a silent server after some seconds."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# Refusals


def check_count(name, value, most=None):
    """Return a number of images, which must be whole, at least 1, and at most `most`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < 1 or (most and value > most):
        limit = f"from 1 to {most:,}" if most else "from 1"
        raise ValueError(
            f"{name}={value!r} must be a whole number {limit}: try {name}={min(most or 128, 128)}"
        )
    return value


def check_device(device):
    """Return the device, None being the GPU where there is one; it must be there."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={str(device)!r} must be a device of this machine: try device='cpu'"
        ) from error


def check_seed(seed):
    """Refuse a seed that is not a whole number."""
    if not isinstance(seed, int):
        raise ValueError(f"seed={seed!r} must be a whole number: try seed=0")


def check_size(size):
    """Return a size, a side or (height, width) in pixels, as (height, width)."""
    sides = size if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2 or not all(type(side) is int and side >= 1 for side in sides):
        raise ValueError(
            f"size={size!r} must be a number of pixels from 1, or (height, width): try size=28"
        )
    return tuple(sides)

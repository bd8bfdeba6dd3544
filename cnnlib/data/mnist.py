"""Fashion-MNIST, resident on the device, or a drawn stand-in where it cannot be had."""

import copy
import gzip
import hashlib
import os
import shutil
import socket
import struct
import tempfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from http.client import HTTPException
from itertools import product
from numbers import Integral
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from platformdirs import user_cache_path

from cnnlib.data import synthetic

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
PREFIXES = {"train": "train", "test": "t10k"}  # of the names of the files
UNPACKED_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
RAW = Path("FashionMNIST", "raw")  # where torchvision keeps the files, below its root
UNREACHABLE = set()  # folders for which a download has failed in this process


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

    @property
    def shape(self):
        """The (C, H, W) of an image that is yielded."""
        return (self.images.shape[1], *self.size)

    def reseed(self, seed):
        """Start the sequence of orders again."""
        self.generator.manual_seed(check_seed(seed))

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
        return self.train.shape

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
            ValueError: There is no class of that name, or one is named twice, or none is.
        """
        for name in names:
            if name not in self.classes:
                raise ValueError(f"name={name!r} must be a class: try one of {self.classes}")
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"names={names} must be one class or several different ones: try only"
                f"{self.classes[:2]}"
            )
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
            ValueError: No training images would be left, or none held out, or it is no seed.
        """
        images = len(self.train.labels)
        count = check_count("count", count, images - 1)
        generator = torch.Generator().manual_seed(check_seed(seed))
        order = torch.randperm(images, generator=generator)
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
        from cnnlib import plots  # here, because matplotlib takes long to import

        count = min(check_count("count", count, usual=16), len(self.train.labels))
        images, labels = self.train.take(torch.arange(count, device=self.device))
        figure = plots.image_grid(images, [self.classes[label] for label in labels])
        if self.banner:
            figure.suptitle("drawn stand-in, not Fashion-MNIST", y=1.08, color="#D55E00")
        return figure


def fashion_mnist(
    size=28, batch_size=128, *, train=None, test=None, device=None, root=None, seed=0
):
    """Load Fashion-MNIST onto a device.

    The four files are looked for in `root`, else in the folder that CNNLIB_DATA names, else in the
    user's cache folder, and are downloaded where they are missing or damaged. If that fails, a
    drawn stand-in with the same classes takes their place, and says so.

    Args:
        size: Side of the images in pixels, or (height, width). The originals are 28x28.
        batch_size: Images in a batch.
        train: Training images to keep, drawn evenly from the classes. None: all 60,000.
        test: Test images to keep, likewise. None: all 10,000.
        device: None: the GPU where there is one, else the CPU.
        root: The folder of the four files, packed (.gz) or unpacked. They may lie in the folder
            itself or in its FashionMNIST/raw, which is also where a download puts them.
        seed: Decides which images are kept, and the order of the training batches.

    Returns:
        The Data.

    Raises:
        ValueError: A size, a count or the seed is out of range, or the folder is not one.
    """
    size = check_size(size)
    batch_size = check_count("batch_size", batch_size)
    keep = {"train": train, "test": test}
    for part, count in keep.items():
        keep[part] = check_count(part, COUNTS[part] if count is None else count, COUNTS[part])
    device = check_device(device)
    seed = check_seed(seed)
    folder = data_folder(root)
    try:
        folder = fetch(folder)
        source = REAL
    except OSError as error:  # no network, a full disk, a server that is down
        print(f"Fashion-MNIST could not be found or downloaded: {error}")
        source = STAND_IN
    generator = torch.Generator().manual_seed(seed)
    batches = {}
    for part, count in keep.items():
        if source == REAL:
            images, labels = read(folder, part)
            chosen = draw_evenly(labels, count, generator)
            images, labels = images[chosen], labels[chosen]
        else:
            images, labels = synthetic.draw(count, seed=2 * seed + (part == "test"))
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


# The files


def data_folder(root):
    """Return the folder to look in: root, else CNNLIB_DATA, else the user's cache.

    Raises:
        ValueError: It is something else than a folder.
    """
    name, folder = "root", root
    if folder is None:
        name, folder = "CNNLIB_DATA", os.environ.get("CNNLIB_DATA") or cache_folder()
    try:
        path = Path(folder).expanduser().absolute()
        possible = folder != "" and all(
            os.path.isdir(part) or not os.path.exists(part) for part in (path, *path.parents)
        )
    except (RuntimeError, TypeError):  # the home of nobody; no path at all
        possible = False
    if not possible:
        raise ValueError(
            f"{name}={str(folder)!r} must be a folder: name the one that holds the files of "
            "Fashion-MNIST, or a new one"
        )
    return path


def cache_folder():
    """Return the user's cache folder, or a temporary one for a user without a home."""
    folder = user_cache_path("cnnlib")
    return folder if folder.is_absolute() else temporary_folder()


def temporary_folder():
    """Return a folder that every user may write to, and that the system may clear."""
    return Path(tempfile.gettempdir(), "cnnlib")


def fetch(folder):
    """Make sure that the four unpacked files exist, whole.

    Files that lie in the folder are unpacked into its FashionMNIST/raw, or into the user's cache if
    the folder cannot be written. Missing ones are downloaded. One process at a time does that.
    Damaged files are named; those in FashionMNIST/raw are replaced, others are left as they are.

    Args:
        folder: Where to look. It may also be the folder FashionMNIST, or its raw.

    Returns:
        The folder whose FashionMNIST/raw holds the unpacked files.

    Raises:
        OSError: They could be neither found nor downloaded.
    """
    try:
        return provide(folder)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split())
        names = ", ".join(f"{name}.gz" for name in UNPACKED_MD5)
        raise OSError(
            f"{reason.rstrip('.')}. It was looked for in {folder}, where you can put the four "
            f"files yourself: {names}"
        ) from error


def provide(folder):
    """Return what `fetch` returns; every error still has its own type."""
    homes = [home_of(folder)]
    if not missing(homes[0]):
        return homes[0]
    if len(search(folder)[0]) == len(UNPACKED_MD5):
        homes += [cache_folder(), temporary_folder()]
    for home in homes:
        if not missing(home):
            return home
        if can_write(home / RAW):
            # No download takes half an hour: a process that holds the lock for longer hangs.
            with FileLock(home / RAW / "fashion_mnist.lock", timeout=1800):
                complete(home, folder)
            return home
    raise OSError(f"{homes[0] / RAW} cannot be written")


def home_of(folder):
    """Return the folder that holds FashionMNIST/raw, if `folder` names one of these two."""
    if folder.parts[-2:] == RAW.parts:
        return folder.parents[1]
    return folder.parent if folder.name == RAW.parts[0] else folder


def can_write(folder):
    """Return whether files can be made in a folder, which is made first if it is missing.

    The way to know is to make one: `os.access` does not know the rights of folders on Windows.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def complete(home, folder):
    """Unpack what was given in the folder, and download the rest, into FashionMNIST/raw of home."""
    raw = home / RAW
    given, damaged = search(folder)
    for path in damaged:
        if path.parent == raw and path.name.removesuffix(".gz") in UNPACKED_MD5:
            print(f"{path.name} is damaged or half-written: it is replaced")
            path.unlink()
        else:
            print(f"{path} is damaged or is not of Fashion-MNIST: it is left as it is")
    for name in missing(home):
        if name in given:
            unpack(given[name], raw / name)
    if missing(home):
        download(home)
    if missing(home):
        raise OSError(f"still damaged after unpacking: {', '.join(missing(home))}")


def search(folder):
    """Look for the four files where people put them, under the names that people give them.

    A file may be packed or unpacked. Some sites, such as Kaggle, write a dot in place of the second
    hyphen: train-images.idx3-ubyte.

    Returns:
        The paths of whole files, by the usual names of the unpacked ones, and a list of the
        damaged files that were met before.
    """
    whole, damaged = {}, []
    places = (folder / RAW, folder, folder / "raw", folder / "FashionMNIST")
    for place, name, mark, ending in product(places, UNPACKED_MD5, ("-", "."), ("", ".gz")):
        path = place / (name.replace("-idx", f"{mark}idx") + ending)
        found = None if name in whole else md5(path)
        if found == UNPACKED_MD5[name]:
            whole[name] = path
        elif found:
            damaged.append(path)
    return whole, damaged


def missing(home):
    """Return the names of the unpacked files that are not in FashionMNIST/raw, or not whole."""
    return [name for name, expected in UNPACKED_MD5.items() if md5(home / RAW / name) != expected]


def md5(path):
    """Return the checksum of what a file holds, once unpacked, or None if there is no such file."""
    if not os.path.isfile(path):  # which is also the answer for a folder that is closed to us
        return None
    about = path.stat()
    return checksum(path, about.st_size, about.st_mtime_ns)


@cache
def checksum(path, size, modified):
    """Return the checksum of a file, which is read again only when it has changed."""
    try:
        with opened(path) as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return "of a damaged archive"


def opened(path):
    """Open a file to read its bytes, those of an archive unpacked."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def unpack(source, target):
    """Copy a file, unpacked. The copy gets its name only when it is whole."""
    part = target.with_name(f"{target.name}.part")
    try:
        with opened(source) as packed, part.open("wb") as file:
            shutil.copyfileobj(packed, file)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def download(home):
    """Download the archives that are missing, and unpack them; after a failure, not again."""
    if home in UNREACHABLE:
        raise OSError("a download failed before; restart the kernel to try again")
    from torchvision.datasets import FashionMNIST  # here, because it takes seconds to import

    try:
        with socket_timeout(10):
            FashionMNIST(home, download=True)
    except (OSError, RuntimeError, HTTPException):
        UNREACHABLE.add(home)
        raise


def read(home, part):
    """Return images (count, 1, 28, 28) and labels (count,) of the train or test part."""
    raw, prefix = home / RAW, PREFIXES[part]
    images = read_idx(raw / f"{prefix}-images-idx3-ubyte")
    labels = read_idx(raw / f"{prefix}-labels-idx1-ubyte")
    return images[:, None], labels.long()


def read_idx(path):
    """Return what a file in the IDX format holds, as bytes.

    All numbers in its header have four bytes, the highest first. The first is 0x803 for images and
    0x801 for labels: 8 says that the elements are unsigned bytes, and 3 or 1 is the number of
    dimensions. The length of each dimension follows: count, height and width, or count. The rest
    are the elements, row by row.
    """
    content = bytearray(path.read_bytes())  # writable, as torch wants it
    (magic,) = struct.unpack_from(">I", content)
    dimensions = {0x803: 3, 0x801: 1}[magic]
    lengths = struct.unpack_from(f">{dimensions}I", content, offset=4)
    elements = torch.frombuffer(content, dtype=torch.uint8, offset=4 + 4 * dimensions)
    return elements.view(lengths)


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


def is_whole(value):
    """Return whether a value is a whole number: an int or one of numpy's, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_count(name, value, most=None, *, least=1, usual=128):
    """Return a whole number, such as a number of images, as an int.

    Args:
        name: Its name, for the refusal.
        value: The number.
        most: The largest that is taken. None: there is no limit.
        least: The smallest that is taken.
        usual: A number that the refusal proposes, if it is at most `most`.

    Raises:
        ValueError: It is not a whole number, or out of range.
    """
    if not is_whole(value) or value < least or (most is not None and value > most):
        limit = f"from {least}" if most is None else f"from {least} to {most:,}"
        proposal = usual if most is None else min(most, usual)
        raise ValueError(f"{name}={value!r} must be a whole number {limit}: try {name}={proposal}")
    return int(value)


def check_device(device):
    """Return the device, None being the GPU where there is one; it must be able to hold data."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.empty(0, device=device)
        place.cpu()  # which the device "meta" cannot do
        return place.device
    except (AssertionError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"device={str(device)!r} must be a device of this machine: try device='cpu'"
        ) from error


def check_seed(seed):
    """Return a seed as an int. Twice the seed, plus 1, must be one for torch, too."""
    if not is_whole(seed):
        raise ValueError(f"seed={seed!r} must be a whole number: try seed=0")
    if not -(2**62) <= seed < 2**63:
        raise ValueError(f"seed={seed!r} must be from -2**62 to 2**63 - 1: try seed=0")
    return int(seed)


def check_size(size):
    """Return a size, a side or (height, width) in pixels, as (height, width)."""
    sides = size if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2 or not all(is_whole(side) and side >= 1 for side in sides):
        raise ValueError(
            f"size={size!r} must be a number of pixels from 1, or (height, width): try size=28"
        )
    return tuple(int(side) for side in sides)

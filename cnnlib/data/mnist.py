"""Fashion-MNIST on the device, or its synthetic stand-in."""

from pathlib import Path

import torch
from torch import Tensor

from cnnlib._checks import check_count, check_device, check_image_size, check_seed
from cnnlib.data import synthetic
from cnnlib.data._files import fetch, read
from cnnlib.data.batches import LARGEST_BATCH, SYNTHETIC, Batches, Data

FASHION_MNIST = "Fashion-MNIST"
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
COUNTS = {"train": 60_000, "test": 10_000}


def fashion_mnist(
    size: int | tuple[int, int] = 28,
    batch_size: int = 128,
    *,
    train: int | None = None,
    test: int | None = None,
    device: torch.device | str | None = None,
    root: str | Path | None = None,
    seed: int = 0,
) -> Data:
    """Load Fashion-MNIST onto a device.

    The four files are looked for in `root`, else in the folder that CNNLIB_DATA names, else in the
    user's cache folder, and are downloaded if they are missing or damaged. If that fails, a
    synthetic stand-in with the same classes takes their place, with a warning.

    Args:
        size: Side of the images in pixels, or (height, width). The originals are 28x28.
        batch_size: Images per batch.
        train: Training images to keep, the same number from each class. None: all 60,000.
        test: Test images to keep, likewise. None: all 10,000.
        device: A torch device or its name. None: a GPU if there is one, else the CPU.
        root: The folder of the four files, packed (.gz) or unpacked. They may lie in the folder
            itself or in its FashionMNIST/raw, which is also where a download puts them.
        seed: Sets which images are kept and the order of the training batches.

    Raises:
        ValueError: A size, a count or the seed is out of range, or the root is not a folder.
    """
    size = check_image_size(size)
    batch_size = check_count("batch_size", batch_size, LARGEST_BATCH)
    counts = {}
    for split, count in {"train": train, "test": test}.items():
        most = COUNTS[split]
        counts[split] = check_count(split, most if count is None else count, most)
    device = check_device(device)
    seed = check_seed(seed)
    try:
        raw, source = fetch(root), FASHION_MNIST
    except OSError as error:  # no network, a full disk, a server that is down
        print(f"Fashion-MNIST could not be found or downloaded: {error}")
        source = SYNTHETIC
    generator = torch.Generator().manual_seed(seed)
    batches = {}
    for split, count in counts.items():
        if source == FASHION_MNIST:
            images, labels = read(raw, split)
            kept = stratified_sample(labels, count, generator)
            images, labels = images[kept], labels[kept]
        else:
            images, labels = synthetic.draw(count, seed=2 * seed + (split == "test"))
        images, labels = images.to(device), labels.to(device)
        batches[split] = Batches(images, labels, size, batch_size, split == "train", seed)
    return Data(**batches, classes=CLASSES, source=source)


def stratified_sample(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return sorted indices of `count` labels, equally many from each class (or one more)."""
    chosen = []
    for label in range(len(CLASSES)):
        indices = (labels == label).nonzero().flatten()
        share = count // len(CLASSES) + (label < count % len(CLASSES))
        chosen.append(indices[torch.randperm(len(indices), generator=generator)[:share]])
    return torch.cat(chosen).sort().values

"""Fashion scenes: several garments on one canvas, with a class for every pixel."""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from cnnlib._checks import check_count, check_image_size
from cnnlib.data.batches import Data
from cnnlib.data.mnist import COUNTS, fashion_mnist

GARMENT = 28  # pixels, the side of a garment's image
FAINTEST = 9  # grey level of 255: darker pixels of a garment's image count as background
MOST_PIXELS = 2**30  # of all scenes; they and their label maps take nine bytes per pixel
CLOUDS = 5  # blobs along a side of the background
BRIGHTEST = 120  # grey level of a cloud, of 255; garments have darker and brighter pixels


def fashion_scenes(
    size: int | tuple[int, int] = 64,
    batch_size: int = 64,
    *,
    train: int = 4000,
    test: int = 1000,
    garments: int = 4,
    device: torch.device | str | None = None,
    root: str | Path | None = None,
    seed: int = 0,
) -> Data:
    """Compose scenes from Fashion-MNIST on a device.

    Each garment is picked at random, perhaps mirrored, and placed at random on a cloudy canvas, in
    front of earlier garments. A pixel's label is the class of the foremost garment there, 1 to 10
    in Fashion-MNIST's order, or 0 for the background. Training scenes hold only official training
    images, and test scenes only test images.

    Args:
        size: Side of the canvas in pixels, or (height, width). A garment has 28x28.
        batch_size: Scenes per batch.
        train: Number of training scenes.
        test: Number of test scenes.
        garments: Garments per canvas. Some may be hidden behind others.
        device: As in `fashion_mnist`.
        root: As in `fashion_mnist`.
        seed: Sets the scenes and the order of the training batches.

    Raises:
        ValueError: A size, a count or the seed is out of range, or the root is not a folder.
    """
    size = check_image_size(size)
    if min(size) < GARMENT:
        raise ValueError(
            f"size={size} must have room for a garment of {GARMENT}x{GARMENT} pixels: try size=64"
        )
    most = max(1, MOST_PIXELS // (size[0] * size[1]))
    scenes = {"train": check_count("train", train, most), "test": check_count("test", test, most)}
    garments = check_count("garments", garments, 1000, usual=4)
    pool = {split: min(COUNTS[split], count * garments) for split, count in scenes.items()}
    single = fashion_mnist(GARMENT, batch_size, **pool, device=device, root=root, seed=seed)
    batches = {}
    for split, count in scenes.items():
        source = getattr(single, split)
        generator = torch.Generator().manual_seed(2 * source.seed + (split == "test"))
        images, maps = _compose(source.images, source.labels, count, size, garments, generator)
        batches[split] = replace(source, images=images, labels=maps, size=size)
    return Data(**batches, classes=("Background", *single.classes), source=single.source)


def _compose(images, labels, count, size, garments, generator):
    """Put garments on canvases, each in front of the earlier ones.

    Shape:
        images (N, 1, 28, 28), labels (N) -> scenes (count, 1, H, W), label maps (count, H, W)

    The generator runs on the CPU, so the scenes are the same on every device. In the maps 0 is the
    background, so a label k becomes k + 1.
    """
    device = images.device

    def pick(choices):
        """Draw one of 0, 1, ..., choices - 1 for each scene."""
        return torch.randint(choices, (count, 1, 1), generator=generator).to(device)

    clouds = torch.rand(count, 1, CLOUDS, CLOUDS, generator=generator).to(device)
    scenes = (F.interpolate(clouds, size, mode="bilinear") * BRIGHTEST).byte()[:, 0]
    maps = torch.zeros_like(scenes)
    scene = torch.arange(count, device=device).view(count, 1, 1)
    side = torch.arange(GARMENT, device=device)
    for _ in range(garments):
        chosen = pick(len(images)).flatten()
        garment = images[chosen, 0]
        garment = torch.where(pick(2) == 1, garment.flip(-1), garment)
        rows = pick(size[0] - GARMENT + 1) + side.view(GARMENT, 1)
        columns = pick(size[1] - GARMENT + 1) + side
        pixels = scene, rows, columns
        hides = garment >= FAINTEST
        scenes[pixels] = torch.where(hides, garment, scenes[pixels])
        label = 1 + labels[chosen].byte().view(count, 1, 1)
        maps[pixels] = torch.where(hides, label, maps[pixels])
    return scenes[:, None], maps.long()

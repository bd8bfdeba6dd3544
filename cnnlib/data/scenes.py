"""Fashion scenes: several garments on one canvas, and a class for every pixel."""

import torch
import torch.nn.functional as F

from cnnlib.data.mnist import (
    COUNTS,
    Batches,
    Data,
    check_count,
    check_seed,
    check_size,
    fashion_mnist,
)

GARMENT = 28  # pixels, the side of a garment's image
FAINTEST = 9  # grey, of 255: what is darker in a garment's image lies around it or shines through
CLOUDS = 5  # blobs along a side of the background
BRIGHTEST = 120  # grey, of 255, of a cloud; garments are darker and brighter than that

# A colour for each class: also in the three kinds of colour blindness any two are far apart.
COLOURS = (
    "#FFFFFF", "#334CCC", "#CC4C00", "#99FF99", "#4C0066", "#E6CC00",
    "#FF80FF", "#99B299", "#661A00", "#996699", "#00001A",
)  # fmt: skip


class Scenes(Data):
    """A data set whose labels are maps: a class for every pixel."""

    def only(self, *names):
        """Refuse to choose classes: a scene has several.

        Raises:
            ValueError: Always.
        """
        asked = ", ".join(map(repr, names))
        raise ValueError(
            f"only({asked}) needs one class per image, and a scene has one per pixel: "
            f"use fashion_mnist().only({asked})"
        )

    def show(self, count=6):
        """Draw the first training scenes above their label maps."""
        count = min(check_count("count", count, usual=6), len(self.train.labels))
        images, labels = self.train.take(torch.arange(count, device=self.device))
        figure = scene_grid(images, {"labels": labels}, self.classes)
        if self.banner:
            figure.suptitle("drawn stand-in, not Fashion-MNIST", color="#D55E00")
        return figure


def fashion_scenes(
    size=64, batch_size=64, *, train=4000, test=1000, garments=4, device=None, root=None, seed=0
):
    """Compose scenes from Fashion-MNIST on a device.

    Each garment is picked at random, mirrored or not, and put somewhere on a cloudy canvas, in
    front of those before. A pixel's label is the foremost garment there, else the background.
    Training scenes hold official training images only, test scenes official test images.

    Args:
        size: Side of the canvas in pixels, or (height, width). A garment has 28x28.
        batch_size: Scenes in a batch.
        train: Training scenes.
        test: Test scenes.
        garments: Garments on a canvas. Some may be hidden behind others.
        device: As in `fashion_mnist`.
        root: As in `fashion_mnist`.
        seed: Decides the scenes, and the order of the training batches.

    Returns:
        The Scenes. Class 0 is the background; the garments follow in Fashion-MNIST's order.

    Raises:
        ValueError: A size, a count or the seed is out of range, or the folder is not one.
    """
    size = check_size(size)
    if min(size) < GARMENT:
        raise ValueError(
            f"size={size} must have room for a garment of {GARMENT}x{GARMENT} pixels: try size=64"
        )
    scenes = {"train": check_count("train", train), "test": check_count("test", test)}
    garments = check_count("garments", garments, usual=4)
    seed = check_seed(seed)
    pool = {part: min(COUNTS[part], count * garments) for part, count in scenes.items()}
    single = fashion_mnist(GARMENT, batch_size, **pool, device=device, root=root, seed=seed)
    batches = {}
    for part, count in scenes.items():
        source = getattr(single, part)
        generator = torch.Generator().manual_seed(2 * seed + (part == "test"))
        images, maps = compose(source.images, source.labels, count, size, garments, generator)
        batches[part] = Batches(images, maps, size, source.batch_size, source.shuffle, seed)
    return Scenes(**batches, classes=("Background", *single.classes), source=single.source)


def compose(images, labels, count, size, garments, generator):
    """Put garments on canvases, each in front of those before.

    Shape:
        images (N, 1, 28, 28), labels (N) -> scenes (count, 1, H, W), label maps (count, H, W)

    Args:
        images: Bytes: the garments to pick from.
        labels: Their classes, from 0. In the maps 0 is the background, so they become 1 and up.
        count: Scenes.
        size: (H, W) of the canvas, in pixels.
        garments: Garments on a canvas.
        generator: A random generator on the CPU, so that every device has the same scenes.
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
        place = scene, rows, columns
        hides = garment >= FAINTEST
        scenes[place] = torch.where(hides, garment, scenes[place])
        maps[place] = torch.where(hides, 1 + labels[chosen].byte().view(count, 1, 1), maps[place])
    return scenes[:, None], maps.long()


def scene_grid(images, label_maps, classes):
    """Draw scenes in a row, and below each its label maps.

    Shape:
        images (N, 1, H, W); each label map (N, H, W)

    Args:
        images: Numbers in 0..1, as a batch has them.
        label_maps: A dictionary from a name, such as "truth", to the maps of these scenes.
        classes: The name of each class, the background first.

    Raises:
        ValueError: There is not one map for each scene, or a class has no colour.
    """
    # Here, because matplotlib takes long to import.
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    for name, maps in label_maps.items():
        if len(maps) != len(images):
            raise ValueError(
                f"label_maps[{name!r}] has {len(maps)} maps for {len(images)} scenes: "
                "pass one for each"
            )
    if len(classes) > len(COLOURS):
        raise ValueError(f"classes has {len(classes)} names for {len(COLOURS)} colours: draw fewer")
    rows, columns = 1 + len(label_maps), len(images)
    figure = Figure(figsize=(1.8 * columns + 2.4, 1.85 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    grid[0, 0].set_ylabel("scene", fontsize=14)
    for axes, image in zip(grid[0], images, strict=True):
        axes.imshow(image[0].cpu().numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    colours = {
        "cmap": ListedColormap(COLOURS),
        "norm": BoundaryNorm(range(len(COLOURS) + 1), len(COLOURS)),
    }
    for line, (name, maps) in zip(grid[1:], label_maps.items(), strict=True):
        line[0].set_ylabel(name, fontsize=14)
        for axes, labels in zip(line, maps, strict=True):
            axes.imshow(labels.cpu().numpy(), **colours, interpolation="nearest")
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    key = [
        Patch(facecolor=colour, edgecolor="black", label=name)
        for colour, name in zip(COLOURS, classes, strict=False)
    ]
    figure.legend(handles=key, loc="outside right center", fontsize=14, frameon=False)
    return figure

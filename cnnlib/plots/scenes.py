"""Images above their label maps."""

from collections.abc import Sequence
from typing import Any

from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cnnlib.plots._inputs import check_index, check_labelled, check_names
from cnnlib.plots.figures import pixels

# A colour for each class; any two are far apart, also in the three kinds of colour blindness.
COLOURS = (
    "#FFFFFF", "#334CCC", "#CC4C00", "#99FF99", "#4C0066", "#E6CC00",
    "#FF80FF", "#99B299", "#661A00", "#996699", "#00001A",
)  # fmt: skip


def scene_grid(images: Any, label_maps: dict[str, Any], classes: Sequence[str]) -> Figure:
    """Draw scenes in a row, each above its label maps.

    Shape:
        images (N, 1, H, W); each label map (N, H, W)

    Args:
        images: Numbers in 0..1, as in a batch.
        label_maps: A dictionary from names, such as "truth", to the maps of these scenes.
        classes: The name of each class, the background first.

    Raises:
        ValueError: There is not one map of the same size per scene, a label is not that of a class,
            or a class has no colour.
    """
    images = pixels(images)
    check_labelled("label_maps", label_maps, least=0)
    check_names("classes", classes)
    label_maps = {
        name: check_index(f"label_maps[{name!r}]", maps, images.shape[:3], classes)
        for name, maps in label_maps.items()
    }
    if len(classes) > len(COLOURS):
        raise ValueError(f"classes has {len(classes)} names for {len(COLOURS)} colours: draw fewer")
    rows, columns = 1 + len(label_maps), len(images)
    figure = Figure(figsize=(1.8 * columns + 2.4, 1.85 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    grid[0, 0].set_ylabel("scene", fontsize=14)
    for axes, image in zip(grid[0], images, strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    palette = ListedColormap(COLOURS)
    norm = BoundaryNorm(range(len(COLOURS) + 1), len(COLOURS))
    for line, (name, maps) in zip(grid[1:], label_maps.items(), strict=True):
        line[0].set_ylabel(name, fontsize=14)
        for axes, labels in zip(line, maps, strict=True):
            axes.imshow(labels, cmap=palette, norm=norm, interpolation="nearest")
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    key = [
        Patch(facecolor=colour, edgecolor="black", label=name)
        for colour, name in zip(COLOURS, classes, strict=False)
    ]
    figure.legend(handles=key, loc="outside right center", fontsize=14, frameon=False)
    return figure

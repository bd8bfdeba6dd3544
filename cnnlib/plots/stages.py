"""A whole network as a row of boxes, one per stage: the layers that share a map size."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from math import log2

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from cnnlib.plots._graph import LAYERS, Node, record
from cnnlib.plots.diagram import ARROW, CONVOLUTION, EDGE, JOIN, POOLING, blank_axes, draw_arrow
from cnnlib.plots.figures import VERMILION

_COLUMN, _LINE = 1.5, 0.2  # inches, of a stage and of a line of text
_SHRINKS, _GROWS = 0.6, 1.5  # of the side; an unpadded convolution removes less


@dataclass(eq=False)
class Stage:
    """Consecutive layers and blocks whose maps have one size, apart from missing padding.

    Args:
        shape: The shape of the last output, without the batch.
        level: Number of stages so far that shrink the map, minus those that enlarge it.
        parts: Names of its layers and blocks in order, such as "max 2x2 /2" and "BasicBlock".
        skips: Earlier stages that it reads, besides the previous one.
    """

    shape: tuple[int, ...]
    level: int = 0
    parts: list[str] = field(default_factory=list)
    skips: list["Stage"] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """The shape, and the parts with a count where they repeat."""
        runs = [(name, len(list(run))) for name, run in groupby(self.parts)]
        shape = " x ".join(map(str, self.shape))
        return [shape, *(f"{count} x {name}" if count > 1 else name for name, count in runs)]


def stages(net: nn.Module, input_shape: Sequence[int]) -> list[Stage]:
    """Run a copy of a network on one image and return its stages, the input first."""
    image, *nodes = record(net, [input_shape], "net")[:-1]
    modules = dict(net.named_modules())
    found = [Stage(image.shape, parts=["input"])]
    stage_of = {image: found[0]}
    for owner, group in groupby(nodes, key=lambda node: _owner(modules, node)):
        calls = list(group)
        if name := _part_name(owner, calls[0]):
            shape, side = calls[-1].shape, _side(found[-1].shape)
            smaller = _side(shape) <= _SHRINKS * side
            larger = max(_side(call.shape) for call in calls) >= _GROWS * side
            if smaller or larger or len(shape) == 1 or len(found) == 1:
                found.append(Stage(shape, found[-1].level + smaller - larger))
            found[-1].shape = shape
            found[-1].parts.append(name)
        for node in calls:
            stage_of[node] = found[-1]
            for source in (stage_of[source] for source in node.inputs):
                if source not in (*found[-2:], *found[-1].skips):
                    found[-1].skips.append(source)
    return found


def _side(shape: tuple[int, ...]) -> int:
    return shape[-1] if len(shape) > 1 else 1  # of a vector


def _owner(modules: dict[str, nn.Module], node: Node) -> nn.Module | Node:
    """Return the block that made a call: the first module on its path that is not a container.

    A call from the network's own forward is its own owner.
    """
    names = node.path.split(".")
    path = [modules[".".join(names[: end + 1])] for end in range(len(names))]
    lists = (nn.Sequential, nn.ModuleList)
    return next((m for m in path if not isinstance(m, lists)), node) if node.path else node


def _part_name(owner: nn.Module | Node, first: Node) -> str:
    """Return the arguments of a layer, the class of a block, or "" for a ReLU and the like."""
    if isinstance(owner, nn.Module) and not type(owner).__module__.startswith("torch."):
        return type(owner).__name__
    if first.kind not in LAYERS:
        return ""
    return first.label.split(",")[0] + (" conv" if first.kind == "conv" else "")


def stage_diagram(net: nn.Module, input_shape: Sequence[int]) -> Figure:
    """Draw the stages of a network from left to right: taller for larger maps, wider for channels.

    If maps grow again, as in a U-Net, each size has its own level, and red arrows show the skips.

    Args:
        net: The network.
        input_shape: (channels, height, width) of one image.

    Raises:
        ValueError: The network fails on such an image.
    """
    found = stages(net, input_shape)
    is_u = any(after.level < before.level for before, after in pairwise(found))
    text = _LINE * max(len(stage.lines) for stage in found) + 0.15
    row = text + max(map(_height, found)) + 0.05
    rows = max(stage.level for stage in found) if is_u else 0
    figure, axes = blank_axes(_COLUMN * len(found), row * (rows + 1))
    places = {}  # the middle of each box
    for column, stage in enumerate(found):
        x, bottom = _COLUMN * (column + 0.5), row * (rows - stage.level * is_u) + text
        y = bottom + (_height(stage) if is_u else row - text - 0.05) / 2
        _draw_stage(axes, stage, x, y, bottom - 0.05)
        places[stage] = x, y
    for before, after in [*pairwise(found), *((s, stage) for stage in found for s in stage.skips)]:
        (x, y), (to_x, to_y) = places[before], places[after]
        if before.level == after.level:
            y = to_y = min(y, to_y)
        corners = [(x + _width(before) / 2, y), (to_x - _width(after) / 2, to_y)]
        if before.level != after.level:
            between = (x + to_x) / 2
            corners[1:1] = [(between, y), (between, to_y)]
        draw_arrow(axes, corners, VERMILION if before in after.skips else ARROW)
    return figure


def _width(stage: Stage) -> float:
    return 0.12 + 0.08 * log2(stage.shape[0])


def _height(stage: Stage) -> float:
    return 0.3 + 0.2 * log2(_side(stage.shape))


def _draw_stage(axes: Axes, stage: Stage, x: float, y: float, top_of_text: float) -> None:
    width, height = _width(stage), _height(stage)
    colour = POOLING if len(stage.shape) == 1 else CONVOLUTION
    axes.add_patch(
        Rectangle(
            (x - width / 2, y - height / 2),
            width,
            height,
            facecolor=JOIN if stage.parts == ["input"] else colour,
            edgecolor=EDGE,
        )
    )
    for row, line in enumerate(stage.lines):
        weight = "bold" if row == 0 else "normal"
        place = (x, top_of_text - _LINE * row)
        axes.text(*place, line, ha="center", va="top", fontsize=11, fontweight=weight)

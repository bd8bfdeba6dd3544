"""A block drawn from the module itself: what it computes, from the input at the bottom upwards.

The layout follows the graph: the arms between a fork and its join stand side by side, one column
each, and what follows a join stands above it. Lengths are in inches.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from torch import nn

from cnnlib.plots._graph import LAYERS, Node, consumers, graph

CONVOLUTION, POOLING, JOIN, EDGE = "#D9ECF8", "#D5EEE4", "#FCE2CC", "0.35"
ARROW = "0.45"
_COLOURS = {"conv": CONVOLUTION, "linear": CONVOLUTION, "pool": POOLING, "small": "#F2F2F2"}
_SIGNS = {"+", "×", "Σ"}  # circles; every other join or fork is a bar across its columns
_WIDTH, _RADIUS, _LINE = 1.3, 0.16, 0.2  # of a box, a circle, and a line of text
_COLUMN_GAP, _ROW_GAP, _BLOCK_GAP, _TITLE = 0.15, 0.3, 0.5, 0.4
_MARGIN = 0.2  # of a bar, beyond its outermost arrow
_TEXT, _SMALL_TEXT, _TITLE_TEXT = 12, 11, 15  # points


def block_diagram(
    *blocks: nn.Module,
    input_shapes: Sequence[Sequence[int]] | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draw blocks side by side from the input at the bottom, labelled as in "3x3, 64 /2".

    Args:
        blocks: One or more modules. A label names kernel, channels, and "/2" for a stride of 2.
        input_shapes: (channels, height, width) of each input, for blocks that take several.
        names: One title per block; without them, the classes, and none for an nn.Sequential.

    Raises:
        ValueError: There is no block, one fails on such inputs, or it has no name among `names`.
    """
    if not blocks:
        raise ValueError("blocks is empty: pass at least one module")
    if names is None:
        names = [
            "" if isinstance(block, nn.Sequential) else type(block).__name__ for block in blocks
        ]
    elif not isinstance(names, list | tuple) or [str] * len(blocks) != [type(n) for n in names]:
        raise ValueError(f"names={names!r} must be a list with one name per block ({len(blocks)})")
    layouts = [_Layout(graph(block, input_shapes)) for block in blocks]
    widths = [max(x.width, 0.14 * len(name)) for x, name in zip(layouts, names, strict=True)]
    bottom = _TITLE if any(names) else 0.05
    height = bottom + max(layout.height for layout in layouts)
    figure, axes = blank_axes(sum(widths) + _BLOCK_GAP * len(blocks), height)
    left = _BLOCK_GAP / 2
    for name, layout, width in zip(names, layouts, widths, strict=True):
        middle = left + width / 2
        layout.draw(axes, middle - layout.width / 2, bottom)
        axes.text(middle, 0.05, name, ha="center", va="bottom", fontsize=_TITLE_TEXT)
        left += width + _BLOCK_GAP
    return figure


def blank_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of this size, and axes without ticks whose unit is the inch."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def draw_arrow(axes: Axes, corners: Sequence[tuple[float, float]], color: str = ARROW) -> None:
    """Draw an arrow along its corners."""
    way = Path(corners)
    axes.add_patch(
        FancyArrowPatch(path=way, arrowstyle="-|>", mutation_scale=11, color=color, lw=1.3)
    )


@dataclass
class _Area:
    """Some nodes and their horizontal positions, relative to that of their fork."""

    left: float = 0.0
    right: float = 0.0
    x: dict[Node, float] = field(default_factory=dict)
    tracks: dict[tuple[Node, Node], float] = field(default_factory=dict)  # arrows past all nodes

    def add(self, other: "_Area", shift: float = 0.0) -> None:
        self.left = min(self.left, other.left + shift)
        self.right = max(self.right, other.right + shift)
        self.x |= {node: x + shift for node, x in other.x.items()}
        self.tracks |= {edge: x + shift for edge, x in other.tracks.items()}


class _Layout:
    """Where the nodes and arrows of a graph are drawn."""

    def __init__(self, nodes: list[Node]):
        self.nodes = nodes
        self.edges = [(source, node) for node in nodes for source in node.inputs]
        self.users = {node: consumers(nodes, node) for node in nodes}
        first, last = nodes[0], nodes[-1]
        inputs = [node for node in nodes if node.kind == "input"]
        if len(inputs) > 1:
            first = Node("fork", "", [], ())  # below them all, and never drawn
            self.users[first] = inputs
        area = _Area(-_WIDTH / 2, _WIDTH / 2, {first: 0.0})
        area.add(self._between([node for node in nodes if node not in (first, last)], first, last))
        self.width = area.right - area.left
        self.x = {node: x - area.left for node, x in area.x.items()}
        self.x[last] = self.x[last.inputs[0]]
        self.tracks = {edge: x - area.left for edge, x in area.tracks.items()}
        self.y, self.height = _rows(nodes)

    def _between(self, inner: list[Node], fork: Node, join: Node) -> _Area:
        """Arrange the nodes between a fork and its join, connected parts side by side."""
        areas = []
        while inner:
            part = _connected(inner, self.users)
            inner = [node for node in inner if node not in part]
            areas.append(self._arm(part, fork, join))
        if join.kind in _SIGNS:
            areas.sort(key=lambda area: -len(area.x))  # shortcuts stand on the right
        if areas and join in self.users[fork]:
            areas.append(_Area(-_MARGIN, _MARGIN, tracks={(fork, join): 0.0}))
        return _side_by_side(areas, centred=join.kind not in _SIGNS)

    def _arm(self, part: list[Node], fork: Node, join: Node) -> _Area:
        """Arrange connected nodes: stack those that all paths pass, and put others in columns."""
        cuts = [node for node in part if not self._leads_out(part, fork, without=node)]
        if not cuts:
            return self._cascade(part, fork, join)
        area = _Area()
        for below, above in pairwise([fork, *cuts, join]):
            inner = self._reached(part, below, without=above)
            area.add(self._between([node for node in inner if node not in cuts], below, above))
        for node in cuts:
            half = _RADIUS if node.kind in _SIGNS else _WIDTH / 2
            area.add(_Area(-half, half, {node: 0.0}))
        return area

    def _cascade(self, part: list[Node], fork: Node, join: Node) -> _Area:
        """Arrange arms that read each other, one column per node that no other one dominates."""
        owned = {n: [m for m in part if m not in self._reached(part, fork, n)] for n in part}
        heads = [n for n in part if not any(n in owned[m] for m in part if m is not n)]
        areas = [self._arm(owned[head], fork, join) for head in heads]
        return _side_by_side(areas, centred=join.kind not in _SIGNS)

    def _reached(self, part: list[Node], start: Node, without: Node) -> list[Node]:
        """Return the nodes of a part that paths from a start reach without passing one node."""
        found = {start}
        for node in part:  # in the order of the calls
            if node is not without and any(node in self.users[source] for source in found):
                found.add(node)
        return [node for node in part if node in found]

    def _leads_out(self, part: list[Node], fork: Node, without: Node) -> bool:
        """Return whether a path leads from the fork through a part without passing one node."""
        reached = self._reached(part, fork, without)
        return any(user not in part for node in reached for user in self.users[node])

    def _track(self, source: Node, node: Node) -> float:
        """Return the horizontal position at which an arrow runs upwards."""
        if (source, node) in self.tracks:
            return self.tracks[source, node]
        to_sign = node.kind in _SIGNS and not _is_bar(source)
        return self.x[source] if to_sign or _is_bar(node) else self.x[node]

    def _corners(self, source: Node, node: Node) -> list[tuple[float, float]]:
        """Return the corners of an arrow: sideways above its source, up, sideways into a circle."""
        track, top = self._track(source, node), self.y[source] + _height(source) / 2
        corners = [(track, top)]
        if not _is_bar(source) and track != self.x[source]:
            across = top + _ROW_GAP / 2
            corners = [(self.x[source], top), (self.x[source], across), (track, across)]
        if node.kind in _SIGNS and abs(track - self.x[node]) > _RADIUS:
            side = _RADIUS if track > self.x[node] else -_RADIUS
            return [*corners, (track, self.y[node]), (self.x[node] + side, self.y[node])]
        return [*corners, (track, self.y[node] - _height(node) / 2)]

    def _ends(self, node: Node) -> tuple[float, float]:
        """Return the left and right end of a box; a bar extends across all its arrows."""
        tracks = [self._track(*edge) for edge in self.edges if node in edge and _is_bar(node)]
        left = min([self.x[node] - _WIDTH / 2, *(x - _MARGIN for x in tracks)])
        return left, max([self.x[node] + _WIDTH / 2, *(x + _MARGIN for x in tracks)])

    def draw(self, axes: Axes, left: float, bottom: float) -> None:
        for edge in self.edges:
            corners = [(left + x, bottom + y) for x, y in self._corners(*edge)]
            draw_arrow(axes, corners)
        for node in self.nodes[:-1]:
            start, end = self._ends(node)
            _draw_node(axes, node, left + start, left + end, bottom + self.y[node])


def _rows(nodes: list[Node]) -> tuple[dict[Node, float], float]:
    """Return the height of each node's centre, above all that it reads, and the total height."""
    row: dict[Node, int] = {}
    for node in nodes:
        row[node] = 1 + max((row[source] for source in node.inputs), default=-1)
    y: dict[Node, float] = {}
    bottom = 0.0
    for number in range(max(row.values()) + 1):
        members = [node for node in nodes if row[node] == number]
        height = max(map(_height, members))
        y |= dict.fromkeys(members, bottom + height / 2)
        bottom += height + _ROW_GAP
    return y, bottom - _ROW_GAP


def _connected(nodes: list[Node], users: dict[Node, list[Node]]) -> list[Node]:
    """Return the first of some nodes with all that are connected to it within them."""
    found, size = {nodes[0]}, 0
    while size < len(found):
        size = len(found)
        found |= {n for n in nodes if found.intersection([*n.inputs, *users[n]])}
    return [node for node in nodes if node in found]


def _side_by_side(areas: list[_Area], centred: bool) -> _Area:
    """Put areas side by side, with their fork below the first or in the middle."""
    places, right = [], 0.0
    for area in areas:
        places.append(right - area.left)
        right += area.right - area.left + _COLUMN_GAP
    row = _Area()
    for area, place in zip(areas, places, strict=True):
        row.add(area, place - (places[0] + places[-1] * centred) / (1 + centred))
    return row


def _is_bar(node: Node) -> bool:
    return node.kind not in LAYERS | _SIGNS | {"small", "output"}


def _lines(node: Node) -> list[str]:
    """Return the lines of a box from the top, since the flow goes upwards."""
    return list(
        filter(None, [", ".join(node.after), node.label, node.note, ", ".join(node.before)])
    )


def _height(node: Node) -> float:
    return 2 * _RADIUS if node.kind in _SIGNS else _LINE * len(_lines(node)) + 0.1


def _draw_node(axes: Axes, node: Node, left: float, right: float, y: float) -> None:
    look: Any = {"facecolor": _COLOURS.get(node.kind, JOIN), "edgecolor": EDGE, "lw": 1.2}
    middle, height = (left + right) / 2, _height(node)
    if node.kind in _SIGNS:
        axes.add_patch(Circle((middle, y), _RADIUS, gid=node.label, **look))
    else:
        look |= {"boxstyle": "round,pad=0,rounding_size=0.06"}
        corner = (left, y - height / 2)
        axes.add_patch(FancyBboxPatch(corner, right - left, height, gid=node.label, **look))
    for row, line in enumerate(lines := _lines(node)):
        large = line == node.label and node.kind in LAYERS | _SIGNS
        place = (middle, y + (len(lines) / 2 - row - 0.5) * _LINE)
        size = _TEXT if large else _SMALL_TEXT
        axes.text(*place, line, ha="center", va="center_baseline", fontsize=size)

"""A block drawn from the module itself: its arms, kernels and channels."""

from matplotlib.figure import Figure
from torch import nn

BOX = {"boxstyle": "round,pad=0.35", "edgecolor": "0.35", "linewidth": 1.2}
CONVOLUTION, POOLING, JOIN = "#D9ECF8", "#D5EEE4", "#FCE2CC"
POOLS = (nn.MaxPool2d, nn.AvgPool2d)


def block_arms(block):
    """Read a block's arms: for each child the labels of its layers, in the order of the flow.

    Convolutions and poolings are named; what normalises or activates is left out. A module whose
    children read the same input, such as the fork at the end of an arm, is one label of several.

    Args:
        block: A module whose children are the arms. A child named `expand` is no arm: it follows
            the concatenation.

    Returns:
        A dictionary from the child's name to its labels, such as ["1x1, 64", "3x3, 96 /2"].
    """
    return {name: _labels(child) for name, child in block.named_children() if name != "expand"}


def _labels(module):
    if isinstance(module, nn.Conv2d):
        return [_convolution(module)]
    if isinstance(module, POOLS):
        kind = "max" if isinstance(module, nn.MaxPool2d) else "mean"
        return [f"{kind} {_sides(module.kernel_size)}{_step(module.stride)}"]
    if isinstance(module, nn.Sequential):
        return [label for child in module for label in _labels(child)]
    inside = [" ".join(_labels(child)) for child in module.children()]
    return [" | ".join(inside)] if inside else []


def _convolution(conv):
    return f"{_sides(conv.kernel_size)}, {conv.out_channels}{_step(conv.stride)}"


def _sides(kernel):
    height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    return f"{height}x{width}"


def _step(stride):
    stride = stride if isinstance(stride, int) else stride[0]
    return f" /{stride}" if stride > 1 else ""


def block_diagram(*blocks):
    """Draw blocks side by side, input at the bottom.

    Args:
        blocks: Modules as `block_arms` takes them. One with a child named `expand` ends in an
            addition of its input, the others in a concatenation.

    Returns:
        A figure.
    """
    arms = [block_arms(block) for block in blocks]
    columns = [len(found) for found in arms]
    height = max(len(labels) for found in arms for labels in found.values())
    roof = height + (2.5 if any(hasattr(block, "expand") for block in blocks) else 1.5)
    figure = Figure(figsize=(1.5 * sum(columns), 0.75 * roof + 0.8), layout="constrained")
    panels = figure.subplots(1, len(blocks), width_ratios=columns, squeeze=False)[0]
    for axes, block, found in zip(panels, blocks, arms, strict=True):
        _draw(axes, block, found, height)
        axes.set_ylim(-0.5, roof)
    return figure


def _draw(axes, block, arms, height):
    top = height + 1
    _bar(axes, len(arms), 0, "input")
    _bar(axes, len(arms), top, "concatenate")
    for column, labels in enumerate(arms.values()):
        axes.plot([column, column], [0, top], color="0.45", zorder=1)
        for row, label in enumerate(labels, start=1):
            colour = POOLING if label.startswith(("max", "mean")) else CONVOLUTION
            look = BOX | {"facecolor": colour}
            axes.text(
                column,
                row,
                label.replace(" | ", "\n"),
                ha="center",
                va="center",
                fontsize=12,
                bbox=look,
            )
    if hasattr(block, "expand"):
        middle = (len(arms) - 1) / 2
        axes.plot([middle, middle], [top, top + 1], color="0.45", zorder=1)
        _bar(axes, len(arms), top + 1, f"{_convolution(block.expand)}, plus the input")
    axes.set_title(type(block).__name__, fontsize=15)
    axes.set_xlim(-0.6, len(arms) - 0.4)
    axes.axis("off")


def _bar(axes, columns, y, text):
    axes.barh(y, columns - 0.1, height=0.5, left=-0.45, color=JOIN, edgecolor="0.35", zorder=2)
    axes.text((columns - 1) / 2, y, text, ha="center", va="center", fontsize=12, zorder=3)

"""Draw the README's picture with the course's own functions: python tools/draw_course.py."""

from functools import partial
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from cnnlib import explore, plots
from cnnlib.arithmetic import contributions
from cnnlib.blocks.attention import SqueezeExcitation
from cnnlib.blocks.inception import Inception
from cnnlib.blocks.residual import BasicBlock, PlainBlock
from cnnlib.models import cifar_resnet
from cnnlib.train import gradient_norms

PICTURE = Path(__file__).parent.parent / "docs" / "course.png"


def draw_blocks():
    """Draw three blocks, each from its module."""
    inception = Inception(192, (64, (96, 128), (16, 32), 32))
    return plots.block_diagram(inception, BasicBlock(64, 128, stride=2), SqueezeExcitation(64))


def draw_steps():
    """Draw one position of a sliding kernel, and its output."""
    image, kernel = torch.arange(25.0).reshape(5, 5), torch.ones(3, 3)
    return explore.conv_steps(image, kernel, stride=2, padding=1).draw(0, 4)


def draw_paths(rates=(1, 2, 3)):
    """Draw how many paths lead from each pixel through a stack of dilated 3x3 to one output."""
    paths = np.outer(contributions(rates), contributions(rates))
    figure = Figure(figsize=(5, 5), layout="constrained")
    plots.number_grid(figure.subplots(), paths, "paths to one output, rates 1, 2, 3", size=7)
    return figure


def draw_gradients():
    """Draw the gradient of every layer of two untrained networks of 56 layers."""
    torch.manual_seed(0)
    images, labels = torch.rand(64, 1, 14, 14), torch.arange(64) % 10
    nets = {"plain": partial(cifar_resnet, block=PlainBlock), "residual": cifar_resnet}
    norms = {name: gradient_norms(build(depth=56), images, labels) for name, build in nets.items()}
    return plots.layer_profile(norms, "gradient norm of the weights")


def main():
    pictures = [draw_blocks(), draw_steps(), draw_paths(), draw_gradients()]
    figure = Figure(figsize=(14, 9), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 0.9))
    panels = [above.subplots(), *below.subplots(1, 3, width_ratios=(1.1, 0.9, 1.2))]
    for axes, picture in zip(panels, pictures, strict=True):
        axes.imshow(plt.imread(BytesIO(plots.png(picture))), interpolation="antialiased")
        axes.set_axis_off()
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=100)


if __name__ == "__main__":
    main()

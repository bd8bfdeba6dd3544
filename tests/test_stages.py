"""The drawing of a network says what its stages are, and can be read."""

from itertools import combinations

import pytest
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyArrowPatch, Rectangle
from torch import nn

from cnnlib import models
from cnnlib.plots import stage_diagram
from cnnlib.plots.stages import stages

NETS = {
    "lenet": (1, 28, 28),
    "vgg11": (1, 224, 224),
    "resnet18": (1, 96, 96),
    "googlenet": (1, 96, 96),
    "densenet121": (1, 96, 96),
    "inception_v3": (1, 299, 299),
    "unet": (1, 64, 64),
}


def lines(net, shape):
    return [stage.lines for stage in stages(net, shape)]


def test_the_stages_of_lenet_by_hand():
    assert lines(models.lenet(), (1, 28, 28)) == [
        ["1 x 28 x 28", "input"],
        ["6 x 28 x 28", "5x5 conv"],
        ["16 x 10 x 10", "mean 2x2 /2", "5x5 conv"],
        ["16 x 5 x 5", "mean 2x2 /2"],
        ["120", "linear"],
        ["84", "linear"],
        ["10", "linear"],
    ]


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.classifier = nn.Linear(8, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.relu(self.conv2(x))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


def test_functions_of_the_forward_count_as_layers():
    assert lines(Functional(), (1, 8, 8)) == [
        ["1 x 8 x 8", "input"],
        ["4 x 8 x 8", "3x3 conv"],
        ["8 x 4 x 4", "max 2x2 /2", "3x3 conv"],
        ["8 x 1 x 1", "global mean"],
        ["10", "linear"],
    ]


def test_the_stages_of_resnet_by_hand():
    assert lines(models.resnet18(), (1, 96, 96)) == [
        ["1 x 96 x 96", "input"],
        ["64 x 48 x 48", "7x7 conv"],
        ["64 x 24 x 24", "max 3x3 /2", "2 x BasicBlock"],
        ["128 x 12 x 12", "2 x BasicBlock"],
        ["256 x 6 x 6", "2 x BasicBlock"],
        ["512 x 3 x 3", "2 x BasicBlock"],
        ["512 x 1 x 1", "global mean"],
        ["10", "linear"],
    ]


def test_the_stages_of_googlenet_count_its_blocks():
    found = lines(models.googlenet(), (1, 96, 96))
    assert [text[-1] for text in found[3:6]] == ["2 x Inception", "5 x Inception", "2 x Inception"]


@pytest.mark.parametrize(("padded", "size"), [(True, 64), (False, 188)])
def test_the_u_falls_and_rises_and_joins_its_levels(padded, size):
    found = stages(models.unet(padded=padded, width=8), (1, size, size))
    assert [stage.level for stage in found] == [0, 0, 1, 2, 3, 4, 3, 2, 1, 0]
    joined = [(found.index(source), i) for i, to in enumerate(found) for source in to.skips]
    assert joined == [(4, 6), (3, 7), (2, 8), (1, 9)]
    assert [stage.shape[0] for stage in found] == [1, 8, 16, 32, 64, 128, 64, 32, 16, 10]


def test_a_u_without_skips_has_no_arrows_across():
    net = models.unet(skips=False, width=8)
    assert not any(stage.skips for stage in stages(net, (1, 64, 64)))


@pytest.mark.parametrize("name", NETS)
def test_nothing_overlaps(name):
    figure = stage_diagram(getattr(models, name)(), NETS[name])
    (axes,) = figure.axes
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    extents = [item.get_window_extent(renderer) for item in [*boxes, *axes.texts]]
    for one, other in combinations(extents, 2):
        assert not one.overlaps(other)
    view = axes.get_window_extent(renderer)
    assert all(view.x0 <= box.x0 and box.x1 <= view.x1 for box in extents)
    assert all(view.y0 <= box.y0 and box.y1 <= view.y1 for box in extents)
    for arrow in axes.patches:
        if isinstance(arrow, FancyArrowPatch):
            corners = axes.transData.transform(arrow._path_original.vertices)  # without the head
            for x, y in corners[1:-1]:
                assert not any(box.contains(x, y) for box in extents)


def test_boxes_show_size_and_channels():
    axes = stage_diagram(models.resnet18(), (1, 96, 96)).axes[0]
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    heights = [box.get_height() for box in boxes]
    assert heights[:7] == sorted(heights[:7], reverse=True)
    widths = [box.get_width() for box in boxes]
    assert widths[:6] == sorted(widths[:6])


def test_a_network_that_does_not_run_is_refused():
    with pytest.raises(ValueError, match="what Sequential takes"):
        stage_diagram(models.lenet(), (3, 28, 28))

"""The drawing of a block says what its module is, and can be read."""

from itertools import combinations, pairwise

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyArrowPatch
from torch import nn

from cnnlib.blocks.attention import ResNeStBlock, SEBottleneck, SKBottleneck, SqueezeExcitation
from cnnlib.blocks.classic import nin_unit, vgg_group
from cnnlib.blocks.dense import DenseBlock, DenseLayer, Transition
from cnnlib.blocks.dilated import dilated_conv
from cnnlib.blocks.inception import AuxiliaryHead, BNInception, Inception, MiniInception
from cnnlib.blocks.inception_v3 import (
    AuxiliaryHeadV3,
    Fork,
    InceptionA,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
    conv_unit,
)
from cnnlib.blocks.inception_v4 import (
    InceptionResNetA,
    InceptionResNetB,
    InceptionResNetC,
    InceptionResNetStem,
    InceptionV4A,
    InceptionV4B,
    InceptionV4C,
    ReductionA,
    ReductionResNetB,
    ReductionV4B,
    StemFork,
    StemPool,
)
from cnnlib.blocks.residual import BasicBlock, Bottleneck, PlainBlock, PreActBlock
from cnnlib.blocks.split import (
    IBN,
    Cascade,
    IBNBottleneck,
    Res2NetBlock,
    ResNeXtBlock,
    SideBySide,
)
from cnnlib.blocks.unet import PlainUpStep, UpStep, double_conv
from cnnlib.plots import block_diagram
from cnnlib.plots._graph import graph

WIDTHS = (64, (96, 128), (16, 32), 32)
UP = [(64, 16, 16), (32, 34, 34)]

BLOCKS = [
    (vgg_group(64, 128, 2), None),
    (nin_unit(64, 128, 5), None),
    (dilated_conv(64, 64, 5), None),
    (double_conv(1, 64), None),
    (double_conv(1, 64, padded=False), None),
    (Inception(192, WIDTHS), None),
    (BNInception(192, WIDTHS), None),
    (MiniInception(10), None),
    (AuxiliaryHead(512, 10), None),
    (InceptionA(192, 32), None),
    (InceptionB(288), None),
    (InceptionC(768, 128), None),
    (InceptionD(768), None),
    (Fork(384, 384), None),
    (InceptionE(1280), None),
    (AuxiliaryHeadV3(768, 10), None),
    (StemPool(nn.MaxPool2d(3, 2), conv_unit(64, 96, 3, 2, "valid")), None),
    (StemFork(), None),
    (InceptionV4A(), None),
    (ReductionA(384, (192, 224, 256, 384)), None),
    (InceptionV4B(), None),
    (ReductionV4B(), None),
    (InceptionV4C(), None),
    (InceptionResNetStem(), None),
    (InceptionResNetA(), None),
    (InceptionResNetB(), None),
    (ReductionResNetB(), None),
    (InceptionResNetC(last=True), None),
    (PlainBlock(64, 64), None),
    (BasicBlock(64, 64), None),
    (BasicBlock(64, 128, 2), None),
    (Bottleneck(256, 512, 2), None),
    (PreActBlock(64, 64), None),
    (PreActBlock(64, 128, 2), None),
    (DenseLayer(96, 32), [(64, 8, 8), (16, 8, 8), (16, 8, 8)]),
    (DenseLayer(96, 32, bottleneck=False), None),
    (DenseBlock(64, 4, 32), None),
    (DenseBlock(64, 2, 32, memory_efficient=True), None),
    (Transition(256, 128), None),
    (ResNeXtBlock(256, 256), None),
    (IBN(64), None),
    (IBNBottleneck(256, 256), None),
    (Cascade(26, 4), None),
    (SideBySide(26, 4, 2), None),
    (Res2NetBlock(256, 256), None),
    (Res2NetBlock(256, 512, 2), None),
    (SqueezeExcitation(64), None),
    (SEBottleneck(256, 512, 2), None),
    (SKBottleneck(256, 256), None),
    (ResNeStBlock(256, 512, 2), None),
    (ResNeStBlock(256, 256, radix=1), None),
    (UpStep(64, 32), UP),
    (PlainUpStep(64, 32), UP),
]
EVERY_BLOCK = pytest.mark.parametrize(
    ("block", "shapes"), BLOCKS, ids=[type(block).__name__ for block, _ in BLOCKS]
)


def described(block, shapes=None):
    """The boxes, and the arrows between them, as text: small operations in parentheses."""
    nodes = graph(block, shapes)
    names = {}
    for node in nodes:
        parts = [*(f"({x})" for x in node.before), node.label, node.note]
        name = " ".join(filter(None, [*parts, *(f"({x})" for x in node.after)])) or node.kind
        names[node] = name + "'" * sum(other.rstrip("'") == name for other in names.values())
    return {names[node]: [names[source] for source in node.inputs] for node in nodes}


def test_a_basic_block_by_hand():
    assert described(BasicBlock(64, 64)) == {
        "input, 64": [],
        "3x3, 64 (BN) (ReLU)": ["input, 64"],
        "3x3, 64 (BN)": ["3x3, 64 (BN) (ReLU)"],
        "+": ["3x3, 64 (BN)", "input, 64"],
        "ReLU": ["+"],
        "output": ["ReLU"],
    }


def test_a_basic_block_that_projects_by_hand():
    assert described(BasicBlock(64, 128, 2)) == {
        "input, 64": [],
        "3x3, 128 /2 (BN) (ReLU)": ["input, 64"],
        "3x3, 128 (BN)": ["3x3, 128 /2 (BN) (ReLU)"],
        "1x1, 128 /2 (BN)": ["input, 64"],
        "+": ["3x3, 128 (BN)", "1x1, 128 /2 (BN)"],
        "ReLU": ["+"],
        "output": ["ReLU"],
    }


def test_a_pre_activation_block_by_hand():
    assert described(PreActBlock(64, 64)) == {
        "input, 64": [],
        "(BN) (ReLU) 3x3, 64": ["input, 64"],
        "(BN) (ReLU) 3x3, 64'": ["(BN) (ReLU) 3x3, 64"],
        "+": ["(BN) (ReLU) 3x3, 64'", "input, 64"],
        "output": ["+"],
    }


def test_inception_a_by_hand():
    unit = " (BN) (ReLU)"
    assert described(InceptionA(192, 32)) == {
        "input, 192": [],
        "1x1, 64" + unit: ["input, 192"],
        "1x1, 48" + unit: ["input, 192"],
        "5x5, 64" + unit: ["1x1, 48" + unit],
        "1x1, 64" + unit + "'": ["input, 192"],
        "3x3, 96" + unit: ["1x1, 64" + unit + "'"],
        "3x3, 96" + unit + "'": ["3x3, 96" + unit],
        "mean 3x3": ["input, 192"],
        "1x1, 32" + unit: ["mean 3x3"],
        "concatenate, 256": [
            "1x1, 64" + unit,
            "5x5, 64" + unit,
            "3x3, 96" + unit + "'",
            "1x1, 32" + unit,
        ],
        "output": ["concatenate, 256"],
    }


def test_the_gate_of_squeeze_and_excitation_by_hand():
    assert described(SEBottleneck(256, 256)) == {
        "input, 256": [],
        "1x1, 64 (BN) (ReLU)": ["input, 256"],
        "3x3, 64 (BN) (ReLU)": ["1x1, 64 (BN) (ReLU)"],
        "1x1, 256 (BN)": ["3x3, 64 (BN) (ReLU)"],
        "global mean": ["1x1, 256 (BN)"],
        "1x1, 16 (ReLU)": ["global mean"],
        "1x1, 256 (sigmoid)": ["1x1, 16 (ReLU)"],
        "×": ["1x1, 256 (BN)", "1x1, 256 (sigmoid)"],
        "+": ["×", "input, 256"],
        "ReLU": ["+"],
        "output": ["ReLU"],
    }


def test_the_cascade_of_res2net_by_hand():
    unit = "3x3, 26 (BN) (ReLU)"
    assert described(Cascade(26, 4)) == {
        "input, 104": [],
        "split, 4 x 26": ["input, 104"],
        unit: ["split, 4 x 26"],
        "+": ["split, 4 x 26", unit],
        unit + "'": ["+"],
        "+'": ["split, 4 x 26", unit + "'"],
        unit + "''": ["+'"],
        "concatenate, 104": [unit, unit + "'", unit + "''", "split, 4 x 26"],
        "output": ["concatenate, 104"],
    }


def test_a_dense_layer_concatenates_its_sources_by_hand():
    assert described(DenseLayer(96, 32), [(64, 8, 8), (32, 8, 8)]) == {
        "features[0], 64": [],
        "features[1], 32": [],
        "concatenate, 96": ["features[0], 64", "features[1], 32"],
        "(BN) (ReLU) 1x1, 128": ["concatenate, 96"],
        "(BN) (ReLU) 3x3, 32": ["(BN) (ReLU) 1x1, 128"],
        "output": ["(BN) (ReLU) 3x3, 32"],
    }


def test_a_dense_block_extends_its_last_concatenation():
    found = described(DenseBlock(64, 3, 32, bottleneck=False))
    layer = "(BN) (ReLU) 3x3, 32"
    assert found["concatenate, 96"] == ["input, 64", layer]
    assert found["concatenate, 128"] == ["concatenate, 96", layer + "'"]
    assert found["concatenate, 160"] == ["concatenate, 128", layer + "''"]


def test_a_fork_ends_in_the_outer_concatenation():
    found = described(InceptionE(1280))
    assert [name for name in found if name.startswith("concatenate")] == ["concatenate, 2048"]
    assert len(found["concatenate, 2048"]) == 6


def test_what_a_step_up_does_with_its_skip():
    assert described(UpStep(64, 32), UP)["concatenate, 64"] == ["crop", "2x2, 32 transposed /2"]
    plain = described(PlainUpStep(64, 32), UP)
    assert not any("skip, 32" in sources for sources in plain.values())


def test_scales_groups_and_dilation_are_named():
    assert "1x1, 320 (× 0.17)" in described(InceptionResNetA())
    assert "3x3, 128 32 groups (BN) (ReLU)" in described(ResNeXtBlock(256, 256))
    assert "3x3, 64 dilation 5 (BN) (ReLU)" in described(dilated_conv(64, 64, 5))


@EVERY_BLOCK
def test_every_convolution_is_drawn(block, shapes):
    kinds = [node.kind for node in graph(block, shapes)]
    layers = list(block.modules())
    convolutions = [m for m in layers if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert kinds.count("conv") == len(convolutions)
    assert kinds.count("linear") == sum(isinstance(m, nn.Linear) for m in layers)


@EVERY_BLOCK
def test_nothing_overlaps_and_no_arrow_crosses_a_box(block, shapes):
    figure = block_diagram(block, input_shapes=shapes)
    (axes,) = figure.axes
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [patch for patch in axes.patches if patch.get_gid()]
    extents = [box.get_window_extent(renderer) for box in boxes]
    for one, other in combinations(extents, 2):
        assert not one.overlaps(other)
    texts = [text for text in axes.texts if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 11
    for text in texts:
        extent = text.get_window_extent(renderer)
        around = [axes.get_window_extent(renderer)] if text.get_fontsize() == 15 else extents
        around = [box for box in around if box.x0 <= extent.x0 and extent.x1 <= box.x1]
        assert any(box.y0 - 1 <= extent.y0 and extent.y1 <= box.y1 + 1 for box in around)
    edges = sum(len(node.inputs) for node in graph(block, shapes))
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert len(arrows) == edges
    for arrow in arrows:
        corners = axes.transData.transform(arrow._path_original.vertices)  # without the head
        for start, end in pairwise(corners):
            for step in torch.linspace(0.02, 0.98, 25).tolist():
                x, y = start + step * (end - start)
                assert not any(
                    box.x0 + 2 < x < box.x1 - 2 and box.y0 + 2 < y < box.y1 - 2 for box in extents
                )


def test_blocks_stand_side_by_side_under_their_names():
    (axes,) = block_diagram(BasicBlock(8, 8), Transition(8, 4)).axes
    titles = [text for text in axes.texts if text.get_fontsize() == 15]
    assert [text.get_text() for text in titles] == ["BasicBlock", "Transition"]
    assert titles[0].get_position()[0] < titles[1].get_position()[0]


def test_names_replace_those_of_the_classes():
    blocks = nin_unit(8, 8, 3), BasicBlock(8, 8)
    (axes,) = block_diagram(*blocks, names=["NiN", "ResNet"]).axes
    titles = [text.get_text() for text in axes.texts if text.get_fontsize() == 15]
    assert titles == ["NiN", "ResNet"]


def test_drawing_a_block_leaves_it_alone():
    block = BasicBlock(4, 4)
    before = {name: value.clone() for name, value in block.state_dict().items()}
    block_diagram(block)
    assert block.training
    assert all(torch.equal(before[name], value) for name, value in block.state_dict().items())
    assert not any(module._forward_hooks for module in block.modules())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "blocks is empty: pass at least one module"),
        ({"blocks": [UpStep(8, 4)]}, "what UpStep takes: try one .* for each input: x, skip"),
        ({"blocks": [BasicBlock(8, 4)], "input_shapes": [(3, 8, 8)]}, "what BasicBlock takes"),
        ({"blocks": [BasicBlock(8, 4)], "input_shapes": UP}, "what BasicBlock takes"),
        ({"blocks": [BasicBlock]}, "must be an nn.Module: build the network, then pass it"),
        ({"blocks": [BasicBlock(8, 4)], "names": ["a", "b"]}, "one name per block .1."),
        ({"blocks": [BasicBlock(8, 4)], "names": "a"}, "names='a' must be a list"),
        ({"blocks": [BasicBlock(8, 4)], "names": [5]}, "names=.5. must be a list"),
    ],
)
def test_block_diagram_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        block_diagram(*arguments.pop("blocks", []), **arguments)


@pytest.mark.parametrize("shapes", [3, (), (1, 28, 28), [(28, 28)], [(0, 28, 28)], [(1.5, 28, 28)]])
def test_shapes_that_are_no_list_of_shapes_are_refused(shapes):
    with pytest.raises(
        ValueError, match=r"must hold one \(channels, height, width\) for each .*try"
    ):
        block_diagram(BasicBlock(1, 4), input_shapes=shapes)

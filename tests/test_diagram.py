"""The drawing of a block says what its module is."""

import pytest
from torch import nn

from cnnlib.blocks.inception import Inception
from cnnlib.blocks.inception_v3 import InceptionB, InceptionE
from cnnlib.blocks.inception_v4 import InceptionResNetC, StemPool
from cnnlib.plots import block_arms, block_diagram


@pytest.mark.parametrize(
    ("block", "arms"),
    [
        (
            Inception(192, (64, (96, 128), (16, 32), 24)),
            [["1x1, 64"], ["1x1, 96", "3x3, 128"], ["1x1, 16", "5x5, 32"], ["max 3x3", "1x1, 24"]],
        ),
        (InceptionB(288), [["3x3, 384 /2"], ["1x1, 64", "3x3, 96", "3x3, 96 /2"], ["max 3x3 /2"]]),
        (
            InceptionE(1280),
            [
                ["1x1, 320"],
                ["1x1, 384", "1x3, 384 | 3x1, 384"],
                ["1x1, 448", "3x3, 384", "1x3, 384 | 3x1, 384"],
                ["mean 3x3", "1x1, 192"],
            ],
        ),
        (InceptionResNetC(), [["1x1, 192"], ["1x1, 192", "1x3, 224", "3x1, 256"]]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_arms_by_hand(block, arms):
    assert list(block_arms(block).values()) == arms


def test_the_picture_shows_every_label_and_how_the_arms_join():
    figure = block_diagram(
        StemPool(nn.MaxPool2d(3, 2), nn.Conv2d(64, 96, 3, 2)), InceptionResNetC()
    )
    left, right = ([text.get_text() for text in axes.texts] for axes in figure.axes)
    assert sorted(left) == ["3x3, 96 /2", "concatenate", "input", "max 3x3 /2"]
    assert "1x1, 2080, plus the input" in right
    assert [axes.get_title() for axes in figure.axes] == ["StemPool", "InceptionResNetC"]

"""The explorers: their controls are moved as a learner moves them, and their texts are read."""

import io
import re
import time
from base64 import b64decode
from html import unescape

import pytest
import torch
import torch.nn.functional as F
from ipywidgets import Output, VBox
from matplotlib.image import imread

from cnnlib import arithmetic, explore
from cnnlib.explore import panels
from cnnlib.explore.explorers import (
    PIXELS,
    WEIGHTS,
    conv_explorer,
    dilation_explorer,
    transposed_explorer,
)

LIMIT = 0.15  # seconds a change may take


def move(explorer, **values):
    for name, value in values.items():
        explorer.controls[name].value = value


def visible(html):
    """Return what a reader sees of HTML, the words with one space between."""
    text = re.sub(r"<[^>]*>", " ", re.sub(r"</?b>", "", html))
    return " ".join(unescape(text).split())


def said(explorer):
    return visible(explorer.text.value)


def drawn(explorer):
    return visible(explorer.picture.value)


def marks(explorer):
    """List the marks of each cell of the picture."""
    return [text.split() for text in re.findall(r'<span class="(.*?)">', explorer.picture.value)]


def count(explorer, mark):
    return sum(mark in cell for cell in marks(explorer))


def draw_values(seed, **ranges):
    """Draw a value of each range, both ends included."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(least, most + 1, (), generator=generator).item()
        for name, (least, most) in ranges.items()
    }


# Convolution


def test_conv_formula_has_the_numbers_put_in():
    explorer = conv_explorer(size=8, kernel=3, stride=2, padding=1, dilation=2)
    assert "output = ⌊(8 + 2·1 − 2·(3 − 1) − 1) / 2⌋ + 1 = 3" in said(explorer)


@pytest.mark.parametrize("seed", range(25))
def test_conv_agrees_with_torch(seed):
    values = draw_values(seed, size=(5, 12), kernel=(3, 4), stride=(1, 3), padding=(0, 2))
    explorer = conv_explorer()
    move(explorer, **values)
    size, kernel = values.pop("size"), values.pop("kernel")
    image = torch.zeros(1, 1, size, size, requires_grad=True)
    output = F.conv2d(image, torch.ones(1, 1, kernel, kernel), **values)
    output.sum().backward()
    is_read = image.grad[0, 0].any(dim=0).tolist()
    dropped = is_read[::-1].index(True)
    assert f"+ 1 = {output.shape[-1]} input rows" in said(explorer)
    assert said(explorer).endswith(f"never read: {dropped}")
    hatched_data = [cell for cell in marks(explorer) if cell == ["unused"]]
    assert len(hatched_data) == (image.grad == 0).sum()


def test_pixels_between_the_windows_are_hatched_too():
    explorer = conv_explorer(size=5, kernel=2, stride=3)
    assert said(explorer).endswith("never read: 0")
    assert count(explorer, "unused") == 25 - 16


def test_picture_is_the_step_of_the_slider():
    explorer = conv_explorer(size=5, kernel=2, stride=3)
    walk = explore.conv_walk(PIXELS[:5, :5], WEIGHTS[:2, :2], stride=3)
    assert explorer.step.max == walk.frames == 4
    assert len(marks(explorer)) == 25 + 4 + 4 + 4
    assert count(explorer, "active") == 4 + 1
    for step in (1, 4, 2):
        explorer.step.value = step
        assert visible(panels.words(walk, step - 1)) in drawn(explorer)
        assert f"step {step} of 4" in drawn(explorer)


def test_picture_shows_the_numbers_that_the_convolution_gives():
    explorer = conv_explorer(size=6, kernel=3, stride=2, padding=1)
    explorer.step.value = explorer.step.max
    image, weight = torch.tensor(PIXELS[:6, :6]).float(), torch.tensor(WEIGHTS[:3, :3]).float()
    output = F.conv2d(image[None, None], weight[None, None], stride=2, padding=1)
    numbers = re.findall(r'<span class="[^"]*">([^<]*)</span>', explorer.picture.value)[-9:]
    assert numbers == [panels.number(value) for value in output.flatten().tolist()]


def test_step_slider_follows_a_shorter_walk():
    explorer = conv_explorer(size=7, kernel=3)
    explorer.step.value = 25
    move(explorer, stride=2)
    assert explorer.step.value == explorer.step.max == 9
    assert "step 9 of 9" in drawn(explorer)


def test_an_impossible_convolution_explains_itself_and_recovers():
    explorer = conv_explorer(size=7, kernel=3)
    before = explorer.text.value, explorer.picture.value
    with pytest.raises(ValueError) as refusal:
        arithmetic.conv_size(7, 9)
    move(explorer, kernel=9)
    assert said(explorer) == str(refusal.value)
    assert "try size=9 or a smaller kernel" in said(explorer)
    assert explorer.picture.value == ""
    move(explorer, kernel=3)
    assert (explorer.text.value, explorer.picture.value) == before


def test_a_picture_too_large_is_refused_and_the_formula_stays():
    explorer = conv_explorer()
    move(explorer, size=224, kernel=11, stride=4)
    assert "⌊(224 + 2·0 − 1·(11 − 1) − 1) / 4⌋ + 1 = 54" in said(explorer)
    assert "never read: 1" in said(explorer)
    assert drawn(explorer).startswith("No picture: the walk has 54 x 54 = 2,916 steps")


# Transposed convolution


def test_transposed_formula_has_the_numbers_put_in():
    explorer = transposed_explorer(3, 4, stride=2, padding=1, output_padding=1)
    assert "output = (3 − 1)·2 − 2·1 + 1·(4 − 1) + 1 + 1 = 7" in said(explorer)


@pytest.mark.parametrize("seed", range(25))
def test_transposed_agrees_with_torch(seed):
    values = draw_values(
        seed,
        size=(2, 4),
        kernel=(2, 4),
        stride=(2, 4),
        padding=(0, 1),
        output_padding=(0, 1),
        dilation=(1, 2),
    )
    explorer = transposed_explorer()
    move(explorer, **values)
    size, kernel = values.pop("size"), values.pop("kernel")
    pixels, weights = torch.tensor(PIXELS[:size, :size]), torch.tensor(WEIGHTS[:kernel, :kernel])
    output = F.conv_transpose2d(pixels[None, None].float(), weights[None, None].float(), **values)
    values.pop("output_padding")
    back = F.conv2d(output, weights[None, None].float(), **values)
    assert f"+ 1 = {output.shape[-1]} the convolution" in said(explorer)
    assert f"takes {output.shape[-1]} back to {back.shape[-1]}; " in said(explorer)
    explorer.step.value = explorer.step.max
    assert f"step {size**2} of {size**2}" in drawn(explorer)


def test_the_two_views_are_two_walks_to_the_same_numbers():
    explorer = transposed_explorer(size=2, kernel=3, stride=2, padding=1)
    text, outputs = explorer.text.value, []
    for view, steps in zip(explorer.controls["view"].options, (4, 9), strict=True):
        move(explorer, view=view[1])
        explorer.step.value = explorer.step.max
        assert f"step {steps} of {steps}" in drawn(explorer)
        assert explorer.text.value == text
        numbers = re.findall(r'<span class="(.*?)">([^<]*)</span>', explorer.picture.value)
        target = numbers[-25:] if steps == 4 else numbers[-9:]
        outputs.append([number for mark, number in target if "others" not in mark])
    assert outputs[0] == outputs[1]


def test_output_padding_explains_itself():
    explorer = transposed_explorer(stride=2)
    move(explorer, output_padding=2)
    with pytest.raises(ValueError) as refusal:
        arithmetic.conv_transpose_size(3, 3, stride=2, output_padding=2)
    assert said(explorer) == str(refusal.value)
    assert explorer.picture.value == ""


# Dilation


def test_hdc_is_computed_line_by_line():
    explorer = dilation_explorer(rates=(1, 2, 5))
    assert "1 1 3 3 max(2 − 2·1, 2 − 2·(2 − 1), 1) = 1" in said(explorer)
    assert "2 2 5 7 max(5 − 2·2, 5 − 2·(5 − 2), 2) = 2" in said(explorer)
    assert "3 5 11 17 5" in said(explorer)
    assert "= 1 + (3 − 1)·(1 + 2 + 5) = 17" in said(explorer)
    assert "M of layer 2 at most 3: it accepts this stack" in said(explorer)
    assert "0 of 17 positions are holes, and the square field is covered to 100.0%" in said(
        explorer
    )


def test_gridding_is_told_and_shown():
    explorer = dilation_explorer()
    move(explorer, rates="2, 2, 2")
    assert "it rejects this stack" in said(explorer)
    assert "6 of 13 positions are holes, and the square field is covered to 29.0%" in said(explorer)
    rows = re.findall(r"layer (\d) reads</div><div class=\"grid\".*?</div>", explorer.picture.value)
    assert rows == ["3", "2", "1"]
    assert count(explorer, "unused") == 2 + 4 + 6


def test_the_rule_and_the_count_may_disagree():
    explorer = dilation_explorer(rates=(2, 1))
    assert "it rejects this stack" in said(explorer)
    assert "0 of 7 positions are holes" in said(explorer)


def test_paths_are_those_of_a_convolution():
    explorer = dilation_explorer(rates=(1, 2), kernel=3)
    x = torch.zeros(1, 1, 7, requires_grad=True)
    ones = torch.ones(1, 1, 3)
    F.conv1d(F.conv1d(x, ones, dilation=1), ones, dilation=2).sum().backward()
    counts = " ".join(str(int(paths)) for paths in x.grad.flatten())
    assert f"layer 1 reads {counts} Each number" in drawn(explorer)
    assert "one output 1 layer 2 reads 1 1 1 layer 1" in drawn(explorer)


def test_field_map_is_white_exactly_in_the_holes():
    explorer = dilation_explorer(rates=(2, 3), kernel=3)
    data = re.search(r"base64,(.*?)\"", explorer.picture.value)[1]
    image = imread(io.BytesIO(b64decode(data)))[..., :3]
    row = torch.tensor(arithmetic.contributions((2, 3), 3))
    white = torch.tensor(image).min(dim=-1).values > 0.95
    assert torch.equal(white, torch.outer(row, row) == 0)


@pytest.mark.parametrize("text", ["", "1, 2,", "1; 2", "1.5"])
def test_rates_half_typed_explain_themselves(text):
    explorer = dilation_explorer()
    move(explorer, rates=text)
    assert (
        said(explorer) == f"rates={text!r} must be whole numbers with commas between: try 1, 2, 5"
    )
    move(explorer, rates="1,2")
    assert "= 1 + (3 − 1)·(1 + 2) = 7" in said(explorer)


def test_a_rate_of_zero_and_a_field_too_wide_explain_themselves():
    explorer = dilation_explorer()
    move(explorer, rates="1, 0")
    assert said(explorer) == "rate=0 must be a whole number, 1 or more: try rate=1"
    move(explorer, rates="1, 50")
    assert "= 103" in said(explorer)
    assert drawn(explorer).startswith("No picture: the field is 103 pixels wide, at most 99")


# All of them


def walk_down(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk_down(child)


@pytest.mark.parametrize("make", [conv_explorer, transposed_explorer, dilation_explorer])
def test_made_of_plain_widgets(make):
    explorer = make()
    assert isinstance(explorer, VBox)
    parts = list(walk_down(explorer))
    assert not any(isinstance(part, Output) for part in parts)
    assert {*explorer.controls.values(), explorer.text, explorer.picture} <= set(parts)


SLOWEST = {  # as many cells and steps as a picture may have
    conv_explorer: [{"size": 14}, {"padding": 5}, {"stride": 2}, {"dilation": 2}, {"kernel": 2}],
    transposed_explorer: [{"stride": 1}, {"size": 12}, {"padding": 1}, {"kernel": 5}],
    dilation_explorer: [{"rates": "1, 2, 3, 1, 2, 3"}, {"kernel": 7}, {"rates": "1, 2, 5, 8"}],
}


@pytest.mark.parametrize("make", SLOWEST)
def test_a_change_is_quick(make):
    explorer = make()
    for change in SLOWEST[make]:
        start = time.process_time()
        move(explorer, **change)
        assert time.process_time() - start < LIMIT, change
        assert explorer.picture.value


@pytest.mark.parametrize("make", [conv_explorer, transposed_explorer])
def test_a_step_is_quick(make):
    explorer = make()
    move(explorer, stride=1, size=12)
    for step in (explorer.step.max, explorer.step.max // 2, 1):
        start = time.process_time()
        explorer.step.value = step
        assert time.process_time() - start < LIMIT


def test_the_first_values_stand_on_the_controls():
    explorer = conv_explorer(size=300, kernel=5, stride=9, padding=2, dilation=3)
    values = {name: control.value for name, control in explorer.controls.items()}
    assert values == {"size": 300, "kernel": 5, "stride": 9, "padding": 2, "dilation": 3}

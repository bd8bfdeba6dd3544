"""The bottlenecks after ResNet against the published code and by hand."""

from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import nn

from cnnlib import models, weights
from cnnlib.blocks.attention import (
    BranchAttention,
    ResNeStBlock,
    SEBottleneck,
    SelectiveKernel,
    SKBottleneck,
    SplitAttention,
    SqueezeExcitation,
    pooled_shortcut,
)
from cnnlib.blocks.residual import Bottleneck
from cnnlib.blocks.split import (
    IBN,
    Cascade,
    IBNBottleneck,
    Res2NetBlock,
    ResNeXtBlock,
    SideBySide,
    width_for,
)
from cnnlib.models.beyond import NARROW_BLOCKS, ibn_a
from cnnlib.trace import trace
from parity import COLOUR, assert_same_logits, randomise

BLOCKS = {
    "resnext": ResNeXtBlock,
    "ibn": IBNBottleneck,
    "se": SEBottleneck,
    "sk": SKBottleneck,
    "res2net": Res2NetBlock,
    "resnest": ResNeStBlock,
}


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def on_meta(make, *args, **kwargs):
    with torch.device("meta"):
        return make(*args, **kwargs).eval()


# The published networks


@pytest.mark.parametrize(
    ("name", "layout", "published", "count"),
    [
        ("resnext50_32x4d", "torchvision", "resnext50_32x4d", 25_028_904),
        ("se_resnet50", "timm", "seresnet50", 28_088_024),
        ("sk_resnet50", "timm", "skresnet50", 25_803_160),
        ("res2net50_26w_4s", "timm", "res2net50_26w_4s", 25_699_120),
        ("resnest50", "timm", "resnest50d", 27_483_240),
    ],
)
def test_networks_have_the_published_parameters_and_logits(name, layout, published, count):
    if layout == "timm":
        theirs = timm.create_model(published)
    else:
        theirs = getattr(torchvision.models, published)(weights=None)
    theirs, ours = randomise(theirs), getattr(models, name)(**COLOUR).eval()
    assert parameters(ours) == count
    assert weights.load(ours, theirs.state_dict(), layout=layout) == []
    assert_same_logits(ours, theirs, 65, 98)


def test_ibn_has_the_parameters_of_resnet50_and_no_instance_norm_in_its_last_stage():
    ours = on_meta(models.resnet50_ibn, **COLOUR)
    assert parameters(ours) == 25_557_032
    kinds = [{type(block) for block in stage} for stage in ours.stages]
    assert kinds == [{IBNBottleneck}] * 3 + [{Bottleneck}]


# Grouped 3x3


def test_the_groups_of_resnext_are_many_and_narrow():
    for out_channels, inner in [(256, 128), (512, 256), (1024, 512), (2048, 1024)]:
        conv = on_meta(ResNeXtBlock, 64, out_channels).residual[1][0]
        assert (conv.groups, conv.in_channels, conv.out_channels) == (32, inner, inner)
        assert conv.weight.shape == (inner, inner // 32, 3, 3)


def test_resnext_of_one_group_is_the_bottleneck():
    torch.manual_seed(0)
    one = ResNeXtBlock(8, 32, stride=2, groups=1, width=64).eval()
    other = Bottleneck(8, 32, stride=2).eval()
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, 8, 5, 7)
    assert torch.equal(one(x), other(x))


# IBN


@pytest.mark.parametrize("channels", [4, 7])
def test_ibn_by_hand(channels):
    torch.manual_seed(0)
    norm = IBN(channels)
    half = channels // 2
    scale, shift = torch.rand(channels) + 0.5, torch.randn(channels)
    with torch.no_grad():
        norm.instance.weight.copy_(scale[:half])
        norm.instance.bias.copy_(shift[:half])
        norm.batch.weight.copy_(scale[half:])
        norm.batch.bias.copy_(shift[half:])
    x = 3 * torch.randn(2, channels, 5, 6) + 1

    def normalised(part, dims):
        mean = part.mean(dims, keepdim=True)
        variance = (part - mean).square().mean(dims, keepdim=True)
        return (part - mean) / (variance + 1e-5).sqrt()

    both = torch.cat([normalised(x[:, :half], (2, 3)), normalised(x[:, half:], (0, 2, 3))], dim=1)
    expected = both * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
    torch.testing.assert_close(norm(x), expected, atol=1e-4, rtol=1e-4)


def test_the_instance_half_of_ibn_forgets_contrast_and_brightness_in_evaluation_too():
    torch.manual_seed(0)
    norm, x = IBN(4).eval(), torch.randn(1, 4, 6, 6)
    darker = 0.5 * x - 2
    torch.testing.assert_close(norm(x)[:, :2], norm(darker)[:, :2], atol=1e-3, rtol=1e-3)
    assert (norm(x)[:, 2:] - norm(darker)[:, 2:]).abs().min() > 0.1


def test_ibn_stands_after_the_first_1x1_only():
    kinds = [type(module).__name__ for module in IBNBottleneck(8, 32).residual.modules()]
    assert kinds.count("IBN") == 1
    assert kinds.index("IBN") == kinds.index("Conv2d") + 1


@pytest.mark.parametrize(("out_channels", "kind"), [(1024, IBNBottleneck), (2048, Bottleneck)])
def test_ibn_a_tells_the_last_stage_by_its_channels(out_channels, kind):
    assert type(on_meta(ibn_a, 64, out_channels)) is kind
    assert type(on_meta(partial(ibn_a, last=128), 64, 128, 2)) is Bottleneck


# Squeeze and excitation


def test_squeeze_excitation_by_hand():
    gate = SqueezeExcitation(2, reduction=2)
    squeeze, excite = gate.gate[1], gate.gate[3]
    with torch.no_grad():
        squeeze.weight.copy_(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1))
        squeeze.bias.fill_(-3.0)
        excite.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        excite.bias.copy_(torch.tensor([0.0, 2.0]))
    x = torch.tensor([[[[1.0, 3.0]], [[2.0, 4.0]]]])  # means 2 and 3, hidden 2 + 6 - 3 = 5
    opened = torch.sigmoid(torch.tensor([5.0, 2.0 - 5.0]))
    assert torch.allclose(gate(x), x * opened.view(1, 2, 1, 1))
    dark = torch.zeros(1, 2, 1, 2)  # hidden max(-3, 0) = 0
    assert torch.allclose(gate.gate(dark).flatten(), torch.sigmoid(torch.tensor([0.0, 2.0])))


def test_an_open_gate_leaves_the_bottleneck():
    torch.manual_seed(0)
    plain, gated = Bottleneck(8, 64).eval(), SEBottleneck(8, 64).eval()
    gated.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 8, 5, 7)
    for bias, expected in [(50.0, plain(x)), (-50.0, plain.shortcut(x).relu())]:
        nn.init.constant_(gated.residual[3].gate[3].bias, bias)
        torch.testing.assert_close(gated(x), expected)


# Attention over branches


@pytest.mark.parametrize(("branches", "bias"), [(2, True), (3, False)])
def test_shares_of_the_branches_by_hand(branches, bias):
    torch.manual_seed(0)
    attention = BranchAttention(branches, 5, 8, bias).eval()
    x = torch.randn(4, branches, 5, 6, 7)
    shares = attention(x)
    _, squeeze, norm, _ = attention.squeeze
    means = x.sum(1).mean((2, 3))
    hidden = norm(squeeze(means[..., None, None])).relu().flatten(1)
    scores = hidden @ attention.choose.weight.flatten(1).T
    if bias:
        scores = scores + attention.choose.bias
    exponents = [scores[:, 5 * i : 5 * i + 5].exp() for i in range(branches)]
    for i in range(branches):
        torch.testing.assert_close(shares[:, i, :, 0, 0], exponents[i] / sum(exponents))
    assert (squeeze.bias is not None) == bias
    assert shares.shape == (4, branches, 5, 1, 1)


def test_attention_of_equal_scores_takes_the_mean_of_the_branches():
    torch.manual_seed(0)
    x = torch.randn(2, 16, 7, 6)
    kernel, split = SelectiveKernel(16, stride=2).eval(), SplitAttention(16, radix=4).eval()
    for block in (kernel, split):
        for parameter in block.attention.choose.parameters():
            nn.init.zeros_(parameter)
    torch.testing.assert_close(kernel(x), (kernel.near(x[:, :8]) + kernel.far(x[:, 8:])) / 2)
    torch.testing.assert_close(split(x), split.splits(x).view(2, 4, 16, 7, 6).mean(1))


def test_the_branches_of_a_selective_kernel_see_3_and_5_pixels():
    image = torch.zeros(1, 16, 9, 9)
    image[..., 4, 4] = 1
    kernel = SelectiveKernel(16).eval()
    for branch, expected in [(kernel.near, [3, 4, 5]), (kernel.far, [2, 4, 6])]:
        nn.init.ones_(branch[0].weight)
        seen = branch(image[:, :8])[0, 0]
        assert seen.sum(0).nonzero().flatten().tolist() == expected
        assert seen.sum(1).nonzero().flatten().tolist() == expected


@pytest.mark.parametrize(
    ("block", "width", "hidden"),
    [
        (SelectiveKernel, 64, 8),
        (SelectiveKernel, 128, 8),
        (SelectiveKernel, 512, 32),
        (SplitAttention, 16, 32),
        (SplitAttention, 128, 64),
    ],
)
def test_hidden_numbers_of_the_attention(block, width, hidden):
    assert block(width).attention.choose.in_channels == hidden


def test_the_shortcut_of_resnest_takes_means():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    pool, (conv, _) = pooled_shortcut(1, 1, 2).eval()
    nn.init.ones_(conv.weight)
    assert torch.equal(pool(x)[0, 0], torch.tensor([[2.5, 4.5], [8.5, 10.5]]))
    assert isinstance(pooled_shortcut(8, 8, 1), nn.Identity)
    assert pooled_shortcut(8, 16, 1)[0].stride == (1, 1)


# Res2Net


def make_transparent(block):
    """Let every convolution of a set of splits be a 3x3 sum, and every normalisation pass it."""
    for conv in block.convs:
        nn.init.constant_(conv.weight, 1.0)
    for norm in block.norms:
        norm.running_var.fill_(0.75)  # and with epsilon exactly 1
        norm.eps = 0.25
    return block.eval()


def test_a_cascade_by_hand():
    block = make_transparent(Cascade(1, 4))
    image = torch.zeros(1, 4, 9, 9)
    image[:, 0, 4, 4] = 1
    first, second, third, last = block(image)[0]
    ones = torch.ones(1, 1, 3, 3)
    twice = nn.functional.conv2d(first[None, None], ones, padding=1)
    assert first.sum() == 9
    assert torch.equal(second, twice[0, 0])
    assert torch.equal(third, nn.functional.conv2d(twice, ones, padding=1)[0, 0])
    assert last.eq(0).all()
    image[:, 3, 0, 0] = 5
    assert torch.equal(block(image)[0, 3], image[0, 3])


@pytest.mark.parametrize("scales", [2, 4, 6])
def test_each_scale_of_a_cascade_sees_two_pixels_more(scales):
    image = torch.zeros(1, 2 * scales, 15, 15)
    image[..., 7, 7] = 1
    output = make_transparent(Cascade(2, scales))(image)[0, ::2]
    widths = [int(part.sum(0).gt(0).sum()) for part in output]
    assert widths == [*range(3, 2 * scales, 2), 1]


def test_splits_side_by_side_by_hand():
    block = make_transparent(SideBySide(1, 3, 2))
    x = torch.zeros(1, 3, 5, 5)
    x[0, 0, 2, 2], x[0, 1, 0, 0], x[0, 2, 4, 4] = 1, 2, 9
    first, second, last = block(x)[0]
    assert torch.equal(first, torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]))
    assert torch.equal(second, torch.tensor([[2.0, 0, 0], [0, 0, 0], [0, 0, 0]]))
    assert torch.equal(last, torch.tensor([[0.0, 0, 0], [0, 0, 0], [0, 0, 1]]))


@pytest.mark.parametrize(
    ("in_channels", "stride", "kind"),
    [(256, 1, Cascade), (64, 1, SideBySide), (256, 2, SideBySide), (64, 2, SideBySide)],
)
def test_a_res2net_block_begins_a_stage_where_it_changes_the_shape(in_channels, stride, kind):
    block = on_meta(Res2NetBlock, in_channels, 256, stride)
    assert type(block.residual[1]) is kind
    assert [conv.in_channels for conv in block.residual[1].convs] == [26, 26, 26]


# All of them


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(("in_channels", "stride"), [(64, 1), (8, 1), (64, 2), (24, 2)])
def test_shape_and_gradients_of_all_parameters(name, in_channels, stride):
    torch.manual_seed(0)
    block = BLOCKS[name](in_channels, 256, stride)
    output = block(torch.randn(3, in_channels, 7, 10))
    assert output.shape == (3, 256, -(-7 // stride), -(-10 // stride))
    assert output.min() == 0
    (output * torch.randn_like(output)).sum().backward()
    for parameter_name, parameter in block.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", BLOCKS)
def test_without_its_residual_a_block_is_its_shortcut(name):
    torch.manual_seed(0)
    block = BLOCKS[name](256, 256).eval()
    last = [m for m in block.residual.modules() if isinstance(m, nn.BatchNorm2d)][-1]
    nn.init.zeros_(last.weight)
    x = torch.randn(2, 256, 5, 5)
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize(
    ("out_channels", "width", "expected"),
    [(256, 64, 64), (2048, 64, 512), (2048, 26, 208), (32, 24, 3)],
)
def test_width_is_in_proportion(out_channels, width, expected):
    assert width_for(out_channels, width) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: SEBottleneck(8, 30),
            r"out_channels=30 must be a multiple of 4.*64 channels.*try 32",
        ),
        (lambda: Res2NetBlock(8, 192), r"out_channels=192 must be a multiple of 128.*26.*try 256"),
        (lambda: ResNeXtBlock(8, 32), r"out_channels=32 must be a multiple of 64.*try 64"),
        (lambda: SKBottleneck(8, 0), r"out_channels=0 must be .*try out_channels=16"),
    ],
)
def test_a_width_that_is_no_whole_number_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", NARROW_BLOCKS)
def test_narrow_networks_cost_about_the_same(name):
    plain = trace(on_meta(models.narrow_resnet), (1, 28, 28))
    other = trace(on_meta(models.narrow_resnet, block=NARROW_BLOCKS[name]), (1, 28, 28))
    row = trace(on_meta(models.MODELS[f"narrow_{name.lower()}"].build), (1, 28, 28))
    assert row.rows == other.rows
    assert 0.9 < other.total_macs / plain.total_macs < 1.12
    assert 0.8 < other.total_params / plain.total_params < 1.5

"""The Inception networks against the published code, and their blocks by hand."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from cnnlib import models, weights
from cnnlib.blocks.conv import conv_bn_relu
from cnnlib.blocks.inception import (
    AuxiliaryHead,
    BNInception,
    Inception,
    MiniInception,
    conv_relu,
)
from cnnlib.blocks.inception_v3 import (
    AuxiliaryHeadV3,
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
from cnnlib.trace import trace
from parity import COLOUR, assert_same_logits, randomise, relative

ROW_3A = (64, (96, 128), (16, 32), 32)


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def on_meta(make, *args, **kwargs):
    with torch.device("meta"):
        return make(*args, **kwargs)


def meta_images(batch, channels, size):
    return torch.empty(batch, channels, size, size, device="meta")


# The published networks


def torchvision_inception_v3():
    return torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=True)


def torchvision_googlenet():
    return torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=True)


def test_inception_v3_gives_torchvisions_logits():
    theirs = randomise(torchvision_inception_v3())
    ours = models.inception_v3(**COLOUR, auxiliary=True).eval()
    assert weights.load(ours, theirs.state_dict()) == []
    assert_same_logits(ours, theirs, 107, 139)
    middle = torch.rand(2, 768, 17, 20)
    with torch.inference_mode():
        assert relative(ours.auxiliary17(middle), theirs.AuxLogits(middle)) < 1e-4


def test_inception_v3_without_its_auxiliary_head_skips_the_published_one():
    theirs = on_meta(torchvision_inception_v3)
    state = {
        name: value.new_zeros(value.shape, device="cpu")
        for name, value in theirs.state_dict().items()
    }
    ours = on_meta(models.inception_v3, **COLOUR).to_empty(device="cpu")
    skipped = weights.load(ours, state)
    assert len(skipped) == 6 + 6 + 2  # two convolutions with their normalisation, one linear layer
    assert all(name.startswith("AuxLogits.") for name in skipped)
    assert all(value.eq(0).all() for value in ours.state_dict().values())


@pytest.mark.parametrize("name", ["inception_v4", "inception_resnet_v2"])
def test_networks_give_timms_logits(name):
    theirs = randomise(timm.create_model(name, pretrained=False))
    ours = getattr(models, name)(**COLOUR).eval()
    assert weights.load(ours, theirs.state_dict(), layout="timm") == []
    assert_same_logits(ours, theirs, 107, 123)


def depart_as_torchvision(net):
    """Change our GoogLeNet where torchvision's departs from the paper.

    A 3x3 stands for the 5x5, batch normalisation has eps 0.001, and pooling pads nothing and rounds
    up, the last time over 2x2.
    """
    for block in [m for m in net.modules() if isinstance(m, Inception)]:
        conv = block.five[1][0]
        block.five[1][0] = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=False)
    for norm in [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]:
        norm.eps = 0.001
    for parent, name in [(net.stem, "1"), (net.stem, "4"), (net, "pool3")]:
        setattr(parent, name, nn.MaxPool2d(3, stride=2, ceil_mode=True))
    net.pool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
    return net


def test_googlenet_gives_torchvisions_logits_after_its_departures():
    theirs = randomise(torchvision_googlenet())
    ours = models.googlenet(**COLOUR, batch_norm=True, auxiliary=True).eval()
    assert weights.load(depart_as_torchvision(ours), theirs.state_dict()) == []
    assert_same_logits(ours, theirs, 107, 139)
    for head, published, channels in [
        (ours.auxiliary4a, theirs.aux1, 512),
        (ours.auxiliary4d, theirs.aux2, 528),
    ]:
        middle = torch.rand(2, channels, 7, 9)
        with torch.inference_mode():
            assert relative(head(middle), published(middle)) < 1e-4


def test_googlenet_as_in_the_paper_differs_from_torchvisions_in_its_nine_5x5():
    theirs = on_meta(torchvision_googlenet).state_dict()
    ours = on_meta(models.googlenet, **COLOUR, batch_norm=True)
    message = r"in 9 entries(?s:.)*\(32, 16, 5, 5\) +inception3a\.branch3\.1\.conv\.weight \(32, 16, 3, 3\)"
    with pytest.raises(ValueError, match=message):
        weights.load(ours, theirs)


# By the tables


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("googlenet", {}, 6_998_552),
        # torchvision's 6,624,904, and 5x5 - 3x3 = 16 weights for each pair of channels
        ("googlenet", {"batch_norm": True}, 6_624_904 + 16 * 23_808),
        ("inception_v3", {}, 23_834_568),
        ("inception_v3", {"auxiliary": True}, 27_161_264),
        ("inception_v4", {}, 42_679_816),
        ("inception_resnet_v2", {}, 55_843_464),
    ],
)
def test_networks_have_the_published_parameters(name, options, count):
    assert parameters(on_meta(getattr(models, name), **COLOUR, **options)) == count


def test_parameters_of_the_small_block_and_network_by_hand():
    def convolution(in_channels, out_channels, kernel):
        return (in_channels * kernel**2 + 1) * out_channels

    def block(c):
        five = convolution(c, 16, 1) + convolution(16, 24, 5)
        double_three = convolution(c, 16, 1) + convolution(16, 24, 3) + convolution(24, 24, 3)
        return convolution(c, 16, 1) + five + double_three + convolution(c, 24, 1)

    assert parameters(MiniInception(10)) == block(10) == 19_104
    total = convolution(1, 10, 5) + block(10) + convolution(88, 20, 5) + block(20) + 1409 * 10
    assert parameters(models.mini_inception()) == total == 97_298


def shapes(net, input_shape, depth):
    """Return the output shape of each layer by its name."""
    return {row.name: row.output_shape for row in trace(net, input_shape, depth).rows}


def blocks(net, input_shape, depth):
    """Return the output shapes of the layers that are Inception blocks, in order."""
    rows = trace(net, input_shape, depth).rows
    return [row.output_shape for row in rows if row.kind.startswith(("Inception", "Reduction"))]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_trace_of_googlenet_at_96(batch_norm):
    net = on_meta(models.googlenet, batch_norm=batch_norm)
    found = shapes(net, (1, 96, 96), 1) | shapes(net, (1, 96, 96), 2)
    expected = {
        "stem.0": (64, 48, 48),
        "stem.1": (64, 24, 24),
        "stem.3": (192, 24, 24),
        "stem.4": (192, 12, 12),
        "stage3.0": (256, 12, 12),
        "stage3.1": (480, 12, 12),
        "pool3": (480, 6, 6),
        "stage4a": (512, 6, 6),
        "stage4bcd.0": (512, 6, 6),
        "stage4bcd.1": (512, 6, 6),
        "stage4bcd.2": (528, 6, 6),
        "stage4e": (832, 6, 6),
        "pool4": (832, 3, 3),
        "stage5.0": (832, 3, 3),
        "stage5.1": (1024, 3, 3),
        "head.1": (1024,),
        "head.3": (10,),
    }
    assert {name: found[name] for name in expected} == expected


def test_trace_of_inception_v3_at_299():
    net = on_meta(models.inception_v3)
    found = shapes(net, (1, 299, 299), 2)
    assert found["stem.6"] == (192, 35, 35)
    assert blocks(net, (1, 299, 299), 2) == [
        *[(256, 35, 35), (288, 35, 35), (288, 35, 35)],
        *[(768, 17, 17)] * 5,
        *[(1280, 8, 8), (2048, 8, 8), (2048, 8, 8)],
    ]
    assert found["head.1"] == (2048,)
    assert found["head.3"] == (10,)


def test_trace_of_inception_v4_at_299():
    net = on_meta(models.inception_v4)
    stem = [row.output_shape for row in trace(net, (1, 299, 299), 1).rows[3:6]]
    assert stem == [(160, 73, 73), (192, 71, 71), (384, 35, 35)]
    assert blocks(net, (1, 299, 299), 1) == [
        *[(384, 35, 35)] * 4,
        *[(1024, 17, 17)] * 8,
        *[(1536, 8, 8)] * 4,
    ]


def test_trace_of_inception_resnet_v2_at_299():
    assert blocks(on_meta(models.inception_resnet_v2), (1, 299, 299), 1) == [
        *[(320, 35, 35)] * 11,
        *[(1088, 17, 17)] * 21,
        *[(2080, 8, 8)] * 11,
    ]


def test_trace_of_mini_inception_at_28():
    rows = trace(models.mini_inception(), (1, 28, 28), 1).rows
    seen = [row.output_shape for row in rows if row.kind != "ReLU"]
    assert seen == [
        *[(10, 24, 24), (10, 12, 12), (88, 12, 12)],
        *[(20, 8, 8), (20, 4, 4), (88, 4, 4), (1408,), (10,)],
    ]


# The blocks


def halved(size):
    """The size after a 3x3 with stride 2 and no padding."""
    return (size - 3) // 2 + 1


BLOCKS = [  # block, channels that arrive, channels that leave, whether the size is halved
    (lambda: Inception(192, ROW_3A), 192, 64 + 128 + 32 + 32, False),
    (lambda: Inception(192, ROW_3A, conv_bn_relu), 192, 256, False),
    (lambda: BNInception(192, ROW_3A), 192, 64 + 128 + 32 + 32, False),
    (lambda: MiniInception(10), 10, 88, False),
    (lambda: MiniInception(20, conv_bn_relu), 20, 16 + 24 + 24 + 24, False),
    (lambda: InceptionA(192, 32), 192, 64 + 64 + 96 + 32, False),
    (lambda: InceptionA(256, 64), 256, 224 + 64, False),
    (lambda: InceptionB(288), 288, 384 + 96 + 288, True),
    (lambda: InceptionC(768, 160), 768, 4 * 192, False),
    (lambda: InceptionD(768), 768, 320 + 192 + 768, True),
    (lambda: InceptionE(1280), 1280, 320 + 768 + 768 + 192, False),
    (lambda: StemPool(nn.MaxPool2d(3, 2), nn.Conv2d(64, 96, 3, 2)), 64, 160, True),
    (InceptionV4A, 384, 4 * 96, False),
    (lambda: ReductionA(384, (192, 224, 256, 384)), 384, 384 + 256 + 384, True),
    (InceptionV4B, 1024, 384 + 256 + 256 + 128, False),
    (ReductionV4B, 1024, 192 + 320 + 1024, True),
    (InceptionV4C, 1536, 256 + 512 + 512 + 256, False),
    (InceptionResNetStem, 192, 96 + 64 + 96 + 64, False),
    (InceptionResNetA, 320, 320, False),
    (lambda: ReductionA(320, (256, 256, 384, 384)), 320, 384 + 384 + 320, True),
    (InceptionResNetB, 1088, 1088, False),
    (ReductionResNetB, 1088, 384 + 288 + 320 + 1088, True),
    (InceptionResNetC, 2080, 2080, False),
    (lambda: InceptionResNetC(last=True), 2080, 2080, False),
]


@pytest.mark.parametrize(("make", "in_channels", "out_channels", "is_halved"), BLOCKS)
def test_shape_of_each_block_and_gradients_of_all_its_parameters(
    make, in_channels, out_channels, is_halved
):
    torch.manual_seed(0)
    block, images = make(), torch.randn(2, in_channels, 6, 9)
    found = block(images.clone())
    size = (halved(6), halved(9)) if is_halved else (6, 9)
    assert found.shape == (2, out_channels, *size)
    (found * torch.randn_like(found)).sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_shape_of_the_second_fork_of_the_stem():
    block = StemFork()
    found = block(torch.rand(2, 160, 6, 9))
    assert found.shape == (2, 96 + 96, 4, 7)
    (found * torch.randn_like(found)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in block.parameters())


FIELDS = [  # block, channels that arrive, (channels, field) of each slice of what leaves
    (
        Inception(8, ROW_3A),
        8,
        [(64, (1, 1)), (128, (3, 3)), (32, (5, 5)), (32, (3, 3))],
    ),
    (
        BNInception(8, ROW_3A),
        8,
        [(64, (1, 1)), (128, (3, 3)), (32, (5, 5)), (32, (3, 3))],
    ),
    (MiniInception(8), 8, [(16, (1, 1)), (24, (5, 5)), (24, (5, 5)), (24, (3, 3))]),
    (InceptionA(8, 32), 8, [(64, (1, 1)), (64, (5, 5)), (96, (5, 5)), (32, (3, 3))]),
    (InceptionC(8, 16), 8, [(192, (1, 1)), (192, (7, 7)), (192, (13, 13)), (192, (3, 3))]),
    (
        InceptionE(8),
        8,
        [
            *[(320, (1, 1)), (384, (1, 3)), (384, (3, 1))],
            *[(384, (3, 5)), (384, (5, 3)), (192, (3, 3))],
        ],
    ),
    (InceptionV4A(), 384, [(96, (1, 1)), (96, (3, 3)), (96, (5, 5)), (96, (3, 3))]),
    (InceptionV4B(), 1024, [(384, (1, 1)), (256, (7, 7)), (256, (13, 13)), (128, (3, 3))]),
    (
        InceptionV4C(),
        1536,
        [
            *[(256, (1, 1)), (256, (1, 3)), (256, (3, 1))],
            *[(256, (3, 5)), (256, (5, 3)), (256, (3, 3))],
        ],
    ),
]


def make_positive(block):
    """Set every weight to a positive constant and every bias to 0: no ReLU stops anything."""
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return block.eval()


@pytest.mark.parametrize(("block", "in_channels", "arms"), FIELDS)
def test_each_slice_of_a_block_answers_a_dot_within_the_field_of_its_arm(block, in_channels, arms):
    image = torch.zeros(1, in_channels, 17, 19)
    image[:, :, 8, 9] = 1
    with torch.inference_mode():
        found = make_positive(block)(image)[0]
    slices = found.split([channels for channels, _ in arms])
    for part, (_, (height, width)) in zip(slices, arms, strict=True):
        expected = torch.zeros(17, 19, dtype=torch.bool)
        top, left = 8 - height // 2, 9 - width // 2
        expected[top : top + height, left : left + width] = True
        assert (part.gt(0) == expected).all()


def test_googlenets_block_pools_the_largest_and_bn_inceptions_the_mean():
    image = torch.zeros(1, 1, 3, 3)
    image[..., 1, 1] = 9
    widths = (1, (1, 1), (1, 1), 1)
    for block, expected in [(Inception(1, widths), 9), (BNInception(1, widths), 1)]:
        with torch.inference_mode():
            corner = make_positive(block)(image)[0, 3, 0, 0].item()
        assert corner == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("make", [InceptionResNetA, InceptionResNetB, InceptionResNetC])
def test_the_residual_is_scaled_before_the_addition(make):
    full, half = make(scale=1.0).eval(), make(scale=0.5).eval()
    half.load_state_dict(full.state_dict())
    x = 10 + torch.rand(1, full.expand.out_channels, 3, 3)  # so far up, no ReLU cuts
    with torch.inference_mode():
        assert torch.allclose(half(x) - x, (full(x) - x) / 2, atol=1e-5)
        nn.init.zeros_(full.expand.weight)
        nn.init.zeros_(full.expand.bias)
        assert torch.equal(full(x), x)
        assert torch.equal(full(-x), torch.zeros_like(x))


def test_the_last_residual_block_adds_all_and_does_not_cut():
    last, full = InceptionResNetC(last=True).eval(), InceptionResNetC(scale=1.0).eval()
    full.load_state_dict(last.state_dict())
    x = torch.randn(1, 2080, 3, 3)
    with torch.inference_mode():
        assert last(x).min() < 0
        assert torch.allclose(last(x).relu(), full(x), atol=1e-6)


@pytest.mark.parametrize(
    ("block", "scale"), [(InceptionResNetA, 0.17), (InceptionResNetB, 0.1), (InceptionResNetC, 0.2)]
)
def test_published_scales(block, scale):
    net = on_meta(models.inception_resnet_v2)
    assert {m.scale for m in net if isinstance(m, block) and not getattr(m, "last", 0)} == {scale}


def test_units():
    conv, relu = conv_relu(4, 6, 5, 2)
    assert (conv.padding, conv.stride, conv.bias.shape) == ((2, 2), (2, 2), (6,))
    assert isinstance(relu, nn.ReLU)
    conv, norm, relu = conv_unit(4, 6, (1, 7))
    assert (conv.kernel_size, conv.bias, norm.eps) == ((1, 7), None, 0.001)
    x = torch.rand(1, 4, 9, 9)
    assert conv_unit(4, 6, (1, 7))(x).shape == (1, 6, 9, 9)
    assert conv_unit(4, 6, 3, 2, padding="valid")(x).shape == (1, 6, 4, 4)


# Auxiliary heads


def test_auxiliary_heads_classify():
    x = torch.rand(2, 512, 14, 14)
    assert AuxiliaryHead(512, 7)(x).shape == (2, 7)
    assert AuxiliaryHead(512, 7)(x[..., :5, :6]).shape == (2, 7)
    assert AuxiliaryHeadV3(512, 7)(x.repeat(1, 1, 2, 2)).shape == (2, 7)
    by_hand = (512 + 1) * 128 + (128 * 16 + 1) * 1024 + 1025 * 7
    assert parameters(AuxiliaryHead(512, 7)) == by_hand


AUXILIARY = [("googlenet", 96, 2), ("inception_v3", 299, 1)]


@pytest.mark.parametrize(("name", "size", "heads"), AUXILIARY)
def test_auxiliary_heads_speak_in_training_only(name, size, heads):
    net = on_meta(getattr(models, name), auxiliary=True, num_classes=7)
    images = meta_images(2, 1, size)
    called = []
    for module in net.modules():
        if isinstance(module, (AuxiliaryHead, AuxiliaryHeadV3)):
            module.register_forward_hook(lambda *_: called.append(1))
    assert net.eval()(images).shape == (2, 7)
    assert not called
    scores = net.train()(images)
    assert [tuple(s.shape) for s in scores] == [(2, 7)] * (heads + 1)
    assert len(called) == heads


@pytest.mark.parametrize(("name", "size", "heads"), AUXILIARY)
def test_without_auxiliary_heads_training_gives_one_answer(name, size, heads):
    net = on_meta(getattr(models, name)).train()
    assert net(meta_images(2, 1, size)).shape == (2, 10)
    assert not any("auxiliary" in parameter for parameter, _ in net.named_parameters())


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("googlenet", 64, {"auxiliary": True}),
        ("googlenet", 64, {"batch_norm": True, "auxiliary": True}),
        ("inception_v3", 299, {"auxiliary": True}),
        ("inception_v4", 96, {}),
        ("inception_resnet_v2", 96, {}),
        ("mini_inception", 28, {}),
    ],
)
def test_every_parameter_of_a_network_gets_a_gradient(name, size, options):
    net = on_meta(getattr(models, name), **options).train()
    scores = net(meta_images(2, 1, size))
    total = sum(s.sum() for s in scores) if isinstance(scores, tuple) else scores.sum()
    total.backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None]

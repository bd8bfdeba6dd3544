"""The U-Net: its steps by hand, the paper's trace and parameters, the net without skips."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms.functional import center_crop as torchvision_crop

from cnnlib.blocks.unet import PlainUpStep, UpStep, center_crop, double_conv
from cnnlib.models import unet


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def on_meta(size, **options):
    """Return a U-Net without memory, and the shapes of its main parts for an image of this size."""
    with torch.device("meta"):
        net = unet(**options).eval()
        image = torch.empty(1, net.down1[0].in_channels, size, size)
    shapes = {}
    for name, part in net.named_children():
        part.register_forward_hook(lambda part, x, y, name=name: shapes.update({name: y.shape[1:]}))
    net(image)
    return net, shapes


# Steps


@pytest.mark.parametrize(("padded", "lost"), [(True, 0), (False, 4)])
def test_double_conv_keeps_the_size_or_loses_four_pixels(padded, lost):
    y = double_conv(3, 6, padded)(torch.rand(2, 3, 9, 12))
    assert y.shape == (2, 6, 9 - lost, 12 - lost)
    assert y.min() == 0 < y.max()


def test_double_conv_normalises_only_where_it_pads():
    kinds = [type(layer) for layer in double_conv(3, 6, padded=False)]
    assert kinds == [nn.Conv2d, nn.ReLU] * 2
    padded = double_conv(3, 6)
    kinds = [type(layer) for unit in padded for layer in unit]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2
    assert parameters(padded) == 9 * 3 * 6 + 9 * 6 * 6 + 2 * 2 * 6


def spread(up, value):
    """Make a 2x2 transposed convolution of one channel copy its input, times `value`."""
    nn.init.constant_(up.weight, value)
    nn.init.zeros_(up.bias)


def test_up_step_by_hand():
    """The up arm doubles and repeats, the convolutions subtract it from the centre of the skip."""
    step = UpStep(1, 1, padded=False)
    spread(step.up, 2)
    first, second = step.convs[0], step.convs[2]
    for conv in (first, second):
        nn.init.zeros_(conv.bias)
        nn.init.zeros_(conv.weight)
    first.weight.data[0, :, 1, 1] = torch.tensor([1.0, -1.0])
    second.weight.data[0, 0, 1, 1] = 1
    x = torch.tensor([[[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]]])
    skip = torch.arange(100.0).view(1, 1, 10, 10)
    doubled = 2 * x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = (skip[..., 2:8, 2:8] - doubled)[..., 2:4, 2:4].relu()
    assert expected.unique().numel() == 4
    assert torch.equal(step(x, skip), expected)


@pytest.mark.parametrize(("size", "first"), [((6, 4), (1, 2)), ((8, 8), (0, 0)), ((7, 5), (0, 1))])
def test_a_crop_keeps_the_centre(size, first):
    images = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8)
    (top, left), (height, width) = first, size
    expected = images[:, :, top : top + height, left : left + width]
    assert torch.equal(center_crop(images, size), expected)


@pytest.mark.parametrize("size", [(6, 4), (8, 8), (2, 8)])
def test_an_even_crop_is_torchvisions(size):
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(center_crop(images, size), torchvision_crop(images, size))


def test_padded_up_step_takes_the_whole_skip():
    step = UpStep(8, 4).eval()
    x, skip = torch.randn(2, 8, 3, 5), torch.randn(2, 4, 6, 10)
    expected = step.convs(torch.cat([skip, step.up(x)], 1))
    assert torch.equal(step(x, skip), expected)
    assert expected.shape == (2, 4, 6, 10)


def test_plain_up_step_leaves_the_skip_out():
    step = PlainUpStep(8, 4)
    x = torch.randn(2, 8, 3, 5)
    y = step(x, torch.randn(2, 4, 6, 10))
    assert torch.equal(y, step(x, None))
    assert y.shape == (2, 4, 6, 10)


@pytest.mark.parametrize("padded", [True, False])
def test_plain_step_has_the_same_convolutions_and_no_fewer_parameters(padded):
    skips, plain = UpStep(64, 32, padded), PlainUpStep(64, 32, padded)
    assert [p.shape for p in skips.convs.parameters()] == [
        p.shape for p in plain.convs.parameters()
    ]
    assert parameters(plain) - parameters(skips) == 64 * 32 * 4 + 32


# The paper's net


def test_the_trace_of_the_paper():
    """Figure 1: the size on the right of each row of the figure, 572 above to 388."""
    _, shapes = on_meta(572, in_channels=1, num_classes=2, padded=False)
    shapes.pop("pool")
    assert shapes == {
        "down1": (64, 568, 568),
        "down2": (128, 280, 280),
        "down3": (256, 136, 136),
        "down4": (512, 64, 64),
        "bottom": (1024, 28, 28),
        "up4": (512, 52, 52),
        "up3": (256, 100, 100),
        "up2": (128, 196, 196),
        "up1": (64, 388, 388),
        "head": (2, 388, 388),
    }


def test_the_parameters_of_the_paper_by_hand():
    """23 convolutions: 18 of 3x3, 4 of 2x2 on the way up, 1 of 1x1; each has a bias."""
    down = [(1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512)]
    down += [(512, 512), (512, 1024), (1024, 1024)]
    up = [(1024, 512), (512, 512), (512, 256), (256, 256), (256, 128), (128, 128), (128, 64)]
    up += [(64, 64)]
    threes = sum(9 * a * b + b for a, b in down + up)
    twos = sum(4 * a * b + b for a, b in [(1024, 512), (512, 256), (256, 128), (128, 64)])
    one = 64 * 2 + 2
    net, _ = on_meta(188, in_channels=1, num_classes=2, padded=False)
    assert parameters(net) == threes + twos + one == 31_030_658
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convolutions) == 23


def test_the_paper_starts_from_he_initialisation():
    torch.manual_seed(0)
    weight = unet(width=16, padded=False).bottom[2].weight
    assert weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)


# Sizes


def test_padded_net_keeps_any_size_of_sixteenths():
    net = unet(3, 5, width=2).eval()
    for size in [(16, 16), (32, 48), (64, 16)]:
        assert net(torch.rand(2, 3, *size)).shape == (2, 5, *size)


def test_cropped_net_loses_184_pixels():
    net = unet(1, 5, width=2, padded=False)
    assert net(torch.rand(1, 1, 188, 204)).shape == (1, 5, 4, 20)


@pytest.mark.parametrize(
    ("padded", "size", "message"),
    [
        (True, (64, 50), "width=50 must be a multiple of 16: pad the images to 64"),
        (True, (8, 64), "height=8 must be a multiple of 16: pad the images to 16"),
        (True, (65, 64), "height=65 must be a multiple of 16: pad the images to 80"),
        (False, (572, 570), "width=570 must be 188 plus a multiple of 16: pad the images to 572"),
        (False, (172, 572), "height=172 must be 188 plus a multiple of 16: pad the images to 188"),
    ],
)
def test_sizes_that_do_not_halve_four_times_are_refused(padded, size, message):
    with pytest.raises(ValueError, match=message):
        unet(width=2, padded=padded)(torch.rand(1, 1, *size))


def test_every_size_is_refused_or_taken_as_the_cropping_says():
    """Walk the unpadded sizes down and up again: all halve evenly, and some pixels are left."""

    def fits(side):
        for _ in range(4):
            side -= 4
            if side < 2 or side % 2:
                return False
            side //= 2
        side -= 4
        for _ in range(4):
            side = 2 * side - 4
        return side > 0

    with torch.device("meta"):
        net = unet(width=1, padded=False)
        for side in range(170, 240):
            image = torch.empty(1, 1, side, 188)
            if fits(side):
                assert net(image).shape[2:] == (side - 184, 4)
            else:
                with pytest.raises(ValueError, match=f"height={side} must be"):
                    net(image)


# Skips


def bottomless(net):
    """Switch the bottom of the U off: its last normalisation scales everything to zero."""
    nn.init.zeros_(net.bottom[1][1].weight)
    return net.eval()


@pytest.mark.parametrize("skips", [True, False])
def test_only_skips_pass_beside_the_bottom(skips):
    torch.manual_seed(0)
    net = bottomless(unet(width=4, skips=skips))
    one, other = net(torch.rand(2, 1, 32, 32))
    assert torch.equal(one, other) != skips


@pytest.mark.parametrize("name", ["down1", "down2", "down3", "down4"])
def test_each_skip_goes_to_its_own_step(name):
    torch.manual_seed(0)
    net = bottomless(unet(width=4))
    met = {}
    level = name[-1]
    getattr(net, name).register_forward_hook(lambda part, x, y: met.update(down=y))
    getattr(net, f"up{level}").register_forward_hook(lambda part, x, y: met.update(up=x[1]))
    net(torch.rand(1, 1, 32, 32))
    assert met["up"] is met["down"]


def test_each_step_down_takes_the_maxima_of_the_one_above():
    torch.manual_seed(0)
    net = unet(width=4).eval()
    met = {}
    for name in ("down1", "down2", "down3", "down4", "bottom"):
        hook = lambda part, x, y, name=name: met.update({name: (x[0], y)})  # noqa: E731
        getattr(net, name).register_forward_hook(hook)
    net(torch.rand(1, 1, 32, 32))
    steps = list(met.values())
    for (_, above), (below, _) in pairwise(steps):
        assert torch.equal(below, F.max_pool2d(above, 2))


def test_net_without_skips_is_no_smaller():
    with_skips, without = unet(width=8), unet(width=8, skips=False)
    more = sum(4 * 2 * c * c + c for c in (8, 16, 32, 64))
    assert parameters(without) - parameters(with_skips) == more


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("skips", [True, False])
def test_every_parameter_gets_a_gradient(padded, skips):
    torch.manual_seed(0)
    net = unet(1, 3, width=4, padded=padded, skips=skips)
    size = 32 if padded else 188
    scores = net(torch.rand(2, 1, size, size))
    F.cross_entropy(scores, torch.randint(3, (2, *scores.shape[2:]))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())

"""Dense blocks and networks: channels, wiring, recomputation, parity with torchvision."""

import copy
import random
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.checkpoint import checkpoint

from cnnlib import models, weights
from cnnlib.blocks.dense import BuffersKept, DenseBlock, DenseLayer, Transition, bn_relu_conv
from cnnlib.models.densenet import DenseNet
from cnnlib.models.resnet import stem_3x3
from cnnlib.trace import trace
from parity import COLOUR, assert_same_logits, randomise

COUNTS = {  # exact, for colour images and 1,000 classes
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "densenet161": 28_681_000,
}
TINY = (6, 4, (2, 3))


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def on_meta(make, *args, **kwargs):
    with torch.device("meta"):
        return make(*args, **kwargs).eval()


def test_bn_relu_conv_is_in_this_order_and_has_no_bias():
    norm, relu, conv = unit = bn_relu_conv(4, 6, 3)
    assert [type(layer) for layer in unit] == [nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    assert norm.num_features == 4
    assert relu(torch.tensor([-1.0, 2.0])).tolist() == [0, 2]
    assert conv.bias is None
    assert bn_relu_conv(4, 6, 5)(torch.rand(2, 4, 7, 8)).shape == (2, 6, 7, 8)


@pytest.mark.parametrize("bottleneck", [True, False])
def test_a_layer_makes_growth_rate_channels_of_all_it_gets(bottleneck):
    layer = DenseLayer(10, 4, bottleneck)
    maps = [torch.rand(2, channels, 7, 9) for channels in (3, 5, 2)]
    assert layer(*maps).shape == (2, 4, 7, 9)
    assert torch.equal(layer.eval()(*maps), layer(torch.cat(maps, dim=1)))
    width = 16
    by_hand = 2 * 10 + 10 * width + 2 * width + 9 * width * 4 if bottleneck else 2 * 10 + 9 * 10 * 4
    assert parameters(layer) == by_hand


def first_norm(layer):
    return next(m for m in layer.modules() if isinstance(m, nn.BatchNorm2d))


def test_channels_of_random_blocks():
    numbers = random.Random(0)
    for _ in range(20):
        k0, layers, k = (numbers.randint(1, 9) for _ in range(3))
        block = DenseBlock(k0, layers, k, bottleneck=numbers.random() < 0.5)
        x = torch.randn(2, k0, 5, 6)
        y = block(x)
        assert y.shape == (2, k0 + layers * k, 5, 6)
        assert torch.equal(y[:, :k0], x)  # what arrives leaves as it came
        arriving = [first_norm(layer).num_features for layer in block.layers]
        assert arriving == [k0 + k * i for i in range(layers)]


def test_each_layer_reads_all_maps_before_it_and_none_after():
    torch.manual_seed(0)
    block = DenseBlock(2, 3, 2, bottleneck=False).eval()
    x = torch.randn(1, 2, 5, 5)
    before = block(x)
    for source in range(3):  # shift what one layer makes, and see who notices
        changed = copy.deepcopy(block)
        nn.init.normal_(changed.layers[source].three[2].weight)
        moved = (changed(x) - before).abs().amax((0, 2, 3)) > 1e-6
        first = 2 + 2 * source
        assert moved.tolist() == [False] * first + [True] * (8 - first)


def pass_through(norm):
    """Make variance plus epsilon exactly 1: in evaluation the normalisation divides by 1."""
    norm.running_var.fill_(0.75)
    norm.eps = 0.25


def test_a_block_by_hand():
    """Each layer's centre taps add up all that arrives; normalisation divides by 1."""
    block = DenseBlock(1, 3, 1, bottleneck=False).eval()
    for layer in block.layers:
        norm, _, conv = layer.three
        pass_through(norm)
        nn.init.zeros_(conv.weight)
        conv.weight.data[:, :, 1, 1] = 1
    x = torch.tensor([[[[1.0, 5.0, -2.0]]]])
    assert block(x)[0, :, 0].T.tolist() == [[1, 1, 2, 4], [5, 5, 10, 20], [-2, 0, 0, 0]]


def test_transition_by_hand():
    step = Transition(2, 1).eval()
    norm, _, conv = step.conv
    pass_through(norm)
    conv.weight.data[:] = torch.tensor([1.0, 10.0]).view(1, 2, 1, 1)
    x = torch.tensor([[[[1.0, 2, 9], [3, -4, 9]], [[1.0, 1, 9], [1, 5, 9]]]])
    assert step(x).tolist() == [[[[(1 + 2 + 3 + 0 + 10 * 8) / 4]]]]
    assert parameters(Transition(8, 4)) == 2 * 8 + 8 * 4


def test_the_input_of_a_block_is_left_alone():
    x = torch.randn(2, 4, 5, 5)
    before = x.clone()
    for efficient in (False, True):
        DenseBlock(4, 3, 2, memory_efficient=efficient)(x.requires_grad_()).sum().backward()
        assert torch.equal(x, before)


@pytest.mark.parametrize("bottleneck", [True, False])
def test_every_parameter_gets_a_gradient(bottleneck):
    net = DenseNet(TINY, bottleneck=bottleneck, stem=stem_3x3)
    F.cross_entropy(net(torch.randn(4, 1, 8, 8)), torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


# Recomputation


def twins(bottleneck=True):
    """The same network twice, keeping everything and keeping little."""
    torch.manual_seed(0)
    plain = DenseNet(TINY, bottleneck=bottleneck, stem=stem_3x3)
    efficient = DenseNet(TINY, bottleneck=bottleneck, stem=stem_3x3, memory_efficient=True)
    efficient.load_state_dict(plain.state_dict())
    return plain, efficient


def assert_same_to_the_bit(plain, efficient):
    for one, other in zip(plain.parameters(), efficient.parameters(), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one.grad, other.grad)
    for one, other in zip(plain.buffers(), efficient.buffers(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("bottleneck", [True, False])
def test_recomputation_changes_neither_gradients_nor_running_statistics(bottleneck):
    plain, efficient = nets = twins(bottleneck)
    images, labels = torch.randn(3, 4, 1, 8, 8), torch.arange(4)
    optimizers = [torch.optim.SGD(net.parameters(), 0.1, momentum=0.9) for net in nets]
    for batch in images:
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(net(batch), labels).backward()
            optimizer.step()
        assert_same_to_the_bit(plain, efficient)
    counts = [b for name, b in efficient.named_buffers() if name.endswith("batches_tracked")]
    assert counts and all(count == 3 for count in counts)


def test_a_second_backward_pass_recomputes_once_more_and_updates_nothing():
    plain, efficient = twins()
    for net in (plain, efficient):
        loss = net(torch.ones(4, 1, 8, 8).cumsum(2)).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
    assert_same_to_the_bit(plain, efficient)


def test_recomputation_in_eval_mode():
    plain, efficient = twins()
    for net in (plain, efficient):
        net.eval()(torch.ones(4, 1, 8, 8).cumsum(2)).square().sum().backward()
    assert_same_to_the_bit(plain, efficient)


def test_the_gradient_of_the_image_and_a_frozen_network():
    plain, efficient = twins()
    found = []
    for net in (plain, efficient):
        image = torch.ones(4, 1, 8, 8).cumsum(2).requires_grad_()
        net.requires_grad_(False)(image).square().sum().backward()
        found.append(image.grad)
    assert torch.equal(*found)


def test_checkpointing_alone_updates_the_statistics_twice():
    """Why the buffers are put back: torch does not do it."""
    layer = DenseLayer(4, 2)
    x = torch.randn(2, 4, 5, 5, requires_grad=True)
    checkpoint(layer, x, use_reentrant=False).sum().backward()
    assert layer.one[0].num_batches_tracked == 2


def test_buffers_are_put_back_even_where_the_run_stops_early():
    norm = nn.BatchNorm2d(2)
    before = copy.deepcopy(norm.state_dict())
    with pytest.raises(RuntimeError, match="stop"), BuffersKept(norm):
        norm(torch.randn(2, 2, 3, 3))
        assert norm.num_batches_tracked == 1
        raise RuntimeError("stop")
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())


def saved_bytes(block):
    """Bytes that autograd holds between the forward and the backward pass, weights left out."""
    own = {p.untyped_storage().data_ptr() for p in block.state_dict().values()}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    x = torch.randn(2, 8, 8, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = block(x)
    assert output.requires_grad
    return sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in own)


def test_what_is_kept_grows_with_the_square_of_the_layers_or_in_proportion():
    kept = {
        efficient: [
            saved_bytes(DenseBlock(8, layers, 8, memory_efficient=efficient))
            for layers in (4, 8, 12, 16)
        ]
        for efficient in (False, True)
    }
    steps = {key: [b - a for a, b in pairwise(row)] for key, row in kept.items()}
    assert len(set(steps[True])) == 1, "a straight line"
    seconds = [b - a for a, b in pairwise(steps[False])]
    assert len(set(seconds)) == 1 and seconds[0] > 0, "a parabola"
    assert kept[True][-1] < kept[False][-1] / 10
    # What the last of 16 layers reads: the input and 15 outputs of 8 channels, 2 images of 8x8, 4 bytes each.
    assert kept[True][-1] == 16 * 8 * 2 * 64 * 4


# Networks


@pytest.mark.parametrize("name", COUNTS)
def test_densenet_has_the_published_parameters_and_depth(name):
    net = on_meta(getattr(models, name), 3, 1000)
    assert parameters(net) == COUNTS[name]
    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == int(name.removeprefix("densenet"))


@pytest.mark.parametrize("name", COUNTS)
def test_densenet_gives_torchvisions_logits(name):
    theirs = randomise(getattr(torchvision.models, name)(weights=None), size=64)
    ours = getattr(models, name)(**COLOUR).eval()
    assert weights.load(ours, theirs.state_dict()) == []
    assert_same_logits(ours, theirs, 65, 98)


def test_first_weights_have_torchvisions_spread():
    torch.manual_seed(0)
    ours, theirs = models.densenet121(**COLOUR), torchvision.models.densenet121()
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    for mine, published in pairs:
        assert mine.shape == published.shape
        if mine.numel() > 2000:
            assert mine.std().item() == pytest.approx(published.std().item(), rel=0.05)
        elif mine.dim() == 1:
            assert torch.equal(mine, published)


def test_densenet_d2l_at_96():
    rows = trace(models.densenet_d2l(), (1, 96, 96), depth=2).rows
    shapes = {row.name: row.output_shape for row in rows}
    assert [shapes["stem.1"]] + [shapes[f"blocks.{i}"] for i in range(7)] == [
        (64, 24, 24), (192, 24, 24), (96, 12, 12), (224, 12, 12), (112, 6, 6), (240, 6, 6),
        (120, 3, 3), (248, 3, 3),
    ]  # fmt: skip
    assert sum(row.params for row in rows) == 757_322


def test_densenet_d2l_by_hand():
    channels, count = 64, 49 * 64 + 2 * 64
    for block in range(4):
        for _ in range(4):
            count += 2 * channels + 9 * channels * 32
            channels += 32
        if block < 3:
            count += 2 * channels + channels * channels // 2
            channels //= 2
    count += 2 * channels + channels * 10 + 10
    assert parameters(models.densenet_d2l()) == count


def test_the_smallest_image_that_densenet_d2l_takes():
    net = on_meta(models.densenet_d2l)
    assert net(torch.empty(1, 1, 29, 29, device="meta")).shape == (1, 10)
    with pytest.raises(RuntimeError, match="Output size is too small"):
        net(torch.empty(1, 1, 28, 28, device="meta"))


@pytest.mark.parametrize("name", [*COUNTS, "densenet_d2l"])
def test_memory_efficient_is_a_keyword_of_every_densenet(name):
    blocks = [
        module
        for efficient in (False, True)
        for module in on_meta(getattr(models, name), memory_efficient=efficient).blocks
        if isinstance(module, DenseBlock)
    ]
    assert [block.memory_efficient for block in blocks] == [False] * 4 + [True] * 4


@pytest.mark.parametrize(("compression", "channels"), [(1, 14), (0.5, 7), (0.3, 4)])
def test_compression_is_the_fraction_that_a_transition_keeps(compression, channels):
    net = DenseNet(TINY, compression=compression)
    assert net.blocks[1].conv[2].weight.shape == (channels, 14, 1, 1)
    assert net.head[-1].in_features == channels + 3 * 4


@pytest.mark.parametrize("compression", [0, -0.5, 1.5])
def test_other_compressions_are_refused(compression):
    with pytest.raises(ValueError, match=f"compression={compression} must be above 0.*try 0.5"):
        DenseNet(TINY, compression=compression)

"""Receptive fields of every layer class of torch.nn, against the support of gradients."""

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F
from test_trace import Net
from torch import nn

from cnnlib import models
from cnnlib.trace import trace


def support(net, shape):
    """Measure how far the gradient of any single place of the output reaches, on both axes.

    A maximum passes the gradient of one input alone, so many images take turns. The random weights
    keep gradients from cancelling, as they would in the sum of a softmax.
    """
    torch.manual_seed(0)
    net = copy.deepcopy(net).double().eval()
    for param in net.parameters():
        nn.init.uniform_(param, 0.5, 1.5)
    image = torch.rand(16, *shape, dtype=torch.double, requires_grad=True)
    output = net(image)
    reach = []
    for axis, others in ((-2, (0, 1, 3)), (-1, (0, 1, 2))):
        middle = output.shape[axis] // 2
        widths = [0]
        for place in range(max(0, middle - 5), min(middle + 5, output.shape[axis])):
            line = output.select(axis, place)
            weighted = (line * torch.rand_like(line)).sum()
            (gradient,) = torch.autograd.grad(weighted, image, retain_graph=True)
            seen = gradient.abs().sum(others).nonzero()
            widths.append(int(seen.max() - seen.min()) + 1 if len(seen) else 0)
        reach.append(max(widths))
    return reach[0] if reach[0] == reach[1] else tuple(reach)


def field(net, shape):
    (row,) = trace(nn.Sequential(net), shape, depth=1).rows
    return row.receptive_field


# Every layer class of torch.nn

SHAPE = (4, 22, 26)  # before the layer an average over 3x3 leaves 20x24


def around(layer):
    """Put a layer between two averages, which show what it makes of its surroundings."""
    return nn.Sequential(nn.AvgPool2d(3, 1), layer, nn.AvgPool2d(3, 1))


def tokens(layer):
    """Wrap a layer that takes (N, L, C): L places, C channels."""

    def forward(net, x):
        return net.layer(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])

    return Net(forward, layer=layer)


class SelfAttention(nn.MultiheadAttention):
    """Attention of tokens among themselves."""

    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)[0]


IMAGE_LAYERS = {
    **{
        name: getattr(nn, name)()
        for name in (
            *("AlphaDropout", "CELU", "Dropout", "Dropout2d", "ELU", "FeatureAlphaDropout", "GELU"),
            *("Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU"),
            *("LogSigmoid", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid"),
            *("Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink", "Softmax2d"),
        )
    },
    "Threshold": nn.Threshold(0.1, 0.0),
    "GLU": nn.GLU(1),
    **{name: getattr(nn, name)(1) for name in ("Softmax", "LogSoftmax", "Softmin")},
    "AdaptiveAvgPool2d": nn.AdaptiveAvgPool2d((8, 9)),
    "AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d((8, 9)),
    "AvgPool2d": nn.AvgPool2d(3, 2),
    "MaxPool2d": nn.MaxPool2d((3, 2), 2, dilation=(2, 1)),
    "LPPool2d": nn.LPPool2d(2, 3, 2),
    "BatchNorm2d": nn.BatchNorm2d(4),
    "SyncBatchNorm": nn.SyncBatchNorm(4),
    "InstanceNorm2d": nn.InstanceNorm2d(4),
    "GroupNorm": nn.GroupNorm(2, 4),
    "LayerNorm": nn.LayerNorm(24),
    "RMSNorm": nn.RMSNorm(24),
    "LocalResponseNorm": nn.LocalResponseNorm(3),
    "PixelShuffle": nn.PixelShuffle(2),
    "ConstantPad1d": nn.ConstantPad1d((2, 1), 0.5),
    "ConstantPad2d": nn.ConstantPad2d((0, 1, 2, 1), 0.5),
    "ZeroPad1d": nn.ZeroPad1d(1),
    "ZeroPad2d": nn.ZeroPad2d(1),
    "ReflectionPad2d": nn.ReflectionPad2d(2),
    "ReplicationPad2d": nn.ReplicationPad2d((3, 0, 1, 2)),
    "Conv2d": nn.Conv2d(4, 3, (3, 2), (1, 2), padding="valid", dilation=(2, 1)),
    "ConvTranspose2d": nn.ConvTranspose2d(4, 3, 4, 2),
    "Upsample": nn.Upsample(scale_factor=3, mode="bilinear"),
    "UpsamplingBilinear2d": nn.UpsamplingBilinear2d(scale_factor=2),  # with aligned corners
    "UpsamplingNearest2d": nn.UpsamplingNearest2d(scale_factor=2),
    "Linear": nn.Linear(24, 5),
    "Flatten": Net(
        lambda net, x: net.layer(x).unflatten(2, x.shape[2:]), layer=nn.Flatten(start_dim=2)
    ),
    "Unflatten": Net(lambda net, x: net.layer(x).sum(1), layer=nn.Unflatten(1, (2, 2))),
    "CosineSimilarity": Net(
        lambda net, x: net.layer(x, x.flip(1).square())[:, None], layer=nn.CosineSimilarity(1)
    ),
    "MultiheadAttention": tokens(SelfAttention(4, 2, batch_first=True)),
    "TransformerEncoderLayer": tokens(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)),
    "TransformerEncoder": tokens(
        nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1)
    ),
    "Sequential": nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()),
}

# Each with the layer that it turns into.
LAZY_LAYERS = {
    "LazyBatchNorm2d": (nn.LazyBatchNorm2d(), nn.BatchNorm2d(4)),
    "LazyInstanceNorm2d": (
        nn.LazyInstanceNorm2d(),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    ),
    "LazyConv2d": (nn.LazyConv2d(2, 3), nn.Conv2d(4, 2, 3)),
    "LazyConvTranspose2d": (nn.LazyConvTranspose2d(2, 3), nn.ConvTranspose2d(4, 2, 3)),
    "LazyLinear": (nn.LazyLinear(5), nn.Linear(24, 5)),
}

NOT_TOLD = {
    "FractionalMaxPool2d": nn.FractionalMaxPool2d(2, 12),  # chance places its windows
    "CircularPad2d": nn.CircularPad2d(1),  # it writes parts of a new tensor, one after the other
    "CrossMapLRN2d": nn.CrossMapLRN2d(3),  # so does this
    "MaxUnpool2d": Net(  # it knows of the pooling only where the maxima were
        lambda net, x: net.unpool(*net.pool(x)),
        pool=nn.MaxPool2d(2, return_indices=True),
        unpool=nn.MaxUnpool2d(2),
    ),
    # These have a field, and are too rare in networks for images to be followed.
    "ChannelShuffle": nn.ChannelShuffle(2),
    "PixelUnshuffle": nn.PixelUnshuffle(2),
    "Unfold": Net(
        lambda net, x: net.layer(x).unflatten(2, (9, 11)), layer=nn.Unfold((4, 3), stride=2)
    ),
    "Fold": Net(lambda net, x: net.layer(F.unfold(x, 3)), layer=nn.Fold((20, 24), kernel_size=3)),
    "Bilinear": Net(
        lambda net, x: net.layer(*[x.movedim(1, -1).contiguous()] * 2).movedim(-1, 1),
        layer=nn.Bilinear(4, 4, 2),
    ),
}

NOT_FOR_IMAGES = {
    "bases and containers": "Container Module ModuleDict ModuleList ParameterDict ParameterList "
    "DataParallel RNNBase RNNCellBase",
    "numbers of words": "Embedding EmbeddingBag",
    "sequences": "GRU GRUCell LSTM LSTMCell RNN RNNCell Transformer TransformerDecoder "
    "TransformerDecoderLayer",
    "pairs of vectors": "PairwiseDistance",
    "(N, C, L)": "AdaptiveAvgPool1d AdaptiveMaxPool1d AvgPool1d BatchNorm1d CircularPad1d Conv1d "
    "ConvTranspose1d Dropout1d InstanceNorm1d LPPool1d LazyBatchNorm1d LazyConv1d "
    "LazyConvTranspose1d LazyInstanceNorm1d MaxPool1d MaxUnpool1d ReflectionPad1d "
    "ReplicationPad1d",
    "(N, C, D, H, W)": "AdaptiveAvgPool3d AdaptiveMaxPool3d AvgPool3d BatchNorm3d CircularPad3d "
    "ConstantPad3d Conv3d ConvTranspose3d Dropout3d FractionalMaxPool3d InstanceNorm3d LPPool3d "
    "LazyBatchNorm3d LazyConv3d LazyConvTranspose3d LazyInstanceNorm3d MaxPool3d MaxUnpool3d "
    "ReflectionPad3d ReplicationPad3d ZeroPad3d",
}


def test_no_class_of_torch_nn_is_forgotten():
    classes = {
        name
        for name, value in vars(nn).items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and "Loss" not in name
    }
    listed = [*IMAGE_LAYERS, *LAZY_LAYERS, *NOT_TOLD, *" ".join(NOT_FOR_IMAGES.values()).split()]
    assert sorted(classes) == sorted(listed)


@pytest.mark.parametrize("name", IMAGE_LAYERS)
def test_layer(name):
    net = around(IMAGE_LAYERS[name])
    assert name in {type(module).__name__ for module in net.modules()} or "Attention" in name
    assert field(net, SHAPE) == support(net, SHAPE)


@pytest.mark.parametrize("name", LAZY_LAYERS)
def test_lazy_layer(name):
    lazy, twin = LAZY_LAYERS[name]
    assert field(around(lazy), SHAPE) == support(around(twin), SHAPE)


@pytest.mark.parametrize("name", NOT_TOLD)
def test_layer_whose_field_is_not_told(name):
    table = trace(around(NOT_TOLD[name]), SHAPE, depth=1)
    assert [row.receptive_field for row in table.rows] == [3, None, None]
    (note,) = table.notes
    assert note.startswith("Field - from 1 on: aten.") and note.endswith("is not followed.")


# What forwards do beside layers


def in_channels_last(layer):
    """Run a layer on (N, H, W, C), as ConvNeXt does."""
    return Net(lambda net, x: net.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), layer=layer)


def shuffle(x):
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def depth_to_space(x):
    n, c, h, w = x.shape
    return x.view(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)


def non_local(x):
    places = x.flatten(2)
    weights = (places.transpose(1, 2) @ places).softmax(-1)
    return x + (places @ weights.transpose(1, 2)).view_as(x)


def class_token(x):
    """Average image tokens and a token that sees nothing, and add it everywhere."""
    token = torch.ones_like(x[:, :, :1, 0])
    return x + torch.cat([token, x.flatten(2)], 2).mean(2)[..., None, None]


def channel_attention(x):
    """Convolve the means along the channels, as ECA does."""
    means = x.mean((2, 3))[:, None]
    kernel = torch.ones(1, 1, 3, dtype=x.dtype, device=x.device)
    return x * F.conv1d(means, kernel, padding=1)[0, 0, :, None, None].sigmoid()


def learned_queries(x):
    """Attend from queries that see nothing to the channels, whose features are all positions."""
    channels = x.flatten(2)[:, None]  # of one head
    queries = weights_like(x, 1, 1, 3, 480).expand(len(x), -1, -1, -1)
    assert x.isfinite().all()  # on real numbers, where attention is a single operation
    heads = F.scaled_dot_product_attention(queries, channels, channels)
    return heads[:, 0].unflatten(2, x.shape[2:])


def pyramid_pooling(x):
    pooled = F.adaptive_avg_pool2d(x, 1)
    return torch.cat([x, F.interpolate(pooled, x.shape[2:], mode="bilinear")], 1)


def resize(**arguments):
    return lambda x: F.interpolate(x, **arguments)


def weights_like(x, *shape):
    return torch.linspace(0.5, 1.5, torch.Size(shape).numel(), dtype=x.dtype, device=x.device).view(
        shape
    )


OPERATIONS = {
    "repeated channels": lambda x: x.repeat(1, 3, 1, 1),
    "repeated channels, interleaved": lambda x: x.repeat_interleave(2, 1),
    "expanded channels": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "picked channels": lambda x: x[:, [2, 0]],
    "picked channels, by a mask": lambda x: x[:, torch.arange(4, device=x.device) < 3],
    "selected channels": lambda x: torch.index_select(x, 1, torch.tensor([2, 0], device=x.device)),
    "flipped channels": lambda x: x.flip(1),
    "unbound channels": lambda x: torch.stack(x.unbind(1)[:2], 1),
    "norm of a list of positions": lambda x: (
        F.layer_norm(x.movedim(1, 3).flatten(0, 2), (4,)).view(-1, 20, 24, 4).movedim(3, 1)
    ),
    "rolled channels": lambda x: x.roll(1, 1),
    "shuffled channels": shuffle,
    "in place": lambda x: F.elu_(1 * x) + F.hardtanh_(1 * x) + F.leaky_relu_(1 * x),
    "softmax": lambda x: x.softmax(1),
    "softmax along rows": lambda x: x.softmax(-1),
    "gated channels": lambda x: F.glu(x, 1),
    "normalized": lambda x: F.normalize(x, dim=1),
    "standard deviation": lambda x: x.std(1, keepdim=True),
    "log of a sum": lambda x: x.logsumexp(1)[:, None],
    "mean along columns": lambda x: x + x.mean(2, keepdim=True),
    "maximum along rows": lambda x: x + x.max(3, keepdim=True).values,
    "norm of the channels": lambda x: x.norm(dim=1, keepdim=True),
    "transposed and back": lambda x: F.avg_pool2d(x.mT, (1, 5)).mT,
    "space to depth": lambda x: torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1),
    "tokens": lambda x: x.flatten(2).transpose(1, 2).relu().transpose(1, 2).unflatten(2, (20, 24)),
    "product with a matrix": lambda x: (weights_like(x, 3, 4) @ x.flatten(2)).view(-1, 3, 20, 24),
    "einsum": lambda x: torch.einsum("nchw,oc->nohw", x, weights_like(x, 3, 4)),
    "einsum along rows": lambda x: torch.einsum("nchw,wv->nchv", x, weights_like(x, 24, 9)),
    "columns as channels": lambda x: F.conv1d(x.flatten(0, 1), weights_like(x, 20, 20, 3)).view(
        -1, 4, 20, 22
    ),
    "non-local": non_local,
    "class token": class_token,
    "channel attention": channel_attention,
    "learned queries": learned_queries,
    "pyramid pooling": pyramid_pooling,
    "columns pooled": lambda x: x + F.adaptive_avg_pool2d(x, (1, 24)),
    "smaller, nearest": resize(size=(7, 9)),
    "larger, nearest-exact": resize(size=(30, 36), mode="nearest-exact"),
    "smaller, nearest-exact": resize(scale_factor=0.5, mode="nearest-exact"),
    "factor that does not divide": resize(scale_factor=1.6),
    "smaller, bilinear": resize(scale_factor=0.4, mode="bilinear"),
    "corners aligned": resize(size=(39, 47), mode="bilinear", align_corners=True),
    "corners aligned, smaller": resize(size=(11, 9), mode="bilinear", align_corners=True),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name):
    net = around(Net(lambda net, x: OPERATIONS[name](x)))
    assert field(net, SHAPE) == support(net, SHAPE)


@pytest.mark.parametrize("layer", [nn.LayerNorm(4), nn.Linear(4, 3), nn.Softmax(-1)])
def test_layers_in_channels_last(layer):
    net = around(in_channels_last(layer))
    assert field(net, SHAPE) == support(net, SHAPE) == 5


def test_the_first_operation_may_be_a_view_of_the_image():
    net = Net(lambda net, x: F.avg_pool2d(x.flatten(2).unflatten(2, x.shape[2:]), 3))
    assert field(net, SHAPE) == 3


def test_transposed_maps_keep_their_height_and_width():
    net = around(Net(lambda net, x: F.avg_pool2d(x.transpose(2, 3), (1, 5))))
    assert field(net, SHAPE) == (3 + 4 + 2 * 5, 3 + 2)


# Gates


def squeeze_and_excitation(x):
    return x * x.mean((2, 3), keepdim=True).sigmoid()


GATES = {
    "squeeze and excitation": squeeze_and_excitation,
    "by average pooling": lambda x: x * F.avg_pool2d(x, x.shape[2:]).sigmoid(),
    "instance norm": lambda x: F.instance_norm(x),
    "group norm": lambda x: F.group_norm(x, 1),
    "half instance norm": lambda x: torch.cat([F.instance_norm(x[:, :1]), x[:, 1:]], 1),
    "two paths by attention": lambda x: (
        x * x.mean((2, 3), keepdim=True).softmax(1) + F.avg_pool2d(x, 3, 1, 1)
    ),
}


def stages(gate, padding):
    """Build strided convolutions with a gate behind each."""

    def stage():
        return nn.Sequential(nn.Conv2d(2, 2, 3, 2, padding), Net(lambda net, x: gate(x)))

    return nn.Sequential(*(stage() for _ in range(4)))


@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("size", [47, 54, 64])
@pytest.mark.parametrize("name", GATES)
def test_a_gate_never_makes_the_field_smaller(name, size, padding):
    gated, plain = (
        [row.receptive_field for row in trace(stages(gate, padding), (2, size, size)).rows]
        for gate in (GATES[name], lambda x: x)
    )
    assert all(one >= two for one, two in zip(gated, plain, strict=True))
    assert gated == sorted(gated)


def test_a_gate_by_hand():
    """After the gate every place sees pixels -1 to 16; the windows are 3, then 5 wide."""
    net = nn.Sequential(
        nn.Conv2d(1, 1, 3, padding=1),
        Net(lambda net, x: squeeze_and_excitation(x)),
        nn.Conv2d(1, 1, 3, padding=1),  # place 0 sees -2 to 2 by its window
        nn.Conv2d(1, 1, 3),
    )
    fields = [row.receptive_field for row in trace(net, (1, 16, 16)).rows]
    assert fields == [3, 18, 19, 19]


def test_a_gate_and_uneven_windows():
    """The last place of a period sees most: 5 pixels beside the first one, which all places see."""
    gate = Net(lambda net, x: x + x[..., :1].mean((2, 3), keepdim=True))
    net = nn.Sequential(nn.AvgPool2d(4), nn.Upsample(scale_factor=2), nn.AvgPool2d((1, 2), 1), gate)
    fields = [row.receptive_field for row in trace(net, (1, 4, 16)).rows]
    assert fields == [4, 4, (4, 8), (4, 16)]


def test_a_gate_and_padding_on_one_side():
    net = nn.Sequential(
        Net(lambda net, x: squeeze_and_excitation(x)),
        nn.ZeroPad2d((0, 4, 0, 0)),
        nn.Conv2d(1, 1, (1, 3)),  # the last place sees pixels 17, 18 and 19 of the padding
    )
    fields = [row.receptive_field for row in trace(net, (1, 16, 16)).rows]
    assert fields == [16, (16, 20), (16, 20)]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("se_resnet50", "resnet50"),
        ("sk_resnet50", "resnet50"),
        ("resnet50_ibn", "resnet50"),
    ],
)
def test_gated_models_see_no_less_than_plain_ones(name, plain):
    with torch.device("meta"):
        nets = [getattr(models, name)(), getattr(models, plain)()]
    gated, local = ([r.receptive_field for r in trace(net, (1, 96, 96), 2).rows] for net in nets)
    assert gated == sorted(gated)
    assert all(one >= two for one, two in zip(gated, local, strict=True))


# What is not followed


UNKNOWN = {
    "roll": (lambda x: x.roll(1, 2), "aten.roll"),
    "map and its transpose": (lambda x: x + x.transpose(2, 3), "aten.add"),
    "column and row": (
        lambda x: x.mean(3, keepdim=True) + x.mean(3, keepdim=True).transpose(2, 3),
        "aten.add",
    ),
    "windows": (lambda x: x.view(1, 8, 2, 4, 8).relu(), "aten.view"),
    "columns one by one": (lambda x: x.unbind(3)[0], "aten.unbind"),
    "column": (lambda x: x[..., 3], "aten.select"),
    "pool over images side by side": (
        lambda x: F.avg_pool2d(torch.cat([x, x], 2), 2),
        "aten.cat",
    ),
    "image and its mirror": (lambda x: x + x.flip(3), "aten.flip"),
    "sum along rows": (lambda x: x.cumsum(3), "aten.cumsum"),
    "sum along channels": (lambda x: x.cumsum(1), "aten.cumsum"),
    "sorted channels": (lambda x: x.sort(1).values, "aten.sort"),
    "depth to space by hand": (lambda x: F.avg_pool2d(depth_to_space(x), 2), "aten.avg_pool2d"),
    "windows of rows": (lambda x: x.unfold(2, 4, 2).mean(-1), "aten.unfold"),
    "rows one by one": (lambda x: F.avg_pool2d(x.repeat_interleave(2, 2), 2), "aten.avg_pool2d"),
    "bicubic": (lambda x: F.interpolate(x, size=5, mode="bicubic"), "aten.upsample_bicubic2d"),
    "halves of an image the other way round": (
        lambda x: torch.cat([x[..., 4:], x[..., :4]], 3),
        "aten.cat",
    ),
    "flattened side by side": (
        lambda x: torch.cat([x.flatten(1), x.relu().flatten(1)], 1),
        "aten.cat",
    ),
    "picked by a mask": (
        lambda x: x[torch.ones(1, 8, 8, 8, dtype=torch.bool, device=x.device)],
        "aten.index",
    ),
    "picked columns": (lambda x: x[..., [3, 1]], "aten.index"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_the_table_says_which_operation_lost_the_field(name):
    operation, named = UNKNOWN[name]
    net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), Net(lambda net, x: operation(x)), nn.ReLU())
    table = trace(net, (8, 8, 8))
    assert [row.receptive_field for row in table.rows] == [3, None, None]
    assert table.notes == (f"Field - from 1 on: {named} is not followed.",)
    assert str(table).endswith(f"\n\n{table.notes[0]}")
    assert table._repr_html_().endswith(f"</details>\n<p>{table.notes[0]}</p>")


def test_features_of_a_map_of_one_place_are_no_places():
    net = nn.Sequential(
        nn.Conv2d(1, 8, 6), nn.Flatten(), Net(lambda net, x: x[:, 2:]), nn.Linear(6, 3)
    )
    assert [row.receptive_field for row in trace(net, (1, 6, 6)).rows] == [6, 6, 6, 6]


def test_a_map_of_one_place_goes_on_as_a_map():
    net = nn.Sequential(nn.Conv2d(1, 8, 6), nn.Conv2d(8, 8, 3, padding=1), nn.ZeroPad2d(1))
    fields = [row.receptive_field for row in trace(net, (1, 6, 6)).rows]
    assert fields == [6, 8, 8]


def test_each_loss_has_its_note_at_the_first_row():
    branch = Net(lambda net, x: x.roll(1, 2))
    net = Net(
        lambda net, x: net.last(net.roll(x) + net.same(net.cut(x))),
        roll=branch,
        cut=Net(lambda net, x: x.cumsum(2)),
        same=nn.ReLU(),
        last=nn.ReLU(),
    )
    notes = trace(net, (1, 8, 8)).notes
    assert notes == (
        "Field - from roll on: aten.roll is not followed.",
        "Field - from cut on: aten.cumsum is not followed.",
    )


def test_what_a_later_step_does_not_use_has_no_note():
    net = Net(lambda net, x: (x.roll(1, 2), net.a(x))[1], a=nn.ReLU())
    assert trace(net, (1, 8, 8)).notes == ()

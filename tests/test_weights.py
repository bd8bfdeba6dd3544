"""Weights of torchvision and timm into our networks: what is loaded, skipped and refused."""

import os
import pickle
import random
import re
from collections import OrderedDict, defaultdict
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from cnnlib import models, weights
from cnnlib.blocks.inception import Inception
from parity import COLOUR


@pytest.fixture(scope="module")
def published():
    """torchvision's ResNet-18 with random normalisation statistics, in eval mode."""
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return net


@pytest.fixture
def state(published):
    return dict(published.state_dict())


def ours(in_channels=3, num_classes=1000):
    return models.resnet18(in_channels, num_classes).eval()


def logits(net, images):
    with torch.inference_mode():
        return net(images)


def snapshot(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(before, after):
    return {name for name in before if torch.equal(before[name], after[name])}


def test_resnet18_gives_the_published_logits_to_the_bit(published, state):
    net = ours()
    assert weights.load(net, state) == []
    images = torch.randn(2, 3, 64, 79)
    assert torch.equal(logits(net, images), logits(published, images))


def test_the_source_is_left_alone_and_not_shared(published, state):
    net, before = ours(in_channels=1), snapshot(published)
    weights.load(net, state)
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    assert list(state) == list(before)
    assert same(before, state) == set(before)


def test_one_channel_sees_grey_as_three_channels_see_it_repeated(published, state):
    net = ours(in_channels=1)
    weights.load(net, state)
    grey = torch.randn(2, 1, 64, 64)
    expected = logits(published, grey.expand(-1, 3, -1, -1))
    assert (logits(net, grey) - expected).norm() / expected.norm() < 1e-5
    stem = state["conv1.weight"]
    assert torch.allclose(
        net.state_dict()["stem.0.0.weight"][:, 0], stem[:, 0] + stem[:, 1] + stem[:, 2]
    )


@pytest.mark.parametrize("channels", [2, 4])
def test_other_stems_are_refused(state, channels):
    message = rf"in 1 entries(?s:.)*stem\.0\.0\.weight \(64, {channels}, 7, 7\) +conv1\.weight \(64, 3, 7, 7\)"
    with pytest.raises(ValueError, match=message):
        weights.load(ours(in_channels=channels), state)


def test_skip_head_leaves_the_last_linear_layer(published, state):
    net = ours(num_classes=10)
    before = snapshot(net)
    assert weights.load(net, state, skip_head=True) == ["fc.weight", "fc.bias"]
    after = net.state_dict()
    counters = {name for name in before if name.endswith("num_batches_tracked")}
    assert same(before, after) - counters == {"head.2.weight", "head.2.bias"}
    features = nn.Sequential(*list(net.children())[:-1])
    expected = nn.Sequential(*list(published.children())[:-2])
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(logits(features, images), logits(expected, images))


def test_skip_head_skips_a_head_that_would_fit(state):
    net = ours()
    before = net.head[2].weight.clone()
    assert weights.load(net, state, skip_head=True) == ["fc.weight", "fc.bias"]
    assert torch.equal(net.head[2].weight, before)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32])
def test_counters_of_any_type_are_loaded(state, dtype):
    for name in state:
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7, dtype=dtype)
    net = ours()
    weights.load(net, state)
    counters = [v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")]
    assert len(counters) == 20
    assert all(counter.dtype == torch.int64 and counter == 7 for counter in counters)


def without_last(state):
    del state["fc.bias"]
    return state


def without_first(state):
    del state["conv1.weight"]
    return state


def with_one_more(state):
    return state | {"extra.weight": torch.zeros(3, 2)}


def with_one_gap_and_one_more(state):
    """A gap in the middle does not shift what follows it."""
    del state["layer1.1.conv1.weight"]
    return with_one_more(state)


def with_another_shape(state):
    return state | {"layer1.0.bn1.bias": torch.zeros(63)}


def with_a_sorted_gap(state):
    """The gap is one of many alike, and only its kind is known."""
    del state["layer1.1.conv1.weight"]
    return dict(sorted(state.items()))


FAULTS = [
    (
        without_last,
        r"ResNet in 1 entries, and nothing was loaded",
        r"head\.2\.bias \(1000,\) +missing",
    ),
    (without_first, r"in 1 entries", r"stem\.0\.0\.weight \(64, 3, 7, 7\) +missing\nTry"),
    (
        with_one_gap_and_one_more,
        r"in 2 entries",
        r"stages\.0\.1\.residual\.0\.0\.weight \(64, 64, 3, 3\) +missing\n +missing +extra",
    ),
    (with_one_more, r"in 1 entries", r"missing +extra\.weight \(3, 2\)"),
    (
        with_another_shape,
        r"in 1 entries",
        r"stages\.0\.0\.residual\.0\.1\.bias \(64,\) +layer1\.0\.bn1\.bias \(63,\)",
    ),
    (
        with_a_sorted_gap,
        r"in 1 entries",
        r"stages\.0\.\d\.residual\.\d\.0\.weight \(64, 64, 3, 3\) +missing\nTry",
    ),
    (
        lambda state: {},
        r"in 102 entries",  # and the 20 num_batches_tracked, which may be missing
        r"weight \(64, 3, 7, 7\) +missing(?s:.)*and 97 more\nTry",
    ),
]


@pytest.mark.parametrize(("fault", "count", "line"), FAULTS)
def test_what_does_not_fit_is_refused_in_one_error_and_nothing_is_loaded(state, fault, count, line):
    net = ours()
    before = snapshot(net)
    with pytest.raises(ValueError, match=f"{count}(?s:.)*{line}") as refusal:
        weights.load(net, fault(state))
    assert str(refusal.value).splitlines()[-1].startswith("Try the ")
    assert len(str(refusal.value).splitlines()) <= 8
    assert len(str(refusal.value)) < 1000
    assert same(before, net.state_dict()) == set(before)


@pytest.mark.parametrize(("count", "rest"), [(5, ""), (6, "\n  and 1 more")])
def test_five_misfits_are_shown_and_the_others_are_counted(count, rest):
    net, other = (
        nn.Sequential(*(nn.Linear(width, 2, bias=False) for _ in range(count))) for width in (2, 3)
    )
    with pytest.raises(ValueError, match=rf"4\.weight \(2, 2\) +4\.weight \(2, 3\){rest}\nTry"):
        weights.load(net, other.state_dict())


def test_another_number_of_classes_is_refused_without_skip_head(state):
    with pytest.raises(ValueError, match=r"in 2 entries(?s:.)*head\.2\.weight \(10, 512\)"):
        weights.load(ours(num_classes=10), state)


CLASSES = "the in_channels and num_classes of the published network, or skip_head=True"
ANOTHER = "the network that these weights belong to, such as models.resnet34 for a ResNet-34"


@pytest.mark.parametrize(
    ("net", "given", "remedy"),
    [
        ("resnet18", "resnet34", ANOTHER),
        ("resnet34", "resnet18", ANOTHER),
        ("resnet50", "wide_resnet50_2", ANOTHER),
        ("densenet121", "densenet169", ANOTHER),
        ("densenet169", "densenet121", ANOTHER),
        ("resnet18", "resnet18", CLASSES),
        ("densenet121", "densenet121", CLASSES),
    ],
)
def test_the_remedy_is_that_of_the_misfit(net, given, remedy):
    """The classes never fit here; where the layers fit neither, they come first."""
    with torch.device("meta"):
        net, given = getattr(models, net)(3), getattr(torchvision.models, given)()
    with pytest.raises(ValueError, match=rf"\nTry {remedy}\.$"):
        weights.load(net, given.state_dict())


@pytest.mark.parametrize("layout", ["keras", "", None])
def test_unknown_layouts_are_refused(state, layout):
    with pytest.raises(ValueError, match=rf"layout={layout!r} must be 'torchvision' or 'timm'"):
        weights.load(ours(), state, layout=layout)


class WithAuxiliary(nn.Module):
    """One linear layer and a head for training, registered in the order asked for."""

    def __init__(self, *names):
        super().__init__()
        for name in names:
            setattr(self, name, nn.Linear(2, 3))


@pytest.mark.parametrize(
    ("layout", "head"),
    [
        ("torchvision", "AuxLogits"),
        ("torchvision", "aux1"),
        ("torchvision", "aux2"),
        ("timm", "AuxLogits"),
    ],
)
def test_auxiliary_heads_are_skipped_or_loaded_wherever_they_stand(layout, head):
    theirs = WithAuxiliary("first", head, "last").state_dict()
    names = [f"{head}.weight", f"{head}.bias"]

    plain = WithAuxiliary("first", "last")
    assert weights.load(plain, theirs, layout) == names
    assert torch.equal(plain.last.bias, theirs["last.bias"])

    whole = WithAuxiliary("auxiliary_head", "first", "last")
    assert weights.load(whole, theirs, layout) == []
    assert torch.equal(whole.auxiliary_head.weight, theirs[f"{head}.weight"])
    assert torch.equal(whole.last.weight, theirs["last.weight"])

    kept = WithAuxiliary("auxiliary_head", "first", "last")
    before = snapshot(kept)
    assert weights.load(kept, theirs, layout, skip_head=True) == [
        "last.weight",
        "last.bias",
        *names,
    ]
    assert same(before, kept.state_dict()) == set(before) - {"first.weight", "first.bias"}


def test_timm_has_no_heads_called_aux1():
    theirs = WithAuxiliary("aux1", "last").state_dict()
    with pytest.raises(ValueError, match=r"in 2 entries(?s:.)*missing +last\.weight"):
        weights.load(WithAuxiliary("last"), theirs, layout="timm")


def test_an_auxiliary_head_that_is_not_given_is_refused():
    theirs = WithAuxiliary("last").state_dict()
    with pytest.raises(ValueError, match=r"auxiliary\.weight \(3, 2\) +missing"):
        weights.load(WithAuxiliary("auxiliary", "last"), theirs)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"), [([3.0, 4.0], [3.0, 4.0], 0), ([0.0, 0.0], [3.0, 4.0], 1)]
)
def test_relative_difference(ours, theirs, expected):
    difference = weights.relative_difference(torch.tensor(ours), torch.tensor(theirs))
    assert isinstance(difference, float) and difference == expected


def test_relative_difference_by_hand():
    ours, theirs = torch.tensor([[3.0, 4.5]]), torch.tensor([[3.0, 4.0]])
    assert weights.relative_difference(ours, theirs) == pytest.approx(0.5 / 5)


def test_relative_difference_of_other_shapes_is_refused():
    with pytest.raises(ValueError, match=r"have \(2,\) and \(2, 1\): try the same images"):
        weights.relative_difference(torch.ones(2), torch.ones(2, 1))


# Names and order


def on_meta(make, *args, **kwargs):
    with torch.device("meta"):
        return make(*args, **kwargs)


def pairing(net, state, **settings):
    """Return which of the given entries each of ours is loaded with; nothing is copied."""
    loaded = {}
    net.load_state_dict = loaded.update
    weights.load(net, state, **settings)
    given = {id(value): name for name, value in state.items()}
    return {name: given[id(value)] for name, value in loaded.items() if id(value) in given}


def arranged(state, names):
    return {name: state[name] for name in names}


def googlenet_with_torchvisions_3x3():
    net = models.googlenet(**COLOUR, batch_norm=True, auxiliary=True)
    for block in [m for m in net.modules() if isinstance(m, Inception)]:
        five = block.five[1][0]
        block.five[1][0] = nn.Conv2d(five.in_channels, five.out_channels, 3, bias=False)
    return net


# Ours, whose code, theirs, and what cannot be told apart once the order is lost.
SAME_NAME = "vgg11 vgg16 resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d densenet121 densenet161 densenet169 densenet201"
TIMM = {
    "se_resnet50": "seresnet50",
    "sk_resnet50": "skresnet50",
    "res2net50_26w_4s": "res2net50_26w_4s",
    "resnest50": "resnest50d",
    "inception_v4": "inception_v4",
    "inception_resnet_v2": "inception_resnet_v2",
}
PUBLISHED = {
    name: (partial(getattr(models, name), **COLOUR), getattr(torchvision.models, name))
    for name in SAME_NAME.split()
}
PUBLISHED |= {
    "googlenet": (
        googlenet_with_torchvisions_3x3,
        partial(torchvision.models.googlenet, init_weights=False),
    ),
    "inception_v3": (
        partial(models.inception_v3, **COLOUR, auxiliary=True),
        partial(torchvision.models.inception_v3, init_weights=False),
    ),
}
PUBLISHED |= {
    name: (partial(getattr(models, name), **COLOUR), partial(timm.create_model, published))
    for name, published in TIMM.items()
}
NUMBERS_MISLEAD = {"inception_v3", "inception_resnet_v2"}  # as branch5x5 before branch3x3dbl does


@pytest.fixture(scope="module", params=PUBLISHED)
def couple(request):
    """How to load one of our networks, its published state, and whether its numbers mislead."""
    make_ours, make_theirs = PUBLISHED[request.param]
    load = partial(pairing, layout="timm" if request.param in TIMM else "torchvision")
    state = on_meta(make_theirs).state_dict()
    return partial(load, on_meta(make_ours)), state, request.param in NUMBERS_MISLEAD


@pytest.mark.parametrize("skip_head", [False, True])
@pytest.mark.parametrize("seed", [None, 0])
def test_a_lost_order_is_found_again_or_refused(couple, seed, skip_head):
    load, state, numbers_mislead = couple
    names = sorted(state)
    if seed is not None:
        random.Random(seed).shuffle(names)
    expected = load(state, skip_head=skip_head)
    assert len(expected) == len(state) if not skip_head else len(expected) < len(state)
    if numbers_mislead:
        with pytest.raises(ValueError, match=r"order is lost.*published\.load_state_dict"):
            load(arranged(state, names), skip_head=skip_head)
    else:
        assert load(arranged(state, names), skip_head=skip_head) == expected


def test_entries_that_changed_places_are_refused_or_put_right(couple):
    load, state, numbers_mislead = couple
    expected, outcomes = load(state), set()
    alike = defaultdict(list)
    for name, value in state.items():
        alike[name.rpartition(".")[2], value.shape].append(name)
    rng = random.Random(0)
    for _ in range(5):
        one, other = rng.sample(rng.choice([names for names in alike.values() if names[1:]]), 2)
        changed = {one: other, other: one}
        names = [changed.get(name, name) for name in state]
        try:
            assert load(arranged(state, names)) == expected
            outcomes.add("put right")
        except ValueError as refusal:
            assert re.search("must tell .* from .*, and both fit|order is lost", str(refusal))
            outcomes.add("refused")
    assert outcomes == {"refused"} or not numbers_mislead


def test_layers_that_changed_places_are_refused(state):
    for one, other in [("layer1.0", "layer1.1"), ("layer1.0.conv1", "layer1.0.conv2")]:
        blocks = {one: [], other: []}
        for name in state:
            for block in blocks:
                if name.startswith(f"{block}."):
                    blocks[block].append(name)
        changed = dict(zip(blocks[one] + blocks[other], blocks[other] + blocks[one], strict=True))
        names = [changed.get(name, name) for name in state]
        with pytest.raises(ValueError, match=rf"must tell {one}\..* from {other}\."):
            weights.load(ours(), arranged(state, names))


def layers(**sizes):
    """Return linear layers without a bias, from their names and (inputs, outputs)."""
    named = [(name, nn.Linear(*size, bias=False)) for name, size in sizes.items()]
    return nn.Sequential(OrderedDict(named))


def test_numbers_that_fall_are_taken_if_the_shapes_leave_no_doubt():
    theirs = layers(up2=(2, 3), up1=(3, 4)).state_dict()
    net = layers(a=(2, 3), b=(3, 4))
    assert pairing(net, theirs) == {"a.weight": "up2.weight", "b.weight": "up1.weight"}


def test_numbers_that_fall_are_refused_if_the_shapes_are_equal_and_the_remedy_works():
    state_dict = layers(up2=(3, 3), up1=(3, 3)).state_dict()
    net = layers(a=(3, 3), b=(3, 3))
    with pytest.raises(ValueError, match=r"must tell up\d\.weight from up\d\.weight") as refusal:
        weights.load(net, state_dict)
    remedy = str(refusal.value).partition(" try ")[2]
    eval(remedy, {"weights": weights, "net": net, "state_dict": state_dict})
    assert torch.equal(net.a.weight, state_dict["up2.weight"])


def test_words_without_numbers_are_taken_in_their_order_unless_it_was_sorted():
    square = (3, 3)
    net = layers(a=square, b=square, c=square)
    state = layers(query=square, key=square, value=square).state_dict()
    assert list(pairing(net, state).values()) == list(state)
    with pytest.raises(
        ValueError, match=r"the order is lost.*published\.load_state_dict\(state_dict\)"
    ):
        weights.load(net, dict(sorted(state.items())))


def test_entries_that_stand_in_other_layers_are_taken_in_their_order():
    """One layer there, two here: only the order pairs them."""
    whole = nn.Sequential(OrderedDict(first=nn.Linear(3, 3), last=nn.Linear(3, 3)))
    state = {"w.weight": torch.ones(3, 3), "v.bias": torch.ones(3)}
    state |= {"b.weight": torch.zeros(3, 3), "a.bias": torch.zeros(3)}
    assert list(pairing(whole, state).values()) == list(state)
    with pytest.raises(ValueError, match="the order is lost"):
        weights.load(whole, dict(sorted(state.items())))


def test_the_given_order_is_found_among_many():
    net = layers(a=(3, 3), b=(3, 3), c=(3, 3), d=(3, 3))
    state = layers(z1=(3, 3), y1=(3, 3), x1=(3, 3), w1=(3, 3)).state_dict()
    assert list(pairing(net, state).values()) == list(state)


def test_the_tenth_layer_comes_after_the_second():
    net = layers(**{f"{letter}": (3, 3) for letter in "abcdefghijkl"})
    state = layers(**{f"layer{i}": (3, 3) for i in range(12)}).state_dict()
    assert list(pairing(net, dict(sorted(state.items()))).values()) == list(state)


@pytest.mark.parametrize("name", models.MODELS)
def test_our_own_names_are_paired_by_name_in_any_order(name):
    net = on_meta(getattr(models, name))
    state = net.state_dict()
    names = sorted(state)
    random.Random(0).shuffle(names)
    same_names = {name: name for name in state}
    assert pairing(net, arranged(state, names)) == same_names
    assert pairing(net, arranged(state, sorted(names)), skip_head=True) == {
        name: name for name in list(state)[:-2]
    }


def test_our_own_names_of_other_shapes_are_refused_by_name(published):
    state = dict(sorted(models.resnet18(1, 7).state_dict().items()))
    with pytest.raises(ValueError, match=r"in 2 entries(?s:.)*head\.2\.weight \(7, 512\)\n"):
        weights.load(models.resnet18(), state)
    del state["stages.0.0.residual.0.0.weight"]  # four entries are of its kind
    with pytest.raises(
        ValueError, match=r"in 1 ent(?s:.)*stages\.0\.0\.residual\.0\.0\.\w+ .*missing"
    ):
        weights.load(models.resnet18(num_classes=7), state)


def test_our_own_auxiliary_heads_are_skipped():
    state = on_meta(models.inception_v3, auxiliary=True).state_dict()
    skipped = weights.load(on_meta(models.inception_v3), dict(sorted(state.items())))
    assert skipped == sorted(name for name in state if name.startswith("auxiliary"))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module.backbone.", "model."])
@pytest.mark.parametrize("sort", [False, True])
def test_prefixes_do_not_count(published, state, prefix, sort):
    given = {prefix + name: value for name, value in state.items()}
    net = ours(num_classes=10)
    skipped = weights.load(net, dict(sorted(given.items())) if sort else given, skip_head=True)
    assert skipped == [f"{prefix}fc.weight", f"{prefix}fc.bias"]
    assert torch.equal(net.stages[3][1].residual[1][0].weight, state["layer4.1.conv2.weight"])

    own = {prefix + name: value for name, value in reversed(net.state_dict().items())}
    wrapped = nn.DataParallel(ours(num_classes=10))
    assert weights.load(wrapped, own) == []
    assert same(net.state_dict(), wrapped.module.state_dict()) == set(net.state_dict())


def test_prefixes_before_auxiliary_heads_do_not_count():
    theirs = nn.Sequential(OrderedDict(module=WithAuxiliary("first", "AuxLogits", "last")))
    state = theirs.state_dict()
    names = ["module.AuxLogits.weight", "module.AuxLogits.bias"]
    assert weights.load(WithAuxiliary("first", "last"), state) == names
    assert weights.load(WithAuxiliary("first", "auxiliary", "last"), state) == []


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_files_from_before_num_batches_tracked_are_loaded(name, sort):
    make_ours, make_theirs = PUBLISHED[name]
    state = on_meta(make_theirs).state_dict()
    old = {key: state[key] for key in state if not key.endswith("num_batches_tracked")}
    names = sorted(old) if sort else list(old)
    assert list(pairing(on_meta(make_ours), arranged(old, names)).values()) == list(old)
    del state[
        "features.norm5.num_batches_tracked" if "dense" in name else "bn1.num_batches_tracked"
    ]
    with pytest.raises(ValueError, match=r"in 1 entries(?s:.)*num_batches_tracked \(\) +missing"):
        weights.load(on_meta(make_ours), state)


def test_a_sorted_colour_stem_is_summed_for_grey_and_its_last_layer_skipped(state):
    net = ours(in_channels=1, num_classes=10)
    skipped = weights.load(net, dict(sorted(state.items())), skip_head=True)
    assert skipped == ["fc.weight", "fc.bias"]
    expected = state["conv1.weight"].sum(dim=1, keepdim=True)
    assert torch.equal(net.stem[0][0].weight, expected)


def test_half_precision_is_summed_in_the_precision_of_the_network(state):
    half = {name: value.half() for name, value in state.items()}
    net = ours(in_channels=1)
    weights.load(net, half)
    assert net.stem[0][0].weight.dtype == torch.float32
    expected = half["conv1.weight"].float().sum(dim=1, keepdim=True)
    assert torch.equal(net.stem[0][0].weight, expected)
    assert torch.equal(net.head[2].weight, half["fc.weight"].float())


# What is no state dict


def test_a_path_or_a_network_is_answered_with_the_line_to_type(state):
    net = ours()
    for given in ("net.pt", Path("net.pt"), net, [1], None):
        with pytest.raises(ValueError, match=r"state_dict must map names to tensors") as refusal:
            weights.load(net, given)
        assert f"its type is {type(given).__name__}:" in str(refusal.value)
        assert "weights.load(net, weights.read(path))" in str(refusal.value)
        assert "weights.load(net, other.state_dict())" in str(refusal.value)
    with pytest.raises(ValueError, match=r"^net must be a network, .* is dict: try weights\.load"):
        weights.load(state, net)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_the_state_dict_in_a_checkpoint_is_taken(tmp_path, state, key):
    checkpoint = {"epoch": 3, key: state, "optimizer": {"lr": 0.1}}
    net = ours()
    assert weights.load(net, checkpoint) == []
    assert torch.equal(net.head[2].weight, state["fc.weight"])
    torch.save(checkpoint, tmp_path / "net.pt")
    assert list(weights.read(tmp_path / "net.pt")) == list(state)


def test_what_is_no_tensor_is_named_first(tmp_path, state):
    with pytest.raises(
        ValueError, match=r"'epoch' has the type int: try weights\.load\(net, other"
    ) as one:
        weights.load(ours(), state | {"epoch": 3})
    with pytest.raises(
        ValueError, match=r"'epoch' .*try weights\.load\(net, state_dict\['net'\]\)$"
    ):
        weights.load(ours(), {"epoch": 3, "net": state})
    with pytest.raises(
        ValueError, match=r"'model' .*try weights\.load\(net, state_dict\['model'\]\)$"
    ):
        weights.load(ours(), {"model": state, "state_dict": state})
    torch.save(state | {"epoch": 3}, tmp_path / "net.pt")
    with pytest.raises(
        ValueError, match=r"net\.pt must hold .*it holds \['epoch'\]: save"
    ) as other:
        weights.read(tmp_path / "net.pt")
    assert max(len(str(one.value)), len(str(other.value))) < 1000


# Files


@pytest.fixture
def file(tmp_path):
    """A file of weights: small, and in it one tensor that is easy to find."""
    path = tmp_path / "net.pt"
    torch.save({"weight": torch.full((1000,), 7.0), "steps": torch.tensor(3)}, path)
    return path


def assert_refused(path, message):
    with pytest.raises(ValueError, match=message) as refusal:
        weights.read(path)
    text = str(refusal.value)
    assert str(path) in text
    assert len(text) < 400
    assert "weights_only" not in text


@pytest.mark.parametrize("zipped", [True, False])
def test_what_was_saved_is_read(tmp_path, zipped):
    saved = ours().state_dict()
    torch.save(saved, tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
    found = weights.read(tmp_path / "net.pt")
    assert list(found) == list(saved)
    assert same(saved, found) == set(saved)


def test_a_safetensors_file_is_read_in_the_order_of_its_names(tmp_path):
    path, net = tmp_path / "net.safetensors", ours()
    saved = net.state_dict()
    safetensors.torch.save_file(saved, path, metadata={"format": "pt"})
    found = weights.read(path)
    assert list(found) == sorted(saved)
    path.write_bytes(b"")  # what was read does not lie in the file any more
    assert same(saved, found) == set(saved)
    other = ours()
    assert weights.load(other, found) == []
    assert same(saved, other.state_dict()) == set(saved)


def test_a_safetensors_file_of_torchvision_gives_its_logits(tmp_path, published, state):
    path = tmp_path / "net"  # the content tells, not the name
    safetensors.torch.save_file(state, path)
    images = torch.randn(2, 3, 64, 79)
    for given in (weights.read(path), safetensors.torch.load_file(path)):
        net = ours()
        assert weights.load(net, given) == []
        assert torch.equal(logits(net, images), logits(published, images))


@pytest.mark.parametrize("keep", [0, 8, 9, 100, 3000, -1])
def test_a_safetensors_file_that_is_cut_off_is_refused(tmp_path, keep):
    path = tmp_path / "net.safetensors"
    path.write_bytes(safetensors.torch.save({"weight": torch.ones(1000)})[:keep])
    assert_refused(path, "truncated")


def test_tensors_that_share_memory_are_read(tmp_path):
    weight = torch.rand(3, 3)
    torch.save({"a.weight": weight, "b.weight": weight}, tmp_path / "net.pt")
    net = layers(a=(3, 3), b=(3, 3))
    weights.load(net, weights.read(tmp_path / "net.pt"))
    assert torch.equal(net.a.weight, weight)
    assert torch.equal(net.b.weight, weight)


@pytest.mark.parametrize("keep", [0, 1, 10, 1000, 0.5, -1])
def test_a_file_that_is_cut_off_is_refused(file, keep):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(keep * len(whole)) if keep == 0.5 else keep])
    assert_refused(file, "truncated")


@pytest.mark.parametrize("content", [b"<html>404</html>", b"hello", pickle.dumps({"a": 1}, 2)])
def test_what_is_no_file_of_weights_is_refused(file, content):
    file.write_bytes(content)
    assert_refused(file, "truncated|must hold a state dict")


def test_a_file_in_the_old_format_that_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "net.pt"
    torch.save({"weight": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-100])
    assert_refused(path, "truncated")


def test_a_number_that_changed_on_the_way_is_found(file):
    content = bytearray(file.read_bytes())
    place = content.index(torch.tensor([7.0]).numpy().tobytes() * 2)
    content[place] ^= 1
    file.write_bytes(content)
    assert torch.load(file, weights_only=True)["weight"].ne(7).any(), "torch does not look"
    assert_refused(file, r"is damaged in net/data/\d")


class Trap:
    """What a stranger could put into a file: unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(tmp_path, zipped):
    folder, path = tmp_path / "sprung", tmp_path / "net.pt"
    state = {"weight": torch.ones(2), "trap": Trap(folder)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert_refused(path, r"would run .*mkdir" if zipped else "would run code")
    assert not folder.exists()
    torch.load(path, weights_only=False)
    assert folder.exists(), "the trap works"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "it holds list"),
        (torch.ones(2), "it holds Tensor"),
        ({"epoch": 3, "net": {"weight": torch.ones(2)}}, r"it holds \['epoch', 'net'\]"),
        (nn.Linear(2, 3), r"would run torch\.nn\.modules\.linear\.Linear"),
    ],
)
def test_what_is_no_state_dict_is_refused(file, content, message):
    torch.save(content, file)
    assert_refused(file, message)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        weights.read(tmp_path / "none.pt")

"""Weights of torchvision into our networks: what is loaded, skipped and refused."""

import os
import pickle

import pytest
import torch
import torchvision
from torch import nn

from cnnlib import models, weights


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


def with_scale_and_shift_swapped(state):
    """Same shapes in another order: only the last words tell."""
    names = list(state)
    i, j = names.index("bn1.weight"), names.index("bn1.bias")
    names[i], names[j] = names[j], names[i]
    return {name: state[name] for name in names}


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
        with_scale_and_shift_swapped,
        r"in 2 entries",
        r"missing +bn1\.bias \(64,\)\n +stem\.0\.1\.bias \(64,\) +missing",
    ),
    (
        lambda state: {},
        r"in 122 entries",
        r"weight \(64, 3, 7, 7\) +missing(?s:.)*and 117 more\nTry",
    ),
]


@pytest.mark.parametrize(("fault", "count", "line"), FAULTS)
def test_what_does_not_fit_is_refused_in_one_error_and_nothing_is_loaded(state, fault, count, line):
    net = ours()
    before = snapshot(net)
    with pytest.raises(ValueError, match=f"{count}(?s:.)*{line}(?s:.)*skip_head=True") as refusal:
        weights.load(net, fault(state))
    assert len(str(refusal.value).splitlines()) <= 8
    assert same(before, net.state_dict()) == set(before)


def test_another_number_of_classes_is_refused_without_skip_head(state):
    with pytest.raises(ValueError, match=r"in 2 entries(?s:.)*head\.2\.weight \(10, 512\)"):
        weights.load(ours(num_classes=10), state)


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


@pytest.mark.parametrize("keep", [0, 1, 10, 1000, 0.5, -1])
def test_a_file_that_is_cut_off_is_refused(file, keep):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(keep * len(whole)) if keep == 0.5 else keep])
    assert_refused(file, "cut off")


@pytest.mark.parametrize("content", [b"<html>404</html>", b"hello", pickle.dumps({"a": 1}, 2)])
def test_what_is_no_file_of_weights_is_refused(file, content):
    file.write_bytes(content)
    assert_refused(file, "cut off|must hold a state dict")


def test_a_file_in_the_old_format_that_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "net.pt"
    torch.save({"weight": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-100])
    assert_refused(path, "cut off")


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

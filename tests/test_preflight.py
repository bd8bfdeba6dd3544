"""What fit looks at before the first step: it trains, or says in one sentence what to change."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from test_train import ToyBatches, ToyData, Viewing, make_net
from torch import nn

from cnnlib.backend import choose_backend
from cnnlib.preflight import choose_memory_format
from cnnlib.train import evaluate, fit


def convnet(channels=4, in_channels=1, classes=4):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(channels * 16, classes),
    )


# .view in a forward pass


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_a_network_that_views_its_maps_trains(precision):
    net = Viewing()
    history = fit(net, ToyData(), 5, 0.05, precision=precision)
    assert history.last.test_accuracy > 0.9
    assert evaluate(net, ToyData().test, precision=precision).accuracy > 0.9


def test_the_memory_format_follows_the_network():
    backend = choose_backend("cpu", "bf16")
    assert backend.memory_format is torch.channels_last
    found, scores = choose_memory_format(Viewing(), (1, 4, 4), backend)
    assert found.memory_format is torch.contiguous_format
    assert found.precision == "bf16"
    assert scores.shape == (2, 4)
    assert choose_memory_format(convnet(), (1, 4, 4), backend)[0] == backend


# Lazy networks


def lazy():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)
    )


def test_a_lazy_network_trains_as_the_one_it_becomes():
    net = lazy()
    history = fit(net, ToyData(), 3, 0.05, precision="fp32")
    torch.manual_seed(0)
    other = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)
    )
    twin = lazy()
    evaluate(twin, ToyData().test, precision="fp32")  # gives it its weights, too
    assert not twin[1].running_mean.any()  # nothing was trained
    twin.train()
    other.load_state_dict(twin.state_dict())
    assert history.losses == fit(other, ToyData(), 3, 0.05, precision="fp32").losses
    assert history.losses == fit(twin, ToyData(), 3, 0.05, precision="fp32").losses


def test_a_lazy_network_that_fails_names_the_layer():
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.Linear(7, 4))
    with pytest.raises(ValueError, match=r"2 \(Linear\) got .* in_features=7"):
        fit(net, ToyData(), 1, 0.05)


# Refusals


def test_wrong_channels_name_the_layer_and_what_to_set():
    with pytest.raises(ValueError, match=r"0 \(Conv2d\) got .*in_channels=3: set in_channels=1"):
        fit(convnet(in_channels=3), ToyData(), 1, 0.05)


def test_a_network_is_refused_before_it_changes():
    net = convnet(classes=3)
    before = copy.deepcopy(net.state_dict())
    random = torch.get_rng_state()
    with pytest.raises(
        ValueError,
        match=r"net=Sequential gives 3 scores, but the labels go up to 3: build it with 4 cl",
    ):
        fit(net, ToyData(), 1, 0.05)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_more_classes_than_labels_are_no_mistake():
    fit(convnet(classes=7), ToyData(), 1, 0.05)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            nn.Conv2d(1, 4, 3),
            "gives scores of shape Nx4x2x2, but these labels need Nxclasses: ",
        ),
        (nn.Sequential(nn.Linear(4, 4), nn.Flatten(0)), "gives scores of shape N, but these"),
        (nn.Flatten(), "net=Flatten has no weights to train"),
        (make_net().requires_grad_(False), "net=Sequential has no weights to train"),
        (make_net().double(), r"some are torch\.float64: try net\.float\(\)"),
    ],
)
def test_other_networks_that_cannot_train_are_refused(net, message):
    with pytest.raises(ValueError, match=message):
        fit(net, ToyData(), 1, 0.05)


@pytest.mark.parametrize("name", ["no/x.pt", ".", "", 3])
def test_a_checkpoint_has_to_be_a_file_in_a_folder(tmp_path, name):
    path = tmp_path / name if name in ("no/x.pt", ".") else name
    with pytest.raises(ValueError, match=r"checkpoint='.*' must be a file in a folder that exists"):
        fit(make_net(), ToyData(), 1, 0.05, checkpoint=path)


class Returns(nn.Module):
    """Returns what a function makes of its scores."""

    def __init__(self, change):
        super().__init__()
        self.fc, self.change = nn.Linear(16, 4), change

    def forward(self, x):
        return self.change(self.fc(x.flatten(1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: {"out": y}, "net=Returns returns a dict, but must return scores, or a tuple"),
        (lambda y: [y], "net=Returns returns a list"),
        (lambda y: (y, y), "returns a tuple, which the cross-entropy does not take: try loss=lam"),
    ],
)
def test_outputs_that_are_no_scores_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fit(Returns(change), ToyData(), 1, 0.05)


def test_a_network_that_cannot_be_copied_trains():
    net = Viewing()
    net.lock = threading.Lock()
    fit(net, ToyData(), 1, 0.05, precision="bf16")


def one_value_per_channel():
    return nn.Sequential(nn.Conv2d(1, 4, 4), nn.BatchNorm2d(4), nn.Flatten())


@pytest.mark.parametrize(
    ("count", "batch_size", "remedy"),
    [
        (65, 16, r"try batch_size=15 or train=64$"),
        (71, 14, r"try batch_size=13 or train=70$"),  # 71 = 5 x 14 + 1 = 5 x 13 + 6
        (7, 3, r"try batch_size=4 or train=6$"),  # 7 = 3 x 2 + 1, so two a batch leave one, too
        (8, 1, r"try batch_size=2$"),
    ],
)
def test_a_last_batch_of_one_is_refused_before_the_first_step(count, batch_size, remedy):
    with pytest.raises(ValueError, match=f"train={count} images .* more than one value.*{remedy}"):
        fit(one_value_per_channel(), ToyData(count, batch_size), 1, 0.05)


@pytest.mark.parametrize("count", [64, 66])
def test_other_last_batches_train(count):
    fit(one_value_per_channel(), ToyData(count, 16), 1, 0.05)


def test_one_image_is_enough_where_a_channel_has_many_values():
    fit(convnet(), ToyData(65, 16), 1, 0.05)


# What cannot be looked at trains as before


class AsksForNumbers(Viewing):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else None


def test_a_network_that_asks_for_numbers_trains():
    fit(AsksForNumbers(), ToyData(), 1, 0.05, precision="bf16")


def test_a_look_at_a_network_that_asks_for_numbers_changes_nothing():
    class Net(Viewing):
        def __init__(self):
            super().__init__()
            self.norm, self.drop = nn.BatchNorm2d(1), nn.Dropout()

        def forward(self, x):
            return super().forward(self.drop(self.norm(x)) * (x.sum().item() > 0))

    net = Net()
    before, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    _, scores = choose_memory_format(net, (1, 4, 4), choose_backend("cpu", "fp32"))
    assert scores.shape == (2, 4)
    assert scores.device.type == "cpu"
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_hooks_see_the_training_and_nothing_else():
    net, calls = Viewing(), []
    net.conv.register_forward_hook(lambda module, args, output: calls.append(len(output)))
    fit(net, ToyData(count=32), 1, 0.05, precision="bf16")
    assert calls == [16, 16, 16, 14]  # two training batches, then 30 test images


@pytest.mark.parametrize("wrap", [False, True])
def test_a_compiled_network_is_looked_at_without_compiling_it(wrap):
    net = Viewing()
    if wrap:
        net = torch.compile(net, backend="eager")
    else:
        net.compile(backend="eager")
    counter = torch._dynamo.utils.counters
    counter.clear()
    backend, scores = choose_memory_format(net, (1, 4, 4), choose_backend("cpu", "bf16"))
    assert backend.memory_format is torch.contiguous_format
    assert scores.shape == (2, 4)
    assert not counter["stats"]


LAYERS = [
    nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8), nn.LocalResponseNorm(3),
    nn.ReLU(), nn.LeakyReLU(), nn.PReLU(), nn.GELU(), nn.Softmax(1), nn.Dropout2d(),
    nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d(2),
    nn.LPPool2d(2, 2), nn.Upsample(scale_factor=2), nn.UpsamplingBilinear2d(scale_factor=2),
    nn.ZeroPad2d(1), nn.ReflectionPad2d(1), nn.ConvTranspose2d(8, 8, 2), nn.PixelShuffle(2),
    nn.PixelUnshuffle(2), nn.ChannelShuffle(2), nn.Conv2d(8, 8, 3, groups=8),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_any_layer_may_come_before_the_view(layer):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.layer, self.fc = nn.Conv2d(1, 8, 3, padding=1), layer, nn.LazyLinear(4)

        def forward(self, x):
            x = self.layer(self.conv(x))
            return self.fc(x.view(x.size(0), -1))

    fit(Net(), ToyData(), 1, 0.05, precision="bf16")
    torch.manual_seed(0)


def test_concatenated_maps_may_be_viewed():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(1, 4, 1), nn.Conv2d(1, 4, 1), nn.Linear(128, 4)

        def forward(self, x):
            x = torch.cat([self.a(x), self.b(x)], 1)
            return self.fc(x.view(x.size(0), -1))

    fit(Net(), ToyData(), 1, 0.05, precision="bf16")


def test_state_of_the_network_is_that_of_the_training():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.calls = nn.Linear(16, 4), 0

        def forward(self, x):
            self.calls += 1
            return self.fc(x.flatten(1))

    net = Counting()
    fit(net, ToyData(count=32), 1, 0.05)
    assert net.calls == 4


def test_a_class_for_every_pixel():
    data = ToyData()
    for batches in (data.train, data.test):
        batches.labels = torch.randint(3, (len(batches.labels), 4, 4))
    fit(nn.Conv2d(1, 3, 1), data, 1, 0.05)
    with pytest.raises(ValueError, match=r"gives 2 scores, .* go up to 2: build it with 3 clas"):
        fit(nn.Conv2d(1, 2, 1), data, 1, 0.05)


def test_a_tuple_of_outputs_has_its_scores_first():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(16, 4)

        def forward(self, x):
            scores = self.fc(x.flatten(1))
            return (scores, 2 * scores) if self.training else scores

    def loss(outputs, labels):
        scores = outputs[0] if isinstance(outputs, tuple) else outputs
        return F.cross_entropy(scores, labels)

    fit(Pair(), ToyData(), 1, 0.05, loss=loss)


def test_evaluate_takes_batches():
    with pytest.raises(ValueError, match=r"batches=ToyData must be the batches .*such as data\.te"):
        evaluate(make_net(), ToyData())
    with pytest.raises(ValueError, match=r"batches=list must be the batches of a Data: try"):
        evaluate(make_net(), [])
    with pytest.raises(ValueError, match=r"loss='x' must be a function"):
        evaluate(make_net(), ToyData().test, "x")
    with pytest.raises(ValueError, match=r"it returns a tensor of shape \(\d+,\): try loss="):
        evaluate(make_net(), ToyData().test, nn.CrossEntropyLoss(reduction="none"))


def test_evaluate_looks_at_the_scores_too():
    with pytest.raises(ValueError, match=r"gives 3 scores, but the labels go up to 3"):
        evaluate(convnet(classes=3), ToyBatches(8, 4, shuffle=False))


def test_evaluate_names_the_layer_too():
    with pytest.raises(ValueError, match=r"0 \(Conv2d\) got"):
        evaluate(convnet(in_channels=2), ToyBatches(8, 4, shuffle=False))

"""The training loop against one written out, and everything that can stop it."""

import copy
import json
import math
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnlib import backend, models, progress, train
from cnnlib._cuda_graph import GraphedStep
from cnnlib.backend import GPU_STEPS_BETWEEN_READS, choose_backend
from cnnlib.blocks.residual import BasicBlock
from cnnlib.progress import HEADER, ProgressDisplay
from cnnlib.train import (
    DivergenceError,
    Epoch,
    EpochMetrics,
    History,
    Metrics,
    budget,
    evaluate,
    fit,
    gradient_norms,
)


class ToyBatches:
    """What fit asks of batches: images of class k are bright in row k."""

    shape = (1, 4, 4)

    def __init__(self, count, batch_size, shuffle, device="cpu"):
        generator = torch.Generator().manual_seed(count)
        self.labels = torch.arange(count) % 4
        self.images = torch.rand(count, 1, 4, 4, generator=generator)
        self.images[torch.arange(count), 0, self.labels] += 1
        self.images, self.labels = self.images.to(device), self.labels.to(device)
        self.batch_size, self.shuffle = batch_size, shuffle
        self.device = self.images.device

    def shard(self, index, num_shards):
        return self

    def rebatch(self, batch_size):
        batches = copy.copy(self)
        batches.batch_size = batch_size
        return batches

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self):
        return self.epoch(1)

    def epoch(self, number, seed=0):
        order = torch.arange(len(self.labels))
        if self.shuffle:
            order = torch.randperm(
                len(order), generator=torch.Generator().manual_seed(97 * seed + number)
            )
        for chosen in order.split(self.batch_size):
            yield self.images[chosen], self.labels[chosen]


class ToyData:
    """What fit asks of data."""

    def __init__(self, count=70, batch_size=16, banner="", device="cpu"):
        self.train = ToyBatches(count, batch_size, shuffle=True, device=device)
        self.test = ToyBatches(30, batch_size, shuffle=False, device=device)
        self.device, self.shape = self.train.device, (1, 4, 4)
        self.source, self.banner = "toy", banner


def make_net(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(16, 4))


def by_hand(net, data, epochs, lr, seed, schedule=None):
    """The loop of the textbooks."""
    optimizer = torch.optim.SGD(net.parameters(), lr, momentum=0.9)
    schedule = (schedule or train.constant)(optimizer, epochs * len(data.train))
    torch.manual_seed(seed)
    losses = []
    for epoch in range(1, epochs + 1):
        net.train()
        for images, labels in data.train.epoch(epoch, seed):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return losses


def test_fit_equals_the_loop_written_out():
    data, ours, theirs = ToyData(), make_net(), make_net()
    history = fit(ours, data, 3, 0.1, seed=5, precision="fp32")
    losses = by_hand(theirs, data, 3, 0.1, seed=5)
    assert history.losses == pytest.approx(losses, rel=1e-6)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)  # the fused optimiser rounds less


def test_the_last_short_batch_is_trained_on_and_weighs_what_it_holds():
    data = ToyData(count=70, batch_size=16)
    history = fit(make_net(), data, 1, 0.1, precision="fp32")
    assert len(history.losses) == 5
    sizes = [16, 16, 16, 16, 6]
    mean = sum(loss * size for loss, size in zip(history.losses, sizes, strict=True)) / 70
    assert history.last.train_loss == pytest.approx(mean)


def test_train_accuracy_counts_every_label():
    data, net = ToyData(), make_net()
    history = fit(net, data, 1, 1e-30, precision="fp32")
    found = (net(data.train.images).argmax(1) == data.train.labels).float().mean().item()
    assert history.last.train_accuracy == pytest.approx(found)


def test_it_learns_and_rows_are_complete():
    history = fit(make_net(), ToyData(), 8, 0.1)
    assert history.last.test_accuracy > 0.9
    assert history.rows[-1].train_loss < history.rows[0].train_loss
    assert [row.epoch for row in history.rows] == list(range(1, 9))
    assert all(row.images_per_second == pytest.approx(70 / row.seconds) for row in history.rows)
    assert not history.interrupted


def test_same_seed_same_run_other_seed_other_run():
    nets = [make_net(dropout=0.3) for _ in range(3)]  # alike, and the random state goes on
    runs = [fit(net, ToyData(), 2, 0.1, seed=s) for net, s in zip(nets, (1, 1, 2), strict=True)]
    assert runs[0].losses == runs[1].losses
    assert runs[0].losses != runs[2].losses


def test_the_curve_is_shown_unless_it_is_refused(monkeypatch):
    shown = []

    def show_progress(history, plot, **_):
        shown.append(plot)
        return ProgressDisplay(history)

    monkeypatch.setattr(progress, "show_progress", show_progress)
    fit(make_net(), ToyData(), 1, 0.1)
    fit(make_net(), ToyData(), 1, 0.1, plot=False)
    assert shown == [True, False]


def test_a_second_fit_on_the_same_data_repeats_the_first():
    data = ToyData()
    assert fit(make_net(), data, 2, 0.1).losses == fit(make_net(), data, 2, 0.1).losses


def test_optimizer_schedule_and_loss_are_the_callers():
    data, net = ToyData(), make_net()
    steps_seen = []

    def schedule(optimizer, steps):
        steps_seen.append(steps)
        return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)

    history = fit(
        net,
        data,
        2,
        0.5,
        optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr),
        schedule=schedule,
        loss=lambda outputs, labels: F.cross_entropy(outputs, labels, label_smoothing=0.1),
        precision="fp32",
    )
    assert steps_seen == [10]
    assert [row.lr for row in history.rows] == pytest.approx([0.5 * 0.6, 0.5 * 0.1])
    outputs, labels = net(data.test.images), data.test.labels
    smoothed = F.cross_entropy(outputs, labels, label_smoothing=0.1).item()
    assert history.last.test_loss == pytest.approx(smoothed, rel=1e-5)


def test_evaluate_by_hand():
    data = ToyData()
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    nn.init.zeros_(net[1].weight)
    net[1].bias.data = torch.tensor([0.0, 0.0, 9.0, 0.0])
    metrics = evaluate(net, data.test, precision="fp32")
    per_class = [8, 8, 7, 7]
    assert metrics.confusion.tolist() == [[0, 0, count, 0] for count in per_class]
    assert metrics.accuracy == pytest.approx(7 / 30)
    wrong, right = math.log(3 + math.exp(9)), math.log(3 + math.exp(9)) - 9
    assert metrics.loss == pytest.approx((23 * wrong + 7 * right) / 30, rel=1e-5)
    assert not net.training


def test_a_network_trains_on_after_it_was_evaluated(monkeypatch):
    # Channels last rebuilds a weight with one in channel whenever it is asked for.
    monkeypatch.setattr(backend, "bf16_is_faster", lambda device: False)
    monkeypatch.setattr(backend, "channels_last_is_faster", lambda device: True)
    torch.manual_seed(0)
    net = nn.Sequential(BasicBlock(1, 8, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(8, 4))
    history = fit(net, ToyData(), epochs=2, lr=0.01)
    assert len(history.rows) == 2


def test_evaluate_takes_the_loss_of_its_caller():
    data, net = ToyData(), make_net()
    double = lambda outputs, labels: 2 * F.cross_entropy(outputs, labels)  # noqa: E731
    plain, twice = (evaluate(net, data.test, loss, "fp32").loss for loss in (None, double))
    assert twice == pytest.approx(2 * plain)


def test_evaluate_takes_a_class_for_every_pixel():
    batches = ToyBatches(5, 2, shuffle=False)
    batches.labels = torch.randint(3, (5, 4, 4), generator=torch.Generator().manual_seed(0))
    net = nn.Conv2d(1, 3, 1)
    predicted = net(batches.images).argmax(1)
    metrics = evaluate(net, batches, precision="fp32")
    assert metrics.accuracy == pytest.approx((predicted == batches.labels).float().mean().item())
    assert metrics.confusion.sum() == 80
    assert metrics.confusion[1, 2] == ((batches.labels == 1) & (predicted == 2)).sum()


def test_mean_iou_by_hand():
    """Class 0: 3 of 3 + 1 + 2 pixels; class 1: 2 of 2 + 2 + 1; class 2 never occurs."""
    confusion = torch.tensor([[3, 1, 0], [2, 2, 0], [0, 0, 0]])
    assert Metrics(0.0, confusion).mean_iou == pytest.approx((3 / 6 + 2 / 5) / 2)


def test_evaluate_trains_nothing():
    data, net = ToyData(), nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 4))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    evaluate(net, data.test)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_and_says_where(value):
    calls = []

    def loss(outputs, labels):
        calls.append(len(labels))
        return F.cross_entropy(outputs, labels) * (value if calls.count(16) == 9 else 1)

    data = ToyData(count=80)  # 5 batches of 16 an epoch, then 30 test images: 16 and 14
    with pytest.raises(
        DivergenceError, match=rf"loss is {value} in epoch 2, batch 3, at lr=0\.1: .*lr=0\.01"
    ) as stop:
        fit(make_net(), data, 3, 0.1, loss=loss)
    assert len(stop.value.history.rows) == 1


@pytest.mark.parametrize(("steps", "seen"), [(1, 2), (4, 4), (50, 20)])
def test_divergence_is_seen_within_a_long_epoch(monkeypatch, steps, seen):
    """Of 20 batches the second diverges; the next read of the losses ends training, silent or not."""
    monkeypatch.setattr(backend.Backend, "steps_between_reads", steps)
    monkeypatch.setattr(
        progress, "show_progress", lambda history, *_, **__: ProgressDisplay(history)
    )
    calls = []

    def loss(outputs, labels):
        calls.append(1)
        return F.cross_entropy(outputs, labels) * (math.nan if len(calls) == 2 else 1)

    with pytest.raises(DivergenceError, match=r"epoch 1, batch 2, at lr=0\.1: try") as stop:
        fit(make_net(), ToyData(count=320), 1, 0.1, loss=loss)
    assert len(calls) == seen
    assert stop.value.history.rows == []


def test_a_loss_that_diverges_in_another_process_is_seen_here():
    """What is read are means over the processes: one that is no number anywhere is none here."""
    other = SimpleNamespace(
        device="cpu", world_size=2, all_reduce_sum=lambda ours: ours + torch.tensor([1.0, math.nan])
    )
    metrics = EpochMetrics(1, other)
    for loss in (1.0, 2.0):
        metrics.add(torch.tensor(loss), torch.tensor(1), torch.tensor([0, 1]), lr=0.5)
    with pytest.raises(DivergenceError, match=r"loss is nan in epoch 1, batch 2, at lr=0\.5"):
        metrics.read()


@pytest.mark.parametrize("steps", [2, 5, 50])
def test_the_history_has_every_loss_however_often_they_are_read(monkeypatch, steps):
    expected = fit(make_net(), ToyData(), 2, 0.1).losses
    monkeypatch.setattr(backend.Backend, "steps_between_reads", steps)
    assert fit(make_net(), ToyData(), 2, 0.1).losses == expected


def test_losses_are_read_once():
    metrics = EpochMetrics(3, choose_backend("cpu", "fp32"))
    assert metrics.read() == []
    metrics.add(torch.tensor(2.0), torch.tensor(2), torch.tensor([0, 1, 1]), lr=0.1)
    assert metrics.read() == [2.0]
    metrics.add(torch.tensor(1.0), torch.tensor(1), torch.tensor([0]), lr=0.2)
    assert metrics.read() == [1.0]
    assert metrics.read() == []
    row = metrics.finish(Metrics(0.5, torch.eye(2)))
    assert (row.epoch, row.lr, row.test_loss, row.test_accuracy) == (3, 0.2, 0.5, 1.0)
    assert row.train_loss == pytest.approx((3 * 2.0 + 1.0) / 4)
    assert row.train_accuracy == 3 / 4


def test_the_stop_button_keeps_history_and_network():
    data, net = ToyData(), make_net()
    calls = []

    def loss(outputs, labels):
        calls.append(1)
        if len(calls) == 12:  # 5 training and 2 test batches an epoch
            raise KeyboardInterrupt
        return F.cross_entropy(outputs, labels)

    history = fit(net, data, 3, 0.1, loss=loss)
    assert history.interrupted
    assert len(history.rows) == 1
    assert len(history.losses) == 5 + 4  # the epoch that was stopped had come to its fifth batch
    assert not net.training
    assert evaluate(net, data.test).accuracy > 0.25


def test_stopped_before_the_first_epoch_ends(capsys):
    def loss(outputs, labels):
        raise KeyboardInterrupt

    history = fit(make_net(), ToyData(), 3, 0.1, loss=loss)
    assert history.interrupted
    assert "0 of 3 epochs" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"rows=\[\] must hold a completed epoch: try"):
        history.last  # noqa: B018


def test_rows_are_printed_aligned_below_the_banner(capsys):
    fit(make_net(), ToyData(banner="NOT REAL"), 2, 0.1)
    banner, title, *table = capsys.readouterr().out.splitlines()
    assert banner == "NOT REAL"
    assert title.startswith("Sequential network on 70 images 1x4x4 of toy, ")
    assert len(table) == 3
    assert len({len(line) for line in table}) == 1
    assert "test acc" in table[0]


def test_history_is_a_table_and_json():
    history = fit(make_net(), ToyData(), 2, 0.1, seed=3)
    record = json.loads(json.dumps(asdict(history)))
    assert [Epoch(**row) for row in record["rows"]] == history.rows
    assert record["recipe"]["seed"] == 3
    assert record["recipe"]["train_images"] == 70
    assert record["recipe"]["data"] == "toy"
    assert repr(history).splitlines()[0] == history.title
    assert len(repr(history).splitlines()) == 4
    assert repr(History()) == HEADER
    assert len(history.plot().axes) == 2


def test_the_picture_of_a_single_epoch_is_the_loss_of_each_batch():
    history = fit(make_net(), ToyData(), 1, 0.1)
    (axes,) = history.plot().axes
    assert list(axes.lines[0].get_ydata()) == history.losses


def test_bf16_follows_fp32_within_its_precision():
    losses = [fit(make_net(), ToyData(), 10, 0.02, precision=p).losses for p in ("fp32", "bf16")]
    assert len(losses[0]) == 50
    assert losses[1] == pytest.approx(losses[0], abs=0.02)
    assert losses[1] != losses[0]


class Viewing(nn.Module):
    """Flattens with .view, as most code on the web does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8 * 16, 4)

    def forward(self, x):
        x = F.relu(self.conv(x))
        return self.fc(x.view(x.size(0), -1))


def small_convnet():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 4),
    )


def test_the_fast_path_follows_the_plain_loop_for_50_steps(monkeypatch, measured):
    """Memory format and fused optimiser against the loop written out; 10 of 50 batches are short."""
    monkeypatch.setattr(backend, "bf16_is_faster", lambda device: False)
    monkeypatch.setattr(backend, "channels_last_is_faster", lambda device: True)
    data, ours, theirs = ToyData(), small_convnet(), small_convnet()
    history = fit(ours, data, 10, 0.02)
    assert ours[4].weight.is_contiguous(memory_format=torch.channels_last)
    losses = by_hand(theirs, data, 10, 0.02, seed=0)
    assert len(losses) == 50
    assert history.losses == pytest.approx(losses, rel=1e-3, abs=1e-4)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "slack"), [("fp32", 1e-3), ("bf16", 0.05)])
def test_the_cuda_graph_follows_the_plain_loop_for_50_steps(monkeypatch, precision, slack):
    """Captured and replayed on the GPU; each epoch ends with a short batch, which runs eagerly."""
    captured = []
    capture = GraphedStep.capture

    def spy(self, batch):
        captured.append(len(batch[1]))
        capture(self, batch)

    monkeypatch.setattr(GraphedStep, "capture", spy)
    data, ours, theirs = ToyData(device="cuda"), small_convnet(), small_convnet().cuda()
    schedule = lambda optimizer, steps: torch.optim.lr_scheduler.LinearLR(  # noqa: E731
        optimizer, 1.0, 0.1, total_iters=steps
    )
    history = fit(ours, data, 10, 0.02, precision=precision, schedule=schedule)
    assert captured == [16]
    losses = by_hand(theirs, data, 10, 0.02, seed=0, schedule=schedule)
    assert history.losses == pytest.approx(losses, rel=slack, abs=slack)
    assert losses[-1] < 0.5 * losses[0]
    plain = fit(
        small_convnet(), data, 10, 0.02, precision=precision, schedule=schedule, graph=False
    )
    assert captured == [16]
    assert history.losses == pytest.approx(plain.losses, rel=slack, abs=slack)


@pytest.mark.cuda
def test_a_loss_that_is_printed_is_never_captured(monkeypatch):
    def refuse(self, batch):
        raise AssertionError("captured")

    monkeypatch.setattr(GraphedStep, "capture", refuse)
    seen = []

    def loss(outputs, labels):
        seen.append(F.cross_entropy(outputs, labels).item())
        return F.cross_entropy(outputs, labels)

    fit(small_convnet(), ToyData(device="cuda"), 3, 0.02, loss=loss)
    assert len(seen) == 3 * (5 + 1)  # 5 training batches, and the 30 test images in one


@pytest.mark.cuda
def test_the_shared_adam_is_captured(monkeypatch):
    captured = []
    capture = GraphedStep.capture
    monkeypatch.setattr(
        GraphedStep, "capture", lambda self, batch: (captured.append(1), capture(self, batch))
    )
    data = ToyData(device="cuda")
    settings = {"optimizer": train.adamw, "schedule": train.one_cycle, "precision": "fp32"}
    graph, plain = (
        fit(small_convnet(), data, 10, 0.01, graph=graph, **settings).losses
        for graph in (True, False)
    )
    assert captured == [1]
    assert graph == pytest.approx(plain, rel=1e-3, abs=1e-3)
    assert graph[-1] < 0.5 * graph[0]


@pytest.mark.cuda
def test_a_step_that_cannot_be_captured_trains_all_the_same():
    """Asking the device whether it is done is no wait, and no capture allows it."""

    def loss(outputs, labels):
        torch.cuda.current_stream().query()
        return F.cross_entropy(outputs, labels)

    data = ToyData(device="cuda")
    plain = fit(small_convnet(), data, 3, 0.02, precision="fp32", graph=False)
    with pytest.warns(UserWarning, match="runs without a CUDA graph") as said:
        history = fit(small_convnet(), data, 3, 0.02, precision="fp32", loss=loss)
    assert len(said) == 1
    assert history.losses == pytest.approx(plain.losses, rel=1e-3, abs=1e-3)


@pytest.mark.cuda
def test_dropout_drops_anew_in_every_replay():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 4))
    data = ToyData(count=16, device="cuda")
    history = fit(net, data, 20, 1e-9, precision="fp32")  # one batch, the same each time
    assert len({round(loss, 5) for loss in history.losses[5:]}) > 10


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["lenet", "small_resnet", "densenet_d2l", "mini_inception"])
def test_a_network_scores_on_the_gpu_as_on_the_cpu(name):
    torch.manual_seed(0)
    net = getattr(models, name)().eval()
    size = models.MODELS[name].recipe.size
    images = torch.rand(4, 1, size, size)
    expected = net(images)
    found = net.cuda()(images.cuda()).cpu()
    assert (found - expected).norm() / expected.norm() < 1e-2  # convolutions there round to TF32


@pytest.mark.cuda
def test_a_network_that_views_its_maps_trains_on_the_gpu():
    history = fit(Viewing(), ToyData(device="cuda"), 3, 0.05)
    assert history.rows[-1].train_loss < history.rows[0].train_loss


def test_nothing_is_read_back_batch_by_batch(monkeypatch):
    """Between the reads that a GPU has, fit never asks a tensor for its number."""
    monkeypatch.setattr(backend.Backend, "steps_between_reads", GPU_STEPS_BETWEEN_READS)
    reads = []
    for name in ("item", "tolist", "__bool__", "__float__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, original=original: (reads.append(1), original(self))[1]
        )
    counts = []
    for size in (64, 640):
        reads.clear()
        plain = lambda parameters, lr: torch.optim.SGD(parameters, lr, foreach=False)  # noqa: E731
        fit(make_net(), ToyData(count=size), 1, 0.1, optimizer=plain, precision="fp32")
        counts.append(len(reads))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("epochs", "lr", "message"),
    [
        (0, 0.1, "epochs=0 must be a whole number from 1 to 1,000,000: try"),
        (1.5, 0.1, r"epochs=1\.5 must be"),
        (True, 0.1, "epochs=True must be"),
        (1, 0, "lr=0 must be a finite number above 0: try"),
        (1, math.nan, "lr=nan must be"),
        (1, "0.1", "lr='0.1' must be a finite number above 0: try lr=0.05"),
        (1, True, "lr=True must be"),
        (1, None, "lr=None must be a finite number"),
    ],
)
def test_recipes_that_cannot_train_are_refused(epochs, lr, message):
    with pytest.raises(ValueError, match=message):
        fit(make_net(), ToyData(), epochs, lr)


def an_optimizer():
    return torch.optim.Adam(make_net().parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "adam"}, "optimizer='adam' must be a function .*: try optimizer=torch.opt"),
        (
            {"optimizer": an_optimizer()},
            r"optimizer=Adam\(\.\.\.\) must be a function \(parameters, lr\)",
        ),
        (
            {"schedule": torch.optim.lr_scheduler.ConstantLR(an_optimizer())},
            r"schedule=ConstantLR\(\.\.\.\) must be a function \(optimizer, steps\)",
        ),
        ({"loss": nn.CrossEntropyLoss}, r"loss=<class .*CrossEntropyLoss'> must be a function"),
        ({"loss": "mse"}, "loss='mse' must be a function"),
        ({"net": nn.Linear}, r"build the network, then pass it: Linear\(\.\.\.\) builds one"),
        ({"net": torch.relu}, "net=<built-in .* must be an nn.Module"),
        ({"seed": "a"}, "seed='a' must be a whole number from .*: try seed=0"),
        ({"seed": None}, "seed=None must be"),
        ({"seed": 2**70}, "seed=1180591620717411303424 must be"),
        ({"data": [1, 2]}, r"data=list must be a Data.*: try data=fashion_mnist\(\)"),
    ],
)
def test_arguments_of_another_kind_are_refused(arguments, message):
    arguments = {"net": make_net(), "data": ToyData(), "epochs": 1, "lr": 0.1} | arguments
    with pytest.raises(ValueError, match=message):
        fit(**arguments)


SCHEDULES = torch.optim.lr_scheduler


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"optimizer": lambda parameters: None},
            r"optimizer must be a function \(parameters, lr\): ",
        ),
        ({"optimizer": lambda parameters, lr: None}, "optimizer must return .*, not NoneType: try"),
        (
            {"optimizer": torch.optim.LBFGS},
            "without arguments, not LBFGS: try optimizer=torch.opti",
        ),
        (
            {"schedule": SCHEDULES.OneCycleLR},
            "You must define .*: try schedule=cnnlib.train.one_cy",
        ),
        (
            {"schedule": lambda o, steps: None},
            "schedule must return .*, not NoneType: try schedule",
        ),
        ({"schedule": lambda o, steps: SCHEDULES.ReduceLROnPlateau(o)}, "not ReduceLROnPlateau: "),
        (
            {"loss": nn.CrossEntropyLoss(reduction="none")},
            r"it returns a tensor of shape \(16,\): ",
        ),
        ({"loss": lambda *batch: F.cross_entropy(*batch).item()}, "it returns a float: try loss="),
        ({"loss": lambda *batch: F.cross_entropy(*batch).detach()}, "its number has no gradient: "),
        (
            {"loss": nn.BCEWithLogitsLoss()},
            "loss=BCEWithLogitsLoss must return .* it fails: Target",
        ),
        (
            {"loss": F.mse_loss},
            "loss=mse_loss must .* must match the size .*: try loss=torch.nn.fu",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_functions_that_give_something_else_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(make_net(), ToyData(), 1, 0.1, **arguments)


@pytest.mark.parametrize("momentum", [-0.1, 1, math.nan])
def test_a_momentum_outside_0_to_1_is_refused(momentum):
    with pytest.raises(
        ValueError, match=r"momentum=.* a finite number of at least 0 and below 1: try mom"
    ):
        train.sgd(make_net().parameters(), 0.1, momentum)


def test_a_gradient_may_come_late():
    """As with layers that are skipped at random, or unfrozen: the same as torch's plain loop."""

    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.late, self.calls = nn.Linear(16, 4), nn.Linear(4, 4), 0

        def forward(self, x):
            self.calls += self.training
            x = self.first(x.flatten(1))
            return x + self.late(x) if self.calls > 3 else x

    data = ToyData()
    plain = lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=0.9)  # noqa: E731
    ours, theirs = (
        fit(Late(), data, 2, 0.1, optimizer=optimizer, precision="fp32").losses
        for optimizer in (None, plain)
    )
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_frozen_weights_stay_as_they_are():
    for optimizer in (train.sgd, train.nesterov, train.adamw):
        net = small_convnet()
        net[0].requires_grad_(False)
        before = [net[0].weight.clone(), net[4].weight.clone()]
        fit(net, ToyData(), 1, 0.01, optimizer=optimizer)
        assert torch.equal(net[0].weight, before[0])
        assert not torch.equal(net[4].weight, before[1])


def test_nesterov_is_that_of_torch():
    data = ToyData()
    plain = lambda parameters, lr: torch.optim.SGD(  # noqa: E731
        parameters, lr, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    ours, theirs = (
        fit(make_net(), data, 3, 0.05, optimizer=optimizer, precision="fp32").losses
        for optimizer in (train.nesterov, plain)
    )
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_one_cycle_leaves_the_momentum():
    optimizer = train.adamw(make_net().parameters(), 0.1)
    schedule = train.one_cycle(optimizer, 11)
    (group,) = optimizer.param_groups
    rates = [group["lr"]]
    for _ in range(10):
        optimizer.step()
        schedule.step()
        assert group["betas"] == (0.9, 0.999)
        rates.append(group["lr"])
    assert max(rates) == pytest.approx(0.1, rel=0.1)
    assert rates[-1] < rates[0] < 0.01


def test_gradient_norms_by_hand():
    """Of a projecting block: two 3x3 convolutions and a 1x1 on the shortcut, which is left out."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2),
        BasicBlock(4, 8, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()
    data = ToyData()
    images, labels = data.test.images, data.test.labels
    found = gradient_norms(net, images, labels)
    assert all(p.grad is None for p in net.parameters())
    F.cross_entropy(net.train()(images), labels).backward()
    norms = {name: p.grad.norm().item() for name, p in net.named_parameters() if p.ndim == 4}
    assert len(norms) == 4
    expected = [norm for name, norm in norms.items() if "shortcut" not in name]
    assert found == pytest.approx(expected, rel=1e-5)


def test_gradient_norms_want_a_convolution():
    data = ToyData()
    with pytest.raises(
        ValueError, match=r"net=Sequential must have convolutions larger than 1x1, .*: try"
    ):
        gradient_norms(make_net(), data.test.images, data.test.labels)


def test_numbers_of_numpy_are_numbers():
    history = fit(make_net(), ToyData(), np.int64(1), np.float64(0.1))
    assert len(history.rows) == 1
    json.loads(json.dumps(asdict(history)))


def test_the_shared_adam_trains():
    """As torch's own, within rounding, since it is fused."""
    data = ToyData()
    plain = lambda parameters, lr: torch.optim.AdamW(parameters, lr)  # noqa: E731
    ours, theirs = (
        fit(make_net(), data, 5, 0.05, optimizer=optimizer, precision="fp32").losses
        for optimizer in (train.adamw, plain)
    )
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert ours[-1] < 0.5 * ours[0]


def test_budget(monkeypatch):
    monkeypatch.delenv("CNNLIB_BUDGET", raising=False)
    for gpu, expected in ((True, "full"), (False, "quick")):
        monkeypatch.setattr(train.torch.cuda, "is_available", lambda gpu=gpu: gpu)
        assert budget() == expected
    for wanted in ("quick", "study", "full"):
        monkeypatch.setenv("CNNLIB_BUDGET", wanted)
        assert budget() == wanted
    monkeypatch.setenv("CNNLIB_BUDGET", "huge")
    with pytest.raises(ValueError, match="CNNLIB_BUDGET='huge' must be 'quick', 'study' or 'full'"):
        budget()


def test_an_empty_history_is_an_empty_table():
    assert repr(History()) == HEADER
    assert Metrics(0.0, torch.eye(2)).accuracy == 1

"""The leaderboard: costs by hand, rows that say what was measured, the front by brute force."""

import functools
import json
import random
import types
from dataclasses import replace

import pytest
import torch
from test_main import drawn
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import notebooks
from cnnlib import __main__ as command
from cnnlib import models
from cnnlib.measure import leaderboard as module
from cnnlib.measure import machine
from cnnlib.measure.leaderboard import (
    CLASSIC,
    PROTOCOLS,
    SMALL,
    Entry,
    Leaderboard,
    Protocol,
    Traffic,
    costs,
    pareto,
)
from cnnlib.models import MODELS, Model, Recipe
from cnnlib.trace import count_parameters
from cnnlib.train import one_cycle

TINY = Protocol(train=40, test=20, epochs=1, seeds=2, batch_size=10, lr=1e-3)


@pytest.fixture
def small(monkeypatch):
    """Drawn images and few of them, a machine with known limits, a clock that does not wait."""

    @functools.cache
    def few(size=28, batch_size=16, *, train, test, device=None):
        return drawn(size, batch_size, train=min(train, 40), test=min(test, 20))

    monkeypatch.setattr(module, "fashion_mnist", few)
    limits = {"peak_flops": 1e9, "bandwidth": 1}
    monkeypatch.setattr(module, "measure_limits", lambda device: limits)
    monkeypatch.setattr(module, "measure_training_rate", lambda net, images, labels: 1000.0)


def entry(name="a", macs=1, accuracies=(0.5,), **changed):
    settings = {
        "size": 28, "batch_size": 10, "params": 1, "macs": macs,
        "step_traffic": 30, "step_memory": 1, "images_per_second": 5.0,
    }  # fmt: skip
    return Entry(name, **settings | changed, accuracies=list(accuracies))


# Costs


def test_costs_of_a_linear_layer_by_hand():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    found = costs(net, (1, 2, 2), batch_size=5)
    assert (found["params"], found["macs"]) == (15, 12)
    images, scores, labels, weights = 4 * 5 * 4, 4 * 5 * 3, 8 * 5, 4 * 15
    # Kept: images, log-probabilities, labels, and the one number by which the mean is divided.
    assert found["step_memory"] == images + scores + labels + 4 + 2 * weights


def test_numbers_that_tensors_share_are_held_once():
    """The weight is that of both layers, and the backward pass keeps a transposed view of it."""
    twice = nn.Linear(4, 4)
    found = costs(nn.Sequential(nn.Flatten(), twice, twice), (1, 2, 2), batch_size=5)
    images, scores, labels, weights = 4 * 5 * 4, 4 * 5 * 4, 8 * 5, 4 * 20
    hidden = scores
    assert found["step_memory"] == images + hidden + scores + labels + 4 + 2 * weights


def test_memory_grows_with_the_batch_but_the_weights_do_not():
    one, two, three = (costs(models.lenet(), (1, 28, 28), n) for n in (8, 16, 24))
    assert two["step_memory"] - one["step_memory"] == three["step_memory"] - two["step_memory"]
    assert one["step_memory"] > 8 * one["params"]


def test_costs_leave_the_network_as_it_is():
    net = models.lenet().eval()
    before = [p.clone() for p in net.parameters()]
    costs(net, (1, 28, 28), 2)
    assert not net.training
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("name", ["lenet", "resnet18", "densenet_d2l"])
def test_a_step_has_nearly_three_times_the_operations_of_a_forward_pass(name):
    """Torch counts the operations itself; of grouped convolutions it counts too many backward."""
    net, size = MODELS[name].build(), MODELS[name].recipe.size
    macs = costs(net, (1, size, size), 2)["macs"]
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(2, 1, size, size)).sum().backward()
    assert 0.9 < counter.get_total_flops() / entry(macs=macs, batch_size=2).step_flops <= 1


def test_traffic_is_what_operations_read_and_write():
    x = torch.rand(100)
    with Traffic() as traffic:
        x.relu()
    assert traffic.bytes == 800
    with Traffic() as traffic:
        x.view(10, 10)
    assert traffic.bytes == 0
    with Traffic() as traffic:
        x + x
    assert traffic.bytes == 800  # one tensor is read once, though it is named twice


# Rows


def test_mean_standard_deviation_and_what_was_reached():
    row = entry(accuracies=[0.5, 0.6, 0.7])
    assert row.accuracy == pytest.approx(0.6)
    assert row.std == pytest.approx(0.1)
    assert row.step_flops == 6 * 1 * 10
    assert row.flops_per_second == 5 * 60 / 10
    assert row.intensity == 2
    assert entry(accuracies=[0.5]).std != entry(accuracies=[0.5]).std  # there is none


def test_the_front_by_hand():
    rows = [entry("a", 1, [0.5]), entry("b", 2, [0.4]), entry("c", 3, [0.6]), entry("d", 3, [0.7])]
    assert [row.name for row in pareto(rows, lambda row: row.macs)] == ["a", "d"]


def test_the_front_by_brute_force():
    draw = random.Random(0)
    for _ in range(200):
        rows = [
            entry(str(i), draw.randint(1, 6), [draw.randint(1, 6) / 10])
            for i in range(draw.randint(1, 8))
        ]
        found = [(row.macs, row.accuracy) for row in pareto(rows, lambda row: row.macs)]
        points = {(row.macs, row.accuracy) for row in rows}
        expected = {
            (cost, good)
            for cost, good in points
            if not any(c <= cost and g >= good and (c, g) != (cost, good) for c, g in points)
        }
        assert found == sorted(expected)


def test_a_network_is_added_with_one_line(small, capsys):
    board = Leaderboard(TINY)
    row = board.add("mine", models.lenet)
    assert board["mine"] is row
    assert len(row.accuracies) == 2
    assert (row.size, row.batch_size, row.params) == (28, 10, 61_706)
    assert board.about["hardware"]["device"] == "CPU"
    assert capsys.readouterr().out.count("mine, seed") == 2
    again = board.add("mine", models.lenet)
    assert board.rows == [again]
    assert again.accuracies == row.accuracies
    head, line = str(board).splitlines()
    assert len(head) == len(line)
    assert "61,706" in line


def test_a_seed_decides_the_initial_weights_and_the_order(small, monkeypatch):
    seen = []

    def fit(net, data, epochs, *, seed, **settings):
        seen.append((seed, net[0].weight.clone()))
        last = types.SimpleNamespace(test_accuracy=seed / 10, test_loss=0.1)
        return types.SimpleNamespace(interrupted=False, last=last)

    monkeypatch.setattr(module, "fit", fit)
    board = Leaderboard(TINY)
    assert board.add("lenet").accuracies == [0.0, 0.1]
    board.add("lenet")
    (a, first), (b, second), (_, third), _ = seen
    assert (a, b) == (0, 1)
    assert torch.equal(first, third)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("protocol", "lr", "kind", "momentum"),
    [(CLASSIC, 0.01, torch.optim.SGD, 0.5), (SMALL, 1e-3, torch.optim.AdamW, None)],
)
def test_recipes_of_the_protocols(protocol, lr, kind, momentum):
    settings = module._fit_settings(protocol, MODELS["mini_resnet"].recipe)
    optimizer = settings["optimizer"](models.lenet().parameters(), settings["lr"])
    assert type(optimizer) is kind
    assert optimizer.defaults["lr"] == lr
    assert optimizer.defaults.get("momentum") == momentum
    assert settings.get("schedule") is (one_cycle if protocol is SMALL else None)


@pytest.fixture
def settings(small, monkeypatch):
    """Record how fit is asked to train, and train nothing."""
    found = []

    def fit(net, data, epochs, *, lr, optimizer, **others):
        defaults = optimizer(net.parameters(), lr).defaults
        found.append((data.shape[1], data.train.batch_size, lr, defaults.get("momentum")))
        last = types.SimpleNamespace(test_accuracy=0.5, test_loss=0.1)
        return types.SimpleNamespace(interrupted=False, last=last)

    monkeypatch.setattr(module, "fit", fit)
    return found


EACH_ITS_OWN = Protocol(40, 20, epochs=1, seeds=1)


def test_a_model_has_its_usual_recipe_where_the_protocol_names_none(settings):
    Leaderboard(EACH_ITS_OWN).add("mini_resnet")
    assert settings == [(28, 64, 0.01, 0.5)]


def test_the_protocol_comes_before_the_usual_recipe(settings):
    Leaderboard(TINY).add("mini_resnet")
    assert set(settings) == {(28, 10, 1e-3, None)}


def test_a_recipe_that_is_stated_comes_before_both(settings):
    recipe = Recipe(28, 5, lr=0.2, momentum=0.3)
    for protocol in (TINY, EACH_ITS_OWN):
        Leaderboard(protocol).add("mini_resnet", recipe=recipe)
        Leaderboard(protocol).add("mine", models.lenet, recipe=recipe)
    assert set(settings) == {(28, 5, 0.2, 0.3)}


def test_a_network_of_ones_own_has_no_recipe_of_a_model_for_its_name(settings):
    """ResNet-18 is trained with 96 pixels, batches of 256 and a rate of 0.05: this is another."""
    Leaderboard(TINY).add("resnet18", models.lenet)
    assert set(settings) == {(28, 10, 1e-3, None)}
    with pytest.raises(ValueError, match=r"recipe=None must be a Recipe.*try recipe=Recipe\(size"):
        Leaderboard(EACH_ITS_OWN).add("resnet18", models.lenet)


def test_a_name_alone_must_be_that_of_a_model(settings):
    with pytest.raises(ValueError, match="name='mine' must be a model where build is None: try bu"):
        Leaderboard(TINY).add("mine")


def test_the_size_may_be_stated(settings):
    Leaderboard(TINY).add("narrow_se", size=32)
    Leaderboard(TINY).add("mine", models.small_resnet, size=32)
    assert {size for size, *_ in settings} == {32}


def test_what_cannot_be_measured_is_refused(settings):
    with pytest.raises(ValueError, match="size=0 must be a number of pixels"):
        Leaderboard(TINY).add("mine", models.lenet, size=0)
    with pytest.raises(ValueError, match="seeds=0 must be a whole number from 1: try seeds=3"):
        Leaderboard(replace(TINY, seeds=0)).add("lenet")


def test_a_network_that_is_trained_already_is_refused(small, monkeypatch):
    monkeypatch.setattr(module, "fit", lambda *a, **k: pytest.fail("it was trained"))
    net, layer = models.lenet(), nn.Linear(784, 10)
    for build in (lambda: net, lambda: nn.Sequential(nn.Flatten(), layer)):
        with pytest.raises(ValueError, match="must build new weights per seed, but it returns"):
            Leaderboard(TINY).add("mine", build)


def test_a_network_is_traced_before_it_is_trained(small, monkeypatch):
    monkeypatch.setattr(module, "fit", lambda *a, **k: pytest.fail("it was trained"))
    with pytest.raises(ValueError, match=r"1 \(Linear\) got \(1, 784\)"):
        Leaderboard(TINY).add("mine", lambda: nn.Sequential(nn.Flatten(), nn.Linear(400, 10)))


def test_costs_are_those_of_a_network_before_it_is_trained(small):
    row = Leaderboard(TINY).add("mine", models.narrow_resnet)
    fresh = costs(models.narrow_resnet(), (1, 28, 28), 10)
    assert (row.step_traffic, row.step_memory) == (fresh["step_traffic"], fresh["step_memory"])


def test_a_row_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"name='b' must be a row: try one of \['a'\], or add it"):
        Leaderboard(TINY, rows=[entry("a")])["b"]


def test_ctrl_c_ends_the_leaderboard(small, monkeypatch):
    monkeypatch.setattr(module, "fit", lambda *a, **k: types.SimpleNamespace(interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        Leaderboard(TINY).add("lenet")


def test_numbers_of_the_stand_in_say_so(small, monkeypatch, capsys):
    data = drawn(train=40, test=20)
    object.__setattr__(data, "source", "synthetic stand-in")
    monkeypatch.setattr(module, "fashion_mnist", lambda *a, **k: data)
    board = Leaderboard(TINY)
    board.add("lenet")
    assert "STAND-IN" in capsys.readouterr().out
    assert board.about["data"] == "synthetic stand-in"


def test_what_is_written_is_read(small, tmp_path):
    board = Leaderboard(TINY, {"peak_flops": 1.0}, [entry("a"), entry("b", accuracies=[0.1, 0.2])])
    board.write(tmp_path / "new" / "board.json")
    assert Leaderboard.read(tmp_path / "new" / "board.json") == board


def test_the_rate_is_images_over_seconds(monkeypatch):
    clock = iter([9.0, 0.5, 3.0, 1.0, 2.0])
    calls = []

    def timed(device, action):
        action()
        return next(clock), None

    def fit(net, data, *args, **kwargs):
        calls.append(len(data.train))

    monkeypatch.setattr(machine, "timed", timed)
    monkeypatch.setattr(machine, "fit", fit)
    rate = machine.measure_training_rate(None, torch.zeros(10, 1, 4, 4), torch.zeros(10))
    assert calls == [2, 2, 4, 4, 4]
    assert rate == 4 * 10 / 2.0


def test_limits_of_this_machine(monkeypatch):
    flops = {torch.float32: 3.0, torch.bfloat16: 2.0}
    monkeypatch.setattr(machine, "measure_matmul_flops", lambda device, dtype: flops[dtype])
    monkeypatch.setattr(machine, "timed", lambda device, action: (0.5, None))
    found = machine.measure_limits("cpu")
    assert found == {"peak_flops": 3.0, "bandwidth": 2 * 256 * 2**20 / 0.5}
    assert machine.environment_info("cpu")["hardware"]["cores"] > 0


# The command


def test_the_command_measures_the_models_of_the_table_that_are_on_the_board(small, tmp_path):
    def build(in_channels=1, num_classes=10):
        return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 36, num_classes))

    table = {
        "new": Model(build, Recipe(6, 8, lr=0.1), "new", on_board=True),
        "other": Model(build, Recipe(6, 8, lr=0.1), "new"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "MODELS", table)
        patch.setattr(module, "MODELS", table)
        assert command.main(["leaderboard", "--folder", str(tmp_path)]) == 0
    (row,) = Leaderboard.read(tmp_path / "leaderboard_small_cpu.json").rows
    assert (row.name, row.size, row.params) == ("new", 6, 370)


def test_the_committed_table_has_the_models_that_are_on_the_board():
    board = Leaderboard.read(notebooks.ROOT / "results" / "leaderboard_small_cpu.json")
    assert board.protocol == SMALL
    assert [row.name for row in board.rows] == [n for n, m in MODELS.items() if m.on_board]
    for row in board.rows:
        assert row.size == MODELS[row.name].recipe.size
        assert len(row.accuracies) == board.protocol.seeds
        with torch.device("meta"):
            net = MODELS[row.name].build()
        assert row.params == count_parameters(net)


def test_the_parser_offers_the_protocols(capsys):
    with pytest.raises(SystemExit):
        command.main(["leaderboard", "--protocol", "large"])
    refusal = capsys.readouterr().err
    assert all(name in refusal for name in PROTOCOLS)


def test_the_command(small, tmp_path, capsys):
    argv = ["leaderboard", "--models", "lenet", "narrow_se", "--seeds", "1", "--epochs", "1"]
    assert command.main([*argv, "--folder", str(tmp_path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in record["rows"]] == ["lenet", "narrow_se"]
    assert record["protocol"] == {
        "train": 2048, "test": 1000, "epochs": 1, "seeds": 1, "batch_size": 32, "lr": 1e-3
    }  # fmt: skip
    (path,) = tmp_path.iterdir()
    assert path.name == "leaderboard_small_cpu.json"
    assert json.loads(path.read_text()) == record


def test_the_command_goes_on_where_it_was(small, tmp_path, capsys):
    argv = ["leaderboard", "--seeds", "1", "--folder", str(tmp_path), "--models"]
    command.main([*argv, "narrow_se"])
    command.main([*argv, "lenet"])
    path = tmp_path / "leaderboard_small_cpu.json"
    assert [row.name for row in Leaderboard.read(path).rows] == ["narrow_se", "lenet"]
    before = path.read_text()
    command.main([*argv, "lenet", "--epochs", "1"])  # another protocol is another table
    assert path.read_text() == before
    beside = tmp_path / "leaderboard_small_cpu-2.json"
    assert [row.name for row in Leaderboard.read(beside).rows] == ["lenet"]
    assert str(beside) in capsys.readouterr().out


def test_an_unknown_network_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["leaderboard", "--models", "lenet6"])
    assert "did you mean lenet" in capsys.readouterr().err

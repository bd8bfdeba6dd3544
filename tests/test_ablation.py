"""The best recipe: each ingredient is left out alone, and interrupted work goes on where it was."""

import json
import types

import pytest
import torch
import torch.nn.functional as F
from test_main import drawn

from cnnlib import __main__ as command
from cnnlib import ablation, models
from cnnlib.ablation import INGREDIENTS, ablate, table, train_best
from cnnlib.data import random_crop, random_flip
from cnnlib.train import one_cycle


@pytest.fixture
def calls(monkeypatch):
    """Record what fit is asked for, and train nothing."""
    found = []

    def fit(net, data, epochs, lr, **settings):
        found.append(settings | {"changes": data.train.changes, "lr": lr, "epochs": epochs})
        accuracy = 0.9 + 0.001 * len(found)
        return types.SimpleNamespace(interrupted=False, last={"test_accuracy": accuracy})

    monkeypatch.setattr(ablation, "fit", fit)
    return found


def ingredients(call):
    scores, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    plain = F.cross_entropy(scores, labels)
    smooth = 0.9 * plain + 0.1 * -scores.log_softmax(1).mean()
    loss = call["loss"](scores, labels)
    assert min(abs(loss - plain), abs(loss - smooth)) < 1e-6
    return {
        "flip": random_flip in call["changes"],
        "crop": random_crop in call["changes"],
        "one cycle": call["schedule"] is one_cycle,
        "label smoothing": bool(abs(loss - smooth) < 1e-6),
    }


@pytest.mark.parametrize("without", [None, *INGREDIENTS])
def test_one_ingredient_is_left_out_and_the_others_stay(calls, without):
    train_best(models.lenet(), drawn(), 2, 0.1, seed=3, without=without)
    (call,) = calls
    assert ingredients(call) == {name: name != without for name in INGREDIENTS}
    assert (call["epochs"], call["lr"], call["seed"]) == (2, 0.1, 3)


def test_an_unknown_ingredient_is_refused():
    with pytest.raises(ValueError, match="without='salt' must be None or one of"):
        train_best(models.lenet(), drawn(), 1, 0.1, without="salt")


def test_the_recipe_trains(capsys):
    torch.manual_seed(0)
    net = models.small_resnet(width=4)
    history = train_best(net, drawn(train=200, test=50), 4, 0.1, plot=False)
    assert history.rows[-1]["train_loss"] < history.rows[0]["train_loss"]
    assert history.last["lr"] < 1e-3 < history.rows[0]["lr"]


def test_all_runs_are_written_and_none_is_repeated(calls, tmp_path):
    path = tmp_path / "record.json"
    record = ablate("lenet", models.lenet, drawn(), 2, 0.1, 2, path)
    assert list(record["accuracies"]) == ["nothing", *INGREDIENTS]
    assert [len(runs) for runs in record["accuracies"].values()] == [2] * 5
    assert [call["seed"] for call in calls] == [0] * 5 + [1] * 5
    assert json.loads(path.read_text())["accuracies"] == record["accuracies"]
    more = ablate("lenet", models.lenet, drawn(), 2, 0.1, 3, path)
    assert [call["seed"] for call in calls[10:]] == [2] * 5
    assert more["accuracies"]["flip"][:2] == record["accuracies"]["flip"]


def test_a_file_of_other_runs_is_refused(calls, tmp_path):
    ablate("lenet", models.lenet, drawn(), 2, 0.1, 1, tmp_path / "record.json")
    with pytest.raises(ValueError, match="name another file"):
        ablate("lenet", models.lenet, drawn(), 3, 0.1, 1, tmp_path / "record.json")


def test_runs_of_another_machine_give_way(calls, tmp_path):
    path = tmp_path / "record.json"
    record = ablate("lenet", models.lenet, drawn(), 2, 0.1, 1, path)
    record["hardware"]["cpu"] = "an abacus"
    path.write_text(json.dumps(record))
    ablate("lenet", models.lenet, drawn(), 3, 0.1, 1, path)
    assert len(calls) == 10
    assert json.loads(path.read_text())["recipe"]["epochs"] == 3


def test_ctrl_c_keeps_finished_runs(calls, monkeypatch, tmp_path):
    trained = ablation.fit

    def fit(*args, **settings):
        history = trained(*args, **settings)
        history.interrupted = len(calls) == 4
        return history

    monkeypatch.setattr(ablation, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        ablate("lenet", models.lenet, drawn(), 2, 0.1, 2, tmp_path / "record.json")
    runs = json.loads((tmp_path / "record.json").read_text())["accuracies"]
    assert [len(values) for values in runs.values()] == [1, 1, 1]


def test_the_table():
    record = {"accuracies": {"nothing": [0.9, 0.92], "flip": [0.9]}}
    head, whole, flip = table(record).splitlines()
    assert whole.split() == ["nothing", "2", "0.9100", "0.0141", "+0.0000"]
    assert flip.split() == ["flip", "1", "0.9000", "nan", "-0.0100"]
    assert len(head) == len(whole) == len(flip)


def test_the_command(calls, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "fashion_mnist", lambda size, batch_size, **counts: drawn())
    argv = ["ablation", "--seeds", "1", "--epochs", "1", "--folder", str(tmp_path)]
    assert command.main(argv) == 0
    out = capsys.readouterr().out
    assert "label smoothing" in out
    name = f"ablation_width16_{len(drawn().train.labels)}_cpu.json"
    assert name in out
    record = json.loads((tmp_path / name).read_text())
    assert record["recipe"]["net"] == "small_resnet, width 16"
    assert record["recipe"]["epochs"] == 1
    assert command.main([*argv, "--whole-only", "--width", "8"]) == 0
    name = f"best_width8_{len(drawn().train.labels)}_cpu.json"
    record = json.loads((tmp_path / name).read_text())
    assert list(record["accuracies"]) == ["nothing"]
    assert record["recipe"]["params"] == 19_810

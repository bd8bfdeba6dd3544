"""The best recipe: each ingredient is left out alone, and interrupted work goes on where it was."""

import json
import types

import pytest
import torch
import torch.nn.functional as F
from test_main import drawn

from cnnlib import __main__ as command
from cnnlib import models
from cnnlib.data import random_crop, random_flip
from cnnlib.measure import ablation
from cnnlib.measure.ablation import INGREDIENTS, ablate, table, train_best
from cnnlib.train import DivergenceError, one_cycle


@pytest.fixture
def calls(monkeypatch):
    """Record what fit is asked for, and train nothing."""
    found = []

    def fit(net, data, epochs, lr, **settings):
        found.append(settings | {"transforms": data.train.transforms, "lr": lr, "epochs": epochs})
        last = types.SimpleNamespace(test_accuracy=0.9 + 0.001 * len(found), test_loss=0.1)
        return types.SimpleNamespace(interrupted=False, last=last)

    monkeypatch.setattr(ablation, "fit", fit)
    return found


def ingredients(call):
    scores, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    plain = F.cross_entropy(scores, labels)
    smooth = 0.9 * plain + 0.1 * -scores.log_softmax(1).mean()
    loss = call["loss"](scores, labels)
    assert min(abs(loss - plain), abs(loss - smooth)) < 1e-6
    return {
        "flip": random_flip in call["transforms"],
        "crop": random_crop in call["transforms"],
        "one cycle": call["schedule"] is one_cycle,
        "label smoothing": bool(abs(loss - smooth) < 1e-6),
    }


@pytest.mark.parametrize("without", [None, *INGREDIENTS])
def test_one_ingredient_is_left_out_and_the_others_stay(calls, without):
    train_best(models.lenet(), drawn(), 2, 0.1, seed=3, without=without)
    (call,) = calls
    assert ingredients(call) == {name: name != without for name in INGREDIENTS}
    assert (call["epochs"], call["lr"], call["seed"]) == (2, 0.1, 3)


def test_a_run_that_ends_without_a_number_is_not_recorded(monkeypatch, tmp_path):
    last = types.SimpleNamespace(test_accuracy=0.1, test_loss=float("nan"))
    spoilt = types.SimpleNamespace(interrupted=False, last=last, recipe={"lr": 9.0})
    monkeypatch.setattr(ablation, "fit", lambda *_, **__: spoilt)
    with pytest.raises(DivergenceError, match=r"test loss is nan .* lr=9: try a smaller one"):
        ablate("net", models.lenet, drawn(), 1, 9.0, seeds=1, path=tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


def test_a_network_that_is_not_built_anew_is_refused(tmp_path):
    net = models.lenet()
    with pytest.raises(ValueError, match="must build new weights per seed"):
        ablate("net", lambda: net, drawn(), 1, 0.1, seeds=2, path=tmp_path / "a.json")


def test_a_record_that_somebody_has_edited_is_refused_and_kept(calls, tmp_path):
    _, path = ablate("net", models.lenet, drawn(), 1, 0.1, seeds=1, path=tmp_path / "a.json")
    edited = json.loads(path.read_text()) | {"accuracies": {"nothing": "abc"}}
    path.write_text(json.dumps(edited))
    with pytest.raises(ValueError, match=r"a\.json must hold an ablation, and it does not: move"):
        ablate("net", models.lenet, drawn(), 1, 0.1, seeds=2, path=path)
    assert json.loads(path.read_text()) == edited


def test_an_unknown_ingredient_is_refused():
    with pytest.raises(ValueError, match="without='salt' must be None or one of"):
        train_best(models.lenet(), drawn(), 1, 0.1, without="salt")


def test_the_recipe_trains(capsys):
    torch.manual_seed(0)
    net = models.small_resnet(width=4)
    history = train_best(net, drawn(train=200, test=50), 4, 0.1, plot=False)
    assert history.rows[-1].train_loss < history.rows[0].train_loss
    assert history.last.lr < 1e-3 < history.rows[0].lr


def test_all_runs_are_written_and_none_is_repeated(calls, tmp_path):
    path = tmp_path / "record.json"
    record, path = ablate("lenet", models.lenet, drawn(), 2, 0.1, seeds=2, path=path)
    assert list(record["accuracies"]) == ["nothing", *INGREDIENTS]
    assert [len(runs) for runs in record["accuracies"].values()] == [2] * 5
    assert [call["seed"] for call in calls] == [0] * 5 + [1] * 5
    assert json.loads(path.read_text())["accuracies"] == record["accuracies"]
    more, _ = ablate("lenet", models.lenet, drawn(), 2, 0.1, seeds=3, path=path)
    assert [call["seed"] for call in calls[10:]] == [2] * 5
    assert more["accuracies"]["flip"][:2] == record["accuracies"]["flip"]


def test_other_runs_and_those_of_another_machine_are_left_alone(calls, tmp_path):
    path = tmp_path / "record.json"
    record, _ = ablate("lenet", models.lenet, drawn(), 2, 0.1, seeds=1, path=path)
    _, beside = ablate("lenet", models.lenet, drawn(), 3, 0.1, seeds=1, path=path)
    assert beside == tmp_path / "record-2.json"
    record["hardware"]["cpu"] = "an abacus"
    theirs = json.dumps(record)
    path.write_text(theirs)
    _, beside = ablate("lenet", models.lenet, drawn(), 2, 0.1, seeds=1, path=path)
    assert beside == tmp_path / "record-3.json"
    assert len(calls) == 15
    assert path.read_text() == theirs


def test_ctrl_c_keeps_finished_runs(calls, monkeypatch, tmp_path):
    trained = ablation.fit

    def fit(*args, **settings):
        history = trained(*args, **settings)
        history.interrupted = len(calls) == 4
        return history

    monkeypatch.setattr(ablation, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        ablate("lenet", models.lenet, drawn(), 2, 0.1, seeds=2, path=tmp_path / "record.json")
    runs = json.loads((tmp_path / "record.json").read_text())["accuracies"]
    assert [len(values) for values in runs.values()] == [1, 1, 1]


def test_the_table():
    record = {"accuracies": {"nothing": [0.9, 0.92], "flip": [0.9]}}
    head, whole, flip = table(record).splitlines()
    assert whole.split() == ["nothing", "2", "0.9100", "0.0141", "+0.0000"]
    assert flip.split() == ["flip", "1", "0.9000", "nan", "-0.0100"]
    assert len(head) == len(whole) == len(flip)


def test_held_out_images_take_the_place_of_the_test_images(calls, monkeypatch, tmp_path):
    measured = []
    trained = ablation.fit

    def fit(net, data, *args, **settings):
        measured.append(data)
        return trained(net, data, *args, **settings)

    monkeypatch.setattr(ablation, "fit", fit)
    data = drawn(train=50, test=20)
    for held_out in (0, 10):
        path = tmp_path / f"{held_out}.json"
        record, path = ablate(
            "lenet", models.lenet, data, 2, 0.1, seeds=1, path=path, left_out=(), held_out=held_out
        )
        counts = {name: record["recipe"][name] for name in ("train", "test", "held_out")}
        test = held_out or 20
        assert counts == {"train": 50 - held_out, "test": test, "held_out": held_out}
    plain, held = measured
    assert torch.equal(plain.test.images, data.test.images)
    together = torch.cat([held.train.images, held.test.images])
    assert torch.equal(order(together), order(data.train.images))


def order(images):
    """Return the images in an order that depends on nothing but themselves."""
    return torch.tensor(sorted(images.flatten(1).tolist()))


def test_the_command(calls, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "fashion_mnist", lambda size, batch_size, **counts: drawn())
    argv = ["ablation", "--seeds", "1", "--epochs", "1", "--folder", str(tmp_path)]
    images = len(drawn().train.labels)

    def ran(*options):
        before = set(tmp_path.iterdir())
        assert command.main([*argv, *options]) == 0
        (path,) = set(tmp_path.iterdir()) - before
        assert str(path) in capsys.readouterr().out
        return path.name, json.loads(path.read_text())

    name, record = ran()
    assert name == f"ablation_width16_{images}_cpu.json"
    assert record["recipe"]["net"] == "small_resnet, width 16"
    assert record["recipe"]["epochs"] == 1
    assert list(record["accuracies"]) == ["nothing", *INGREDIENTS]

    name, record = ran("--without", "nothing", "--width", "8")
    assert name == f"ablation_width8_{images}_cpu.json"
    assert list(record["accuracies"]) == ["nothing"]
    assert record["recipe"]["params"] == 19_810

    name, record = ran("--without", "crop", "--lr", "0.1", "--held-out", "10")
    assert name == f"heldout_width16_lr0.1_{images - 10}_cpu.json"
    assert list(record["accuracies"]) == ["nothing", "crop"]
    assert record["recipe"]["held_out"] == 10
    assert {call["lr"] for call in calls[-2:]} == {0.1}


def test_an_unknown_ingredient_is_refused_before_anything_is_trained(
    calls, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(command, "fashion_mnist", lambda size, batch_size, **counts: drawn())
    argv = ["ablation", "--without", "flip", "salt", "--folder", str(tmp_path)]
    assert command.main(argv) == 2
    assert "left_out='salt' must be one of ('flip', 'crop', " in capsys.readouterr().err
    assert not calls


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": 0}, "seeds=0 must be a whole number from 1: try seeds=3"),
        ({"held_out": 40}, "held_out=40 must be a whole number from 1 to 39: try held_out=4"),
    ],
)
def test_runs_that_cannot_be_are_refused(arguments, message, tmp_path):
    arguments = {"seeds": 1, "path": tmp_path / "record.json"} | arguments
    with pytest.raises(ValueError, match=message):
        ablate("lenet", models.lenet, drawn(), 1, 0.1, **arguments)


def test_a_run_says_what_it_leaves_out(calls, tmp_path, capsys):
    ablate("lenet", models.lenet, drawn(), 1, 0.1, seeds=1, path=tmp_path / "record.json")
    assert "without nothing, seed 0\nwithout flip, seed 0\n" in capsys.readouterr().out

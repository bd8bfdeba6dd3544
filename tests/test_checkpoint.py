"""A training that is killed continues as if it had never stopped, and no file is ever lost."""

import math
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_main import drawn
from test_train import ToyData, small_convnet
from torch import nn

from cnnlib import backend, train, weights
from cnnlib._cuda_graph import GraphedStep
from cnnlib.data.transforms import random_crop, random_flip
from cnnlib.progress import ProgressDisplay
from cnnlib.train import DivergenceError, adamw, constant, fit, nesterov, one_cycle, sgd

EPOCHS = 4
FORKS = "fork" in multiprocessing.get_all_start_methods()


@cache
def data(**changes):
    """Drawn garments in three batches, each changed at random."""
    return drawn(12, **changes).with_transforms(random_flip, random_crop)


def network(channels=4):
    """All that has a state: weights, running statistics, and what dropout drops."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, stride=2),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(channels * 25, 10),
    )


def run(path=None, **changes):
    """Train, and return the network with its History and the random numbers that come next."""
    recipe = {"net": network(), "data": data(), "epochs": EPOCHS, "lr": 0.05, "precision": "fp32"}
    recipe |= {"checkpoint": path} | changes
    history = fit(**recipe)
    return recipe["net"], history, torch.rand(3)


def assert_equal(one, two):
    """Compare two runs to the bit, but for the time that they took."""
    for name, tensor in one[0].state_dict().items():
        assert torch.equal(tensor, two[0].state_dict()[name]), name
    assert one[1].losses == two[1].losses
    rows = [[replace(row, seconds=0, images_per_second=0) for row in a[1].rows] for a in (one, two)]
    assert rows[0] == rows[1]
    assert torch.equal(one[2], two[2])


def stop(monkeypatch, batch, error=KeyboardInterrupt):
    """Let the next training stop in one of its batches, counted from 1."""
    add, calls = train.EpochMetrics.add, []

    def stopping(self, *arguments, **settings):
        calls.append(1)
        if len(calls) == batch:
            monkeypatch.undo()
            raise error
        add(self, *arguments, **settings)

    monkeypatch.setattr(train.EpochMetrics, "add", stopping)


def epochs_in(path):
    """Return how many epochs a checkpoint has, which is whole, or 0 where there is none."""
    return len(torch.load(path, weights_only=True)["history"]["rows"]) if path.exists() else 0


# To the bit


def cosine(optimizer, steps):
    """A schedule whose rates are numbers of NumPy."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 + np.cos(np.pi * t / steps))


@pytest.mark.parametrize("batch", [1, 4, 8, 3 * EPOCHS])
@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"precision": "bf16", "schedule": one_cycle, "seed": 3},
        {"optimizer": nesterov, "schedule": cosine},
        {"optimizer": adamw, "schedule": one_cycle, "lr": np.float64(0.01)},
        {"optimizer": partial(sgd, momentum=0), "loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
        {"optimizer": torch.optim.Adam},
    ],
    ids=["sgd", "bf16", "nesterov", "adamw", "smoothing", "torch"],
)
def test_a_stopped_training_continues_to_the_bit(monkeypatch, tmp_path, recipe, batch):
    path = tmp_path / "net.pt"
    stop(monkeypatch, batch)
    assert run(path, **recipe)[1].interrupted
    assert path.exists() == (batch > 3)
    torch.manual_seed(99)  # what another process would not have, either
    assert_equal(run(path, **recipe), run(**recipe))


def test_initial_weights_are_those_of_the_file(monkeypatch, tmp_path):
    stop(monkeypatch, 5)
    run(tmp_path / "net.pt")
    other = network()
    nn.init.zeros_(other[0].weight)
    assert_equal(run(tmp_path / "net.pt", net=other), run())


def test_channels_last_continues_to_the_bit(monkeypatch, tmp_path):
    monkeypatch.delenv("CNNLIB_PRECISION", raising=False)
    monkeypatch.setattr(backend, "bf16_is_faster", lambda device: False)
    monkeypatch.setattr(backend, "channels_last_is_faster", lambda device: True)
    with monkeypatch.context() as patches:
        stop(patches, 8)
        run(tmp_path / "net.pt", precision="auto")
    with pytest.raises(ValueError, match=r"memory_format=torch\.channels_last, not torch\.conti"):
        run(tmp_path / "net.pt", precision="fp32")
    assert_equal(run(tmp_path / "net.pt", precision="auto"), run(precision="auto"))


def forked(function, *arguments):
    """Start a process that has all that this one has imported, and shows nothing.

    The bar has a lock that forked processes share: one that is killed may never release it.
    """

    def silent():
        train.progress.show_progress = lambda history, *_, **__: ProgressDisplay(history)
        function(*arguments)

    process = multiprocessing.get_context("fork").Process(target=silent)
    process.start()
    return process


@pytest.mark.skipif(not FORKS, reason="the processes are forked")
def test_killed_at_random_moments_it_ends_as_if_left_alone(tmp_path):
    """Each process completes one epoch at least; while it writes, the file is always whole."""
    path, epochs, kills, done = tmp_path / "net.pt", 30, 0, 0
    expected = run(epochs=epochs, schedule=one_cycle)
    length = min(row.seconds for row in expected[1].rows)  # of an epoch
    moments = random.Random(0)
    while done < epochs:
        process = forked(partial(run, path, epochs=epochs, schedule=one_cycle))
        while process.is_alive() and epochs_in(path) == done:
            time.sleep(length)
        time.sleep(moments.uniform(0, 8 * length))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        kills += process.exitcode != 0
        done = epochs_in(path)
    assert kills >= 3
    assert_equal(run(path, epochs=epochs, schedule=one_cycle), expected)
    assert [file.name for file in tmp_path.iterdir()] == ["net.pt"]


def be_killed(path, module, name, call):
    """Train, and be killed at some call of a function, before it does anything."""
    function, calls = getattr(module, name), []

    def deadly(*arguments, **settings):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **settings)

    setattr(module, name, deadly)
    run(path)


@pytest.mark.skipif(not FORKS, reason="the processes are forked")
@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize(
    ("module", "name"),
    [(train, "_measure"), (torch, "save"), (os, "fsync"), (Path, "replace")],
    ids=["it evaluates", "before it writes", "after it wrote", "before it replaces"],
)
def test_killed_when(tmp_path, module, name, epoch):
    path = tmp_path / "net.pt"
    process = forked(be_killed, path, module, name, epoch)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert epochs_in(path) == epoch - 1
    assert_equal(run(path), run())
    assert [file.name for file in tmp_path.iterdir()] == ["net.pt"]


# What the file holds, and how it is written


def test_a_finished_training_returns_at_once(monkeypatch, tmp_path, capsys):
    path = tmp_path / "net.pt"
    expected = run(path)
    before = path.read_bytes()
    monkeypatch.setattr(nn.Sequential, "forward", None)  # nothing may be trained or evaluated
    monkeypatch.setattr(train.preflight, "check_training", lambda net, data, backend, loss: backend)
    capsys.readouterr()
    net, history, numbers = run(path)
    assert_equal((net, history, numbers), expected)
    assert history == expected[1]
    assert not net.training
    assert path.read_bytes() == before
    assert "continuing" not in capsys.readouterr().out


def test_a_constant_rate_may_go_on_for_more_epochs(tmp_path):
    path = tmp_path / "net.pt"
    run(path, epochs=2)
    longer = run(path)
    assert_equal(longer, run())
    assert longer[1].recipe["epochs"] == EPOCHS


def test_the_rows_before_are_shown(monkeypatch, tmp_path, capsys):
    stop(monkeypatch, 8)
    run(tmp_path / "net.pt")
    capsys.readouterr()
    _, history, _ = run(tmp_path / "net.pt")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-EPOCHS - 1 :] == [
        *map(train.progress.row_text, history.rows[:2]),
        "continuing after epoch 2",
        *map(train.progress.row_text, history.rows[2:]),
    ]


def test_the_file_holds_weights_that_anything_reads(tmp_path):
    net, *_ = run(tmp_path / "net.pt")
    found = torch.load(tmp_path / "net.pt", weights_only=True)["state_dict"]
    for state in found, weights.read(tmp_path / "net.pt"):
        assert list(state) == list(net.state_dict())
        assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    assert [file.name for file in tmp_path.iterdir()] == ["net.pt"]


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("x"), KeyboardInterrupt])
@pytest.mark.parametrize(("module", "name"), [(torch, "save"), (os, "fsync"), (Path, "replace")])
def test_a_write_that_fails_leaves_the_file_as_it_was(monkeypatch, tmp_path, module, name, error):
    path, function, calls = tmp_path / "net.pt", getattr(module, name), []

    def failing(*arguments, **settings):
        calls.append(1)
        if len(calls) < 3:
            return function(*arguments, **settings)
        if name == "save":
            arguments[1].write(b"half a file")
        raise error

    with monkeypatch.context() as patches:
        patches.setattr(module, name, failing)
        if error is KeyboardInterrupt:
            assert run(path)[1].interrupted
        else:
            with pytest.raises(type(error)) as stop:
                run(path)
            assert len(stop.value.history.rows) == 3
    assert epochs_in(path) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["net.pt"]
    assert_equal(run(path), run())


def test_links_are_followed_and_modes_are_kept(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    target, link = folder / "target.pt", tmp_path / "link.pt"
    link.symlink_to(target)  # which does not exist yet
    run(link, epochs=1)
    assert link.is_symlink()
    target.chmod(0o640)
    run(link, epochs=2)
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert epochs_in(target) == 2
    assert sorted(file.name for file in tmp_path.rglob("*.pt*")) == ["link.pt", "target.pt"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_network_whose_test_loss_is_no_number_is_not_saved(monkeypatch, tmp_path, value):
    """Of the third epoch alone: then it is good again, and the fourth is saved."""
    measure, found = train._measure, []

    def spoilt(*arguments):
        metrics = measure(*arguments)
        found.append(epochs_in(tmp_path / "net.pt"))
        return replace(metrics, loss=value) if len(found) == 3 else metrics

    monkeypatch.setattr(train, "_measure", spoilt)
    run(tmp_path / "net.pt")
    assert found == [0, 1, 2, 2]
    assert epochs_in(tmp_path / "net.pt") == 4


def test_a_network_that_diverges_is_not_saved(tmp_path):
    path = tmp_path / "net.pt"
    schedule = partial(torch.optim.lr_scheduler.MultiStepLR, gamma=1e38)
    with pytest.raises(DivergenceError):
        run(path, schedule=lambda optimizer, steps: schedule(optimizer, [7]))
    assert epochs_in(path) == 2
    assert all(tensor.isfinite().all() for tensor in weights.read(path).values())


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 0.1}, r"with lr=0\.05, not 0\.1: try another file, or the same lr to continue"),
        ({"seed": 1}, "seed=0, not 1"),
        ({"epochs": 2}, "epochs=4, not 2"),
        ({"epochs": 8}, "epochs=4, not 8"),
        ({"precision": "bf16"}, "precision=fp32, not bf16"),
        ({"net": network(8)}, r"0\.weight=\[4, 1, 3, 3\], not \[8, 1, 3, 3\]"),
        ({"net": network().append(nn.Linear(10, 10))}, r"6\.weight=None, not \[10, 10\]"),
        ({"net": nn.Sequential(network())}, r"0\.0\.weight=None, not \[4, 1, 3, 3\]"),
        ({"data": data(train=60)}, "train_images=40, not 60"),
        ({"data": data(batch_size=8)}, "batch_size=16, not 8"),
        ({"data": data(seed=1)}, "data_crc32="),
        ({"data": drawn(12)}, r"transforms=\['random_flip', 'random_crop'\], not \[\]"),
        ({"optimizer": adamw}, "optimizer=SGD, not AdamW"),
        ({"optimizer": partial(sgd, momentum=0.5)}, r"momentum=0\.9, not 0\.5"),
        ({"schedule": constant}, "schedule=OneCycleLR, not ConstantLR"),
        ({"loss": F.nll_loss}, "loss=cross_entropy, not nll_loss"),
    ],
)
def test_the_file_of_another_training_is_refused_and_kept(tmp_path, changes, message):
    path = tmp_path / "net.pt"
    run(path, schedule=one_cycle)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"checkpoint='.*net\.pt' must be .*{message}"):
        run(path, **{"schedule": one_cycle} | changes)
    assert path.read_bytes() == before


def test_the_file_of_a_longer_network_is_refused(tmp_path):
    run(tmp_path / "net.pt", net=network().append(nn.Linear(10, 10)))
    with pytest.raises(ValueError, match=r"6\.weight=\[10, 10\], not None"):
        run(tmp_path / "net.pt")


def test_a_rate_of_numpy_is_that_of_python(tmp_path):
    run(tmp_path / "net.pt", lr=np.float64(0.05), epochs=2)
    assert_equal(run(tmp_path / "net.pt"), run())


def test_fewer_epochs_than_the_file_has_are_refused(tmp_path):
    run(tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"epochs=3 must be at least the 4 .*try epochs=4, or"):
        run(tmp_path / "net.pt", epochs=3)


def spoil(path, kind):
    """Leave something else in the file."""
    whole = path.read_bytes()
    bias = torch.load(path, weights_only=True)["state_dict"]["5.bias"].numpy().tobytes()
    spoilt = {
        "empty": b"",
        "text": b"weights",
        "cut off": whole[: len(whole) // 2],
        "damaged": whole.replace(bias, bytes(len(bias))),
    }
    if kind == "weights":
        torch.save(network().state_dict(), path)
    elif kind == "code":
        torch.save({"identity": {}, "code": print}, path)
    else:
        path.write_bytes(spoilt[kind])


@pytest.mark.parametrize("kind", ["empty", "text", "cut off", "damaged", "weights", "code"])
def test_a_file_that_is_no_checkpoint_is_refused_and_kept(tmp_path, kind):
    path = tmp_path / "net.pt"
    run(path)
    spoil(path, kind)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint='.*' must be a whole file that fit wrote"):
        run(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "edit",
    [
        lambda saved: saved.pop("optimizer"),
        lambda saved: saved.update(identity=3),
        lambda saved: saved["history"]["rows"][0].update(test_loss="x"),
        lambda saved: saved["state_dict"]["5.bias"].fill_(math.nan),
        lambda saved: saved["state_dict"].update(more=torch.ones(1)),
        lambda saved: saved["optimizer"]["state"][0].update(momentum_buffer=torch.ones(1)),
        lambda saved: saved.update(random=[]),
    ],
    ids=["no optimiser", "identity", "a row", "NaN", "one more weight", "momentum", "random"],
)
def test_a_file_that_somebody_has_edited_is_refused_and_kept(tmp_path, edit):
    path = tmp_path / "net.pt"
    run(path, epochs=1)
    saved = torch.load(path, weights_only=True)
    edit(saved)
    torch.save(saved, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint='.*' must be a whole file that fit wrote"):
        run(path)
    assert path.read_bytes() == before


@pytest.mark.skipif(not FORKS, reason="the processes are forked")
def test_a_second_kernel_is_told_and_the_first_one_ends_whole(tmp_path):
    path, epochs = tmp_path / "net.pt", 30
    first = forked(partial(run, path, epochs=epochs))
    while epochs_in(path) == 0:
        time.sleep(0.01)
    with pytest.raises(ValueError, match="must be of one process, and another one trains into it"):
        run(path, epochs=epochs)
    first.join()
    assert first.exitcode == 0
    assert_equal(run(path, epochs=epochs), run(epochs=epochs))
    assert [file.name for file in tmp_path.iterdir()] == ["net.pt"]


def refused(path, message):
    """Expect a refusal before the first step."""
    with pytest.raises(ValueError, match=rf"checkpoint='.*' must be a file {message}"):
        fit(nn.Identity(), ToyData(), 1, 0.1, checkpoint=path)


@pytest.mark.parametrize("name", ["no/net.pt", "", "..", "a" * 300, "a\0b", 3])
def test_a_path_where_no_file_can_be_is_refused(tmp_path, name):
    message = (
        r"that can be written \(File name too long\): try" if name == "a" * 300 else "in a fol"
    )
    refused(tmp_path / name if isinstance(name, str) else name, message)
    assert not list(tmp_path.iterdir())


def test_a_device_and_a_pipe_are_never_replaced(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(os.devnull)
    for path in (pipe, link, os.devnull):
        refused(path, "in a folder that exists")
    assert pipe.is_fifo()
    assert Path(os.devnull).is_char_device()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write")
def test_a_folder_that_cannot_be_written_is_refused():
    refused("/proc/net.pt", r"that can be written \(.*\): try a file in a folder of yours")


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may write everything")
def test_what_is_read_only_is_refused(tmp_path, folder):
    run(tmp_path / "net.pt")
    locked = tmp_path if folder else tmp_path / "net.pt"
    locked.chmod(0o500)
    refused(tmp_path / "net.pt", "that can be written")
    locked.chmod(0o700)


# On a GPU


@pytest.mark.cuda
@pytest.mark.parametrize("optimizer", [sgd, adamw])
def test_a_training_that_continues_is_captured_again(monkeypatch, tmp_path, optimizer):
    captured, capture = [], GraphedStep.capture

    def spy(self, batch):
        captured.append(1)
        capture(self, batch)

    monkeypatch.setattr(GraphedStep, "capture", spy)
    settings = {"optimizer": optimizer, "schedule": one_cycle, "precision": "fp32"}
    alone = fit(small_convnet(), ToyData(device="cuda"), 6, 0.01, **settings)
    with monkeypatch.context() as patches:
        stop(patches, 18)  # of 5 batches per epoch
        fit(small_convnet(), ToyData(device="cuda"), 6, 0.01, checkpoint=tmp_path / "a", **settings)
    history = fit(
        small_convnet(), ToyData(device="cuda"), 6, 0.01, checkpoint=tmp_path / "a", **settings
    )
    assert captured == [1, 1, 1]
    assert history.losses == pytest.approx(alone.losses, rel=1e-4)

"""Two processes on one network: the same numbers as one, and what happens when one dies.

The processes are forked from this one, with the environment variables that torchrun sets.
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time

import pytest
import torch
import torch.nn.functional as F
from test_main import drawn

from cnnlib import __main__ as command
from cnnlib import models
from cnnlib.train import evaluate
from cnnlib.weights import read

TINY = [
    *("train", "lenet", "--train", "64", "--test", "21", "--batch-size", "24", "--epochs", "3"),
    *("--precision", "fp32"),
]

pytestmark = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="the processes are forked"
)


def member(rank, port, folder, argv, before_batch):
    """Be one of two processes: run the command, and leave its output in the folder."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        CNNLIB_LIVE="0",
    )
    sys.stdout = (folder / f"out{rank}").open("w", buffering=1)
    sys.stderr = (folder / f"err{rank}").open("w", buffering=1)
    command.fashion_mnist = drawn
    if before_batch is not None:
        command.fit.__globals__["F"] = Watched(rank, before_batch)
    code = command.main(argv)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Watched:
    """torch.nn.functional whose cross-entropy calls a function first, and takes a factor from it.

    The function is called with (rank, call).
    """

    def __init__(self, rank, before_batch):
        self.rank, self.before_batch, self.calls = rank, before_batch, 0

    def cross_entropy(self, outputs, labels):
        self.calls += 1
        factor = self.before_batch(self.rank, self.calls)
        return F.cross_entropy(outputs, labels) * (1 if factor is None else factor)


def run_two(folder, *argv, before_batch=None):
    """Return the exit codes of the two processes and how long they took."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    start = time.perf_counter()
    members = [
        context.Process(target=member, args=(rank, port, folder, [*map(str, argv)], before_batch))
        for rank in range(2)
    ]
    for process in members:
        process.start()
    for process in members:
        process.join(60)
        process.kill()
    return [process.exitcode for process in members], time.perf_counter() - start


def texts(folder):
    """Return out0, err0, out1, err1."""
    return [(folder / f"{kind}{rank}").read_text() for rank in range(2) for kind in ("out", "err")]


def alone(monkeypatch, record, *argv):
    monkeypatch.setattr(command, "fashion_mnist", drawn)
    assert command.main([*map(str, argv), "--record", str(record)]) == 0
    return json.loads(record.read_text())


def test_two_processes_train_as_one(tmp_path, monkeypatch):
    """64 images in batches of 24: each epoch ends with a short batch of 16, 8 for each."""
    one = alone(monkeypatch, tmp_path / "one.json", *TINY, "--checkpoint", tmp_path / "one.pt")
    record, weights = tmp_path / "two.json", tmp_path / "two.pt"
    codes, _ = run_two(tmp_path, *TINY, "--record", record, "--checkpoint", weights)
    out, err, silent_out, silent_err = texts(tmp_path)
    assert codes == [0, 0]
    assert err == silent_out == silent_err == ""
    assert out.count("epoch  train loss") == 1
    two = json.loads(record.read_text())
    assert two["recipe"]["processes"] == 2
    assert two["recipe"]["batch_size"] == one["recipe"]["batch_size"] == 24
    assert len(two["losses"]) == 9
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    for ours, theirs in zip(two["rows"], one["rows"], strict=True):
        for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5)
    states = [read(tmp_path / f"{n}.pt") for n in ("one", "two")]
    for name in models.lenet().state_dict():
        torch.testing.assert_close(states[1][name], states[0][name], rtol=1e-4, atol=1e-6)


def test_batch_normalisation_sees_its_own_part(tmp_path, monkeypatch):
    """So losses differ a little, and both evaluate and save one network."""
    argv = ["train", "mini_resnet", *TINY[2:], "--epochs", "1"]
    one = alone(monkeypatch, tmp_path / "one.json", *argv)
    weights = tmp_path / "two.pt"
    codes, _ = run_two(tmp_path, *argv, "--record", tmp_path / "two.json", "--checkpoint", weights)
    two = json.loads((tmp_path / "two.json").read_text())
    assert codes == [0, 0]
    assert two["losses"] == pytest.approx(one["losses"], rel=0.2)
    assert two["losses"] != pytest.approx(one["losses"], rel=1e-4)
    net = models.mini_resnet()
    net.load_state_dict(read(weights))
    saved = evaluate(net, drawn(batch_size=24, train=64, test=21).test, precision="fp32")
    assert two["rows"][-1]["test_loss"] == pytest.approx(saved.loss, rel=1e-5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--batch-size", "25"],
            "batch_size=25 must be a multiple of the 2 processes: try --batch-size 24",
        ),
        (["--train", "63"], "train=63 must be a multiple of the 2 processes: try --train 62"),
    ],
)
def test_unequal_parts_are_refused_once(tmp_path, argv, message):
    codes, _ = run_two(tmp_path, *TINY, *argv)
    _, err, _, silent = texts(tmp_path)
    assert codes == [2, 2]
    assert message in err
    assert len(err.splitlines()) == 1
    assert silent == ""


def test_a_rank_that_dies_ends_the_run_with_one_message(tmp_path):
    """Killed in the second epoch, after 3 training batches, 1 test batch and 1 more."""

    def die(rank, call):
        if rank == 1 and call == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    record, weights = tmp_path / "two.json", tmp_path / "two.pt"
    codes, seconds = run_two(
        tmp_path, *TINY, "--record", record, "--checkpoint", weights, before_batch=die
    )
    out, err, *_ = texts(tmp_path)
    assert codes == [1, -signal.SIGKILL]
    assert seconds < 20
    assert err == "cnnlib: another process of this run has ended, so training stops\n"
    assert f"are in {weights}" in out
    assert len(json.loads(record.read_text())["rows"]) == 1
    models.lenet().load_state_dict(read(weights))


def test_two_that_are_killed_continue_to_the_bit(tmp_path, monkeypatch):
    """Each drops other units, and each has its own random numbers back."""

    def build(in_channels=1, num_classes=10):
        drop, fc = torch.nn.Dropout(), torch.nn.Linear(784 * in_channels, num_classes)
        return torch.nn.Sequential(torch.nn.Flatten(), drop, fc)

    monkeypatch.setitem(
        models.MODELS, "tiny", models.Model(build, models.Recipe(28, 24, lr=0.1), "tiny")
    )
    argv = ["train", "tiny", *TINY[2:]]

    def die(rank, call):
        if call == 6:  # in the second epoch
            os.kill(os.getpid(), signal.SIGKILL)

    def live(rank, call):
        pass

    one, two = tmp_path / "one", tmp_path / "two"
    for folder, steps in ((one, [live]), (two, [die, live])):
        folder.mkdir()
        options = ("--checkpoint", folder / "net.pt", "--record", folder / "log.json")
        codes = [run_two(folder, *argv, *options, before_batch=step)[0] for step in steps]
        assert codes == [[-signal.SIGKILL] * 2] * (len(steps) - 1) + [[0, 0]]
    assert "continuing after epoch 1\n" in texts(two)[0]
    losses = [json.loads((folder / "log.json").read_text())["losses"] for folder in (one, two)]
    assert losses[0] == losses[1]
    for name, tensor in read(one / "net.pt").items():
        assert torch.equal(tensor, read(two / "net.pt")[name])


def test_one_part_that_diverges_ends_all_processes_at_the_same_batch(tmp_path):
    def diverge(rank, call):
        return float("nan") if (rank, call) == (1, 2) else None

    codes, _ = run_two(tmp_path, *TINY, before_batch=diverge)
    _, err, _, silent = texts(tmp_path)
    assert codes == [1, 1]
    assert err.startswith("cnnlib: the loss is nan in epoch 1, batch 2, ")
    assert len(err.splitlines()) == 1
    assert silent == ""


def test_a_run_that_diverges_says_so_once(tmp_path):
    codes, _ = run_two(tmp_path, *TINY, "--lr", "1e38", "--momentum", "0.9")
    _, err, _, silent = texts(tmp_path)
    assert codes == [1, 1]
    assert err.startswith("cnnlib: the loss is ")
    assert len(err.splitlines()) == 1
    assert silent == ""

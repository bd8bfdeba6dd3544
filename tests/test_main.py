"""The command line: what it prints, what it refuses, and how it ends."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from cnnlib import __main__ as command
from cnnlib import models
from cnnlib._checks import check_image_size
from cnnlib.data import Batches, Data, synthetic
from cnnlib.data.mnist import CLASSES
from cnnlib.models import MODELS, Model, Recipe
from cnnlib.train import DivergenceError, History
from cnnlib.weights import read

TINY = ["train", "lenet", "--epochs", "2", "--train", "40", "--test", "20", "--batch-size", "16"]


def drawn(size=28, batch_size=16, *, train=40, test=20, device=None, seed=0):
    """What fashion_mnist returns, of drawn garments, in no time."""
    parts = {
        part: Batches(
            *synthetic.draw(count, seed), check_image_size(size), batch_size, part == "train", seed
        )
        for part, count in {"train": train, "test": test}.items()
    }
    return Data(**parts, classes=CLASSES, source="drawn")


@pytest.fixture(autouse=True)
def no_archives(monkeypatch):
    monkeypatch.setattr(command, "fashion_mnist", drawn)


def run(capsys, *argv):
    """Return the exit code, standard output and standard error of a call."""
    try:
        code = command.main([*map(str, argv)])
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def test_trace_prints_the_table(capsys):
    code, out, err = run(capsys, "trace", "lenet", "--size", 28, "--depth", 1)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "Sequential, input 1x28x28"
    assert out.splitlines()[-1].split() == ["Total", "61,706", "416,520"]


def test_trace_in_json(capsys):
    code, out, _ = run(capsys, "trace", "lenet", "--json")
    record = json.loads(out)
    assert code == 0
    assert (record["total_params"], record["total_macs"]) == (61_706, 416_520)
    assert record["rows"][0]["output_shape"] == [6, 28, 28]


def test_trace_takes_a_rectangle_and_colour(capsys):
    code, out, _ = run(
        capsys, "trace", "resnet18", "--size", "96x64", "--channels", 3, "--depth", 1
    )
    assert code == 0
    assert "input 3x96x64" in out
    assert "512x3x2" in out


@pytest.fixture
def tiny(monkeypatch):
    """Put a network of ours into the table of models, as a row that a reader would add."""

    def build(in_channels=1, num_classes=10):
        return torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(in_channels * 36, num_classes)
        )

    model = Model(build, Recipe(6, batch_size=8, lr=0.2, momentum=0.7), "tiny", on_board=True)
    monkeypatch.setitem(MODELS, "tiny", model)


def test_a_new_row_is_a_model_of_the_commands(capsys, tiny):
    code, out, _ = run(capsys, "trace", "tiny", "--channels", 3)
    assert code == 0
    assert out.splitlines()[0] == "Sequential, input 3x6x6"
    code, out, _ = run(capsys, "train", "tiny", "--epochs", 1, "--json")
    recipe = json.loads(out)["recipe"]
    assert code == 0
    assert (recipe["shape"], recipe["batch_size"], recipe["lr"]) == ([1, 6, 6], 8, 0.2)
    assert "did you mean tiny" in run(capsys, "trace", "tinny")[2]


def test_momentum_is_that_of_the_recipe_unless_it_is_given(capsys, monkeypatch, tiny):
    found = []

    def fit(net, data, epochs, lr, *, optimizer, **options):
        found.append(optimizer(net.parameters(), lr).defaults["momentum"])
        return History()

    monkeypatch.setattr(command, "fit", fit)
    for options in (), ("--momentum", "0"):
        assert run(capsys, "train", "tiny", *options)[0] == 0
    assert found == [0.7, 0]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("narrow_resnet", 28),
        ("narrow_se", 28),
        ("inception_v3", 299),
        ("resnet50", 224),
        ("resnet34", 96),
    ],
)
def test_a_model_is_traced_at_the_size_of_its_table(capsys, name, size):
    code, out, _ = run(capsys, "trace", name, "--depth", 1)
    assert code == 0
    assert out.splitlines()[0].endswith(f", input 1x{size}x{size}")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trace", "resnet81"], "there is no 'resnet81': did you mean resnet18 or "),
        (["trace", "%%%"], "there is no '%%%': try lenet, "),
        (["trace", "lenet", "--size", "large"], "--size: 'large' must be pixels, such as 96 or"),
        (["trace", "lenet", "--size", "0"], "--size: '0' must be pixels"),
        (["trace", "lenet", "--size", "1x2x3"], "--size: '1x2x3' must be pixels"),
        (["trace", "lenet", "--depth", "-1"], "--depth: '-1' must be a whole number from 1"),
        (["trace", "alexnet", "--size", "28"], "alexnet does not take images of 1x28x28: "),
        (
            ["trace", "lenet", "--size", "32"],
            "in 7 (Linear), the weight takes 400 features, but the input has 576. Try --size 28",
        ),
        (["train", "alexnet", "--size", "28"], "alexnet does not take images of 1x28x28: "),
        (["train", "lenet", "--lr", "-1"], "lr=-1.0 must be a finite number above 0"),
        (["train", "lenet", "--precision", "fp8"], "--precision: invalid choice: 'fp8'"),
        (
            ["train", "lenet", "--checkpoint", "/no/such/x.pt"],
            "checkpoint='/no/such/x.pt' must be a file in a folder",
        ),
        (["train", "lenet", "--record", "/no/such/x.json"], "'/no/such/x.json' must be a file in"),
        (
            ["train", "lenet", "--epochs", "0"],
            "epochs=0 must be a whole number from 1 to 1,000,000: try ",
        ),
        (["bench", "--models", "unet"], "'unet' must classify images, not pixels: try lenet"),
        (["leaderboard", "--models", "dilated_net"], "'dilated_net' must classify images"),
        (["leaderboard", "--seeds", "0"], "--seeds: '0' must be a whole number from 1"),
        (
            ["train", "resnet18", "--train", "33", "--batch-size", "16", "--size", "32"],
            "batch normalisation needs more than one value per channel: try --batch-size 15 "
            "or --train 32",
        ),
        (["train"], "the following arguments are required: MODEL"),
        (["fly"], "invalid choice: 'fly'"),
        ([], "the following arguments are required"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(capsys, argv, message):
    code, out, err = run(capsys, *argv)
    assert code == 2
    assert out.startswith("drawn: ") or out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("cnnlib: ")
    assert message in err


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "batch_size=25 must be whole: try batch_size=24",
            "batch_size=25 must be whole: try --bat",
        ),
        ("device='gpu' must be there: try device='cpu'", "device='gpu' must be there: try --devic"),
        (
            "height=30 must be a multiple of 16. Try --size 64",
            "height=30 must be a multiple of 16.",
        ),
        ("count=40 must be less: try count=39", "count=40 must be less: try count=39"),
    ],
)
def test_a_remedy_is_what_one_types(message, expected):
    found = command._with_options(message)
    assert found.startswith(expected)
    assert found.count("=") == message.count("=") - ("--" in expected)


def test_data_says_where_the_archives_lie(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "fetch", lambda root: root)
    code, out, _ = run(capsys, "data", "--root", tmp_path)
    assert code == 0
    assert f"verified, in {tmp_path}\n" in out
    code, out, _ = run(capsys, "data", "--root", tmp_path, "--json")
    assert json.loads(out)["folder"] == str(tmp_path)
    assert json.loads(out)["images"] == {"train": 60_000, "test": 10_000}


@pytest.mark.parametrize("error", [OSError("disk full"), TimeoutError("server down")])
def test_data_that_cannot_be_had(capsys, monkeypatch, tmp_path, error):
    def fetch(root):
        raise error

    monkeypatch.setattr(command, "fetch", fetch)
    code, _, err = run(capsys, "data", "--root", tmp_path)
    assert code == 1
    assert err == f"cnnlib: Fashion-MNIST could not be found or downloaded: {error}\n"


def test_train_prints_rows_and_leaves_checkpoint_and_log(capsys, tmp_path):
    weights, log = tmp_path / "net.pt", tmp_path / "log.json"
    code, out, _ = run(capsys, *TINY, "--checkpoint", weights, "--record", log)
    assert code == 0
    assert sum(line.split()[:1] in (["1"], ["2"]) for line in out.splitlines()) == 2
    assert f"are in {weights}" in out
    assert f"is in {log}" in out
    models.lenet().load_state_dict(read(weights))
    record = json.loads(log.read_text())
    assert [row["epoch"] for row in record["rows"]] == [1, 2]
    assert record["recipe"]["batch_size"] == 16
    assert record["recipe"]["lr"] == MODELS["lenet"].recipe.lr


def test_a_checkpoint_is_continued(capsys, tmp_path):
    weights = tmp_path / "net.pt"
    argv = [*TINY, "--checkpoint", weights]
    run(capsys, *argv, "--epochs", 1)
    code, out, _ = run(capsys, *argv)
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines if line.split()[0] in "12"] == ["1", "2"]
    assert lines.index("continuing after epoch 1") == len(lines) - 4  # a row and two of summary
    record = json.loads(run(capsys, *argv, "--json")[1])
    assert record["losses"] == json.loads(run(capsys, *TINY, "--json")[1])["losses"]


def test_a_checkpoint_of_another_training_is_refused_in_one_line(capsys, tmp_path):
    weights = tmp_path / "net.pt"
    run(capsys, *TINY, "--checkpoint", weights)
    code, _, err = run(capsys, *TINY, "--checkpoint", weights, "--momentum", 0.5)
    assert code == 2
    assert "with momentum=0.0, not 0.5: try another file, or the same momentum" in err
    code, _, err = run(capsys, *TINY, "--checkpoint", weights, "--epochs", 1)
    assert code == 2
    assert err.endswith(": try --epochs 2, or another file\n")


def test_weights_that_are_not_saved_are_not_announced(capsys, monkeypatch, tmp_path):
    measure = command.fit.__globals__["_measure"]
    spoilt = lambda *arguments: dataclasses.replace(measure(*arguments), loss=float("nan"))  # noqa: E731
    monkeypatch.setitem(command.fit.__globals__, "_measure", spoilt)
    log = tmp_path / "log.json"
    code, out, err = run(capsys, *TINY, "--checkpoint", tmp_path / "net.pt", "--record", log)
    assert code == 1
    assert "cnnlib: the test loss is nan: try a smaller --lr" in err
    assert "after epoch 2 of 2" in out
    assert "are in" not in out
    assert list(tmp_path.iterdir()) == [log]
    record = json.loads(log.read_text(), parse_constant=pytest.fail)  # JSON has no NaN
    assert [row["test_loss"] for row in record["rows"]] == [None, None]


def test_a_record_does_not_replace_the_checkpoint(capsys, tmp_path):
    code, _, err = run(capsys, *TINY, "--checkpoint", tmp_path / "a", "--record", tmp_path / "a")
    assert (code, "--record must name another file than --checkpoint" in err) == (2, True)
    assert not list(tmp_path.iterdir())


def test_with_json_standard_output_is_json_alone(capsys):
    code, out, err = run(capsys, *TINY, "--json")
    assert code == 0
    assert json.loads(out)["model"] == "lenet"
    assert "train loss" in err


def test_the_seed_decides_weights_and_order(capsys):
    runs = [json.loads(run(capsys, *TINY, "--json", "--seed", seed)[1]) for seed in (1, 1, 2)]
    assert runs[0]["losses"] == runs[1]["losses"] != runs[2]["losses"]


@pytest.mark.parametrize("wanted", [True, False])
def test_a_network_is_compiled_only_on_request(capsys, monkeypatch, wanted):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    assert run(capsys, *TINY, *["--compile"] * wanted)[0] == 0
    assert len(compiled) == wanted


def test_segmenters_train_on_scenes(capsys, monkeypatch):
    asked = []

    def scenes(size, batch_size, **options):
        asked.append((size, batch_size))
        raise ValueError("enough")

    monkeypatch.setattr(command, "fashion_scenes", scenes)
    assert run(capsys, "train", "unet")[0] == 2
    assert asked == [(64, 64)]


def test_a_net_that_diverges_keeps_what_came_before(capsys, tmp_path):
    log = tmp_path / "log.json"
    code, out, err = run(capsys, *TINY, "--lr", "1e38", "--momentum", "0.9", "--record", log)
    assert code == 1
    assert err.startswith("cnnlib: the loss is nan in epoch ") or "the loss is inf" in err
    assert len(err.splitlines()) == 1
    assert "epoch" in out
    assert json.loads(log.read_text())["stop"].startswith("the loss is ")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_a_net_that_does_not_fit_in_memory(capsys, monkeypatch, tmp_path, error):
    """In the second epoch, so that one is kept."""
    epochs, log = [], tmp_path / "log.json"
    measure = command.fit.__globals__["_measure"]

    def failing(*arguments):
        epochs.append(1)
        if len(epochs) == 2:
            raise error
        return measure(*arguments)

    monkeypatch.setitem(command.fit.__globals__, "_measure", failing)
    code, out, err = run(capsys, *TINY, "--record", log)
    assert code == 1
    assert err == (
        "cnnlib: lenet with batches of 16 images of 28x28 does not fit in the memory of cpu: "
        "try --batch-size 8\n"
    )
    assert "after epoch 1 of 2" in out
    assert len(json.loads(log.read_text())["rows"]) == 1


def test_the_cpus_own_words_for_no_memory():
    with pytest.raises(RuntimeError) as refusal:
        torch.empty(10**15)
    assert command._out_of_memory(refusal.value)


def test_other_errors_are_not_hidden(monkeypatch):
    def fit(*arguments, **options):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(command, "fit", fit)
    with pytest.raises(RuntimeError, match="of ours"):
        command.main(TINY)


CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
sys.path[:0] = [{tests!r}]
import test_main
from cnnlib import __main__ as command
command.fashion_mnist = test_main.drawn
sys.exit(command.main(sys.argv[1:]))
"""


def child(*argv, **options):
    """Start a process that runs the command on drawn data."""
    script = CHILD.format(tests=os.path.dirname(__file__))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", script, *map(str, argv)], **pipes, **options)


def test_ctrl_c_ends_with_one_message_and_keeps_the_epochs(tmp_path):
    log = tmp_path / "log.json"
    argv = ["train", "lenet", "--epochs", 100_000, "--train", 32, "--test", 10, "--record", log]
    process = child(*argv)
    try:
        lines = [process.stdout.readline() for _ in range(5)]
        assert lines[-1].split()[0] == "2"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "cnnlib: stopped by a signal (Ctrl-C or SIGTERM)"
    assert "of 100000" in out
    record = json.loads(log.read_text())
    assert record["interrupted"]
    assert len(record["rows"]) >= 2


def test_a_loss_that_diverges_ends_a_measurement_in_one_line(capsys, monkeypatch, tmp_path):
    def diverge(*arguments, **options):
        raise DivergenceError("the loss is nan: try a smaller lr")

    monkeypatch.setattr("cnnlib.measure.ablation.ablate", diverge)
    code, out, err = run(capsys, "ablation", "--folder", tmp_path)
    assert (code, out, err) == (1, "", "cnnlib: the loss is nan: try a smaller lr\n")


@pytest.mark.parametrize("command", [["bench", "--models", "lenet"], ["leaderboard"], ["ablation"]])
def test_a_folder_that_is_a_file_is_refused_before_anything_is_measured(capsys, tmp_path, command):
    file = tmp_path / "table.json"
    file.touch()
    code, _, err = run(capsys, *command, "--folder", file)
    assert code == 2
    assert f"'{file}' must be a folder: try my_results" in err


def test_the_module_is_a_command():
    call = [sys.executable, "-m", "cnnlib", "trace", "resnett18"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "did you mean resnet18" in done.stderr
    assert "Traceback" not in done.stderr

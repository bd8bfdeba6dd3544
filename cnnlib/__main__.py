"""The command line: python -m cnnlib data | trace | train | bench | leaderboard | ablation."""

import argparse
import contextlib
import dataclasses
import difflib
import functools
import json
import os
import re
import signal
import sys
from pathlib import Path

import torch

from cnnlib import models
from cnnlib.backend import lost_a_process, processes
from cnnlib.data import fashion_mnist, fashion_scenes
from cnnlib.data.mnist import COUNTS, UNPACKED_MD5, data_folder, fetch
from cnnlib.measure import ablation, bench, leaderboard
from cnnlib.recipes import recipe
from cnnlib.trace import trace
from cnnlib.train import Diverged, History, fit, sgd

SEGMENTERS = {"dilated_net", "unet"}  # they give a class to every pixel, and train on scenes
FAILED, WRONG_CALL, INTERRUPTED = 1, 2, 130
STOPPED = "stopped by a signal (Ctrl-C or SIGTERM)"


def main(argv=None):
    """Run one command.

    With --json, standard output holds one JSON value and all else goes to standard error.

    Returns:
        The exit code: 0 done, 1 stopped by what happened in the run, 2 wrong call, 130 Ctrl-C.
    """
    arguments = parser().parse_args(argv)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    aside = contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext()
    try:
        with aside:
            text, record, code = arguments.run(arguments)
        if first:
            print(json.dumps(record, indent=1) if arguments.json else text, flush=True)
        return code
    except ValueError as error:
        return say(as_options(str(error)), WRONG_CALL)
    except BrokenPipeError:  # who reads our output, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not out_of_memory(error):
            raise
        return say(error, FAILED)
    except KeyboardInterrupt:
        return say(STOPPED, INTERRUPTED)


def say(message, code):
    """Print why a command ends, and return the exit code. Of several processes the first speaks."""
    if os.environ.get("RANK", "0") == "0":
        print(f"cnnlib: {message}", file=sys.stderr, flush=True)
    return code


OPTIONS = ("train", "test", "batch_size", "size", "lr", "epochs", "momentum", "seed", "device")


def as_options(message):
    """Return a refusal whose remedy is what one types here: --batch-size 64 for batch_size=64."""
    said, tries, remedy = message.rpartition(": try ")
    option = lambda match: f"--{match[1].replace('_', '-')} {match[2]}"  # noqa: E731
    found = rf"\b({'|'.join(OPTIONS)})='?([\w.:-]+)'?"
    return said + tries + (re.sub(found, option, remedy) if tries else remedy)


# The commands. Each returns its text, the same as data for --json, and the exit code.


def run_data(arguments):
    """Fetch the archives, verify them, and say where they lie."""
    try:
        raw = fetch(data_folder(arguments.root)) / "FashionMNIST" / "raw"
    except (OSError, RuntimeError) as error:  # no network, a full disk, a server that is down
        raise OSError(f"Fashion-MNIST could not be found or downloaded: {error}") from error
    record = {"folder": str(raw), "images": COUNTS, "md5": UNPACKED_MD5}
    counts = " and ".join(f"{count:,} {part}" for part, count in COUNTS.items())
    return f"Fashion-MNIST, {counts} images, verified, in {raw}", record, 0


def run_trace(arguments):
    """Print the per-layer table of a model."""
    net = getattr(models, arguments.model)(in_channels=arguments.channels)
    sides = arguments.size or (recipe(arguments.model).size,) * 2
    table = checked_trace(arguments.model, net, (arguments.channels, *sides), arguments.depth)
    totals = {"total_params": table.total_params, "total_macs": table.total_macs}
    return str(table), dataclasses.asdict(table) | totals, 0


def run_train(arguments):
    """Train a model on Fashion-MNIST, or on scenes made of it, in one process or in several."""
    with processes() as rank:
        return train_model(arguments, rank)


def train_model(arguments, rank):
    """Train in this process, number `rank`. The first one reports and writes."""
    usual = recipe(arguments.model)
    load = fashion_scenes if arguments.model in SEGMENTERS else fashion_mnist
    counts = {part: getattr(arguments, part) for part in COUNTS if getattr(arguments, part)}
    data = load(
        arguments.size or usual.size,
        arguments.batch_size or usual.batch_size,
        **counts,
        device=arguments.device,
        seed=arguments.seed,
    )
    if rank == 0:
        print(data)
    torch.manual_seed(arguments.seed)
    net = getattr(models, arguments.model)(data.shape[0], len(data.classes))
    checked_trace(arguments.model, net, data.shape, depth=1)
    if arguments.compile:
        net.compile()
    momentum = usual.momentum if arguments.momentum is None else arguments.momentum
    stop, code = "", 0
    try:
        history = fit(
            net,
            data,
            arguments.epochs,
            usual.lr if arguments.lr is None else arguments.lr,
            optimizer=functools.partial(sgd, momentum=momentum),
            seed=arguments.seed,
            precision=arguments.precision,
            checkpoint=arguments.checkpoint,
        )
        if history.interrupted:
            stop, code = STOPPED, INTERRUPTED
    except (Diverged, RuntimeError) as error:
        history, code = getattr(error, "history", History()), FAILED
        stop = str(error)
        if out_of_memory(error):
            stop = (
                f"{arguments.model} with batches of {data.train.batch_size} images of "
                f"{data.shape[1]}x{data.shape[2]} does not fit in the memory of {data.device}: "
                f"try --batch-size {max(1, data.train.batch_size // 2)}"
            )
        elif lost_a_process(error):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends us, too: report first
            stop = "another process of this run has ended, so training stops"
        elif not isinstance(error, Diverged):
            raise
    if stop:
        say(stop, code)
    record = dataclasses.asdict(history) | {"model": arguments.model, "stop": stop}
    if arguments.record and rank == 0:
        bench.write_json(arguments.record, record)
    return summary(arguments, history), record, code


def run_bench(arguments):
    """Measure our training loop beside another one."""
    print(bench.HEADER)
    record, path = bench.bench(
        arguments.models,
        arguments.against,
        arguments.rounds,
        arguments.epochs,
        arguments.batches,
        arguments.seed,
        arguments.folder,
    )
    return f"The table is in {path}", record, 0


def run_leaderboard(arguments):
    """Measure networks alike: cost, speed, and accuracy with several seeds."""
    budget = leaderboard.CLASSIC if arguments.budget == "classic" else leaderboard.QUICK
    changed = {
        name: value
        for name in ("train", "test", "epochs", "seeds")
        if (value := getattr(arguments, name))
    }
    budget = dataclasses.replace(budget, **changed)
    board = leaderboard.Leaderboard(budget, leaderboard.limits(device_type()))
    path, old = bench.resume(
        arguments.folder / f"leaderboard_{arguments.budget}_{device_type()}.json",
        board.about,
        budget=dataclasses.asdict(budget),
    )
    board = leaderboard.Leaderboard.from_record(old) if old else board
    for name in arguments.models:
        build, size = leaderboard.NETWORKS.get(name) or (getattr(models, name), None)
        board.add(name, build, size)
        board.write(path)
    return f"{board}\nThe table is in {path}", dataclasses.asdict(board), 0


def run_ablation(arguments):
    """Train by the best recipe, and without each of its ingredients."""
    counts = {part: getattr(arguments, part) for part in COUNTS if getattr(arguments, part)}
    data = fashion_mnist(28, 128, **counts)
    kind = "heldout" if arguments.held_out else "ablation"
    rate = "" if arguments.lr == ablation.LR else f"_lr{arguments.lr:g}"
    images = len(data.train.labels) - arguments.held_out
    name = f"{kind}_width{arguments.width}{rate}_{images}_{device_type()}.json"
    record, path = ablation.ablate(
        f"small_resnet, width {arguments.width}",
        functools.partial(models.small_resnet, width=arguments.width),
        data,
        arguments.epochs,
        arguments.lr,
        arguments.seeds,
        arguments.folder / name,
        [part for part in arguments.without if part != "nothing"],
        arguments.held_out,
    )
    return f"{ablation.table(record)}\nThe record is in {path}", record, 0


def device_type():
    """Return the kind of device on which a command trains."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def summary(arguments, history):
    """Say what a training leaves, finished or not."""
    if not history.rows:
        return "No epoch was completed."
    lines = [
        f"{arguments.model}: test accuracy {history.last['test_accuracy']:.4f} "
        f"after epoch {history.last['epoch']} of {arguments.epochs}"
    ]
    if arguments.checkpoint:
        lines.append(f"The weights after that epoch are in {arguments.checkpoint}")
    if arguments.record:
        lines.append(f"The record is in {arguments.record}")
    return "\n".join(lines)


def checked_trace(model, net, shape, depth):
    """Trace a network, and refuse in one line a shape that it does not take."""
    try:
        return trace(net, shape, depth)
    except ValueError as error:
        reason = str(error).splitlines()[-1].removeprefix("The error: ")
        size = recipe(model).size
        raise ValueError(
            f"{model} does not take images of {'x'.join(map(str, shape))}: {reason.rstrip('.')}. "
            f"Try --size {size}"
        ) from error


def out_of_memory(error):
    """Tell whether a device had no memory left; a CPU says so in words only."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


# The arguments


class Parser(argparse.ArgumentParser):
    """A parser whose refusals are one line."""

    def error(self, message):
        """Print why the call is wrong, and leave."""
        self.exit(WRONG_CALL, f"cnnlib: {message}. See {self.prog} --help\n")


def parser():
    """Build the parser of the command line."""
    top = Parser(prog="python -m cnnlib", description="Convolutional networks on Fashion-MNIST.")
    commands = top.add_subparsers(
        dest="command",
        required=True,
        metavar="data | trace | train | bench | leaderboard | ablation",
    )

    data = commands.add_parser("data", help="fetch Fashion-MNIST, verify it, say where it lies")
    data.add_argument("--root", help="a folder for it (default: CNNLIB_DATA or the user's cache)")
    data.set_defaults(run=run_data)

    table = commands.add_parser("trace", help="print the per-layer table of a model")
    table.add_argument("model", type=model_name, metavar="MODEL")
    table.add_argument("--size", type=sides, metavar="N", help="pixels, such as 96 or 96x128")
    table.add_argument("--channels", type=whole, default=1, metavar="N", help="1 grey, 3 colour")
    table.add_argument("--depth", type=whole, metavar="N", help="how many calls deep; default: all")
    table.set_defaults(run=run_trace)

    train = commands.add_parser("train", help="train a model; defaults are its usual recipe")
    train.add_argument("model", type=model_name, metavar="MODEL")
    train.add_argument("--epochs", type=whole, default=10, metavar="N")
    train.add_argument("--lr", type=float, metavar="X", help="learning rate")
    train.add_argument("--momentum", type=float, metavar="X")
    train.add_argument("--batch-size", type=whole, metavar="N")
    train.add_argument("--size", type=sides, metavar="N", help="pixels, such as 96 or 96x128")
    train.add_argument("--train", type=whole, metavar="N", help="training images to keep")
    train.add_argument("--test", type=whole, metavar="N", help="test images to keep")
    train.add_argument("--seed", type=int, default=0, metavar="N")
    train.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    train.add_argument("--compile", action="store_true", help="torch.compile the network first")
    train.add_argument("--device", metavar="NAME", help="such as cpu or cuda:1")
    train.add_argument("--checkpoint", type=new_file, metavar="PATH", help="weights, each epoch")
    train.add_argument("--record", type=new_file, metavar="PATH", help="the record, as JSON")
    train.set_defaults(run=run_train)

    measure = commands.add_parser("bench", help="measure our training loop beside another one")
    measure.add_argument("--models", type=model_name, nargs="+", required=True, metavar="MODEL")
    measure.add_argument("--against", choices=("d2l", "strong"), default="d2l")
    measure.add_argument("--rounds", type=whole, default=3, metavar="N", help="warm runs of each")
    measure.add_argument("--epochs", type=whole, default=1, metavar="N")
    measure.add_argument("--batches", type=whole, metavar="N", help="in an epoch; default: all")
    measure.add_argument("--seed", type=int, default=0, metavar="N")
    measure.add_argument("--folder", default="my_results", metavar="PATH", help="for the JSON file")
    measure.set_defaults(run=run_bench)

    board = commands.add_parser("leaderboard", help="measure networks: cost, speed, accuracy")
    board.add_argument(
        "--models", type=board_name, nargs="+", default=leaderboard.NETWORKS, metavar="MODEL"
    )
    board.add_argument("--budget", choices=("classic", "quick"), default="quick")
    board.set_defaults(run=run_leaderboard, epochs=None, seeds=None)

    worth = commands.add_parser("ablation", help="what each part of the best recipe is worth")
    worth.add_argument("--width", type=whole, default=16, metavar="N", help="of small_resnet")
    worth.add_argument(
        "--without",
        nargs="+",
        choices=("nothing", *ablation.INGREDIENTS),
        default=ablation.INGREDIENTS,
        metavar="INGREDIENT",
        help="to be left out in turn, after the whole recipe: flip, crop, ...; or nothing",
    )
    worth.add_argument(
        "--held-out", type=whole, default=0, metavar="N", help="measure by N training images"
    )
    worth.add_argument("--lr", type=float, default=ablation.LR, metavar="X", help="learning rate")
    worth.set_defaults(run=run_ablation, epochs=10, seeds=5)

    for command in (board, worth):
        command.add_argument("--epochs", type=whole, metavar="N")
        command.add_argument("--seeds", type=whole, metavar="N")
        command.add_argument("--train", type=whole, metavar="N", help="training images to keep")
        command.add_argument("--test", type=whole, metavar="N", help="test images to keep")
        command.add_argument("--folder", type=Path, default="my_results", metavar="PATH")

    for command in (data, table, train, measure, board, worth):
        command.add_argument("--json", action="store_true", help="print JSON")
    return top


def model_name(text):
    """Return the name of a model of ours."""
    if text not in models.__all__:
        near = difflib.get_close_matches(text, models.__all__, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}" if near else f"try {', '.join(models.__all__)}"
        raise argparse.ArgumentTypeError(f"there is no {text!r}: {hint}")
    return text


def board_name(text):
    """Return the name of a network of the leaderboard, or of another model of ours."""
    return text if text in leaderboard.NETWORKS else model_name(text)


def whole(text):
    """Return a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1")
    return int(text)


def sides(text):
    """Return (height, width) from "96" or "96x128"."""
    numbers = text.split("x")
    if len(numbers) > 2 or not all(n.isdecimal() and int(n) for n in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} must be pixels, such as 96 or 96x128")
    return int(numbers[0]), int(numbers[-1])


def new_file(text):
    """Return the path of a file that can be written: its folder is there."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} must be a file in a folder that exists")
    return path


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is done is kept
    sys.exit(main())

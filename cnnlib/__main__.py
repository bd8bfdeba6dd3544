"""The command line: data | trace | train | record | bench | leaderboard | ablation | doctor."""

import argparse
import contextlib
import dataclasses
import difflib
import functools
import json
import math
import os
import re
import signal
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from torch.utils._pytree import tree_map

from cnnlib.backend import distributed, peer_failed
from cnnlib.data import fashion_mnist, fashion_scenes
from cnnlib.data._files import MD5, fetch
from cnnlib.data.mnist import COUNTS
from cnnlib.models import MODELS
from cnnlib.trace import trace
from cnnlib.train import DivergenceError, History, fit, sgd

# Only the commands that need the extra `measure` import it, so the others start sooner.

FAILED, WRONG_CALL, INTERRUPTED = 1, 2, 130
STOPPED = "stopped by a signal (Ctrl-C or SIGTERM)"


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    With --json, standard output holds one JSON value and everything else goes to standard error.

    Returns:
        The exit code: 0 for success, 1 for a failed run, 2 for a wrong call, 130 for Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    aside = contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext()
    try:
        with aside:
            text, record, code = arguments.run(arguments)
        if _is_first_process():
            print(json.dumps(record, indent=1) if arguments.json else text, flush=True)
        return code
    except ValueError as error:
        return _say(_with_options(str(error)), WRONG_CALL)
    except BrokenPipeError:  # the reader of our output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (DivergenceError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _out_of_memory(error):
            raise
        return _say(error, FAILED)
    except KeyboardInterrupt:
        return _say(STOPPED, INTERRUPTED)


def _is_first_process():
    """Return whether this is rank 0 of the processes that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def _say(message, code):
    """Print why a command ends, in the first process only, and return the exit code."""
    if _is_first_process():
        print(f"cnnlib: {message}", file=sys.stderr, flush=True)
    return code


def _with_options(message):
    """Return a refusal whose remedy can be typed here: --batch-size 64 for batch_size=64."""
    names = "train|test|batch_size|size|lr|epochs|momentum|seed|device|batches|held_out"
    said, tries, remedy = message.rpartition(": try ")

    def option(match):
        return f"--{match[1].replace('_', '-')} {match[2]}"

    return (
        said + tries + re.sub(rf"\b({names})='?([\w.:-]+)'?", option, remedy) if tries else message
    )


# The commands. Each returns its text, the same content for --json, and the exit code.


def _data(arguments):
    """Fetch and verify the files of Fashion-MNIST, and report where they are."""
    try:
        raw = fetch(arguments.root)
    except OSError as error:  # no network, a full disk, a server that is down
        raise OSError(f"Fashion-MNIST could not be found or downloaded: {error}") from error
    record = {"folder": str(raw), "images": COUNTS, "md5": MD5}
    counts = " and ".join(f"{count:,} {part}" for part, count in COUNTS.items())
    return f"Fashion-MNIST, {counts} images, verified, in {raw}", record, 0


def _trace(arguments):
    """Print the per-layer table of a model."""
    model = MODELS[arguments.model]
    net = model.build(in_channels=arguments.channels)
    sides = arguments.size or (model.recipe.size, model.recipe.size)
    table = _checked_trace(arguments.model, net, (arguments.channels, *sides), arguments.depth)
    totals = {"total_params": table.total_params, "total_macs": table.total_macs}
    return str(table), dataclasses.asdict(table) | totals, 0


def _train(arguments):
    """Train a model on Fashion-MNIST or on scenes made of it, in one or several processes."""
    with distributed() as rank:
        return _train_in_process(arguments, rank)


def _train_in_process(arguments, rank):
    """Train in the process `rank`. Only rank 0 reports and writes."""
    files = [os.path.realpath(path) for path in (arguments.record, arguments.checkpoint) if path]
    if len(set(files)) < len(files):
        raise ValueError("--record must name another file than --checkpoint: try --record r.json")
    model = MODELS[arguments.model]
    recipe = dataclasses.replace(
        model.recipe, **_given(arguments, "size", "batch_size", "lr", "momentum")
    )
    load = fashion_scenes if model.family == "segmentation" else fashion_mnist
    counts = _given(arguments, *COUNTS)
    data = load(
        recipe.size, recipe.batch_size, **counts, device=arguments.device, seed=arguments.seed
    )
    if rank == 0:
        print(data)
    torch.manual_seed(arguments.seed)
    net = model.build(data.shape[0], len(data.classes))
    _checked_trace(arguments.model, net, data.shape, depth=1)
    if arguments.compile:
        net.compile()
    stop, code = "", 0
    try:
        history = fit(
            net,
            data,
            arguments.epochs,
            recipe.lr,
            optimizer=functools.partial(sgd, momentum=recipe.momentum),
            seed=arguments.seed,
            precision=arguments.precision,
            checkpoint=arguments.checkpoint,
        )
        if history.interrupted:
            stop, code = STOPPED, INTERRUPTED
    except (DivergenceError, OSError, RuntimeError, ValueError) as error:  # OSError: a full disk
        if isinstance(error, ValueError) and not hasattr(error, "history"):
            raise  # a refusal, before the first step
        history, stop, code = getattr(error, "history", History()), str(error), FAILED
        if _out_of_memory(error):
            stop = (
                f"{arguments.model} with batches of {data.train.batch_size} images of "
                f"{data.shape[1]}x{data.shape[2]} does not fit in the memory of {data.device}: "
                f"try --batch-size {max(1, data.train.batch_size // 2)}"
            )
        elif peer_failed(error):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends this one, too
            stop = "another process of this run has ended, so training stops"
        elif isinstance(error, BrokenPipeError | RuntimeError):
            raise
    if not stop and history.rows and not math.isfinite(history.last.test_loss):
        stop, code = f"the test loss is {history.last.test_loss}: try a smaller --lr", FAILED
    if stop:
        _say(stop, code)
    record = _as_json(dataclasses.asdict(history) | {"model": arguments.model, "stop": stop})
    if arguments.record and rank == 0:
        from cnnlib.measure.records import write_json

        write_json(arguments.record, record)
    return _summary(arguments, history), record, code


def _summary(arguments, history):
    """Return a summary of a training run, complete or not."""
    if not history.rows:
        return "No epoch was completed."
    lines = [
        f"{arguments.model}: test accuracy {history.last.test_accuracy:.4f} "
        f"after epoch {history.last.epoch} of {arguments.epochs}"
    ]
    if arguments.checkpoint and Path(arguments.checkpoint).exists():
        lines.append(f"The weights of the last epoch that was saved are in {arguments.checkpoint}")
    if arguments.record:
        lines.append(f"The record is in {arguments.record}")
    return "\n".join(lines)


def _bench(arguments):
    """Compare the speed of our training loop with that of another one."""
    from cnnlib.measure import bench

    print(bench.HEADER)
    options = _given(arguments, "against", "rounds", "epochs", "batches", "seed", "folder")
    record, path = bench.bench(arguments.models, **options)
    return f"The table is in {path}", record, 0


def _leaderboard(arguments):
    """Measure the cost, the speed, and over several seeds the accuracy of networks."""
    from cnnlib.measure import leaderboard, machine

    changed = _given(arguments, *COUNTS, "epochs", "seeds")
    protocol = dataclasses.replace(leaderboard.PROTOCOLS[arguments.protocol], **changed)
    file = f"leaderboard_{arguments.protocol}_{machine.device_type()}.json"
    board, path = leaderboard.Leaderboard.resume(Path(arguments.folder, file), protocol)
    for name in arguments.models:
        board.add(name)
        board.write(path)
    return f"{board}\nThe table is in {path}", dataclasses.asdict(board), 0


def _ablation(arguments):
    """Train by the best recipe and without each of its ingredients."""
    from cnnlib.measure import ablation, machine

    data = fashion_mnist(28, 128, **_given(arguments, *COUNTS))
    lr = ablation.LR if arguments.lr is None else arguments.lr
    kind = "heldout" if arguments.held_out else "ablation"
    rate = "" if lr == ablation.LR else f"_lr{lr:g}"
    images = len(data.train.labels) - arguments.held_out
    file = f"{kind}_width{arguments.width}{rate}_{images}_{machine.device_type()}.json"
    without = arguments.without or ablation.INGREDIENTS
    record, path = ablation.ablate(
        f"small_resnet, width {arguments.width}",
        functools.partial(MODELS["small_resnet"].build, width=arguments.width),
        data,
        arguments.epochs,
        lr,
        seeds=arguments.seeds,
        path=Path(arguments.folder, file),
        left_out=[part for part in without if part != "nothing"],
        held_out=arguments.held_out,
    )
    return f"{ablation.table(record)}\nThe record is in {path}", record, 0


def _record(arguments):
    """Run what the records of the notebooks' experiments are missing."""
    from cnnlib.measure import recording

    budget, folder = arguments.budget, arguments.folder
    found = [each for each in recording.find(arguments.names) if budget in each.plans]
    if not arguments.list:
        recording.complete(found, budget, folder, **_given(arguments, "minutes"))
    record = {each.name: recording.status(each, budget, folder) for each in found}
    return "\n\n".join(record.values()) or f"No experiment has a {budget} plan.", record, 0


def _doctor(arguments):
    """Check that this machine is ready for the course, and say what is missing."""
    from cnnlib.measure import doctor

    findings = doctor.examine()
    code = 0 if all(finding.fine for finding in findings) else FAILED
    text = "\n".join(map(str, findings))
    return text, [dataclasses.asdict(finding) for finding in findings], code


def _given(arguments, *names):
    """Return the options with these names that have a value."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def _checked_trace(name, net, shape, depth):
    """Trace a network; if it does not accept the shape, refuse it in one line."""
    try:
        return trace(net, shape, depth)
    except ValueError as error:
        reason = str(error).splitlines()[-1].removeprefix("The error: ").rstrip(".")
        layer = re.match(r"\S+ \(\w+\)(?= got )", str(error))  # none if the network itself refuses
        raise ValueError(
            f"{name} does not take images of {'x'.join(map(str, shape))}: "
            f"{f'in {layer[0]}, ' if layer else ''}{reason}. Try --size {MODELS[name].recipe.size}"
        ) from error


def _as_json(record):
    """Return a record with null for what is infinite or NaN, which JSON cannot hold."""

    def finite(value):
        return value if not isinstance(value, float) or math.isfinite(value) else None

    return tree_map(finite, record)


def _out_of_memory(error):
    """Return whether a device ran out of memory, which on a CPU only the message tells."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


# The arguments


class _Parser(argparse.ArgumentParser):
    """A parser whose refusals are one line."""

    def error(self, message):
        """Print why the call is wrong, and exit."""
        self.exit(WRONG_CALL, f"cnnlib: {message}. See {self.prog} --help\n")


def _parser():
    """Build the parser of the command line."""
    top = _Parser(prog="python -m cnnlib", description="Convolutional networks on Fashion-MNIST.")
    top.add_argument("--version", action="version", version=f"cnnlib {version('cnnlib')}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, text):
        parser = commands.add_parser(name, help=text, description=text)
        parser.add_argument("--json", action="store_true", help="print JSON instead of text")
        parser.set_defaults(run=run)
        return parser.add_argument

    option = command("data", _data, "download and verify Fashion-MNIST, and print where it is")
    option("--root", metavar="PATH", help="folder (default: CNNLIB_DATA or the user's cache)")

    option = command("trace", _trace, "print the per-layer table of a model")
    option("model", type=_model_name, metavar="MODEL")
    option("--size", type=_sides, metavar="N", help="pixels, such as 96 or 96x128")
    option("--channels", type=_count, default=1, metavar="N", help="1 for grey, 3 for colour")
    option("--depth", type=_count, metavar="N", help="levels of modules to show (default: all)")

    option = command("train", _train, "train a model, by default with its usual recipe")
    option("model", type=_model_name, metavar="MODEL")
    option("--epochs", type=int, default=10, metavar="N")
    option("--lr", type=float, metavar="X", help="learning rate")
    option("--momentum", type=float, metavar="X")
    option("--batch-size", type=int, metavar="N")
    option("--size", type=_sides, metavar="N", help="pixels, such as 96 or 96x128")
    option("--train", type=int, metavar="N", help="training images to keep")
    option("--test", type=int, metavar="N", help="test images to keep")
    option("--seed", type=int, default=0, metavar="N")
    option("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    option("--compile", action="store_true", help="apply torch.compile to the network")
    option("--device", metavar="NAME", help="device, such as cpu or cuda:1")
    option(
        "--checkpoint", metavar="PATH", help="file to continue from and to write after each epoch"
    )
    option("--record", type=_new_file, metavar="PATH", help="where to write the record, as JSON")

    option = command("bench", _bench, "compare the speed of our training loop with another one")
    option("--models", type=_classifier_name, nargs="+", required=True, metavar="MODEL")
    option("--against", choices=("d2l", "strong"), default="d2l")
    option("--rounds", type=_count, default=3, metavar="N", help="warm runs per loop")
    option("--epochs", type=_count, default=1, metavar="N")
    option("--batches", type=int, metavar="N", help="batches per epoch (default: all)")
    option("--seed", type=int, default=0, metavar="N")
    option("--folder", type=_folder, default="my_results", metavar="PATH", help="for the table")

    option = command("leaderboard", _leaderboard, "measure cost, speed and accuracy of models")
    on_board = [name for name, model in MODELS.items() if model.on_board]
    option("--models", type=_classifier_name, nargs="+", default=on_board, metavar="MODEL")
    option("--protocol", choices=("classic", "small"), default="small")
    option("--epochs", type=_count, metavar="N")
    option("--seeds", type=_count, metavar="N", help="training runs per model")
    option("--train", type=int, metavar="N", help="training images to keep")
    option("--test", type=int, metavar="N", help="test images to keep")
    option("--folder", type=_folder, default="my_results", metavar="PATH", help="for the table")

    option = command("ablation", _ablation, "measure what each part of the best recipe is worth")
    option("--width", type=_count, default=16, metavar="N", help="width of small_resnet")
    option("--without", nargs="+", metavar="PART", help="leave out each (default: all), or nothing")
    option("--held-out", type=_count, default=0, metavar="N", help="test on N training images")
    option("--lr", type=float, metavar="X", help="highest learning rate")
    option("--epochs", type=_count, default=10, metavar="N")
    option("--seeds", type=_count, default=5, metavar="N", help="training runs per recipe")
    option("--train", type=int, metavar="N", help="training images to keep")
    option("--test", type=int, metavar="N", help="test images to keep")
    option("--folder", type=_folder, default="my_results", metavar="PATH", help="for the record")

    option = command("record", _record, "run what the records of the experiments are missing")
    option("names", nargs="*", metavar="NAME", help="experiments or notebooks (default: all)")
    option("--budget", choices=("quick", "study", "full"), default="study")
    option("--minutes", type=float, metavar="N", help="begin no run that would end after them")
    option("--list", action="store_true", help="only say what is there and what is missing")
    option("--folder", type=_folder, default="my_results", metavar="PATH", help="of the records")

    command("doctor", _doctor, "check that this machine is ready, and say what is missing")
    return top


def _model_name(text):
    """Return the name of a model."""
    if text not in MODELS:
        near = difflib.get_close_matches(text, MODELS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}" if near else f"try {', '.join(MODELS)}"
        raise argparse.ArgumentTypeError(f"there is no {text!r}: {hint}")
    return text


def _classifier_name(text):
    """Return the name of a model that gives a class to each image."""
    if MODELS[_model_name(text)].family == "segmentation":
        raise argparse.ArgumentTypeError(f"{text!r} must classify images, not pixels: try lenet")
    return text


def _count(text):
    """Return a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1")
    return int(text)


def _sides(text):
    """Return (height, width) from "96" or "96x128"."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be pixels, such as 96 or 96x128")
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def _folder(text):
    """Return the name of a folder, which need not exist."""
    if not text or (os.path.exists(text) and not os.path.isdir(text)):
        raise argparse.ArgumentTypeError(f"{text!r} must be a folder: try my_results")
    return text


def _new_file(text):
    """Return the path of a file in an existing folder."""
    path = Path(text)
    try:
        fits = path.parent.is_dir() and (path.is_file() or not path.exists())
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        fits = False
    if not fits:
        raise argparse.ArgumentTypeError(f"{text!r} must be a file in a folder that exists")
    return path


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: keep what is done
    sys.exit(main())

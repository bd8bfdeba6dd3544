"""The best recipe of the course, and what each of its ingredients is worth: leave one out."""

import functools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from cnnlib.data import Data, random_crop, random_flip
from cnnlib.measure.machine import environment_info
from cnnlib.measure.records import load_previous, write_json
from cnnlib.trace import count_parameters
from cnnlib.train import History, fit, nesterov, one_cycle

_TRANSFORMS = {"flip": random_flip, "crop": random_crop}
INGREDIENTS = (*_TRANSFORMS, "one cycle", "label smoothing")
LR = 0.3  # with held-out images it cannot be told apart from 0.1: see results/heldout_*


def train_best(
    net: nn.Module,
    data: Data,
    epochs: int,
    lr: float,
    seed: int = 0,
    without: str | None = None,
    plot: bool = True,
) -> History:
    """Train a network by the best recipe of this course.

    Mirrored and shifted images; stochastic gradient descent with Nesterov's momentum and weight
    decay; a learning rate that rises and falls once; labels that give a tenth to all classes.

    Args:
        net: A network, with its initial weights.
        data: A `Data`.
        epochs: Passes over the training images.
        lr: Highest learning rate.
        seed: As in `fit`. It also decides how images are mirrored and shifted.
        without: One of INGREDIENTS to leave out. Without "one cycle" the rate stays `lr`.
        plot: As in `fit`.

    Returns:
        The History.

    Raises:
        ValueError: There is no such ingredient.
    """
    if without not in (None, *INGREDIENTS):
        raise ValueError(f"without={without!r} must be None or one of {INGREDIENTS}: try 'flip'")
    transforms = [transform for name, transform in _TRANSFORMS.items() if name != without]
    smoothing = 0.0 if without == "label smoothing" else 0.1
    return fit(
        net,
        data.with_transforms(*transforms),
        epochs,
        lr,
        optimizer=nesterov,
        schedule=None if without == "one cycle" else one_cycle,
        loss=functools.partial(F.cross_entropy, label_smoothing=smoothing),
        seed=seed,
        plot=plot,
    )


def ablate(
    name: str,
    build: Callable[[], nn.Module],
    data: Data,
    epochs: int,
    lr: float,
    *,
    seeds: int,
    path: str | Path,
    left_out: Sequence[str] = INGREDIENTS,
    held_out: int = 0,
) -> tuple[dict, Path]:
    """Train by the whole recipe, and without each ingredient; write the file after each run.

    Runs that the file already has, from this machine with the same versions, are not repeated: a
    command that was interrupted goes on where it was. A file of another machine or another recipe
    is left as it is, and the runs go into a new one beside it.

    Args:
        name: What the network is called.
        build: A function without arguments that builds it, with new weights.
        data: A `Data`.
        epochs: Passes over the training images.
        lr: Highest learning rate.
        seeds: Runs of each recipe.
        path: The JSON file.
        left_out: The ingredients to leave out, one at a time. (): the whole recipe alone.
        held_out: Training images by which to measure, in place of the test images. 0: none.

    Returns:
        A dictionary: hardware, versions, what was trained and how, and for each recipe the accuracy
        of every seed after the last epoch; and the path of the file that holds it.

    Raises:
        ValueError: There is no such ingredient, or held_out leaves no images to train on.
    """
    if unknown := set(left_out) - set(INGREDIENTS):
        raise ValueError(f"left_out={unknown.pop()!r} must be one of {INGREDIENTS}: try 'flip'")
    if held_out:
        data = data.hold_out(held_out)
    recipe = {
        "net": name,
        "params": count_parameters(build()),
        "data": data.source,
        "train": len(data.train.labels),
        "test": len(data.test.labels),
        "held_out": held_out,
        "size": data.shape[1],
        "batch_size": data.train.batch_size,
        "epochs": epochs,
        "lr": lr,
    }
    record = environment_info(data.device.type) | {"recipe": recipe, "accuracies": {}}
    path, old = load_previous(path, record, recipe=recipe)
    record = old or record
    for seed in range(seeds):
        for without in (None, *left_out):
            runs = record["accuracies"].setdefault(without or "nothing", [])
            if seed < len(runs):
                continue
            torch.manual_seed(seed)
            history = train_best(build(), data, epochs, lr, seed, without, plot=False)
            if history.interrupted:
                raise KeyboardInterrupt
            runs.append(history.last.test_accuracy)
            write_json(path, record)
    return record, path


def table(record: dict) -> str:
    """Return a record as text: what was left out, mean, standard deviation, and the difference."""
    whole = statistics.mean(record["accuracies"]["nothing"])
    lines = ["left out         seeds    mean     std   change"]
    for name, runs in record["accuracies"].items():
        std = statistics.stdev(runs) if len(runs) > 1 else float("nan")
        mean = statistics.mean(runs)
        lines.append(f"{name:15}  {len(runs):5}  {mean:.4f}  {std:6.4f}  {mean - whole:+.4f}")
    return "\n".join(lines)

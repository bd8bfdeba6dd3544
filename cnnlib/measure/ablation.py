"""The best recipe of the course, and the worth of each ingredient: leave one out."""

import functools
import statistics
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from cnnlib._checks import check_count
from cnnlib.data import Data, random_crop, random_flip
from cnnlib.measure.machine import check_build, environment_info, final_accuracy
from cnnlib.measure.records import load_previous, write_json
from cnnlib.preflight import check_data
from cnnlib.trace import count_parameters
from cnnlib.train import History, fit, nesterov, one_cycle

_TRANSFORMS = {"flip": random_flip, "crop": random_crop}
INGREDIENTS = (*_TRANSFORMS, "one cycle", "label smoothing")
LR = 0.3  # indistinguishable from 0.1 on held-out images: see results/heldout_*


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

    The recipe mirrors and shifts images, and uses stochastic gradient descent with Nesterov
    momentum and weight decay, one cycle of the learning rate, and label smoothing of 0.1.

    Args:
        net: A network with its initial weights.
        data: The training and test batches.
        epochs: Passes over the training images.
        lr: Highest learning rate.
        seed: As in `fit`. It also sets how images are mirrored and shifted.
        without: One of INGREDIENTS to leave out. Without "one cycle" the learning rate is constant.
        plot: As in `fit`.

    Returns:
        The History.

    Raises:
        ValueError: There is no such ingredient.
    """
    check_data(data)
    if without is not None and not (isinstance(without, str) and without in INGREDIENTS):
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
    """Train by the whole recipe and without each ingredient, and write the file after each run.

    Runs that the file already holds, from this machine with the same versions, are not repeated, so
    an interrupted command continues where it stopped. A file with another machine or another recipe
    is left unchanged, and the runs go into a new file beside it.

    Args:
        name: The name of the network.
        build: A function without arguments that builds it with new weights.
        data: The training and test batches.
        epochs: Passes over the training images.
        lr: Highest learning rate.
        seeds: Runs of each recipe.
        path: The JSON file.
        left_out: The ingredients to leave out, one at a time. (): only the whole recipe.
        held_out: Number of training images to evaluate on, instead of the test images. 0: none.

    Returns:
        A dictionary with hardware, versions, what was trained and how, and per recipe the accuracy
        of every seed after the last epoch; and the path of its file.

    Raises:
        ValueError: There is no such ingredient, or held_out leaves no images to train on.
    """
    check_data(data)
    if not isinstance(name, str) or not name:
        raise ValueError(f"name={name!r} must be a text: try name='small_resnet'")
    check_build(build)
    if isinstance(left_out, str) or not isinstance(left_out, Sequence):
        raise ValueError(f"left_out={left_out!r} must be ingredients in a list: try ['flip']")
    if unknown := [part for part in left_out if part not in INGREDIENTS]:
        raise ValueError(f"left_out={unknown[0]!r} must be one of {INGREDIENTS}: try 'flip'")
    seeds = check_count("seeds", seeds, usual=3)
    if not isinstance(held_out, Integral) or held_out != 0:
        most = len(data.train.labels) - 1
        data = data.hold_out(check_count("held_out", held_out, most, usual=-(-most // 10)))
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
    if old and not _is_record(old):
        raise ValueError(f"{path} must hold an ablation, and it does not: move it away")
    record = old or record
    for seed in range(seeds):
        for without in (None, *left_out):
            runs = record["accuracies"].setdefault(without or "nothing", [])
            if seed < len(runs):
                continue
            print(f"without {without or 'nothing'}, seed {seed}", flush=True)
            torch.manual_seed(seed)
            history = train_best(build(), data, epochs, lr, seed, without, plot=False)
            runs.append(final_accuracy(history))
            write_json(path, record)
    return record, path


def _is_record(found: Any) -> bool:
    """Return whether what a file holds has accuracies, in a list for each recipe."""
    accuracies = found.get("accuracies") if isinstance(found, dict) else None
    return isinstance(accuracies, dict) and all(
        isinstance(runs, list) and runs and all(isinstance(run, Real) for run in runs)
        for runs in accuracies.values()
    )


def table(record: dict) -> str:
    """Return a record as text: what was left out, mean, standard deviation and change.

    Raises:
        ValueError: The record has no run of the whole recipe.
    """
    if not _is_record(record) or not record["accuracies"].get("nothing"):
        raise ValueError(
            f"record={record!r} must have a run of the whole recipe: try ablate(...)[0]"
        )
    whole = statistics.mean(record["accuracies"]["nothing"])
    lines = ["left out         seeds    mean     std   change"]
    for name, runs in record["accuracies"].items():
        std = statistics.stdev(runs) if len(runs) > 1 else float("nan")
        mean = statistics.mean(runs)
        lines.append(f"{name:15}  {len(runs):5}  {mean:.4f}  {std:6.4f}  {mean - whole:+.4f}")
    return "\n".join(lines)

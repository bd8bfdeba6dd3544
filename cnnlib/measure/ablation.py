"""The best recipe of the course, and what each of its ingredients is worth: leave one out."""

import functools
import statistics

import torch
import torch.nn.functional as F

from cnnlib.data import random_crop, random_flip
from cnnlib.measure.bench import resume, surroundings, write_json
from cnnlib.train import fit, one_cycle

CHANGES = {"flip": random_flip, "crop": random_crop}
INGREDIENTS = (*CHANGES, "one cycle", "label smoothing")
LR = 0.3  # on held-out images not told apart from 0.1, see results/heldout_*


def train_best(net, data, epochs, lr, seed=0, without=None, plot=True):
    """Train a network by the best recipe of this course.

    Mirrored and shifted images; stochastic gradient descent with Nesterov's momentum and weight
    decay; a learning rate that climbs and falls once; labels that leave a tenth to all classes.

    Args:
        net: A network; its first weights are yours.
        data: A `Data`.
        epochs: Passes over the training images.
        lr: Highest learning rate.
        seed: As in `fit`, for the changes of images, too.
        without: One of INGREDIENTS, to be left out. Without "one cycle" the rate stays `lr`.
        plot: As in `fit`.

    Returns:
        The History.

    Raises:
        ValueError: There is no such ingredient.
    """
    if without not in (None, *INGREDIENTS):
        raise ValueError(f"without={without!r} must be None or one of {INGREDIENTS}")
    changes = [change for name, change in CHANGES.items() if name != without]
    smoothing = 0.0 if without == "label smoothing" else 0.1
    return fit(
        net,
        data.augmented(*changes),
        epochs,
        lr,
        optimizer=nesterov,
        schedule=None if without == "one cycle" else one_cycle,
        loss=functools.partial(F.cross_entropy, label_smoothing=smoothing),
        seed=seed,
        plot=plot,
    )


def nesterov(parameters, lr):
    """Build stochastic gradient descent with a momentum that looks ahead, and weight decay."""
    return torch.optim.SGD(
        parameters, lr, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
    )


def ablate(name, build, data, epochs, lr, seeds, path, left_out=INGREDIENTS, held_out=0):
    """Train by the whole recipe, and without each ingredient; the file is written after each run.

    Runs that the file has already, from the same machine with the same versions, are not repeated:
    an interrupted command goes on where it was. A file of another machine, or of another recipe, is
    left as it is, and the runs go into one beside it.

    Args:
        name: What the network is called.
        build: A function without arguments that builds it, with new weights.
        data: A `Data`.
        epochs: Passes over the training images.
        lr: Highest learning rate.
        seeds: Runs of each recipe.
        path: The JSON file.
        left_out: The ingredients that are left out in turn; (): train by the whole recipe only.
        held_out: Training images to measure by, in place of the test images. 0: none.

    Returns:
        A dictionary: hardware, versions, what was trained and how, and for each recipe the accuracy
        of every seed after the last epoch; and the path of the file that holds it.

    Raises:
        ValueError: held_out leaves no images to train on.
    """
    if held_out:
        data = data.hold_out(held_out)
    recipe = {
        "net": name,
        "params": sum(p.numel() for p in build().parameters()),
        "data": data.source,
        "train": len(data.train.labels),
        "test": len(data.test.labels),
        "held_out": held_out,
        "size": data.shape[1],
        "batch_size": data.train.batch_size,
        "epochs": epochs,
        "lr": lr,
    }
    record = surroundings(data.device.type) | {"recipe": recipe, "accuracies": {}}
    path, old = resume(path, record, recipe=recipe)
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
            runs.append(history.last["test_accuracy"])
            write_json(path, record)
    return record, path


def table(record):
    """Return the record as text: what was left out, mean, spread, and the difference."""
    whole = statistics.mean(record["accuracies"]["nothing"])
    lines = ["left out         seeds    mean  spread   change"]
    for name, runs in record["accuracies"].items():
        spread = statistics.stdev(runs) if len(runs) > 1 else float("nan")
        mean = statistics.mean(runs)
        lines.append(f"{name:15}  {len(runs):5}  {mean:.4f}  {spread:6.4f}  {mean - whole:+.4f}")
    return "\n".join(lines)

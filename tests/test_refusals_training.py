"""Wrong calls of training, data, pictures and measurements, each of which is refused in plain words.

A row names a call and the words that its refusal must hold: the name, the value, and what to type.
The refusal is a statement of this package, not an error of what lies below it.
"""

import functools
import math
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler

from cnnlib import backend, data, explore, plots, train, weights
from cnnlib.data import Batches, Data, random_crop, random_flip
from cnnlib.measure import (
    ablation,
    baselines,
    bench,
    figures,
    leaderboard,
    machine,
    recording,
    records,
    statistics,
)
from cnnlib.measure.experiments import Experiment, Plan
from cnnlib.measure.front import Front, Point
from cnnlib.train import Epoch, History, evaluate, fit, gradient_norms

NO_NUMBERS = ["10", (1, 2), [], {}, True, 1j, object(), torch.ones(2), np.ones(3), nn.ReLU()]
NO_COUNTS = [-1, 0, 1.5, math.nan, math.inf, *NO_NUMBERS]
NO_SEEDS = [1.5, math.nan, 2**70, None, *NO_NUMBERS]
NO_RATES = [-1, 0, math.nan, math.inf, None, *NO_NUMBERS]
NO_FUNCTIONS = [0, "adam", 1.5, [1], {}, torch.ones(2), object()]
ARRAY = np.arange(3.0)  # which has no truth value
NO_FLAGS = [ARRAY, 0, 1, "no", None, [True]]
NO_DEVICES = ["gpu", "meta", "", -1, 1.5, True, [], object()]
NO_FILES = [1, None, "", ".", "a\0b", "x" * 300]
NO_LABELLED = [1, "runs", [1.0], np.ones(3), object(), {}]
NO_ARRAYS = [1, "text", None, object(), {}, [["a"]], [math.nan], [[1, 2], [3]], [1j]]


def toy(train=32, test=8, size=(8, 8), batch_size=8):
    """Return Data of two classes in no time."""

    def batches(count, shuffle):
        images = torch.arange(count * 64).view(count, 1, 8, 8).byte()
        return Batches(images, torch.arange(count) % 2, size, batch_size, shuffle)

    return Data(batches(train, True), batches(test, False), ("even", "odd"), "toy")


def scenes():
    """Return Data with a class for every pixel."""
    whole = toy()
    parts = [
        replace(b, labels=torch.zeros(len(b.labels), 8, 8).long())
        for b in (whole.train, whole.test)
    ]
    return Data(*parts, ("Background", "T-shirt/top"), "toy")


class Net(nn.Module):
    """A small network; `change` is what its forward does to the scores."""

    def __init__(self, in_channels=1, classes=2, change=None, read=False):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(in_channels, 2, 3, padding=1), nn.Linear(128, classes)
        self.change, self.read = change, read

    def forward(self, x):
        if self.read and x.sum().item() < 0:  # which needs numbers, as a print does
            return None
        scores = self.fc(self.conv(x).flatten(1))
        return self.change(scores) if self.change else scores


class Unused(Net):
    def __init__(self):
        super().__init__()
        self.unused = nn.Conv2d(1, 2, 3)


class NoSuper(nn.Module):
    def __init__(self):
        pass


class NoForward(nn.Module):
    pass


class TupleInEvaluation(Net):
    def forward(self, x):
        scores = super().forward(x)
        return scores if self.training else (scores, scores)


def trained(**changes):
    """Call `fit` with changed arguments."""
    arguments = {"net": Net(), "data": toy(), "epochs": 1, "lr": 0.1, "plot": False} | changes
    return fit(**arguments)


def relabelled(part, label):
    """Return Data with one label of a part changed."""
    whole = toy()
    batches = getattr(whole, part)
    return replace(whole, **{part: replace(batches, labels=batches.labels.clone().fill_(label))})


def each(function, name, values, /, *words, **others):
    """Return a row for each wrong value of an argument, which the refusal must name."""
    for number, value in enumerate(values):
        call = functools.partial(function, **others, **{name: value})
        yield f"{function.__name__}({name}) {number} {type(value).__name__}", call, (name, *words)


def evaluated(**changes):
    return evaluate(**{"net": Net(), "batches": toy().test} | changes)


def batched(**changes):
    arguments = {"images": torch.zeros(8, 1, 4, 4).byte(), "labels": torch.zeros(8).long()}
    return Batches(**arguments | {"size": (4, 4), "batch_size": 4, "shuffle": False} | changes)


def protocol(**changes):
    return leaderboard.Protocol(**{"train": 20, "test": 10, "epochs": 1, "seeds": 1} | changes)


def entry(**changes):
    numbers = ["size", "batch_size", "params", "macs", "step_traffic", "step_memory"]
    arguments = dict.fromkeys(numbers, 1) | {"images_per_second": 1.0, "accuracies": [0.5]}
    return leaderboard.Entry(**{"name": "a"} | arguments | changes)


def experiment(**changes):
    arguments = {
        "job": lambda *_: {"x": 1},
        "variants": {"a": 1},
        "plans": {"quick": Plan(seeds=1)},
    }
    return Experiment(**{"name": "depth"} | arguments | changes)


def schedule(name):
    return lambda optimizer, steps: getattr(lr_scheduler, name)(optimizer, 0.1, total_steps=1)


LEAF = torch.ones(2, requires_grad=True)
IMAGES, LABELS = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])
MANY = {str(i): [1] * 99 for i in range(5)}
MAPS_OF_ONE = {str(i): [1] for i in range(17)}
ROWS = [Epoch(1, 0.1, 1.0, 0.5, 1.0, 0.5, 10.0, 1.0)]
MAPS = torch.zeros(4, 8, 8).long()

FIT = [
    *each(trained, "epochs", [*NO_COUNTS, 10**30, None], "try epochs=1"),
    *each(trained, "lr", NO_RATES, "must be a finite number above 0: try lr=0.05"),
    *each(trained, "seed", NO_SEEDS, "try seed=0"),
    *each(trained, "graph", NO_FLAGS, "must be True or False"),
    *each(trained, "plot", NO_FLAGS, "must be True or False"),
    *each(trained, "optimizer", NO_FUNCTIONS, "must be a function (parameters, lr)"),
    *each(trained, "schedule", NO_FUNCTIONS, "must be a function (optimizer, steps)"),
    *each(trained, "loss", NO_FUNCTIONS, "must be a function (outputs, labels)"),
    *each(
        trained, "precision", ["fp16", 16, torch.float32, ARRAY], "must be 'auto', 'bf16' or 'fp32'"
    ),
    *each(trained, "data", [1, None, [], toy().train, (IMAGES, LABELS)], "must be a Data"),
    *each(trained, "net", [1, None, [], "lenet", len], "must be an nn.Module"),
    *each(trained, "checkpoint", ["no/x.pt", ".", "", 5, "/proc/x", "a\0b"], "must be a file"),
    ("no gradients", torch.no_grad()(lambda: trained()), ("outside torch.no_grad()",)),
    (
        "a class",
        lambda: trained(net=Net),
        ("net=", "build the network, then pass it: Net(...) builds one"),
    ),
    ("no super().__init__()", lambda: trained(net=NoSuper()), ("NoSuper", "super().__init__()")),
    ("no forward", lambda: trained(net=NoForward()), ("NoForward", "define forward")),
    ("a list of layers", lambda: trained(net=nn.ModuleList([nn.ReLU()])), ("define forward",)),
    ("no weights", lambda: trained(net=nn.Flatten()), ("no weights to train",)),
    ("frozen", lambda: trained(net=Net().requires_grad_(False)), ("requires_grad_(True)",)),
    ("float64", lambda: trained(net=Net().double()), ("float32", "try net.float()")),
    ("no numbers", lambda: trained(net=Net().to("meta")), ("build it on the CPU",)),
    ("channels", lambda: trained(net=Net(in_channels=3)), ("conv (Conv2d)", "in_channels=3")),
    ("image size", lambda: trained(data=toy(size=(9, 9))), ("fc (Linear)", "in_features=128")),
    ("classes", lambda: trained(net=Net(classes=1)), ("1 scores", "with 2 classes")),
    ("classes, read", lambda: trained(net=Net(classes=1, read=True)), ("with 2 classes",)),
    ("channels, read", lambda: trained(net=Net(3, read=True)), ("conv (Conv2d)",)),
    ("tuple", lambda: trained(net=Net(change=lambda y: (y, y))), ("returns a tuple", "try loss=")),
    ("tuple, read", lambda: trained(net=Net(1, 2, lambda y: (y, y), True)), ("returns a tuple",)),
    ("tuple in evaluation", lambda: trained(net=TupleInEvaluation()), ("only if self.training",)),
    *(
        (f"forward gives {name}", functools.partial(trained, net=Net(change=change)), words)
        for name, change, words in [
            ("None", lambda y: None, ("returns a NoneType",)),
            ("an int", lambda y: 3, ("returns a int",)),
            ("a bool", lambda y: True, ("returns a bool",)),
            ("a dictionary", lambda y: {"out": y}, ("returns a dict",)),
            ("a list", lambda y: [y], ("returns a list",)),
            ("()", lambda y: (), ("returns a tuple",)),
            ("classes", lambda y: y.argmax(1), ("must be floating-point", "without argmax")),
            ("comparisons", lambda y: y > 0, ("torch.bool", "floating-point")),
            ("complex numbers", lambda y: y + 1j, ("complex64", "floating-point")),
            ("one number", lambda y: y.sum(), ("but these labels need Nxclasses",)),
            ("a mean over the batch", lambda y: y.mean(0, keepdim=True), ("shape 1x2",)),
            ("numbers without gradient", lambda y: y.detach(), ("gradient", "detach()")),
        ]
    ),
    ("an optimiser", lambda: trained(optimizer=train.sgd(Net().parameters(), 1)), ("SGD(...)",)),
    (
        "other weights",
        lambda: trained(optimizer=lambda p, lr: train.sgd(Net().parameters(), lr)),
        ("weights of net", "try optimizer="),
    ),
    ("LBFGS", lambda: trained(optimizer=torch.optim.LBFGS), ("LBFGS", "torch.optim.Adam")),
    (
        "SparseAdam",
        lambda: trained(optimizer=torch.optim.SparseAdam),
        ("SparseAdam", "torch.optim.Adam"),
    ),
    ("optimiser of one argument", lambda: trained(optimizer=lambda p: None), ("(parameters, lr)",)),
    (
        "optimiser that fails",
        lambda: trained(optimizer=lambda p, lr: [][0]),
        ("index out of range",),
    ),
    (
        "momentum",
        lambda: trained(optimizer=functools.partial(train.sgd, momentum=2)),
        ("momentum=0.9",),
    ),
    ("StepLR", lambda: trained(schedule=lr_scheduler.StepLR), ("StepLR(optimizer, steps // 3)",)),
    ("ExponentialLR", lambda: trained(schedule=lr_scheduler.ExponentialLR), ("ExponentialLR(opt",)),
    ("ReduceLROnPlateau", lambda: trained(schedule=lr_scheduler.ReduceLROnPlateau), ("one_cycle",)),
    (
        "a short schedule",
        lambda: trained(schedule=schedule("OneCycleLR")),
        ("all 4 steps", "ends after 1"),
    ),
    (
        "schedule of another",
        lambda: trained(schedule=lambda o, s: train.constant(train.sgd(Net().parameters(), 1), s)),
        ("the optimizer that it is given",),
    ),
    ("loss class", lambda: trained(loss=nn.CrossEntropyLoss), ("must be a function",)),
    *(
        (
            f"loss: {name}",
            functools.partial(trained, loss=loss),
            ("must return one number", "try loss="),
        )
        for name, loss in [
            ("one per image", nn.CrossEntropyLoss(reduction="none")),
            ("a float", lambda y, labels: 1.0),
            ("without gradient", lambda y, labels: torch.zeros(())),
            ("complex", lambda y, labels: y.sum() * 1j),
            ("takes one argument", lambda y: y.sum()),
            ("swapped", lambda labels, y: F.cross_entropy(y, labels)),
            ("weights of too many classes", nn.CrossEntropyLoss(weight=torch.ones(3))),
            ("mean squared error", nn.MSELoss()),
            ("index", lambda y, labels: y[99].sum()),
            ("attribute", lambda y, labels: y.logits),
        ]
    ),
    (
        "a last batch of one",
        lambda: trained(
            net=nn.Sequential(nn.Conv2d(1, 2, 8), nn.BatchNorm2d(2), nn.Flatten()),
            data=toy(train=33),
        ),
        ("a batch of one image", "batch_size=7 or train=32"),
    ),
    ("labels below 0", lambda: trained(data=relabelled("train", -1)), ("from 0, but one is -1",)),
    (
        "test labels too high",
        lambda: trained(data=relabelled("test", 7)),
        ("go up to 7", "with 8 classes"),
    ),
    (
        "two sizes",
        lambda: trained(data=replace(toy(), test=toy(size=(9, 9)).test)),
        ("data.test", "(1, 9, 9)"),
    ),
    *(
        (
            f"transform: {name}",
            functools.partial(trained, data=toy().with_transforms(change)),
            words,
        )
        for name, change, words in [
            ("crops", lambda x: x[..., :4], ("must return a batch", "(8, 1, 8, 4)")),
            ("None", lambda x: None, ("NoneType",)),
            ("NumPy", lambda x: x.numpy(), ("ndarray",)),
            ("float64", lambda x: x.double(), ("torch.float64",)),
            ("index", lambda x: x[0, 0, 0, 99], ("it fails", "out of bounds")),
            ("two arguments", lambda x, y: x, ("it fails", "missing 1 required")),
        ]
    ),
]

TRAIN = [
    *each(evaluated, "net", [1, None, "lenet", len], "must be an nn.Module"),
    *each(evaluated, "batches", [1, None, toy(), [IMAGES]], "must be the batches of a Data"),
    *each(evaluated, "loss", NO_FUNCTIONS, "must be a function"),
    ("evaluate: float64", lambda: evaluated(net=Net().double()), ("try net.float()",)),
    ("evaluate: channels", lambda: evaluated(net=Net(3)), ("conv (Conv2d)",)),
    ("evaluate: classes", lambda: evaluated(net=Net(classes=1)), ("with 2 classes",)),
    (
        "evaluate: a tuple",
        lambda: evaluated(net=Net(change=lambda y: (y, y))),
        ("only if self.training",),
    ),
    ("evaluate: None", lambda: evaluated(net=Net(change=lambda y: None)), ("returns a NoneType",)),
    *each(train.sgd, "lr", NO_RATES, "above 0", parameters=list(Net().parameters())),
    *each(train.adamw, "lr", NO_RATES, "above 0", parameters=list(Net().parameters())),
    *each(
        train.sgd, "momentum", [-1, 1, 2.0, None, "x"], "below 1", parameters=[torch.ones(2)], lr=1
    ),
    *each(
        train.sgd,
        "parameters",
        [1, [], {}, "x", [1], torch.ones(2), torch.tensor(1), [LEAF * 2], [{"params": [LEAF]}]],
        "net.parameters()",
        lr=1,
    ),
    *each(train.sgd, "parameters", [nn.LazyLinear(2).parameters()], "try net(images)", lr=1),
    *(
        (
            f"sgd: {settings}",
            functools.partial(train.sgd, [LEAF], 1, **settings),
            ("those of torch's SGD",),
        )
        for settings in (
            {"momentun": 0.9},
            {"weight_decay": "x"},
            {"momentum": 0, "nesterov": True},
        )
    ),
    *each(train.one_cycle, "optimizer", [1, None, Net()], "must be an optimiser", steps=3),
    *each(
        train.one_cycle, "steps", NO_COUNTS, "whole number", optimizer=train.sgd([torch.ones(2)], 1)
    ),
    *each(backend.choose_backend, "device", NO_DEVICES, "must be a device of this machine"),
    ("an empty history", lambda: History().plot(), ("losses is empty",)),
    (
        "gradients: labels",
        lambda: gradient_norms(Net(), IMAGES, [0, 1]),
        ("one batch", "next(iter"),
    ),
    ("gradients: images", lambda: gradient_norms(Net(), IMAGES[0], LABELS), ("(N, C, H, W)",)),
    (
        "gradients: one image, normalised",
        lambda: gradient_norms(
            nn.Sequential(nn.Conv2d(1, 2, 8), nn.BatchNorm2d(2)), IMAGES[:1], LABELS[:1]
        ),
        ("more than 1 value", "try two images or more"),
    ),
    ("gradients: bytes", lambda: gradient_norms(Net(), IMAGES.byte(), LABELS), ("float32",)),
    ("gradients: float64", lambda: gradient_norms(Net(), IMAGES.double(), LABELS), ("float32",)),
    ("gradients: one label", lambda: gradient_norms(Net(), IMAGES, LABELS[0]), ("one batch",)),
    (
        "gradients: none",
        torch.no_grad()(lambda: gradient_norms(Net(), IMAGES, LABELS)),
        ("outside torch.no_grad()",),
    ),
    ("gradients: classes", lambda: gradient_norms(Net(classes=1), IMAGES, LABELS), ("2 classes",)),
    (
        "gradients: a convolution without use",
        lambda: gradient_norms(Unused(), IMAGES, LABELS),
        ("net=Unused must use all of its convolutions",),
    ),
    (
        "gradients: frozen",
        lambda: gradient_norms(Net().requires_grad_(False), IMAGES, LABELS),
        ("frozen",),
    ),
    (
        "gradients: no convolution",
        lambda: gradient_norms(nn.Flatten(), IMAGES, LABELS),
        ("larger than 1x1",),
    ),
]

DATA = [
    *each(
        data.fashion_mnist,
        "size",
        [0, -1, 1.5, math.nan, "28", [], {}, True, 10**9, (28,), (0, 28), object()],
        "number of pixels",
    ),
    *each(data.fashion_mnist, "batch_size", [*NO_COUNTS, 10**30], "try batch_size=128"),
    *each(data.fashion_mnist, "train", [-1, 0, 60_001, 1.5, "x"], "to 60,000: try train=128"),
    *each(data.fashion_mnist, "test", [-1, 0, 10_001, 1.5, "x"], "to 10,000: try test=128"),
    *each(data.fashion_mnist, "device", NO_DEVICES, "try device='cpu'"),
    *each(data.fashion_mnist, "seed", NO_SEEDS, "try seed=0"),
    *each(
        data.fashion_mnist, "root", ["", 5, b"x", "~nouser", __file__, "a\0b"], "must be a folder"
    ),
    *each(data.synthetic.draw, "count", [*NO_COUNTS, 10**9], "try count=128"),
    *each(data.synthetic.draw, "seed", [1.5, None, 2**70, "x"], "try seed=0", count=1),
    *each(data.fashion_scenes, "size", [27, (64, 20), 0], "try size="),
    *each(data.fashion_scenes, "garments", [*NO_COUNTS, 10**9], "try garments=4"),
    *each(data.fashion_scenes, "train", [0, 1.5, None, 10**9], "try train=128"),
    *(
        (f"select_classes{names}", functools.partial(toy().select_classes, *names), words)
        for names, words in [
            ((), ("names=()", "select_classes('even', 'odd')")),
            (("even", "even"), ("several different ones",)),
            (("Even",), ("name='Even'", "'even', 'odd'")),
            ((ARRAY,), ("name=array",)),
            ((3,), ("name=3",)),
            ((["even"],), ("name=['even']",)),
        ]
    ),
    ("flipped scenes", lambda: scenes().with_transforms(random_flip), ("must not move images",)),
    (
        "cropped scenes",
        lambda: scenes().with_transforms(abs, random_crop),
        ("as random_crop does",),
    ),
    (
        "a transform that loses the numbers",
        lambda: list(toy().with_transforms(lambda x: x.to("meta")).train),
        ("must return a batch",),
    ),
    ("Data of tensors", lambda: Data(IMAGES, IMAGES, (), "toy"), ("must be Batches",)),
    ("classes in a text", lambda: replace(toy(), classes="ab"), ("classes a tuple",)),
    ("a source of 3", lambda: replace(toy(), source=3), ("source a text",)),
    ("classes of scenes", lambda: scenes().select_classes("Background"), ("one class per image",)),
    *each(toy().hold_out, "count", [*NO_COUNTS, 32], "try count=4"),
    *each(toy().hold_out, "seed", NO_SEEDS, "try seed=0", count=4),
    *each(toy().show, "count", NO_COUNTS, "try count=16"),
    *each(scenes().show, "count", NO_COUNTS, "try count=6"),
    *each(toy().train.rebatch, "batch_size", NO_COUNTS, "try batch_size=128"),
    *each(toy().train.shard, "index", [2, -1, 0.5], "whole number from 0 to 1", num_shards=2),
    *each(toy().train.epoch, "number", NO_COUNTS, "try number=1"),
    *each(
        toy().train.take,
        "chosen",
        [1, [1], torch.ones(2), np.arange(2), torch.arange(2, device="meta")],
        "torch.arange(8)",
    ),
    *each(batched, "images", [1, None, [], np.zeros((8, 1, 4, 4)), IMAGES], "must be bytes"),
    *each(batched, "labels", [1, None, [], np.zeros(8), torch.zeros(8), LABELS], "must be int64"),
    ("labels elsewhere", lambda: batched(labels=torch.zeros(8).long().to("meta")), ("on cpu",)),
    *each(batched, "size", [0, 1.5, "4", None, (4,)], "number of pixels"),
    *each(batched, "batch_size", NO_COUNTS, "try batch_size=128"),
    *each(batched, "shuffle", NO_FLAGS, "must be True or False"),
    *each(batched, "seed", NO_SEEDS, "try seed=0"),
    *each(
        batched, "transforms", [1, random_flip, (1,), ([random_flip],), (nn.Dropout,)], "functions"
    ),
    *each(random_flip, "images", [1, None, IMAGES[0], IMAGES.numpy()], "(N, C, H, W)"),
    *each(random_crop, "images", [1, None, IMAGES[0], IMAGES.numpy()], "(N, C, H, W)"),
    *each(random_crop, "padding", [-1, 1.5, "1", 9, (1, 1)], "from 0 to 8", images=IMAGES),
]

PLOTS = [
    *each(plots.image_grid, "images", NO_ARRAYS, ""),
    *each(plots.image_grid, "columns", NO_COUNTS, "try columns=8", images=IMAGES),
    *each(plots.image_grid, "titles", [1, "abcd", {}, ["a"]], "", images=IMAGES),
    *each(plots.training_curves, "runs", [1, None, {}, [], [1], [(1, 2)], History(rows=ROWS)], ""),
    *each(plots.loss_curve, "losses", [*NO_ARRAYS, [], [[1.0]], [math.inf]], "", batches=1),
    *each(plots.loss_curve, "batches", NO_COUNTS, "try batches=1", losses=[1.0]),
    *each(plots.layer_profile, "profiles", NO_LABELLED, "", quantity="norm"),
    *each(
        plots.layer_profile,
        "colors",
        ["red", [], ["no colour"], [1]],
        "in a list",
        profiles={"a": [1.0]},
        quantity="norm",
    ),
    *each(
        plots.seeds,
        "runs",
        [*NO_LABELLED, {"a": []}, {"a": 1}, {"a": [math.nan]}],
        "",
        quantity="accuracy",
    ),
    *each(
        plots.seeds,
        "reference",
        [1, "mean", ("a",), ("a", math.nan)],
        "",
        runs={"a": [1.0]},
        quantity="accuracy",
    ),
    *each(
        plots.number_grid,
        "axes",
        [1, None, "axes"],
        "must be matplotlib Axes",
        values=[[1]],
        title="t",
    ),
    *each(
        plots.confusion_matrix, "matrix", [*NO_ARRAYS, [[1, 2]], [[0.5]], [[-1]]], "", classes=["a"]
    ),
    *each(plots.confusion_matrix, "classes", [1, None, "a", ["a", "b"]], "", matrix=[[1]]),
    *each(
        plots.misclassified,
        "labels",
        [1, [0.5] * 4, [0, 1], [0, 1, 2, 9]],
        "",
        images=IMAGES,
        predictions=LABELS,
        classes=["a", "b", "c"],
    ),
    *each(plots.scene_grid, "images", NO_ARRAYS, "", label_maps={"truth": MAPS}, classes=["a"]),
    *(
        (
            f"scene_grid: {name}",
            functools.partial(plots.scene_grid, IMAGES, {"truth": maps}, ["a", "b"]),
            ("label_maps['truth']", *words),
        )
        for name, maps, words in [
            ("labels 99", MAPS + 99, ("indices from 99 to 99 for 2 classes",)),
            ("labels below 0", MAPS - 1, ("indices from -1",)),
            ("maps of another size", MAPS[:, :5, :5], ("class indices of shape (4, 8, 8)",)),
            ("scores", torch.rand(4, 2, 8, 8), ("try scores.argmax(1)",)),
            ("fewer maps", MAPS[:2], ("of shape (2, 8, 8)",)),
        ]
    ),
    *each(plots.image_html, "figure", [1, None, "x"], "must be a matplotlib Figure", alt="a"),
    *each(plots.png, "figure", [1, None, "x"], "must be a matplotlib Figure"),
    *each(plots.show, "caption", [1, None, " "], "state what", figure=None, alt="a"),
    *each(plots.show, "alt", [1, None, " "], "in words", figure=None, caption="c"),
    *each(
        plots.stage_diagram,
        "input_shape",
        [1, None, (8, 8), (1, 1, 8, 8), (3, 8, 8)],
        "",
        net=Net(),
    ),
    *each(plots.stage_diagram, "net", [1, None, Net, NoSuper()], "", input_shape=(1, 8, 8)),
    (
        "block that fails",
        lambda: plots.block_diagram(Net(change=lambda y: y.nothing), input_shapes=[(1, 8, 8)]),
        ("nothing",),
    ),
    *each(figures.roofline, "peak", NO_RATES, "try peak=", points={"a": (1, 1)}, bandwidth=1),
    *each(figures.roofline, "bandwidth", NO_RATES, "try bandwidth=", points={"a": (1, 1)}, peak=1),
    *each(
        figures.roofline,
        "points",
        [*NO_LABELLED, {"a": (1,)}, {"a": (math.nan, 1)}],
        "",
        peak=1,
        bandwidth=1,
    ),
    *each(
        figures.trade_off,
        "points",
        [*NO_LABELLED, {"a": (math.inf, 1, 0)}, {"a": (1, math.nan, 0)}, {"a": (1, 1, -1)}],
        "",
        cost="MACs",
    ),
    *each(
        figures.recipe_panels,
        "panels",
        [*NO_LABELLED, {"a": {}}, {"a": {"b": []}}],
        "",
        quantity="q",
    ),
    *each(
        figures.condition_curves, "runs", [*NO_LABELLED, {"a": [1.0]}, {"a": []}], "", condition="c"
    ),
    *each(
        figures.path_maps,
        "rows",
        [*NO_LABELLED, {"a": []}, {"a": [-1]}, {"a": [1] * 100}, {"a": [10**7]}, MANY, MAPS_OF_ONE],
        "",
    ),
    *each(figures.trade_off, "log", NO_FLAGS, "True or False", points={"a": (1, 1, 0)}, cost="c"),
    *each(figures.trade_off, "front", [1, "a", ["z"]], "", points={"a": (1, 1, 0)}, cost="c"),
    *each(figures.trade_off, "cost", [1, None, " "], "with its unit", points={"a": (1, 1, 0)}),
    *each(figures.roofline, "points", [dict.fromkeys(range(101), (1, 1))], "", peak=1, bandwidth=1),
    *each(
        figures.recipe_panels,
        "off_scale",
        [1, "a", ["z"]],
        "['a']",
        panels={"p": {"a": [1]}},
        quantity="q",
    ),
]

EXPLORE = [
    *each(explore.conv_explorer, "size", NO_NUMBERS, "whole number: try size="),
    *each(explore.conv_explorer, "stride", [*NO_NUMBERS, 10**30, math.nan], "try stride=1"),
    *each(explore.transposed_explorer, "padding", [*NO_NUMBERS, 10**30], "try padding=1"),
    *each(explore.dilation_explorer, "kernel", [*NO_COUNTS, 10**5], "try kernel=3"),
    *each(
        explore.dilation_explorer, "rates", [1, "1,2", [], None, (1,) * 10**5], "rates=(1, 2, 5)"
    ),
    *each(explore.conv_steps, "input", NO_ARRAYS, "", kernel=[[1]]),
    *each(explore.transposed_scatter_steps, "kernel", NO_ARRAYS, "", input=[[1]]),
]

MEASURE = [
    *each(Plan, "seeds", [*NO_COUNTS, 10**9], "try seeds=5"),
    *each(experiment, "name", [1, None, "", "a/b"], "must be letters"),
    *each(experiment, "job", [1, None, "job", lambda x: x, nn.ReLU, Net()], "must be a function"),
    *each(Plan, "rate", [MAPS, math.nan, {1, 2}], "what JSON can hold", seeds=1),
    ("variants of one file", lambda: experiment(variants={"a b": 1, "a_b": 2}), ("other names",)),
    *each(experiment().weights, "variant", [1, "z", ARRAY], "must be one of"),
    *each(experiment, "variants", NO_LABELLED, ""),
    *each(experiment, "plans", [*NO_LABELLED, {"quick": 3}, {"long": Plan(seeds=1)}], ""),
    *each(experiment().run, "budget", ["long", 1, [1], [], ARRAY], "try one of ['quick']"),
    *each(experiment().record, "folder", [1, None, "nowhere"], "", budget="quick"),
    ("seeds", lambda: experiment().run("quick").missing("x"), ("try seeds=5",)),
    (
        "seconds of no variant",
        lambda: experiment().run("quick").expected_seconds("z", {}),
        ("must be one of",),
    ),
    (
        "a job without result",
        lambda: experiment(job=lambda *_: None).run("quick"),
        ("a dictionary",),
    ),
    ("a tensor", lambda: experiment(job=lambda *_: {"x": MAPS}).run("quick"), ("x.tolist()",)),
    (
        "weights",
        lambda: experiment(job=lambda *_: {"weights": [1]}).run("quick"),
        ("state_dict()",),
    ),
    (
        "weights without numbers",
        lambda: experiment(job=lambda *_: {"weights": {"a": MAPS.to("meta")}}).run("quick"),
        ("state_dict()",),
    ),
    ("no such result", lambda: experiment().run("quick").values("y"), ("name='y'", "['x']")),
    *each(recording.find, "names", ["depth", [1], None, 5], "names in a list"),
    *each(recording.status, "experiment", [1, "depth"], "find()", budget="quick", folder="r"),
    (
        "one experiment twice",
        lambda: recording.complete([experiment()] * 2, "quick", "r"),
        ("different names",),
    ),
    *each(
        recording.complete,
        "minutes",
        [-1, math.nan, "x", None],
        "try minutes=60",
        experiments=[],
        budget="quick",
        folder="r",
    ),
    *each(records.make_folder, "folder", [1, None, "", __file__, "/proc/x"], "must be a folder"),
    *each(
        recording.complete,
        "experiments",
        [1, None, "depth"],
        "in a list",
        budget="quick",
        folder="r",
    ),
    *each(records.read_json, "path", ["/dev/zero", "nowhere.json", *NO_FILES], "must be a file"),
    *each(
        records.write_json, "record", [torch.ones(2), {1, 2}, math.nan], "x.tolist()", path="a.json"
    ),
    *each(records.write_json, "path", [*NO_FILES, "\ud800"], "must name a file", record={}),
    *each(records.load_previous, "path", NO_FILES, "must name a file", environment={}),
    ("in /proc", lambda: records.load_previous("/proc/a.json", {}), ("must be a folder",)),
    *each(leaderboard.Leaderboard(protocol()).add, "name", [1, None, [], "nosuch", "unet"], ""),
    *each(
        leaderboard.Leaderboard(protocol()).add,
        "build",
        [1, "lenet", [], Net()],
        "must be a function",
        name="a",
    ),
    *each(leaderboard.Leaderboard(protocol()).add, "build", [lambda x: x, nn.Conv2d], "", name="a"),
    *(
        row
        for name, values in {
            "train": [*NO_COUNTS, None],
            "epochs": NO_COUNTS,
            "batch_size": [0, "x", ARRAY],
            "lr": [-1, math.nan, "x"],
        }.items()
        for row in each(protocol, name, values, f"try {name}=")
    ),
    *(
        row
        for name, values in {"accuracies": [[], 1, [math.nan]], "step_traffic": [0, "x"]}.items()
        for row in each(entry, name, values)
    ),
    *each(leaderboard.Leaderboard, "protocol", [1, None, "small"], "must be a Protocol"),
    *each(leaderboard.Leaderboard, "rows", ["x", [1]], "entries", protocol=protocol()),
    *each(leaderboard.Leaderboard.resume, "protocol", [1, "small"], "Protocol", path="a.json"),
    *each(
        leaderboard.costs,
        "net",
        [nn.ReLU(), Net().requires_grad_(False), Net(change=lambda y: (y, y))],
        "cross-entropy",
        shape=(1, 8, 8),
        batch_size=4,
    ),
    *each(
        leaderboard.Leaderboard(protocol()).add,
        "recipe",
        [1, "r", {}],
        "must be a Recipe",
        name="a",
        build=Net,
    ),
    *each(
        leaderboard.Leaderboard(protocol()).__getitem__, "name", [1, "nosuch", []], "must be a row"
    ),
    *each(leaderboard.Leaderboard.read, "path", [1, None, "nowhere.json"], "must be a file"),
    *each(leaderboard.pareto, "rows", [1, None, ["a"]], "try board.rows", cost=len),
    *each(
        leaderboard.costs, "batch_size", NO_COUNTS, "try batch_size=128", net=Net(), shape=(1, 8, 8)
    ),
    *each(
        Front,
        "points",
        [
            *[1, None, [], [1], [Point("a", math.nan, 0, {})], [Point("a", 1, 0, {"c": "x"})]],
            *[[Point("a", 1, 0, {})], [Point("a", 5, 0, {"c": 1})], [Point("a", 1, -1, {"c": 1})]],
            *[[Point("a", 1, 0, {"c": 10**400})], [Point("a", 1, 0, {1: 1})]],
        ],
        "",
    ),
    ("quantity 1", lambda: statistics.summary({"a": [1]}, 1), ("1 must be a text",)),
    ("quantity None", lambda: statistics.summary({"a": [1]}, None), ("None must be a text",)),
    *each(
        statistics.summary,
        "runs",
        [*NO_LABELLED, {"a": [math.nan]}, {"a": ["x"]}, {"a": 1}, {"a": [1e-200]}],
        "",
        quantity="q",
    ),
    *each(
        statistics.told_apart,
        "level",
        [0, 1, 2, math.nan, "x", None],
        "try level=0.05",
        a=[1, 2],
        b=[2, 3],
    ),
    *each(
        statistics.compare, "reference", ["z", [1], ARRAY], "must be a group", runs={"a": [1, 2]}
    ),
    *(
        (
            f"ablate({name}) {type(value).__name__}",
            functools.partial(
                ablation.ablate,
                **{
                    "name": "net",
                    "build": Net,
                    "data": toy(),
                    "epochs": 1,
                    "lr": 0.1,
                    "seeds": 1,
                    "path": "a.json",
                }
                | {name: value},
            ),
            (name,),
        )
        for name, values in {
            "build": [1, None, "lenet", Net()],
            "data": [1, None, []],
            "seeds": NO_COUNTS,
            "left_out": [1, "flip", ["colour"]],
            "held_out": [-1, 32, 1.5, "x", ARRAY],
            "name": [1, None, ""],
            "path": NO_FILES,
        }.items()
        for value in values
    ),
    *each(
        ablation.table,
        "record",
        [1, None, {}, {"accuracies": {"nothing": []}}, {"accuracies": 3}],
        "whole recipe",
    ),
    *each(
        ablation.train_best,
        "without",
        [1, "FLIP", ARRAY],
        "try 'flip'",
        net=Net(),
        data=toy(),
        epochs=1,
        lr=1,
    ),
    *each(baselines.mlp, "macs", [*NO_COUNTS, 1, 10**12], "macs=", data=toy()),
    (
        "baselines without names",
        lambda: baselines.baselines(replace(toy(), classes=())),
        ("must name every class",),
    ),
    *each(baselines.baselines, "data", [1, None, []], "must be a Data"),
    *each(baselines.baselines, "seed", [1.5, MAPS], "try seed=0", data=toy()),
    *each(
        bench.bench,
        "names",
        [1, None, "lenet", [], ["nosuch"], ["unet"]],
        "try ['lenet']",
        against="strong",
    ),
    *each(bench.bench, "rounds", NO_COUNTS, "try rounds=3", names=["lenet"], against="strong"),
    *each(bench.bench, "epochs", NO_COUNTS, "try epochs=1", names=["lenet"], against="strong"),
    *each(bench.bench, "against", ["x", 1, None, [], ARRAY], "try 'strong'", names=["lenet"]),
    *each(
        bench.bench,
        "batches",
        [4, 201, 1.5, "x", True],
        "from 5 to 200",
        names=["lenet"],
        against="strong",
    ),
    *each(
        bench.bench,
        "folder",
        ["", 1, None, __file__],
        "must be a folder",
        names=["lenet"],
        against="strong",
    ),
    *each(
        machine.measure_matmul_flops,
        "seconds",
        [-1, math.nan, math.inf, None, *NO_NUMBERS],
        "try seconds=2",
        device="cpu",
        dtype=torch.float32,
    ),
    *each(
        machine.measure_matmul_flops, "device", NO_DEVICES, "try device='cpu'", dtype=torch.float32
    ),
    *each(
        machine.measure_matmul_flops,
        "dtype",
        [1, None, np.ones(2)],
        "try torch.float32",
        device="cpu",
    ),
    *each(machine.environment_info, "device", [*NO_DEVICES, np.ones(2)], "try device='cpu'"),
]

MEASURE += [
    *each(machine.measure_bandwidth, "device", NO_DEVICES, "try device='cpu'"),
    *each(machine.timed, "device", NO_DEVICES, "try device='cpu'", action=dict),
    *each(machine.timed, "action", [1, None, nn.ReLU()], "must be a function", device="cpu"),
    *each(
        machine.measure_training_rate,
        "seconds",
        [-1, math.nan, "x", 10**6],
        "try seconds=1",
        net=Net(),
        images=IMAGES,
        labels=LABELS,
    ),
    *each(machine.repeated_batch, "labels", [1, LABELS[:2], LABELS[0]], "", images=IMAGES, times=2),
]

WEIGHTS = [
    *each(weights.read, "path", ["", ".", 5, "a\0b", "x" * 300, "/dev/zero"], "must be the path"),
    ("zeros", lambda: weights.relative_difference(LEAF, LEAF * 0), ("must not be all 0",)),
    ("no numbers", lambda: weights.relative_difference(LEAF.to("meta"), LEAF), ("floating-point",)),
    ("not set up", lambda: weights.load(NoSuper(), {}), ("must be a network",)),
]

TABLE = [*WEIGHTS, *FIT, *TRAIN, *DATA, *PLOTS, *EXPLORE, *MEASURE]


@pytest.mark.parametrize(
    ("call", "words"), [pytest.param(*row, id=name[:60]) for name, *row in TABLE]
)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_wrong_call_is_refused_in_plain_words(tmp_path, monkeypatch, call, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as refusal:
        call()
    assert all(word in str(refusal.value) for word in words), str(refusal.value)
    last = traceback.extract_tb(refusal.tb)[-1]
    assert Path(last.filename).is_relative_to(Path(train.__file__).parent)
    assert "raise" in last.line
    assert not list(tmp_path.iterdir())

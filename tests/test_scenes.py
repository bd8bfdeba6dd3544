"""Fashion scenes: what stands in front, whose class each pixel has, and that nothing leaks."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from cnnlib.data import Batches, Data, _files, fashion_scenes
from cnnlib.data import scenes as module
from cnnlib.data.mnist import CLASSES, FASHION_MNIST
from cnnlib.data.scenes import FAINTEST
from cnnlib.data.scenes import _compose as compose
from cnnlib.plots import png, scene_grid
from cnnlib.plots.scenes import COLOURS
from cnnlib.train import evaluate, fit


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """The synthetic stand-in, and no network: scenes are composed of it as of the real images."""
    monkeypatch.setattr(_files, "SITE", "http://127.0.0.1:9")
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    return tmp_path


def blocks(count=3):
    """Garments that fill their image with one grey: 100 for class 0, 101 for class 1, ..."""
    grey = torch.arange(100, 100 + count, dtype=torch.uint8)
    return grey.view(count, 1, 1, 1).expand(count, 1, 28, 28), torch.arange(count)


# Composition


def test_one_garment_is_put_whole_where_its_labels_are():
    images, labels = blocks()
    scenes, maps = compose(images, labels, 200, (40, 50), 1, seeded())
    assert scenes.shape == (200, 1, 40, 50)
    assert scenes.dtype is torch.uint8
    assert maps.dtype is torch.int64
    for scene, labels in zip(scenes[:, 0], maps, strict=True):
        rows, columns = labels.nonzero().unbind(1)
        assert rows.max() - rows.min() == columns.max() - columns.min() == 27
        assert len(rows) == 28 * 28
        assert torch.equal(scene[labels > 0].long(), labels[labels > 0] + 99)


def test_garments_reach_every_corner_and_every_class():
    images, labels = blocks()
    _, maps = compose(images, labels, 600, (30, 31), 1, seeded())
    tops = (maps > 0).any(2).int().argmax(1)
    lefts = (maps > 0).any(1).int().argmax(1)
    assert tops.bincount().min() > 600 / 3 / 2
    assert lefts.bincount().min() > 600 / 4 / 2
    assert (tops.max(), lefts.max()) == (2, 3)
    assert maps.amax((1, 2)).bincount(minlength=4)[1:].min() > 600 / 3 / 2


def test_a_garment_that_just_fits_fills_the_canvas():
    images, labels = blocks()
    scenes, maps = compose(images, labels, 5, (28, 28), 1, seeded())
    assert (maps > 0).all()
    assert torch.equal(scenes[:, 0].long(), maps + 99)


def test_later_garments_stand_in_front():
    """With the same draws, one garment more only adds pixels of the newcomer."""
    images, labels = blocks(10)
    fewer = compose(images, labels, 100, (40, 40), 2, seeded())
    more = compose(images, labels, 100, (40, 40), 3, seeded())
    changed = more[1] != fewer[1]
    assert changed.any((1, 2)).float().mean() > 0.8
    for i in range(100):
        newcomer = more[1][i][changed[i]].unique()
        assert len(newcomer) <= 1
        if len(newcomer):
            assert (more[1][i] == newcomer).sum() >= 28 * 28
    assert torch.equal(more[0][:, 0][~changed], fewer[0][:, 0][~changed])


def test_what_is_darker_than_a_garment_shows_what_lies_behind():
    """The upper half of the garment is too faint: there the background stays."""
    images = torch.full((1, 1, 28, 28), FAINTEST, dtype=torch.uint8)
    images[:, :, :14] = FAINTEST - 1
    scenes, maps = compose(images, torch.tensor([4]), 20, (28, 28), 1, seeded())
    assert (maps[:, :14] == 0).all()
    assert (maps[:, 14:] == 5).all()
    assert (scenes[:, 0, 14:] == FAINTEST).all()
    assert scenes[:, 0, :14].float().std() > 10


def test_about_half_of_the_garments_are_mirrored():
    images = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    images[..., :3] = 200
    _, maps = compose(images, torch.tensor([0]), 1000, (28, 28), 1, seeded())
    left, right = maps[:, 5, 0] == 1, maps[:, 5, -1] == 1
    assert torch.equal(left, ~right)
    assert 450 < left.sum() < 550


def test_the_background_is_cloudy_and_no_class():
    images, labels = blocks()
    scenes, maps = compose(images, labels, 50, (96, 64), 1, seeded())
    clouds = scenes[:, 0][maps == 0].float()
    assert clouds.max() <= module.BRIGHTEST
    assert clouds.min() < 10
    assert clouds.std() > 15
    steps = scenes[:, 0].float().diff(dim=-1)[(maps[..., 1:] == 0) & (maps[..., :-1] == 0)]
    assert steps.abs().max() < module.BRIGHTEST / 6


def test_grey_alone_does_not_tell_the_classes():
    """The best guess from a pixel's grey level finds little more than the all-background one."""
    data = fashion_scenes(48, train=200, test=10, device="cpu")
    grey, label = data.train.images.flatten().long(), data.train.labels.flatten()
    counts = torch.zeros(256, 11).index_put_((grey, label), torch.ones(len(grey)), accumulate=True)
    best = counts.argmax(1)[grey]
    both = torch.stack([((best == k) & (label == k)).sum() for k in range(11)])
    either = torch.stack([((best == k) | (label == k)).sum() for k in range(11)])
    assert (both / either).mean() < 0.15


# The data set


def test_train_scenes_hold_training_garments_and_test_scenes_test_garments(monkeypatch):
    def two_greys(size, batch_size, train, test, seed, **options):
        parts = [
            Batches(
                torch.full((count, 1, 28, 28), grey, dtype=torch.uint8),
                torch.zeros(count, dtype=torch.int64),
                (28, 28),
                batch_size,
                shuffle=grey == 200,
                seed=seed,
            )
            for count, grey in ((train, 200), (test, 250))
        ]
        return Data(*parts, classes=CLASSES, source=FASHION_MNIST)

    monkeypatch.setattr(module, "fashion_mnist", two_greys)
    data = fashion_scenes(40, train=20, test=20)
    for batches, grey in ((data.train, 200), (data.test, 250)):
        assert batches.images[:, 0][batches.labels > 0].unique().tolist() == [grey]
    assert (data.source, data.banner) == ("Fashion-MNIST", "")
    assert data.train.shuffle
    assert not data.test.shuffle
    other_seed = fashion_scenes(40, train=20, test=20, seed=1)
    placed = [part.labels for one in (data, other_seed) for part in (one.train, one.test)]
    assert len({bytes(maps.numpy()) for maps in placed}) == 4


def test_what_a_network_gets():
    integer = np.int64
    data = fashion_scenes(
        (integer(40), 48),
        integer(8),
        train=integer(20),
        test=10,
        garments=integer(2),
        seed=integer(0),
    )
    images, labels = next(iter(data.train))
    assert images.shape == (8, 1, 40, 48)
    assert labels.shape == (8, 40, 48)
    assert images.dtype is torch.float32
    assert labels.dtype is torch.int64
    assert data.shape == (1, 40, 48)
    assert (len(data.train.labels), len(data.test.labels)) == (20, 10)
    assert len(data.classes) == 11
    assert data.classes[:2] == ("Background", "T-shirt/top")


def test_every_class_occurs():
    data = fashion_scenes(train=100, test=100)
    for batches in (data.train, data.test):
        shares = batches.labels.flatten().bincount(minlength=11) / batches.labels.numel()
        assert 0.6 < shares[0] < 0.85
        assert shares[1:].min() > 0.005


def test_scenes_are_seeded_and_train_differs_from_test():
    one, same, other = (fashion_scenes(40, train=20, test=20, seed=s) for s in (0, 0, 1))
    for part in ("train", "test"):
        first, again, different = (getattr(data, part) for data in (one, same, other))
        assert torch.equal(first.images, again.images)
        assert torch.equal(first.labels, again.labels)
        assert not torch.equal(first.images, different.images)
    assert not torch.equal(one.train.labels, one.test.labels)


def test_the_stand_in_says_so_everywhere():
    data = fashion_scenes(train=10, test=10)
    assert data.source == "synthetic stand-in"
    assert str(data).startswith(data.banner)
    assert "NOT FASHION-MNIST" in data.banner
    assert "not Fashion-MNIST" in "".join(text.get_text() for text in data.show(2).texts)


def test_fit_and_evaluate_take_scenes():
    torch.manual_seed(0)
    data = fashion_scenes(28, 8, train=24, test=12, garments=1, device="cpu")
    net = torch.nn.Conv2d(1, 11, 3, padding=1)
    history = fit(net, data, 1, 0.1, precision="fp32", plot=False)
    metrics = evaluate(net, data.test, precision="fp32")
    assert metrics.confusion.sum() == 12 * 28 * 28
    assert (
        metrics.confusion.sum(1).tolist()
        == data.test.labels.flatten().bincount(minlength=11).tolist()
    )
    assert history.last.test_accuracy == metrics.accuracy


# Pictures


def test_the_picture_shows_scenes_above_their_maps():
    images, labels = torch.rand(3, 1, 8, 8), torch.randint(11, (3, 8, 8))
    classes = ("Background", *CLASSES)
    figure = scene_grid(images, {"truth": labels, "predicted": labels.flip(-1)}, classes)
    axes = figure.axes
    assert [a.get_ylabel() for a in axes] == ["scene", "", "", "truth", "", "", "predicted", "", ""]
    for row, arrays in enumerate((images[:, 0], labels, labels.flip(-1))):
        for column, array in enumerate(arrays):
            shown = axes[3 * row + column].images[0]
            assert np.array_equal(shown.get_array(), array.numpy())
    patches = figure.legends[0].get_patches()
    assert [patch.get_label() for patch in patches] == list(classes)
    assert png(figure).startswith(b"\x89PNG")


def test_a_class_has_the_colour_of_the_key():
    labels = torch.arange(11).view(1, 1, 11)
    figure = scene_grid(torch.rand(1, 1, 1, 11), {"truth": labels}, range(11))
    shown = figure.axes[1].images[0]
    drawn = shown.cmap(shown.norm(shown.get_array()))[0, :, :3]
    key = [patch.get_facecolor()[:3] for patch in figure.legends[0].get_patches()]
    assert np.allclose(drawn, key)


# Machado et al. 2009: how linear RGB looks to the three kinds of dichromats.
DICHROMATS = {
    "nobody": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def lab(rgb):
    """Return the CIE L*a*b* of linear sRGB, in which a distance of 10 is plain to see."""
    to_xyz = np.array([[0.412, 0.358, 0.180], [0.213, 0.715, 0.072], [0.019, 0.119, 0.950]])
    x, y, z = np.cbrt(to_xyz @ rgb / to_xyz.sum(1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", DICHROMATS)
def test_the_colour_blind_can_tell_the_classes_apart(sight):
    linear = [np.array(to_rgb(colour)) ** 2.2 for colour in COLOURS]
    seen = [lab((np.array(DICHROMATS[sight]) @ colour).clip(0, 1)) for colour in linear]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) > 25


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 20}, r"size=\(20, 20\) must have room for a garment of 28x28 .*: try size=64"),
        ({"size": (64, 27)}, r"size=\(64, 27\) must have room"),
        ({"size": 2.5}, r"size=2\.5 must be a number of pixels"),
        ({"garments": 0}, "garments=0 must be a whole number from 1"),
        ({"train": 0}, "train=0 must be a whole number from 1"),
        ({"test": 1.5}, r"test=1\.5 must be a whole number from 1"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number from 1"),
        (
            {"garments": True},
            "garments=True must be a whole number from 1 to 1,000: try garments=4",
        ),
        ({"seed": 2**70}, f"seed={2**70} must be a whole number from "),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        fashion_scenes(**arguments)


def test_classes_are_not_chosen_from_scenes():
    data = fashion_scenes(train=10, test=10)
    for names, asked in ((("Coat", "Bag"), "'Coat', 'Bag'"), (("Coat",), "'Coat'"), ((), "")):
        with pytest.raises(
            ValueError,
            match=rf"^select_classes\({asked}\) .*: use fashion_mnist\(\)\.select_classes",
        ):
            data.select_classes(*names)


def test_a_picture_of_few_scenes_shows_all_of_them():
    data = fashion_scenes(train=2, test=2)
    assert [len(data.show(count).axes) for count in (1, 2, 6)] == [2, 4, 4]
    with pytest.raises(ValueError, match="count=0 must be a whole number from 1: try count=6"):
        data.show(0)


def test_a_picture_needs_a_map_for_each_scene_and_a_colour_for_each_class():
    images, labels = torch.rand(3, 1, 8, 8), torch.zeros(2, 8, 8)
    with pytest.raises(
        ValueError, match=r"label_maps\['truth'\] of shape \(2, 8, 8\) and .*\(3, 8, 8\)"
    ):
        scene_grid(images, {"truth": labels}, range(11))
    with pytest.raises(ValueError, match="classes has 12 names for 11 colours: draw fewer"):
        scene_grid(images, {}, range(12))

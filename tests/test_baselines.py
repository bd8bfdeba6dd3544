"""The trivial baselines: small cases by hand, the nearest neighbour by a double loop."""

import pytest
import torch
from test_main import drawn

from cnnlib.data import Batches, Data, random_flip
from cnnlib.measure import baselines as module
from cnnlib.measure.baselines import baselines, mlp
from cnnlib.train import History, evaluate


def data_of(train, train_labels, test, test_labels, classes=3):
    """Return the Data of images given as bytes, in batches of two."""
    size = tuple(train.shape[-2:])
    parts = [
        Batches(images.byte(), labels.long(), size, 2, shuffle=False)
        for images, labels in ((train, train_labels), (test, test_labels))
    ]
    return Data(*parts, classes=tuple("abcdefghijk"[:classes]), source="drawn")


@pytest.fixture
def random_bytes():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randint(256, shape, generator=generator)


def test_the_majority(random_bytes):
    labels = torch.tensor([0, 2, 2, 1])
    test_labels = torch.tensor([2, 2, 0, 1, 2])
    data = data_of(random_bytes(4, 1, 3, 3), labels, random_bytes(5, 1, 3, 3), test_labels)
    assert baselines(data)["majority"] == pytest.approx(3 / 5)


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 2, 2)])
def test_the_nearest_neighbour_is_that_of_a_double_loop(monkeypatch, random_bytes, shape):
    monkeypatch.setattr(module, "_CHUNK", 7)
    train, test = random_bytes(40, *shape), random_bytes(30, *shape)
    train[33] = train[4]  # the first of two counts
    test[5] = train[4]
    labels, test_labels = random_bytes(40) % 3, random_bytes(30) % 3
    labels[[4, 33]] = torch.tensor([1, 2])
    data = data_of(train, labels, test, test_labels)
    expected = []
    for image in test.tolist():
        flat = torch.tensor(image).flatten().tolist()
        distances = [
            sum((x - y) ** 2 for x, y in zip(flat, known.flatten().tolist(), strict=True))
            for known in train
        ]
        expected.append(labels[distances.index(min(distances))].item())
    net = module._NearestNeighbour(data.train, 3)
    images = torch.cat([images for images, _ in data.test.epoch(1)])
    assert net(images).argmax(1).tolist() == expected
    hits = sum(a == b for a, b in zip(expected, test_labels.tolist(), strict=True))
    assert baselines(data)["nearest neighbour"] == pytest.approx(hits / 30)


def test_neighbours_that_differ_by_one_grey_of_many_pixels_are_kept_apart():
    """In float32 the two distances would be the same."""
    train = torch.full((2, 1, 64, 64), 254)
    train[0, 0, 0, 0] = 253
    net = module._NearestNeighbour(
        data_of(train, torch.tensor([0, 1]), train, torch.ones(2)).train, 2
    )
    image = torch.ones(1, 1, 64, 64)
    assert net(image).argmax(1).item() == 1


def separable(random_bytes, count):
    """Return noise, and whether its left half is brighter than its right half."""
    images = random_bytes(count, 1, 4, 4)
    left = images[..., :2].sum((1, 2, 3)) > images[..., 2:].sum((1, 2, 3))
    return images, left.long()


def test_a_linear_layer_learns_what_a_line_separates(random_bytes):
    data = data_of(*separable(random_bytes, 600), *separable(random_bytes, 200), classes=2)
    found = baselines(data, epochs=8)
    assert found["linear layer"] > 0.93 > 0.6 > found["majority"]
    assert found["linear layer"] > found["nearest neighbour"]


def test_an_mlp_learns_what_no_line_separates():
    """Two pixels and their exclusive or."""
    corners = torch.tensor([[0, 0], [0, 255], [255, 0], [255, 255]])
    images, labels = (
        corners.repeat(150, 1).view(-1, 1, 1, 2),
        torch.tensor([0, 1, 1, 0]).repeat(150),
    )
    found = baselines(data_of(images, labels, images, labels, classes=2), macs=400, epochs=8)
    assert found["MLP"] == 1
    assert found["linear layer"] <= 0.75


def test_the_mlp_costs_what_is_allowed():
    net = mlp(drawn(), macs=416_520)  # of LeNet
    cost = sum(layer.weight.numel() for layer in net if hasattr(layer, "weight"))
    assert 416_520 - (784 + 10) < cost <= 416_520
    with pytest.raises(
        ValueError, match="macs=793 must allow a hidden unit on 784 pixels: try macs=794"
    ):
        mlp(drawn(), macs=793)


def test_the_same_numbers_again_and_others_by_another_seed():
    data = drawn(train=200, test=100)
    assert baselines(data) == baselines(data)
    first, second = baselines(data), baselines(data, seed=1)
    fixed = {"majority", "nearest neighbour"}
    assert {name for name in first if first[name] == second[name]} >= fixed
    assert first != second


def test_training_images_are_not_transformed(monkeypatch):
    seen = []

    def fit(net, data, *arguments, **settings):
        seen.append(data.train.transforms)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        baselines(drawn().with_transforms(random_flip))
    assert seen == [()]


def test_ctrl_c_leaves_no_number(monkeypatch):
    monkeypatch.setattr(module, "fit", lambda *arguments, **settings: History(interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        baselines(drawn())


def test_nothing_is_printed(capsys):
    baselines(drawn(), epochs=1)
    assert capsys.readouterr().out == ""


def test_scenes_by_hand():
    """Class 2 is bright, class 1 and the background are dark; the right column is always class 2."""
    images = torch.tensor([[[10, 20], [10, 200]], [[30, 220], [10, 210]]])[:, None]
    maps = torch.tensor([[[0, 1], [0, 2]], [[0, 2], [1, 2]]])
    test = torch.tensor([[[90, 190], [10, 230]]])[:, None]
    found = baselines(data_of(images, maps, test, torch.tensor([[[0, 1], [0, 2]]])))
    assert found["all background"] == pytest.approx((2 / 4 + 0 + 0) / 3)
    # By position: background, 1 or 2 (the lower), background or 1 (the lower), 2: so all is right.
    assert found["commonest class"] == pytest.approx(1)
    # Class 2 from 31 upwards: 90, 190 and 230 on the test scene.
    assert found["grey threshold"] == pytest.approx((1 / 2 + 0 + 1 / 3) / 3)


def test_no_threshold_and_class_are_better_on_the_training_scenes():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(60, (6, 1, 5, 5), generator=generator)
    maps = (images[:, 0] // 20 * torch.randint(2, (6, 5, 5), generator=generator)).clamp(max=2)
    data = data_of(images, maps, images, maps)
    scores = [
        evaluate(module._Threshold(grey, label, 3), data.train).mean_iou
        for grey in range(61)
        for label in (1, 2)
    ]
    assert baselines(data)["grey threshold"] == max(scores)

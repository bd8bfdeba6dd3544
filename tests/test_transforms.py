"""Random transforms of images: each one is checked against what it may be, pixel by pixel."""

import pytest
import torch
from test_main import drawn

from cnnlib.data import random_crop, random_flip


def test_a_flip_mirrors_some_images_and_leaves_the_rest():
    torch.manual_seed(0)
    images = torch.rand(400, 2, 5, 6)
    flipped = random_flip(images)
    mirrored = torch.tensor(
        [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, images, strict=True)]
    )
    left = torch.tensor([torch.equal(a, b) for a, b in zip(flipped, images, strict=True)])
    assert torch.equal(mirrored, ~left)
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize("padding", [1, 2])
def test_a_crop_shifts_each_image_by_its_own_whole_pixels(padding):
    torch.manual_seed(0)
    images = torch.rand(300, 2, 5, 7) + 0.1
    reach = range(-padding, padding + 1)
    shifts = [(down, right) for down in reach for right in reach]
    found = []
    for cropped, image in zip(random_crop(images, padding), images, strict=True):
        (shift,) = [s for s in shifts if torch.equal(cropped, shifted(image, *s))]
        found.append(shift)
    assert set(found) == set(shifts)
    counts = [found.count(shift) for shift in shifts]
    assert max(counts) < 3.5 * 300 / len(shifts)


def shifted(image, down, right):
    """Move an image, pixel by pixel; black comes in."""
    _, height, width = image.shape
    moved = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                moved[:, row, column] = image[:, row - down, column - right]
    return moved


def test_training_images_are_changed_anew_in_each_epoch_and_test_images_never():
    plain = drawn(train=40, test=20)
    data = plain.with_transforms(random_flip)
    for left, right in zip(plain.test, data.test, strict=True):
        assert torch.equal(left[0], right[0])
    torch.manual_seed(0)
    originals = torch.cat([images for images, _ in plain.train.epoch(1)])
    once, again = (torch.cat([images for images, _ in data.train.epoch(1)]) for _ in range(2))
    assert not torch.equal(once, again)
    flipped = (once != originals).flatten(1).any(1)
    assert 5 < flipped.sum() < 35
    assert plain.train.transforms == ()


def test_transforms_follow_each_other():
    data = drawn(train=40).with_transforms(torch.ones_like, lambda images: images + 2)
    assert all((images == 3).all() for images, _ in data.train)


def test_fewer_classes_and_shards_keep_the_transforms():
    data = drawn(train=40, test=20).with_transforms(torch.zeros_like)
    for batches in (data.select_classes("Bag", "Coat").train, data.train.shard(1, 2)):
        assert all(images.sum() == 0 for images, _ in batches)

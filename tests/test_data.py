"""The data: archives and their damage, subsets, orders, resizing, the stand-in.

The archives here are small ones that the tests make, with checksums to match, so that everything runs
without a network. Where CNNLIB_DATA names the real archives, those are read as well.
"""

import functools
import gzip
import hashlib
import multiprocessing
import os
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import FashionMNIST

from cnnlib.data import Batches, Data, fashion_mnist
from cnnlib.data import mnist as module
from cnnlib.data.standin import draw as draw_garments

PER_CLASS = {"train": 12, "t10k": 5}


def idx(array):
    """Return an array of bytes in the format of the archives."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.tobytes()


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with four small archives, which take the place of the real ones; no network."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    archives, unpacked = [], {}
    for part, per_class in PER_CLASS.items():
        images, labels = draw_garments(10 * per_class, seed=len(part))
        contents = {"images-idx3": images[:, 0].numpy(), "labels-idx1": labels.byte().numpy()}
        for kind, array in contents.items():
            name = f"{part}-{kind}-ubyte"
            content = idx(array)
            packed = gzip.compress(content, mtime=0)
            (raw / f"{name}.gz").write_bytes(packed)
            archives.append((f"{name}.gz", md5(packed)))
            unpacked[name] = md5(content)
    monkeypatch.setattr(FashionMNIST, "resources", archives)
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(module, "UNPACKED_MD5", unpacked)
    monkeypatch.setattr(module, "COUNTS", {"train": 120, "test": 50})
    return tmp_path


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No archives and no network."""
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    return tmp_path / "nowhere"


def everything(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


# The archives


def test_archives_are_unpacked_and_read(folder):
    data = fashion_mnist(root=folder, device="cpu")
    assert data.source == "Fashion-MNIST"
    assert data.banner == ""
    assert data.classes == tuple(FashionMNIST.classes)
    images, labels = everything(data.test)
    expected, wanted = draw_garments(50, seed=4)
    assert torch.equal((images * 255).round().byte(), expected)
    assert torch.equal(labels, wanted)
    assert str(data) == "Fashion-MNIST: 120 training and 50 test images, 1x28x28, on cpu"


def test_the_folder_is_root_else_the_variable_else_the_users_cache(folder, monkeypatch, nowhere):
    monkeypatch.setenv("CNNLIB_DATA", str(folder))
    assert fashion_mnist().source == "Fashion-MNIST"
    assert fashion_mnist(root=nowhere).source == "drawn stand-in"
    monkeypatch.delenv("CNNLIB_DATA")
    monkeypatch.setattr(module, "user_cache_path", lambda name: folder)
    assert fashion_mnist().source == "Fashion-MNIST"


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_damaged_unpacked_file_is_named_and_unpacked_again(folder, capsys, keep):
    fashion_mnist(root=folder)
    path = folder / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    path.write_bytes(whole[:keep] if keep >= 0 else whole[:-1] + bytes([whole[-1] ^ 1]))
    assert fashion_mnist(root=folder).source == "Fashion-MNIST"
    assert path.read_bytes() == whole
    out = capsys.readouterr().out
    assert "train-images-idx3-ubyte is damaged or half-written: it is replaced" in out
    assert str(folder) not in out


def test_a_damaged_archive_does_not_matter_once_it_is_unpacked(folder):
    fashion_mnist(root=folder)
    (folder / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"half")
    assert fashion_mnist(root=folder).source == "Fashion-MNIST"


def test_a_damaged_archive_is_named_and_fetched_again(folder, capsys, monkeypatch):
    path = folder / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    whole = path.read_bytes()
    site = folder / "site"
    site.mkdir()
    (site / path.name).write_bytes(whole)
    path.write_bytes(whole[:20])
    serve = functools.partial(SimpleHTTPRequestHandler, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        assert fashion_mnist(root=folder).source == "Fashion-MNIST"
        server.shutdown()
    assert path.read_bytes() == whole
    assert "t10k-labels-idx1-ubyte.gz is damaged or half-written" in capsys.readouterr().out


def test_a_damaged_archive_without_network_ends_in_the_stand_in(folder, capsys):
    (folder / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz").write_bytes(b"half")
    data = fashion_mnist(root=folder)
    assert data.source == "drawn stand-in"
    assert "train-images-idx3-ubyte.gz is damaged" in capsys.readouterr().out


def load_in_a_process(folder, archives, unpacked, queue):
    FashionMNIST.resources, FashionMNIST.mirrors = archives, ["http://127.0.0.1:9/"]
    module.UNPACKED_MD5, module.COUNTS = unpacked, {"train": 120, "test": 50}
    queue.put(fashion_mnist(root=folder, device="cpu").source)


def test_two_processes_may_start_at_once(folder):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = (folder, FashionMNIST.resources, module.UNPACKED_MD5, queue)
    processes = [context.Process(target=load_in_a_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found == ["Fashion-MNIST"] * 3


def test_a_folder_that_is_not_one_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "archive.gz"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"root='.*archive\.gz' must be a folder: name the one"):
        fashion_mnist(root=path)
    with pytest.raises(ValueError, match=r"root='.*archive\.gz/below' must be a folder"):
        fashion_mnist(root=path / "below")
    monkeypatch.setenv("CNNLIB_DATA", str(path))
    with pytest.raises(ValueError, match=r"CNNLIB_DATA='.*archive\.gz' must be a folder"):
        fashion_mnist()


def test_archives_in_a_folder_that_cannot_be_written_are_read(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr(module, "user_cache_path", lambda name: cache)
    monkeypatch.setattr(module.os, "access", lambda path, mode: cache in Path(path).parents)
    before = sorted(folder.joinpath("FashionMNIST", "raw").iterdir())
    assert fashion_mnist(root=folder).source == "Fashion-MNIST"
    assert sorted(folder.joinpath("FashionMNIST", "raw").iterdir()) == before
    assert not (folder / "fashion_mnist.lock").exists()


def test_root_may_hold_the_archives_directly(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "user_cache_path", lambda name: tmp_path / "cache")
    assert fashion_mnist(root=folder / "FashionMNIST" / "raw").source == "Fashion-MNIST"


def test_a_failed_download_is_said_and_not_tried_again(nowhere, monkeypatch, capsys):
    tries = []
    monkeypatch.setattr(FashionMNIST, "download", lambda self: tries.append(1))
    for _ in range(3):
        assert fashion_mnist(train=10, test=10, root=nowhere).source == "drawn stand-in"
    assert len(tries) == 1
    assert "Fashion-MNIST is not to be had: a download failed before" in capsys.readouterr().out


def test_a_small_data_set_is_shown_and_named(nowhere):
    data = fashion_mnist(train=10, test=10, root=nowhere)
    assert len(data.show().axes) >= 10
    assert repr(data) == str(data)


def test_a_folder_that_cannot_be_written_ends_in_the_stand_in(nowhere, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert fashion_mnist(train=10, test=10, root=nowhere).source == "drawn stand-in"


def test_the_real_archives_have_the_published_mean_and_deviation():
    """On a machine without them, CNNLIB_DATA is unset and the stand-in is measured: it differs."""
    data = fashion_mnist(device="cpu")
    images = data.train.images.float() / 255
    measured = (round(images.mean().item(), 4), round(images.std().item(), 4))
    assert (measured == (0.2860, 0.3530)) == (data.source == "Fashion-MNIST")
    assert len(data.train.labels) == 60_000
    assert data.train.labels.bincount().tolist() == [6_000] * 10
    assert data.test.labels.bincount().tolist() == [1_000] * 10


# Subsets and orders


def test_subsets_are_balanced_and_seeded(folder):
    def labels_and_images(**options):
        data = fashion_mnist(root=folder, train=34, test=20, **options)
        return data.train.labels, data.train.images, data.test.labels

    labels, images, test_labels = labels_and_images(seed=3)
    assert sorted(labels.bincount().tolist()) == [3] * 6 + [4] * 4
    assert test_labels.bincount().tolist() == [2] * 10
    again = labels_and_images(seed=3)
    assert torch.equal(images, again[1])
    assert not torch.equal(images, labels_and_images(seed=4)[1])


def test_a_subset_holds_different_images_of_the_whole(folder):
    whole = {bytes(image.numpy()) for image in fashion_mnist(root=folder).train.images}
    part = [bytes(image.numpy()) for image in fashion_mnist(root=folder, train=60).train.images]
    assert len(set(part)) == 60
    assert set(part) <= whole


def make_batches(count=10, size=(6, 6), batch_size=4, shuffle=True, seed=0):
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 6, 6)
    return Batches(images.contiguous(), torch.arange(count), size, batch_size, shuffle, seed)


def test_only_some_classes_are_kept_and_labelled_anew(folder):
    data = fashion_mnist(root=folder, batch_size=7)
    some = data.only("Bag", "Trouser")
    assert some.classes == ("Bag", "Trouser")
    assert (some.source, some.shape, some.device) == (data.source, data.shape, data.device)
    for ours, theirs in ((some.train, data.train), (some.test, data.test)):
        assert (ours.batch_size, ours.shuffle) == (theirs.batch_size, theirs.shuffle)
        for label, old in ((0, 8), (1, 1)):
            assert torch.equal(
                ours.images[ours.labels == label], theirs.images[theirs.labels == old]
            )
        assert len(ours.labels) == sum((theirs.labels == old).sum() for old in (8, 1))
    assert len(data.train.labels) == 120, "the whole is left alone"


def test_images_held_out_are_training_images_that_are_not_trained_on():
    train = make_batches(10, shuffle=True, seed=3)
    train.changes = (torch.neg,)
    test = make_batches(5, batch_size=2, shuffle=False)
    data = Data(train, test, module.CLASSES, "drawn")
    held = data.hold_out(4)
    assert sorted(torch.cat([held.train.labels, held.test.labels]).tolist()) == list(range(10))
    assert len(held.test.labels) == 4
    for part in (held.train, held.test):  # the images of make_batches have their label's value
        assert torch.equal(part.images[:, 0, 0, 0], part.labels)
    assert (held.train.shuffle, held.train.changes) == (True, (torch.neg,))
    assert (held.test.shuffle, held.test.changes, held.test.batch_size) == (False, (), 2)
    assert torch.equal(held.test.labels, data.hold_out(4).test.labels)
    assert not torch.equal(held.test.labels, data.hold_out(4, seed=1).test.labels)
    assert held.test.labels.tolist() != sorted(held.test.labels.tolist()), "drawn at random"
    assert (len(data.train.labels), len(data.test.labels)) == (10, 5), "the whole is left alone"


@pytest.mark.parametrize("count", [0, 10, 2.5])
def test_some_images_are_held_out_and_some_are_left(count):
    data = Data(make_batches(10), make_batches(5), module.CLASSES, "drawn")
    with pytest.raises(ValueError, match=f"count={count} must be a whole number from 1 to 9"):
        data.hold_out(count)


def test_a_class_of_no_such_name_is_refused(folder):
    with pytest.raises(ValueError, match=r"name='Hat' must be a class: try one of \('T-shirt"):
        fashion_mnist(root=folder).only("Bag", "Hat")


def test_the_last_short_batch_is_kept():
    batches = make_batches()
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert len(batches) == 3


def test_each_pass_has_its_order_and_reseeding_starts_again():
    batches = make_batches(seed=1)
    orders = [everything(batches)[1].tolist() for _ in range(3)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    batches.reseed(1)
    assert [everything(batches)[1].tolist() for _ in range(3)] == orders
    batches.reseed(2)
    assert everything(batches)[1].tolist() != orders[0]


def test_images_stay_beside_their_labels():
    images, labels = everything(make_batches())
    assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), labels)


def test_test_batches_keep_their_order():
    batches = make_batches(shuffle=False)
    for _ in range(2):
        assert everything(batches)[1].tolist() == list(range(10))


def test_images_are_bytes_at_rest_and_fractions_in_a_batch():
    batches = make_batches()
    images, labels = next(iter(batches))
    assert batches.images.dtype is torch.uint8
    assert images.dtype is torch.float32
    assert labels.dtype is torch.int64
    assert images.shape == (4, 1, 6, 6)
    assert batches.device.type == "cpu"


@pytest.mark.parametrize(
    "size", [(14, 14), (20, 20), (28, 28), (32, 32), (96, 96), (224, 224), (20, 40), (1, 1)]
)
def test_resizing_equals_pils_bilinear(size):
    data = fashion_mnist(size, 20, train=20, test=20, device="cpu")
    images, _ = next(iter(data.test))
    assert images.shape[1:] == data.shape == (1, *size)
    for image, original in zip(images, data.test.images, strict=True):
        pil = Image.fromarray(original[0].numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
        difference = np.abs((image[0] * 255).round().numpy() - np.asarray(pil, dtype=float))
        assert difference.max() <= 1


# The stand-in


def test_the_stand_in_says_so_everywhere(nowhere):
    data = fashion_mnist(train=40, test=20, root=nowhere)
    assert data.source == "drawn stand-in"
    assert "NOT FASHION-MNIST" in data.banner
    assert str(data).startswith(data.banner)
    assert "not Fashion-MNIST" in "".join(text.get_text() for text in data.show(8).texts)
    assert data.classes[0] == "T-shirt/top"
    assert data.train.labels.bincount().tolist() == [4] * 10


def test_the_stand_in_is_seeded_and_train_differs_from_test(nowhere):
    one, same, other = (
        fashion_mnist(train=30, test=30, root=nowhere, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(one.train.images, same.train.images)
    assert torch.equal(one.test.labels, same.test.labels)
    assert not torch.equal(one.train.images, other.train.images)
    assert not torch.equal(one.train.images, one.test.images)


def test_garments_are_drawn_inside_the_image():
    images, labels = draw_garments(400, seed=0)
    assert images.shape == (400, 1, 28, 28)
    assert images.dtype is torch.uint8
    assert labels.bincount().tolist() == [40] * 10
    covered = (images > 20).float().mean((1, 2, 3))
    assert covered.min() > 0.05
    assert covered.max() < 0.8
    border = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], -1)
    assert (border > 20).float().mean() < 0.1


def test_each_label_names_what_is_drawn():
    images, labels = draw_garments(500, seed=0)
    mean = {name: images[labels == k, 0].float().mean(0) for k, name in enumerate(module.CLASSES)}
    clothes = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Shirt"]
    shoes = ["Sandal", "Sneaker", "Ankle boot"]

    def grey(name, rows, columns):
        return mean[name][slice(*rows), slice(*columns)].mean()

    assert min(clothes, key=lambda name: grey(name, (20, 24), (13, 15))) == "Trouser"
    sleeves = {name: grey(name, (16, 20), (3, 7)) for name in clothes}
    assert {name for name, value in sleeves.items() if value > 50} == {"Pullover", "Coat", "Shirt"}
    assert grey("T-shirt/top", (6, 9), (3, 7)) > 30 > grey("Dress", (6, 9), (3, 7))
    openings = {
        name: grey(name, (6, 20), (10, 12)) - grey(name, (6, 20), (13, 15)) for name in clothes
    }
    assert max(("Pullover", "Coat", "Shirt"), key=openings.get) == "Coat"
    assert all(grey(name, (0, 8), (0, 28)) < 10 for name in shoes)
    assert min(shoes, key=lambda name: mean[name].mean()) == "Sandal"
    assert max(shoes, key=lambda name: grey(name, (8, 13), (18, 24))) == "Ankle boot"
    assert grey("Bag", (16, 20), (3, 7)) > 100
    assert grey("Bag", (2, 6), (0, 4)) < 10


def test_each_garment_resembles_its_own_kind_most():
    """The nearest class mean finds most garments, and not all: shirts, coats, pullovers mix."""
    (train, train_labels), (test, test_labels) = draw_garments(2000, seed=0), draw_garments(500, 1)
    means = torch.stack([train[train_labels == k].float().mean(0) for k in range(10)]).flatten(1)
    nearest = torch.cdist(test.float().flatten(1), means).argmin(1)
    accuracy = (nearest == test_labels).float().mean()
    assert 0.5 < accuracy < 0.95


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be a whole number from 1: try batch_size=128"),
        ({"batch_size": 2.5}, r"batch_size=2\.5 must be a whole number"),
        ({"train": 0}, r"train=0 must be a whole number from 1 to 60,000: try train=128"),
        ({"train": 60_001}, "train=60001 must be a whole number from 1 to 60,000"),
        ({"test": -1}, "test=-1 must be a whole number from 1 to 10,000"),
        ({"size": 0}, r"size=0 must be a number of pixels from 1, or .*: try size=28"),
        ({"size": (28, 0)}, r"size=\(28, 0\) must be"),
        ({"size": (1, 28, 28)}, r"size=\(1, 28, 28\) must be"),
        ({"size": 2.5}, r"size=2\.5 must be"),
        ({"size": True}, "size=True must be"),
        ({"seed": 1.5}, r"seed=1\.5 must be a whole number: try seed=0"),
        ({"device": "gpu"}, "device='gpu' must be a device of this machine: try device='cpu'"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        fashion_mnist(**arguments)


def test_no_socket_timeout_is_left_behind(nowhere):
    fashion_mnist(train=10, test=10, root=nowhere)
    assert module.socket.getdefaulttimeout() is None
    assert os.environ.get("CNNLIB_BUDGET", "quick") in ("quick", "full")


@pytest.mark.parametrize(("count", "batch_size", "parts"), [(24, 8, 2), (20, 8, 4), (21, 6, 3)])
def test_the_parts_of_each_batch_make_the_batch(count, batch_size, parts):
    images = torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1)
    whole = Batches(images, torch.arange(count), (1, 1), batch_size, shuffle=True)
    shares = [whole.regroup(batch_size, part, parts) for part in range(parts)]
    whole.reseed(3)
    expected = [labels.tolist() for _, labels in whole]
    for _ in range(2):  # a pass has an order of its own, the same for all parts
        found = []
        for share in shares:
            whole.reseed(3)  # the parts share the generator; elsewhere each is in its own process
            found.append([labels.tolist() for _, labels in share])
            assert len(share) == len(found[-1]) == len(expected)
        for batch, *pieces in zip(expected, *found, strict=True):
            assert len({len(piece) for piece in pieces}) == 1
            assert sorted(batch) == sorted(label for piece in pieces for label in piece)


def test_larger_batches_have_the_same_images_in_the_same_order():
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    small = Batches(images, torch.arange(10), (1, 1), 3, shuffle=False)
    large = small.regroup(8)
    assert [labels.tolist() for _, labels in large] == [[*range(8)], [8, 9]]
    assert len(small) == 4


def test_an_evaluation_in_parts_reads_every_image_once():
    images = torch.arange(13, dtype=torch.uint8).view(13, 1, 1, 1)
    whole = Batches(images, torch.arange(13), (1, 1), 4, shuffle=False)
    shares = [whole.regroup(4, part, 3) for part in range(3)]
    batches = [labels for share in shares for _, labels in share]
    assert torch.cat(batches).sort().values.tolist() == list(range(13))
    assert all(len(labels) for labels in batches)
    with pytest.raises(ValueError, match="parts=14 must be at most the 13 images: keep more"):
        whole.regroup(4, 0, 14)

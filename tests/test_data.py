"""The data: files, where they lie and their damage, subsets, orders, resizing, the synthetic stand-in.

The files here are small ones that the tests make, with checksums to match, so that everything runs
without a network. Where CNNLIB_DATA names the real archives, those are read as well.
"""

import errno
import functools
import gzip
import hashlib
import itertools
import multiprocessing
import re
import shutil
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torchvision.datasets import FashionMNIST

from cnnlib.data import Batches, Data, _files, fashion_mnist, mnist, random_crop
from cnnlib.data.synthetic import draw as draw_garments

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
    checksums = {}
    for part, per_class in PER_CLASS.items():
        images, labels = draw_garments(10 * per_class, seed=len(part))
        contents = {"images-idx3": images[:, 0].numpy(), "labels-idx1": labels.byte().numpy()}
        for kind, array in contents.items():
            name = f"{part}-{kind}-ubyte"
            content = idx(array)
            (raw / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
            checksums[name] = md5(content)
    monkeypatch.setattr(_files, "SITE", "http://127.0.0.1:9")
    monkeypatch.setattr(_files, "MD5", checksums)
    monkeypatch.setattr(mnist, "COUNTS", {"train": 120, "test": 50})
    return tmp_path


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No archives and no network."""
    monkeypatch.setattr(_files, "SITE", "http://127.0.0.1:9")
    return tmp_path / "nowhere"


def everything(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


# The files


def test_archives_are_unpacked_and_read(folder):
    data = fashion_mnist(root=folder, device="cpu")
    assert data.source == "Fashion-MNIST"
    assert data.banner == ""
    assert data.classes == tuple(FashionMNIST.classes)
    assert data.train.images.dtype is torch.uint8
    assert data.train.labels.dtype is torch.int64
    images, labels = everything(data.test)
    expected, wanted = draw_garments(50, seed=4)
    assert torch.equal((images * 255).round().byte(), expected)
    assert torch.equal(labels, wanted)
    assert str(data) == "Fashion-MNIST: 120 training and 50 test images, 1x28x28, on cpu"


def test_the_folder_is_root_else_the_variable_else_the_users_cache(folder, monkeypatch, nowhere):
    monkeypatch.setenv("CNNLIB_DATA", str(folder))
    assert fashion_mnist().source == "Fashion-MNIST"
    assert fashion_mnist(root=nowhere).source == "synthetic stand-in"
    monkeypatch.delenv("CNNLIB_DATA")
    monkeypatch.setattr(_files, "user_cache_path", lambda name: folder)
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
    assert "train-images-idx3-ubyte is damaged or incomplete and will be replaced" in out
    assert str(folder) not in out


def test_a_damaged_archive_does_not_matter_once_it_is_unpacked(folder):
    fashion_mnist(root=folder)
    (folder / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"half")
    assert fashion_mnist(root=folder).source == "Fashion-MNIST"


@pytest.fixture
def server(tmp_path_factory, monkeypatch):
    """A folder whose files can be downloaded."""
    site = tmp_path_factory.mktemp("site")
    serve = functools.partial(SimpleHTTPRequestHandler, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(_files, "SITE", f"http://127.0.0.1:{server.server_port}")
        yield site
        server.shutdown()


def test_a_damaged_archive_is_named_and_fetched_again(folder, capsys, server):
    path = folder / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    whole = path.read_bytes()
    (server / path.name).write_bytes(whole)
    path.write_bytes(whole[:20])
    assert fashion_mnist(root=folder).source == "Fashion-MNIST"
    assert path.read_bytes() == whole
    assert "t10k-labels-idx1-ubyte.gz is damaged or incomplete" in capsys.readouterr().out


def test_a_damaged_unpacked_file_without_its_archive_is_fetched_again(folder, capsys, server):
    fashion_mnist(root=folder)
    path = folder / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte"
    whole = path.read_bytes()
    shutil.move(f"{path}.gz", server)
    path.write_bytes(whole[:20])
    assert fashion_mnist(root=folder).source == "Fashion-MNIST"
    assert path.read_bytes() == whole


def test_an_empty_folder_is_filled_by_a_download(folder, server):
    for path in (folder / "FashionMNIST" / "raw").iterdir():
        shutil.copy(path, server)
    assert fashion_mnist(root=folder / "new").source == "Fashion-MNIST"


def test_a_damaged_archive_without_network_ends_in_the_stand_in(folder, capsys):
    (folder / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz").write_bytes(b"half")
    data = fashion_mnist(root=folder)
    assert data.source == "synthetic stand-in"
    assert "train-images-idx3-ubyte.gz is damaged" in capsys.readouterr().out


def load_in_a_process(folder, checksums, queue):
    _files.SITE, _files.MD5 = "http://127.0.0.1:9", checksums
    mnist.COUNTS = {"train": 120, "test": 50}
    queue.put(fashion_mnist(root=folder, device="cpu").source)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks a process with threads")
def test_two_processes_may_start_at_once(folder):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = (folder, _files.MD5, queue)
    processes = [context.Process(target=load_in_a_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found == ["Fashion-MNIST"] * 3


def test_one_process_at_a_time_unpacks(folder):
    raw = folder / "FashionMNIST" / "raw"
    found = []
    second = threading.Thread(target=lambda: found.append(fashion_mnist(root=folder).source))
    with FileLock(raw / "fashion_mnist.lock"):
        second.start()
        second.join(timeout=0.5)
        assert second.is_alive()
        assert not (raw / "train-images-idx3-ubyte").exists()
    second.join(timeout=60)
    assert found == ["Fashion-MNIST"]


def test_a_folder_that_is_not_one_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "archive.gz"
    path.write_bytes(b"")
    for root in (path, path / "below", "", 5, b"data", "~nobody-of-this-name/data"):
        named = re.escape(f"root={str(root)!r} must be a folder: name the one that holds the files")
        with pytest.raises(ValueError, match=named):
            fashion_mnist(root=root)
    monkeypatch.setenv("CNNLIB_DATA", str(path))
    with pytest.raises(ValueError, match=r"CNNLIB_DATA='.*archive\.gz' must be a folder"):
        fashion_mnist()


def contents(folder):
    """Return the bytes of every file below a folder, by its path."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_only_below(writable, monkeypatch):
    """Make the folders that may be written those below some, as on a machine where rights are few."""
    temporary_file = _files.tempfile.TemporaryFile

    def refuse(dir):
        if not any(allowed in Path(dir).parents for allowed in writable):
            raise OSError(errno.EROFS, "read-only file system")
        return temporary_file(dir=dir)

    monkeypatch.setattr(_files.tempfile, "TemporaryFile", refuse)


@pytest.mark.parametrize("place", ["cache", "temporary"])
def test_files_in_a_folder_that_cannot_be_written_are_read(
    folder, tmp_path_factory, monkeypatch, place
):
    """The user's cache takes what is unpacked, and a temporary folder if that is closed, too."""
    other = tmp_path_factory.mktemp("other")
    monkeypatch.setattr(_files, "user_cache_path", lambda name: other / "cache")
    monkeypatch.setattr(_files, "TEMPORARY", other / "temporary")
    write_only_below([other / place], monkeypatch)
    before = contents(folder)
    for _ in range(2):
        assert fashion_mnist(root=folder).source == "Fashion-MNIST"
    assert contents(folder) == before
    assert (other / place / "FashionMNIST" / "raw" / "train-images-idx3-ubyte").exists()


def test_an_empty_folder_that_cannot_be_written_is_named(nowhere, monkeypatch, capsys):
    write_only_below([], monkeypatch)
    assert fashion_mnist(train=10, test=10, root=nowhere).source == "synthetic stand-in"
    raw = nowhere / "FashionMNIST" / "raw"
    assert (
        f"downloaded: {raw} cannot be written (read-only file system). The search"
        in capsys.readouterr().out
    )


def test_a_name_too_long_is_said(nowhere, capsys):
    assert (
        fashion_mnist(train=10, test=10, root=nowhere / ("x" * 5000)).source == "synthetic stand-in"
    )
    assert "cannot be written" in capsys.readouterr().out


def test_a_user_without_a_home_has_a_temporary_folder(folder, monkeypatch):
    monkeypatch.delenv("CNNLIB_DATA", raising=False)
    monkeypatch.setattr(_files, "user_cache_path", lambda name: Path("~/.cache/cnnlib"))
    monkeypatch.setattr(_files, "TEMPORARY", folder)
    assert fashion_mnist().source == "Fashion-MNIST"


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-idx", ".idx"])
@pytest.mark.parametrize(
    ("place", "root"),
    [
        ("FashionMNIST/raw", "."),
        ("FashionMNIST/raw", "FashionMNIST"),
        ("FashionMNIST/raw", "FashionMNIST/raw"),
        (".", "."),
        ("FashionMNIST", "."),
        ("raw", "."),
        ("here", "here"),
    ],
)
def test_files_placed_by_hand_are_found_and_left_alone(
    folder, tmp_path_factory, capsys, place, root, mark, ending
):
    base = tmp_path_factory.mktemp("base")
    (base / place).mkdir(parents=True, exist_ok=True)
    for path in (folder / "FashionMNIST" / "raw").iterdir():
        content = gzip.decompress(path.read_bytes())
        packed = (
            gzip.compress(content, compresslevel=1) if ending else content
        )  # as nobody else has
        (base / place / (path.stem.replace("-idx", mark) + ending)).write_bytes(packed)
    before = contents(base)
    for _ in range(2):
        assert fashion_mnist(root=base / root, device="cpu").source == "Fashion-MNIST"
    assert capsys.readouterr().out == ""
    after = contents(base)
    assert {path: after[path] for path in before} == before
    home = base / "here" if root == "here" else base
    added = {path for path in after.keys() - before.keys() if path.suffix != ".lock"}
    assert {path.parent for path in added} <= {home / "FashionMNIST" / "raw"}


def test_packed_and_unpacked_files_may_lie_in_several_places(folder):
    raw = folder / "FashionMNIST" / "raw"
    path = raw / "train-images-idx3-ubyte.gz"
    (folder / "train-images.idx3-ubyte").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    (raw / "t10k-labels-idx1-ubyte.gz").rename(folder / "t10k-labels-idx1-ubyte.gz")
    assert fashion_mnist(root=folder).source == "Fashion-MNIST"


def test_a_damaged_file_of_the_user_is_named_and_kept(folder, tmp_path_factory, capsys):
    """So is one of another data set: the handwritten digits of MNIST have the same names."""
    base = tmp_path_factory.mktemp("base")
    for path in (folder / "FashionMNIST" / "raw").iterdir():
        shutil.copy(path, base / path.name)
    damaged = base / "t10k-labels-idx1-ubyte.gz"
    whole = damaged.read_bytes()
    flipped = whole[:15] + bytes([whole[15] ^ 255]) + whole[16:]
    for content in (b"", b"half", whole[:-9], flipped, gzip.compress(b"other")):
        damaged.write_bytes(content)
        _files.UNREACHABLE.clear()
        assert fashion_mnist(train=10, test=10, root=base).source == "synthetic stand-in"
        said = f"{damaged} is damaged or not part of Fashion-MNIST, and is left alone"
        assert said in capsys.readouterr().out
        assert damaged.read_bytes() == content


def test_a_damaged_file_of_another_spelling_is_kept(folder, capsys):
    damaged = folder / "FashionMNIST" / "raw" / "train-labels.idx1-ubyte"
    damaged.write_bytes(b"half")
    (damaged.parent / "train-labels-idx1-ubyte.gz").unlink()
    assert fashion_mnist(train=10, test=10, root=folder).source == "synthetic stand-in"
    assert f"{damaged} is damaged" in capsys.readouterr().out
    assert damaged.read_bytes() == b"half"


def test_what_is_not_found_is_said_with_the_folder_and_the_names(folder, nowhere, capsys):
    (folder / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte.gz").unlink()
    for root in (folder, nowhere):
        assert fashion_mnist(train=10, test=10, root=root).source == "synthetic stand-in"
        out = capsys.readouterr().out
        assert out.startswith("Fashion-MNIST could not be found or downloaded: Error downloading ")
        assert out.count("\n") == 1
        assert f"The search began in {root}, where you can put the four files yourself: " in out
        assert out.endswith(": " + ", ".join(f"{name}.gz" for name in _files.MD5) + "\n")


def test_files_put_there_after_a_failed_download_are_found(folder, nowhere, capsys):
    assert fashion_mnist(train=10, test=10, root=nowhere).source == "synthetic stand-in"
    for path in (folder / "FashionMNIST" / "raw").iterdir():
        shutil.copy(path, nowhere)
    assert fashion_mnist(root=nowhere).source == "Fashion-MNIST"


def test_the_two_kinds_of_files_are_read_by_hand(tmp_path):
    """One label after its header of 8 bytes, two images of 1x3 after theirs of 16."""
    labels, images = tmp_path / "labels", tmp_path / "images"
    labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]))
    images.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255]))
    assert _files._read_idx(labels).tolist() == [7]
    assert _files._read_idx(images).tolist() == [[[1, 2, 3]], [[4, 5, 255]]]


def test_files_are_read_as_torchvision_reads_them(folder):
    fashion_mnist(root=folder)
    for part in ("train", "test"):
        images, labels = _files.read(folder / "FashionMNIST" / "raw", part)
        theirs = FashionMNIST(folder, train=part == "train")
        assert torch.equal(images[:, 0], theirs.data)
        assert torch.equal(labels, theirs.targets)
        assert (images.dtype, labels.dtype) == (theirs.data.dtype, theirs.targets.dtype)


def test_a_failed_download_is_said_and_not_tried_again(nowhere, monkeypatch, capsys):
    tries = []

    def refuse(url, timeout):
        tries.append(url)
        raise ConnectionRefusedError

    monkeypatch.setattr(_files, "urlopen", refuse)
    for _ in range(3):
        assert fashion_mnist(train=10, test=10, root=nowhere).source == "synthetic stand-in"
    assert tries == ["http://127.0.0.1:9/train-images-idx3-ubyte.gz"]
    assert "downloaded: an earlier download failed; restart the kernel" in capsys.readouterr().out


def test_a_small_data_set_is_shown_and_named(nowhere):
    data = fashion_mnist(train=10, test=10, root=nowhere)
    assert len(data.show().axes) >= 10
    assert repr(data) == str(data)


def test_a_folder_that_cannot_be_made_ends_in_the_stand_in(nowhere, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert fashion_mnist(train=10, test=10, root=nowhere).source == "synthetic stand-in"


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
    def images(**options):
        data = fashion_mnist(root=folder, device="cpu", **options)
        return [bytes(image.numpy()) for image in data.train.images]

    whole, part = set(images()), images(train=60)
    assert len(set(part)) == 60
    assert set(part) <= whole


def make_batches(count=10, size=(6, 6), batch_size=4, shuffle=True, seed=0):
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 6, 6)
    return Batches(images.contiguous(), torch.arange(count), size, batch_size, shuffle, seed)


def test_only_some_classes_are_kept_and_labelled_anew(folder):
    data = fashion_mnist(root=folder, batch_size=7, device="cpu")
    some = data.select_classes("Bag", "Trouser")
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
    train.transforms = (torch.neg,)
    test = make_batches(5, batch_size=2, shuffle=False)
    data = Data(train, test, mnist.CLASSES, "drawn")
    held = data.hold_out(4)
    assert sorted(torch.cat([held.train.labels, held.test.labels]).tolist()) == list(range(10))
    assert len(held.test.labels) == 4
    for part in (held.train, held.test):  # the images of make_batches have their label's value
        assert torch.equal(part.images[:, 0, 0, 0], part.labels)
    assert (held.train.shuffle, held.train.transforms) == (True, (torch.neg,))
    assert (held.test.shuffle, held.test.transforms, held.test.batch_size) == (False, (), 2)
    assert torch.equal(held.test.labels, data.hold_out(4).test.labels)
    assert not torch.equal(held.test.labels, data.hold_out(4, seed=1).test.labels)
    assert held.test.labels.tolist() != sorted(held.test.labels.tolist()), "drawn at random"
    assert (len(data.train.labels), len(data.test.labels)) == (10, 5), "the whole is left alone"


@pytest.mark.parametrize("count", [0, 10, 2.5])
def test_some_images_are_held_out_and_some_are_left(count):
    data = Data(make_batches(10), make_batches(5), mnist.CLASSES, "drawn")
    with pytest.raises(ValueError, match=f"count={count} must be a whole number from 1 to 9"):
        data.hold_out(count)


def test_a_class_without_a_test_image_is_refused():
    data = Data(make_batches(10), make_batches(5), mnist.CLASSES, "drawn")
    with pytest.raises(ValueError, match=r"names=\('Bag',\) must have training and test images"):
        data.select_classes("Bag")


def test_a_class_of_no_such_name_is_refused(folder):
    with pytest.raises(ValueError, match=r"name='Hat' must be a class: try one of \('T-shirt"):
        fashion_mnist(root=folder).select_classes("Bag", "Hat")


@pytest.mark.parametrize("names", [(), ("Coat", "Bag", "Coat")])
def test_classes_are_named_once(folder, names):
    with pytest.raises(
        ValueError, match=r"must be one class or several .* try select_classes\('T-shirt/top', 'T"
    ):
        fashion_mnist(root=folder).select_classes(*names)


def test_the_last_short_batch_is_kept():
    batches = make_batches()
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert len(batches) == 3


def orders(batches, *epochs, seed=None):
    return [torch.cat([labels for _, labels in batches.epoch(e, seed)]).tolist() for e in epochs]


def test_an_order_follows_from_the_seed_and_the_number_of_the_epoch():
    """Epoch 3 is the same whether or not others were read, on another object, too."""
    found = orders(make_batches(seed=1), 1, 2, 3)
    assert all(sorted(order) == list(range(10)) for order in found)
    batches = make_batches(seed=1)
    assert orders(batches, 3, 1) == [found[2], found[0]]
    next(iter(batches))
    assert orders(batches, 2, 2) == [found[1]] * 2
    assert orders(make_batches(seed=5), 1, 2, 3, seed=1) == found


def test_no_two_of_many_seeds_and_epochs_have_the_same_order():
    batches = make_batches(40)
    seeds = [*range(20), -1, 2**32, 2**32 + 1, 2**62, 2**63 - 1, -(2**62)]
    found = {(seed, e): orders(batches, e, seed=seed)[0] for seed in seeds for e in range(1, 20)}
    assert len({tuple(order) for order in found.values()}) == len(found)
    first = torch.tensor([order[0] for order in found.values()])
    assert first.bincount(minlength=40).max() < 3 * len(found) / 40, "every image may come first"


def test_passes_are_epochs_one_two_and_three():
    batches = make_batches(seed=1)
    passes = [everything(batches)[1].tolist() for _ in range(3)]
    assert passes == orders(batches, 1, 2, 3)
    assert passes[0] != passes[1] != passes[2]
    first, second = iter(batches), iter(batches)  # two at once do not disturb each other
    both = [
        torch.cat([a[1] for a in pair])
        for pair in zip(*zip(first, second, strict=True), strict=True)
    ]
    assert [order.tolist() for order in both] == orders(batches, 4, 5)


def test_copies_count_their_own_epochs():
    data = Data(make_batches(10, seed=1), make_batches(5), mnist.CLASSES, "drawn")
    copies = {
        "hold_out": lambda: data.hold_out(2).train,
        "with_transforms": lambda: data.with_transforms(torch.neg).train,
        "rebatch": lambda: data.train.rebatch(3),
        "shard": lambda: data.train.shard(0, 2),
        "select_classes": lambda: data.select_classes(*mnist.CLASSES).train,
    }
    for name, copied in copies.items():
        everything(data.train)
        copy, other = copied(), copied()
        expected = orders(copy, 1, 2)
        assert everything(copy)[1].tolist() == expected[0], name
        everything(data.train)
        everything(other)
        assert everything(copy)[1].tolist() == expected[1], name
    again = everything(data.train)[1].tolist()
    assert again == orders(data.train, 2 * len(copies) + 1)[0], "copies leave it alone"


@pytest.mark.parametrize("number", [0, -1, 1.5, True])
def test_epochs_are_counted_from_one(number):
    with pytest.raises(ValueError, match=f"number={number} must be a whole number from 1: try"):
        make_batches().epoch(number)


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
    assert data.source == "synthetic stand-in"
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
    mean = {name: images[labels == k, 0].float().mean(0) for k, name in enumerate(mnist.CLASSES)}
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
        ({"batch_size": 0}, "batch_size=0 must be a whole number from 1 to 1,000,000: try"),
        ({"batch_size": 2.5}, r"batch_size=2\.5 must be a whole number"),
        ({"train": 0}, r"train=0 must be a whole number from 1 to 60,000: try train=128"),
        ({"train": 60_001}, "train=60001 must be a whole number from 1 to 60,000"),
        ({"test": -1}, "test=-1 must be a whole number from 1 to 10,000"),
        ({"size": 0}, r"size=0 must be a number of pixels from 1 to 4,096, or .*: try size=28"),
        ({"size": (28, 0)}, r"size=\(28, 0\) must be"),
        ({"size": (1, 28, 28)}, r"size=\(1, 28, 28\) must be"),
        ({"size": 2.5}, r"size=2\.5 must be"),
        ({"size": True}, "size=True must be"),
        ({"size": (28, True)}, r"size=\(28, True\) must be"),
        ({"size": np.int64(0)}, r"size=np\.int64\(0\) must be|size=0 must be"),
        ({"seed": 1.5}, r"seed=1\.5 must be a whole number from .*: try seed=0"),
        ({"seed": True}, r"seed=True must be a whole number from .*: try seed=0"),
        (
            {"seed": 2**63},
            rf"seed={2**63} must be a whole number from -2\*\*62 to 2\*\*63 - 1: try",
        ),
        ({"seed": -(2**62) - 1}, rf"seed={-(2**62) - 1} must be a whole number from -2\*\*62"),
        ({"batch_size": True}, "batch_size=True must be a whole number"),
        ({"train": np.bool_(True)}, "train=.*True.* must be a whole number"),
        ({"device": "gpu"}, "device='gpu' must be a device of this machine: try device='cpu'"),
        ({"device": "meta"}, "device='meta' must be a device of this machine: try device='cpu'"),
        ({"device": 1.5}, r"device='1\.5' must be a device of this machine"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        fashion_mnist(**arguments)


def test_whole_numbers_of_numpy_are_taken(nowhere):
    def images(integer, kind=lambda sides: sides):
        size, counts = kind([integer(14), integer(15)]), {"train": integer(30), "test": integer(20)}
        data = fashion_mnist(
            tuple(size), integer(8), **counts, root=nowhere, seed=integer(3), device="cpu"
        )
        assert all(type(side) is int for side in data.train.size)
        return everything(data.hold_out(integer(5), integer(2)).train)[0]

    for integer in (np.int64, np.uint8):
        assert torch.equal(images(integer), images(int))
    assert fashion_mnist(np.int32(20), 8, train=10, test=10, root=nowhere).shape == (1, 20, 20)


@pytest.mark.parametrize("seed", [2**63 - 1, -(2**62)])
def test_the_largest_seeds_work(nowhere, seed):
    data = fashion_mnist(8, train=10, test=10, root=nowhere, seed=seed)
    assert len(everything(data.train)[1]) == 10


@pytest.mark.parametrize("count", [0, -1, 1.5, "3", True])
def test_a_picture_has_a_whole_number_of_images(nowhere, count):
    with pytest.raises(
        ValueError, match=f"count={count!r} must be a whole number from 1: try count=16"
    ):
        fashion_mnist(train=10, test=10, root=nowhere).show(count)


def test_methods_refuse_what_is_no_seed_or_padding():
    data = Data(make_batches(10), make_batches(5), mnist.CLASSES, "drawn")
    for call in (lambda: data.hold_out(3, seed="a"), lambda: data.train.epoch(1, seed="a")):
        with pytest.raises(
            ValueError, match=r"seed='a' must be a whole number from .*: try seed=0"
        ):
            call()
    for padding in (-1, 1.5, True):
        with pytest.raises(ValueError, match=f"padding={padding} must be a whole number from 0"):
            random_crop(torch.zeros(1, 1, 4, 4), padding)


@pytest.mark.parametrize(("count", "batch_size", "parts"), [(24, 8, 2), (20, 8, 4), (21, 6, 3)])
def test_the_shards_of_each_batch_make_the_batch(count, batch_size, parts):
    whole = numbered(count, batch_size, shuffle=True)
    shards = [whole.shard(part, parts) for part in range(parts)]
    for epoch in (1, 2):
        expected = [labels.tolist() for _, labels in whole.epoch(epoch, seed=3)]
        found = [[labels.tolist() for _, labels in s.epoch(epoch, seed=3)] for s in shards]
        assert [len(shard) for shard in shards] == [len(expected)] * parts
        for batch, *pieces in zip(expected, *found, strict=True):
            assert len({len(piece) for piece in pieces}) == 1
            assert sorted(batch) == sorted(label for piece in pieces for label in piece)


def numbered(count, batch_size, shuffle=False):
    """Batches of images of one pixel, each labelled by its place."""
    images = torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1)
    return Batches(images, torch.arange(count), (1, 1), batch_size, shuffle)


def test_larger_batches_have_the_same_images_in_the_same_order():
    small = numbered(10, 3)
    large = small.rebatch(8)
    assert [labels.tolist() for _, labels in large] == [[*range(8)], [8, 9]]
    assert len(small) == 4


def test_an_evaluation_in_shards_reads_every_image_once():
    whole = numbered(13, 4)
    batches = [labels for part in range(3) for _, labels in whole.shard(part, 3)]
    assert torch.cat(batches).sort().values.tolist() == list(range(13))
    assert all(len(labels) for labels in batches)
    with pytest.raises(ValueError, match="num_shards=14 must be at most the 13 images: keep more"):
        whole.shard(0, 14)


def test_a_shard_of_a_shard_is_a_part_of_that_shard():
    whole = numbered(24, 12)
    parts = [whole.shard(i, 2).shard(j, 3) for i in range(2) for j in range(3)]
    labels = [torch.cat([labels for _, labels in part]).tolist() for part in parts]
    assert sorted(itertools.chain(*labels)) == list(range(24))
    assert sorted(itertools.chain(*labels[:3])) == list(range(0, 24, 2))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            lambda whole: whole.shard(2, 2),
            "index=2 must be a whole number from 0 to 1: try index=0",
        ),
        (lambda whole: whole.shard(-1, 2), "index=-1 must be"),
        (lambda whole: whole.shard(0, 0), "num_shards=0 must be a whole number from 1"),
        (lambda whole: whole.rebatch(0), "batch_size=0 must be a whole number from 1"),
        (lambda whole: whole.rebatch(1.5), "batch_size=1.5 must be"),
    ],
)
def test_shards_and_batches_that_cannot_be_are_refused(part, message):
    with pytest.raises(ValueError, match=message):
        part(numbered(13, 4))


def test_numpy_numbers_are_numbers_of_images():
    whole = numbered(12, 4).rebatch(np.int64(5)).shard(np.int64(0), np.int64(2))
    assert [labels.tolist() for _, labels in whole] == [[0, 2], [4, 6], [8, 10]]

"""The four files of Fashion-MNIST: found, downloaded, verified and read."""

import gzip
import hashlib
import io
import os
import struct
import tempfile
import threading
import zlib
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import torch
from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from cnnlib._atomic import write

SITE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
PATIENCE = 10  # seconds without a reply before giving up
LONGEST = 600  # seconds that one download may take
LARGEST = 50_000_000  # bytes, more than any of the files has, packed or not
TEMPORARY = Path(tempfile.gettempdir(), "cnnlib")  # writable for every user
MD5 = {  # of the unpacked files, since archives of the same file may differ
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
UNREACHABLE: set[Path] = set()  # folders whose download has failed in this process


def fetch(root: str | Path | None = None) -> Path:
    """Make sure that the four unpacked files exist and are intact, and return their folder.

    The folder is FashionMNIST/raw under the root, as in torchvision. Archives found under the root
    are unpacked there, or into the user's cache if the root is read-only or full. Missing files are
    downloaded. Damaged files are reported; those in FashionMNIST/raw are replaced, others are kept.

    Args:
        root: A folder, its FashionMNIST or its FashionMNIST/raw. None: the folder that CNNLIB_DATA
            names, else the user's cache folder.

    Raises:
        OSError: The files could be neither found nor downloaded.
        ValueError: The root is not a folder.
    """
    folder, refusals = _folder(root), []
    try:
        for raw in dict.fromkeys(map(_raw, (folder, _cache(), TEMPORARY))):
            found = {name: _find(name, raw, folder) for name in MD5}
            if all(path == raw / name for name, path in found.items()):
                return raw
            try:
                _check_writable(raw)
                with _lock(raw):
                    for name in MD5:
                        _provide(name, raw, folder)
                return raw
            except ConnectionError:
                raise
            except OSError as error:  # the folder is read-only or full
                refusals.append(error)
            if None in found.values() and folder != _cache():
                break  # download to the requested folder only
        raise refusals[0]
    except OSError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise OSError(
            f"{reason}. The search began in {folder}, where you can put the four files yourself: "
            + ", ".join(f"{name}.gz" for name in MD5)
        ) from error


def _folder(root):
    """Return the requested folder, by default the user's cache."""
    name, folder = "root", root
    if folder is None:
        name, folder = "CNNLIB_DATA", os.environ.get("CNNLIB_DATA")
        if not folder:
            return _cache()
    with suppress(RuntimeError, TypeError, ValueError):  # an unknown home; not a path; a NUL
        path = Path(folder).expanduser().absolute()
        os.path.realpath(path)  # refuses a NUL
        existing = filter(os.path.exists, (path, *path.parents))
        if folder != "" and all(map(os.path.isdir, existing)):
            return path
    raise ValueError(
        f"{name}={str(folder)!r} must be a folder: name the one that holds the files of "
        "Fashion-MNIST, or a new one"
    )


def _cache():
    """Return the user's cache folder, or a temporary one for a user without a home."""
    with suppress(RuntimeError):
        folder = user_cache_path("cnnlib")
        if folder.is_absolute():
            return folder
    return TEMPORARY


def _raw(folder):
    """Return the FashionMNIST/raw of a folder, which may be either of these two itself."""
    if folder.parts[-2:] == ("FashionMNIST", "raw"):
        return folder
    return folder / "raw" if folder.name == "FashionMNIST" else folder / "FashionMNIST" / "raw"


def _check_writable(folder):
    """Refuse a folder that is not writable, which `os.access` does not know on Windows."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f"{folder} cannot be written ({error.strerror})") from error


def _lock(folder):
    """Return the lock of a folder, acquired: one process at a time unpacks and downloads."""
    lock = FileLock(folder / "fashion_mnist.lock")
    try:
        return lock.acquire(timeout=3 * PATIENCE)
    except Timeout:
        print(f"Waiting for another process, which provides Fashion-MNIST in {folder}")
        return lock.acquire(timeout=len(MD5) * LONGEST)


def _candidates(name, raw, folder):
    """Return the paths at which a file may be: in raw, or where people put it, packed or not.

    Some sites, such as Kaggle, put a dot in its name: train-images.idx3-ubyte.
    """
    places = dict.fromkeys([raw, _raw(folder), folder, folder / "raw", folder / "FashionMNIST"])
    names = [name, f"{name}.gz"]
    names += [name.replace("-idx", ".idx") for name in names]
    return [place / name for place in places for name in names]


def _find(name, raw, folder):
    """Return the first path that holds an intact copy of a file, or None."""
    paths = _candidates(name, raw, folder)
    return next((path for path in paths if _md5(path) == MD5[name]), None)


def _provide(name, raw, folder):
    """Unpack or download a file into raw, and report damaged copies on the way."""
    for path in _candidates(name, raw, folder):
        md5 = _md5(path)
        if md5 == MD5[name]:
            break
        if md5 and path.parent == raw and path.name.removesuffix(".gz") == name:
            print(f"{path.name} is damaged or incomplete and will be replaced")
        elif md5:
            print(f"{path} is damaged or not part of Fashion-MNIST, and is left alone")
    else:
        path = _download(raw / f"{name}.gz")
    if path != raw / name:
        write(raw / name, _unpack(path))


def _download(archive):
    """Download an archive, verify it, and return its path; after one failure, do not try again."""
    if archive.parent in UNREACHABLE:
        raise ConnectionError("an earlier download failed; restart the kernel to try again")
    url = f"{SITE}/{archive.name}"
    try:
        packed = _within(LONGEST, _get, url)
        with gzip.open(io.BytesIO(packed)) as file:
            if hashlib.md5(file.read(LARGEST)).hexdigest() != MD5[archive.stem]:
                raise ValueError("the downloaded file is damaged")
    except Exception as error:  # whatever a server may answer
        UNREACHABLE.add(archive.parent)
        raise ConnectionError(f"Error downloading {url}: {error}") from error
    write(archive, packed)
    return archive


def _get(url):
    """Return the content at an address."""
    with urlopen(url, timeout=PATIENCE) as response:
        content = response.read(LARGEST)
    if len(content) == LARGEST:
        raise OSError(f"the answer has {LARGEST:,} bytes or more")
    return content


def _within(seconds, function, argument):
    """Return what a function returns, unless that takes too long.

    The function is then left to a thread that ends with this process: a server that sends one byte
    now and then is never silent for long.
    """
    result = Future()

    def run():
        try:
            result.set_result(function(argument))
        except Exception as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return result.result(seconds)
    except TimeoutError:
        if result.done():  # the function itself waited in vain
            raise
        raise TimeoutError(f"no end after {seconds} seconds") from None


def _unpack(path):
    """Return the content of a file, packed or not, up to the size of the largest."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return file.read(LARGEST)


def _md5(path):
    """Return the checksum of the unpacked content of a file, or None if there is no such file."""
    if not os.path.isfile(path):  # also false in a folder that we may not read
        return None
    try:
        return hashlib.md5(_unpack(path)).hexdigest()
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return "of a damaged archive"


def read(raw: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images (count, 1, 28, 28) and labels (count) of the "train" or "test" split."""
    prefix = {"train": "train", "test": "t10k"}[split]
    images = _read_idx(raw / f"{prefix}-images-idx3-ubyte")
    labels = _read_idx(raw / f"{prefix}-labels-idx1-ubyte")
    return images[:, None], labels.long()


def _read_idx(path):
    """Return the bytes that a file in the IDX format holds.

    All numbers in its header are big-endian and have four bytes. The first is 0x803 for images and
    0x801 for labels: 8 stands for unsigned bytes, and 3 or 1 is the number of dimensions. The
    length of each dimension follows, then the elements, row by row.
    """
    content = bytearray(path.read_bytes())  # writable, as torch wants it
    dimensions = {0x803: 3, 0x801: 1}[int.from_bytes(content[:4])]
    lengths = struct.unpack_from(f">{dimensions}I", content, offset=4)
    return torch.frombuffer(content, dtype=torch.uint8, offset=4 + 4 * dimensions).view(lengths)

"""A file from which a training continues after any interruption as if there had been none."""

import io
import os
import tempfile
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from cnnlib._atomic import places, write
from cnnlib.backend import Backend


@dataclass
class Checkpoint:
    """The file of one training.

    Args:
        path: The file, or a link to it; it need not exist.
        identity: The settings that distinguish this training from others, as text.
        parts: What changes during training, by name: objects with a state_dict, loaded in order.
        backend: How the training runs.
    """

    path: str | os.PathLike
    identity: dict[str, str]
    parts: dict[str, Any]
    backend: Backend

    def save(self) -> None:
        """Write the state after an epoch. All processes must call this."""
        random = self.backend.all_gather([each.get_state() for each in self._generators()])
        if self.backend.rank == 0:
            states = {name: part.state_dict() for name, part in self.parts.items()}
            contents = states | {"random": random, "identity": self.identity}
            contents = tree_map(_without_numpy, contents)
            buffer = io.BytesIO()  # not the file: on a full disk torch's message does not say so
            torch.save(contents | {"crc32": crc32_of(contents)}, buffer)
            write(self.path, buffer.getbuffer())

    def resume(self) -> None:
        """Restore the state in the file, if it exists, and keep others from the file until `close`.

        Raises:
            ValueError: The file is not a checkpoint, or belongs to another training, or to one that
                another process runs.
        """
        if os.path.exists(self.path):
            saved = _read(self.path)
            theirs = saved["identity"]
            for name in self.identity | theirs:
                if theirs.get(name) != self.identity.get(name):
                    raise ValueError(
                        f"checkpoint={str(self.path)!r} must be of this training, and it is of one "
                        f"with {name}={theirs.get(name)}, not {self.identity.get(name)}: try "
                        f"another file, or the same {name} to continue that training"
                    )
            for name, part in self.parts.items():
                part.load_state_dict(saved[name])
            random = saved["random"][self.backend.rank]
            for generator, state in zip(self._generators(), random, strict=True):
                generator.set_state(state)
        self._lock = FileLock(f"{places(self.path)[0]}.lock")
        if self.backend.rank == 0:  # last: a file that was refused is kept from nobody
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                raise ValueError(
                    f"checkpoint={str(self.path)!r} must be of one process, and another one trains "
                    "into it: stop that, wait for its end, or name another file"
                ) from error

    def close(self) -> None:
        """Let other processes have the file."""
        if self._lock.is_locked:
            with suppress(OSError):  # Windows removes it by itself
                os.unlink(self._lock.lock_file)
            self._lock.release()

    def _generators(self):
        """Return the random number generators: that of the CPU, and of the GPU if one is used."""
        device = self.backend.device
        gpu = [torch.cuda.default_generators[device.index]] if device.type == "cuda" else []
        return [torch.default_generator, *gpu]


def check_path(path: Any) -> None:
    """Refuse a path unless a file can be written there."""
    try:
        file, part = places(path)
        special = [each for each in (file, part) if os.path.exists(each) and not each.is_file()]
        fits = Path(path).name and os.path.isdir(file.parent) and not special
    except (TypeError, ValueError):  # it is no path, or holds what no name may hold
        fits = False
    if not fits:
        raise ValueError(
            f"checkpoint={str(path)!r} must be a file in a folder that exists: make the folder "
            "first, or name another file"
        )
    try:
        if os.path.exists(file):
            file.open("r+b").close()
        with suppress(FileNotFoundError):  # but its name may be too long
            part.stat()
        tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise ValueError(
            f"checkpoint={str(path)!r} must be a file that can be written ({error.strerror}): try "
            "a file in a folder of yours"
        ) from error


def _read(path):
    """Read a checkpoint without running any code in it."""
    with suppress(Exception), zipfile.ZipFile(path) as archive:  # garbage can raise anything
        if archive.testzip() is None:  # torch compares no checksums
            saved = torch.load(path, "cpu", weights_only=True)
            if saved.pop("crc32") == crc32_of(saved):
                return saved
    raise ValueError(
        f"checkpoint={str(path)!r} must be a whole file that fit wrote, or none: try another file"
    )


def _without_numpy(value):
    """Return a NumPy number, such as a learning rate, as a Python one: reading it needs no code."""
    return value.item() if isinstance(value, np.generic) else value


def crc32_of(contents):
    """Return the checksum of all values in lists and dictionaries, and of their names."""
    values, names = tree_flatten(contents)
    crc32 = zlib.crc32(str(names).encode())
    for value in values:
        if isinstance(value, Tensor):
            value = value.cpu().contiguous().flatten().view(torch.uint8).numpy()
        crc32 = zlib.crc32(value if isinstance(value, np.ndarray) else repr(value).encode(), crc32)
    return crc32

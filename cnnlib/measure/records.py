"""Records of measurements: JSON files that are written atomically and name their machine."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from cnnlib._atomic import write
from cnnlib.measure.machine import device_type, environment_info

_MACHINE = ("device", "cpu", "cores", "threads")  # the hardware that distinguishes machines


def load_previous(path: str | Path, environment: dict, **settings: object) -> tuple[Path, dict]:
    """Return the file for a measurement, and what that file already holds.

    A file with another machine, other versions, another precision or other settings is never
    changed: the measurement then goes into a new file beside it, such as bench_d2l_cpu-2.json.

    Args:
        path: A JSON file, which need not exist.
        environment: The result of `environment_info` on this machine.
        settings: Entries that the file must hold, such as its seed.

    Returns:
        The path, and the content as a dictionary, which is empty for a new file.

    Raises:
        ValueError: A file does not hold JSON, or the path names none that can be written.
    """
    path, number = _check_file(path), 1
    make_folder(path.parent)  # before anything is measured
    while path.exists():
        old = read_json(path)
        same = isinstance(old, dict) and _same_machine(environment, old)
        if same and settings.items() <= old.items():
            return path, old
        number += 1
        path = path.with_stem(f"{path.stem.removesuffix(f'-{number - 1}')}-{number}")
    return path, {}


def _same_machine(environment: dict, record: dict) -> bool:
    """Return whether a record comes from this machine, with these versions and this precision."""
    other = record.get("about", record)
    hardware = other.get("hardware") if isinstance(other, dict) else None
    return (
        isinstance(hardware, dict)
        and all(hardware.get(key) == environment["hardware"][key] for key in _MACHINE)
        and other.get("versions") == environment["versions"]
        and other.get("precision", environment["precision"]) == environment["precision"]
    )


def this_machine() -> dict:
    """Return what tells runs on this machine from others: as in `environment_info`, and commit."""
    about = environment_info(device_type()) | {"commit": _commit()}
    del about["date"], about["hardware"]["load"]
    return about


def _commit() -> str | None:
    """Return the commit of this package, with a mark if it was changed since; None without git."""

    def git(*arguments: str) -> str:
        call = ["git", "-C", str(Path(__file__).parent.parent), *arguments]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", ".")
        return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def make_folder(folder: Any) -> Path:
    """Make a folder, which may exist, or refuse what cannot be one before anything is measured."""
    try:
        if folder == "":
            raise FileNotFoundError("it has no name")
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
        return path
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"folder={str(folder)!r} must be a folder that can be written ({error}): try my_results"
        ) from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: There is no such file, or it is broken.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():  # to read a pipe may never end
            raise OSError("it is a folder, a pipe or a device")
        contents = Path(path).read_bytes()
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"path={str(path)!r} must be a file that can be read: {error}") from error
    try:
        return json.loads(contents.decode())
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path} must hold JSON, but it is broken: move it away") from error


def write_json(path: str | Path, record: object) -> None:
    """Write a JSON file, atomically, and create its folder.

    Raises:
        ValueError: The path names no file, or the record is not what JSON can hold.
    """
    path = _check_file(path)
    make_folder(path.parent)
    try:
        text = json.dumps(record, indent=1, allow_nan=False)
    except (RecursionError, TypeError, ValueError) as error:
        raise ValueError(
            f"record must be what JSON can hold, and {error}: try x.tolist() for a tensor, and "
            "None for what is not a number"
        ) from error
    write_bytes(path, f"{text}\n".encode())


def _check_file(path: Any) -> Path:
    """Return the path of a file that is there or may come there, or refuse what is none."""
    try:
        file = Path(path)
        os.fsencode(file)  # fails for a lone surrogate
        fits = file.name not in ("", "..") and "\0" not in file.name and not file.is_dir()
    except (OSError, TypeError, ValueError):  # the name is too long, or it is no path
        fits = False
    if not fits:
        raise ValueError(f"path={str(path)!r} must name a file: try 'my_results/record.json'")
    return file


def write_bytes(path: str | Path, contents: bytes) -> None:
    """Write a file, atomically, and create its folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write(path, contents)

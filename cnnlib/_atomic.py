"""Write files whole or not at all."""

import os
import shutil
from pathlib import Path


def places(path: str | os.PathLike) -> tuple[Path, Path]:
    """Return the file that a path leads to through links, and its temporary file beside it."""
    file = os.path.realpath(path)
    return Path(file), Path(f"{file}.part")


def write(path: str | os.PathLike, contents: bytes | memoryview) -> None:
    """Write a file whole or not at all. An existing one keeps its mode.

    Raises:
        OSError: The file cannot be written, or a folder, a device or a pipe has its name.
    """
    file, part = places(path)
    if file.exists() and not file.is_file():
        raise FileExistsError(f"{file} is not a regular file, and is not replaced")
    try:
        with part.open("wb") as stream:
            stream.write(contents)
            stream.flush()
            os.fsync(stream.fileno())
        if file.exists():
            shutil.copymode(file, part)
        part.replace(file)
    except OSError as error:
        error.filename = str(file)  # a full disk is not said with it
        raise
    finally:
        part.unlink(missing_ok=True)

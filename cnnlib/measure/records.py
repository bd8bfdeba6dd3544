"""Records of measurements: JSON files that are whole, and that name their machine."""

import json
from pathlib import Path
from typing import Any

_MACHINE = ("device", "cpu", "cores", "threads")  # the hardware by which machines are told apart


def load_previous(path: str | Path, environment: dict, **settings: object) -> tuple[Path, dict]:
    """Return the file that a measurement goes into, and what that file already holds.

    A file of another machine, other versions, another precision or other settings is never touched:
    the measurement then goes into the next free name beside it, such as bench_d2l_cpu-2.json.

    Args:
        path: A JSON file, which need not exist.
        environment: What `environment_info` returned here.
        settings: What the file has to hold under these names, such as its seed.

    Returns:
        The path, and a dictionary, which is empty for a new file.

    Raises:
        ValueError: A file does not hold JSON.
    """
    path, number = Path(path), 1
    while path.exists():
        old = read_json(path)
        same = isinstance(old, dict) and _same_machine(environment, old)
        if same and settings.items() <= old.items():
            return path, old
        number += 1
        path = path.with_stem(f"{path.stem.removesuffix(f'-{number - 1}')}-{number}")
    return path, {}


def _same_machine(environment: dict, record: dict) -> bool:
    """Return whether a record is of this machine, with these versions and this precision."""
    other = record.get("about", record)
    hardware = other.get("hardware", {})
    return (
        all(hardware.get(key) == environment["hardware"][key] for key in _MACHINE)
        and other.get("versions") == environment["versions"]
        and other.get("precision", environment["precision"]) == environment["precision"]
    )


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: It is broken.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must hold JSON, and it is broken: move it away") from error


def write_json(path: str | Path, record: object) -> None:
    """Write a JSON file and the folder that it lies in, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    part.replace(path)

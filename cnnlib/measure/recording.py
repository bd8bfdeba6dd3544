"""Find the experiments of notebooks, and run what their records are missing."""

import ast
import contextlib
import hashlib
import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from numbers import Real
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cnnlib.data._files import fetch
from cnnlib.measure.experiments import Experiment, Record
from cnnlib.measure.records import make_folder, read_json, this_machine, write_bytes, write_json

_TAG = "experiment"


def find(names: Sequence[str] = ()) -> list[Experiment]:
    """Return the experiments in the notebooks of this folder, or of its folder `notebooks`.

    Args:
        names: Those of experiments, or of notebooks, such as 05_resnet. (): all.

    Raises:
        ValueError: There is none of that name, or two, or a cell fails.
    """
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"names={names!r} must be names in a list: try ['05_resnet']")
    folder = Path("notebooks") if Path("notebooks").is_dir() else Path()
    paths = [*folder.glob("*.ipynb"), *folder.glob("deeper/*.ipynb")]
    notebooks = {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}
    wanted = {Path(name).stem for name in names}
    if wanted and wanted <= notebooks.keys():
        notebooks = {stem: path for stem, path in notebooks.items() if stem in wanted}
    found = [experiment for path in notebooks.values() for experiment in read_notebook(path)]
    known = [experiment.name for experiment in found]
    if unknown := wanted - notebooks.keys() - set(known):
        raise ValueError(
            f"name={unknown.pop()!r} must be an experiment or a notebook: try one of "
            f"{known + list(notebooks)}"
        )
    if twice := {name for name in known if known.count(name) > 1}:
        raise ValueError(f"name={twice.pop()!r} must be of one experiment only: rename the other")
    return [each for each in found if not wanted or {each.name, each.notebook} & wanted]


def read_notebook(path: Path) -> list[Experiment]:
    """Run the tagged cells of a notebook, and return the experiments that they define.

    Raises:
        ValueError: One of the cells fails.
    """
    try:
        cells = [
            "".join(cell["source"])
            for cell in read_json(path)["cells"]
            if _TAG in cell["metadata"].get("tags", [])
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be a notebook, and it is not: move it away") from error
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, source in enumerate(cells, start=1):
        try:
            exec(compile(source, f"{path.name}, {_TAG} {number}", "exec"), namespace)
        except (Exception, SystemExit) as error:
            raise ValueError(
                f"{path} must run by its cells tagged {_TAG!r} alone, and number {number} of them "
                f"stops with {type(error).__name__}: {error}. Tag the cell that it needs"
            ) from error
    names = {id(each): name for name, each in namespace.items() if isinstance(each, Experiment)}
    found = [namespace[name] for name in names.values()]
    for name, experiment in zip(names.values(), found, strict=True):
        experiment.notebook = path.stem
        experiment.source = _source(ast.parse("\n".join(cells)), name)
    return found


def _source(module: ast.Module, name: str) -> str:
    """Return the statements that an experiment depends on, without its plans and comments.

    A statement that may do more than define names counts for all experiments of a notebook.
    """
    statements: list[ast.stmt] = []
    for each in module.body:
        if isinstance(each, ast.Import | ast.ImportFrom):  # a statement for each name
            statements += [type(each)(**vars(each) | {"names": [alias]}) for alias in each.names]
        else:
            statements.append(each)
    for call in (node for each in statements for node in ast.walk(each)):
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("Experiment"):
            call.keywords = [each for each in call.keywords if each.arg != "plans"]
    needed, kept = {name}, list[ast.stmt]()
    while True:
        before = len(kept)
        kept = [each for each in statements if not _defines(each) or _defines(each) & needed]
        needed |= {n.id for each in kept for n in ast.walk(each) if isinstance(n, ast.Name)}
        if len(kept) == before:
            return "\n".join(map(ast.unparse, kept))


def _defines(statement: ast.stmt) -> set[str]:
    """Return the names that a statement defines; none where it may do more than that."""
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Import(names=[alias]) | ast.ImportFrom(names=[alias]):
            return {alias.asname or alias.name.partition(".")[0]}
        case ast.Assign(targets=[ast.Name(id=name)]):
            return {name}
    return set()


def complete(
    experiments: Sequence[Experiment], budget: str, folder: str | Path, minutes: float = math.inf
) -> None:
    """Run what the records in a folder are missing, and write a record after each run.

    One seed of every variant of every experiment comes before the second of any. Wherever this is
    stopped, it goes on there: a training from its checkpoint.

    Args:
        experiments: What to run.
        budget: The budget.
        folder: Where the records are.
        minutes: Stop before the first run that would end later, as far as past ones tell.

    Raises:
        ValueError: A record is broken or stale, or an argument is of the wrong kind. Nothing is
            run.
        OSError: Fashion-MNIST can be neither found nor downloaded. Nothing is run.
        TimeoutError: Another process works on one of the records.
    """
    is_list = isinstance(experiments, list | tuple)
    if not is_list or not all(isinstance(each, Experiment) for each in experiments):
        raise ValueError(f"experiments={experiments!r} must be Experiments in a list: try find()")
    if not isinstance(minutes, Real) or not minutes >= 0:
        raise ValueError(f"minutes={minutes!r} must be a number from 0: try minutes=60")
    if len({each.name for each in experiments}) < len(experiments):
        raise ValueError("experiments must have different names: try one of each")
    fetch()  # a record is never of the stand-in
    deadline, machine = time.monotonic() + 60 * minutes, this_machine()
    unfinished = make_folder(make_folder(folder) / "unfinished")
    with contextlib.ExitStack() as locks:
        jobs = []
        for place, experiment in enumerate(experiments):
            scratch = unfinished / f"{experiment.name}_{budget}"
            try:
                locks.enter_context(FileLock(scratch.with_suffix(".lock"), timeout=0))
            except Timeout as error:
                raise TimeoutError(
                    f"folder={str(folder)!r} must be of one process for {experiment.name!r}, and "
                    "another one records it: wait for its end, or try another folder"
                ) from error
            record = experiment.load(budget, folder)
            missing = record.missing(experiment.plans[budget].seeds)
            jobs += [(seed, place, variant, record, scratch) for seed, variant in missing]
            if not missing:  # killed when all was written
                shutil.rmtree(scratch, ignore_errors=True)
        jobs.sort(key=lambda job: job[:2])
        for number, (_, place, variant, record, scratch) in enumerate(jobs):
            if time.monotonic() + record.expected_seconds(variant, machine) > deadline:
                return
            left = sum(rec.expected_seconds(name, machine) for _, _, name, rec, _ in jobs[number:])
            print(f"\nrun {number + 1} of {len(jobs)}, about {_minutes(left)} left" * bool(left))
            scratch.mkdir(exist_ok=True)
            checkpoint = scratch / f"{_digest(variant, record, machine)}.pt"
            weights = experiments[place].run_next(variant, record, machine, checkpoint)
            if weights:  # before the record, which says that they are there
                write_bytes(experiments[place].weights_path(variant, budget, folder), weights)
            write_json(experiments[place].path(budget, folder), asdict(record))
            shutil.rmtree(scratch)


def _digest(variant: str, record: Record, machine: dict) -> str:
    """Return a name for the next run of a variant that no other run has."""
    what = [variant, len(record.runs[variant]), record.plan, record.source, machine]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def status(experiment: Experiment, budget: str, folder: str | Path) -> str:
    """Return which runs a record has, their minutes and machines, and which it is missing.

    A record that is broken or stale is said to be so.
    """
    if not isinstance(experiment, Experiment):
        raise ValueError(f"experiment={experiment!r} must be an Experiment: try find()[0]")
    title = f"{experiment.name} ({experiment.notebook}), {budget}"
    try:
        record = experiment.load(budget, folder)
    except ValueError as error:
        return f"{title}: {error}"
    missing, machine = record.missing(experiment.plans[budget].seeds), this_machine()
    lines = []
    for variant, runs in record.runs.items():
        cells = [f"{_minutes(run['seconds'])} [{run['machine']}]" for run in runs]
        cells += ["missing" for _, name in missing if name == variant]
        lines.append(f"  {variant:24}  {'  '.join(f'{cell:12}' for cell in cells)}".rstrip())
    for number, each in enumerate(record.machines):
        hardware = each["hardware"]
        lines.append(
            f"  [{number}] {hardware['device']}, {hardware['cpu']}, {hardware['threads']} threads, "
            f"{each['precision']}, torch {each['versions']['torch']}, commit {each['commit']}"
        )
    seconds = sum(record.expected_seconds(variant, machine) for _, variant in missing)
    done = sum(map(len, record.runs.values()))
    head = f"{title}: {done} of {done + len(missing)} runs"
    return "\n".join([head + f", about {_minutes(seconds)} missing" * bool(seconds), *lines])


def _minutes(seconds: float | None) -> str:
    """Return a time as text."""
    return "resumed" if seconds is None else f"{seconds / 60:.1f} min"

"""Experiments: each is defined once, in a notebook, and runs live there or is recorded for good.

A notebook defines it in cells with the tag "experiment", which run without its other cells:

    depth = Experiment("depth", job=train_one, variants={"20 layers": 20, "56 layers": 56}, plans={
        "quick": Plan(seeds=1, epochs=1), "study": Plan(seeds=5, epochs=3)})

`depth.run()` runs it live, `python -m cnnlib record depth` what its record is missing, and
`depth.record()` reads the record.
"""

import ast
import contextlib
import hashlib
import inspect
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from itertools import chain
from numbers import Real
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from cnnlib._checks import check_count
from cnnlib.measure.records import read_json, this_machine
from cnnlib.train import budget as current_budget

_BUDGETS = ("quick", "study", "full")
_PLACES = (".", "..", "../..")  # from where a notebook runs to the folder of the records


class Plan(SimpleNamespace):
    """How much an experiment does at one budget. A job reads the settings as attributes.

    Args:
        seeds: Runs of each variant, with the seeds 0, 1, ... A record may get more of them later.
        settings: What JSON can hold. A record with other settings is stale.

    Raises:
        ValueError: The seeds are not a whole number from 1, or JSON cannot hold a setting.
    """

    def __init__(self, seeds: int, **settings: Any):
        try:
            _as_json(settings)
        except (RecursionError, TypeError, ValueError) as error:
            raise ValueError(
                f"settings={settings!r} must be what JSON can hold, and {error}: try numbers, "
                "texts and lists of them"
            ) from error
        super().__init__(seeds=check_count("seeds", seeds, 1000, usual=5), **settings)


@dataclass
class Record:
    """What an experiment has found at one budget.

    Args:
        experiment: Its name.
        budget: The budget.
        plan: The settings of the plan.
        source: The code of the notebook that the experiment depends on.
        runs: For each variant the runs with the seeds 0, 1, ...: dictionaries of "result", "date",
            "seconds", None for a run that was resumed, and "machine", a number. That of seed 0 also
            has "weights", the SHA-256 of its file of weights, if there is one.
        machines: Hardware, versions, precision and commit of each machine, from number 0.
    """

    experiment: str
    budget: str
    plan: dict
    source: str
    runs: dict[str, list[dict]]
    machines: list[dict] = field(default_factory=list)

    def values(self, name: str) -> dict[str, list]:
        """Return what was found under a name: for each variant, the value of every seed.

        Raises:
            ValueError: A run has found nothing under this name.
        """
        for run in chain(*self.runs.values()):
            if name not in list(run["result"]):
                raise ValueError(f"name={name!r} must be one of {list(run['result'])}")
        return {
            variant: [run["result"][name] for run in runs] for variant, runs in self.runs.items()
        }

    def missing(self, seeds: int) -> list[tuple[int, str]]:
        """Return seed and variant of each run that is not there, the first seeds first."""
        seeds = check_count("seeds", seeds, usual=5)
        return [
            (seed, variant)
            for seed in range(seeds)
            for variant, runs in self.runs.items()
            if seed >= len(runs)
        ]

    def expected_seconds(self, variant: str, machine: dict) -> float:
        """Return the longest run of a variant on a machine, else of any variant, else 0.

        Raises:
            ValueError: There is no such variant.
        """
        _check_variant(variant, self.runs)
        here = [each | {"commit": ""} == machine | {"commit": ""} for each in self.machines]

        def longest(runs):
            return max((run["seconds"] or 0 for run in runs if here[run["machine"]]), default=0)

        return longest(self.runs[variant]) or max(map(longest, self.runs.values()))


@dataclass
class Experiment:
    """Variants that run with several seeds, and how much at each budget.

    Args:
        name: What its records are called.
        job: A function (variant, seed, plan, checkpoint) that runs one and returns a dictionary of
            what JSON can hold. It takes a value of `variants`, a seed, a Plan, and a path or None
            for `fit` to take as its checkpoint; a second training takes one with another suffix.
            It may add "weights", a state dict, which is kept in a file of its own for seed 0.
        variants: What is compared, by the name of each.
        plans: A Plan for each of "quick", "study" and "full" at which it runs.

    Raises:
        ValueError: The name is none for a file, there is no such budget, or an argument is of the
            wrong kind.
    """

    name: str
    _: KW_ONLY
    job: Callable[[Any, int, Any, Path | None], dict]
    variants: Mapping[str, Any]
    plans: Mapping[str, Plan]
    notebook: str = field(default="", init=False)  # where it is read from a file: its name,
    source: str = field(default="", init=False)  # and the code that this depends on

    def __post_init__(self):
        if not isinstance(self.name, str) or not re.fullmatch(r"\w+", self.name):
            raise ValueError(f"name={self.name!r} must be letters, digits and _: try name='depth'")
        is_function = callable(self.job) and not isinstance(self.job, torch.nn.Module)
        if not is_function or not _takes(self.job, 4):
            raise ValueError(
                f"job={self.job!r} must be a function (variant, seed, plan, checkpoint) that "
                "returns a dictionary"
            )
        _check_names("variants", self.variants)
        files = [_weights_path(Path(self.name), variant) for variant in self.variants]
        if clash := [
            one for one, file in zip(self.variants, files, strict=True) if files.count(file) > 1
        ]:
            raise ValueError(
                f"variants={clash} must differ in letters or digits, which name their files: try "
                "other names"
            )
        _check_names("plans", self.plans)
        if wrong := [name for name, plan in self.plans.items() if not isinstance(plan, Plan)]:
            raise ValueError(f"plans[{wrong[0]!r}] must be a Plan: try Plan(seeds=5, epochs=2)")
        if unknown := set(self.plans) - set(_BUDGETS):
            raise ValueError(f"plans[{unknown.pop()!r}] must be one of {_BUDGETS}: try 'study'")

    def run(self, budget: str | None = None) -> Record:
        """Run everything now, and return it as a Record, which is not written.

        Args:
            budget: None: that of `train.budget`.

        Raises:
            ValueError: There is no plan for it.
        """
        budget = current_budget() if budget is None else budget
        record, machine = self._new_record(budget), this_machine()
        for _, variant in record.missing(self.plans[record.budget].seeds):
            self.run_next(variant, record, machine)
        return record

    def run_next(
        self, variant: str, record: Record, machine: dict, checkpoint: Path | None = None
    ) -> bytes | None:
        """Run one variant with its next seed, and add the run to a record.

        Returns:
            What the file of its weights holds, None if it has none.

        Raises:
            ValueError: The job returns what JSON cannot hold.
            KeyboardInterrupt: It was interrupted, even where `fit` has ended in good order.
        """
        seed, resumed = len(record.runs[variant]), checkpoint is not None and checkpoint.exists()
        print(f"\n{self.name}: {variant}, seed {seed}", flush=True)
        start = time.perf_counter()
        with _raising_interrupts():
            result = self.job(self.variants[variant], seed, self.plans[record.budget], checkpoint)
        seconds = None if resumed else round(time.perf_counter() - start, 3)
        if not isinstance(result, dict):
            raise ValueError(
                f"the job of {self.name!r} must return a dictionary, not {type(result).__name__}: "
                'try return {"accuracy": history.last.test_accuracy}'
            )
        state = result.pop("weights", None) or {}
        if not isinstance(state, dict) or not all(map(_is_weight, state.items())):
            raise ValueError(
                f"the weights that the job of {self.name!r} returns must be a dictionary of "
                "tensors: try net.state_dict()"
            )
        try:
            result = _as_json(result)
        except (RecursionError, TypeError, ValueError) as error:
            raise ValueError(
                f"the job of {self.name!r} must return what JSON can hold, and {error}: try "
                "x.tolist() for a tensor, and None for what is not a number"
            ) from error
        if machine not in record.machines:
            record.machines.append(machine)
        about = {"machine": record.machines.index(machine), "date": time.strftime("%Y-%m-%d")}
        weights = None
        if state and seed == 0:
            weights = safetensors.torch.save(
                {key: x.clone().contiguous() for key, x in state.items()}
            )
            about["weights"] = hashlib.sha256(weights).hexdigest()
        record.runs[variant].append(about | {"seconds": seconds, "result": result})
        return weights

    def record(self, budget: str = "study", folder: str | Path = "results") -> Record:
        """Read the record of this experiment.

        Args:
            budget: The budget.
            folder: Where it is, seen from here or from one of the two folders above.

        Raises:
            ValueError: There is none, or it is broken or stale.
        """
        self._new_record(budget)  # refuses a budget without a plan
        return self.load(budget, _find_record(self.name, budget, folder).parent)

    def weights(
        self, variant: str, budget: str = "study", folder: str | Path = "results"
    ) -> dict[str, Tensor]:
        """Read the weights that a variant had in the end, with seed 0.

        Args:
            variant: The name of the variant.
            budget: The budget.
            folder: Where the record is, as in `record`.

        Raises:
            ValueError: There is no such variant or no record, or the file is not the one that was
                written with it.
        """
        _check_variant(variant, self.variants)
        self.record(budget, folder)
        return recorded_weights(self.name, variant, budget, folder)

    def path(self, budget: str, folder: str | Path) -> Path:
        """Return where the record of a budget is in a folder."""
        if not isinstance(folder, str | Path):
            raise ValueError(f"folder={folder!r} must be the name of a folder: try 'my_results'")
        return Path(folder, f"{self.name}_{budget}.json")

    def weights_path(self, variant: str, budget: str, folder: str | Path) -> Path:
        """Return where the weights of a variant are in a folder."""
        return _weights_path(self.path(budget, folder), variant)

    def load(self, budget: str, folder: str | Path) -> Record:
        """Return the record in a folder, or a new one.

        Raises:
            ValueError: It is broken, or stale: of another plan, other variants or other code.
        """
        new, path = self._new_record(budget), self.path(budget, folder)
        if not path.exists():
            return new
        old = _read_record(path)
        same = {
            "the settings of its plan": old.plan == new.plan,
            "the names of its variants": old.runs.keys() == new.runs.keys(),
            "its code": not new.source or _parse(old.source) == _parse(new.source),
        }
        if changed := [name for name, is_same in same.items() if not is_same]:
            raise ValueError(
                f"{path} is stale, since {' and '.join(changed)} changed: change that back, or "
                "move the file away and record anew"
            )
        return old

    def _new_record(self, budget):
        """Return the Record of this experiment before its first run."""
        if not isinstance(budget, str) or budget not in self.plans:
            raise ValueError(
                f"budget={budget!r} must be one with a plan: try one of {list(self.plans)}"
            )
        settings = {key: value for key, value in vars(self.plans[budget]).items() if key != "seeds"}
        runs = {variant: [] for variant in self.variants}
        return Record(self.name, budget, _as_json(settings), self.source, runs)


def recorded_weights(
    name: str, variant: str, budget: str = "study", folder: str | Path = "results"
) -> dict[str, Tensor]:
    """Read the weights that a variant of any recorded experiment had in the end, with seed 0.

    Args:
        name: The name of the experiment.
        variant: The name of the variant.
        budget: The budget.
        folder: Where the record is, seen from here or from one of the two folders above.

    Raises:
        ValueError: There is no such record, it has no such weights, or the file is not the one
            that was written with it.
    """
    record = _find_record(name, budget, folder)
    runs = _read_record(record).runs.get(variant) if isinstance(variant, str) else None
    if not runs or "weights" not in runs[0]:
        raise ValueError(
            f"variant={variant!r} must be one of {name!r} that was recorded with weights: try "
            '"weights": net.state_dict() in the result of the job, and record anew'
        )
    path = _weights_path(record, variant)
    contents = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(contents).hexdigest() != runs[0]["weights"]:
        raise ValueError(
            f"{path} must hold the weights that were written with the record, and it does not: "
            f"try git checkout {path}"
        )
    return safetensors.torch.load(contents)


def _find_record(name: str, budget: str, folder: str | Path) -> Path:
    """Return the file that holds the record of an experiment."""
    if not isinstance(folder, str | Path):
        raise ValueError(f"folder={folder!r} must be the name of a folder: try folder='results'")
    for place in _PLACES:
        path = Path(place, folder, f"{name}_{budget}.json")
        if os.path.exists(path):  # which is false for a name that is too long
            return path
    raise ValueError(
        f"folder={str(folder)!r} must hold a record of {name!r}: try python -m cnnlib record "
        f"{name} --budget {budget} --folder {folder}"
    )


def _read_record(path: Path) -> Record:
    """Return what a file holds as a record, which may be stale."""
    found = read_json(path)
    if not _is_record(found):
        raise ValueError(f"{path} must hold a record, and it does not: move it away")
    return Record(**found)


def _is_record(found: Any) -> bool:
    """Return whether what a file holds has the fields of a Record, with runs in lists."""
    if not isinstance(found, dict) or found.keys() != {each.name for each in fields(Record)}:
        return False
    if not isinstance(found["machines"], list):
        return False
    runs: list[Any] = list(found["runs"].values()) if isinstance(found["runs"], dict) else [None]
    return (
        all(isinstance(of_variant, list) for of_variant in runs)
        and all(
            isinstance(run, dict)
            and isinstance(run.get("result"), dict)
            and isinstance(run.get("seconds"), Real | None)
            and run.get("machine") in range(len(found["machines"]))
            for run in chain(*runs)
        )
        and isinstance(found["source"], str)
    )


def _weights_path(record: Path, variant: str) -> Path:
    """Return where the weights of a variant are, beside the record of its experiment."""
    end = re.sub(r"\W+", "_", variant).strip("_")
    return record.with_name(f"{record.stem}_{end}.safetensors")


def _check_names(name: str, values: Any) -> None:
    """Refuse anything that is not a dictionary from names to something."""
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise ValueError(
            f"{name}={values!r} must be a dictionary from names: try {name}={{'first': ...}}"
        )
    if not values:
        raise ValueError(f"{name} is empty: pass at least one")


def _check_variant(variant: Any, variants: Mapping[str, Any]) -> None:
    """Refuse what is not the name of a variant."""
    if not isinstance(variant, str) or variant not in variants:
        raise ValueError(f"variant={variant!r} must be one of {list(variants)}")


def _takes(function: Callable, count: int) -> bool:
    """Return whether a function can be called with this many arguments, as far as that is known."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # it is not written in Python
        pass
    return True


def _is_weight(entry: tuple[Any, Any]) -> bool:
    """Return whether a name and what it names are what a file of weights holds."""
    name, value = entry
    is_dense = isinstance(value, Tensor) and value.layout is torch.strided
    return isinstance(name, str) and is_dense and not value.is_meta and not value.is_complex()


def _as_json(value: Any) -> Any:
    """Return a value as it comes back from a JSON file, in which every number is one."""
    return json.loads(json.dumps(value, allow_nan=False))


def _parse(source: str) -> str:
    """Return code in a form that does not depend on its layout, nor on who wrote it down."""
    with contextlib.suppress(SyntaxError):  # in a file that somebody has edited
        return ast.dump(ast.parse(source))
    return ""


@contextlib.contextmanager
def _raising_interrupts() -> Iterator[None]:
    """Raise a KeyboardInterrupt in the end, too, where what runs inside has caught one."""
    seen = []

    def interrupt(number, frame):
        seen.append(number)
        raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM)
    caught = [each for each in signals if signal.getsignal(each) is signal.default_int_handler]
    for each in caught:
        signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each in caught:
            signal.signal(each, signal.default_int_handler)
        if seen:  # even where what runs inside stops with an error, since nothing was completed
            raise KeyboardInterrupt from None

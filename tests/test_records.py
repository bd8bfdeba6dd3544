"""The committed records: each is of the experiment that stands in its notebook, and complete."""

import hashlib
import json
import re

import pytest

import notebooks
from cnnlib.measure.recording import find

RESULTS = notebooks.ROOT / "results"
PATTERN = re.compile(r"(\w+)_(quick|study|full)")
RECORDS = [path for path in sorted(RESULTS.glob("*.json")) if PATTERN.fullmatch(path.stem)]
RECORDS = [path for path in RECORDS if "experiment" in json.loads(path.read_text())]
MOST_BYTES, MOST_BYTES_TOGETHER = 2e6, 16e6


@pytest.fixture(scope="module")
def experiments():
    """The experiments of the course, by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(notebooks.ROOT)
        return {experiment.name: experiment for experiment in find()}


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_is_whole_and_of_the_experiment_in_the_notebook(path, experiments):
    name, budget = PATTERN.fullmatch(path.stem).groups()
    assert name in experiments, "no notebook defines it"
    record = experiments[name].load(budget, RESULTS)  # refuses a stale one
    assert record.missing(experiments[name].plans[budget].seeds) == []
    for variant, runs in record.runs.items():
        for run in runs:
            assert run["machine"] < len(record.machines)
        if runs and "weights" in runs[0]:
            contents = experiments[name].weights_path(variant, budget, RESULTS).read_bytes()
            assert hashlib.sha256(contents).hexdigest() == runs[0]["weights"]


def test_every_experiment_has_a_record(experiments):
    studies = {name for name, experiment in experiments.items() if "study" in experiment.plans}
    assert studies <= {path.stem.removesuffix("_study") for path in RECORDS}


def test_weights_are_small_and_belong_to_a_record():
    files = list(RESULTS.glob("*.safetensors"))
    assert max((file.stat().st_size for file in files), default=0) <= MOST_BYTES
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES_TOGETHER
    known = {
        run["weights"]
        for path in RECORDS
        for runs in json.loads(path.read_text())["runs"].values()
        for run in runs
        if "weights" in run
    }
    assert {hashlib.sha256(file.read_bytes()).hexdigest() for file in files} <= known

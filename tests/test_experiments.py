"""Experiments: what is recorded, in which order, after any interruption, and what is never mixed."""

import copy
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from test_main import run

from cnnlib import __main__ as command
from cnnlib.measure import recording, records
from cnnlib.measure.experiments import Experiment, Plan, recorded_weights
from cnnlib.measure.recording import complete, find, read_notebook, status

DEFINITION = '''
import json, math
from cnnlib.measure.experiments import Experiment, Plan

CALLS = []

def grow(rate, seed, plan, checkpoint):
    """Grow by a rate."""
    CALLS.append((rate, seed))
    return {"end": math.exp(rate * plan.steps) + seed, "curve": (rate, seed)}

def fall(rate, seed, plan, checkpoint):
    CALLS.append((-rate, seed))
    return {"end": -rate}
'''
EXPERIMENTS = """
growth = Experiment("growth", job=grow, variants={"slow": 0.1, "fast": 0.3}, plans={
    "quick": Plan(seeds=1, steps=2), "study": Plan(seeds=2, steps=5)})
decay = Experiment("decay", job=fall, variants={"steady": 0.5}, plans={"study": Plan(seeds=3)})
"""
HERE = {
    "date": "2026-01-02",
    "hardware": {"device": "CPU", "cpu": "an abacus", "cores": 2, "threads": 2, "load": [0.5]},
    "versions": {"torch": "2.10.0"},
    "precision": "fp32",
}


def write_notebook(path, *cells, tags=("experiment",)):
    """Write a notebook of these tagged cells, after one that is not tagged and fails."""
    cells = [(["fails"], "raise RuntimeError"), *((list(tags), cell) for cell in cells)]
    path.parent.mkdir(exist_ok=True)
    listed = [
        {"cell_type": "code", "metadata": {"tags": t}, "source": c.splitlines(keepends=True)}
        for t, c in cells
    ]
    path.write_text(json.dumps({"cells": [{"metadata": {}, "source": []}, *listed]}))


def be_on(monkeypatch, machine):
    """Let this be another machine."""
    monkeypatch.setattr(records, "environment_info", lambda device: copy.deepcopy(machine))


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A folder with one notebook, on a machine that we know."""
    monkeypatch.chdir(tmp_path)
    be_on(monkeypatch, HERE)
    monkeypatch.setattr(records, "_commit", lambda: "abc")
    monkeypatch.setattr(recording, "fetch", lambda: "raw")
    write_notebook(tmp_path / "notebooks" / "05_growth.ipynb", DEFINITION, EXPERIMENTS)
    return tmp_path


def read(folder, name):
    return json.loads(Path(folder, f"{name}.json").read_text())


def calls(experiment):
    """What the jobs of a notebook have been asked for."""
    return experiment.job.__globals__["CALLS"]


def test_a_record_holds_what_ran_where_and_what_came_out(course):
    growth, _ = find()
    complete([growth], "study", "out")
    record = read("out", "growth_study")
    assert (record["experiment"], record["budget"], record["plan"]) == (
        "growth",
        "study",
        {"steps": 5},
    )
    assert list(record["runs"]) == ["slow", "fast"]
    first, second = record["runs"]["slow"]
    assert first["result"] == {"end": pytest.approx(2.718281828**0.5), "curve": [0.1, 0]}
    assert second["result"]["curve"] == [0.1, 1]
    assert first["machine"] == 0 and first["seconds"] >= 0 and len(first["date"]) == 10
    assert "load" not in record["machines"][0]["hardware"]
    assert (record["machines"][0]["commit"], record["machines"][0]["precision"]) == ("abc", "fp32")
    assert "def grow" in record["source"] and "def fall" not in record["source"]
    assert [path.name for path in Path("out", "unfinished").iterdir()] == ["growth_study.lock"]


def test_a_notebook_runs_live_and_reads_the_record(course, monkeypatch):
    growth, _ = find()
    live = growth.run()
    assert live.values("curve") == {"slow": [[0.1, 0]], "fast": [[0.3, 0]]}
    assert not Path("results").exists()
    calls(growth).clear()
    growth.run("study")
    assert calls(growth) == [(0.1, 0), (0.3, 0), (0.1, 1), (0.3, 1)]
    with pytest.raises(
        ValueError, match="try python -m cnnlib record growth --budget study --folder re"
    ):
        growth.record()
    complete([growth], "study", "results")
    monkeypatch.chdir("notebooks")
    recorded = growth.record("study")
    assert recorded.plan == {"steps": 5}
    assert recorded.values("curve")["fast"] == [[0.3, 0], [0.3, 1]]
    growth.plans["study"].steps = 6
    with pytest.raises(ValueError, match="is stale, since the settings of its plan changed"):
        growth.record("study")


def test_the_weights_of_the_first_seed_lie_beside_a_record(course, monkeypatch):
    growth, _ = find()
    job = growth.job

    def job_with_weights(rate, seed, plan, checkpoint):
        weights = torch.arange(12.0).view(3, 4).t() + 100 * rate + seed  # not contiguous
        return job(rate, seed, plan, checkpoint) | {"weights": {"conv.weight": weights}}

    growth.job = job_with_weights
    growth.variants = {"slow": 0.1, "fast, 2x": 0.3}
    growth.source = ""
    complete([growth], "study", "results")
    files = sorted(path.name for path in Path("results").glob("*.safetensors"))
    assert files == ["growth_study_fast_2x.safetensors", "growth_study_slow.safetensors"]
    record = growth.record()
    assert [["weights" in run for run in runs] for runs in record.runs.values()] == [
        [True, False]
    ] * 2
    assert set(record.runs["slow"][0]["result"]) == {"end", "curve"}
    (course / "notebooks" / "deeper").mkdir()
    for place in "notebooks", "deeper", "..":
        monkeypatch.chdir(place)
        (weight,) = growth.weights("fast, 2x").values()
        assert torch.equal(weight, torch.arange(12.0).view(3, 4).t() + 30)
        assert torch.equal(recorded_weights("growth", "fast, 2x")["conv.weight"], weight)
    monkeypatch.chdir(course)
    first, second = (Path("results", file) for file in files)
    first.write_bytes(second.read_bytes())
    with pytest.raises(ValueError, match=f"{first} must hold the weights that were written with"):
        growth.weights("fast, 2x")
    second.unlink()
    with pytest.raises(ValueError, match=r"growth_study_slow\.safetensors must hold the weights"):
        growth.weights("slow")
    with pytest.raises(ValueError, match="variant='quick' must be one of "):
        growth.weights("quick")
    with pytest.raises(ValueError, match="variant='quick' must be one of 'growth' that was recor"):
        recorded_weights("growth", "quick")
    with pytest.raises(
        ValueError, match="must hold a record of 'depth': try python -m cnnlib reco"
    ):
        recorded_weights("depth", "slow")


def test_an_experiment_without_weights_has_no_file_of_them(course):
    growth, _ = find()
    complete([growth], "study", "results")
    assert not list(Path("results").glob("*.safetensors"))
    with pytest.raises(
        ValueError, match="variant='slow' must be one of 'growth' that was recorded"
    ):
        growth.weights("slow")


def test_notebooks_that_go_deeper_define_experiments_too(course):
    write_notebook(
        course / "notebooks" / "deeper" / "05_decay.ipynb",
        DEFINITION,
        EXPERIMENTS.replace("growth", "deep").replace("decay", "deeper"),
    )
    assert [(e.name, e.notebook) for e in find()] == [
        ("deep", "05_decay"),
        ("deeper", "05_decay"),
        ("growth", "05_growth"),
        ("decay", "05_growth"),
    ]


def test_one_seed_of_every_variant_of_every_experiment_comes_first(course):
    growth, decay = find()
    complete([growth, decay], "study", "out")
    firsts = [(0.1, 0), (0.3, 0), (-0.5, 0)]
    assert calls(growth) == [*firsts, (0.1, 1), (0.3, 1), (-0.5, 1), (-0.5, 2)]
    leftover = Path("out", "unfinished", "growth_study")  # of a kill when all was written
    leftover.mkdir()
    complete([growth, decay], "study", "out")
    assert len(calls(growth)) == 7
    assert not leftover.exists()


def test_more_seeds_are_added(course):
    (growth,) = find(["growth"])
    complete([growth], "study", "out")
    growth.plans["study"].seeds = 3
    complete([growth], "study", "out")
    assert calls(growth)[4:] == [(0.1, 2), (0.3, 2)]


def test_the_time_left_is_told(course, capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    (growth,) = find(["growth"])

    def job(rate, seed, plan, checkpoint):
        clock[0] += {0.1: 60, 0.3: 120}[rate]
        return {"end": rate}

    growth.job = job
    complete([growth], "study", "out")
    told = [line for line in capsys.readouterr().out.splitlines() if "left" in line]
    assert told == [  # how long a variant takes is known once it, or at least another one, has run
        "run 2 of 4, about 3.0 min left",
        "run 3 of 4, about 3.0 min left",
        "run 4 of 4, about 2.0 min left",
    ]


def test_a_run_that_would_end_too_late_is_not_begun(course, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    (growth,) = find(["growth"])
    job, made = growth.job, calls(growth)

    def slow_job(rate, seed, plan, checkpoint):
        clock[0] += {0.1: 60, 0.3: 120}[rate]
        return job(rate, seed, plan, checkpoint)

    growth.job = slow_job
    complete([growth], "study", "out", minutes=0.1)  # the first takes as long as it takes
    assert made == [(0.1, 0)]
    complete([growth], "study", "out", minutes=1.1)  # as slow did, so may fast
    assert made == [(0.1, 0), (0.3, 0)]
    complete([growth], "study", "out", minutes=1.9)
    assert made == [(0.1, 0), (0.3, 0), (0.1, 1)]
    complete([growth], "study", "out", minutes=1.9)
    assert len(made) == 3
    be_on(monkeypatch, HERE | {"precision": "bf16"})  # how long that takes is not known
    complete([growth], "study", "out", minutes=1.9)
    assert len(made) == 4


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("steps=5", "steps=6", "the settings of its plan"),
        ("steps=5", "steps=5, width=8", "the settings of its plan"),
        ('"slow": 0.1', '"slow": 0.2', "its code"),
        ('"slow": 0.1', '"slower": 0.1', "the names of its variants and its code"),
        ("+ seed", "- seed", "its code"),
        ("import json, math", "import json, cmath as math", "its code"),
    ],
)
def test_a_changed_experiment_is_refused_and_nothing_is_run(course, old, new, what):
    complete(find(), "study", "out")
    before = Path("out", "growth_study.json").read_bytes()
    write_notebook(
        course / "notebooks" / "05_growth.ipynb", (DEFINITION + EXPERIMENTS).replace(old, new)
    )
    growth, decay = find()
    growth.plans["study"].seeds = decay.plans["study"].seeds = 9
    with pytest.raises(ValueError, match=f"growth_study.json is stale, since {what} changed: ch"):
        complete([decay, growth], "study", "out")
    assert calls(growth) == []
    assert Path("out", "growth_study.json").read_bytes() == before
    assert "growth_study.json is stale" in status(growth, "study", "out")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("steps=2", "steps=3"),  # of another budget
        ("seeds=2", "seeds=1"),
        ("rate * plan.steps", "(rate*plan.steps)"),
        ("    CALLS.append((rate, seed))", "    CALLS.append((rate, seed))  # a note"),
        ('return {"end": -rate}', 'return {"end": rate}'),  # of another experiment
        ("import json, math", "import math, random"),
    ],
)
def test_what_does_not_concern_an_experiment_leaves_its_record_valid(course, old, new):
    complete(find(["growth"]), "study", "out")
    write_notebook(
        course / "notebooks" / "05_growth.ipynb", (DEFINITION + EXPERIMENTS).replace(old, new)
    )
    (growth,) = find(["growth"])
    complete([growth], "study", "out")
    assert calls(growth) == []


def test_a_statement_that_may_do_anything_counts(course):
    path = course / "notebooks" / "05_growth.ipynb"
    write_notebook(path, DEFINITION, "for x in (1, 2):\n    CALLS.append(x)", EXPERIMENTS)
    growth, decay = read_notebook(path)
    assert "for x in (1, 2)" in growth.source
    assert "for x in (1, 2)" in decay.source


def test_a_second_machine_adds_and_replaces_nothing(course, monkeypatch):
    growth, _ = find()
    growth.plans["study"].seeds = 1
    complete([growth], "study", "out")
    before = read("out", "growth_study")
    growth.plans["study"].seeds = 2
    there = HERE | {"hardware": HERE["hardware"] | {"cpu": "a slide rule"}}
    be_on(monkeypatch, there)
    complete([growth], "study", "out")
    after = read("out", "growth_study")
    assert [m["hardware"]["cpu"] for m in after["machines"]] == ["an abacus", "a slide rule"]
    assert [[run["machine"] for run in runs] for runs in after["runs"].values()] == [[0, 1]] * 2
    assert {name: runs[:1] for name, runs in after["runs"].items()} == before["runs"]
    assert after["machines"][0] == before["machines"][0]
    monkeypatch.setattr(records, "_commit", lambda: "def")
    growth.plans["study"].seeds = 3
    complete([growth], "study", "out")
    assert [m["commit"] for m in read("out", "growth_study")["machines"]] == ["abc", "abc", "def"]


def test_the_state_of_a_record_as_text(course, monkeypatch):
    growth, decay = find()
    assert status(decay, "study", "out") == (
        "decay (05_growth), study: 0 of 3 runs\n  steady                    missing       missing       missing"
    )
    complete([growth, decay], "study", "out")
    record = read("out", "growth_study")
    record["runs"]["fast"].pop()
    for name, seconds in ("slow", 90), ("fast", 120):
        record["runs"][name][0]["seconds"] = seconds
    record["runs"]["slow"][1]["seconds"] = None
    Path("out", "growth_study.json").write_text(json.dumps(record))
    head, slow, fast, machine = status(growth, "study", "out").splitlines()
    assert head == "growth (05_growth), study: 3 of 4 runs, about 2.0 min missing"
    assert slow.split() == ["slow", "1.5", "min", "[0]", "resumed", "[0]"]
    assert fast.split() == ["fast", "2.0", "min", "[0]", "missing"]
    assert machine == "  [0] CPU, an abacus, 2 threads, fp32, torch 2.10.0, commit abc"


def test_the_command(course, capsys):
    code, out, err = run(capsys, "record", "--list")
    assert (code, err) == (0, "")
    assert "growth (05_growth), study: 0 of 4 runs" in out
    assert "decay (05_growth), study: 0 of 3 runs" in out
    assert sorted(course.iterdir()) == [course / "notebooks"]
    assert "growth (05_growth), study: 0 of 4 runs" in run(capsys, "record", "--minutes", "0")[1]
    code, out, _ = run(capsys, "record", "growth")
    assert code == 0
    assert "growth: fast, seed 1\n" in out
    assert "growth (05_growth), study: 4 of 4 runs" in out and "decay" not in out
    assert sorted(path.name for path in course.iterdir()) == ["my_results", "notebooks"]
    code, out, _ = run(
        capsys, "record", "05_growth", "--budget", "quick", "--folder", "mine", "--json"
    )
    assert list(json.loads(out)) == ["growth"]
    assert read("mine", "growth_quick")["plan"] == {"steps": 2}
    assert "No experiment has a full plan." in run(capsys, "record", "--budget", "full")[1]


def test_committed_records_are_never_touched_by_a_learner(course, capsys):
    complete(find(), "study", "results")
    before = {path: path.read_bytes() for path in Path("results").glob("*.json")}
    assert run(capsys, "record")[0] == 0
    assert {path: path.read_bytes() for path in Path("results").glob("*.json")} == before
    assert read("my_results", "growth_study")["runs"].keys() == {"slow", "fast"}


def test_nothing_is_recorded_of_the_stand_in(course, capsys, monkeypatch):
    def fetch():
        raise OSError("no network")

    monkeypatch.setattr(recording, "fetch", fetch)
    code, _, err = run(capsys, "record")
    assert (code, err) == (1, "cnnlib: no network\n")
    assert not Path("my_results").exists()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ('{"experiment": ', "must hold JSON, but it is broken: move it away"),
        ("[1, 2]", "must hold a record, and it does not: move it away"),
        ('{"experiment": "growth"}', "must hold a record, and it does not"),
    ],
)
def test_a_broken_record_is_named_and_left_alone(course, capsys, contents, message):
    Path("my_results").mkdir()
    path = Path("my_results", "growth_study.json")
    path.write_text(contents)
    code, _, err = run(capsys, "record")
    assert code == 2
    assert f"{path} {message}" in err
    assert path.read_text() == contents
    assert message in run(capsys, "record", "--list")[1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["groth"],
            "name='groth' must be an experiment or a notebook: try one of ['growth', 'decay',",
        ),
        (["--budget", "huge"], "invalid choice: 'huge'"),
    ],
)
def test_a_wrong_call(course, capsys, argv, message):
    code, _, err = run(capsys, "record", *argv)
    assert code == 2
    assert message in err and len(err.splitlines()) == 1


def test_cells_that_need_others_are_named(course):
    path = course / "notebooks" / "06.ipynb"
    write_notebook(path, DEFINITION, EXPERIMENTS.replace("grow,", "shrink,"))
    with pytest.raises(ValueError, match="number 2 of them stops with NameError: name 'shrink' is"):
        read_notebook(path)


def test_two_experiments_of_one_name_are_refused(course):
    write_notebook(course / "notebooks" / "06.ipynb", DEFINITION, EXPERIMENTS)
    with pytest.raises(ValueError, match="must be of one experiment only: rename the other"):
        find()
    assert [each.notebook for each in find(["notebooks/06.ipynb"])] == ["06", "06"]


def test_two_processes_do_not_write_one_record(course):
    Path("out", "unfinished").mkdir(parents=True)
    with FileLock(Path("out", "unfinished", "growth_study.lock")), pytest.raises(TimeoutError):
        complete(find(), "study", "out")


@pytest.mark.parametrize(
    ("result", "message"),
    [({"x": float("nan")}, "Out of range float"), ({"x": {1, 2}}, "set is not JSON serializable")],
)
def test_a_result_that_json_cannot_hold(result, message):
    odd = Experiment(
        "odd", job=lambda *_: result, variants={"a": 1}, plans={"quick": Plan(seeds=1)}
    )
    with pytest.raises(ValueError, match=f"the job of 'odd' must return .*{message}"):
        odd.run("quick")


def test_an_experiment_that_cannot_be():
    with pytest.raises(ValueError, match="name='a b' must be letters, digits and _: try"):
        Experiment("a b", job=print, variants={"one": 1}, plans={})
    with pytest.raises(ValueError, match="plans\\['huge'\\] must be one of"):
        Experiment("a", job=print, variants={"one": 1}, plans={"huge": Plan(seeds=1)})
    quick = Experiment("a", job=print, variants={"one": 1}, plans={"quick": Plan(seeds=1)})
    with pytest.raises(
        ValueError, match=r"budget='full' must be one with a plan: try one of \['quick'"
    ):
        quick.run("full")


@pytest.mark.parametrize("changed", ["nothing", "plan", "code", "machine"])
def test_only_the_same_run_goes_on_from_a_checkpoint(course, monkeypatch, changed):
    found = []

    def job(variant, seed, plan, checkpoint):
        found.append(checkpoint.exists())
        checkpoint.write_text("")
        if len(found) == 1:
            raise KeyboardInterrupt
        return {}

    (growth,) = find(["growth"])
    growth.job = job
    with pytest.raises(KeyboardInterrupt):
        complete([growth], "study", "out")
    if changed == "plan":
        growth.plans["study"].steps = 9
    elif changed == "code":
        growth.source += "x = 1"
    elif changed == "machine":
        be_on(monkeypatch, HERE | {"precision": "bf16"})
    complete([growth], "study", "out")
    assert found == [False, changed == "nothing", False, False, False]
    seconds = read("out", "growth_study")["runs"]["slow"][0]["seconds"]
    assert (seconds is None) == (changed == "nothing")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("epochs", [0, 1])
def test_a_training_that_was_interrupted_in_good_order_is_not_recorded(course, number, epochs):
    """As `fit` does, the job catches Ctrl-C; before the first epoch ends it has no result."""
    before = signal.signal(number, signal.default_int_handler)

    def job(variant, seed, plan, checkpoint):
        losses = [0.5] * epochs
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except KeyboardInterrupt:
            return {"end": losses[-1]}

    (growth,) = find(["growth"])
    growth.job = job
    try:
        with pytest.raises(KeyboardInterrupt):
            complete([growth], "study", "out")
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert not Path("out", "growth_study.json").exists()


TRAINING = """
import torch
from test_main import drawn
from cnnlib.measure.experiments import Experiment, Plan
from cnnlib.train import fit

def train(width, seed, plan, checkpoint):
    torch.manual_seed(seed)
    layers = torch.nn.Linear(784, width), torch.nn.Dropout(), torch.nn.Linear(width, 10)
    net = torch.nn.Sequential(torch.nn.Flatten(), *layers)
    history = fit(net, drawn(), plan.epochs, 0.05, seed=seed, checkpoint=checkpoint)
    return {"losses": history.losses, "accuracy": [row.test_accuracy for row in history.rows]}

widths = Experiment(
    "widths", job=train, variants={"8": 8, "16": 16}, plans={"study": Plan(seeds=1, epochs=10)}
)
"""
CHILD = """
import sys
sys.path[:0] = [{tests!r}]
from cnnlib import __main__ as command
from cnnlib.measure import recording
recording.fetch = lambda: "raw"
sys.exit(command.main(sys.argv[1:]))
"""


def recorder(folder):
    """Start the command in a process of its own, which prints each line at once."""
    script = CHILD.format(tests=os.path.dirname(__file__))
    root = Path(command.__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", script, "record", "--folder", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"},
    )


def results(folder):
    return {
        variant: [run["result"] for run in runs]
        for variant, runs in read(folder, "widths_study")["runs"].items()
    }


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_numbers_of_a_run_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CNNLIB_PRECISION", "fp32")
    write_notebook(tmp_path / "notebooks" / "01.ipynb", TRAINING)
    process = recorder("alone")
    assert "2 of 2 runs" in process.communicate(timeout=300)[0]
    dice, kills, code = random.Random(0), 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        process = recorder("killed")
        for _ in range(dice.randint(10, 14)):  # heads of tables, and a row before each checkpoint
            process.stdout.readline()
        time.sleep(dice.choice([0, 0.002, 0.01, 0.05]))
        kills += process.poll() is None
        process.kill()
        process.communicate(timeout=300)
        code = process.returncode
    assert code == 0
    assert kills >= 3
    assert results("killed") == results("alone")
    record = read("killed", "widths_study")
    assert [len(runs) for runs in record["runs"].values()] == [1, 1]
    assert any(run["seconds"] is None for runs in record["runs"].values() for run in runs)
    assert [path.suffix for path in Path("killed", "unfinished").iterdir()] == [".lock"]

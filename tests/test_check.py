"""The self-checks: every branch by its exact words, and nothing a learner does raises."""

import json
import linecache
import os
import sys
import time

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from jupyter_client.manager import start_new_kernel

from cnnlib import check
from cnnlib.check import answer, cases, prediction


@pytest.fixture
def said(capsys):
    """Call a check; return what it printed, once sure that it returned nothing."""

    def call(check, *args, **kwargs):
        assert check(*args, **kwargs) is None
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return call


# prediction


def test_prediction_awaits_a_guess(said):
    expected = "No prediction yet: write yours above, run that cell, then this one.\n"
    for blank in (None, ...):
        assert said(prediction, blank, torch.Size([64, 24, 24]), "unused") == expected


def test_prediction_within_a_tolerance(said):
    assert said(prediction, 16, 16.94, "unused", 1) == "Your prediction is right: 16.94.\n"
    assert said(prediction, 15, 16.94, "", 1) == "You predicted 15; it is 16.94.\n"


def test_prediction_right(said):
    assert said(prediction, 24, 24, "unused") == "Your prediction is right: 24.\n"
    assert said(prediction, (1, 6), torch.Size([1, 6])) == "Your prediction is right: (1, 6).\n"
    assert said(prediction, True, torch.tensor(True)) == "Your prediction is right: True.\n"


def test_prediction_wrong(said):
    assert said(prediction, 26, 24) == "You predicted 26; it is 24.\n"
    with_hint = "You predicted 26; it is 24.\nHint: Each side loses k // 2.\n"
    assert said(prediction, 26, 24, "Each side loses k // 2.") == with_hint
    assert said(prediction, "grows", "shrinks") == "You predicted 'grows'; it is 'shrinks'.\n"


@pytest.mark.parametrize(
    ("guess", "kind"),
    [
        ("24", "a text"),
        ([24], "a list or tuple"),
        (torch.tensor([24]), "a list or tuple"),
        (True, "True or False"),
        ({24}, "a value of type set"),
    ],
)
def test_a_prediction_of_the_wrong_kind_does_not_reveal_the_answer(said, guess, kind):
    words = f"You wrote {kind}, and the answer is a number: write one above, and run both cells.\n"
    assert said(prediction, guess, 24, "unused") == words


# answer


@pytest.mark.parametrize("blank", [None, ..., NotImplemented])
def test_answer_awaits(said, blank):
    assert said(answer, blank, 24, "unused") == "Not answered yet.\n"


@pytest.mark.parametrize(
    ("mine", "expected"),
    [
        (24, 24),
        (24.0, 24),
        (np.int64(24), 24),
        (np.float32(0.1), 0.1),
        (0.1 + 0.2, 0.3),
        (torch.tensor(24), 24),
        (torch.tensor([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (torch.tensor([0.1], requires_grad=True), (0.1,)),
        (np.arange(3), (0, 1, 2)),
        (torch.Size([1, 64]), (1, 64)),
        ([1, 64], torch.Size([1, 64])),
        ((torch.tensor(1), [np.float64(2.0)]), (1, [2])),
        ("conv1", "conv1"),
        (False, np.False_),
        ({"conv1": 3}, {"conv1": 3}),
        (0, 0),
    ],
)
def test_answer_correct(said, mine, expected):
    assert said(answer, mine, expected, "unused") == "Correct.\n"


@pytest.mark.parametrize(
    ("mine", "expected", "shown"),
    [
        (27, 24, "27 (int)"),
        (12_443_648, 12_443_649, "12443648 (int)"),
        (12_443_648.0, 12_443_649, "12443648.0 (float)"),
        pytest.param(10**400, 0.5, "1" + 76 * "0" + "... (int)", id="too large for a float"),
        (0.3333333333333333, 0.25, "0.333333 (float)"),
        (float("nan"), 0.25, "nan (float)"),
        ("24", 24, "'24' (str)"),
        (1, True, "1 (int)"),
        (True, 1, "True (bool)"),
        (24, (24,), "24 (int)"),
        ((24,), 24, "(24,) (tuple)"),
        ((), (24,), "() (tuple)"),
        ((24, 24, 1), (24, 24), "(24, 24, 1) (tuple)"),
        ([24, None], (24, 24), "[24, None] (list)"),
        (torch.Size([1, 64]), (1, 32), "(1, 64) (Size)"),
        (torch.tensor([1.5, 2.0]), [1.5, 2.5], "[1.5, 2.0] (Tensor)"),
        (torch.zeros(2, device="meta"), [0, 0], "<Tensor> (Tensor)"),
        (np.float64(0.1), 0.2, "0.1 (float64)"),
        (torch.Tensor, 24, "Tensor (_TensorMeta)"),
        ((print, lambda x: x), 24, "(print, <lambda>) (tuple)"),
        (torch.nn.ReLU(), 24, "<ReLU> (ReLU)"),
        ({"conv1": 3}, {"conv1": 4}, "<dict> (dict)"),
        ({"conv1": torch.ones(2)}, {"conv1": 1}, "<dict> (dict)"),
        (list(range(1000)), 24, "[" + ", ".join(map(str, range(22))) + "... (list)"),
    ],
)
def test_answer_wrong_shows_only_what_the_learner_has(said, mine, expected, shown):
    assert said(answer, mine, expected) == f"Not yet: you have {shown}.\n"
    with_hint = f"Not yet: you have {shown}.\nHint: Count the taps.\n"
    assert said(answer, mine, expected, "Count the taps.") == with_hint


def test_answer_within_a_tolerance(said):
    assert said(answer, 0.87, 0.9, tolerance=0.05) == "Correct.\n"
    assert said(answer, 0.84, 0.9, tolerance=0.05) == "Not yet: you have 0.84 (float).\n"
    assert said(answer, 0.96, 0.9, tolerance=0.05) == "Not yet: you have 0.96 (float).\n"
    assert said(answer, 25, 24, tolerance=1) == "Correct.\n"
    assert said(answer, (1.0, 2.1), (1, 2), tolerance=0.2) == "Correct.\n"


class Awkward:
    def __eq__(self, other):
        raise RuntimeError("cannot compare")

    def __repr__(self):
        raise RuntimeError("cannot write")

    def tolist(self):
        raise RuntimeError("cannot list")


def test_no_object_of_the_learner_raises(said):
    assert said(answer, Awkward(), 24) == "Not yet: you have <Awkward> (Awkward).\n"
    words = "You wrote a value of type Awkward, and the answer is a number: "
    assert said(prediction, Awkward(), 24).startswith(words)
    wrong = "Not yet: <lambda>(1) gives <Awkward>, expected 24.\n"
    assert said(cases, lambda x: Awkward(), [((1,), 24)]) == wrong


# cases


SIZES = [((28, 5), 24), ((7, 3), 5), ((3, 3), 1)]


def size(n, k):
    return n - k + 1


def test_cases_await(said):
    def stub(n, k):
        pass

    def dots(n, k):
        return ...

    def not_implemented(n, k):
        return NotImplemented

    for blank in (None, ..., stub, dots, not_implemented):
        assert said(cases, blank, SIZES, "unused") == "Not answered yet.\n"


def test_cases_all_right(said):
    assert said(cases, size, SIZES, "unused") == "Correct: all 3 cases.\n"
    shapes = [((torch.zeros(2, 3),), (2, 3)), ((torch.zeros(4),), (4,))]
    assert said(cases, lambda x: x.shape, shapes) == "Correct: all 2 cases.\n"


def test_cases_show_the_first_that_is_wrong(said):
    def size(n, k):
        return 24 if n == 28 else n - k

    wrong = "Not yet: size(7, 3) gives 4, expected 5.\n"
    assert said(cases, size, SIZES) == wrong
    assert said(cases, size, SIZES, "Try n = k.") == wrong + "Hint: Try n = k.\n"


def test_a_case_that_returns_nothing_is_wrong_once_another_returns_something(said):
    def size(n, k):
        return 24 if n == 28 else None

    assert said(cases, size, SIZES) == "Not yet: size(7, 3) gives None, expected 5.\n"


def test_an_error_in_the_function_is_reported_not_raised(said):
    def size(n, k):
        return [][n]

    stopped = "Not yet: size(28, 5) stops with IndexError: list index out of range\n"
    assert said(cases, size, SIZES) == stopped
    assert said(cases, size, SIZES, "Try n = k.") == stopped + "Hint: Try n = k.\n"


def test_an_error_of_many_lines_becomes_one_short_line(said):
    def many_lines(n, k):
        raise ValueError("first\n  second " + "word " * 100)

    message = said(cases, many_lines, SIZES)
    start = "Not yet: many_lines(28, 5) stops with ValueError: first second word"
    assert message.startswith(start)
    assert message.endswith(" [...]\n")
    assert message.count("\n") == 1
    assert len(message) < 250


def test_an_error_without_words(said):
    def size(n, k):
        raise NotImplementedError

    assert said(cases, size, SIZES) == "Not yet: size(28, 5) stops with NotImplementedError\n"


def test_what_is_no_function_is_reported(said):
    words = "Not yet: what you wrote is a number, and must be a function or a class.\n"
    assert said(cases, 24, SIZES) == words


def test_a_missing_name_gets_a_sentence_in_a_notebook():
    shell = InteractiveShell.instance()
    try:
        with capture_output() as captured:
            shell.run_cell(
                "import importlib\nfrom cnnlib import check\n_ = importlib.reload(check)"
            )
            failed = shell.run_cell("check.cases(\n    my_size, [((28, 5), 24)]\n)")
            shell.run_cell("my_size + 1")
        assert isinstance(failed.error_in_exec, NameError)  # so that Run All stops here
        said, traceback = captured.stdout.split("\n", 1)
        assert said == (
            "Not yet: name 'my_size' is not defined. "
            "Write it under this name, run that cell, then this one."
        )
        assert "Traceback (most recent call last)" in traceback
    finally:
        InteractiveShell.clear_instance()


def test_the_stop_button_still_stops():
    def interrupted(n, k):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cases(interrupted, SIZES)


def test_cases_call_functions_and_classes_by_their_names(said):
    def answer_always(value):
        return True

    expected = "Not yet: answer_always(dict) gives True, expected False.\n"
    assert said(cases, answer_always, [((dict,), False)]) == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check.prediction(2, 3, ["h"]), r"hint=\['h'\] must be a text: try hint="),
        (lambda: check.answer(2, 3, np.ones(2)), r"hint=\[1.0, 1.0\] must be a text"),
        (lambda: check.cases(max, [((1, 2), 2)], 3), "hint=3 must be a text"),
        (lambda: check.prediction(2, 3, "h", "1"), "tolerance='1' must be a finite number"),
        (lambda: check.answer(2, 3, "h", -1), "tolerance=-1 must be a finite number of at least 0"),
        (lambda: check.cases(max, 3), r"expected=3 must hold a case or more, .*try \[\(\(2, 3"),
        (lambda: check.cases(max, [(-3, 3)]), r"expected=\[\(-3, 3\)\] must hold a case or more"),
        (lambda: check.cases(max, {(1, 2): 2}), "expected=<dict> must hold a case or more"),
        (
            lambda: check.progress(3),
            r"folder of type int must be the path of a folder: try progress\(\)",
        ),
    ],
)
def test_what_the_author_of_a_question_gets_wrong_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_two_lists_that_hold_themselves_are_not_the_same(capsys):
    endless = []
    endless.append(endless)
    check.prediction(endless, endless)
    assert capsys.readouterr().out.startswith("You predicted [[[[")


def test_cases_refuse_an_empty_list():
    message = r"^expected=\[\] must hold a case or more, .*: try \[\(\(2, 3\), 5\)\], as for a sum$"
    with pytest.raises(ValueError, match=message):
        cases(size, [])


def test_one_case_is_not_called_all_cases(said):
    assert said(cases, size, SIZES[:1]) == "Correct.\n"


def test_a_function_that_prints_has_not_answered(said):
    def size(n, k):
        print(n - k + 1)

    told = "Not yet: your function prints, but returns None. Write return in place of print.\n"
    assert said(cases, size, SIZES) == "24\n5\n1\n" + told


def test_a_function_that_prints_and_returns_is_right(said):
    def size(n, k):
        print("n is", n)
        return n - k + 1

    assert said(cases, size, SIZES) == "n is 28\nn is 7\nn is 3\nCorrect: all 3 cases.\n"


def test_a_function_that_changes_its_arguments_is_shown_those_that_it_was_given(said):
    def total(values):
        return sum(values.pop() for _ in range(len(values) - 1))

    shared = [1, 2, 4]  # by both cases, and by whatever comes after them
    told = "Not yet: total([1, 2, 4]) gives 6, expected 7.\n"
    assert said(cases, total, [((shared,), 7), ((shared,), 7)]) == told
    assert said(cases, total, [((shared,), 6), ((shared,), 7)]) == told
    assert shared == [1, 2, 4]


def test_an_argument_that_cannot_be_copied_is_given_itself(said):
    generator = (count for count in [3])
    assert said(cases, next, [((generator,), 3)]) == "Correct.\n"


def test_a_function_that_exits_is_reported(said):
    def size(n, k):
        sys.exit("enough")

    assert said(cases, size, SIZES) == "Not yet: size(28, 5) stops with SystemExit: enough\n"


# What is too large, too deep, or raises when it is looked at


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def endless():
    value = [1]
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("mine", "shown"),
    [
        pytest.param(10**5000, "a number of about 5,000 digits (int)", id="5,000 digits"),
        pytest.param(nested(10**5), "[" * 77 + "... (list)", id="deep"),
        (endless(), ("[1, " * 20)[:77] + "... (list)"),
        pytest.param(list(range(10**6)), None, id="long list"),
    ],
)
def test_what_is_too_large_is_cut(said, mine, shown):
    told = said(answer, mine, 24)
    assert told == f"Not yet: you have {shown}.\n" if shown else len(told) < 120
    assert said(answer, [mine], [24]).startswith("Not yet: you have [")
    assert said(cases, lambda: mine, [((), 24)]).startswith("Not yet: <lambda>() gives ")


class Nameless:
    @property
    def __name__(self):
        raise RuntimeError("no name")


class Itemless(list):
    def __iter__(self):
        raise RuntimeError("no items")


def test_an_object_that_raises_when_it_is_looked_at(said):
    assert said(answer, Nameless(), 24) == "Not yet: you have <Nameless> (Nameless).\n"
    assert said(answer, Itemless([1]), 24) == "Not yet: you have <Itemless> (Itemless).\n"
    assert said(cases, Nameless(), SIZES) == (
        "Not yet: what you wrote is a value of type Nameless, and must be a function or a class.\n"
    )


@pytest.mark.parametrize("right", [24, [0.0, 0.0], torch.zeros(3)])
def test_a_huge_tensor_is_never_converted(said, monkeypatch, right):
    huge = torch.zeros(1).expand(10_000, 10_000)  # takes 4 bytes
    start = time.perf_counter()
    assert said(answer, huge, right) == "Not yet: you have <Tensor> (Tensor).\n"
    assert time.perf_counter() - start < 1


# keep and progress


CELLS = """\
guess_size = None
---
check.prediction(guess_size, 24)
check.prediction(guess_kernel, 24)
---
%matplotlib inline
check.cases(size, [((28, 5), 24)])
check.cases(size, [((7, 3), 5)])
---
half a cell (
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """Return a folder with a lecture and a deeper notebook, and be in the lecture."""
    (tmp_path / "deeper").mkdir()
    for name in ("01_first", "deeper/01_more"):
        cells = [{"cell_type": "code", "source": source} for source in CELLS.split("---\n")]
        cells.insert(0, {"cell_type": "markdown", "source": "check.prediction(is_only_text, 1)"})
        (tmp_path / f"{name}.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/01_first.ipynb")
    return tmp_path


def run_cell(source, **names):
    """Run a cell as a kernel does, which tells linecache its source."""
    name = f"<cell {len(linecache.cache)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), {"check": check, **names})


def table(capsys):
    capsys.readouterr()
    check.progress()
    return capsys.readouterr().out.splitlines()


def test_nothing_is_written_unless_wanted(course, capsys):
    before = sorted(course.rglob("*"))
    run_cell("check.prediction(guess_size, 24)", guess_size=24)
    assert capsys.readouterr().out == "Your prediction is right: 24.\n"
    assert sorted(course.rglob("*")) == before
    with pytest.raises(ValueError, match=r"my_progress\.json must be there: try check\.keep\(\)"):
        check.progress()


def test_progress_of_all_notebooks(course, capsys, monkeypatch):
    run_cell("check.keep()")
    questions = "check.prediction(guess_size, 24)\ncheck.prediction(guess_kernel, 24)"
    run_cell(questions, guess_size=24, guess_kernel=3)
    run_cell("check.cases(size, [((28, 5), 24)])", size=None)
    monkeypatch.setenv("JPY_SESSION_NAME", "deeper/01_more.ipynb")
    monkeypatch.chdir("deeper")
    run_cell("check.cases(\n    size,\n    [((28, 5), 24)],\n)", size=size)
    assert table(capsys) == [
        "notebook  predictions  exercises",
        "01_first  ■▣ 2 of 2    □□ 0 of 2",
        "01_more   □□ 0 of 2    ■□ 1 of 2",
        "",
        "■ right   ▣ not right yet   □ open",
    ]
    run_cell("check.prediction(guess_kernel, 24)", guess_kernel=24)
    assert "□■ 1 of 2" in table(capsys)[2]
    assert [path.name for path in course.glob("*progress*")] == ["my_progress.json"]


def test_a_blank_does_not_erase_what_was_kept(course, capsys):
    run_cell("check.keep()")
    run_cell("check.prediction(guess_size, 24)", guess_size=24)
    run_cell("check.prediction(guess_size, 24)", guess_size=None)
    run_cell("check.keep()")
    assert "■□ 1 of 2" in table(capsys)[1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_named_pipes_are_not_read(course, capsys):
    run_cell("check.keep()")
    os.mkfifo(course / "00_pipe.ipynb")
    check.progress()
    assert "00_pipe" not in capsys.readouterr().out
    (course / "my_progress.json").unlink()
    os.mkfifo(course / "my_progress.json")
    with pytest.raises(ValueError, match=r"my_progress\.json is damaged"):
        check.progress()


def test_a_damaged_file_is_named_and_stops_no_check(course, capsys):
    file = course / "my_progress.json"
    for contents in (
        "",
        "{",
        "[]",
        "[" * 10**5,
        '{"01_first": 3}',
        '{"01_first": {"x": {"right": "no"}}}',
    ):
        file.write_text(contents, encoding="utf-8")
        run_cell("check.prediction(guess_size, 24)", guess_size=24)
        told, fault = capsys.readouterr().out.splitlines()
        assert told == "Your prediction is right: 24."
        assert fault.startswith(f"This was not kept: {file} is damaged: try")
        assert file.read_text(encoding="utf-8") == contents
        for call in (check.progress, lambda: run_cell("check.keep()")):
            with pytest.raises(ValueError, match="is damaged: try"):
                call()


def test_a_full_disk_leaves_the_file_as_it_was(course, capsys, monkeypatch):
    run_cell("check.keep()")
    run_cell("check.prediction(guess_size, 24)", guess_size=24)
    before = (course / "my_progress.json").read_bytes()

    def fsync(number):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        run_cell("check.prediction(guess_kernel, 24)", guess_kernel=24)
    assert "This was not kept: [Errno 28] No space left on device" in capsys.readouterr().out
    assert (course / "my_progress.json").read_bytes() == before
    assert len(list(course.iterdir())) == 3


def test_keep_refuses_a_folder_that_cannot_be_written(course, monkeypatch):
    def fsync(number):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ValueError, match="but Permission denied: try a copy of the notebooks"):
        run_cell("check.keep()")


def test_outside_a_notebook_nothing_is_kept(course, capsys, monkeypatch):
    run_cell("check.keep()")
    before = (course / "my_progress.json").read_bytes()
    monkeypatch.delenv("JPY_SESSION_NAME")
    run_cell("check.prediction(guess_size, 24)", guess_size=24)
    assert (course / "my_progress.json").read_bytes() == before
    with pytest.raises(ValueError, match="must be called in a notebook: try"):
        run_cell("check.keep()")
    vscode = {"__vsc_ipynb_file__": str(course / "01_first.ipynb")}
    run_cell("check.prediction(guess_size, 24)", guess_size=24, **vscode)
    assert "■□ 1 of 2" in table(capsys)[1]


def test_a_notebook_that_is_damaged_is_named(course):
    run_cell("check.keep()")
    (course / "01_first.ipynb").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"01_first\.ipynb must be a notebook: try"):
        check.progress()


def test_a_real_kernel_keeps_over_a_restart(course):
    manager, client = start_new_kernel(startup_timeout=60, cwd=str(course))
    printed = []

    def execute(source):
        def hook(message):
            printed.append(message["content"].get("text") or message["content"].get("evalue", ""))

        client.execute_interactive(source, timeout=60, output_hook=hook)

    try:
        execute("from cnnlib import check\ncheck.keep()")
        execute("guess_size = 24\ncheck.prediction(guess_size, 24)")
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=60)
        execute("from cnnlib import check\ncheck.progress()")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert "01_first  ■□ 1 of 2    □□ 0 of 2" in "".join(printed)

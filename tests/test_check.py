"""The self-checks: every branch by its exact words, and nothing a learner does raises."""

import numpy as np
import pytest
import torch

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
    assert said(prediction, Awkward(), 24) == "You predicted <Awkward>; it is 24.\n"
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
    stopped = "Not yet: int(28, 5) stops with TypeError: 'int' object is not callable\n"
    assert said(cases, 24, SIZES) == stopped


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


def test_cases_refuse_an_empty_list():
    message = r"^expected=\[\] must hold a case: try \[\(\(2, 3\), 5\)\], as for a sum$"
    with pytest.raises(ValueError, match=message):
        cases(size, [])

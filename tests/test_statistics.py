"""Welch's test and Holm's correction: right to the last digit, and right as often as they say."""

import math

import numpy as np
import pytest

from cnnlib.measure import statistics
from cnnlib.measure.statistics import compare, summary, told_apart


@pytest.mark.parametrize(
    ("freedom", "t"),
    [(1, 12.7062047), (2, 4.3026527), (3, 3.1824463), (4, 2.7764451), (8, 2.3060041), (30, 2.0422725)],
)  # fmt: skip
def test_the_table_of_students_t(freedom, t):
    assert statistics._t_tails(t, freedom) == pytest.approx(0.05, rel=1e-6)
    assert statistics._t_tails(-t, freedom) == pytest.approx(0.05, rel=1e-6)
    assert statistics._t_quantile(0.05, freedom) == pytest.approx(t, rel=1e-7)


@pytest.mark.parametrize("t", [1e-3, 0.1, 0.9, 1.1, 3.0, 50.0, 1e5])
def test_one_and_two_degrees_of_freedom_by_formula(t):
    cauchy = 2 / math.pi * math.atan(1 / t)
    assert statistics._t_tails(t, 1) == pytest.approx(cauchy, rel=1e-9)
    root = math.sqrt(2 + t * t)
    assert statistics._t_tails(t, 2) == pytest.approx(2 / (root * (root + t)), rel=1e-9)


@pytest.mark.parametrize("freedom", [1.37, 2.5, 5.81, 9.04, 40.0])
def test_the_tails_are_the_integral_of_the_density(freedom):
    """With t = sqrt(freedom) tan(angle), the density is a power of the cosine."""
    step = math.pi / 2 / 1_000_000
    density = np.cos((np.arange(1_000_000) + 0.5) * step) ** (freedom - 1)
    for t in (0.3, 1.0, 2.8):
        beyond = round(math.atan(t / math.sqrt(freedom)) / step)
        exact = math.sqrt(freedom) * math.tan(beyond * step)
        fraction = density[beyond:].sum() / density.sum()
        assert statistics._t_tails(exact, freedom) == pytest.approx(fraction, rel=1e-6)


def test_welch_by_hand():
    a, b = [1.0, 2.0, 3.0], [2.0, 6.0, 10.0, 14.0]
    variance = 1 / 3 + 80 / 3 / 4
    freedom = variance**2 / ((1 / 3) ** 2 / 2 + (80 / 12) ** 2 / 3)
    assert statistics._welch(a, b) == pytest.approx((6.0, math.sqrt(variance), freedom))
    (found,) = compare({"a": a, "b": b})
    assert found.p == pytest.approx(statistics._t_tails(6 / math.sqrt(variance), freedom))
    assert 0.09 < found.p < 0.12  # between 3 and 4 degrees of freedom, t = 2.27
    assert (found.first, found.second, found.mean) == ("a", "b", 6.0)


def test_runs_without_noise():
    assert told_apart([0.8, 0.8], [0.9, 0.9])
    assert not told_apart([0.8, 0.8], [0.8, 0.8])
    (found,) = compare({"a": [0.8] * 3, "b": [0.8] * 3})
    assert (found.p, found.detectable) == (1.0, 0.0)
    one_sample = compare({"baseline": [0.0] * 3, "net": [1.0, 2.0, 3.0]})[0]
    assert one_sample.p == pytest.approx(statistics._t_tails(2 * math.sqrt(3), 2))


def test_holm_by_hand():
    assert statistics._holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics._holm([0.9, 0.8]) == [1.0, 1.0]


def test_which_pairs_are_compared():
    runs = {name: [k + 0.0, k + 0.1] for k, name in enumerate("abc")}
    assert [(d.first, d.second) for d in compare(runs)] == [("a", "b"), ("a", "c"), ("b", "c")]
    found = compare(runs, reference="b")
    assert [(d.first, d.second) for d in found] == [("b", "a"), ("b", "c")]
    assert [round(d.mean, 9) for d in found] == [-1, 1]
    single = compare({"b": runs["b"], "c": runs["c"]})[0]
    assert found[1].p == pytest.approx(2 * single.p)
    assert found[1].detectable > single.detectable


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"\[0.9\] must be two numbers at least: try more seeds"):
        compare({"a": [0.9], "b": [0.8, 0.9]})
    with pytest.raises(ValueError, match=r"reference='z' must be a group: try one of \['a'\]"):
        compare({"a": [0.9, 0.8]}, reference="z")


def test_a_difference_as_text():
    apart, together = (
        str(compare({"plain": [0.8, 0.81, 0.82], "residual": [x, x + 0.01, x + 0.02]})[0])
        for x in (0.9, 0.801)
    )
    assert apart.startswith("residual - plain: +0.1000, p = 0.00026, told apart (detectable: 0.03")
    assert "p = 0.91, not told apart" in together


@pytest.fixture
def normal():
    return np.random.default_rng(0).normal


@pytest.mark.parametrize("seeds", [3, 5])
def test_false_alarms_are_at_most_as_frequent_as_the_level(normal, seeds):
    """Two standard errors would raise 11.6 % with three seeds, and 8 % with five."""
    noise = normal(size=(4000, 2, seeds)) * [[1], [1.5]]
    alarms = np.mean([told_apart(a, b) for a, b in noise.tolist()])
    assert 0.025 < alarms < 0.055
    distance = np.abs(noise.mean(2) @ [1, -1])
    old_rule = np.mean(distance > 2 * np.sqrt(noise.var(2, ddof=1).sum(1) / seeds))
    assert old_rule > 1.7 * alarms


def test_false_alarms_stay_rare_among_many_pairs(normal):
    groups = normal(size=(200, 4, 5)).tolist()
    alarms = [any(d.told_apart for d in compare(dict(enumerate(g)))) for g in groups]
    assert 0.005 < np.mean(alarms) < 0.06
    alone = [any(told_apart(a, b) for a in g for b in g) for g in groups]
    assert np.mean(alone) > 0.12


@pytest.mark.parametrize(("seeds", "power"), [(3, 0.73), (5, 0.78), (10, 0.79)])
def test_what_is_detectable_is_told_apart_about_four_times_out_of_five(normal, seeds, power):
    groups = normal(size=(400, 2, seeds)).tolist()
    detectable = np.mean([compare(dict(enumerate(pair)))[0].detectable for pair in groups])
    pairs = normal([[0], [detectable]], size=(2000, 2, seeds)).tolist()
    assert np.mean([told_apart(a, b) for a, b in pairs]) == pytest.approx(power, abs=0.04)


def test_more_seeds_see_more(normal):
    noise = normal([[0], [1.5]], size=(1000, 2, 10))
    power = [np.mean([told_apart(a, b) for a, b in noise[..., :n].tolist()]) for n in (2, 3, 5, 10)]
    assert power == sorted(power)
    assert power[0] < 0.2 < 0.8 < power[-1]


def test_a_summary_of_several_seeds():
    runs = {"plain": [0.5, 0.75, 0.625], "a longer name": [0.25]}
    assert summary(runs, "accuracy") == (
        "accuracy          mean      std   lowest  highest  seeds\n"
        "plain           0.6250   0.1250   0.5000   0.7500      3\n"
        "a longer name   0.2500            0.2500   0.2500      1"
    )
    with pytest.raises(ValueError, match=r"runs\['plain'\] must hold a number"):
        summary({"plain": []}, "accuracy")

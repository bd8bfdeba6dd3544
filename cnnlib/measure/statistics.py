"""Whether runs with several seeds can be told apart, and which difference would have been."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from typing import Any

from cnnlib._checks import check_number

_POWER = 0.8
_SMALLEST, _LARGEST = 1e-100, 1e100  # the squares of numbers in between are numbers, too
_TERMS = 50  # of a continued fraction that has converged long before, for up to 100 seeds


@dataclass(frozen=True)
class Difference:
    """How two groups of runs differ.

    Args:
        first: Name of one group.
        second: Name of the other one.
        mean: Mean of the second less mean of the first.
        p: How often a mean at least as far from 0 comes by chance alone, corrected for the number
            of pairs.
        told_apart: Whether p is below the level.
        detectable: The smallest true difference that as many seeds, with as much noise, would tell
            apart about four times out of five (of three seeds, seven times out of ten). Groups
            that are not told apart may differ by that much.
    """

    first: str
    second: str
    mean: float
    p: float
    told_apart: bool
    detectable: float

    def __str__(self) -> str:
        verdict = "told apart" if self.told_apart else "not told apart"
        return (
            f"{self.second} - {self.first}: {self.mean:+.4f}, p = {self.p:.2g}, {verdict} "
            f"(detectable: {self.detectable:.4f})"
        )


def summary(runs: Mapping[str, Sequence[float]], quantity: str) -> str:
    """Return a table with a row for each group: its mean, std and range over the seeds.

    Args:
        runs: A number for each seed, by the name of the group.
        quantity: What the numbers are, with their unit.

    Raises:
        ValueError: A group is empty, or holds anything but finite numbers.
    """
    _check_runs(runs)
    for text in (quantity, *runs):
        if not isinstance(text, str):
            raise ValueError(f"{text!r} must be a text in a table: try {str(text)!r}")
    width = max(map(len, [quantity, *runs]))
    lines = [f"{quantity:{width}}     mean      std   lowest  highest  seeds"]
    for name, numbers in runs.items():
        std = f"{statistics.stdev(numbers):.4f}" if len(numbers) > 1 else ""
        cells = f"{statistics.mean(numbers):.4f}", std, f"{min(numbers):.4f}", f"{max(numbers):.4f}"
        columns = " ".join(f"{cell:>8}" for cell in cells)
        lines.append(f"{name:{width}} {columns} {len(numbers):>6}")
    return "\n".join(lines)


def told_apart(a: Sequence[float], b: Sequence[float], level: float = 0.05) -> bool:
    """Return whether the means of two groups differ, by Welch's t-test.

    Args:
        a: A number for each seed.
        b: Likewise. The groups may differ in size and in noise.
        level: How often two groups of equal means may be told apart.

    Raises:
        ValueError: A group has fewer than two numbers, or the level is no probability.
    """
    _check_runs({"a": a, "b": b})
    _check_level(level)
    return _p_value(*_welch(a, b)) < level


def compare(
    runs: Mapping[str, Sequence[float]], reference: str | None = None, level: float = 0.05
) -> list[Difference]:
    """Compare groups in pairs, by Welch's t-test with Holm's correction.

    The more pairs there are, the more of them differ by chance. Holm multiplies the smallest p by
    the number of pairs, the next one by one less, and so on. Then the chance that any two groups of
    equal means are told apart is at most the level.

    Args:
        runs: A number for each seed, by the name of the group. For a baseline without seeds, give
            its number several times.
        reference: The group with which all others are compared. None: every pair is compared.
        level: How often any groups of equal means may be told apart.

    Returns:
        A Difference for each pair, in the order of the groups.

    Raises:
        ValueError: A group has fewer than two numbers, there is no such reference, or the level is
            no probability.

    Source:
        Welch 1947; Holm 1979.
    """
    _check_runs(runs)
    _check_level(level)
    if reference is not None and not (isinstance(reference, str) and reference in runs):
        raise ValueError(f"reference={reference!r} must be a group: try one of {list(runs)}")
    names = sorted(runs, key=lambda name: name != reference)
    pairs = [pair for pair in itertools.combinations(names, 2) if reference in (None, pair[0])]
    tests = [_welch(runs[first], runs[second]) for first, second in pairs]
    corrected = _holm([_p_value(*test) for test in tests])
    return [
        Difference(*pair, test[0], p, p < level, _detectable(*test[1:], level / len(pairs)))
        for pair, test, p in zip(pairs, tests, corrected, strict=True)
    ]


def _check_runs(runs: Any) -> None:
    """Refuse anything that is not a dictionary from names to one finite number or more."""
    if not isinstance(runs, Mapping) or not runs:
        raise ValueError(
            f"runs={runs!r} must be a dictionary from names to numbers: try {{'mine': [0.9, 0.8]}}"
        )
    for name, numbers in runs.items():
        if not isinstance(numbers, Sequence) or not all(map(_is_finite, numbers)):
            raise ValueError(
                f"runs[{name!r}]={numbers!r} must be a list of finite numbers, none of them beyond "
                f"{_SMALLEST:g} and {_LARGEST:g} in size: try x.tolist() for a tensor"
            )
        if len(numbers) == 0:
            raise ValueError(f"runs[{name!r}] must hold a number at least: try recording a seed")


def _is_finite(number: Any) -> bool:
    is_real = isinstance(number, Real) and not isinstance(number, bool | Fraction)
    return is_real and (number == 0 or _SMALLEST <= abs(number) <= _LARGEST)


def _check_level(level: Any) -> None:
    """Refuse anything that is not a probability."""
    check_number("level", level, below=1, usual=0.05)


def _holm(p_values: list[float]) -> list[float]:
    """Correct the p of several tests, so that each may be held against one level."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = highest
    return corrected


def _welch(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """Return the difference of two means, its standard error, and the degrees of freedom."""
    for numbers in (a, b):
        if len(numbers) < 2:
            raise ValueError(f"runs={list(numbers)} must be two numbers at least: try more seeds")
    squares = [statistics.variance(numbers) / len(numbers) for numbers in (a, b)]
    weights = sum(v**2 / (len(x) - 1) for v, x in zip(squares, (a, b), strict=True))
    freedom = sum(squares) ** 2 / weights if weights else 1.0
    return statistics.mean(b) - statistics.mean(a), math.sqrt(sum(squares)), freedom


def _p_value(difference: float, error: float, freedom: float) -> float:
    """Return how often chance alone takes a mean so far from 0."""
    if error == 0:
        return float(difference == 0)
    return _t_tails(difference / error, freedom)


def _detectable(error: float, freedom: float, level: float) -> float:
    """Return the true difference that is told apart with a probability of about _POWER.

    In standard errors it is the critical value of t and, above that, as much as the noise of t
    takes away in no more than 1 - _POWER of all cases.
    """
    return error * (_t_quantile(level, freedom) + _t_quantile(2 * (1 - _POWER), freedom))


def _t_quantile(tails: float, freedom: float) -> float:
    """Return the t beyond which, on both sides together, this fraction of the distribution lies."""
    low, high = 0.0, 1.0
    while _t_tails(high, freedom) > tails:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _t_tails(middle, freedom) > tails else (low, middle)
    return high


def _t_tails(t: float, freedom: float) -> float:
    """Return the fraction of Student's t distribution that lies beyond t, on both sides."""
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function, by its continued fraction.

    Source:
        Abramowitz and Stegun 1964, 26.5.8.
    """
    if x > (a + 1) / (a + b + 2):  # where the fraction of the other end converges sooner
        return 1 - _incomplete_beta(1 - x, b, a)
    if x == 0:
        return 0.0
    fraction = 1.0
    for m in range(_TERMS, -1, -1):
        fraction = 1 - (a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)) / fraction
        if m > 0:
            fraction = 1 + m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)) / fraction
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return math.exp(a * math.log(x) + b * math.log1p(-x) - log_beta) / (a * fraction)

"""The tests between rows, by hand and by enumeration."""

import math
from itertools import product

import numpy as np
import pytest

from scripts.tables.statistics import (
    Comparison,
    bootstrap_interval,
    compare,
    correct,
    holm,
    joined,
    mcnemar,
    seed_test,
)


def enumerated(gained: int, lost: int) -> float:
    """Share of the 2^n sign patterns of n discordant pairs that are at least as lopsided."""
    n, distance = gained + lost, abs(gained - lost)
    patterns = [sum(signs) for signs in product((1, -1), repeat=n)]
    return sum(abs(total) >= distance for total in patterns) / len(patterns)


@pytest.mark.parametrize("gained, lost", [(0, 0), (1, 0), (5, 1), (2, 7), (4, 4)])
def test_mcnemar_counts_the_sign_patterns_of_discordant_pairs(gained, lost):
    first = [True] * gained + [False] * lost + [True, False, True]
    second = [False] * gained + [True] * lost + [True, False, True]        # the last three agree and must not count
    assert mcnemar(first, second) == pytest.approx(enumerated(gained, lost))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_p_values_of_seeds_are_joined_by_hand():
    assert joined([0.02]) == 0.02
    assert joined([0.02, 0.5]) == pytest.approx(0.04)             # 2/1 times the smallest
    assert joined([0.3, 0.001, 0.02]) == pytest.approx(0.03)      # 3/2 times the second smallest
    assert joined([0.9, 0.9]) == 1.0


def test_joined_p_values_hold_under_any_dependence():
    """Below 0.05 at most in 5 % of the cases without a difference, whatever the dependence."""
    rng = np.random.default_rng(0)
    shared = rng.random((20_000, 1))
    for p in (np.repeat(shared, 3, axis=1), rng.random((20_000, 3)), np.hstack([shared, shared, 1 - shared])):
        assert np.mean([joined(row) < 0.05 for row in p]) < 0.055


def test_the_t_interval_over_three_seeds_by_hand():
    """1, 2, 3: mean 2, standard error 1/sqrt(3), t(0.975, 2) = 4.302653; t = 3.4641, p = 0.0742."""
    interval, p = seed_test([1.0, 2.0, 3.0])
    assert interval == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-5)
    assert p == pytest.approx(0.0742, abs=1e-4)
    assert seed_test([1.0, 2.0]) == (None, None)
    assert seed_test([2.0] * 3) == ((2.0, 2.0), 0.0) and seed_test([0.0] * 3) == ((0.0, 0.0), 1.0)


def test_the_bootstrap_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    videos = [f"v{i}" for i in range(150)]
    hits = 0
    for trial in range(60):
        low, high = bootstrap_interval(rng.choice([-100.0, 0.0, 100.0], 150, p=[0.1, 0.6, 0.3]), videos, seed=trial)
        hits += low <= 20 <= high
    assert hits >= 51                                             # 57 expected of 60; fewer than 51: 1 in 200


def test_the_bootstrap_draws_whole_videos():
    """Ten copies of a question on one video are no more than one: the interval must not shrink."""
    rng = np.random.default_rng(2)
    once = rng.choice([-100.0, 0.0, 100.0], 100)
    single = bootstrap_interval(once, [str(i) for i in range(100)])
    copied = bootstrap_interval(np.repeat(once, 10), [str(i) for i in range(100) for _ in range(10)])
    apart = bootstrap_interval(np.repeat(once, 10), [str(i) for i in range(1000)])
    assert copied == pytest.approx(single)
    assert apart[1] - apart[0] < 0.5 * (copied[1] - copied[0])


def answers(right: list[bool]) -> dict:
    return {(i, 100 + i): (f"v{i}", flag) for i, flag in enumerate(right)}


def pair(gained: int, lost: int, total: int = 200):
    """The row alone is right on `gained` questions, the reference alone on `lost`."""
    agreed = total - gained - lost
    return answers([True] * gained + [False] * lost + [True] * agreed), answers(
        [False] * gained + [True] * lost + [True] * agreed)


def test_a_difference_needs_questions_and_seeds_to_agree():
    """A difference is called one only if questions and seeds agree."""
    clear = correct([compare("a", "b", "complete", [pair(60, 2), pair(58, 3), pair(62, 1)])])[0]
    assert clear.verdict == "better" and clear.difference == pytest.approx(100 * (58 + 55 + 61) / 3 / 200)
    worse = correct([compare("a", "b", "complete", [pair(2, 60), pair(3, 58), pair(1, 62)])])[0]
    assert worse.verdict == "worse" and worse.difference == pytest.approx(-clear.difference)
    seeds_disagree = correct([compare("a", "b", "complete", [pair(90, 0), pair(90, 0), pair(5, 1)])])[0]
    assert seeds_disagree.p_questions_holm < 0.05 < seeds_disagree.p_seeds
    assert seeds_disagree.verdict == "no difference shown"
    few_questions = correct([compare("a", "b", "complete", [pair(3, 0), pair(3, 0), pair(3, 0)])])[0]
    assert few_questions.seed_interval[0] > 0 and few_questions.verdict == "no difference shown"
    assert correct([compare("a", "b", "complete", [pair(60, 2)] * 2)])[0].verdict == "too few seeds"


def test_the_number_of_comparisons_counts():
    one = compare("a", "b", "complete", [pair(13, 2), pair(14, 2), pair(13, 1)])
    none = [compare("a", "b", s, [pair(5, 5)] * 3) for s in "cdefghijklmnop"]
    assert correct([one])[0].verdict == "better"
    assert correct([one, *none])[0].verdict == "no difference shown"


def test_seed_p_values_are_corrected_among_themselves():
    """Uncorrected seed p values are kept apart from tables with few seeds."""
    three, two = compare("a", "b", "c", [pair(9, 1), pair(8, 2), pair(9, 2)]), compare("a", "b", "d", [pair(9, 1)] * 2)
    fixed = correct([two, three])
    assert fixed[0].p_seeds_holm is None and fixed[1].p_seeds_holm == three.p_seeds
    assert isinstance(fixed[0], Comparison)


def test_rows_tested_on_other_questions_are_refused():
    first, second = pair(5, 5)
    renumbered = {(row, question + 1): value for (row, question), value in second.items()}
    for other in (renumbered, dict(list(second.items())[:-1])):
        with pytest.raises(ValueError, match="not tested on the same questions"):
            compare("a", "b", "complete", [(first, other)])
    with pytest.raises(ValueError, match="no seed in common"):
        compare("a", "b", "complete", [])

"""Is one row better than another? Paired over test questions and over seeds, corrected for the
number of comparisons.

Two sources of chance are looked at apart, since neither speaks for the other:

- questions: other test questions would have given other accuracies. Exact McNemar test (McNemar,
  1947) per seed; the p-values of K seeds are joined by K/k times the k-th smallest, k = ceil(K/2),
  which holds whatever the dependence between seeds (Rüger, 1978). The 95 % interval is a percentile
  bootstrap of the difference, averaged over seeds; whole videos are drawn, since the questions on
  one video are not independent.
- seeds: another seed would have trained another model. Paired t interval and test over seeds, from
  three seeds on.

Within one table the p-values of either kind are corrected by Holm's step-down method (Holm, 1979).
A verdict asks for the corrected p-value over questions and the uncorrected interval over seeds:
with three seeds and twenty comparisons the corrected t-test would call hardly any difference one.
Its p-value is reported beside, for the strict reader.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

ALPHA = 0.05
RESAMPLES = 4000
FEWEST_SEEDS = 3
RULE = ("A difference is called one only if chance in the questions and chance in the seeds both fail to explain it: "
        f"the exact McNemar p, Holm-adjusted, is below {ALPHA}, and the 95 % bootstrap interval over questions and the "
        f"95 % t interval over at least {FEWEST_SEEDS} seeds exclude zero on the same side.")

# Question (annotation row, question id) -> video and whether the answer is right.
Answers = dict[tuple[int, int], tuple[str, bool]]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """A row against its reference in one scenario, in points of accuracy, row minus reference."""

    row: str
    reference: str
    scenario: str
    seeds: int
    difference: float
    bootstrap: Interval
    p_questions: float
    seed_interval: Interval | None
    p_seeds: float | None
    p_questions_holm: float = math.nan
    p_seeds_holm: float | None = None

    @property
    def verdict(self) -> str:
        """better | worse | no difference shown | too few seeds"""
        if self.seed_interval is None:
            return "too few seeds"
        if self.p_questions_holm < ALPHA and self.bootstrap[0] > 0 and self.seed_interval[0] > 0:
            return "better"
        if self.p_questions_holm < ALPHA and self.bootstrap[1] < 0 and self.seed_interval[1] < 0:
            return "worse"
        return "no difference shown"


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Two-sided exact p-value: discordant pairs are fair coin flips if both are equally good."""
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    gained, lost = int((a & ~b).sum()), int((~a & b).sum())
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def joined(p_values: Sequence[float]) -> float:
    """One p-value for several under any dependence: K/k times the k-th smallest, k = ceil(K/2)."""
    k = math.ceil(len(p_values) / 2)
    return min(1.0, len(p_values) / k * sorted(p_values)[k - 1])


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given: the i-th smallest times those left, monotone."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def seed_test(differences: Sequence[float]) -> tuple[Interval | None, float | None]:
    """95 % t interval of the mean difference over seeds and the p-value of no difference; None for
    too few seeds.
    """
    d = np.asarray(differences, float)
    if len(d) < FEWEST_SEEDS:
        return None, None
    if np.ptp(d) == 0:                     # the t statistic is 0/0 or infinite
        return (float(d[0]), float(d[0])), float(d[0] == 0)
    test = stats.ttest_1samp(d, 0)
    interval = test.confidence_interval(1 - ALPHA)
    return (float(interval.low), float(interval.high)), float(test.pvalue)


def bootstrap_interval(differences: Sequence[float], videos: Sequence[str], seed: int = 0) -> Interval:
    """95 % percentile interval of the mean `differences` (one per question), by whole videos."""
    d = np.asarray(differences, float)
    _, video = np.unique(np.asarray(videos), return_inverse=True)
    sums, counts = np.bincount(video, weights=d), np.bincount(video)
    if len(counts) < 2:
        return float(d.mean()), float(d.mean())
    result = stats.bootstrap((sums, counts), lambda s, n, axis: s.sum(axis=axis) / n.sum(axis=axis), paired=True,
                             vectorized=True, n_resamples=RESAMPLES, batch=100, method="percentile",
                             confidence_level=1 - ALPHA, rng=np.random.default_rng(seed))
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def compare(row: str, reference: str, scenario: str, pairs: Sequence[tuple[Answers, Answers]]) -> Comparison:
    """`pairs`: per seed the answers of row and reference to the same questions.

    Raises:
        ValueError: the two were not asked the same questions, or there is no seed that both have.
    """
    if not pairs:
        raise ValueError(f"{row} and {reference} have no seed in common")
    questions = sorted(pairs[0][0])
    if not questions or any(sorted(answers) != questions for pair in pairs for answers in pair):
        raise ValueError(f"{row} and {reference} were not tested on the same questions")
    videos = [pairs[0][0][q][0] for q in questions]
    right = np.array([[[answers[q][1] for q in questions] for answers in pair] for pair in pairs])  # (S, 2, Q)
    difference = 100 * (right[:, 0].astype(float) - right[:, 1])                                     # (S, Q)
    by_seed = difference.mean(axis=1)
    interval, p_seeds = seed_test(by_seed)
    return Comparison(row, reference, scenario, len(pairs), float(by_seed.mean()),
                      bootstrap_interval(difference.mean(axis=0), videos),
                      joined([mcnemar(a, b) for a, b in right]), interval, p_seeds)


def correct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons of one table with their p-values adjusted."""
    questions = holm([c.p_questions for c in comparisons])
    tested = [i for i, c in enumerate(comparisons) if c.p_seeds is not None]
    seeds = dict(zip(tested, holm([comparisons[i].p_seeds for i in tested]), strict=True))
    return [replace(c, p_questions_holm=p, p_seeds_holm=seeds.get(i))
            for i, (c, p) in enumerate(zip(comparisons, questions, strict=True))]

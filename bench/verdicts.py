"""From a ratio with its interval to one of four words: faster, same, slower, can't tell.

And what stands beside it: differences of accuracy, paired by seed, and outliers.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from bench.ratios import Ratio, check, paired


class Verdict(StrEnum):
    """What one may say of an arm against the reference arm."""

    FASTER = "faster"
    SAME = "same"
    SLOWER = "slower"
    CANT_TELL = "can't tell"


@dataclass(frozen=True)
class Difference:
    """Mean of arm minus reference over paired seeds, with its interval, in the units given."""

    low: float
    estimate: float
    high: float
    seeds: int


def verdict(ratio: Ratio, *, margin: float = 0.02) -> Verdict:
    """Read the interval: `can't tell`, unless two keys turn, evidence and practical size.

    - `faster`: the whole interval is above 1, and the estimate is at least 1 + margin;
    - `slower`: the whole interval is below 1, and the estimate is at most 1 / (1 + margin);
    - `same`: the whole interval is inside (1 / (1 + margin), 1 + margin): two one-sided tests
      (Schuirmann 1987), each at (1 - confidence) / 2.

    At a true ratio of 1, `faster` or `slower` comes in at most 1 - confidence of the comparisons;
    at a true ratio on the margin, `same` in at most (1 - confidence) / 2. The size key is on the
    estimate, as in asv: `faster` says that the arm is faster and that the likeliest gain is worth
    having, not that the gain surely exceeds the margin. For that claim read `low`. Wanting
    low >= 1 + margin, as criterion.rs does, needs about three times the rounds for a gain of 5 %.

    Raises:
        ValueError: `margin` is not positive.

    >>> str(verdict(Ratio(1.01, 1.05, 1.09, rounds=200, effective_rounds=200.0)))
    'faster'
    """
    check(0 < margin < math.inf, "`margin` must be positive and finite", f"margin={margin}")
    if ratio.low > 1 and ratio.estimate >= 1 + margin:
        return Verdict.FASTER
    if ratio.high < 1 and ratio.estimate <= 1 / (1 + margin):
        return Verdict.SLOWER
    if 1 / (1 + margin) < ratio.low and ratio.high < 1 + margin:
        return Verdict.SAME
    return Verdict.CANT_TELL


def accuracy_difference(
    reference: ArrayLike, arm: ArrayLike, *, confidence: float = 0.95
) -> Difference:
    """Mean of arm minus reference over seeds that both arms share, and its Student t interval.

    Pairing removes what a seed does to both arms (Bouthillier et al., MLSys 2021). One seed says
    nothing about its own spread: the interval is then (-inf, inf). Equal differences, which few
    seeds on a small test set may show by chance, make an interval of no width. The spread of the
    test set itself, the same for every seed, is not in the interval.

    Args:
        reference: accuracy (a share, or per cent) of the reference arm, one per seed.
        arm: the same for the arm, with the same seeds in the same order.
        confidence: how often such intervals hold the true difference.

    Raises:
        ValueError: a value that is not finite, unequal or no seeds, bad `confidence`.

    >>> accuracy_difference([0.97, 0.98], [0.96, 0.97]).estimate.__round__(3)
    -0.01
    """
    check(0 < confidence < 1, "`confidence` must be in (0, 1)", f"confidence={confidence}")
    old, new = paired(reference, arm, "seed", above=-math.inf)
    difference, seeds = new - old, old.size
    mean, half = float(difference.mean()), math.inf
    if seeds > 1:
        half = float(stats.t.ppf((1 + confidence) / 2, seeds - 1) * stats.sem(difference))
    return Difference(mean - half, mean, mean + half, seeds)


def outliers(values: ArrayLike) -> int:
    """Count the values far from the rest, to be shown; none is ever dropped.

    Far is a modified z-score 0.6745 |x - median| / MAD above 3.5 (Iglewicz & Hoaglin 1993). When
    more than half of the values are equal the MAD is 0, and every other value counts.

    Raises:
        ValueError: a value is not finite.

    >>> outliers([1.0, 1.1, 0.9, 1.0, 1.2, 9.0])
    1
    """
    x = np.asarray(values, float)
    check(bool(np.isfinite(x).all()), "`values` must be finite", f"values={x.tolist()}")
    if x.size == 0:
        return 0
    distance = np.abs(x - np.median(x))
    return int(np.sum(0.6745 * distance > 3.5 * np.median(distance)))

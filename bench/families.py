"""Many comparisons at once: verdicts corrected for their number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

from bench.ratios import Ratio, p_values, paired_ratio
from bench.verdicts import Verdict, verdict

MANY = 100
"""Members of a family above which its verdicts are corrected for the share that is wrong."""


@dataclass(frozen=True)
class Judgement:
    """A member of a family: its verdict alone and after correction, and the corrected p-values."""

    ratio: Ratio
    alone: Verdict
    verdict: Verdict
    p_differ: float
    p_same: float


def judge_family(
    comparisons: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    builds: Sequence[Sequence[int]] | None = None,
    margin: float = 0.02,
    alpha: float = 0.05,
) -> list[Judgement]:
    """Verdicts on many comparisons, such that few of them are wrong: hardly one, up to `MANY`.

    Each comparison has two p-values: that the ratio is 1, and that it is outside the margin (see
    `p_values`). Each kind is adjusted over the family by `holm`; a verdict whose p-value then
    exceeds `alpha` becomes `can't tell`. With more than `MANY` members that would silence all: a
    ratio known to 1 % from eight builds says `same` with p = 0.002, and of 1,000 such none would be
    left. There `alpha` is the share of the words that is expected to be wrong (Benjamini &
    Hochberg, J. R. Statist. Soc. B 57, 1995), and no longer the chance that any is.

    Up to `MANY`, the chance that any comparison with a true ratio of 1 is called faster or slower
    is at most `alpha`, and so is, apart, the chance that any with a true ratio outside the margin
    is called the same. `same` is a claim too, and most of what a benchmark like this one has to
    say, so it is not exempt. Measured in one build to a half-width of half the margin, 98 % of A/A
    comparisons are the same when alone and 95 % in a family of 25; at two thirds of it, 90 % and
    45 %.

    The intervals shown stay those of single comparisons. Leave out A/A controls: they are not
    claims, and would make the correction harsher.

    Args:
        comparisons: pairs (times of the reference, times of the arm), as for `paired_ratio`.
        builds: of each comparison, as for `paired_ratio`; by default one build.
        margin: as for `verdict`.
        alpha: chance of a wrong verdict in the family, or share of wrong ones among more than
            `MANY`; intervals have confidence 1 - alpha.

    Raises:
        ValueError: as `paired_ratio` and `verdict` do, or `alpha` is not in (0, 1).

    >>> fast = ([2.0] * 8, [1.0] * 8)
    >>> [str(j.verdict) for j in judge_family([fast] * 5)], str(judge_family([fast] * 9)[0].verdict)
    (['faster', 'faster', 'faster', 'faster', 'faster'], "can't tell")
    """
    if not 0 < alpha < 1:
        raise ValueError(f"`alpha` must be in (0, 1). Received: alpha={alpha}")
    starts = [(0,)] * len(comparisons) if builds is None else builds
    both = list(zip(comparisons, starts, strict=True))
    ratios = [paired_ratio(*pair, builds=b, confidence=1 - alpha) for pair, b in both]
    words = [verdict(ratio, margin=margin) for ratio in ratios]
    tests = [p_values(*pair, builds=b, margin=margin) for pair, b in both]
    adjust = holm if len(tests) <= MANY else false_discovery_control
    p_differ, p_same = (adjust([test[n] for test in tests]) for n in (0, 1))
    judgements = []
    for ratio, alone, differ, same in zip(ratios, words, p_differ, p_same, strict=True):
        holds = (same if alone is Verdict.SAME else differ) <= alpha
        word = alone if holds else Verdict.CANT_TELL
        judgements.append(Judgement(ratio, alone, word, float(differ), float(same)))
    return judgements


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjust p-values for their number, so that rejecting those <= alpha errs at most alpha often.

    Sorted, the i-th of m becomes max over j <= i of min(1, (m - j + 1) p(j)); no independence is
    needed (Holm, Scand. J. Statist. 6, 1979).

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)).clip(max=1)
    return adjusted


def least_rounds(members: int, alpha: float = 0.05) -> int:
    """Rounds of one build without which no comparison of a family can get a verdict.

    Though all n rounds agree, the sign test gives p = 2 / 2^n. The first step of `holm` asks for
    alpha / members; with more than `MANY` members alpha is enough, where all of them agree.

    >>> least_rounds(1), least_rounds(5), least_rounds(9), least_rounds(1000)
    (6, 8, 9, 6)
    """
    return math.ceil(math.log2(2 * (members if members <= MANY else 1) / alpha))


def correction(members: int) -> str:
    """What the verdicts of a family are corrected by, in words.

    >>> correction(5)
    'corrected for their number (Holm)'
    """
    if members <= MANY:
        return "corrected for their number (Holm)"
    return (
        "corrected for their number (Benjamini-Hochberg: among so many some are wrong, at most "
        "about one in twenty)"
    )


def family_rate(members: int, alpha: float = 0.05) -> float:
    """Chance of at least one wrong verdict in a family without correction: 1 - (1 - alpha)^m.

    For independent comparisons with true ratios of 1, each wrong at a rate of `alpha`.

    >>> round(family_rate(25), 3)
    0.723
    """
    return 1 - (1 - alpha) ** members

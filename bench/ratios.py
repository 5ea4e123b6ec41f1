"""From the times of interleaved rounds to a ratio of speeds with its interval.

A round gives one time per arm. What slows the machine slows the arms of a round alike, so arms are
compared within rounds: one log-ratio of speed, ``log(t_reference / t_arm)``, per round.

Within one build of the arms their median, its rank interval and the sign test are one method seen
from three sides: the 95 % interval excludes a value just when the test rejects it at 5 %. Nothing
is assumed about the shape of the noise. Over several builds the mean of one log-ratio per build,
its Student t interval and the t test are such a method. Nothing is drawn at random, and an interval
costs less than a millisecond.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """Speed of an arm over speed of the reference, with its interval; above 1 the arm is faster.

    ``effective_rounds`` is how many independent rounds these are worth, over ``builds`` builds of
    the arms (see `paired_ratio`).
    """

    low: float
    estimate: float
    high: float
    rounds: int
    effective_rounds: float
    builds: int = 1

    @property
    def halfwidth(self) -> float:
        """Relative half-width ``sqrt(high / low) - 1``: the interval is about estimate */ (1 + h).

        Taken in logs, so that swapping the arms leaves it as it is, and `same` needs h < margin.
        Stop measuring on this, at half the margin and after 20 rounds or more: an interval of
        fixed width keeps its coverage (Chow & Robbins 1965). Never stop on the verdict: asked
        every ten rounds until it says something, it is wrong in 19 % of noisy A/A sessions, not 2.
        """
        return math.inf if self.low == 0 else math.sqrt(self.high / self.low) - 1


def paired_ratio(
    reference: ArrayLike,
    arm: ArrayLike,
    *,
    builds: Sequence[int] = (0,),
    confidence: float = 0.95,
) -> Ratio:
    """How many times as fast as the reference the arm is, from paired rounds.

    **One build.** With d(1) <= ... <= d(n) the paired log-ratios, the estimate is exp(median d) and
    the interval [exp d(k), exp d(n + 1 - k)], k the largest rank with P(Binomial(n, 1/2) < k) <= (1
    - confidence) / 2: it holds for noise of any shape (Le Boudec 2010, ch. 2; advised by Hoefler &
    Belli, SC15; a ratio with its interval is what Kalibera & Jones, ISMM 2013, ask for). Five
    rounds admit no such k at 95 %: the interval is then (0, inf).

    Successive rounds may err alike even after pairing. The number of rounds above the median then
    varies f = 1 + 2 sum rho_j times as much, rho being the autocorrelation of sign(d - median)
    (Gastwirth & Rubin, JASA 1971): the ranks move out by sqrt(f), never in. The sum ends with the
    initial monotone sequence (Geyer 1992). For 200 independent rounds this widens the interval by
    8 %. A bootstrap of the median (Efron & Tibshirani 1993; blocks of n^(1/3) rounds) holds the
    truth in 93 % of sessions of 200 independent rounds, 90 % of 20: hence ranks.

    Under normal noise the Hodges-Lehmann estimate would need a third fewer rounds; under the heavy
    tails of a shared machine the median is the more precise, and spikes in one arm shift it less.

    **Several builds.** A model built twice runs at two speeds for as long as it lives, which
    rounds cannot average. With m(1), ..., m(b) one log-ratio for each build, the estimate is
    exp(mean m) and the interval exp(mean m -/+ t s / sqrt(b)), s their standard deviation and t
    Student's for b - 1 degrees of freedom: it holds what varies between builds and within them
    (random effects; Kalibera & Jones, ISMM 2013; Georges et al., OOPSLA 2007). The scatter between
    the builds of one program was 1.2 % on both cores of a 2-core CPU, 0.2 % on one.

    An arm's time in a build is the geometric mean of the fastest third of its samples there: what a
    shared machine adds to a time is never negative, so the fast samples say most of the arm (Chen &
    Revels 2016 take the minimum). As the rounds are interleaved, quiet moments come to all arms
    alike. On two shared machines m scattered 6 % and 31 % less than medians of d did, and 3 % to
    8 % more under simulated noise that is symmetric.

    It does not help against errors that all rounds share: with one build, where the code and the
    data happen to lie; with several, what a whole process shares. At a correlation of 0.9 between
    successive rounds of one build, "95 %" means 91 % for 200 rounds and 75 % for 20. Where its
    place in the round slows an arm more than the noise does, the median lies between two humps: the
    interval is right but wide.

    Args:
        reference: seconds (per example, or per sample) of the reference arm, one per round.
        arm: the same for the arm, in the same rounds.
        builds: the first round of every build of the arms, from 0, rising.
        confidence: how often such intervals hold the true ratio.

    Raises:
        ValueError: a time that is not positive and finite, unequal or no rounds, builds that do not
            rise from 0 or have no rounds, bad `confidence`.

    >>> paired_ratio([2.0, 2.2, 2.1, 4.4, 2.0, 2.1], [1.0, 1.1, 1.0, 2.2, 1.0, 1.0])
    Ratio(low=2.0, estimate=2.0, high=2.1, rounds=6, effective_rounds=6.0, builds=1)
    """
    check(0 < confidence < 1, "`confidence` must be in (0, 1)", f"confidence={confidence}")
    return _evidence(reference, arm, builds).ratio(confidence)


def p_values(
    reference: ArrayLike,
    arm: ArrayLike,
    *,
    builds: Sequence[int] = (0,),
    margin: float = 0.02,
) -> tuple[float, float]:
    """Two-sided p-values against "the ratio is 1" and "the ratio is outside the margin".

    They agree with the intervals of `paired_ratio`: the first is at most 1 - confidence just when
    the interval excludes 1, the second just when it lies inside the margin (twice the larger of two
    one-sided p-values).

    Args:
        reference, arm, builds: as for `paired_ratio`.
        margin: as for `verdict`.

    >>> p_values([2.0] * 6, [1.0] * 6)
    (0.03125, 1.0)
    """
    evidence, edge = _evidence(reference, arm, builds), -math.log1p(margin)
    above, below = evidence.p_above, evidence.p_below
    differ = 2 * min(above(0.0), below(0.0))
    return min(1.0, differ), min(1.0, 2 * max(above(edge), below(-edge)))


def rounds_needed(ratio: Ratio, target_halfwidth: float) -> int:
    """About how many more rounds bring the half-width to the target: it shrinks as 1 / sqrt(n).

    With no finite interval yet there is nothing to go by: twice the rounds, and six at least.

    Raises:
        ValueError: `target_halfwidth` is not positive.

    >>> rounds_needed(Ratio(0.98, 1.0, 1 / 0.98, rounds=100, effective_rounds=100.0), 0.01)
    317
    """
    received = f"target_halfwidth={target_halfwidth}"
    check(target_halfwidth > 0, "`target_halfwidth` must be positive", received)
    if math.isinf(ratio.halfwidth):
        return max(ratio.rounds, 6 - ratio.rounds)
    return max(0, math.ceil(ratio.rounds * ((ratio.halfwidth / target_halfwidth) ** 2 - 1)))


def _evidence(
    reference: ArrayLike, arm: ArrayLike, builds: Sequence[int]
) -> "_OneBuild | _SeveralBuilds":
    old, new = (np.log(times) for times in paired(reference, arm, "round", above=0))
    logs = old - new  # not of old / new: swapping the arms must only flip signs
    edges = np.asarray([*builds, logs.size])
    check(
        edges[0] == 0 and bool((np.diff(edges) > 0).all()),
        "`builds` must rise from 0, each with a round at least",
        f"builds={list(builds)} of {logs.size} rounds",
    )
    if len(builds) == 1:
        return _OneBuild(logs)
    fast_old, fast_new = (
        np.array([_fastest_third(part) for part in np.split(times, edges[1:-1])])
        for times in (old, new)
    )
    return _SeveralBuilds(fast_old - fast_new, logs.size)


def _fastest_third(logs: Array) -> float:
    return float(np.sort(logs)[: math.ceil(logs.size / 3)].mean())


class _OneBuild:
    """Median of the rounds, its rank interval, the sign test."""

    def __init__(self, logs: Array) -> None:
        self._logs, self._inflation = logs, _inflation(logs)

    def ratio(self, confidence: float) -> Ratio:
        logs, n, f = self._logs, self._logs.size, self._inflation
        k = stats.binom.ppf((1 - confidence) / 2, n, 0.5)
        # Moved out so that the interval excludes just what `p_above` rejects; 1e-9 is for rounding.
        k = math.floor(n / 2 + 1 - math.sqrt(f) * (n / 2 + 1 - k) + 1e-9)
        low, high = np.exp(np.sort(logs)[[k - 1, n - k]]) if k > 0 else (0.0, math.inf)
        return Ratio(float(low), float(np.exp(np.median(logs))), float(high), n, n / f)

    def p_above(self, floor: float) -> float:
        """How likely so many rounds above `floor`, were it their median."""
        return self._p(self._logs > floor)

    def p_below(self, roof: float) -> float:
        return self._p(self._logs < roof)

    def _p(self, beyond: NDArray[np.bool_]) -> float:
        n = beyond.size
        excess = (np.sum(beyond) - n / 2) / math.sqrt(self._inflation)
        # Rounded down, to the larger p-value; 1e-9 is for rounding.
        return float(stats.binom.sf(math.floor(n / 2 + excess + 1e-9) - 1, n, 0.5))


class _SeveralBuilds:
    """Mean over the builds, its Student interval, the t test."""

    def __init__(self, effects: Array, rounds: int) -> None:
        self._builds, self._rounds = effects.size, rounds
        self._mean, self._error = float(effects.mean()), float(stats.sem(effects))

    def ratio(self, confidence: float) -> Ratio:
        half = float(stats.t.ppf((1 + confidence) / 2, self._builds - 1)) * self._error
        low, estimate, high = (math.exp(self._mean + side * half) for side in (-1, 0, 1))
        worth = float(self._builds)
        return Ratio(low, estimate, high, self._rounds, worth, self._builds)

    def p_above(self, floor: float) -> float:
        """How likely a mean so far above `floor`, were it the true one."""
        return self._p(self._mean - floor)

    def p_below(self, roof: float) -> float:
        return self._p(roof - self._mean)

    def _p(self, distance: float) -> float:
        if self._error == 0:  # builds that agree to the last bit
            return 0.0 if distance > 0 else 1.0
        return float(stats.t.sf(distance / self._error, self._builds - 1))


def _inflation(logs: Array) -> float:
    """The factor f of `paired_ratio`, at least 1."""
    signs = np.sign(logs - np.median(logs))
    if not signs.any():
        return 1.0
    n = signs.size
    rho = np.correlate(signs, signs, "full")[n - 1 :] / (signs @ signs)
    pairs = np.minimum.accumulate(rho[: n // 2 * 2].reshape(-1, 2).sum(axis=1))
    return max(1.0, float(2 * pairs[pairs > 0].sum() - 1))


def paired(reference: ArrayLike, arm: ArrayLike, unit: str, above: float) -> tuple[Array, Array]:
    """Both as arrays, once they are known to match and to be finite and greater than `above`."""
    old, new = np.asarray(reference, float), np.asarray(arm, float)
    check(
        old.ndim == 1 and old.shape == new.shape and old.size > 0,
        f"`reference` and `arm` must hold one number each per {unit}, for at least one {unit}",
        f"reference.shape={old.shape}, arm.shape={new.shape}",
    )
    rule = "must be positive and finite" if above == 0 else "must be finite"
    for name, values in (("reference", old), ("arm", new)):
        good = (values > above) & (values < math.inf)
        first = int(np.argmin(good))
        check(bool(good.all()), f"`{name}` {rule}", f"{name}[{first}]={values[first]}")
    return old, new


def check(holds: bool, rule: str, received: str) -> None:
    """Raises `ValueError` with the rule and what was received, unless the rule holds."""
    if not holds:
        raise ValueError(f"{rule}. Received: {received}")

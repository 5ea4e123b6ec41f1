"""Simulated sessions whose truth is known."""

import numpy as np
from hypothesis import strategies as st

from bench.verdicts import Verdict

WRONG = (Verdict.FASTER, Verdict.SLOWER)

paired_times = st.integers(6, 60).flatmap(
    lambda n: st.lists(
        st.tuples(st.floats(1e-6, 10.0), st.floats(1e-6, 10.0)), min_size=n, max_size=n
    ).map(lambda pairs: np.array(pairs).T)
)


def session(
    rng: np.random.Generator,
    rounds: int,
    speedup: float = 1.0,
    noise: float = 0.1,
    interleaved: bool = True,
) -> np.ndarray:
    """Times of two arms on a machine that drifts, up to threefold, with noise and heavy spikes."""
    drift = np.cumsum(rng.normal(size=2 * rounds))
    drift *= np.log(rng.uniform(1, 3)) / np.ptp(drift)
    if interleaved:
        place = 2 * np.arange(rounds) + rng.permuted(np.tile([[0], [1]], rounds), axis=0)
    else:
        place = np.arange(2 * rounds).reshape(2, rounds)
    spikes = (rng.random((2, rounds)) < 0.03) * rng.pareto(2, (2, rounds))
    seconds = 0.02 * np.exp(noise * rng.normal(size=(2, rounds)) + drift[place]) * (1 + spikes)
    return seconds / [[1.0], [speedup]]


def in_builds(
    rng: np.random.Generator,
    builds: int,
    rounds: int,
    speedup: float = 1.0,
    noise: float = 0.05,
    scatter: float = 0.012,
) -> tuple[np.ndarray, list[int]]:
    """A session of `builds` builds with `rounds` rounds each, whose ratios scatter.

    The default scatter was measured: two builds of one program on a 2-core CPU.
    """
    times = session(rng, builds * rounds, speedup, noise)
    times[1] *= np.repeat(np.exp(scatter * rng.normal(size=builds)), rounds)
    return times, list(range(0, builds * rounds, rounds))

"""The simulation, against what can be told without it."""

import numpy as np
import pytest

from bench.simulation import ATTEMPTS, Conditions, simulate, trials

pytest.importorskip("simpy")

TIMES = [30.0, 20.0, 10.0, 10.0, 5.0, 5.0, 5.0, 5.0]


def one(workers: int, seed: int = 0, **conditions: float):
    return simulate(TIMES, workers, Conditions(**conditions), np.random.default_rng(seed))


def test_one_worker_takes_the_sum_of_all_parts():
    found = one(1, begin=7.0, end=11.0, start=3.0, handling=0.5, per_worker=4)
    assert found.seconds == pytest.approx(7 + sum(TIMES) + 2 * 3 + 8 * 0.5 + 11)
    assert (found.done, found.failed, found.deaths) == (8, 0, 0)
    assert found.busy == pytest.approx(sum(TIMES) + 2 * 3)


def test_a_worker_waits_for_what_it_is_handed_and_a_clusters_not_for_the_driver():
    local = one(1, handout=0.25, handling=0.5)
    assert local.seconds == pytest.approx(sum(TIMES) + 8 * (0.25 + 0.5))
    alone = one(1, handout=0.25, handling=0.5, cluster=True)
    assert alone.seconds == pytest.approx(sum(TIMES) + 8 * 0.25 + 0.5)
    assert one(1, failures=1e9).deaths == 8
    assert one(1, failures=1e9, cluster=True).deaths == 8 * ATTEMPTS


def test_many_workers_take_what_the_longest_path_takes():
    assert one(8, start=3.0, handling=0.5).seconds == pytest.approx(3 + 30 + 0.5)
    # Two take 30 + 5 + 5 + 5 and 20 + 10 + 10 + 5.
    assert one(2).seconds == pytest.approx(45)
    assert one(1000).seconds == one(8).seconds


def test_the_driver_handles_one_record_at_a_time():
    found = simulate([1.0] * 50, 50, Conditions(handling=2.0), np.random.default_rng(0))
    assert found.seconds == pytest.approx(1 + 50 * 2)


def test_a_failure_wastes_what_was_done_and_nothing_else():
    for seed in range(30):
        found = one(2, seed, start=1.0, failures=60.0)
        assert found.done + found.failed == len(TIMES)
        assert found.deaths >= ATTEMPTS * found.failed
        assert found.busy >= sum(sorted(TIMES)[: found.done])
    deaths = [one(2, seed, start=1.0, failures=60.0).deaths for seed in range(300)]
    busy = [one(2, seed, start=1.0, failures=60.0).busy for seed in range(300)]
    # By definition: so many an hour of work.
    assert sum(deaths) / sum(busy) * 3600 == pytest.approx(60, rel=0.1)


def test_what_always_kills_its_worker_is_given_up():
    found = one(2, failures=1e9)
    assert (found.done, found.failed, found.deaths) == (0, 8, 8 * ATTEMPTS)


def test_stragglers_and_scatter_leave_the_mean_where_it_is_told():
    many = [one(1, seed, spread=0.3).busy for seed in range(500)]
    assert np.mean(many) == pytest.approx(sum(TIMES), rel=0.03)
    assert np.std(many) > 5
    slow = [one(1, seed, stragglers=0.5, slowdown=3.0).busy for seed in range(500)]
    assert np.mean(slow) == pytest.approx(2 * sum(TIMES), rel=0.05)


def test_equal_seeds_give_equal_trials():
    conditions = Conditions(spread=0.2, failures=5.0)
    first, again, other = (trials(TIMES, 3, conditions, seed=seed, number=4) for seed in (1, 1, 2))
    assert first == again != other
    assert len({outcome.seconds for outcome in first}) == 4

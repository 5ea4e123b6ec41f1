"""The cluster's executor against a cluster that misbehaves, made up here so that it is quick."""

import random
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from bench import cluster
from bench.config import Options
from bench.executors import LocalExecutor, RunStopped, TookTooLong, WorkerDied
from bench.node import call_here, check_here
from bench.plan import Comparison, make_plan
from bench.rules import UsageError


class FakeCluster:
    """Stands for `distributed.Client` and all behind it.

    Args:
        seed: Of what befalls it. At every look something may happen: a call ends, a worker dies or
            comes, the scheduler is started again.
        chances: Of each of these, by its name.
        kills: Keys of cells that end their worker.
        refused: Hosts whose workers are not fit.
        own_words: What workers call their host, where it is not what the scheduler calls it.
    """

    def __init__(self, seed: int = 0, *, workers: int = 2, **chances: float) -> None:
        self.rng = random.Random(seed)
        self.chances = {"end": 0.7, "die": 0.0, "come": 0.0, "restart": 0.0, "lose": 0.0} | chances
        self.kills: set[str] = set()
        self.refused: dict[str, str] = {}
        self.own_words: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.deaths = 0
        self.started = 0
        self.status = "running"
        self.id = "scheduler-0"
        self.workers: dict[str, dict[str, Any]] = {}
        self.running: dict[str, tuple[Future, str]] = {}
        for _ in range(workers):
            self.come()

    def __call__(self, *_: Any, **__: Any) -> "FakeCluster":  # in place of `Client(...)`
        return self

    def come(self, host: str | None = None, kind: str = "cpu") -> None:
        self.started += 1
        self.workers[f"tcp://{self.started}"] = {
            "name": f"worker-{self.started}",
            "host": host or f"host-{self.started % 2}",
            "resources": {kind: 1},
            "status": "running",
        }

    def die(self, address: str) -> None:
        self.deaths += 1
        del self.workers[address]
        self.running.pop(address, None)

    def restart(self) -> None:
        self.id = f"scheduler-{self.started}"
        for address in list(self.workers):
            del self.workers[address]
            if address in self.running:
                self.running.pop(address)[0].cancel()
        self.come()
        self.come()

    @property
    def scheduler(self) -> "FakeCluster":
        return self

    def sync(self, function: Any, **_: Any) -> Any:
        return function()

    def identity(self) -> dict[str, Any]:
        def happens(what: str) -> bool:
            return self.rng.random() < self.chances[what]

        if happens("lose"):
            raise OSError("the connection is lost")
        if happens("restart"):
            self.restart()
        if self.workers and happens("die"):
            self.die(self.rng.choice(list(self.workers)))
        if happens("come") or (self.chances["come"] and not self.workers):
            self.come()
        for address, (future, key) in list(self.running.items()):
            if key in self.kills:
                self.die(address)
                self.come()
            elif happens("end"):
                del self.running[address]
                host = self.workers[address]["host"]
                if not future.cancelled():
                    checked = self.refused.get(host, ""), self.own_words.get(host, host)
                    future.set_result(checked if key == "check" else key)
        return {"id": self.id, "workers": dict(self.workers), "services": {}}

    def submit(self, call: Any, token: str, function: Any, item: Any, **how: Any) -> Future:
        (address,) = how["workers"]
        assert call is call_here
        if address in self.running:
            assert self.running[address][0].cancelled(), "two calls on one worker"
        key = "check" if function is check_here else item.cell.key
        self.calls.append((self.workers[address]["host"] if address in self.workers else "", key))
        future: Future = Future()
        if address in self.workers:
            assert how["resources"] == self.workers[address]["resources"]
            self.running[address] = future, key
        return future

    def run(self, function: Any, token: str, **_: Any) -> None:
        self.running.clear()

    def close(self, **_: Any) -> None:
        pass


def measure(comparison: Comparison) -> Any:
    raise AssertionError("only its name goes to the cluster")


@pytest.fixture
def fake(monkeypatch):
    """Makes a cluster and the executor that believes in it; `say` collects what it says."""
    monkeypatch.setattr(cluster, "_LOOK", 0.0005)

    def make(*args: Any, **kwargs: Any) -> tuple[FakeCluster, cluster.ClusterExecutor, list[str]]:
        made, said = FakeCluster(*args, **kwargs), []
        monkeypatch.setattr(cluster, "Client", made)
        chances, made.chances = made.chances, dict.fromkeys(made.chances, 0.0)
        executor = cluster.ClusterExecutor("tcp://127.0.0.1:1", said.append)
        made.chances = chances
        return made, executor, said

    return make


def plan(cells: int = 8, **options: Any) -> list[Comparison]:
    options = {"layers": (2,), "units": tuple(range(4, 4 + cells))} | options
    return make_plan(Options(**options), ["cpu"], "digits", None)


def outcomes(executor: cluster.ClusterExecutor, items: list[Comparison]) -> dict[str, Any]:
    """What became of each comparison; each may come only once."""
    found: dict[str, Any] = {}
    started = []
    for comparison, future in executor.map(measure, items, timeout=1, started=started.append):
        assert comparison.cell.key not in found
        found[comparison.cell.key] = future.exception() or future.result()
    assert set(started) >= set(items)
    return found


@pytest.mark.parametrize("seed", range(60))
def test_every_comparison_comes_once_whatever_comes_and_goes(fake, seed):
    chances = {"die": 0.1, "come": 0.1, "restart": 0.03, "lose": 0.03, "end": 0.4}
    made, executor, _ = fake(seed, workers=seed % 4, **chances)
    found = outcomes(executor, plan(20))
    assert found.keys() == {item.cell.key for item in plan(20)}
    failed = [error for error in found.values() if isinstance(error, Exception)]
    assert len(failed) <= made.deaths / cluster.DEATHS
    assert all(found[key] == key for key in found if not isinstance(found[key], Exception))


def test_a_comparison_that_kills_its_worker_three_times_fails_and_the_others_do_not(fake):
    made, executor, _ = fake()
    items = plan(8)
    killer = items[3].cell.key
    made.kills = {killer}
    found = outcomes(executor, items)
    assert isinstance(found[killer], WorkerDied)
    assert "its worker was lost, as happened 3 times" in str(found.pop(killer))
    assert len(found) == 7
    assert all(found[key] == key for key in found)
    tried = [host for host, key in made.calls if key == killer]
    assert len(tried) == cluster.DEATHS
    assert len(set(tried[:2])) == 2, "it was not tried elsewhere first"


def test_a_scheduler_that_is_started_again_is_nobodys_fault(fake):
    made, executor, _ = fake(1, restart=0.4, end=0.3)
    found = outcomes(executor, plan(10))
    assert made.id != "scheduler-0"
    assert all(found[key] == key for key in found)


def raising(error: BaseException) -> Any:
    """A cluster whose calls raise; the first of them are the checks of its workers."""

    class Raising(FakeCluster):
        def submit(self, *args: Any, **how: Any) -> Future:
            future = super().submit(*args, **how)
            if args[2] is not check_here:
                self.running.pop(how["workers"][0], None)
                future.set_exception(error)
            return future

    return Raising


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (WorkerDied("its worker process was ended by SIGKILL"), cluster.DEATHS),
        (cluster.KilledWorker("task", None, 0), cluster.DEATHS),
        (TookTooLong("took longer than the 1 s of --timeout"), 1),
        (ValueError("it is its own fault"), 1),
    ],
)
def test_deaths_are_tried_again_and_what_fails_by_itself_is_not(monkeypatch, error, tries):
    monkeypatch.setattr(cluster, "_LOOK", 0.0005)
    made = raising(error)()
    monkeypatch.setattr(cluster, "Client", made)
    found = outcomes(cluster.ClusterExecutor("tcp://127.0.0.1:1", print), plan(1))
    (raised,) = found.values()
    assert isinstance(raised, type(error) if tries == 1 else WorkerDied)
    assert len([key for _, key in made.calls if key != "check"]) == tries


def test_a_worker_that_is_not_fit_gets_nothing_and_the_user_is_told(fake):
    made, executor, said = fake(workers=2)
    made.refused = {"host-0": "it runs another version of fixedbias"}
    found = outcomes(executor, plan(6))
    assert len(found) == 6
    assert {host for host, key in made.calls if key != "check"} == {"host-1"}
    assert said == ["a worker on host-0 is not used: it runs another version of fixedbias"]


def test_what_died_once_is_not_kept_for_a_worker_that_is_not_fit(fake):
    made, executor, _ = fake(workers=2)
    made.refused = {"host-0": "it runs another version of fixedbias"}
    killed = plan(3)[1].cell.key
    made.kills = {killed}
    calls, submit = made.calls, made.submit

    def once(*args: Any, **how: Any) -> Future:
        future = submit(*args, **how)
        made.kills -= {key for _, key in calls[:-1]}  # it dies of it the first time
        return future

    made.submit = once
    found = outcomes(executor, plan(3))
    assert all(found[key] == key for key in found)
    assert len([key for _, key in calls if key == killed]) == 2


def test_what_a_call_raises_is_not_taken_for_the_networks(monkeypatch):
    monkeypatch.setattr(cluster, "_LOOK", 0.0005)
    made = raising(PermissionError("data"))()
    monkeypatch.setattr(cluster, "Client", made)
    (raised,) = outcomes(cluster.ClusterExecutor("tcp://127.0.0.1:1", print), plan(1)).values()
    assert isinstance(raised, PermissionError)
    assert len([key for _, key in made.calls if key != "check"]) == 1


def test_workers_have_something_to_do_while_a_record_is_written(fake):
    made, executor, _ = fake(workers=1)
    results = executor.map(measure, plan(3), timeout=1, started=lambda item: None)
    done, _ = next(results)
    assert [key for _, key in made.calls] == ["check", done.cell.key, plan(3)[1].cell.key]


def test_behind_tunnels_a_worker_s_host_is_what_it_calls_itself(fake):
    made, executor, _ = fake(workers=0)
    made.come("127.0.0.1")
    made.own_words = {"127.0.0.1": "a1b2c3"}
    # Its first comparison too, which it gets before workers are looked for again: should it die of
    # it, that must count for the host by its own word.
    given = []
    submit = executor._submit

    def watched(worker: Any, task: Any, *args: Any) -> None:
        given.append((task is not None, worker.host))
        submit(worker, task, *args)

    executor._submit = watched
    outcomes(executor, plan(2))
    assert given == [(False, "127.0.0.1"), (True, "a1b2c3"), (True, "a1b2c3")]
    assert [worker.host for worker in executor.workers()] == ["a1b2c3"]


def test_the_run_stops_if_no_worker_is_fit(fake):
    made, executor, _ = fake(workers=2)
    made.refused = dict.fromkeys(["host-0", "host-1"], "no data")
    with pytest.raises(RunStopped, match="none of the cluster's workers is fit"):
        outcomes(executor, plan(3))


def test_it_waits_for_workers_and_says_so_once(fake, monkeypatch):
    made, executor, said = fake(workers=0)
    made.come(kind="gpu")
    looks, look = iter(range(10**6)), made.identity

    def later() -> dict[str, Any]:
        if next(looks) == 20:
            made.come()
        return look()

    monkeypatch.setattr(made, "identity", later)
    assert len(outcomes(executor, plan(2))) == 2
    assert said == ["waiting for workers that offer cpu"]


def test_a_scheduler_that_stays_away_stops_the_run(fake, monkeypatch):
    made, executor, said = fake()
    made.chances["lose"] = 1.0
    monkeypatch.setattr(cluster, "_PATIENCE", 0.01)
    with pytest.raises(RunStopped, match="the scheduler is gone"):
        outcomes(executor, plan(3))
    assert said == ["the scheduler does not answer: waiting for it"]


def test_devices_go_by_the_workers(fake):
    made, executor, _ = fake(workers=0)
    assert executor.devices("all") == ["cpu", "gpu:0"]
    assert executor.devices("gpu") == ["gpu:0"]
    assert executor.devices("cpu") == ["cpu"]
    made.workers = {"tcp://9": {"name": "9", "host": "h", "resources": {}, "status": "running"}}
    with pytest.raises(UsageError, match="it has none yet: start one"):
        executor.devices("auto")
    made.come()
    assert executor.devices("auto") == ["cpu"]
    made.come(kind="gpu")
    assert executor.devices("auto") == ["gpu:0"]


def test_both_executors_speak_the_same_way(fake, tmp_path):
    _, executor, _ = fake()
    with LocalExecutor() as local:
        pairs = list(local.map(abs, [-1, -2], timeout=30, started=lambda item: None))
    assert [(item, future.result()) for item, future in pairs] == [(-1, 1), (-2, 2)]
    for item, future in executor.map(measure, plan(2), timeout=1, started=lambda item: None):
        assert future.result() == item.cell.key


def test_a_cancelled_call_is_an_error_that_the_driver_knows():
    future: Future = Future()
    future.cancel()
    with pytest.raises(CancelledError):
        future.result()
    assert issubclass(CancelledError, Exception)

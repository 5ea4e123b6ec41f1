"""The cluster's executor against a cluster that misbehaves, made up here so that it is quick."""

import random
import subprocess
import sys
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from bench import claims, cluster, grid
from bench.addresses import check_address, resolve
from bench.claims import ClaimError
from bench.config import Options, parse
from bench.executors import LocalExecutor, RunStopped, TookTooLong, WorkerDied
from bench.node import call_here, check_node
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
    """

    def __init__(self, seed: int = 0, *, workers: int = 2, **chances: float) -> None:
        self.rng = random.Random(seed)
        self.chances = {"end": 0.7, "die": 0.0, "come": 0.0, "restart": 0.0, "lose": 0.0} | chances
        self.kills: set[str] = set()
        self.refused: dict[str, str] = {}
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
                    future.set_result(self.refused.get(host, "") if key == "check" else key)
        return {"id": self.id, "workers": dict(self.workers), "services": {}}

    def submit(self, call: Any, token: str, function: Any, item: Any, **how: Any) -> Future:
        (address,) = how["workers"]
        assert call is call_here
        if address in self.running:
            assert self.running[address][0].cancelled(), "two calls on one worker"
        key = "check" if function is check_node else item.cell.key
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
            if args[2] is not check_node:
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


GOOD = ["tcp://127.0.0.1:8786", "tls://8.8.8.8:8786", "tcp://10.1.2.3:1", "tcp://[::1]:8786"]
GOOD += ["tcp://head:8786", "tcp://100.64.0.1:8786"]
BAD = ["", "127.0.0.1:8786", "http://a:1", "tcp://a", "tcp://a:0", "tcp://a:99999", "tcp:// a:1"]


@pytest.mark.parametrize("address", GOOD)
def test_an_address_that_is_one(address):
    check_address(address)
    assert parse(["--cluster", address, "--layers", "2"]).cluster == address


@pytest.mark.parametrize("address", BAD)
def test_an_address_that_is_none(address):
    with pytest.raises(UsageError, match=r"--cluster must be a scheduler's address.*Received: "):
        parse(["--cluster", address])


@pytest.mark.parametrize("address", ["tcp://8.8.8.8:8786", "tcp://[2001:4860:4860::8888]:1"])
def test_a_public_address_needs_tls(address):
    with pytest.raises(UsageError, match="in public reach and not encrypted: use a tls://"):
        check_address(address)


def test_a_name_of_a_public_address_needs_tls(monkeypatch):
    import socket

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(0, 0, 0, "", ("8.8.8.8", 1))])
    with pytest.raises(UsageError, match="in public reach"):
        resolve("tcp://head:1")
    resolve("tls://head:1")


def test_a_name_that_nobody_knows():
    with pytest.raises(UsageError, match="names a host that is not known"):
        resolve("tcp://no-such-host.invalid:8786")


REFUSED = {
    "--device gpu:1": "--device must be cpu, gpu, all or auto with --cluster",
    "--profile": "--profile is about this machine",
    "--time-breakdown": "--time-breakdown is about this machine",
    "--resume x --layers 3": "--resume takes no other option than --cluster",
}


@pytest.mark.parametrize(("argv", "sentence"), REFUSED.items())
def test_what_does_not_go_with_a_cluster(argv, sentence):
    with pytest.raises(UsageError, match=sentence):
        parse([*argv.split(), "--cluster", "tcp://127.0.0.1:8786"])


def test_resume_takes_a_cluster():
    options = parse(["--resume", "x", "--cluster", "tcp://127.0.0.1:8786"])
    assert options.cluster == "tcp://127.0.0.1:8786"


def test_without_dask_there_is_a_sentence_and_no_traceback(monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "distributed" else found(name)
    )
    with pytest.raises(UsageError, match=r"needs Dask: pip install 'fixedbias\[cluster\]'"):
        parse(["--cluster", "tcp://127.0.0.1:8786"])


def test_no_scheduler_is_a_sentence_and_leaves_nothing_behind(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "_ANSWER", 0.3)
    assert grid.main(["--cluster", "tcp://127.0.0.1:9", "--data", "digits"]) == 2
    error = capsys.readouterr().err
    assert error == (
        "error: --cluster tcp://127.0.0.1:9: the scheduler cannot be used, no answer.\n"
    )
    assert not list(tmp_path.iterdir())


def test_the_local_run_needs_no_dask():
    code = "import sys, bench.grid, bench.run, bench.node; sys.exit('distributed' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.fixture
def take(tmp_path, monkeypatch):
    """Claims as another process would, without patience; all is given back in the end."""
    monkeypatch.setattr(claims, "_PATIENCE", 0.0)
    taken = []

    def take(*args):
        taken.append(claims.claim(*args, folder=tmp_path))
        return taken[-1]

    yield take
    for claim in taken:
        claim.release()


def test_cores_are_shared_out_and_never_twice(take, monkeypatch):
    monkeypatch.setattr(claims, "physical_cores", lambda: [[0, 4], [1, 5], [2], [3]])
    first = take("cpu", 2)
    assert first.cores == [0, 4, 1, 5]  # whole cores, both threads of them
    assert take("cpu", 1).cores == [2]
    with pytest.raises(ClaimError, match="2 of the 4 cores cannot be had"):
        take("cpu", 2)
    assert take("cpu", 1).cores == [3]  # what the one refused had taken is free again
    first.release()
    assert take("cpu", 2).cores == first.cores
    with pytest.raises(ClaimError, match="4 of the 4"):
        take("cpu")  # all, by default


def test_each_gpu_worker_has_one_gpu_and_its_share_of_the_cores(take, monkeypatch):
    monkeypatch.setattr(claims, "physical_cores", lambda: [[0], [1], [2], [3], [4]])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")  # dask-cuda begins with the worker's own
    first, second = (take("gpu") for _ in range(2))
    assert (first.gpu, first.cores) == ("1", [0, 1])
    assert (second.gpu, second.cores) == ("0", [2, 3])
    with pytest.raises(ClaimError, match="one of the GPUs 1, 0 cannot be had"):
        take("gpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert claims.visible_gpus() == []
    with pytest.raises(ClaimError, match="NVML and CUDA_VISIBLE_DEVICES show none"):
        take("gpu")


def test_a_claim_ends_with_its_process(take, tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from bench.claims import claim\n"
        "held = claim('cpu', folder=Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=120)
    assert take("cpu").cores


def test_a_worker_is_fit_only_with_the_same_code_and_the_same_data():
    from bench.node import code_digest
    from bench.runs import find_data

    _, dataset = find_data("digits", None)
    expected = {
        "code": code_digest(),
        "data": "digits",
        "folder": "/nowhere",
        "task": ("images",),
        "dataset": dataset,
        "layer": (),
        "gpu": False,
    }
    assert check_node(expected) == ""
    assert "another version" in check_node(expected | {"code": "0" * 12})
    other = dataset | {"checksum": "0" * 64}
    assert "its files of digits are other ones" in check_node(expected | {"dataset": other})
    assert "no_such" in check_node(expected | {"layer": ("no_such:Layer",)})


def test_a_call_outside_a_worker_is_refused():
    with pytest.raises(RuntimeError, match=r"without --preload bench\.node"):
        call_here("driver", abs, -1, timeout=1)

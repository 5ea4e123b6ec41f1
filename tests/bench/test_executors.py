"""Workers: replaced whatever befalls them, and timed by a clock that nobody sets."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest

from bench.config import Options
from bench.executors import LocalExecutor, RunStopped, WorkerDied, comparison_executor
from bench.interrupts import Interrupted, Interrupts, catch_signals
from bench.locks import RunIsBusy, lock_run
from bench.plan import make_plan
from bench.records import Record
from bench.worker import describe_error, ran_out


@pytest.fixture(scope="module")
def executor():
    with LocalExecutor() as executor:
        yield executor


def test_a_worker_is_kept_while_it_is_well(executor):
    assert executor.call(os.getpid) == executor.call(os.getpid) != os.getpid()


def test_a_worker_killed_between_two_calls_is_replaced(executor):
    first = executor.call(os.getpid)
    os.kill(first, signal.SIGKILL)
    time.sleep(0.5)
    assert executor.call(os.getpid) != first


def test_a_worker_that_is_killed_says_so_and_the_next_one_works(executor):
    with pytest.raises(WorkerDied, match="ended by SIGKILL, perhaps for lack of memory"):
        executor.call(signal.raise_signal, signal.SIGKILL)
    assert executor.call(os.getpid)


def test_a_worker_that_exits_is_no_end_to_the_driver(executor):
    with pytest.raises(WorkerDied, match="SystemExit"):
        executor.call(exit)
    with pytest.raises(WorkerDied, match="exit status 3"):
        executor.call(os._exit, 3)


@pytest.mark.parametrize("jump", [1e6, -1e6])
def test_the_time_out_does_not_go_by_the_time_of_day(executor, monkeypatch, jump):
    executor.call(os.getpid)
    begin, now = time.monotonic(), time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump * (time.monotonic() - begin > 0.3))
    executor.call(time.sleep, 0.6, timeout=20)
    with pytest.raises(WorkerDied, match=r"took longer than the 0\.5 s of --timeout"):
        executor.call(time.sleep, 60, timeout=0.5)


def test_a_call_ends_when_another_thread_closes_its_executor(tmp_path):
    started = tmp_path / "started"
    with LocalExecutor() as own, ThreadPoolExecutor(1) as pool:
        own.call(os.getpid)
        waiting = pool.submit(own.call, note_and_sleep, str(started), timeout=60)
        while not started.exists():
            time.sleep(0.05)
        begin = time.monotonic()
        own.close()
        with pytest.raises(WorkerDied, match="by the one who started it"):
            waiting.result()
        assert time.monotonic() - begin < 30
        assert started.read_text() == "x"  # it is not begun again
        assert own.call(os.getpid)


def note_and_sleep(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")
    time.sleep(600)


def test_a_plan_is_not_burnt_where_no_worker_can_be_started(monkeypatch):
    with LocalExecutor() as own:
        monkeypatch.setattr(own, "_call", broken)
        results = own.map(abs, [-1, -2], timeout=1, started=lambda item: None)
        with pytest.raises(
            RunStopped, match="no worker process could be started: no more processes"
        ):
            next(results)


def broken(*args: object) -> None:
    raise BrokenProcessPool("no more processes")


def test_a_time_out_may_be_longer_than_a_lock_can_wait(executor):
    assert executor.call(abs, -1, timeout=1e12) == 1


def test_a_log_that_cannot_be_opened_costs_nothing(tmp_path):
    with LocalExecutor(tmp_path / "gone" / "worker.log") as executor:
        assert executor.call(os.getpid)


def test_a_signal_interrupts_waiting_and_nothing_else():
    with catch_signals() as interrupts:
        signal.raise_signal(signal.SIGTERM)  # not while it waits: it is only noted
        with pytest.raises(Interrupted) as stop, interrupts.waiting():
            pytest.fail("it came before this")
    assert stop.value.status == 128 + signal.SIGTERM
    with catch_signals() as interrupts, pytest.raises(Interrupted), interrupts.waiting():
        signal.raise_signal(signal.SIGINT)
    interrupts.signum = 0
    interrupts.check()


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with catch_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_signal_is_as_if_there_were_no_handler(monkeypatch):
    killed = []
    monkeypatch.setattr(os, "kill", lambda *args: killed.append(args))
    monkeypatch.setattr(signal, "signal", lambda *args: killed.append(args))
    interrupts = Interrupts()
    interrupts.receive(signal.SIGINT, None)
    assert killed == []
    interrupts.receive(signal.SIGINT, None)
    assert killed == [(signal.SIGINT, signal.SIG_DFL), (os.getpid(), signal.SIGINT)]


def test_a_run_has_one_driver(tmp_path):
    (tmp_path / "run.json").touch()
    with lock_run(tmp_path), pytest.raises(RunIsBusy, match="another process"), lock_run(tmp_path):
        pass
    with lock_run(tmp_path):
        pass


def test_a_worker_that_ran_out_of_memory_is_replaced_and_other_results_do_not_matter():
    with comparison_executor(os.devnull) as executor:
        first = executor.call(os.getpid)
        assert executor.call(str, "out of memory") == "out of memory"
        assert executor.call(os.getpid) == first
        assert ran_out(executor.call(_ran_out))
        assert executor.call(os.getpid) != first


def test_a_worker_is_replaced_where_another_number_of_threads_is_asked_for():
    options = Options(layers=(2,), units=(4,), threads=("all", 1))
    every, one = make_plan(options, ["cpu"], "digits", None)
    with comparison_executor(os.devnull) as executor:
        found = [executor.call(_threads, comparison) for comparison in (one, one, every, one)]
        found.append((executor.call(os.getpid), *found[-1][1:]))  # it asks for none
    pids = [pid for pid, *_ in found]
    assert pids[0] == pids[1]
    assert pids[3] == pids[4]
    assert len({*pids}) == 3
    assert [settings for _, settings, _ in found] == [1, 1, 0, 1, 1]
    assert [blas == 1 for _, _, blas in found[:2]] == [True, True]
    assert found[2][2] == len(os.sched_getaffinity(0))


def _threads(comparison):
    """The worker's process, TensorFlow's setting, and the threads of NumPy's BLAS."""
    import numpy as np  # noqa: F401
    from threadpoolctl import threadpool_info

    from bench.machine import thread_settings
    from bench.runtime import set_threads

    set_threads(comparison.cell.threads)
    (setting,) = {*thread_settings().values()}
    (blas,) = {i["num_threads"] for i in threadpool_info() if "numpy" in i["filepath"]}
    return os.getpid(), setting, blas


def _ran_out():
    error = RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
    return Record(key="k", cell={}, status="failed", reason=describe_error(error))

"""What befalls a machine in the middle of a run: the run goes on or ends with a sentence, whole.

The command as typed, with layers that crash, hang and eat memory, and signals from outside.
"""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from bench.records import read_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LAYERS = """
import ctypes, os, resource, signal, sys, time
import keras

class Bad(keras.layers.Dense):
    def build(self, shape):
        super().build(shape)
        if self.units == 5:
            self.go_wrong()

class Segfault(Bad):
    def go_wrong(self):
        ctypes.string_at(0)

class Abort(Bad):
    def go_wrong(self):
        os.abort()

class Hang(Bad):
    def go_wrong(self):
        time.sleep(600)

class HangInC(Bad):
    def go_wrong(self):  # with Python's lock held: no thread and no handler of Python runs
        ctypes.PyDLL(None).sleep(600)

class Exit(Bad):
    def go_wrong(self):
        sys.exit("gone")

class OutOfMemory(Bad):
    def go_wrong(self):
        used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))
        try:
            self.much = [bytearray(2**26) for _ in range(99)]
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)

class Slow(keras.layers.Dense):
    def build(self, shape):
        open("building", "w").close()
        time.sleep(20)
        super().build(shape)
"""
SMALL = (
    *("--layers", "2", "--epochs", "1", "--seeds", "1", "--builds", "1", "--time-cap", "1"),
    *("--halfwidth", "0.5", "--arms", "dense", "--device", "cpu", "--data", "digits"),
    *("--results", "runs"),
)
TWO = [*SMALL, "--units", "4", "5"]


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(LAYERS)
    return tmp_path


def command(*argv: object) -> list[str]:
    return [sys.executable, "-m", "bench.grid", *map(str, argv)]


def grid(*argv: object, cwd: Path, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*argv), cwd=cwd, capture_output=True, text=True, timeout=280, **more
    )


def run_folder(cwd: Path) -> Path:
    (header,) = (cwd / "runs").glob("*/run.json")
    return header.parent


def check_no_trace(done: subprocess.CompletedProcess[str]) -> None:
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr == ""


# --- workers


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("Segfault", "SIGSEGV"),
        ("Abort", "SIGABRT"),
        ("Hang", "took longer than the 60 s"),
        ("HangInC", "took longer than the 60 s"),
    ],
)
def test_a_layer_that_takes_its_worker_along_costs_its_cell(layer, reason, cwd):
    units = ["--units", "5", "4"]  # the good one comes after it
    # A worker that starts beside other tests needs half a minute for the good one.
    limit = ["--timeout", "60"] if "Hang" in layer else []
    done = grid(*SMALL, *units, *limit, "--layer", f"mine.py:{layer}", cwd=cwd)
    assert done.returncode == 1
    check_no_trace(done)
    bad, good = read_run(run_folder(cwd))[1]
    assert (bad.status, good.status) == ("failed", "ok")
    assert reason in bad.reason
    assert bad.reason in done.stdout


def test_a_layer_that_exits_or_eats_memory_costs_its_arm(cwd):
    layers = ["--layer", "mine.py:Exit", "mine.py:OutOfMemory"]
    done = grid(*SMALL, "--units", "5", *layers, cwd=cwd)
    assert done.returncode == 1
    check_no_trace(done)
    ((record,), _) = read_run(run_folder(cwd))[1:]
    assert record.status == "ok"
    assert record.arms["Exit"]["error"] == "SystemExit: gone"
    assert re.search("MemoryError|ResourceExhausted", record.arms["OutOfMemory"]["error"])


# --- disks


@pytest.fixture
def small_disk(cwd: Path) -> Iterator[Path]:
    folder = cwd / "runs"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_ends_the_run_with_a_sentence_and_room_lets_it_go_on(small_disk, cwd):
    driver = start(cwd, *TWO)
    wait_for(lambda: list(small_disk.glob("*/worker.log")))
    with suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(512))
    out, _ = driver.communicate(timeout=280)
    assert driver.returncode == 1
    assert "Traceback" not in out
    assert "No space left on device" in out
    assert "0 of 2 comparisons are done and kept" in out
    folder = run_folder(cwd)
    assert not list(folder.glob("records/*"))
    (small_disk / "ballast").unlink()
    assert grid("--resume", folder, cwd=cwd).returncode == 0
    _, records, problems = read_run(folder)
    assert ([r.status for r in records], problems) == (["ok", "ok"], [])


def test_a_folder_removed_in_mid_run_ends_it_with_a_sentence(cwd):
    driver = start(cwd, *TWO, "--layer", "mine.py:Slow")
    wait_for(lambda: (cwd / "building").exists())
    folder = run_folder(cwd)
    subprocess.run(["rm", "-r", str(folder)], check=True)
    out, _ = driver.communicate(timeout=200)
    assert driver.returncode == 1
    assert "No such file or directory" in out
    assert "Traceback" not in out


def test_results_that_cannot_be_written_are_refused(cwd):
    # As root every folder can be written: a file in the place of one cannot.
    for results in ("/proc/here", "mine.py/here"):
        done = grid(*TWO, "--results", results, cwd=cwd)
        assert done.returncode == 2
        assert "must be a folder" in done.stderr
        assert len(done.stderr.splitlines()) == 1


# --- signals


def start(cwd: Path, *argv: object, **more) -> subprocess.Popen:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | more
    return subprocess.Popen(command(*argv), cwd=cwd, text=True, start_new_session=True, **streams)


def wait_for(happens, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def records_of(cwd: Path) -> list[Path]:
    return list(cwd.glob("runs/*/records/*.json"))


def workers_of(driver: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(driver.pid).children(recursive=True)


def check_resumes(cwd: Path, before: dict[Path, bytes]) -> None:
    """What was done is as it was, and the rest gets done."""
    done = grid("--resume", run_folder(cwd), cwd=cwd)
    assert done.returncode == 0, done.stdout
    assert all(path.read_bytes() == content for path, content in before.items())
    run, records, problems = read_run(run_folder(cwd))
    assert [record.key for record in records] == run.plan
    assert not problems


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_run_which_says_how_to_go_on(signum, cwd):
    many = [*SMALL, "--units", *map(str, range(4, 8))]
    driver = start(cwd, *many)
    wait_for(lambda: len(records_of(cwd)) == 2)
    workers = workers_of(driver)
    os.killpg(driver.pid, signum)  # as a terminal does: to the workers too
    out, _ = driver.communicate(timeout=60)
    assert driver.returncode == 128 + signum
    assert "Traceback" not in out
    before = {path: path.read_bytes() for path in records_of(cwd)}
    sentence = f"interrupted; {len(before)} of 4 comparisons are done and kept, finish with: "
    assert f"{sentence}python -m bench.grid --resume runs/" in out
    assert "T units arm" in out  # the table of what is done
    assert not psutil.wait_procs(workers, timeout=10)[1]
    assert all(json.loads(text)["status"] == "ok" for text in before.values())
    check_resumes(cwd, before)


@pytest.mark.alone
def test_the_second_signal_stops_at_once(cwd):
    driver = start(cwd, *SMALL, "--units", "5", "--layer", "mine.py:HangInC")
    wait_for(lambda: len(workers_of(driver)) >= 2)
    time.sleep(15)  # into the hang, where the worker heeds nothing
    workers = workers_of(driver)
    driver.send_signal(signal.SIGINT)
    time.sleep(0.5)
    begin = time.monotonic()
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=60)
    assert time.monotonic() - begin < 2
    assert driver.returncode in (-signal.SIGINT, 130)
    assert not psutil.wait_procs(workers, timeout=10)[1], "a worker outlives its driver"
    assert not records_of(cwd)


def test_a_terminal_that_is_closed(cwd):
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execvp(sys.executable, command(*SMALL, "--units", *map(str, range(4, 8))))
    seen = b""
    while not records_of(cwd):
        seen += os.read(terminal, 65536)
    workers = psutil.Process(pid).children(recursive=True)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert not psutil.wait_procs(workers, timeout=10)[1]
    check_resumes(cwd, {path: path.read_bytes() for path in records_of(cwd)})


def test_a_pipe_that_is_closed_leaves_whole_records_and_no_worker(cwd):
    driver = start(cwd, *TWO)
    driver.stdout.readline()
    workers = workers_of(driver)
    driver.stdout.close()
    driver.wait(timeout=120)
    assert not psutil.wait_procs(workers, timeout=10)[1]
    check_resumes(cwd, {path: path.read_bytes() for path in records_of(cwd)})


def test_a_second_driver_is_kept_off_a_run(cwd):
    driver = start(cwd, *TWO)
    wait_for(lambda: list(cwd.glob("runs/*/worker.log")))
    second = grid("--resume", run_folder(cwd), cwd=cwd)
    assert second.returncode == 2
    assert "is being run by another process" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    driver.communicate(timeout=200)
    assert driver.returncode == 0


# --- reading results


def test_damaged_and_older_records_are_reported_and_left(cwd):
    assert grid(*TWO, cwd=cwd).returncode == 0
    folder = run_folder(cwd)
    cut, older = sorted(folder.glob("records/*"))
    text = cut.read_text()
    cut.write_text(text[: len(text) // 2])
    older.write_text(json.dumps(json.loads(older.read_text()) | {"schema": 0}))
    before = {path: path.read_bytes() for path in (cut, older)}
    done = grid("--resume", folder, cwd=cwd)
    assert done.returncode == 1
    check_no_trace(done)
    assert f"not read: {cut.relative_to(cwd)}" in done.stdout.replace(f"{cwd}/", "")
    assert "has schema 0, and this version reads schema 1 only" in done.stdout
    assert {path: path.read_bytes() for path in before} == before


def test_a_header_that_makes_no_sense_is_refused(cwd):
    assert grid(*SMALL, "--units", "4", cwd=cwd).returncode == 0
    header = run_folder(cwd) / "run.json"
    fields = json.loads(header.read_text())
    for wrong in ({"layers": "three"}, {"lyers": 3}, {"bias": ["--help"]}, {"epochs": -1}):
        header.write_text(json.dumps(fields | {"options": fields["options"] | wrong}))
        done = grid("--resume", header.parent, cwd=cwd)
        assert done.returncode == 2, wrong
        assert "Traceback" not in done.stderr

"""Records are written once, whole or not at all, whatever kills the writer."""

import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import records
from bench.records import RecordExists
from tests.bench.tiny import header, record


def test_a_record_is_never_overwritten(run: Path) -> None:
    path = records.write_record(run, record())
    before = path.read_bytes()
    with pytest.raises(RecordExists, match=r"tiny\.json exists and is not overwritten"):
        records.write_record(run, record(status="failed", reason="other"))
    assert path.read_bytes() == before
    path.write_bytes(before[:40])
    with pytest.raises(RecordExists):
        records.write_record(run, record())
    assert path.read_bytes() == before[:40]
    assert os.listdir(path.parent) == ["tiny.json"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_links(
    run: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    path = records.write_record(run, record())
    with pytest.raises(RecordExists, match=r"tiny\.json exists and is not overwritten"):
        records.write_record(run, record(notes=["again"]))
    assert records.read_record(path) == record()
    assert os.listdir(path.parent) == ["tiny.json"]


def test_a_link_that_fails_for_another_reason(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OSError, match="not written: Input/output error") as caught:
        records.write_record(run, record())
    assert caught.value.errno == errno.EIO
    assert os.listdir(run / "records") == []


def test_a_file_system_whose_folders_cannot_be_synchronised(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "open", refuse)
    assert records.read_record(records.write_record(run, record())) == record()


WRITER = """
import io, os, signal, sys, time
from bench import documents, encoding, keys, records
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
def big(key): return records.Record(key=key, cell={}, status="ok", extra={"x": [0.1] * 20_000})
"""


def start(code: str, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER + code, *args]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("death", "left"),
    [
        ("records.os.fsync = die", 0),
        ("records.os.link = die", 0),
        ("link = os.link; records.os.link = lambda *a: (link(*a), die())", 1),
        ("sync = os.fsync; records.os.fsync = lambda f: die() if done() else sync(f)", 1),
    ],
)
def test_killed_at_each_step(run: Path, death: str, left: int) -> None:
    code = "def done(): return os.path.exists(sys.argv[1] + '/records/k.json')\n"
    with start(code + death + "\nrecords.write_record(sys.argv[1], big('k'))", str(run)) as writer:
        assert writer.wait() == -signal.SIGKILL
    records.write_run(run, header("k"))
    _, found, problems = records.read_run(run)
    assert (len(found), problems) == (left, [])
    if not left:
        records.write_record(run, record("k"))


def test_killed_at_any_moment(run: Path) -> None:
    moments, survived = random.Random(1), 0
    loop = """
class Slow(io.TextIOWrapper):  # so that most moments are in mid-write
    def write(self, text):
        for n in range(0, len(text), 10_000):
            super().write(text[n : n + 10_000])
            self.flush()
            time.sleep(0.001)
records.open = lambda path, mode, **more: Slow(open(path, mode + "b"), **more)
for n in range(10_000):
    records.write_record(sys.argv[1], big(f"{sys.argv[2]}-{n}"))
    print(n, flush=True)
"""
    for n in range(20):
        with start(loop, str(run), str(n)) as writer:
            assert writer.stdout
            writer.stdout.readline()  # the first is written: what follows are writes only
            time.sleep(moments.uniform(0, 0.1))
            writer.kill()
            survived += 1 + len(writer.stdout.read().splitlines())
    records.write_run(run, header())
    _, found, problems = records.read_run(run)
    assert problems == []
    # All that were announced are there, and of the others only those killed before they could.
    assert survived <= len(found) <= survived + 20


def test_of_two_writers_one_wins(run: Path) -> None:
    race = """
sys.stdin.readline()
for n in range(50):
    try:
        records.write_record(sys.argv[1], records.Record(
            key=f"k{n}", cell={}, status="ok", notes=[sys.argv[2]]))
        print(n)
    except records.RecordExists:
        pass
"""
    writers = [start(race, str(run), str(n)) for n in range(2)]
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.flush()
    won = [writer.communicate()[0].split() for writer in writers]
    assert sorted(map(int, won[0] + won[1])) == list(range(50))
    for n, names in enumerate(won):
        for key in names:
            assert records.read_record(run / f"records/k{key}.json").notes == [str(n)]
    assert len(os.listdir(run / "records")) == 50


@pytest.fixture
def read_only() -> Iterator[Path]:
    # Not in tmp_path, which is closed to others altogether.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        yield Path(folder)
        os.chmod(folder, 0o755)


def test_a_read_only_folder(read_only: Path, nobody: None) -> None:
    with pytest.raises(PermissionError, match=r"not written: Permission denied.*run\.json"):
        records.write_run(read_only, header())
    with pytest.raises(PermissionError, match=r"not written: Permission denied.*tiny\.json"):
        records.write_record(read_only, record())
    assert os.listdir(read_only) == []


def test_a_missing_folder_and_a_full_disk(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"not written.*elsewhere"):
        records.write_record(run / "elsewhere", record())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="not written: No space left"):
        records.write_record(run, record())
    assert os.listdir(run / "records") == []

"""Driver and worker killed by SIGKILL at random moments: nothing lost, doubled or half written."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.records import read_run

KILLS = int(os.environ.get("FIXEDBIAS_KILLS", "6"))
CELLS = 12
SMALL = (
    f"--layers 2 --units {' '.join(str(4 + n) for n in range(CELLS))} --epochs 1 --seeds 1 "
    "--time-cap 1 --halfwidth 0.5 --arms fixed --device cpu --data digits --results runs"
).split()


def start(cwd: Path) -> subprocess.Popen:
    """Starts the run, or resumes it once it has a header."""
    headers = sorted((cwd / "runs").glob("*/run.json"))
    argv = ["--resume", str(headers[0].parent)] if headers else SMALL
    command = [sys.executable, "-m", "bench.grid", *argv]
    with (cwd / "output").open("w") as output:
        return subprocess.Popen(command, cwd=cwd, stdout=output, stderr=output)


def workers(driver: subprocess.Popen) -> list[psutil.Process]:
    try:
        children = psutil.Process(driver.pid).children(recursive=True)
        return [p for p in children if "spawn_main" in " ".join(p.cmdline())]
    except psutil.Error:
        return []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_comparison_is_there_exactly_once_whatever_is_killed(tmp_path):
    rng = random.Random(0)
    seen: dict[str, bytes] = {}
    killed = {"driver": 0, "worker": 0}
    for n in range(KILLS):
        driver = start(tmp_path)
        time.sleep(rng.uniform(0.5, 15))
        found = workers(driver)
        if n % 3 == 2 and found:
            found[0].send_signal(signal.SIGKILL)
            killed["worker"] += 1
            time.sleep(rng.uniform(0, 2))
        else:
            killed["driver"] += 1
        driver.kill()
        driver.wait()
        _, alive = psutil.wait_procs(found, timeout=10)
        assert not alive, "a worker outlives its driver"
        for path in (tmp_path / "runs").glob("*/records/*.json"):
            json.loads(path.read_bytes())  # whole
            # Once written, a record is never touched again.
            assert seen.setdefault(path.name, path.read_bytes()) == path.read_bytes()

    start(tmp_path).wait(timeout=600)
    text = (tmp_path / "output").read_text()
    (header,) = (tmp_path / "runs").glob("*/run.json")
    run, records, problems = read_run(header.parent)
    assert not problems, text
    assert [record.key for record in records] == run.plan, text
    assert len(set(run.plan)) == CELLS
    assert all(seen.get(f"{r.key}.json") in (None, _bytes(header, r.key)) for r in records)
    failed = [record for record in records if record.status == "failed"]
    assert len(failed) <= killed["worker"]
    assert all("SIGKILL" in record.reason for record in failed)
    print(f"killed {killed}, failed {len(failed)} of {len(records)}")


def _bytes(header: Path, key: str) -> bytes:
    return (header.parent / "records" / f"{key}.json").read_bytes()

"""A scheduler, workers and a driver as processes of their own, and what may befall them."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from bench.records import Record, read_run

# The full form: FIXEDBIAS_TRIALS=10, and FIXEDBIAS_DATA with the MNIST files.
TRIALS = int(os.environ.get("FIXEDBIAS_TRIALS", "0"))
CELLS = 60 if TRIALS else 6
WORKERS_KILLED = 5 if TRIALS else 1
DATA = "mnist" if TRIALS else "digits"
LIMIT = 3000  # it may run beside others
TAKES_A_WORKER = {"worker", "node", "network"}


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


class Network:
    """Hosts of their own on this machine: network namespaces on one bridge, each with its name.

    Args:
        hosts: How many.
    """

    def __init__(self, hosts: int) -> None:
        self.name = f"fixedbias-{os.getpid()}"
        self.hosts = range(hosts)
        try:
            self._build()
        except subprocess.CalledProcessError:
            self.close()
            raise

    def _build(self) -> None:
        ip("netns", "add", self.name)
        ip("-n", self.name, "link", "add", "bridge0", "type", "bridge")
        ip("-n", self.name, "link", "set", "dev", "bridge0", "up")
        for n in self.hosts:
            host = f"{self.name}-{n}"
            ip("netns", "add", host)
            peer = ("type", "veth", "peer", "name", f"port{n}", "netns", self.name)
            ip("-n", host, "link", "add", "eth0", *peer)
            ip("-n", self.name, "link", "set", "dev", f"port{n}", "master", "bridge0")
            ip("-n", self.name, "link", "set", "dev", f"port{n}", "up")
            ip("-n", host, "address", "add", f"{self.address(n)}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "dev", "lo", "up")
            ip("-n", host, "link", "set", "dev", "eth0", "up")

    @staticmethod
    def address(host: int) -> str:
        return f"10.77.0.{host + 1}"

    def on(self, host: int) -> list[str]:
        """What to put before a command to have it run on a host, as one process."""
        rename = 'hostname "$0" && exec "$@"'
        inside = ["unshare", "--uts", "sh", "-c", rename, f"host{host}"]
        return ["ip", "netns", "exec", f"{self.name}-{host}", *inside]

    def link(self, host: int, *, up: bool) -> None:
        ip("-n", self.name, "link", "set", "dev", f"port{host}", "up" if up else "down")

    def close(self) -> None:
        for name in [self.name, *(f"{self.name}-{n}" for n in self.hosts)]:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def small(cells: int, *more: str) -> list[str]:
    units = [str(4 + n) for n in range(cells)]
    batch = "1024" if TRIALS else "32"
    words = f"--layers 2 --epochs 1 --seeds 2 --arms fixed --device cpu --batch-size {batch}"
    return [*words.split(), "--units", *units, "--data", DATA, "--results", "runs", *more]


class Site:
    """The processes of a cluster. A node is `bench.node` and what it started.

    Args:
        folder: For logs, runs and locks.
        nodes: How many nodes.
        network: Hosts for them all, a node on each but the first; by default this machine.
    """

    def __init__(self, folder: Path, nodes: int = 2, network: Network | None = None) -> None:
        self.folder, self.network = folder, network
        self.address = f"tcp://{network.address(0)}:8786" if network else f"tcp://{free_port()}"
        # Claims and Dask's scratch files are this test's own.
        self.environment = os.environ | {"TMPDIR": str(folder)}
        self.environment["DASK_TEMPORARY_DIRECTORY"] = str(folder)
        # Whatever holds up all processes at once, as a machine that sleeps, is not what is tested.
        self.environment["DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"] = "2 hours"
        self.scheduler = self.start_scheduler()
        self.nodes = {n: self.start_node(n) for n in range(1, nodes + 1)}

    def start(self, name: str, host: int, *command: str) -> subprocess.Popen:
        on_host = self.network.on(host) if self.network else []
        with (self.folder / f"{name}.log").open("a") as log:
            return subprocess.Popen(
                [*on_host, sys.executable, "-m", *command],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def start_scheduler(self) -> subprocess.Popen:
        host, port = self.address.removeprefix("tcp://").split(":")
        dashboard = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        name = "distributed.cli.dask_scheduler"
        return self.start("scheduler", 0, name, "--host", host, "--port", port, *dashboard)

    def start_node(self, number: int) -> subprocess.Popen:
        host = ["--host", self.network.address(number)] if self.network else []
        return self.start("node", number, "bench.node", self.address, "--cores", "1", *host)

    def start_driver(self) -> subprocess.Popen:
        headers = sorted((self.folder / "runs").glob("*/run.json"))
        plan = small(CELLS, "--accuracy-only")
        argv = ["--resume", str(headers[0].parent)] if headers else plan
        return self.start("driver", 0, "bench.grid", *argv, "--cluster", self.address)

    def below(self, process: subprocess.Popen, what: str = "") -> list[psutil.Process]:
        """The processes that one started whose command line has a word in it."""
        found = []
        with suppress(psutil.Error):
            for child in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    if what in " ".join(child.cmdline()):
                        found.append(child)
        return found

    def kill_all(self, process: subprocess.Popen) -> None:
        below = self.below(process)
        process.kill()
        for child in below:
            with suppress(psutil.Error):
                child.kill()
        process.wait()

    def kill_worker(self, rng: random.Random) -> bool:
        """Kills a worker of Dask's, or now and then the child that measures for it."""
        what = rng.choice(["dask_worker", "dask_worker", "spawn_main"])
        found = [p for node in self.nodes.values() for p in self.below(node, what)]
        if found:
            rng.choice(found).kill()
        return bool(found)

    def kill_node(self, rng: random.Random) -> bool:
        """Kills all of a node's processes at once; another takes its place a moment later."""
        number = rng.choice(list(self.nodes))
        self.kill_all(self.nodes[number])
        time.sleep(rng.uniform(0, 3))
        self.nodes[number] = self.start_node(number)
        return True

    def kill_network(self, rng: random.Random) -> bool:
        """Takes a node's link away: for a moment, or for longer than Dask waits (30 s)."""
        assert self.network
        number = rng.choice(list(self.nodes))
        self.network.link(number, up=False)
        time.sleep(rng.choice([rng.uniform(1, 10), rng.uniform(35, 60)]))
        self.network.link(number, up=True)
        return True

    def kill_scheduler(self, rng: random.Random) -> bool:
        self.scheduler.kill()
        self.scheduler.wait()
        time.sleep(rng.uniform(0, 3))
        self.scheduler = self.start_scheduler()
        return True

    def stop(self) -> None:
        for process in [*self.nodes.values(), self.scheduler]:
            self.kill_all(process)

    def log(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))


def recorded(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("runs/*/records/*.json")}


def records_of(folder: Path) -> list[Record]:
    (header,) = folder.glob("runs/*/run.json")
    run, records, problems = read_run(header.parent)
    assert not problems
    assert [record.key for record in records] == run.plan
    return records


def accuracies(records: list[Record]) -> dict[str, dict[str, list[float]]]:
    return {r.key: {name: arm["accuracies"] for name, arm in r.arms.items()} for r in records}


def trial(site: Site, seed: int, *more: str) -> tuple[list[Record], dict[str, int]]:
    """A plan, with faults at random moments while it runs; the moments are the seed's.

    Args:
        site: Where.
        seed: Of the moments.
        more: Faults beside those that every trial has.

    Returns:
        The records, and how often each fault came.
    """
    rng = random.Random(seed)
    faults = ["worker"] * WORKERS_KILLED + ["node", "scheduler", "driver", *more]
    rng.shuffle(faults)
    # Each after so many records, and up to three seconds, so that all come while there is work.
    due = sorted(rng.choices(range(CELLS - 2), k=len(faults)))
    driver, begin, killed = site.start_driver(), time.monotonic(), dict.fromkeys(faults, 0)
    seen: dict[str, bytes] = {}
    while driver.poll() is None or faults:
        assert time.monotonic() - begin < LIMIT, site.log()
        found = recorded(site.folder)
        assert all(found[name] == text for name, text in seen.items()), "a record was changed"
        seen = found
        if driver.poll() is not None:
            driver = site.start_driver()
        if faults and len(found) >= due[0]:
            time.sleep(rng.uniform(0, 3))
            what = faults[0]
            if what == "driver":
                driver.send_signal(rng.choice([signal.SIGINT, signal.SIGKILL]))
                done = driver.wait(timeout=60) in (130, -signal.SIGKILL, 0)
                driver = site.start_driver()  # even if nothing is left: what it says at last counts
            else:
                done = getattr(site, f"kill_{what}")(rng)
            if done:
                killed[what] += 1
                faults.pop(0)
                due.pop(0)
        time.sleep(0.2)
    assert driver.returncode in (0, 1), site.log()
    assert recorded(site.folder).items() >= seen.items()
    return records_of(site.folder), killed


def check(records: list[Record], killed: dict[str, int]) -> None:
    assert len({record.key for record in records}) == CELLS
    failed = [record for record in records if record.status == "failed"]
    assert len(failed) <= sum(killed[what] for what in killed.keys() & TAKES_A_WORKER) // 3
    for record in records:
        if record.status == "ok":
            worker = record.extra["worker"]
            assert len(worker["cores"]) == 1
            assert worker["machine"]["cpu"]["usable_cores"] == 1

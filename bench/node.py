"""`python -m bench.node ADDRESS`: offers this machine, or a part of it, to `bench.grid --cluster`.

It starts a worker of Dask's and starts it again whenever that ends: killed, or because the
scheduler went away. The module is also a preload of Dask's own worker commands, for those who
start workers by Slurm or dask-cuda: `dask worker --preload bench.node --nthreads 1 --resources
cpu=1`. The preload claims what the worker measures on (`bench.claims`), and every comparison runs
in a child of the worker: a crash of what is measured does not reach Dask.
"""

import hashlib
import importlib.util
import multiprocessing
import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from bench.addresses import check_address, resolve
from bench.rules import UsageError, usage_error

if TYPE_CHECKING:
    from bench.claims import Claim
    from bench.executors import LocalExecutor

REFUSED = 3
"""Exit status of a worker that cannot be one here, however often it is started."""
_SHORT = 5.0
"""Seconds: one that ends sooner, three times in turn, was not killed but cannot start."""


@dataclass(frozen=True)
class Options:
    """Offers this machine to the cluster at ADDRESS, until it is ended (Ctrl-C).

    One worker measures one comparison at a time, on cores and a GPU of its own. Start it several
    times to share a machine out: one for each GPU, or with --cores for CPUs.
    """

    address: Annotated[str, tyro.conf.Positional]
    """The scheduler's, as tcp://HOST:PORT or tls://HOST:PORT."""
    gpu: bool = False
    """Offer one of this machine's GPUs, the first that is free; else CPU cores."""
    cores: int | None = None
    """Physical cores to own (default: all of them, and of a machine with several GPUs a share)."""
    host: str = "127.0.0.1"
    """This machine's address, as the scheduler reaches it, on a network that is yours alone."""
    port: int = 0
    """Port to listen on (default: any)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        The exit status: 2 for bad input, 3 if this machine has nothing left to offer, 128 + the
        signal's number when ended by one.
    """
    from bench.interrupts import Interrupted, catch_signals

    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        resolve(options.address, "ADDRESS")
        resolve(_listening(options), "--host")
    except UsageError as error:
        return usage_error(error)
    try:
        with catch_signals() as interrupts:
            short = 0
            while True:
                begin = time.monotonic()
                with _start(options) as worker:
                    try:
                        with interrupts.waiting():
                            status = worker.wait()
                    finally:
                        worker.kill()
                short = short + 1 if time.monotonic() - begin < _SHORT else 0
                if status == REFUSED or short == 3:
                    print(
                        "bench.node: it cannot be a worker here, for the reason above", flush=True
                    )
                    return REFUSED
                print(f"bench.node: the worker ended with status {status}: once more", flush=True)
                with interrupts.waiting():
                    time.sleep(1)
    except Interrupted as stop:
        return stop.status


def parse(argv: Sequence[str]) -> Options:
    """The options on a command line.

    Raises:
        UsageError: What is asked for makes no sense.
    """
    options = tyro.cli(
        Annotated[Options, tyro.conf.FlagCreatePairsOff],
        args=list(argv),
        prog="python -m bench.node",
    )
    check_address(options.address, "ADDRESS")
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("A worker needs Linux, where a process can own cores.")
    if importlib.util.find_spec("distributed") is None:
        raise UsageError("A worker needs Dask: pip install -e '.[cluster]'.")
    if options.cores is not None and options.cores < 1:
        raise UsageError(f"--cores must be a positive whole number. Received: {options.cores}.")
    if not 0 <= options.port < 2**16:
        raise UsageError(f"--port must be a port's number. Received: {options.port}.")
    check_address(_listening(options), "--host")
    return options


def _listening(options: Options) -> str:
    """Where the worker listens. The scheme is the scheduler's; a port of 0 is none to look up."""
    return f"{options.address[:3]}://{options.host}:{options.port or 1}"


def _start(options: Options) -> subprocess.Popen[bytes]:
    # A name of its own for every start: the driver counts by it how often a worker died.
    name = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(3)}"
    resource = "gpu=1" if options.gpu else "cpu=1"
    command = [sys.executable, "-m", "distributed.cli.dask_worker", options.address]
    command += ["--name", name, "--nthreads", "1", "--no-nanny"]
    # Also without a dashboard a worker answers on a port for it, and by default to everybody.
    command += ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    command += ["--resources", resource, "--preload", "bench.node"]
    command += ["--host", options.host, "--worker-port", str(options.port)]
    command += ["--protocol", options.address[:3]]
    environment = os.environ | ({"FIXEDBIAS_CORES": str(options.cores)} if options.cores else {})
    return subprocess.Popen(command, env=environment)


@dataclass
class _Node:
    """What a worker is, once the preload has run."""

    claim: "Claim"
    executor: "LocalExecutor"
    busy_for: str = ""


_node: _Node | None = None


def dask_setup(worker: Any) -> None:
    """Dask's hook for a preload: claims cores or a GPU for this worker, or ends it."""
    global _node
    from bench.claims import ClaimError, claim
    from bench.executors import comparison_executor

    kinds = [kind for kind in ("cpu", "gpu") if kind in worker.state.total_resources]
    cores = os.environ.get("FIXEDBIAS_CORES", "")
    try:
        if len(kinds) != 1 or worker.state.nthreads != 1:
            raise ClaimError("a worker needs --nthreads 1 and --resources cpu=1 or gpu=1")
        if cores and not (cores.isdecimal() and int(cores)):
            raise ClaimError(f"FIXEDBIAS_CORES must be a number of cores. Received: {cores}")
        claimed = claim(kinds[0], int(cores) if cores else None)
    except ClaimError as error:
        print(f"bench.node: {error}", file=sys.stderr, flush=True)
        os._exit(REFUSED)  # Dask only logs what a preload raises, and would go on without
    os.sched_setaffinity(0, claimed.cores)  # threads and processes to come inherit it
    if claimed.gpu is not None:
        os.environ |= {"CUDA_VISIBLE_DEVICES": claimed.gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    # A nanny starts its worker as a daemon, which may have no children.
    multiprocessing.current_process().daemon = False
    _node = _Node(claimed, comparison_executor("/dev/stderr"))
    what = f"cores {', '.join(map(str, claimed.cores))}"
    what += f" and GPU {claimed.gpu}" if claimed.gpu is not None else ""
    print(f"bench.node: owns {what}; records call this host {host_name()}", flush=True)


def dask_teardown(worker: Any) -> None:
    """Dask's hook for the end of a worker."""
    if _node is not None:
        _node.executor.close()


def call_here(driver: str, function: Callable[..., Any], *args: Any, timeout: float) -> Any:
    """A task of Dask's: calls a function in this worker's child.

    Args:
        driver: Names who asks, for `stop_here`.
        function: As for `LocalExecutor.call`.

    Raises:
        RuntimeError: The worker was started without the preload.
        Exception: As `LocalExecutor.call` does.
    """
    if _node is None:
        raise RuntimeError("it was started without --preload bench.node")
    _node.busy_for = driver
    try:
        return _node.executor.call(function, *args, timeout=timeout)
    finally:
        _node.busy_for = ""


def stop_here(driver: str) -> None:
    """Ends what this worker is doing, if it does it for this driver."""
    if _node is not None and _node.busy_for == driver:
        _node.executor.close()


def host_name() -> str:
    """What records call this host: the same word every time, and not its name."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


@cache
def describe_node() -> dict[str, Any]:
    """Where a comparison ran, as records have it in `extra["worker"]`.

    >>> sorted(describe_node())
    ['cores', 'gpu', 'host', 'machine']
    """
    from bench.machine import describe_machine

    machine = describe_machine()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "-1")
    return {
        "host": host_name(),
        "cores": sorted(os.sched_getaffinity(0)),
        "gpu": None if named.startswith("-") else named,
        "machine": machine,
    }


def check_node(expected: dict[str, Any]) -> str:
    """Why this worker would not do the same work as the others; empty if it would.

    Args:
        expected: `code`, `data` (name, folder, checksum), `layer`, `files` (their digests),
            `threads` (the most of them) and `gpu` as the driver has them.
    """
    from bench.arms import user_arms
    from bench.machine import usable_cores
    from bench.runs import find_data
    from bench.worker import list_gpus

    if expected["code"] != code_digest():
        return "it runs another version of fixedbias"
    if expected["threads"] > (cores := usable_cores()):
        return f"it has {cores} cores, and --threads asks for {expected['threads']}"
    if expected["gpu"] and not list_gpus():
        return "its TensorFlow sees no GPU: pip install -e '.[gpu]' there"
    try:
        user_arms(expected["layer"])
        for path, digest in expected["files"].items():
            if _digest(path) != digest:
                return f"its {path} is another one than the driver's"
        _, dataset = find_data(expected["data"], local_folder(expected["folder"]), expected["task"])
    except (OSError, ValueError, UsageError) as error:
        return str(error)
    if dataset != expected["dataset"]:
        return f"its files of {expected['data']} are other ones than the driver's"
    return ""


def check_here(expected: dict[str, Any]) -> tuple[str, str]:
    """What `check_node` says, and what records call this host."""
    return check_node(expected), host_name()


def file_digests(options: Any) -> dict[str, str]:
    """SHA-256 of every file that the options of `bench.grid` name as a layer's or as biases."""
    from bench.arms import layer_files

    biases = [word.removeprefix("file:") for word in options.bias if word.startswith("file:")]
    return {path: _digest(path) for path in (*layer_files(options.layer), *biases)}


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def local_folder(folder: str | None) -> Path | None:
    """The driver's data folder if this machine has it, else this machine's own (None)."""
    return Path(folder) if folder is not None and Path(folder).is_dir() else None


def measure_there(comparison: Any) -> Any:
    """`bench.worker.measure`, with the data where this machine has it; the record says where."""
    from bench.worker import measure

    folder = local_folder(comparison.data_dir)
    record = measure(replace(comparison, data_dir=None if folder is None else str(folder)))
    return replace(record, extra=record.extra | {"worker": describe_node()})


@cache
def code_digest() -> str:
    """Names the code of both packages: equal on two machines if their files are."""
    import fixedbias

    digest = hashlib.sha256()
    for package in (Path(__file__).parent, Path(fixedbias.__file__).parent):
        for path in sorted(package.rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(main())

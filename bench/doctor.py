"""`python -m bench.doctor`: is all that measuring needs in place, and if not, what is the cure?"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bench import probes
from bench.checks import Check, examine
from bench.rules import UsageError, check_device, usage_error


@dataclass(frozen=True)
class Options:
    """Checks what measuring needs: TensorFlow, devices, precision, memory, disk and data.

    A line per check; each that fails says the cure. The exit status is 1 if any failed.
    """

    device: str = "auto"
    """What must work: cpu, gpu, gpu:N, all, or auto (what there is)."""
    data: str = "auto"
    """The dataset that must be at hand, as for bench.grid. Nothing is downloaded."""
    data_dir: Path | None = None
    """Folder with the data files (default: the environment variable FIXEDBIAS_DATA)."""
    results: Path = Path("results")
    """Folder that the runs will go to."""
    timeout: float = 180.0
    """Seconds after which one check of TensorFlow is given up."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the doctor.

    Args:
        argv: The command line, without the program's name.

    Returns:
        The exit status: 0 if all is well, 1 if a check failed, 2 for bad input.
    """
    try:
        options = tyro.cli(
            Annotated[Options, tyro.conf.FlagCreatePairsOff],
            args=list(sys.argv[1:] if argv is None else argv),
            prog="python -m bench.doctor",
        )
        check_device(options.device)
        if not options.timeout > 0:
            raise UsageError(f"--timeout must be a positive number. Received: {options.timeout}.")
    except UsageError as error:
        return usage_error(error)
    checks = examine(find(options))
    show(checks)
    return any(check.state == "FAIL" for check in checks)


def show(checks: Sequence[Check]) -> None:
    """Prints a line per check, the cures below, and what it comes to."""
    for check in checks:
        print(f"{check.state:4} {check.name}: {check.text}")
        if check.cure:
            print(f"     cure: {check.cure}")
    failed = sum(check.state == "FAIL" for check in checks)
    print("all is well" if not failed else f"{failed} of {len(checks)} checks failed")


def find(options: Options) -> dict[str, Any]:
    """What there is and what works, as `bench.checks.examine` takes it."""
    from bench.machine import describe_machine, read_state

    findings: dict[str, Any] = {
        "wanted": asdict(options),
        "machine": describe_machine(),
        "state": read_state(),
        "memory_free": _free_memory(),
        "disk": _disk(options.results),
        "data": _data(options),
    }
    with _Child(options.timeout) as child:
        findings["tensorflow"] = child.ask(probes.probe_tensorflow)
        findings["devices"] = {}
        if "error" not in findings["tensorflow"]:
            gpus = [f"gpu:{n}" for n in range(len(findings["tensorflow"]["found"]["gpus"]))]
            for device in ["cpu", *gpus]:
                findings["devices"][device] = _probe(device, child)
    return findings


def _probe(device: str, child: "_Child") -> dict[str, Any]:
    found = {"xla": child.ask(probes.probe_xla, device)}
    if "error" in found["xla"]:
        return found  # the products would fail for the same reason, at length
    for precision in probes.PRECISIONS:
        if (precision, device) != ("tf32", "cpu"):  # a CPU has no TensorFloat-32
            found[precision] = child.ask(probes.probe_product, device, precision)
    return found


class _Child:
    """Runs probes in a process that may die: it is replaced by another."""

    def __init__(self, timeout: float) -> None:
        from bench.executors import LocalExecutor

        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name, "log")
        self._log.touch()
        self._executor = LocalExecutor(self._log)
        self._timeout = timeout

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.close()
        self._folder.cleanup()

    def ask(self, probe: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """What a probe found, or the error it ended with; and what was said on the way."""
        before = self._log.stat().st_size
        found: dict[str, Any] = {}
        try:
            found["found"] = self._executor.call(probe, *args, timeout=self._timeout)
        except Exception as error:  # whatever it was, it is a finding
            name = type(error).__name__
            found["error"] = (
                str(error) if name in ("WorkerDied", "NoWorker") else f"{name}: {error}"
            )
        found["said"] = self._log.read_bytes()[before:].decode(errors="replace")
        return found


def _free_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def _disk(results: Path) -> dict[str, Any]:
    # The folder need not be there yet: the nearest one that is, is where it will be made.
    folder = next(p for p in (results.absolute(), *results.absolute().parents) if p.is_dir())
    return {
        "results": str(results),
        "free": shutil.disk_usage(folder).free,
        "writable": os.access(folder, os.W_OK) and (not results.exists() or results.is_dir()),
    }


def _data(options: Options) -> dict[str, Any]:
    from fixedbias.datasets import DatasetError, find_dataset, load_dataset

    try:
        located = find_dataset(options.data, options.data_dir, download=False)
        dataset = load_dataset(located.name, located.data_dir, download=False)
    except DatasetError as error:
        return {"error": re.sub(r"\s+", " ", str(error))}
    return {"name": located.name, "notice": located.notice, "examples": len(dataset.x_train)}


if __name__ == "__main__":
    sys.exit(main())

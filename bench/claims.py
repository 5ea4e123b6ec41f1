"""What a timed comparison owns: cores of its own, and on a GPU worker one GPU of its own.

Workers on one machine share them out by file locks. A lock ends with the process that holds it,
however that ends, so nothing has to be tidied up after a crash. Linux only.
"""

import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bench.nvml import gpu_names, gpu_uuids

_PATIENCE = 5.0
"""Seconds to wait for what a worker that is just ending still holds."""


class ClaimError(Exception):
    """There is not enough left to claim; its text says of what."""


@dataclass
class Claim:
    """Logical cores, and the GPU by the name that `CUDA_VISIBLE_DEVICES` has for it."""

    cores: list[int]
    gpu: str | None = None
    locks: list[IO[str]] = field(default_factory=list, repr=False)

    def release(self) -> None:
        """Gives everything back; the end of the process does so too."""
        while self.locks:
            self.locks.pop().close()


def claim(kind: str, cores: int | None = None, *, folder: Path | None = None) -> Claim:
    """Claims cores, and for a GPU worker one GPU, for as long as this process lives.

    Args:
        kind: `cpu` or `gpu`.
        cores: Physical cores, each with all its hardware threads. By default a CPU worker takes
            all that this process may use, and a GPU worker its share of them, one share per GPU.
        folder: Of the locks; by default one of this user's own, the same for all processes.

    Raises:
        ClaimError: Other workers hold too much, or there is no such device.
    """
    folder = folder or Path(tempfile.gettempdir(), f"fixedbias-claims-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ClaimError(f"{folder} must be a folder of this user's own")
    begin = time.monotonic()
    while True:
        try:
            return _claim(kind, cores, folder)
        except ClaimError:
            if time.monotonic() - begin > _PATIENCE:
                raise
        time.sleep(0.2)


def _claim(kind: str, cores: int | None, folder: Path) -> Claim:
    groups = physical_cores()
    gpus = visible_gpus() if kind == "gpu" else []
    if kind == "gpu" and not gpus:
        raise ClaimError(
            "a worker for a GPU needs one, and NVML and CUDA_VISIBLE_DEVICES show none"
        )
    wanted = cores or max(1, len(groups) // max(1, len(gpus)))
    found = Claim([])
    # One at a time: two that claim at once could each get a part and neither enough.
    with (folder / "claiming").open("a") as mutex:
        _lock(mutex, wait=True)
        # One GPU has several names, and in two jobs of Slurm's two GPUs have one.
        uuids = gpu_uuids() if gpus else {}
        for name in gpus:
            lock = folder / f"gpu-{uuids.get(name, name).replace('/', '_')}"
            if found.gpu is None and _take(found, lock):
                found.gpu = name
        for group in groups:
            if len(found.cores) < wanted and _take(found, folder / f"core-{group[0]}"):
                found.cores.append(group[0])
    taken, found.cores = found.cores, [n for g in groups if g[0] in found.cores for n in g]
    if len(taken) < wanted or (gpus and found.gpu is None):
        found.release()
        raise ClaimError(
            f"{wanted} of the {len(groups)} cores"
            + (f" and one of the GPUs {', '.join(gpus)}" if gpus else "")
            + " cannot be had, since other workers here hold them: start fewer, or with --cores"
        )
    return found


def physical_cores() -> list[list[int]]:
    """The logical cores that this process may use, those of one physical core together.

    >>> all(physical_cores())
    True
    """
    groups: dict[str, list[int]] = {}
    for core in sorted(os.sched_getaffinity(0)):
        topology = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        try:
            siblings = topology.read_text().strip()
        except OSError:
            siblings = str(core)
        groups.setdefault(siblings, []).append(core)
    return list(groups.values())


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them; its order too."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return gpu_names(named, [])
    from bench.machine import describe_machine

    return gpu_names(None, describe_machine()["gpus"])


def _take(found: Claim, path: Path) -> bool:
    file = path.open("a")
    if _lock(file, wait=False):
        found.locks.append(file)
        return True
    file.close()
    return False


def _lock(file: IO[str], *, wait: bool) -> bool:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True

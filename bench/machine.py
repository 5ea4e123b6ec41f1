"""What machine, driver, versions and flags a number was made on, and how the machine was doing.

Everything returned is plain JSON material. A sensor that this machine lacks, or will not show to
this user, is ``None``; nothing here raises because of it. No host, user or home folder is ever
named, since records are published: machines are told apart by ``describe_machine()["id"]``.
"""

import getpass
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bench.nvml import HARMLESS, each_gpu, gpu_facts, gpu_state

# One name to a line would fill the screen.
# fmt: off
PACKAGES = (
    "tensorflow", "keras", "numpy", "scipy", "tensorboard", "fixedbias", "xprof", "jax", "jaxlib",
    "optax", "torch", "nvidia-cudnn-cu12", "nvidia-cublas-cu12", "nvidia-cuda-runtime-cu12",
)
# By name, never "all that begin with TF_": other tools keep their secrets under that prefix.
FLAGS = (
    "XLA_FLAGS", "TF_XLA_FLAGS", "TF_ENABLE_ONEDNN_OPTS", "OMP_NUM_THREADS", "KERAS_BACKEND",
    "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_GPU_THREAD_MODE",
    "TF_GPU_THREAD_COUNT", "TF_GPU_ALLOCATOR", "TF_FORCE_GPU_ALLOW_GROWTH",
    "TF_DETERMINISTIC_OPS", "TF_CUDNN_DETERMINISTIC", "TF_CUDNN_USE_AUTOTUNE",
    "NVIDIA_TF32_OVERRIDE", "CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING",
    "CUDA_DEVICE_MAX_CONNECTIONS", "OMP_PROC_BIND", "OMP_PLACES", "KMP_AFFINITY", "KMP_BLOCKTIME",
    "GOMP_CPU_AFFINITY", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_THREAD_TIMEOUT",
    "ONEDNN_MAX_CPU_ISA", "LD_PRELOAD", "MALLOC_ARENA_MAX",
)
# fmt: on


def describe_machine() -> dict[str, Any]:
    """The machine, its software and the flags that change speed, as they are now.

    GPUs are those the driver shows, whatever ``CUDA_VISIBLE_DEVICES`` leaves to TensorFlow; where
    the driver's library NVML is absent ``gpu_note`` says so. ``cpu.quota_cores`` is a container's
    CPU limit. ``flags`` holds those that are set. ``id`` depends on the hardware and the GPU driver
    alone: equal ids mean comparable timings.

    >>> sorted(describe_machine())  # doctest: +NORMALIZE_WHITESPACE
    ['architecture', 'cpu', 'flags', 'gpu_note', 'gpus', 'id', 'memory_bytes', 'os', 'python',
     'versions']
    """
    gpus, gpu_note = each_gpu(gpu_facts)
    frequency = _try(psutil.cpu_freq)
    quota = _cgroup("cpu.max", r"^(\d+) (\d+)")
    cpu = {
        "model": _cpu_model(),
        "physical_cores": _try(psutil.cpu_count, False),
        "logical_cores": _try(psutil.cpu_count),
        "usable_cores": usable_cores(),
        "quota_cores": int(quota[1]) / int(quota[2]) if quota else None,
        "max_mhz": frequency.max or None if frequency else None,
        "governor": ", ".join(sorted({*_read_all("cpu*/cpufreq/scaling_governor")})) or None,
    }
    memory = _try(lambda: psutil.virtual_memory().total)
    # Memory to the GiB: firmware and kernel keep a few MiB more or less to themselves.
    hardware = [cpu["model"], cpu["physical_cores"], cpu["logical_cores"], (memory or 0) >> 30]
    hardware += [[gpu.get("name"), gpu.get("driver")] for gpu in gpus]
    return {
        "id": hashlib.sha256(json.dumps(hardware).encode()).hexdigest()[:12],
        "cpu": cpu,
        "memory_bytes": memory,
        "gpus": gpus,
        "gpu_note": gpu_note,
        # The version alone: what a distributor or a host adds to it may name it.
        "os": f"{platform.system()} {platform.release().partition('-')[0]}",
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "versions": {p: v for p in PACKAGES if (v := _try(importlib.metadata.version, p))},
        "flags": {f: anonymous(v) for f in FLAGS if (v := os.environ.get(f)) is not None},
    }


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    return _try(lambda: len(os.sched_getaffinity(0))) or os.cpu_count() or 1


def read_state() -> dict[str, Any]:
    """How the machine is doing at this moment; taken before and after each comparison.

    ``uptime`` is of a clock that nobody sets; ``load`` is over 1, 5 and 15 minutes; ``cpu_mhz`` the
    slowest core, the mean and the fastest. Of the counters only the growth means something:
    ``cpu_throttles`` (by heat), ``cpu_steal_seconds`` (taken by other guests of the host),
    ``cpu_quota_seconds`` (stopped by a container's limit) and, of each GPU, ``energy_mj``
    (millijoules), ``power_held_seconds`` and ``heat_held_seconds`` (clocks lowered to stay within
    the power or temperature limit).

    >>> len(read_state()["load"])
    3
    """
    cores = [core.current for core in _try(psutil.cpu_freq, True) or []]
    gpus, gpu_note = each_gpu(gpu_state)
    counts = _read_all("cpu*/thermal_throttle/core_throttle_count")
    stopped = _cgroup("cpu.stat", r"throttled_usec (\d+)")
    return {
        "unix_time": time.time(),
        "uptime": time.monotonic(),
        "load": _try(lambda: list(os.getloadavg())),
        "cpu_mhz": [min(cores), sum(cores) / len(cores), max(cores)] if cores else None,
        "cpu_throttles": sum(map(int, counts)) if counts else None,
        "cpu_steal_seconds": _try(lambda: psutil.cpu_times().steal),
        "cpu_quota_seconds": int(stopped[1]) / 1e6 if stopped else None,
        "gpus": gpus,
        "gpu_note": gpu_note,
    }


def held_back(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What slowed the machine between two ``read_state()``, one sentence each; empty when nothing.

    Clock reasons are those of the two moments only; the GPU's own counters of how long power or
    heat held it back cover the time between, where it keeps them. Seconds are summed over the
    cores; growth by less than 1 % of the time between is left out.

    >>> held_back(
    ...     {"uptime": 0, "cpu_steal_seconds": 1.0}, {"uptime": 10, "cpu_steal_seconds": 3.5}
    ... )
    ['CPU cores taken by other guests of this host for 2.50 s of 10 s']
    """
    notes = []

    def growth(name: str, old: dict[str, Any], new: dict[str, Any]) -> float:
        first, last = old.get(name), new.get(name)
        return 0 if first is None or last is None else last - first

    def compare(name: str, words: str, old: dict[str, Any], new: dict[str, Any]) -> None:
        if (grown := growth(name, old, new)) > elapsed / 100:
            notes.append(f"{words} for {grown:.2f} s of {elapsed:.0f} s")

    # Not the time of day, which may be set in between; older records have nothing else.
    clock = "uptime" if "uptime" in before else "unix_time"
    elapsed = max(0.0, growth(clock, before, after))
    compare("cpu_steal_seconds", "CPU cores taken by other guests of this host", before, after)
    compare("cpu_quota_seconds", "CPU cores stopped by the container's limit", before, after)
    if (heat := growth("cpu_throttles", before, after)) > 0:
        notes.append(f"CPU cores throttled {heat} times by heat")
    for old, new in zip(before.get("gpus", ()), after.get("gpus", ()), strict=False):
        gpu = f"GPU {new['index']}"
        both = {*(old.get("clock_reasons") or ()), *(new.get("clock_reasons") or ())} - HARMLESS
        if both:
            notes.append(f"{gpu} clocks lowered ({', '.join(sorted(both))})")
        compare("power_held_seconds", f"{gpu} held back by its power limit", old, new)
        compare("heat_held_seconds", f"{gpu} held back by heat", old, new)
    return notes


def process_memory() -> int:
    """Peak resident memory of this process, in bytes.

    >>> process_memory() > 2**20
    True
    """
    # Not ru_maxrss on Linux: there a child begins with the peak of the parent that started it.
    if peak := re.search(r"VmHWM:\s*(\d+) kB", _read("/proc/self/status") or ""):
        return int(peak[1]) * 1024
    import resource  # Windows has none

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def thread_settings() -> dict[str, int]:
    """TensorFlow's threads within and between operations; 0 means that TensorFlow chooses.

    Imports TensorFlow, so for workers only.
    """
    import tensorflow as tf

    threading = tf.config.threading
    return {
        "intra_op": threading.get_intra_op_parallelism_threads(),
        "inter_op": threading.get_inter_op_parallelism_threads(),
    }


def git_commit(path: str | Path = Path(__file__).parent) -> dict[str, Any] | None:
    """The commit of the repository that holds the file or folder ``path``: ``{"commit", "dirty"}``.

    ``dirty`` is true when any tracked file differs from the commit or any unignored file is new.
    ``None`` without git, outside a repository, before the first commit, and where the repository
    does not track ``path`` (an installed package in some other project's virtual environment).
    """
    path = Path(path).resolve()
    # A hook of another repository sets GIT_DIR and the like, which would win over the folder.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def git(*command: str) -> str:
        return subprocess.run(
            ["git", "--no-optional-locks", *command],
            cwd=path if path.is_dir() else path.parent,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout.strip()

    try:
        if not git("ls-files", "--", str(path)):
            return None
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def anonymous(text: str) -> str:
    """``text`` with the home folder as ``~`` and this user's and this host's names masked.

    For what a user typed or a traceback says, before it goes into a record.

    >>> anonymous(str(Path.home() / "net.py"))
    '~/net.py'
    """
    host = platform.node()
    names = {os.path.expanduser("~"): "~", _try(getpass.getuser) or "": "<user>"}
    names |= {host: "<host>", host.split(".")[0]: "<host>"}
    for name, mask in names.items():
        if len(name) > 2 and name not in ("root", "localhost"):
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", mask, text)
    return text


def _try(sensor: Callable[..., Any], *args: Any) -> Any:
    """``sensor(*args)``, or None: a missing sensor fails in as many ways as there are platforms."""
    try:
        return sensor(*args)
    except Exception:
        return None


def _read(file: str | Path) -> str | None:
    return _try(lambda: Path(file).read_text(errors="replace").strip())


def _cpu_model() -> str:
    named = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo") or "", re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()


def _read_all(pattern: str) -> list[str]:
    """What the files of all cores say that match ``pattern``."""
    files = Path("/sys/devices/system/cpu").glob(pattern)
    return [text for file in files if (text := _read(file))]


def _cgroup(file: str, pattern: str) -> re.Match[str] | None:
    """``pattern`` in a file of the control group (version 2) that this process is in."""
    own = re.search(r"^0::/(.*)$", _read("/proc/self/cgroup") or "", re.MULTILINE)
    return re.search(pattern, _read(Path("/sys/fs/cgroup", own[1], file)) or "") if own else None

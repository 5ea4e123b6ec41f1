"""What machine, driver, versions and flags a number was made on, and how the machine was doing.

Everything returned is plain JSON material. A sensor that this machine lacks, or will not show to this
user, is ``None``; nothing here raises because of it. No host, user or home folder is ever named, since
records are published: machines are told apart by ``describe_machine()["id"]``.
"""

import getpass
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

PACKAGES = (
    *(
        "tensorflow",
        "keras",
        "numpy",
        "scipy",
        "tensorboard",
        "fixedbias",
        "xprof",
        "jax",
        "jaxlib",
    ),
    *("torch", "nvidia-cudnn-cu12", "nvidia-cublas-cu12", "nvidia-cuda-runtime-cu12"),
)
# By name, never "all that begin with TF_": other tools keep their secrets under that prefix.
FLAGS = (
    *("XLA_FLAGS", "TF_XLA_FLAGS", "TF_ENABLE_ONEDNN_OPTS", "OMP_NUM_THREADS", "KERAS_BACKEND"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_GPU_THREAD_MODE", "TF_GPU_ALLOCATOR"),
    *("TF_GPU_THREAD_COUNT", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_CUDNN_DETERMINISTIC"),
    *("TF_DETERMINISTIC_OPS", "TF_CUDNN_USE_AUTOTUNE", "NVIDIA_TF32_OVERRIDE", "LD_PRELOAD"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "CUDA_DEVICE_MAX_CONNECTIONS"),
    *("OMP_PROC_BIND", "OMP_PLACES", "KMP_AFFINITY", "KMP_BLOCKTIME", "GOMP_CPU_AFFINITY"),
    *("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "MALLOC_ARENA_MAX"),
)
# The bits in which NVML says why clocks are where they are.
_CLOCK_REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}
_HARMLESS = {"gpu_idle", "applications_clocks_setting", "display_clock_setting"}


def describe_machine() -> dict[str, Any]:
    """The machine, its software and the flags that change speed, as they are now.

    GPUs are those the driver shows, whatever ``CUDA_VISIBLE_DEVICES`` leaves to TensorFlow; where the
    driver's library NVML is absent ``gpu_note`` says so. ``cpu.quota_cores`` is a container's CPU limit.
    ``id`` depends on the hardware and GPU driver alone: equal ids mean comparable timings.

    >>> sorted(describe_machine())  # doctest: +NORMALIZE_WHITESPACE
    ['architecture', 'cpu', 'flags', 'gpu_note', 'gpus', 'id', 'memory_bytes', 'os', 'python',
     'versions']
    """
    gpus, gpu_note = _each_gpu(_gpu_facts)
    frequency = _try(psutil.cpu_freq)
    cpu = {
        "model": _cpu_model(),
        "physical_cores": _try(psutil.cpu_count, False),
        "logical_cores": _try(psutil.cpu_count),
        "usable_cores": _try(lambda: len(os.sched_getaffinity(0))) or os.cpu_count(),
        "quota_cores": _cpu_quota(),
        "max_mhz": frequency.max or None if frequency else None,
        "governor": _governor(),
    }
    memory = _try(lambda: psutil.virtual_memory().total)
    hardware = [
        *(cpu[fact] for fact in ("model", "physical_cores", "logical_cores")),
        round(
            (memory or 0) / 2**30
        ),  # firmware and kernel keep a few MiB more or less to themselves
        *([gpu.get("name"), gpu.get("driver")] for gpu in gpus),
    ]
    return {
        "id": hashlib.sha256(json.dumps(hardware).encode()).hexdigest()[:12],
        "cpu": cpu,
        "memory_bytes": memory,
        "gpus": gpus,
        "gpu_note": gpu_note,
        "os": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "versions": {p: v for p in PACKAGES if (v := _try(importlib.metadata.version, p))},
        "flags": {f: anonymous(v) for f in FLAGS if (v := os.environ.get(f)) is not None},
    }


def read_state() -> dict[str, Any]:
    """How the machine is doing at this moment; taken before and after each comparison.

    Returns:
        ``load``: load averages over 1, 5, 15 minutes; ``cpu_mhz``: lowest, mean and highest core;
        ``cpu_throttles``, ``cpu_steal_seconds`` (time taken by other guests of the host) and
        ``cpu_quota_seconds`` (time stopped by a container's limit): counters, only their growth means
        something; ``gpus``: temperature, clocks, clock reasons, power, energy counter, utilisation.

    >>> len(read_state()["load"])
    3
    """
    cores = [core.current for core in _try(psutil.cpu_freq, True) or []]
    gpus, gpu_note = _each_gpu(_gpu_state)
    counts = [
        int(text)
        for file in Path("/sys/devices/system/cpu").glob(
            "cpu*/thermal_throttle/core_throttle_count"
        )
        if (text := _read(file))
    ]
    stopped = re.search(r"throttled_usec (\d+)", _cgroup("cpu.stat") or "")
    return {
        "load": list(_try(os.getloadavg) or ()) or None,
        "cpu_mhz": [min(cores), sum(cores) / len(cores), max(cores)] if cores else None,
        "cpu_throttles": sum(counts) if counts else None,
        "cpu_steal_seconds": _try(lambda: psutil.cpu_times().steal),
        "cpu_quota_seconds": int(stopped[1]) / 1e6 if stopped else None,
        "gpus": gpus,
        "gpu_note": gpu_note,
    }


def held_back(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What slowed the machine between two ``read_state()``, one sentence each; empty when nothing.

    Clock reasons are those of the two moments only; the GPU's own clocks of how long power or heat
    held it back cover all of the time between, where the GPU keeps them.

    >>> held_back({"cpu_steal_seconds": 1.0}, {"cpu_steal_seconds": 3.5})
    ['CPU: 2.50 s taken by other guests of this host']
    """

    def growth(old: dict[str, Any], new: dict[str, Any], name: str) -> float:
        return (new.get(name) or 0) - (old.get(name) or 0)

    notes = []
    for name, words in (
        ("cpu_throttles", "CPU: throttled {:.0f} times by heat"),
        ("cpu_steal_seconds", "CPU: {:.2f} s taken by other guests of this host"),
        ("cpu_quota_seconds", "CPU: {:.2f} s stopped by the container's CPU limit"),
    ):
        # A hundredth is the grain of the kernel's clock for these.
        if before.get(name) is not None and (grown := growth(before, after, name)) > 0.01:
            notes.append(words.format(grown))
    for old, new in zip(before.get("gpus") or [], after.get("gpus") or [], strict=False):
        both = {*(old.get("clock_reasons") or ()), *(new.get("clock_reasons") or ())} - _HARMLESS
        if both:
            notes.append(f"GPU {new['index']}: clocks lowered ({', '.join(sorted(both))})")
        for name, cause in (("power_held_seconds", "power"), ("heat_held_seconds", "heat")):
            if old.get(name) is not None and (grown := growth(old, new, name)) > 0.01:
                notes.append(f"GPU {new['index']}: {grown:.2f} s held back by {cause}")
    return notes


def process_memory() -> int:
    """Peak resident memory of this process, in bytes.

    >>> process_memory() > 2**20
    True
    """
    # Not ru_maxrss on Linux: there a child begins with the peak of the parent that started it.
    if peak := re.search(r"VmHWM:\s*(\d+) kB", _read("/proc/self/status") or ""):
        return int(peak[1]) * 1024
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
    ``None`` without git, outside a repository, before the first commit, and where the repository does
    not track ``path`` (an installed package in some other project's virtual environment).
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
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain")),
        }
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


def _governor() -> str | None:
    files = Path("/sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_governor")
    return ", ".join(sorted({text for file in files if (text := _read(file))})) or None


def _cgroup(file: str) -> str | None:
    """A file of the control group (version 2) that this process is in."""
    own = re.search(r"^0::/(.*)$", _read("/proc/self/cgroup") or "", re.MULTILINE)
    return _read(Path("/sys/fs/cgroup", own[1], file)) if own else None


def _cpu_quota() -> float | None:
    limit = re.fullmatch(r"(\d+) (\d+)", _cgroup("cpu.max") or "")
    return int(limit[1]) / int(limit[2]) if limit else None


def _each_gpu(
    read: Callable[[Any, Any], dict[str, Any]],
) -> tuple[list[dict[str, Any]], str | None]:
    """``read(ask, handle)`` of every GPU, and a note where NVML is absent or fails."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:
        return [], f"NVML not available: {type(error).__name__}: {error}"

    def ask(function: str, *args: Any) -> Any:
        value = _try(lambda: getattr(pynvml, function)(*args))
        return value.decode() if isinstance(value, bytes) else value

    try:
        return [
            {"index": i} | read(ask, handle)
            if (handle := ask("nvmlDeviceGetHandleByIndex", i)) is not None
            else {"index": i, "note": "no answer from this GPU"}
            for i in range(pynvml.nvmlDeviceGetCount())
        ], None
    except Exception as error:
        return [], f"NVML failed: {type(error).__name__}: {error}"
    finally:
        with suppress(Exception):
            pynvml.nvmlShutdown()


# NVML's own numbers, the same in every version of its C header; used instead of the names so that an
# older pynvml, which lacks a name, costs one sensor and not all.
_SM, _MEMORY = 1, 2
_POWER, _THERMAL = 0, 1


def _gpu_facts(ask: Any, gpu: Any) -> dict[str, Any]:
    capability = ask("nvmlDeviceGetCudaComputeCapability", gpu)
    cuda = ask("nvmlSystemGetCudaDriverVersion")
    limit = ask("nvmlDeviceGetPowerManagementLimit", gpu)
    return {
        "name": ask("nvmlDeviceGetName", gpu),
        "driver": ask("nvmlSystemGetDriverVersion"),
        "driver_cuda": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        "memory_bytes": getattr(ask("nvmlDeviceGetMemoryInfo", gpu), "total", None),
        "compute_capability": "{}.{}".format(*capability) if capability else None,
        "max_sm_mhz": ask("nvmlDeviceGetMaxClockInfo", gpu, _SM),
        "max_memory_mhz": ask("nvmlDeviceGetMaxClockInfo", gpu, _MEMORY),
        "power_limit_watts": limit / 1e3 if limit is not None else None,
    }


def _gpu_state(ask: Any, gpu: Any) -> dict[str, Any]:
    def held(policy: int) -> float | None:
        time = getattr(ask("nvmlDeviceGetViolationStatus", gpu, policy), "violationTime", None)
        return None if time is None else time / 1e9

    def first(*functions: str, args: tuple[Any, ...] = ()) -> Any:
        # A renamed function is absent from old drivers, and its old name from new ones.
        return next((v for f in functions if (v := ask(f, gpu, *args)) is not None), None)

    bits = first(
        "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"
    )
    power = ask("nvmlDeviceGetPowerUsage", gpu)
    return {
        "temperature_c": first("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature", args=(0,)),
        "sm_mhz": ask("nvmlDeviceGetClockInfo", gpu, _SM),
        "memory_mhz": ask("nvmlDeviceGetClockInfo", gpu, _MEMORY),
        "clock_reasons": None if bits is None else _names_of(bits),
        "power_held_seconds": held(_POWER),
        "heat_held_seconds": held(_THERMAL),
        "power_watts": power / 1e3 if power is not None else None,
        "energy_mj": ask("nvmlDeviceGetTotalEnergyConsumption", gpu),
        "utilisation_percent": getattr(ask("nvmlDeviceGetUtilizationRates", gpu), "gpu", None),
    }


def _names_of(bits: int) -> list[str]:
    return [
        _CLOCK_REASONS.get(1 << n, hex(1 << n)) for n in range(bits.bit_length()) if bits >> n & 1
    ]

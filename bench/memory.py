"""How much memory a comparison will take, from its shapes, and how much is free."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

_MIB = 2**20
# TensorFlow, Keras and an empty graph, as a worker's peak resident memory shows.
_BASE = 1024 * _MIB
# What a layer costs however narrow it is: Keras's objects, the traced graph, XLA's program.
_PER_LAYER = 4 * _MIB
_PIXELS = 784


def estimate_bytes(*, layers: int, units: int, batch_size: int, arms: int, examples: int) -> int:
    """About the peak memory of one comparison's worker on a CPU, in bytes; float32, Adam.

    Example:

    >>> estimate_bytes(layers=3, units=10**9, batch_size=32, arms=3, examples=60_000) > 2**64
    True
    """
    return sum(
        estimate_parts(
            layers=layers, units=units, batch_size=batch_size, arms=arms, examples=examples
        )
    )


def estimate_parts(
    *, layers: int, units: int, batch_size: int, arms: int, examples: int
) -> tuple[int, int]:
    """The same in two parts: what stays with the host, and what a GPU has to hold if one is used.

    Every arm, the A/A arm among them, keeps kernels and biases, Adam's two moments, and its
    optimizer's start on the host; one arm at a time also has gradients, a second network to start
    from, and copies of its variables on the move. On a CPU this was within a sixth of the peak that
    was measured, for 64 to 4096 units, 3 and 40 layers, batches of 32 to 6000.

    Args:
        layers, units, batch_size: Of the cell.
        arms: How many compete, the A/A arm not counted.
        examples: Training images.

    Returns:
        Bytes of the host and of the device. The parts on a GPU are those that the code puts there;
        their sum was measured, on a CPU, and they were not.
    """
    hidden = layers - 1
    last = units if hidden else _PIXELS
    parameters = hidden * units + last * 10
    parameters += _PIXELS * units + max(0, hidden - 1) * units * units if hidden else 0
    batch = max(min(batch_size, examples), min(1000, examples))  # 1000 to validate with
    activations = batch * (2 * _PIXELS + 4 * hidden * units)
    starts = 8 * parameters * (arms + 1)  # Adam's moments as every arm began with them
    host = _BASE + _PER_LAYER * layers * (arms + 1) + starts + _PIXELS * examples
    device = 4 * parameters * (4 * (arms + 1) + 8) + 12 * activations + 3 * _PIXELS * examples
    return host, device


def lacking(device: str, host: int, on_device: int) -> tuple[str, int, int] | None:
    """Whose memory is too small: its name, the bytes needed and the bytes free; None if none is.

    Args:
        device: As `--device` has it.
        host: Bytes that the host must hold in any case.
        on_device: Bytes that the device must hold; on a CPU that is the host too.

    Example:

    >>> lacking("cpu", 0, 2**70)[:2]
    ('the host', 1180591620717411303424)
    """
    free, gpus = free_bytes("cpu"), [] if device == "cpu" else gpu_free()
    if not gpus or device == "all":
        host += on_device  # in the host at one time or another
    if host > free:
        return "the host", host, free
    # By number only where it is sure which one that is; else the one with most room.
    if gpus and on_device > max(gpus):
        return "the GPU", on_device, max(gpus)
    return None


def free_bytes(device: str) -> int:
    """Memory that is free for a comparison on this device, in bytes.

    Args:
        device: `cpu` is the host's, or what its control group leaves. For the others it is that of
            the GPU with the most free memory, where NVML shows one; `all` is the least of both.

    Example:

    >>> free_bytes("cpu") > 0
    True
    """
    host = min([int(psutil.virtual_memory().available), *_cgroup_free()])
    gpus = [] if device == "cpu" else gpu_free()
    if not gpus:
        return host
    return min(host, max(gpus)) if device == "all" else max(gpus)


def _cgroup_free() -> list[int]:
    """What the control group of this process leaves it, in version 2 or 1 of them."""
    found = []
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder, names = "/sys/fs/cgroup", ("memory.max", "memory.current")
            cached = "inactive_file"
        elif "memory" in controllers.split(","):
            folder = "/sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            cached = "total_inactive_file"
        else:
            continue
        # In a container the group may be mounted as the root of what it sees.
        for place in (Path(folder, path.lstrip("/")), Path(folder)):
            limit, used = (_lines(place / name) for name in names)
            if limit and used and limit[0].isdecimal():  # else it is "max"
                # Files that were read count as used, and are given up before anything fails.
                stat = dict(line.split(" ", 1) for line in _lines(place / "memory.stat"))
                taken = int(used[0]) - int(stat.get(cached, 0))
                found.append(max(0, int(limit[0]) - max(0, taken)))
                break
    return found


def _lines(file: str | Path) -> list[str]:
    with suppress(OSError):
        return Path(file).read_text(errors="replace").split("\n")[:-1]
    return []


def gpu_free() -> list[int]:
    """Bytes free on every GPU that the driver shows; none without NVML."""
    with suppress(Exception):  # no NVML, no driver, no GPU
        import pynvml

        pynvml.nvmlInit()
        try:
            handles: list[Any] = [
                pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())
            ]
            return [int(pynvml.nvmlDeviceGetMemoryInfo(handle).free) for handle in handles]
        finally:
            pynvml.nvmlShutdown()
    return []

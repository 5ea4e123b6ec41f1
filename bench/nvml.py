"""GPUs as their driver's library NVML shows them: what they are, how they do, what holds them back.

Where NVML, a GPU or a sensor is absent or fails there is a note, or ``None``: nothing raises.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any

# fmt: off
# Why GPU clocks are where they are, in the order of NVML's bits.
_CLOCK_REASONS = (
    "gpu_idle", "applications_clocks_setting", "sw_power_cap", "hw_slowdown", "sync_boost",
    "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown",
    "display_clock_setting", "board_limit", "reliability",
)
# fmt: on
HARMLESS = {"gpu_idle", "applications_clocks_setting", "display_clock_setting"}
"""Reasons for low clocks that slow nothing down that is measured."""


def each_gpu(
    read: Callable[[Any, Any], dict[str, Any]],
) -> tuple[list[dict[str, Any]], str | None]:
    """``read(ask, handle)`` of every GPU, and a note where NVML is absent or fails.

    ``ask(function, *args)`` is what a function of NVML gives, or None; ``scale`` divides it.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:
        return [], f"NVML not available: {type(error).__name__}: {error}"

    def ask(function: str, *args: Any, scale: float | None = None) -> Any:
        value = None
        with suppress(Exception):  # a missing sensor fails in as many ways as there are drivers
            value = getattr(pynvml, function)(*args)
        if isinstance(value, bytes):
            return value.decode()
        return value / scale if value is not None and scale else value

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


# NVML's numbers for these, fixed by its C interface, so that nothing hangs on a name in pynvml.
_SM, _MEMORY = 1, 2
_POWER, _THERMAL = 0, 1


def gpu_uuids() -> dict[str, str]:
    """The UUID of every GPU by its number as NVML counts; empty without NVML."""
    gpus, _ = each_gpu(lambda ask, gpu: {"uuid": ask("nvmlDeviceGetUUID", gpu)})
    return {str(gpu["index"]): gpu["uuid"] for gpu in gpus if gpu.get("uuid")}


def gpu_names(visible: str | None, gpus: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the GPUs that CUDA shows, in its order: numbers, or what they are called by.

    Args:
        visible: `CUDA_VISIBLE_DEVICES`; None where it is not set.
        gpus: All of the host, as `describe_machine` has them.

    >>> gpu_names(" 2, GPU-ab,-1,0", []), gpu_names(None, [{"index": 0}, {"index": 1}])
    (['2', 'GPU-ab'], ['0', '1'])
    """
    if visible is None:
        return [str(gpu["index"]) for gpu in gpus]
    names = (word.strip() for word in visible.split(","))
    # As CUDA reads the list: what stands behind the first invalid entry is hidden.
    return list(takewhile(lambda name: name and not name.startswith("-"), names))


def gpu_facts(ask: Any, gpu: Any) -> dict[str, Any]:
    """What a GPU is, for `each_gpu`."""
    capability = ask("nvmlDeviceGetCudaComputeCapability", gpu)
    cuda = ask("nvmlSystemGetCudaDriverVersion")
    return {
        "name": ask("nvmlDeviceGetName", gpu),
        "driver": ask("nvmlSystemGetDriverVersion"),
        "driver_cuda": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        "memory_bytes": getattr(ask("nvmlDeviceGetMemoryInfo", gpu), "total", None),
        "compute_capability": "{}.{}".format(*capability) if capability else None,
        "max_sm_mhz": ask("nvmlDeviceGetMaxClockInfo", gpu, _SM),
        "max_memory_mhz": ask("nvmlDeviceGetMaxClockInfo", gpu, _MEMORY),
        "power_limit_watts": ask("nvmlDeviceGetPowerManagementLimit", gpu, scale=1e3),
    }


def gpu_state(ask: Any, gpu: Any) -> dict[str, Any]:
    """How a GPU is doing, for `each_gpu`: clocks, temperature, power, what holds it back."""
    return {
        "temperature_c": _either(
            ask, gpu, "nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature", 0
        ),
        "sm_mhz": ask("nvmlDeviceGetClockInfo", gpu, _SM),
        "memory_mhz": ask("nvmlDeviceGetClockInfo", gpu, _MEMORY),
        **_held_back(ask, gpu),
        "power_watts": ask("nvmlDeviceGetPowerUsage", gpu, scale=1e3),
        "energy_mj": ask("nvmlDeviceGetTotalEnergyConsumption", gpu),
        "utilisation_percent": getattr(ask("nvmlDeviceGetUtilizationRates", gpu), "gpu", None),
    }


def _held_back(ask: Any, gpu: Any) -> dict[str, Any]:
    def held(policy: int) -> float | None:
        status = ask("nvmlDeviceGetViolationStatus", gpu, policy)
        return None if status is None else status.violationTime / 1e9

    name = "nvmlDeviceGetCurrentClocks{}Reasons"
    reasons = _either(ask, gpu, name.format("Event"), name.format("Throttle"))
    return {
        "clock_reasons": None if reasons is None else _bit_names(reasons),
        "power_held_seconds": held(_POWER),
        "heat_held_seconds": held(_THERMAL),
    }


def _either(ask: Any, gpu: Any, new: str, old: str, *args: Any) -> Any:
    # Renamed functions: old drivers lack the new one, CUDA 14 drops the old one.
    value = ask(new, gpu, *args)
    return ask(old, gpu, *args) if value is None else value


def _bit_names(bits: int) -> list[str]:
    known = dict(enumerate(_CLOCK_REASONS))
    return [known.get(n, hex(1 << n)) for n in range(bits.bit_length()) if bits >> n & 1]


class GpuWatch:
    """One GPU while it is measured: whether it was held back in a round, and the energy it used.

    Args:
        device: `"gpu:N"` in TensorFlow's numbering; of a `"cpu"` nothing is ever known.

    Attributes:
        note: Why nothing can be known of this GPU; else empty.

    Example:

    >>> with GpuWatch("cpu") as watch:
    ...     watch.begin()
    ...     watch.held_back(), watch.joules()
    ([], None)
    """

    def __init__(self, device: str) -> None:
        self._device, self.note = device, ""
        self._nvml: Any = None
        self._gpu: Any = None
        self._before: dict[str, Any] = {}
        self._began = 0.0

    def __enter__(self) -> "GpuWatch":
        if self._device == "cpu":
            return self
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            self._gpu = _handle(pynvml, int(self._device.partition(":")[2] or 0))
        except Exception as error:  # the measurement does not depend on it
            self.note = f"NVML does not show {self._device}: {type(error).__name__}: {error}"
        return self

    def __exit__(self, *_: object) -> None:
        nvml, self._nvml, self._gpu = self._nvml, None, None
        if nvml is not None:
            with suppress(Exception):
                nvml.nvmlShutdown()

    def begin(self) -> None:
        """A round begins."""
        self._before, self._began = self._state(), time.monotonic()

    def held_back(self) -> list[str]:
        """Why the clocks were lowered in the round that ends now; empty if they were not.

        What the driver says at this moment, and its counters of the time that power or heat took,
        where they grew by 1 % of the round or more: the reasons of a moment alone would miss what
        was over before it.
        """
        after, elapsed = self._state(), time.monotonic() - self._began
        found = set(after.get("clock_reasons") or ()) - HARMLESS
        for name in ("power_held_seconds", "heat_held_seconds"):
            first, last = self._before.get(name), after.get(name)
            if first is not None and last is not None and last - first > elapsed / 100:
                found.add(name.removesuffix("_held_seconds"))
        return sorted(found)

    def joules(self) -> float | None:
        """Energy since the driver was loaded, in joules; None where this GPU does not count it."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def _state(self) -> dict[str, Any]:
        if self._gpu is None:
            return {}
        return _held_back(lambda function, gpu, *args: self._ask(function, *args), self._gpu)

    def _ask(self, function: str, *args: Any) -> Any:
        if self._gpu is None:
            return None
        with suppress(Exception):
            return getattr(self._nvml, function)(self._gpu, *args)
        return None


def _handle(pynvml: Any, number: int) -> Any:
    """NVML's handle of TensorFlow's GPU, which `CUDA_VISIBLE_DEVICES` may number otherwise."""
    visible = gpu_names(os.environ.get("CUDA_VISIBLE_DEVICES"), [])
    name = visible[number] if number < len(visible) else str(number)
    if name.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(name))
    return pynvml.nvmlDeviceGetHandleByUUID(name)

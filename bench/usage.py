"""What an arm takes of a GPU besides time: memory at its peak, and energy. Unknown on a CPU."""

import time

from bench.nvml import GpuWatch
from bench.timing import Burst

_STILL = 0.5  # seconds in which a counter that works has moved


class PeakMemory:
    """Memory of a device that is taken from here on, at its peak.

    Args:
        device: `"cpu"` or `"gpu:N"`, in use by TensorFlow already.
    """

    def __init__(self, device: str) -> None:
        import tensorflow as tf

        self._device, self._before = device.upper(), 0
        self._stats = None if device == "cpu" else tf.config.experimental
        if self._stats is not None:
            self._stats.reset_memory_stats(self._device)
            self._before = int(self._stats.get_memory_info(self._device)["current"])

    def found(self) -> dict[str, int]:
        """`device_peak_bytes`, less what was taken before; nothing on a CPU."""
        if self._stats is None:
            return {}
        peak = int(self._stats.get_memory_info(self._device)["peak"])
        return {"device_peak_bytes": max(0, peak - self._before)}


def measure_energy(
    burst: Burst, watch: GpuWatch, *, repeats: int, seconds: float
) -> dict[str, float]:
    """Energy that the GPU, all of its board, takes for an example of training.

    Apart from the timed rounds, since NVML's counter moves about ten times a second, too slowly to
    tell arms apart within them. The host's energy is not in it; what the GPU takes idling is.

    Args:
        burst: What is timed of the arm, warm.
        watch: Of the GPU.
        repeats: Launches in a sample, as they were timed.
        seconds: To go on for at least.

    Returns:
        `joules_per_example`; nothing where the GPU does not count energy.
    """
    # From one move of the counter to another: what it says between two may be 0.1 s old.
    samples, before = _until_it_moves(burst, watch, repeats, 0.0)
    if before is None:
        return {}
    samples, after = _until_it_moves(burst, watch, repeats, seconds)
    if after is None or after <= before:  # it does not move, or was reset
        return {}
    return {"joules_per_example": (after - before) / (samples * repeats * burst.examples)}


def _until_it_moves(
    burst: Burst, watch: GpuWatch, repeats: int, seconds: float
) -> tuple[int, float | None]:
    """Samples taken until the counter moves after some seconds, and what it says then."""
    samples, begin, last = 0, time.perf_counter(), watch.joules()
    while last is not None and time.perf_counter() - begin < seconds + _STILL:
        burst.sample(repeats, time.perf_counter)
        samples += 1
        now = watch.joules()
        if now != last and time.perf_counter() - begin >= seconds:
            return samples, now
        last = now
    return samples, None

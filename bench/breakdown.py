"""Where the time of a run went: what is training or timing, and what is neither."""

import math
from collections.abc import Sequence

from bench.records import Record


def breakdown(records: Sequence[Record], wall: float) -> dict[str, float]:
    """Seconds by what they were spent on; they add up to `wall`.

    Args:
        records: The comparisons that were made in this time.
        wall: Seconds from the start of the driver's process.

    Returns:
        `training` (full trainings, their validation included), `timing` (rounds, those of the
        ceiling too), `compiling` (XLA and tracing, and building the arms anew between rounds),
        `building` (models, warm-up, all else that a worker does for a comparison) and `starting,
        writing` (imports, processes, data, records).

    Example:

    >>> breakdown([], 2.0)["starting, writing"]
    2.0
    """
    arms = [arm for record in records for arm in record.arms.values()]

    def total(*names: str) -> float:
        values = [arm.get(name, 0.0) for arm in arms for name in names]
        return sum(value for value in values if math.isfinite(value))

    extras = [record.extra for record in records]
    rebuilding = sum(e.get("rebuild_seconds", 0.0) for e in extras)
    found = {
        "training": total("training_seconds"),
        "timing": sum(e.get("timing_seconds", 0.0) for e in extras)
        + sum(e.get("ceiling", {}).get("seconds", 0.0) for e in extras)
        - rebuilding,
        "compiling": total("compile_seconds", "burst_compile_seconds") + rebuilding,
    }
    worker = sum(e.get("seconds", 0.0) for e in extras)
    found["building"] = worker - sum(found.values())
    found["starting, writing"] = wall - worker
    return found


def breakdown_line(records: Sequence[Record], wall: float) -> str:
    """The same in one line, and the share that is neither training nor timing."""
    found = breakdown(records, wall)
    # What is short is not nothing.
    parts = ", ".join(f"{k} {s:.1f}" if s >= 1 else f"{k} {s:.2g}" for k, s in found.items())
    overhead = 1 - (found["training"] + found["timing"]) / wall
    return f"{wall:.1f} s: {parts}; neither training nor timing: {overhead:.0%}"

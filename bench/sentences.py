"""What a run says, in sentences."""

import math
from collections.abc import Sequence
from itertools import product, takewhile
from typing import Any

from bench.arms import AGAIN, REFERENCE
from bench.labels import device_words, names
from bench.summary import Row
from bench.verdicts import Verdict
from fixedbias.text import first_of

_CLAUSES = 8  # of a sentence: a run of many axes would make hundreds


def headline(rows: Sequence[Row], failed: int = 0) -> str:
    """A run in one sentence: what it says of every arm against the reference, on each machine.

    Args:
        rows: From `summarise`.
        failed: Comparisons without a result.
    """
    machines = dict.fromkeys(row.cell.get("machine") for row in rows if row.verdict)
    if len(machines) > 1:
        own = {m: [row for row in rows if row.cell.get("machine") == m] for m in machines}
        said = " ".join(f"On machine {m}: {headline(its)}" for m, its in own.items())
        return said + _failed(failed)
    judged = [row for row in rows if row.verdict and row.arm != AGAIN]
    parts = []
    for arm in dict.fromkeys(row.arm for row in judged):
        words = [str(row.verdict) for row in judged if row.arm == arm]
        found = [(word, words.count(word)) for word in map(str, Verdict) if word in words]
        if len(words) == 1:
            (row,) = (row for row in judged if row.arm == arm)
            # No speed is claimed where there is no verdict.
            claim = row.ratio and row.verdict not in (Verdict.CANT_TELL, Verdict.SAME)
            said = f"{words[0]} ({row.ratio.estimate:.2f} x)" if claim and row.ratio else words[0]
        else:
            said = ", ".join(f"{word} in {count}" for word, count in found)
            said += f" of {len(words)} cells"
        parts.append(f"{arm} {said}")
    sentence = f"Speed against {REFERENCE}: {'; '.join(parts)}." if parts else "No verdicts."
    return sentence + _failed(failed)


def _failed(number: int) -> str:
    return f" Failed: {number} comparison{'s' if number > 1 else ''}." if number else ""


def accuracy_line(rows: Sequence[Row]) -> str:
    """The differences in accuracy of a run in one sentence; empty where none was measured."""
    found = []
    for arm in dict.fromkeys(row.arm for row in rows if row.difference):
        values = [
            100 * row.difference.estimate for row in rows if row.arm == arm and row.difference
        ]
        low, high = min(values), max(values)
        span = f"{low:+.2f}" if len(values) == 1 else f"{low:+.2f} to {high:+.2f}"
        found.append(f"{arm} {span}")
    if not found:
        return ""
    return f"Test accuracy against {REFERENCE}, in percentage points: {'; '.join(found)}."


def target_line(rows: Sequence[Row], target: float) -> str:
    """How long the arms trained to the target accuracy, in one sentence; empty without trainings.

    Medians over the seeds, and their range over the cells of each machine and device.
    """
    timed = [row for row in rows if row.seconds_to_target]
    machines = dict.fromkeys(row.cell.get("machine") for row in timed)
    if len(machines) > 1:
        own = {m: [row for row in rows if row.cell.get("machine") == m] for m in machines}
        return " ".join(f"On machine {m}: {target_line(its, target)}" for m, its in own.items())
    devices = dict.fromkeys(device_words(row.cell) for row in timed)
    if len(devices) > 1:
        own = {d: [row for row in timed if device_words(row.cell) == d] for d in devices}
        return " ".join(f"On {d}: {target_line(its, target)}" for d, its in own.items())
    found = []
    for arm in dict.fromkeys(row.arm for row in rows if row.seconds_to_target):
        medians = [row.median_to_target for row in rows if row.arm == arm and row.seconds_to_target]
        there = sorted(filter(math.isfinite, medians))
        ends = dict.fromkeys(f"{seconds:.2g}" for seconds in there[:1] + there[-1:])
        said = f"{'-'.join(ends)} s" if there else "never"
        cells = f" in {len(there)} of {len(medians)}" if len(medians) > 1 and there else ""
        found.append(f"{arm} {said}{cells}")
    if not found:
        return ""
    return f"Training to {target:.4g} test accuracy, median of seeds: {'; '.join(found)}."


def precision_line(rows: Sequence[Row]) -> str:
    """From which width on arms of another precision pay, in one sentence; empty without such arms.

    >>> cells = [{"layers": 3, "units": units, "bias": "ramp"} for units in (64, 128, 256)]
    >>> words = Verdict.SLOWER, Verdict.FASTER, Verdict.FASTER
    >>> arm = "dense@mixed_bfloat16"
    >>> precision_line([Row(c, arm, verdict=w) for c, w in zip(cells, words, strict=True)])
    'Precision: dense@mixed_bfloat16 is faster than dense from 128 units on at T=3.'
    >>> precision_line([Row(cells[0], arm, verdict=Verdict.SLOWER)])
    'Precision: dense@mixed_bfloat16 is nowhere faster than dense, at 64 units at T=3.'
    """
    judged = [row for row in rows if row.verdict and "@" in row.arm]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row, where in zip(judged, _series([row.cell for row in judged]), strict=True):
        groups.setdefault((row.arm, where), []).append(row)
    found = []
    for (arm, where), members in groups.items():
        members.sort(key=lambda row: row.cell["units"])
        sizes = [row.cell["units"] for row in members]
        won = list(takewhile(lambda row: row.verdict is Verdict.FASTER, reversed(members)))
        if won:
            said = f"faster than {REFERENCE} from {won[-1].cell['units']} units on"
        else:
            span = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else sizes[0]
            said = f"nowhere faster than {REFERENCE}, at {span} units"
        found.append(f"{arm} is {said} at {where}")
    return f"Precision: {'; '.join(first_of(found, _CLAUSES))}." if found else ""


def _series(cells: Sequence[dict[str, Any]]) -> list[str]:
    """Names of cells without their units: equal for those that differ in nothing else."""
    others = names(cells, size=False)
    return [
        ", ".join(part for part in (f"T={cell['layers']}", other) if part)
        for cell, other in zip(cells, others, strict=True)
    ]


def device_line(rows: Sequence[Row]) -> str:
    """From which width on the reference trains faster on a GPU than on the CPU, in one sentence.

    Empty where no cell ran on both. A comparison has one device, so these speeds come from
    different rounds, and ratios near 1 say nothing. On how many threads the CPU ran is said, since
    one of many cores is no rival.

    >>> cell = {"layers": 3, "bias": "ramp"}
    >>> speeds = {("cpu", 64): 4.0, ("cpu", 512): 2.0, ("gpu:0", 64): 1.0, ("gpu:0", 512): 8.0}
    >>> device_line([
    ...     Row(cell | {"device": device, "units": units}, "dense", examples_per_second=speed)
    ...     for (device, units), speed in speeds.items()
    ... ])
    'Devices: dense is faster on gpu:0 than on cpu from 512 units on (0.25 to 4 times) at T=3.'
    >>> one, gpu = ({"device": "cpu", "threads": 1}, {"device": "gpu:0"})
    >>> device_line([
    ...     Row({"layers": 3, "units": 64} | device, "dense", examples_per_second=speed)
    ...     for device, speed in ((one, 1.0), (gpu, 2.0))
    ... ])[:66]
    'Devices: dense is faster on gpu:0 than on 1 thread of the cpu from'
    """
    own = [row for row in rows if row.arm == REFERENCE and row.examples_per_second > 0]
    cells = [{k: v for k, v in row.cell.items() if k not in ("device", "threads")} for row in own]
    groups: dict[str, dict[str, dict[int, float]]] = {}
    for row, where in zip(own, _series(cells), strict=True):
        speeds = groups.setdefault(where, {}).setdefault(device_words(row.cell), {})
        speeds[row.cell["units"]] = row.examples_per_second
    found = []
    for where, devices in groups.items():
        gpus = {name: speeds for name, speeds in devices.items() if name.startswith("gpu")}
        for device, cpu in product(sorted(gpus), sorted(devices.keys() - gpus)):
            both = sorted(gpus[device].keys() & devices[cpu].keys())
            ratios = {units: gpus[device][units] / devices[cpu][units] for units in both}
            if not ratios:
                continue
            won = [
                units for units, _ in takewhile(lambda pair: pair[1] > 1, reversed(ratios.items()))
            ]
            said = f"from {won[-1]} units on" if won else f"at no width up to {both[-1]} units"
            span = " to ".join(
                dict.fromkeys(f"{r:.2g}" for r in (ratios[both[0]], ratios[both[-1]]))
            )
            found.append(f"faster on {device} than on {cpu} {said} ({span} times) at {where}")
    return f"Devices: {REFERENCE} is {'; '.join(first_of(found, _CLAUSES))}." if found else ""


def gpu_line(rows: Sequence[Row]) -> str:
    """Peak GPU memory and energy of the arms in one sentence, ranges over the cells; else empty.

    >>> gpu_line([Row({}, "dense", device_bytes=3 * 2**20, joules=4e-5)])
    'GPU memory at its peak, and energy for 1,000 examples: dense 3 MiB, 0.04 J.'
    """
    found = []
    for arm in dict.fromkeys(row.arm for row in rows):
        own = [row for row in rows if row.arm == arm]
        mebibytes = sorted(r.device_bytes / 2**20 for r in own if r.device_bytes >= 0)
        joules = sorted(1000 * r.joules for r in own if r.joules >= 0)
        said = []
        for values, form, unit in ((mebibytes, ",.0f", "MiB"), (joules, ".2g", "J")):
            texts = list(dict.fromkeys(f"{v:{form}}" for v in (values[:1] + values[-1:])))
            said += [f"{' to '.join(texts)} {unit}"] if texts else []
        found += [f"{arm} {', '.join(said)}"] if said else []
    if not found:
        return ""
    return f"GPU memory at its peak, and energy for 1,000 examples: {'; '.join(found)}."

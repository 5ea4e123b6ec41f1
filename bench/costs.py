"""What a plan will take, from what like comparisons took: `python -m bench.grid --plan-cost`.

The time of a comparison is put together from parts that records tell apart: an epoch of training
(some per step, some per product of the matrices), building and compiling (some per arm, some per
layer), timing (as much of `--time-cap` as it took before). So it can be told for cells, epochs and
seeds that were never run. How the parts add up over workers is simulated (see
`bench.simulation`).
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from bench.arms import AGAIN
from bench.ceilings import ceiling_cap
from bench.evidence import Evidence, cell_kind
from bench.nvml import gpu_names
from bench.plan import Cell, Comparison
from bench.records import Record
from bench.tasks import EXAMPLES, TASKS, task_of
from fixedbias.datasets import check_name

_LEAST_SPREAD = 0.05  # no two runs of one comparison take the same time


@dataclass(frozen=True)
class Prediction:
    """What every comparison of a plan will take.

    Args:
        seconds: Of each.
        spread: Standard deviation of the log of what the records took over what this says of them.
        beyond: How many times as many products the largest cell has as the largest recorded one.
        whole_cap: Whether timing is counted with all of `--time-cap`, because how much of it is
            needed was recorded under other rules of timing.
        watts: Mean power of a device while it measured, where the records have its energy.
    """

    seconds: list[float]
    spread: float
    beyond: float
    whole_cap: bool
    watts: float | None


def predict(plan: Sequence[Comparison], evidence: Evidence) -> Prediction:
    """Seconds of every comparison of a plan.

    Args:
        plan: The comparisons.
        evidence: A run that fits it.
    """
    kinds: dict[tuple, list[Record]] = {}
    for record in evidence.records:
        kinds.setdefault(cell_kind(record.cell), []).append(record)
    laws = {kind: _Law(records, evidence.run.options) for kind, records in kinds.items()}
    seconds = [laws[cell_kind(vars(c.cell))].seconds(c, _examples(c.cell)) for c in plan]
    ratios = [ratio for law in laws.values() for ratio in law.residuals]
    largest = max(_products(r.cell) for r in evidence.records)
    return Prediction(
        seconds,
        max(_LEAST_SPREAD, float(np.std(np.log(ratios)))),
        max(_products(vars(c.cell)) for c in plan) / largest,
        not all(c.accuracy_only or _same_rules(c, evidence.run.options) for c in plan),
        _watts(evidence.records, evidence.machine),
    )


class _Law:
    """What comparisons of one kind take, fitted to those that were recorded."""

    def __init__(self, records: Sequence[Record], options: dict[str, Any]) -> None:
        self._options = options
        parts = [_Parts(record, options) for record in records]
        self._epoch = _fit(
            [_epoch_terms(r.cell, r.extra["examples"]) for r in records], [p.epoch for p in parts]
        )
        self._building = _fit(
            [[1.0, r.cell["layers"]] for r in records], [p.building for p in parts]
        )
        # Means, because what is asked for is a sum.
        self._timing = statistics.fmean(p.timing_share for p in parts)
        self._ceiling = statistics.fmean(p.ceiling_share for p in parts)
        cap = options["time_cap"]
        timed = self._timing * cap + self._ceiling * ceiling_cap(cap)
        self.residuals = [
            r.extra["seconds"]
            / (
                len(r.arms) * float(np.dot(self._building, [1.0, r.cell["layers"]]))
                + p.epochs * float(np.dot(self._epoch, _epoch_terms(r.cell, r.extra["examples"])))
                + timed
            )
            for r, p in zip(records, parts, strict=True)
        ]

    def seconds(self, comparison: Comparison, examples: int) -> float:
        cell, arms = comparison.cell, len(comparison.arms) + _own(comparison.layer)
        epochs = arms * _epochs(comparison.epochs, comparison.seeds)
        building = np.dot(self._building, [1.0, cell.layers])
        epoch = np.dot(self._epoch, _epoch_terms(vars(cell), examples))
        if comparison.accuracy_only:
            return float(arms * building + epochs * epoch)
        share = self._timing if _same_rules(comparison, self._options) else 1.0
        timing = comparison.time_cap * share
        ceiling = self._ceiling * ceiling_cap(comparison.time_cap)
        # The reference is there twice: A/A is built and timed, but not trained.
        return float((arms + 1) * building + epochs * epoch + timing + ceiling)


def _same_rules(comparison: Comparison, options: dict[str, Any]) -> bool:
    """Whether a run's comparisons were timed by the rules of this one."""
    rules = ("halfwidth", "time_cap", "builds")
    return all(options[name] == getattr(comparison, name) for name in rules)


class _Parts:
    """Where a recorded comparison's time went."""

    def __init__(self, record: Record, options: dict[str, Any]) -> None:
        trained = [a for name, a in record.arms.items() if name != AGAIN and "error" not in a]
        training = sum(arm.get("training_seconds", 0.0) for arm in trained)
        runs = len(trained) * options["seeds"] * options["epochs"]
        timing = record.extra.get("timing_seconds", 0.0)
        ceiling = record.extra.get("ceiling", {}).get("seconds", 0.0)
        self.epoch = training / max(1, runs)
        self.epochs = len(trained) * _epochs(options["epochs"], options["seeds"])
        self.timed = timing + ceiling
        other = record.extra["seconds"] - self.timed - self.epochs * self.epoch
        self.building = max(0.0, other) / len(record.arms)
        self.timing_share = timing / options["time_cap"]
        self.ceiling_share = ceiling / ceiling_cap(options["time_cap"])


def _epochs(epochs: int, seeds: int) -> int:
    """Epochs that an arm is trained: its full trainings, and one to compile."""
    return seeds * epochs + 1


def _fit(terms: Sequence[Sequence[float]], values: Sequence[float]) -> np.ndarray:
    """Coefficients that are not negative, such that every value is met as well relatively."""
    matrix, target = np.asarray(terms, float), np.asarray(values, float)
    # Terms that the records do not tell apart are left to the first of them.
    constant = np.ptp(matrix / matrix[0], axis=0) < 1e-9
    keep = np.flatnonzero(~constant | (np.cumsum(constant) == 1))
    weights = 1 / np.maximum(target, 1e-9)
    found = np.zeros(matrix.shape[1])
    found[keep] = nnls(matrix[:, keep] * weights[:, None], target * weights)[0]
    return found


def _epoch_terms(cell: dict[str, Any], examples: int) -> list[float]:
    """Products of the matrices in an epoch, and its steps."""
    return [_products(cell) * examples / 1e9, examples / cell["batch_size"] / 1e3]


def _products(cell: dict[str, Any]) -> float:
    """Multiplications per example of a forward pass."""
    task = task_of(cell["data"])
    units, hidden = cell["units"], cell["layers"] - 1
    if not hidden:
        return float(math.prod(task.input_shape) * task.outputs)
    inner = (hidden - 1) * units**2
    return float(math.prod(task.input_shape) * units + inner + units * task.outputs)


def _examples(cell: Cell) -> int:
    return EXAMPLES if cell.data in TASKS else check_name(cell.data)


def _own(layer: Sequence[str]) -> int:
    return sum("=" not in word for word in layer)


def _gpu_index(record: Record, machine: dict[str, Any], count: int) -> int | None:
    """NVML's number, of `count`, of the GPU that a comparison ran on; None on a CPU, or where that
    is not known.

    NVML shows all GPUs of a host, whichever of them `CUDA_VISIBLE_DEVICES` leaves to TensorFlow.
    """
    kind, _, number = record.cell["device"].partition(":")
    if kind != "gpu":
        return None
    if count == 1:
        return 0
    visible = machine["flags"].get("CUDA_VISIBLE_DEVICES")
    visible = record.extra.get("worker", {}).get("gpu") or visible
    names = gpu_names(visible, [])
    name = names[int(number)] if int(number) < len(names) else number
    return int(name) if name.isdecimal() else None


def _watts(records: Sequence[Record], machine: dict[str, Any]) -> float | None:
    """Mean power of the GPUs over the comparisons whose energy was counted."""
    joules = seconds = 0.0
    for record in records:
        before, after = (
            [gpu.get("energy_mj") for gpu in state.get("gpus", [])]
            for state in (record.before, record.after)
        )
        if before and len(before) == len(after) and None not in (*before, *after):
            n = _gpu_index(record, machine, len(before))
            if n is not None and n < len(before):
                joules += (after[n] - before[n]) / 1000
                seconds += record.extra["seconds"]
    return joules / seconds if seconds else None

"""What a run's records say, arm by arm: speed, verdict, accuracy, share of the ceiling."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.arms import AGAIN, REFERENCE
from bench.ceilings import ceiling_share
from bench.records import Record
from bench.verdicts import (
    Difference,
    Ratio,
    Verdict,
    accuracy_difference,
    judge_family,
    paired_ratio,
    verdict,
)

# Bounds of the quality gate: ten classes make 10 % chance, and no network of dense layers has
# shown more than 99.9 % on MNIST's test images.
_LEARNT, _TOO_GOOD = 0.2, 0.999


@dataclass(frozen=True)
class Row:
    """One arm of one cell.

    Args:
        cell: The record's cell.
        arm: Name of the arm.
        examples_per_second: Of the median sample; NaN if it was not timed.
        ratio: Speed over the reference's; None for the reference and for what was not timed.
        verdict: On that ratio, corrected for the number of verdicts in the run.
        accuracy: Mean test accuracy over the seeds, a share.
        difference: Accuracy minus the reference's, paired by seed, a share.
        ceiling: Share of the rate of the bare matrix products, NaN if that was not measured.
        flags: What the reader must know before believing the row.
    """

    cell: dict[str, Any]
    arm: str
    examples_per_second: float = math.nan
    ratio: Ratio | None = None
    verdict: Verdict | None = None
    accuracy: float = math.nan
    difference: Difference | None = None
    ceiling: float = math.nan
    flags: list[str] = field(default_factory=list)


def summarise(records: Sequence[Record], *, margin: float) -> list[Row]:
    """A row for every arm of every record, in their order; the A/A arm is its reference's twin.

    Args:
        records: Of one run: its verdicts are one family, corrected together.
        margin: Practical margin of the verdicts.
    """
    family = [(r, name) for r in records for name in r.arms if _compared(r, name)]
    judged = judge_family(
        [(r.arms[REFERENCE]["samples"], r.arms[name]["samples"]) for r, name in family],
        margin=margin,
    )
    verdicts = {
        (record.key, name): judgement.verdict
        for (record, name), judgement in zip(family, judged, strict=True)
    }
    return [
        _row(record, name, verdicts.get((record.key, name)), margin)
        for record in records
        for name in record.arms
    ]


def _compared(record: Record, name: str) -> bool:
    return name not in (REFERENCE, AGAIN) and bool(
        record.arms[name].get("samples") and record.arms.get(REFERENCE, {}).get("samples")
    )


def _row(record: Record, name: str, word: Verdict | None, margin: float) -> Row:
    arm, reference = record.arms[name], record.arms.get(REFERENCE, {})
    if "error" in arm:
        return Row(record.cell, name, flags=[arm["error"]])
    samples, baseline = arm.get("samples", []), reference.get("samples", [])
    ratio = paired_ratio(baseline, samples) if samples and name != REFERENCE else None
    if ratio and name == AGAIN:
        word = verdict(ratio, margin=margin)
    accuracies = arm.get("accuracies", [])
    failures = _failures(arm, record.cell["data"])
    if failures and word:
        word = Verdict.CANT_TELL  # the speed of a training that does not work is no merit
    return Row(
        cell=record.cell,
        arm=name,
        examples_per_second=1 / statistics.median(samples) if samples else math.nan,
        ratio=ratio,
        verdict=word,
        accuracy=statistics.fmean(accuracies) if accuracies else math.nan,
        difference=_difference(reference.get("accuracies", []), accuracies, name),
        ceiling=_ceiling(record, ratio),
        flags=failures + _doubts(arm, ratio, name),
    )


def _ceiling(record: Record, ratio: Ratio | None) -> float:
    """Speed as a share of the best bare matrix products, measured beside the reference arm."""
    samples = record.extra.get("ceiling", {}).get("samples", {})
    if REFERENCE not in samples or not samples[REFERENCE]:
        return math.nan
    return ceiling_share(samples, REFERENCE) * (ratio.estimate if ratio else 1.0)


def _difference(baseline: list[float], accuracies: list[float], name: str) -> Difference | None:
    if name == REFERENCE or not accuracies or len(baseline) != len(accuracies):
        return None
    if not all(map(math.isfinite, [*baseline, *accuracies])):
        return None
    return accuracy_difference(baseline, accuracies)


def _failures(arm: dict[str, Any], data: str) -> list[str]:
    """The quality gate: why this arm's training is none."""
    found = []
    losses = [loss for history in arm.get("histories", []) for loss in history["loss"]]
    if not all(map(math.isfinite, losses)):
        found.append("the loss was not finite")
    accuracies = arm.get("accuracies", [])
    # In synthetic data there is nothing to learn.
    if accuracies and max(accuracies) < _LEARNT and not data.startswith("synthetic"):
        found.append("learnt nothing")
    return found


def _doubts(arm: dict[str, Any], ratio: Ratio | None, name: str) -> list[str]:
    found = []
    if max(arm.get("accuracies") or [0]) > _TOO_GOOD:
        found.append("suspiciously accurate")
    if name == AGAIN and ratio and not ratio.low <= 1 <= ratio.high:
        found.append("the interval of A/A leaves out 1: read this cell's ratios with care")
    return found

"""What a run's records say, arm by arm: speed, verdict, accuracy, share of the ceiling."""

import itertools
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.arms import AGAIN, REFERENCE
from bench.ceilings import ceiling_share
from bench.families import judge_family
from bench.ratios import Ratio, paired_ratio
from bench.records import Record
from bench.tasks import task_of
from bench.verdicts import Difference, Verdict, accuracy_difference, verdict

# Of the loss of the first epoch: no training that converges gets there.
_EXPLODED = 10
# Of the reference's, for what explodes within its first epoch: one that learns nothing stays below.
_EXPLODED_BESIDE = 1000
_TARGETS = {"mnist": 0.97}


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
        device_bytes: Peak of the GPU memory that the arm took, the data apart; NaN on a CPU.
        joules: Energy of the GPU for an example, in joules; NaN where it is not counted.
        seconds_to_target: Of training until the target accuracy, one of each seed, infinite where
            it was never reached; none without a target.
        flags: What the reader must know before believing the row.
        failed: The arm raised an error, which is its only flag.
        key: Of the record.
    """

    cell: dict[str, Any]
    arm: str
    examples_per_second: float = math.nan
    ratio: Ratio | None = None
    verdict: Verdict | None = None
    accuracy: float = math.nan
    difference: Difference | None = None
    ceiling: float = math.nan
    device_bytes: float = math.nan
    joules: float = math.nan
    seconds_to_target: list[float] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    failed: bool = False
    key: str = ""

    @property
    def median_to_target(self) -> float:
        """Median over the seeds of `seconds_to_target`: infinite if half of them or more fail."""
        return statistics.median(self.seconds_to_target or [math.nan])


def by_record(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each record, by its key; none for a record without arms."""
    own = defaultdict(list)
    for row in rows:
        own[row.key].append(row)
    return own


def target_accuracy(data: str, target: float | None) -> float | None:
    """The test accuracy to be reached: what was asked for, else 0.97 on MNIST."""
    return target or _TARGETS.get(data)


def seconds_to(history: dict[str, list[float]], target: float) -> float:
    """Seconds of training until the test accuracy after an epoch is the target or more.

    Compiling, bringing in the data and validating are not in it. Infinite if it is never reached.

    >>> seconds_to({"val_accuracy": [0.9, 0.97, 0.96], "seconds": [2.0, 1.5, 1.5]}, 0.97)
    3.5
    """
    spent = 0.0
    for accuracy, seconds in zip(history.get("val_accuracy", []), history["seconds"], strict=False):
        spent += seconds
        if accuracy >= target:
            return spent
    return math.inf


def summarise(
    records: Sequence[Record], *, margin: float, target: float | None = None
) -> list[Row]:
    """A row for every arm of every record, in their order; the A/A arm is its reference's twin.

    Args:
        records: Of one run: its verdicts are one family, corrected together; with several
            machines, a family for each (see `bench.places`).
        margin: Practical margin of the verdicts.
        target: Test accuracy whose time to reach is asked for; by default `target_accuracy`'s.
    """
    verdicts: dict[tuple[str, str], Verdict] = {}
    for machine in dict.fromkeys(record.cell.get("machine") for record in records):
        own = [record for record in records if record.cell.get("machine") == machine]
        family = [(r, name) for r in own for name in r.arms if _compared(r, name)]
        judged = judge_family(
            [(r.arms[REFERENCE]["samples"], r.arms[name]["samples"]) for r, name in family],
            builds=[record_builds(r) for r, _ in family],
            margin=margin,
        )
        for (record, name), judgement in zip(family, judged, strict=True):
            verdicts[record.key, name] = judgement.verdict
    return [
        _row(record, name, verdicts.get((record.key, name)), margin, target)
        for record in records
        for name in record.arms
    ]


def family_sizes(rows: Sequence[Row]) -> list[int]:
    """How many verdicts there are of each machine, those of A/A left out: the largest first."""
    judged = [row for row in rows if row.verdict and row.arm != AGAIN]
    return sorted(Counter(row.cell.get("machine") for row in judged).values(), reverse=True)


def _compared(record: Record, name: str) -> bool:
    return name not in (REFERENCE, AGAIN) and bool(
        record.arms[name].get("samples") and record.arms.get(REFERENCE, {}).get("samples")
    )


def record_builds(record: Record) -> list[int]:
    """The first round of every build of the arms; older records have one build."""
    builds: list[int] = record.extra.get("builds", [0])
    return builds


def _row(
    record: Record, name: str, word: Verdict | None, margin: float, target: float | None
) -> Row:
    arm, reference = record.arms[name], record.arms.get(REFERENCE, {})
    if "error" in arm:
        return Row(record.cell, name, flags=[arm["error"]], failed=True, key=record.key)
    samples, baseline = arm.get("samples", []), reference.get("samples", [])
    ratio = None
    if samples and name != REFERENCE:
        ratio = paired_ratio(baseline, samples, builds=record_builds(record))
    if ratio and name == AGAIN:
        word = verdict(ratio, margin=margin)
    accuracies = arm.get("accuracies", [])
    goal = target_accuracy(record.cell["data"], target)
    failures = find_failures(record, name)
    broken = failures or find_failures(record, REFERENCE)
    if broken and word:
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
        device_bytes=arm.get("device_peak_bytes", math.nan),
        joules=arm.get("joules_per_example", math.nan),
        seconds_to_target=[seconds_to(h, goal) for h in arm.get("histories", []) if goal],
        flags=failures + _doubts(arm, ratio, name, record.cell["data"]),
        key=record.key,
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


def find_failures(record: Record, name: str) -> list[str]:
    """The quality gate: why an arm's training is none, be it with one seed only.

    Args:
        record: Of the comparison.
        name: Of the arm, which may not be there.
    """
    arm, data = record.arms.get(name, {}), record.cell["data"]
    found = []
    histories = arm.get("histories", [])
    losses = [h["loss"] + h.get("val_loss", []) for h in histories]
    if not all(map(math.isfinite, itertools.chain(*losses))):
        found.append("the loss was not finite")
    elif any(_exploded(h["loss"], record) for h in histories if h["loss"]):
        found.append("the loss exploded")
    accuracies = arm.get("accuracies", [])
    unlearnt = [a for a in accuracies if a < task_of(data).learnt]
    # In synthetic data there is nothing to learn.
    if unlearnt and not data.startswith("synthetic"):
        seeds = f" with {len(unlearnt)} of {len(accuracies)} seeds"
        found.append("learnt nothing" + seeds * (len(unlearnt) < len(accuracies)))
    return found


def _exploded(losses: list[float], record: Record) -> bool:
    others = record.arms.get(REFERENCE, {}).get("histories", [])
    first = [h["loss"][0] for h in others if h["loss"]]
    return losses[-1] > min(
        _EXPLODED * losses[0], *(_EXPLODED_BESIDE * loss for loss in first if loss > 0), math.inf
    )


def _doubts(arm: dict[str, Any], ratio: Ratio | None, name: str, data: str) -> list[str]:
    found = []
    if max(arm.get("accuracies") or [0]) > task_of(data).too_good:
        found.append("suspiciously accurate")
    if name == AGAIN and ratio and not ratio.low <= 1 <= ratio.high:
        found.append("the interval of A/A leaves out 1: read this cell's ratios with care")
    return found

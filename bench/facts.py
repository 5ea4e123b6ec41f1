"""The words and tables of a report: what a run says, how it was measured, what went wrong."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.arms import AGAIN, REFERENCE
from bench.families import correction, family_rate
from bench.findings import Findings
from bench.labels import names, provenance
from bench.panels import Story
from bench.places import UNLIKE, kinds_of
from bench.profiling import profile_rows, read_profiles
from bench.records import BadRecord, Record, Run
from bench.sentences import accuracy_line, device_line, headline, precision_line, target_line
from bench.style import looks
from bench.summary import Row, by_record, family_sizes, record_builds

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Facts:
    """What a report says, as plain text; its pictures are drawn from `story`."""

    title: str
    headline: str
    lead: list[str]
    source: list[str]
    tables: list[tuple[str, str, Table]]
    troubles: list[str]
    method: list[str]
    machine: list[tuple[str, str]]
    story: Story


def gather(found: Findings) -> Facts:
    """Says what there is to say of a run."""
    run, records, rows, target = found.run, found.records, found.rows, found.target
    arms = list(dict.fromkeys(name for record in records for name in record.arms))
    story = Story(run, records, rows, looks(arms), found.margin, target)
    numbers = _numbers(records, rows, target)
    learning = [accuracy_line(rows), target_line(rows, target) if target else ""]
    lead = [*learning, precision_line(rows), device_line(rows), _instrument(rows)]
    return Facts(
        title=f"{run.dataset['name']}, {len(records)} of {len(run.plan)} cells, {run.created[:10]}",
        headline=headline(rows, found.failed),
        lead=[line for line in lead if line],
        source=provenance(run),
        tables=[_shown(numbers, len(records)), *_profiles(found.folder)],
        troubles=troubles(run, records, rows, found.problems),
        method=_method(run, records, rows),
        machine=_machine(run),
        story=story,
    )


def troubles(
    run: Run, records: Sequence[Record], rows: Sequence[Row], problems: Sequence[BadRecord]
) -> list[str]:
    """Every cell that failed, is missing or must be read with care, a sentence for each."""
    found = []
    own = by_record(rows)
    known = {record.key for record in records} | {problem.path.stem for problem in problems}
    for record, cell in zip(records, names([r.cell for r in records]), strict=True):
        said = [f"failed: {record.reason}"] if record.status == "failed" else []
        said += [f"{row.arm}: {flag}" for row in own[record.key] for flag in row.flags]
        said += [note for note in record.notes if note not in said]
        if record.stop == "time":
            missing = record.extra.get("rounds_missing", 0)
            said.append(
                f"the time cap ended it after {record.rounds} rounds, about {missing} short of the "
                f"precision that was asked for"
            )
        if short := record.extra.get("short_rounds", 0):
            said.append(f"{short} rounds were taken again because a sample was too short")
        found += [f"{cell}: {what}" for what in dict.fromkeys(said)]
    found += [f"not read: {problem.path.name}: {problem.reason}" for problem in problems]
    found += [f"not measured: {key}" for key in run.plan if key not in known]
    return found


_ROWS = 2000  # of the table: a page of more is slow to open

_NUMBERS = (
    "Ratio: speed over that of dense, with its 95 % interval. Difference: test accuracy minus that "
    "of dense, in percentage points, with its 95 % interval over the seeds. Ceiling: share of the "
    "speed of the bare matrix products. GPU MiB: the arm's memory there at its peak, the data "
    "apart; J for 1,000: energy of the GPU for as many examples."
)


def _numbers(records: Sequence[Record], rows: Sequence[Row], target: float | None) -> Table:
    head = ["cell", "arm", "examples/s", "ratio", "interval", "verdict", "accuracy", "difference"]
    head += [f"seconds to {target:.4g}"] if target else []
    on_gpu = any(row.device_bytes >= 0 or row.joules >= 0 for row in rows)
    head += ["GPU MiB", "J for 1,000"] if on_gpu else []
    head += ["ceiling", "compile s", "parameters", "trained"]
    cells = dict(zip([r.key for r in records], names([r.cell for r in records]), strict=True))
    body, own = [], by_record(rows)
    for record in records:
        for row in own[record.key]:
            arm = record.arms[row.arm]
            line = [
                cells[record.key],
                row.arm,
                _number(row.examples_per_second, "{:,.0f}"),
                f"{row.ratio.estimate:.3f}" if row.ratio else "",
                _span(row.ratio.low, row.ratio.high, ".3f") if row.ratio else "",
                str(row.verdict or ("failed" if "error" in arm else "")),
                _number(100 * row.accuracy, "{:.2f} %"),
                _difference(row),
            ]
            line += [_number(row.median_to_target, "{:.2f}")] if target else []
            if on_gpu:
                line += [
                    _number(row.device_bytes / 2**20, "{:,.0f}"),
                    _number(1000 * row.joules, "{:.2g}"),
                ]
            line += [
                _number(100 * row.ceiling, "{:.0f} %"),
                _number(arm.get("compile_seconds", math.nan), "{:.2f}"),
                *(
                    f"{arm[k]:,}" if k in arm else ""
                    for k in ("parameters", "trainable_parameters")
                ),
            ]
            body.append(line)
        if not record.arms:
            body.append([cells[record.key], "", "", "", "", "failed", *[""] * (len(head) - 6)])
    return head, body


def _shown(numbers: Table, cells: int) -> tuple[str, str, Table]:
    head, body = numbers
    if len(body) <= _ROWS:
        return "All numbers", _NUMBERS, numbers
    words = f" The first {_ROWS:,} rows of {len(body):,}, of {cells:,} cells: numbers.csv has all."
    return "Numbers", _NUMBERS + words, (head, body[:_ROWS])


def _profiles(folder: Path) -> list[tuple[str, str, Table]]:
    body = [
        (key, arm, *row)
        for key, arms in read_profiles(folder).items()
        for arm, operations in arms.items()
        for row in profile_rows(operations)
    ]
    words = (
        "Of a few training steps of each arm, traced apart from the timing, in processes of their "
        "own: a trace slows what it watches, so only the shares mean something."
    )
    head = ("cell", "arm", "operation", "times", "µs each")
    return [("Operations that took longest", words, (head, body))] if body else []


def _number(value: float, form: str) -> str:
    if math.isinf(value):
        return "never"
    return "" if math.isnan(value) else form.format(value)


def _span(low: float, high: float, form: str) -> str:
    return f"{low:{form}} to {high:{form}}" if math.isfinite(high) else "too few rounds"


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    low, high = 100 * row.difference.low, 100 * row.difference.high
    known = f" ({low:+.2f} to {high:+.2f})" if math.isfinite(high) else " (one seed)"
    return f"{100 * row.difference.estimate:+.2f}{known}"


def _instrument(rows: Sequence[Row]) -> str:
    """What the instrument said of two arms that are the same."""
    again = [row.ratio for row in rows if row.arm == AGAIN and row.ratio]
    if not again:
        return ""
    hold = sum(ratio.low <= 1 <= ratio.high for ratio in again)
    far = max(again, key=lambda ratio: abs(math.log(ratio.estimate))).estimate
    return (
        f"{REFERENCE} against itself: the 95 % interval holds 1 in {hold} of {len(again)} cells; "
        f"the ratio farthest from 1 is {far:.3f}."
    )


def _method(run: Run, records: Sequence[Record], rows: Sequence[Row]) -> list[str]:
    options = run.options
    rounds = [record.rounds for record in records if record.rounds]
    measured = f"{_range(rounds)} rounds" if rounds else "no rounds"
    judged = max(family_sizes(rows), default=0)
    margin = options.get("margin", 0.02)
    timing = (
        "The arms of a cell are built in one process from the same kernels and train on the same "
        f"batches. Each of {measured} timed every arm once, in shuffled order; a sample lasts at "
        f"least {1000 * options.get('floor', 0.02):g} ms and is synchronised once. Timing "
        f"stops when every ratio is known to {options.get('halfwidth', 0.01):.1%}, or after "
        f"{options.get('time_cap', 60):g} s. " + _estimate(records)
    )
    verdicts = (
        "Faster or slower: the 95 % interval of the ratio lies on one side of 1 and the ratio is "
        f"at least {margin:.0%} away. Same: the interval lies within {margin:.0%} of 1. Else: "
        f"can't tell. Verdicts are {correction(judged)}; uncorrected, {judged} arms "
        f"equal to {REFERENCE} would give a wrong one in {family_rate(judged):.0%} of runs."
    )
    accuracy = (
        f"Accuracy comes from {options.get('seeds', '?')} full trainings of "
        f"{options.get('epochs', '?')} epochs per arm, paired by seed. Compiling, bringing in the "
        "data and training are timed apart."
    )
    cluster = (
        "The comparisons ran on a cluster, each as a whole on one worker that owned the cores and "
        "the GPU it was measured on."
    )
    unlike = [UNLIKE] if "kinds" in run.machine else []
    if options.get("accuracy_only"):
        timing, verdicts = "Nothing was timed: the run is about accuracy alone.", ""
    return [
        *filter(None, (timing, verdicts, accuracy)),
        *([cluster] if "made" in run.machine else []),
        *unlike,
    ]


def _estimate(records: Sequence[Record]) -> str:
    """How a ratio comes from the rounds, as `bench.ratios` has it."""
    builds = [len(record_builds(record)) for record in records if record.rounds]
    if max(builds, default=1) == 1:
        return "A ratio is the median of those of the rounds, its interval that of the sign test."
    return (
        f"The arms were built {_range(builds)} times: an arm's time in a build is the mean of its "
        "fastest third of samples there, a ratio the mean over the builds, and its interval "
        "Student's, from their scatter. Examples/s are those of the median sample."
    )


def _range(numbers: Sequence[int]) -> str:
    return " to ".join(dict.fromkeys(map(str, (min(numbers), max(numbers)))))


def _machine(run: Run) -> list[tuple[str, str]]:
    facts = [("command", " ".join(run.argv)), ("started", run.created)]
    for letter, machine in kinds_of(run.machine).items():
        own = _one_machine(machine)
        facts += [(f"{name}, machine {letter}", v) for name, v in own] if letter else own
    facts.append(("data", ", ".join(f"{k} {v}" for k, v in run.dataset.items())))
    if run.git:
        changed = " with changes" if run.git.get("dirty") else ""
        facts.append(("commit", f"{run.git['commit']}{changed}"))
    return facts


def _one_machine(machine: dict[str, Any]) -> list[tuple[str, str]]:
    cpu = machine["cpu"]
    cores = f"{cpu['usable_cores']} usable of {cpu['logical_cores']} logical cores"
    facts = [("made", machine["made"])] if "made" in machine else []
    facts += [
        ("CPU", f"{cpu['model']}, {cores}"),
        ("memory", f"{(machine.get('memory_bytes') or 0) / 2**30:.1f} GiB"),
    ]
    for gpu in machine.get("gpus", []):
        known = [str(gpu[k]) for k in ("name", "driver", "power_limit_watts") if gpu.get(k)]
        facts.append(("GPU", ", ".join(known)))
    return [
        *facts,
        ("system", f"{machine['os']}, {machine['architecture']}"),
        ("Python", machine["python"]),
        ("packages", ", ".join(f"{n} {v}" for n, v in machine["versions"].items())),
        ("flags", ", ".join(f"{n}={v}" for n, v in machine["flags"].items()) or "none set"),
        ("machine id", machine["id"]),
    ]

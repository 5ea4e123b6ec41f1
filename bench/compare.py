"""`python -m bench.compare RUN_A RUN_B`: the same cells across two runs, with verdicts.

Two runs were made at two times, and a machine's speed drifts: their absolute speeds prove
nothing. So every arm is compared by what was measured beside it in the same rounds. An arm's speed
relative to `dense` in run A is held against the same in run B; `dense` itself is held against the
bare matrix products.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from bench.arms import AGAIN, REFERENCE
from bench.places import kinds_of, told_apart
from bench.ratios import Ratio, paired_ratio
from bench.records import BadRecord, Record, Run, cell_key, read_run
from bench.rules import UsageError, usage_error
from bench.summary import find_failures, record_builds
from bench.verdicts import Verdict, verdict
from fixedbias.text import first_of

_ROWS = 200  # of the table, or of what failed: more are not read on a terminal
# Seconds of a reference and of what is held against it, and the builds they come from.
_Pair = tuple[list[float], list[float], list[int]]


@dataclass(frozen=True)
class Options:
    """Compares two runs cell by cell, RUN_B against RUN_A."""

    run_a: Annotated[Path, tyro.conf.Positional]
    """Folder of the run to compare with."""
    run_b: Annotated[Path, tyro.conf.Positional]
    """Folder of the run in question."""
    fail_on: Literal["slower", "never"] = "never"
    """End with exit status 1 if any arm of RUN_B is slower, failed or cannot be read."""
    margin: float = 0.02
    """Changes within this are the same for all practical purposes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, 1 (with `--fail-on`), 2 for bad input."""
    options = tyro.cli(
        Options,
        args=list(sys.argv[1:] if argv is None else argv),
        prog="python -m bench.compare",
    )
    try:
        if not 0 < options.margin < math.inf:
            raise UsageError(f"--margin must be a positive number. Received: {options.margin}.")
        (run_a, records_a, lost_a), (run_b, records_b, lost_b) = map(
            _read, (options.run_a, options.run_b)
        )
        in_b = {record.key: record for record in records_b}
        shared = [(a, in_b[a.key]) for a in records_a if a.key in in_b]
        if not shared and not lost_a + lost_b:
            runs, why = f"{options.run_a} and {options.run_b}", _why(records_a, records_b)
            raise UsageError(f"{runs} have no cell in common{why}.")
    except UsageError as error:
        return usage_error(error)
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    for difference in _differences(run_a, run_b):
        console.print(difference, soft_wrap=True)
    table = Table("cell", "arm", "beside", "B / A", "", "verdict", box=None, header_style="bold")
    verdicts, alike = [], 0
    pairs = [(a, b, pair) for a, b in shared for pair in pairs_of(a, b)]
    for a, b, (arm, beside, pair) in pairs:
        change = change_of(*pair)
        broken = any(find_failures(r, name) for r in (a, b) for name in (arm, REFERENCE))
        # The speed of a training that does not work is no merit.
        word = Verdict.CANT_TELL
        if not broken:
            word = verdict(change_of(*pair, family=len(pairs)), margin=options.margin)
        verdicts.append(word)
        if len(pairs) > _ROWS and word in (Verdict.SAME, Verdict.CANT_TELL):
            alike += 1
            continue
        interval = f"{change.low:.3f}-{change.high:.3f}"
        table.add_row(a.key, arm, beside, f"{change.estimate:.3f}", interval, str(word))
    console.width = max(console.width, 120)
    console.print(table)
    if alike:
        console.print(f"not in the table: {alike:,} that are the same or where one can't tell")
    alone = len({r.key for r in records_a} ^ {r.key for r in records_b})
    if alone:
        console.print(f"{alone} cells are in one run only, and left out")
    failed = [failures(records_a), failures(records_b)]
    for run, found in zip("AB", failed, strict=True):
        for failure in first_of(found, _ROWS):
            console.print(f"failed in RUN_{run}: {failure}", soft_wrap=True)
    for problem in lost_a + lost_b:
        console.print(f"not read: {problem}", soft_wrap=True)
    slower = verdicts.count(Verdict.SLOWER)
    corrected = ", verdicts corrected for their number (Bonferroni)" * (len(verdicts) > 1)
    console.print(f"{len(verdicts)} comparisons, {slower} slower{corrected}")
    # What failed in B or cannot be read may be slower too: no gate for it to pass.
    doubtful = slower or failed[1] or lost_b
    return 1 if doubtful and options.fail_on == "slower" else 0


def _read(folder: Path) -> tuple[Run, list[Record], list[BadRecord]]:
    try:
        run, records, problems = read_run(folder)
        run, _ = told_apart(run, records)
    except (BadRecord, OSError) as error:
        raise UsageError(f"Two folders of runs are needed: {error}.") from None
    return run, records, problems


def failures(records: Sequence[Record]) -> list[str]:
    """A line for every cell that failed, and for every arm of the others that did."""
    cells = [f"{r.key}, {r.reason}" for r in records if r.status == "failed"]
    return cells + [
        f"{r.key}, {name}: {arm['error']}"
        for r in records
        if r.status == "ok"
        for name, arm in r.arms.items()
        if "error" in arm
    ]


def _why(*runs: list[Record]) -> str:
    """What alone keeps the cells of two runs apart, if it is the number of threads."""
    without = [
        {cell_key({k: v for k, v in record.cell.items() if k != "threads"}) for record in records}
        for records in runs
    ]
    return ": they were timed on other numbers of --threads" if without[0] & without[1] else ""


def _differences(a: Run, b: Run) -> list[str]:
    """What is not alike about the runs, beside the code: the most important first."""
    found = []
    kinds = [list(kinds_of(run.machine).values()) for run in (a, b)]
    if len({machine["id"] for own in kinds for machine in own}) > 1:
        names = " and ".join(", ".join(str(m["cpu"]["model"]) for m in own) for own in kinds)
        found.append(f"different machines ({names}): no change can be put down to the code")
    cores = [sorted({m["cpu"]["usable_cores"] for m in own}) for own in kinds]
    if cores[0] != cores[1]:
        names = " and ".join(", ".join(map(str, own)) for own in cores)
        found.append(f"different numbers of cores for a comparison: {names}")
    for what in ("versions", "flags"):
        old, new = a.machine[what], b.machine[what]
        found += [
            f"different {what}: {name} {old.get(name)} and {new.get(name)}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
    if a.dataset != b.dataset:
        found.append(f"different data: {a.dataset['name']} and {b.dataset['name']}")
    return found


def pairs_of(a: Record, b: Record) -> list[tuple[str, str, list[Any]]]:
    """What of two records of one cell can be compared.

    Returns:
        For every arm that both have: its name, what it was measured beside, and of `a` and of `b`
        the seconds of that and of the arm, and the builds they come from: for `change_of`.
    """
    found: list[tuple[str, str, list[Any]]] = []
    for name in a.arms:
        if name not in (REFERENCE, AGAIN) and a.arms[name].get("samples"):
            pair = [
                (
                    r.arms.get(REFERENCE, {}).get("samples"),
                    r.arms.get(name, {}).get("samples"),
                    record_builds(r),
                )
                for r in (a, b)
            ]
            found.append((name, REFERENCE, pair))
    ceilings = [r.extra.get("ceiling", {}).get("samples", {}) for r in (a, b)]
    for library in ceilings[0]:
        if library != REFERENCE:
            pair = [(samples.get(library), samples.get(REFERENCE), [0]) for samples in ceilings]
            found.append((REFERENCE, f"{library}'s products", pair))
    return [(name, beside, pair) for name, beside, pair in found if all(map(all, pair))]


def change_of(a: _Pair, b: _Pair, *, family: int = 1) -> Ratio:
    """How much faster an arm became: the ratio of two independent ratios, b over a.

    Its interval is put together from theirs, in logs (Zou and Donner, Statistics in Medicine 27,
    2008): the distances from estimate to bound add up as squares.

    Args:
        a: Seconds of what the arm was measured beside and of the arm, and their builds.
        b: The same of the other run.
        family: Of so many such intervals all hold the truth in 95 % of cases (Bonferroni).
    """
    confidence = 1 - 0.05 / family
    old, new = (
        paired_ratio(before, after, builds=builds, confidence=confidence)
        for before, after, builds in (a, b)
    )
    estimate = new.estimate / old.estimate
    rounds = min(old.rounds, new.rounds)
    if old.low == 0 or new.low == 0:  # too few rounds in one of them
        return Ratio(0.0, estimate, math.inf, rounds, rounds)
    down = math.hypot(math.log(new.estimate / new.low), math.log(old.high / old.estimate))
    up = math.hypot(math.log(new.high / new.estimate), math.log(old.estimate / old.low))
    return Ratio(
        estimate * math.exp(-down), estimate, estimate * math.exp(up), rounds, float(rounds)
    )


if __name__ == "__main__":
    sys.exit(main())

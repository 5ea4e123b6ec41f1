"""What a GPU session must reach, and what it did, from its records alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from bench.arms import REFERENCE
from bench.peers.registry import OURS
from bench.ratios import paired_ratio
from bench.records import Record, read_run
from bench.sentences import device_line
from bench.stacking import time_ratios
from bench.summary import summarise
from bench.verdicts import Verdict


@dataclass(frozen=True)
class Target:
    """One line of the table."""

    what: str
    to_reach: str
    measured: str = ""
    state: Literal["reached", "missed", "not measured", "for a GPU"] = "not measured"


def find_targets(folder: Path, *, on_gpu: bool) -> list[Target]:
    """Every target, with what the runs under a session's folder say of it.

    Args:
        folder: Holds a folder of runs for every step.
        on_gpu: Whether the session measured a GPU; elsewhere the values are shown and not judged.
    """
    records = _records(folder)
    found = [
        *_epochs(records),
        *_peers(records),
        *_stacks(records),
        _share(records),
        _verdicts(records),
    ]
    if on_gpu:
        return found
    return [
        Target(t.what, t.to_reach, t.measured, "for a GPU" if t.measured else t.state)
        for t in found
    ]


def crossover(folder: Path) -> str:
    """From which width on the GPU is faster than the CPU, in a sentence; empty if not measured.

    Args:
        folder: As for `find_targets`.
    """
    both = [r for r in _records(folder, "crossover") if r.cell["engine"] == "compiled"]
    return device_line(summarise(both, margin=0.02))


def _records(folder: Path, step: str = "*") -> list[Record]:
    return [
        record
        for header in sorted(folder.glob(f"{step}/*/run.json"))
        for record in read_run(header.parent)[1]
        if record.status == "ok"
    ]


def _judged(what: str, to_reach: str, measured: str, reached: bool) -> Target:
    return Target(what, to_reach, measured, "reached" if reached else "missed")


def _like(records: list[Record], **cell: Any) -> Iterator[Record]:
    for record in records:
        if all(record.cell.get(name) == value for name, value in cell.items()):
            yield record


_USUAL = {"layers": 3, "units": 128, "batch_size": 128, "precision": "float32"}


def _epochs(records: list[Record]) -> Iterator[Target]:
    """The median epoch, and twenty of them: of `fixed`, compiling and validating apart."""
    one = "one epoch of MNIST, T = 3, 128 units, batch 128", "< 50 ms"
    all_ = "twenty such epochs, after compiling", "< 1 s"
    seconds: list[float] = []
    for record in _like(records, engine="compiled", data="mnist", **_USUAL):
        for history in record.arms.get("fixed", {}).get("histories", []):
            seconds = max(seconds, history["seconds"], key=len)
    if not seconds:
        yield from (Target(*one), Target(*all_))
        return
    middle = median(seconds)
    yield _judged(*one, f"{1000 * middle:.1f} ms", middle < 0.05)
    if len(seconds) < 20:
        yield Target(*all_)
    else:
        yield _judged(*all_, f"{sum(seconds[:20]):.2f} s", sum(seconds[:20]) < 1)


def _peers(records: list[Record]) -> Iterator[Target]:
    rows = (
        ("fit_compiled against the fastest Keras fit, batch 128", "fit", 30.0),
        ("against JAX scan", "jax", 1.0),
        ("against PyTorch with a captured graph", "torch-graph", 2.0),
    )
    for what, peer, least in rows:
        ratios = []
        for record in _like(records, engine="peers", **_USUAL):
            ours = record.arms.get(OURS, {}).get("samples")
            for name, arm in record.arms.items():
                mine = name == peer or (peer == "fit" and name.startswith("fit-"))
                if mine and ours and arm.get("samples"):
                    ratios.append(paired_ratio(arm["samples"], ours))
        if not ratios:
            yield Target(what, f">= {least:g} times")
            continue
        worst = min(ratios, key=lambda ratio: ratio.estimate)
        text = f"{worst.estimate:.2f} times ({worst.low:.2f}-{worst.high:.2f})"
        yield _judged(what, f">= {least:g} times", text, worst.estimate >= least)


def _stacks(records: list[Record]) -> Iterator[Target]:
    for count, limit in ((16, 2.0), (64, 4.0)):
        what, to_reach = f"{count} stacked seeds", f"< {limit:g} times the time of one"
        ratios = [time_ratios(record).get(count) for record in _like(records, engine="stacked")]
        known = [ratio for ratio in ratios if ratio]
        if not known:
            yield Target(what, to_reach)
            continue
        low, estimate, high = known[-1]
        text = f"{estimate:.2f} times ({low:.2f}-{high:.2f})"
        yield _judged(what, to_reach, text, estimate < limit)


def _share(records: list[Record]) -> Target:
    what, to_reach = "4096 units, batch 16384, mixed bf16", ">= 60 % of the measured bf16 products"
    rates = [
        record.arms["bfloat16"]["flops_per_second"]
        for record in _like(records, engine="rates")
        if "bfloat16" in record.arms
    ]
    cell = {"units": 4096, "batch_size": 16384, "precision": "mixed_bfloat16"}
    shares = [
        record.extra["ceiling"]["flops_per_example"] / median(record.arms["fixed"]["samples"])
        for record in _like(records, engine="compiled", **cell)
        if record.arms.get("fixed", {}).get("samples") and record.extra.get("ceiling")
    ]
    if not rates or not shares:
        return Target(what, to_reach)
    share = max(shares) / max(rates)
    return _judged(what, to_reach, f"{share:.0%}", share >= 0.6)


def _verdicts(records: list[Record]) -> Target:
    what, to_reach = f"fixed against {REFERENCE}", "a verdict in every cell, never slower"
    cells = [r for r in _like(records, engine="compiled") if "fixed" in r.arms]
    words = [row.verdict for row in summarise(cells, margin=0.02) if row.arm == "fixed"]
    if not words:
        return Target(what, to_reach)
    counts = [(str(word), words.count(word)) for word in Verdict if word in words]
    text = f"{len(words)} cells: " + ", ".join(f"{count} {word}" for word, count in counts)
    told = all(words) and not {Verdict.SLOWER, Verdict.CANT_TELL}.intersection(words)
    return _judged(what, to_reach, text, told)


def targets_table(targets: list[Target]) -> str:
    """The targets as a Markdown table.

    >>> print(targets_table([Target("16 stacked seeds", "< 2")]))
    | what | to reach | measured | |
    | --- | --- | --- | --- |
    | 16 stacked seeds | < 2 |  | not measured |
    """
    lines = [f"| {t.what} | {t.to_reach} | {t.measured} | {t.state} |" for t in targets]
    return "\n".join(["| what | to reach | measured | |", "| --- | --- | --- | --- |", *lines])

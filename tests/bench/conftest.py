"""Records made by hand: what the summary, the report and the comparison of runs read."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.machine import describe_machine
from bench.plan import Cell
from bench.records import Record, Run, new_run_folder, utc_now, write_record, write_run
from tests.bench.finished_runs import BEGAN, OPTIONS, records_of


def make_record(units: int = 64, *, seed: int = 0, rounds: int = 60, **arms: Any) -> Record:
    """A record whose arms have given speeds relative to dense, with 2 % noise.

    Args:
        units: Tells cells apart.
        seed: Of the noise.
        rounds: Rounds of every arm.
        **arms: Relative speed by arm, or a dict that replaces the arm's whole entry.
    """
    rng = np.random.default_rng(seed)
    cell = Cell(3, units, 32, "float32", "cpu", "compiled", "ramp", "digits")
    drift = np.exp(np.cumsum(rng.normal(0, 0.05, rounds)))
    entries: dict[str, Any] = {}
    for name, speed in {"dense": 1.0, **arms, "dense (A/A)": 1.0}.items():
        if isinstance(speed, dict):
            entries[name] = speed
            continue
        noise = rng.normal(0, 0.02, rounds)
        entries[name] = {
            "samples": list(1e-5 * drift * np.exp(noise) / speed),
            "accuracies": [0.975, 0.976] if name == "dense" else [0.974, 0.977],
            "histories": [{"loss": [0.5, 0.3], "val_accuracy": [0.9, 0.97], "seconds": [1, 1]}],
        }
    timed = [name for name, entry in entries.items() if entry.get("samples")]
    ceiling = {
        "dense": list(1e-5 * np.exp(rng.normal(0, 0.02, 12))),
        "numpy": list(0.6e-5 * np.exp(rng.normal(0, 0.02, 12))),
        "tensorflow": list(0.8e-5 * np.exp(rng.normal(0, 0.02, 12))),
    }
    return Record(
        key=cell.key,
        cell=vars(cell),
        status="ok",
        reason="",
        arms=entries,
        order=[timed] * rounds,
        stop="precision",
        extra={"ceiling": {"samples": ceiling}, "rounds_missing": 0},
        started=utc_now(),
        ended=utc_now(),
    )


def write_run_folder(folder: Path, records: list[Record], **header: Any) -> Path:
    """Writes records as a run into a new folder, and returns it."""
    folder.mkdir()
    common: dict[str, Any] = {
        "created": utc_now(),
        "argv": ["python", "-m", "bench.grid"],
        "options": {},
        "machine": describe_machine(),
        "git": None,
        "dataset": {"name": "digits", "checksum": "0" * 64},
        "seed": 0,
        "plan": [record.key for record in records],
    }
    write_run(folder, Run(**common | header))
    for record in records:
        write_record(folder, record)
    return folder


@pytest.fixture
def make_run(tmp_path: Path) -> Any:
    """Writes records as a run, and returns its folder."""

    def write(name: str, records: list[Record], **header: Any) -> Path:
        return write_run_folder(tmp_path / name, records, **header)

    return write


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return new_run_folder(tmp_path, datetime(2030, 1, 31, 12, 34, 56))


@pytest.fixture
def finished(make_run):
    """A finished run, by its arguments."""

    def write(name: str = "a", arguments: str = OPTIONS, *, created=BEGAN, factor=1.0, **header):
        records, known = records_of(arguments, factor)
        header = {"argv": ["python", "-m", "bench.grid"], **known, **header}
        folder = make_run(name, records, created=created.isoformat(), **header)
        began, last = (
            moment.timestamp() for moment in (BEGAN, datetime.fromisoformat(records[-1].ended))
        )
        times = {"began": began - 4, "first": began, "last": last, "ended": last + 5}
        (folder / "wall.json").write_text(json.dumps(times | {"handling": 0.5}))
        return folder

    return write

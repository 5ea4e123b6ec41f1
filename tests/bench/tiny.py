"""The smallest records: three rounds of two arms, made in no time."""

import math

from hypothesis import strategies as st

from bench import records
from bench.records import Record, Run

CELL = {
    "layers": 3,
    "units": 128,
    "batch_size": 64,
    "precision": "float32",
    "device": "cpu",
    "engine": "compiled",
    "bias": "ramp",
    "data": "mnist",
}
ARMS = {
    "dense": {
        "samples": [2e-6, 4e-6, 3e-6],
        "compile_seconds": 1.5,
        "accuracies": [0.9, 0.8],
        "histories": [{"loss": [0.5], "seconds": [1.0]}],
    },
    "fixed": {"samples": [1e-6, 2e-6, 3e-6], "parameters": 101_770, "compile_seconds": math.nan},
}
ORDER = [["dense", "fixed"], ["fixed", "dense"], ["dense", "fixed"]]


def record(key: str = "tiny", **fields: object) -> Record:
    return Record(**{"key": key, "cell": CELL, "status": "ok", **fields})  # type: ignore[arg-type]


def header(*plan: str) -> Run:
    return Run(
        created=records.utc_now(),
        argv=["python", "-m", "bench.grid"],
        options={"layers": [3]},
        machine={"id": "0"},
        git=None,
        dataset={"name": "mnist", "sha256": "0"},
        seed=1,
        plan=list(plan),
    )


TEXT = st.text() | st.sampled_from(["NaN", "Infinity", "-Infinity", "\\NaN", "\\\\-Infinity", "\\"])

"""Runs whose comparisons took what a known law says, as evidence for `--plan-cost`."""

import json
from datetime import UTC, datetime, timedelta

from bench.arms import AGAIN
from bench.config import parse
from bench.plan import make_plan
from bench.records import Record

BEGAN = datetime(2030, 1, 1, tzinfo=UTC)
OPTIONS = "--device cpu --data digits --layers 2 4 --units 16 64 --epochs 2 --seeds 3 --time-cap 8"


def law(cell, epochs: int, arms: int, again: int = 1) -> float:
    """Seconds of training and building: so much per step, product, arm and layer."""
    products = 784 * cell.units + (cell.layers - 2) * cell.units**2 + 10 * cell.units
    epoch = 3e-9 * 1442 * products + 2e-5 * 1442 / cell.batch_size
    return (arms + again) * (1.5 + 0.5 * cell.layers) + arms * epochs * epoch


def plan_of(arguments: str):
    options = parse(arguments.split())
    return options, make_plan(options, ["cpu"], options.data, None)


def records_of(arguments: str, factor: float = 1.0) -> tuple[list[Record], dict]:
    """Records as the law would have them: each took 2 s more to come back, the first 9 s more."""
    options, plan = plan_of(arguments)
    now, records = BEGAN, []
    for comparison in plan:
        cell = comparison.cell
        epochs = options.seeds * options.epochs
        training = law(cell, epochs, 3) - law(cell, 0, 3)
        timed = not options.accuracy_only
        # Now more, now less of the cap: three quarters on average.
        timing = (0.5, 1.0)[len(records) % 2] * options.time_cap * timed
        seconds = law(cell, epochs + 1, 3, timed) + timing + timed
        names = (*options.arms, *[AGAIN] * timed)
        arms = {n: {"training_seconds": factor * training / 3 if n != AGAIN else 0} for n in names}
        end = now + timedelta(seconds=factor * seconds)
        records.append(
            Record(
                key=cell.key,
                cell=cell.recorded,
                status="ok",
                arms=arms,
                extra={
                    "seconds": factor * seconds,
                    "turnaround_seconds": factor * seconds + 2 + 7 * (not records),
                    "position_in_process": len(records) + 1,
                    "examples": 1442,
                    "timing_seconds": factor * timing,
                    "ceiling": {"seconds": factor * timed},
                },
                started=now.isoformat(),
                ended=end.isoformat(),
            )
        )
        now = end + timedelta(seconds=2)
    return records, {"options": {**vars(options), "results": "", "data_dir": None}}


def on_workers(folder, machines: list[dict]) -> None:
    """Makes a run one of a cluster's workers, which take turns; each is a machine of its own."""
    for n, path in enumerate(sorted((folder / "records").glob("*.json"))):
        record = json.loads(path.read_text())
        turn = n % len(machines)
        worker = {"host": f"h{turn}", "cores": [0], "gpu": None, "machine": machines[turn]}
        record["extra"]["worker"] = worker
        path.write_text(json.dumps(record))

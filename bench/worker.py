"""One comparison, measured in a process of its own."""

import gc
import itertools
import random
import time
from functools import lru_cache
from typing import Any

from bench.arms import AGAIN, REFERENCE, Arm, find_arm, user_arms
from bench.plan import Comparison
from bench.records import Record, utc_now
from bench.tasks import TASKS, make_task, task_of
from fixedbias.text import one_line

_positions = itertools.count(1)
"""Of this process's comparisons: the first is what a new process takes longer for."""


def list_gpus() -> list[str]:
    """Names of the GPUs that TensorFlow sees, in its order."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return [str(tf.config.experimental.get_device_details(g).get("device_name", g)) for g in gpus]


def measure(comparison: Comparison) -> Record:
    """Measures one cell: builds every arm alike, trains it for every seed, times it in rounds.

    An arm that fails is recorded with what it raised, and the others go on; without the
    reference there is no comparison, and the record is `failed`.
    """
    import keras
    import tensorflow as tf

    from bench.machine import held_back, process_memory, read_state, thread_settings
    from bench.runtime import set_precision, set_threads

    position = next(_positions)
    cell = comparison.cell
    set_threads(cell.threads)
    begun = time.perf_counter()
    record: dict[str, Any] = {
        "key": cell.key,
        "cell": cell.recorded,
        "started": utc_now(),
        "before": read_state(),
    }
    runtime = set_precision(cell.precision)
    with tf.device(cell.device):
        found = _measure(comparison)
    problem = found.pop("problem")
    record |= found
    record["after"] = read_state()
    record["notes"] = [*found["notes"], *held_back(record["before"], record["after"])]
    record["extra"] |= {
        "runtime": runtime,
        "threads": thread_settings(),
        "peak_memory_bytes": process_memory(),
        "seconds": time.perf_counter() - begun,
        "position_in_process": position,
    }
    keras.backend.clear_session()
    failure = found["arms"][REFERENCE].get("error", "") or problem
    status = {"status": "failed", "reason": failure} if failure else {"status": "ok", "reason": ""}
    return Record(**record | status, ended=utc_now())


def _measure(comparison: Comparison) -> dict[str, Any]:
    from bench.ceilings import NoCeiling, measure_ceiling
    from bench.engines import burst_steps, prepare_data, training_burst
    from bench.models import CellModel, build_model
    from bench.nvml import GpuWatch
    from bench.timing import Session, measure_rounds
    from bench.usage import PeakMemory, measure_energy

    cell = comparison.cell
    data = prepare_data(cell.engine, dataset_of(cell.data, comparison.data_dir))
    own = user_arms(comparison.layer)
    registry = {name: find_arm(name) for name in comparison.arms} | own
    names = list(registry)
    arms: dict[str, dict[str, Any]] = {}
    models: dict[str, Any] = {}
    bursts: dict[str, Any] = {}

    steps = burst_steps(cell.batch_size, data.examples)
    build_seconds = 0.0

    def arm_of(name: str) -> Arm:
        return registry[REFERENCE if name == AGAIN else name]

    def burst_of(name: str) -> Any:
        size = cell.batch_size
        return training_burst(cell.engine, models[name], data, size, steps * size)

    for name in names if comparison.accuracy_only else [*names, AGAIN]:
        model = None
        memory = PeakMemory(cell.device)
        try:
            begin = time.perf_counter()
            model = CellModel(arm_of(name), cell, data)
            build_seconds += time.perf_counter() - begin
            # A/A is about speed: the reference need not learn the task twice.
            arms[name] = model.train(comparison.epochs, 0 if name == AGAIN else comparison.seeds)
            if comparison.accuracy_only:
                continue
            models[name] = model.keras_model
            if name == REFERENCE and cell.engine in ("compiled", "plain"):
                # A call of `fit` costs as much as many steps: its bursts stay long.
                seconds = min(s for history in arms[name]["histories"] for s in history["seconds"])
                steps = burst_steps(cell.batch_size, data.examples, comparison.floor, seconds)
            begin = time.perf_counter()
            bursts[name] = burst_of(name)
            arms[name]["burst_compile_seconds"] = bursts[name].warm()
            build_seconds += time.perf_counter() - begin
            arms[name] |= memory.found()
        # Any layer may raise anything, or call sys.exit(): it costs its own arm only.
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            arms[name] = {"error": describe_error(error)}
            bursts.pop(name, None)
            models.pop(name, None)
            model = None
            gc.collect()  # what it held on the device is the next arm's to use
    model = None

    shuffle = random.Random(comparison.order_seed).shuffle
    first_is_there = True

    def rebuild() -> dict[str, Any]:
        nonlocal first_is_there
        order = list(bursts)
        shuffle(order)  # what is built first may come to lie better: no arm always is
        models.clear()
        bursts.clear()
        # Two builds need not lie in memory at once. While it times, `measure_rounds` keeps out of
        # collections what lived when it began, the first build among it.
        if first_is_there:
            gc.unfreeze()
        gc.collect()
        if first_is_there:
            gc.freeze()
        first_is_there = False
        try:
            for name in order:
                models[name] = build_model(arm_of(name), cell, 0)
                bursts[name] = burst_of(name)
            for burst in bursts.values():
                burst.warm()
        except (SystemExit, KeyboardInterrupt) as error:  # a layer's
            raise RuntimeError(describe_error(error)) from None
        return bursts

    session = Session({})
    ceiling: dict[str, Any] = {}
    problem, no_ceiling = "", ""
    with GpuWatch(cell.device) as watch:
        if REFERENCE in bursts:
            try:
                session = measure_rounds(
                    bursts,
                    reference=REFERENCE,
                    compared=[name for name in bursts if name != REFERENCE],
                    seed=comparison.order_seed,
                    floor=comparison.floor,
                    halfwidth=comparison.halfwidth,
                    cap=comparison.time_cap,
                    rebuild=rebuild if comparison.builds > 1 else None,
                    min_builds=comparison.builds,
                    build_seconds=build_seconds,
                    watch=watch,
                )
                each = min(1.0, comparison.time_cap / 12)
                for name in (name for name in bursts if name != AGAIN and not session.problem):
                    arms[name] |= measure_energy(
                        bursts[name], watch, repeats=session.repeats, seconds=each
                    )
            except Exception as error:  # the trainings that were done are kept
                problem = describe_error(error)
    if session.order and not session.problem:
        try:
            ceiling = measure_ceiling(comparison, bursts[REFERENCE], steps)
        except NoCeiling as error:
            no_ceiling = f"no ceiling: {error}"
        except Exception as error:  # no reason to lose what was timed
            no_ceiling = f"no ceiling: {describe_error(error)}"
    for name, samples in session.samples.items():
        # Seven digits are finer than the clock; seventeen would double the record.
        arms[name]["samples"] = [float(f"{seconds:.7g}") for seconds in samples]
    return {
        "arms": arms,
        "order": session.order,
        "stop": session.stop,
        "notes": [
            *([] if task_of(cell.data).classes else ["accuracy is R^2 here: it has no classes"]),
            *(f"{n}: {a['error']}" for n, a in arms.items() if "error" in a),
            *([no_ceiling] if no_ceiling else []),
            *([f"timing ended early: {describe_error(e)}"] if (e := session.problem) else []),
            *([watch.note] if watch.note else []),
            *_held_back_rounds(session),
        ],
        "problem": problem,
        "extra": {
            "builds": session.builds,
            "examples": data.examples,
            "burst_steps": steps,
            "repeats": session.repeats,
            "short_rounds": session.short_rounds,
            "retaken_rounds": session.retaken_rounds,
            "held_back_rounds": session.held_back_rounds,
            "held_back_by": session.held_back_by,
            "rounds_missing": session.rounds_missing,
            "timing_seconds": session.seconds,
            "rebuild_seconds": session.rebuild_seconds,
            "ceiling": ceiling,
        },
    }


def _held_back_rounds(session: Any) -> list[str]:
    if not session.held_back_by:
        return []
    reasons = ", ".join(session.held_back_by)
    counts = f"{session.retaken_rounds} rounds taken again, {session.held_back_rounds} kept"
    return [f"the GPU was held back ({reasons}): {counts}"]


_OUT_OF_MEMORY = "out of memory on the device, "


def ran_out(record: Record) -> bool:
    """Whether a device's memory was not enough for a comparison, or for an arm of it."""
    errors = [record.reason, *record.notes, *(a.get("error", "") for a in record.arms.values())]
    return any(_OUT_OF_MEMORY in error for error in errors)


def describe_error(error: BaseException) -> str:
    """What was raised, in one line of at most 1,000 characters that names no user and no host."""
    from bench.machine import anonymous
    from bench.runtime import ran_out_of_memory

    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # an exception of the user's own may fail at this too
        text = "(its text cannot be had)"
        error = Exception()
    said = _OUT_OF_MEMORY if ran_out_of_memory(error) else ""
    return anonymous(one_line(f"{said}{name}: {text}"))[:1000]


@lru_cache(maxsize=1)
def dataset_of(name: str, folder: str | None) -> Any:
    """The images or the task of a cell, kept for the next one."""
    from fixedbias.datasets import load_dataset

    if name in TASKS:
        return make_task(name)
    return load_dataset(name, folder, download=False)

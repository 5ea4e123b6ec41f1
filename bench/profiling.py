"""`--profile`: what a few steps of each arm are made of, traced apart from all that is timed.

A trace slows what it watches and grows with whatever the process did before, so each arm is traced
in a fresh process, warm, for a few steps, and never timed.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.arms import find_arm, user_arms
from bench.plan import Comparison

_STEPS = 5
_TOP = 10


def profile_arm(comparison: Comparison, arm: str, folder: str) -> list[dict[str, Any]]:
    """Traces five steps of an arm, for TensorBoard's Profile tab. For a fresh worker only.

    Args:
        comparison: The cell, and where its data is.
        arm: Name of the arm.
        folder: The arm's TensorBoard directory, which gets `plugins/profile/steps`.

    Returns:
        The operations that took longest: `name`, `count` and `seconds`, all steps together.
    """
    import tensorflow as tf

    from bench.engines import prepare_data, training_burst
    from bench.models import CellModel
    from bench.runtime import set_precision, set_threads
    from bench.worker import dataset_of

    cell = comparison.cell
    set_threads(cell.threads)
    set_precision(cell.precision)
    session = Path(folder, "plugins", "profile")
    # TensorBoard would go on to serve what it derived from an older trace of this name.
    shutil.rmtree(session, ignore_errors=True)
    with tf.device(cell.device):
        data = prepare_data(cell.engine, dataset_of(cell.data, comparison.data_dir))
        own = user_arms(comparison.layer)
        model = CellModel(own.get(arm) or find_arm(arm), cell, data).keras_model
        burst = training_burst(cell.engine, model, data, cell.batch_size, 2 * cell.batch_size)
        for _ in range(3):
            burst.wait(burst.launch())
        tf.profiler.experimental.start(folder)
        for step in range(_STEPS):
            # `_r` marks the root of a step, without which the viewer finds none.
            with tf.profiler.experimental.Trace("train", step_num=step, _r=1):
                burst.wait(burst.launch())
        tf.profiler.experimental.stop()
    (trace,) = session.glob("*/*.xplane.pb")
    home = session / "steps"
    trace.parent.rename(home)
    path = home / f"{cell.device.replace(':', '')}.xplane.pb"
    (home / trace.name).rename(path)  # it was named after the host
    _mask(path)
    return _top_operations(path)


def _mask(path: Path) -> None:
    """Runs get published: the trace must not say on which host it was made, nor in which folder."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    trace = xplane_pb2.XSpace.FromString(path.read_bytes())
    del trace.hostnames[:]
    found = trace.SerializeToString()
    folders = {str(p) for p in (Path(__file__).parents[1], Path.cwd(), Path.home())} - {"/"}
    for folder in sorted(folders, key=len, reverse=True):
        name = folder.encode()
        found = found.replace(name, b"/" + b"_" * (len(name) - 1))  # its length is in the file too
    path.write_bytes(found)


def write_profile(folder: Path, key: str, arm: str, operations: list[dict[str, Any]]) -> None:
    """Keeps the top operations of an arm beside the records, for the report and the Text tab."""
    path = folder / "profiles" / f"{key}.json"
    path.parent.mkdir(exist_ok=True)
    known = read_profiles(folder).get(key, {})
    temporary = path.with_suffix(".tmp")  # whole or not at all
    temporary.write_text(json.dumps(known | {arm: operations}, indent=1) + "\n")
    temporary.replace(path)


def read_profiles(folder: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The top operations by key of the cell and arm; empty for a run that was not profiled."""
    found = {}
    for path in sorted((folder / "profiles").glob("*.json")):
        with suppress(OSError, ValueError):  # a damaged one costs itself and not the report
            found[path.stem] = json.loads(path.read_text())
    return found


def profile_rows(operations: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Operations as rows of a table: name, times, microseconds a time.

    >>> profile_rows([{"name": "MatMul", "count": 4, "seconds": 2e-5}])
    [('MatMul', '4', '5.0')]
    """
    return [
        (op["name"], str(op["count"]), f"{1e6 * op['seconds'] / op['count']:.1f}")
        for op in operations
    ]


def _top_operations(path: Path) -> list[dict[str, Any]]:
    from xprof.convert import raw_to_tool_data

    raw, _ = raw_to_tool_data.xspace_to_tool_data([str(path)], "trace_viewer", {})
    events = json.loads(raw)["traceEvents"]
    return _longest(event for event in events if event.get("ph") == "X")


def _longest(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The compiled program's own operations where there are any, else TensorFlow's."""
    seconds: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    count: Counter[str] = Counter()
    for event in events:
        arguments = event.get("args", {})
        compiled = "hlo_op" in arguments
        # A loop's time is that of what it holds.
        if str(arguments.get("hlo_op", "")).startswith(("while", "call", "conditional")):
            continue
        if compiled or "tf_op" in arguments or "long_name" in arguments:
            name = str(arguments.get("hlo_op") or arguments.get("tf_op") or event["name"])
            seconds[compiled][name] += event.get("dur", 0) / 1e6
            count[name] += 1
    chosen = seconds[True] or seconds[False]
    return [
        {"name": name, "count": count[name], "seconds": round(spent, 7)}
        for name, spent in chosen.most_common(_TOP)
    ]

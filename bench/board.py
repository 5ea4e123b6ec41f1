"""TensorBoard files, made from a run's records: `tensorboard --logdir results` shows every run.

Each arm of each cell has a directory of its own, `board/<cell>/<arm>`, with all there is of it:
curves, speed, spreads of the weights, a picture of the first kernel, a summary in words, and what
the HParams tab needs. The same tags are in all of them, so that TensorBoard draws them over each
other.

TensorBoard opens its Scalars tab with nothing ticked, and so blank, once there are more than 40
directories. A run that would make more than `LEAVES` has one for each arm instead, with the cell in
the tags; pictures, spreads and HParams, which go by directory, are then left out.
"""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.hparams.summary_v2 import HParam, Metric, hparams_config_pb, hparams_pb
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from bench.arms import AGAIN
from bench.labels import field, leaf_table, operations_table, provenance
from bench.profiling import profile_rows, read_profiles
from bench.records import Record, Run
from bench.summary import Row

LEAVES = 39
_BINS = 30

_HPARAMS = {
    "layers": "layers",
    "units": "units",
    "batch size": "batch_size",
    "precision": "precision",
    "device": "device",
    "engine": "engine",
    "bias preset": "bias",
    "task": "data",
    "threads": "threads",
    "activation": "activation",
    "loss function": "loss",
    "normalisation": "norm",
}
# TensorBoard's table shows the first without scrolling.
_METRICS = {
    "speed/examples per second": "examples/s",
    "speed/ratio to dense": "ratio to dense",
    "speed/share of ceiling": "share of ceiling",
    "accuracy/test": "test accuracy",
    "speed/compile seconds": "compile seconds",
}


def write_board(
    folder: Path, run: Run, records: Sequence[Record], rows: Sequence[Row], *, add: bool = False
) -> None:
    """Writes the TensorBoard files of these comparisons, in place of older ones.

    Args:
        folder: The run's folder.
        run: Its header.
        records: Comparisons. A run too large for a directory per cell needs all that there are,
            or `add`.
        rows: What is said of them, from `summarise`.
        add: Keep what such a run has there, and add these.
    """
    source, names = provenance(run), _leaf_names(tuple(run.plan))
    said = {(row.key, row.arm): row for row in rows}
    trained = [
        (record, name, said[record.key, name])
        for record in records
        for name, arm in record.arms.items()
        if arm.get("histories")
    ]
    if aggregates(run, records):
        own: dict[Path, list[Event]] = {}
        for record, name, row in trained:
            cell = f"{names.get(record.key, record.key)}/"
            own.setdefault(_leaf(folder, "", name), []).extend(
                [
                    *_curves(record, row, cell),
                    _event(record, text_pb(f"{cell}summary", leaf_table(source, row)), 0),
                ]
            )
        for path, events in own.items():
            _write(path, events, add=add)
        return
    for record, name, row in trained:
        leaf = _leaf(folder, names.get(record.key, record.key), name)
        where = leaf.relative_to(folder.parent).as_posix()
        events = [
            *_hparams(where, record, row),
            *_curves(record, row, ""),
            *_weights(record, name),
            _event(record, text_pb("summary", leaf_table(source, row)), 0),
        ]
        if operations := read_profiles(folder).get(record.key, {}).get(name):
            words = operations_table(profile_rows(operations))
            events.append(_event(record, text_pb("top operations", words), 0))
        _write(leaf, events)


def leaf_folder(folder: Path, run: Run, record: Record, arm: str) -> Path:
    """The directory of one arm of one cell; of all cells in a run too large for that."""
    name = _leaf_names(tuple(run.plan)).get(record.key, record.key)
    return _leaf(folder, "" if aggregates(run, [record]) else name, arm)


def _leaf(folder: Path, cell: str, arm: str) -> Path:
    return folder / "board" / cell / _name(arm)


def _name(arm: str) -> str:
    """An arm's directory. A record from elsewhere may call an arm as it likes."""
    return re.sub(r"[/\\\0]|^\.+", "_", arm)


def aggregates(run: Run, records: Sequence[Record]) -> bool:
    """Whether a run is too large for a directory per arm and cell."""
    arms = {name for record in records for name in record.arms if name != AGAIN}
    return len(run.plan) * len(arms) > LEAVES


def count_leaves(logdir: Path) -> int:
    """Directories that TensorBoard shows as runs under a folder."""
    return len({path.parent for path in logdir.glob("**/events.out.tfevents.*")})


@lru_cache(maxsize=1)
def _leaf_names(keys: tuple[str, ...]) -> dict[str, str]:
    """Short names for cells: layers, units and what differs within the run.

    TensorBoard repeats them in every chart, and whole keys fill its columns.

    >>> _leaf_names(("mnist-cpu-fit-L2-U8-B32", "mnist-cpu-fit~xla-L2-U8-B32"))
    {'mnist-cpu-fit-L2-U8-B32': 'fit-L2-U8', 'mnist-cpu-fit~xla-L2-U8-B32': 'fit~xla-L2-U8'}
    """
    split = [key.split("-") for key in keys]
    if len({len(parts) for parts in split}) > 1:
        return {key: key for key in keys}  # one of them ends in a hash
    differs = [len(set(column)) > 1 for column in zip(*split, strict=True)]
    return {
        key: "-".join(
            part
            for part, varies in zip(parts, differs, strict=True)
            if varies or re.fullmatch(r"[LU]\d+", part)
        )
        for key, parts in zip(keys, split, strict=True)
    }


def _write(folder: Path, events: Sequence[Event], *, add: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "events.out.tfevents.0"
    if not add:
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()  # else TensorBoard would draw both
    # Without TensorBoard's own writer: that names files after the host, and imports TensorFlow.
    with open(path, "ab") as file:
        writer = RecordWriter(file)
        if not file.tell():
            first = events[0].wall_time if events else 0.0
            events = [Event(wall_time=first, file_version="brain.Event:2"), *events]
        for event in events:
            writer.write(event.SerializeToString())


def _start(record: Record) -> float:
    return datetime.fromisoformat(record.started).timestamp() if record.started else 0.0


def _event(record: Record, summary: Summary, step: int, seconds: float = 0.0) -> Event:
    return Event(step=step, wall_time=_start(record) + seconds, summary=summary)


def _curves(record: Record, row: Row, prefix: str) -> Iterator[Event]:
    """Curves of the first seed over epochs and time spent training; then what is one number."""
    arm = record.arms[row.arm]
    history = arm["histories"][0]
    curves = {
        "loss/train": history["loss"],
        "loss/test": history.get("val_loss", []),
        "accuracy/train": history.get("accuracy", []),
        "accuracy/test": history.get("val_accuracy", []),
        "seconds per epoch": history["seconds"],
    }
    for tag, values in curves.items():
        for epoch, value in enumerate(values, start=1):
            spent = sum(history["seconds"][:epoch])
            yield _event(record, scalar_pb(prefix + tag, value), epoch, spent)
    ratio = row.ratio.estimate if row.ratio else 1.0
    numbers = {
        "speed/examples per second": 1 / median(arm["samples"]) if arm.get("samples") else np.nan,
        "speed/ratio to dense": ratio if arm.get("samples") else np.nan,
        "speed/share of ceiling": row.ceiling,
        "speed/compile seconds": arm.get("compile_seconds", np.nan),
    }
    for tag, value in numbers.items():
        if np.isfinite(value):
            yield _event(record, scalar_pb(prefix + tag, value), len(history["loss"]))


def _hparams(where: str, record: Record, row: Row) -> Iterator[Event]:
    values = {name: field(record.cell, key) for name, key in _HPARAMS.items()} | {"arm": row.arm}
    begin = _start(record)
    # The same in every directory: TensorBoard takes the columns from any one of them.
    config = hparams_config_pb(
        [HParam(name) for name in values],
        [Metric(tag, display_name=words) for tag, words in _METRICS.items()],
        time_created_secs=begin,
    )
    session = hparams_pb(values, where, start_time_secs=begin)
    for (value,) in (config.value, session.value):
        content = HParamsPluginData.FromString(value.metadata.plugin_data.content)
        # TensorBoard shows five hyperparameters unasked: those that differ, then by the alphabet.
        for info in content.experiment.hparam_infos:
            info.differs = info.name in ("layers", "units", "arm")
        # Else the order of a map depends on the process, and files made again differ.
        value.metadata.plugin_data.content = content.SerializeToString(deterministic=True)
    yield _event(record, config, 0)
    yield _event(record, session, 0)


def _weights(record: Record, name: str) -> Iterator[Event]:
    """Spreads of the weights before and after training, and the first kernel as a picture."""
    arm = record.arms[name]
    last = len(arm["histories"][0]["loss"])
    for path, entry in arm.get("weights", {}).items():
        for when, step in {"before": 0, "after": last}.items():
            histogram = _histogram(path, entry["histograms"][when])
            yield _event(record, histogram, step, sum(arm["histories"][0]["seconds"][:step]))
        if "picture" in entry:
            yield _event(record, _picture(f"{path}, first units", entry["picture"]), last)


def _histogram(tag: str, kept: dict[str, Any]) -> Summary:
    counts = kept["counts"]
    edges = np.linspace(kept["low"], kept["high"], len(counts) + 1)
    # TensorBoard wants 30 buckets, and of equal values the last holds all.
    buckets = np.zeros((_BINS, 3))
    buckets[:, :2] = kept["low"]
    buckets[-len(counts) :] = np.stack([edges[:-1], edges[1:], counts], axis=1)
    summary = Summary()
    summary.value.add(
        tag=tag,
        metadata=histogram_metadata.create_summary_metadata(None, None),
        tensor=make_tensor_proto(buckets, dtype=np.float64),
    )
    return summary


def _picture(tag: str, kept: dict[str, Any]) -> Summary:
    """A finished PNG: TensorBoard's own summary would encode it anew, ten times larger."""
    content = _kernel_png(tag, json.dumps(kept))
    # Where every PNG has its size.
    width, height = (str(int.from_bytes(content[at : at + 4], "big")).encode() for at in (16, 20))
    summary = Summary()
    summary.value.add(
        tag=tag,
        metadata=image_metadata.create_summary_metadata(None, None),
        tensor=make_tensor_proto(np.array([width, height, content], dtype=object)),
    )
    return summary


# A run's files are written as it goes on, and at its end once more.
@lru_cache(maxsize=2 * LEAVES)
def _kernel_png(description: str, kept: str) -> bytes:
    from matplotlib.figure import Figure

    from bench.style import paper, png
    from bench.weights import unpack_picture
    from fixedbias.plots import plot_weights

    with paper():
        figure = Figure((4.4, 2.3), layout="constrained")
        plot_weights(unpack_picture(json.loads(kept)), labels=[""], figure=figure)
        return png(figure, description, dpi=100, colors=48)

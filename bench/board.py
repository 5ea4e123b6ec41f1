"""TensorBoard files, written from a record: `tensorboard --logdir results` shows every run."""

from pathlib import Path
from typing import Any

from bench.records import Record


def write_board(folder: Path, record: Record) -> None:
    """Writes the scalars of every arm that was trained: loss, accuracy and speed by epoch.

    One directory per cell and arm, `board/<cell>/<arm>`, and the same tags in all of them, so
    that TensorBoard draws them over each other. The curves are those of the first seed.

    Args:
        folder: The run's folder.
        record: The comparison.
    """
    for name, arm in record.arms.items():
        if arm.get("histories"):
            _write_arm(folder / "board" / record.key / name, arm["histories"][0], arm)


def _write_arm(folder: Path, history: dict[str, list[float]], arm: dict[str, Any]) -> None:
    # Imported late: only a run that has something to show pays for it.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.scalar.summary import scalar_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    tags = {
        "loss/train": history["loss"],
        "loss/test": history.get("val_loss", []),
        "accuracy/train": history.get("accuracy", []),
        "accuracy/test": history.get("val_accuracy", []),
        "seconds per epoch": history.get("seconds", []),
    }
    writer = EventFileWriter(str(folder))
    elapsed = 0.0
    for epoch in range(len(history["loss"])):
        # The time axis is the time spent training, so that curves can be compared over it.
        elapsed += history["seconds"][epoch]
        for tag, values in tags.items():
            if values:
                summary = scalar_pb(tag, values[epoch])
                writer.add_event(Event(step=epoch + 1, summary=summary, wall_time=elapsed))
    if arm.get("samples"):
        from statistics import median

        speed = scalar_pb("examples per second", 1 / median(arm["samples"]))
        writer.add_event(Event(step=len(history["loss"]), summary=speed, wall_time=elapsed))
    writer.close()

"""TensorBoard files, written from a record: `tensorboard --logdir results` shows every run."""

from datetime import datetime
from pathlib import Path
from statistics import median
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
            _write_arm(folder / "board" / record.key / name, arm, record.started)


def _write_arm(folder: Path, arm: dict[str, Any], started: str) -> None:
    # Imported late: only a run that has something to show pays for it.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.scalar.summary import scalar_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    history = arm["histories"][0]
    tags = {
        "loss/train": history["loss"],
        "loss/test": history.get("val_loss", []),
        "accuracy/train": history.get("accuracy", []),
        "accuracy/test": history.get("val_accuracy", []),
        "seconds per epoch": history["seconds"],
    }
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()  # else TensorBoard would draw both
    writer = EventFileWriter(str(folder))

    def write(tag: str, value: float, epoch: int) -> None:
        # The time axis is the time spent training, so that arms can be compared over it.
        moment = datetime.fromisoformat(started).timestamp() + sum(history["seconds"][:epoch])
        writer.add_event(Event(step=epoch, wall_time=moment, summary=scalar_pb(tag, value)))

    for tag, values in tags.items():
        for epoch, value in enumerate(values, start=1):
            write(tag, value, epoch)
    if arm.get("samples"):
        write("examples per second", 1 / median(arm["samples"]), len(history["loss"]))
    writer.close()
    # The writer names its file after the host, and runs get published.
    (written,) = folder.glob("events.out.tfevents.*")
    written.rename(folder / "events.out.tfevents.0")

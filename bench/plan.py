"""Cells and comparisons, from the options."""

from dataclasses import MISSING, dataclass, fields
from itertools import product
from typing import Any

from bench.config import Options, Threads
from bench.keys import cell_key
from bench.tasks import TASKS, task_of


@dataclass(frozen=True)
class Cell:
    """One point of the grid. `device` is `"cpu"` or `"gpu:N"`, `data` names the data set of the
    images or another task, `loss` is never `auto`; the others are as the options. On a GPU
    `threads` is `"all"`.
    """

    layers: int
    units: int
    batch_size: int
    precision: str
    device: str
    engine: str
    bias: str
    data: str
    activation: str = "relu"
    loss: str = "cross-entropy"
    norm: str = "none"
    threads: Threads = "all"

    @property
    def recorded(self) -> dict[str, Any]:
        """The cell as records have it: of the fields that have a default, those that differ.

        So a record of the time before there was such a field is of the same cell, and `Cell(**...)`
        reads both.
        """
        values = vars(self)
        return {f.name: values[f.name] for f in fields(self) if values[f.name] != f.default}

    @property
    def unusual(self) -> list[str]:
        """What is not by default about the cell: its values of the fields that have one."""
        named = {f.name for f in fields(self) if f.default is not MISSING}
        return [
            f"{name}={value}" if name == "threads" else str(value)
            for name, value in self.recorded.items()
            if name in named
        ]

    @property
    def key(self) -> str:
        """Names the cell, and the file of its record."""
        return cell_key(self.recorded)

    def __str__(self) -> str:
        words = [
            f"T={self.layers} units={self.units} batch={self.batch_size} {self.precision}",
            f"{self.device} {self.engine} {self.bias}",
            *([self.data] if self.data in TASKS else []),
            *self.unusual,
        ]
        return " ".join(words)


@dataclass(frozen=True)
class Comparison:
    """All that a worker needs to measure one cell: the cell, the data and how to measure."""

    cell: Cell
    data_dir: str | None
    arms: tuple[str, ...]
    layer: tuple[str, ...]
    epochs: int
    seeds: int
    floor: float
    halfwidth: float
    time_cap: float
    builds: int
    order_seed: int
    accuracy_only: bool = False


def make_plan(
    options: Options, devices: list[str], data: str, data_dir: str | None
) -> list[Comparison]:
    """Every comparison of a run, in the order they are made.

    Args:
        options: What the user asked for; every loss must fit every task.
        devices: The devices to measure on, one worker each.
        data: Name of the data set that was found for the task of images; `options.data` may say
            `auto`.
        data_dir: Folder it was found in.
    """
    cells = []
    axes = product(
        options.task,
        options.loss,
        options.activation,
        options.norm,
        devices,
        options.threads,  # outside the others: a worker has one number of them
        options.engine,
        options.precision,
        options.bias,
        options.batch_size,
    )
    for task, loss, activation, norm, device, threads, engine, precision, bias, batch_size in axes:
        name = data if task == "images" else task
        loss_name = task_of(name).loss if loss == "auto" else loss
        many = device.startswith("gpu") or options.accuracy_only
        unusual = (activation, loss_name, norm, "all" if many else threads)
        cells += [
            Cell(layers, units, batch_size, precision, device, engine, bias, name, *unusual)
            for layers, units in product(options.layers, options.units)
        ]
    # `auto` may come to a loss that is there by name as well, and a GPU's cells all have one number
    # of threads.
    cells = list(dict.fromkeys(cells))
    common: dict[str, Any] = {
        name: getattr(options, name)
        for name in (
            *("arms", "layer", "epochs", "seeds"),
            *("floor", "halfwidth", "time_cap", "builds", "order_seed", "accuracy_only"),
        )
    }
    return [Comparison(cell=cell, data_dir=data_dir, **common) for cell in cells]

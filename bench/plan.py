"""Cells and comparisons, from the options."""

from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from bench.config import Options
from bench.records import cell_key


@dataclass(frozen=True)
class Cell:
    """One point of the grid. `device` is `"cpu"` or `"gpu:N"`; the others are as the options."""

    layers: int
    units: int
    batch_size: int
    precision: str
    device: str
    engine: str
    bias: str
    data: str

    @property
    def key(self) -> str:
        """Names the cell, and the file of its record."""
        return cell_key(asdict(self))

    def __str__(self) -> str:
        return (
            f"T={self.layers} units={self.units} batch={self.batch_size} {self.precision} "
            f"{self.device} {self.engine} {self.bias}"
        )


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
    order_seed: int


def make_plan(
    options: Options, devices: list[str], data: str, data_dir: str | None
) -> list[Comparison]:
    """Every comparison of a run, in the order they are made.

    Args:
        options: What the user asked for.
        devices: The devices to measure on, one worker each.
        data: Name of the data set that was found; `options.data` may say `auto`.
        data_dir: Folder it was found in.
    """
    cells = [
        Cell(layers, units, batch_size, precision, device, engine, bias, data)
        for device, engine, precision, bias, batch_size, layers, units in product(
            devices,
            options.engine,
            options.precision,
            options.bias,
            options.batch_size,
            options.layers,
            options.units,
        )
    ]
    common: dict[str, Any] = {
        name: getattr(options, name)
        for name in (
            *("arms", "layer", "epochs", "seeds"),
            *("floor", "halfwidth", "time_cap", "order_seed"),
        )
    }
    return [Comparison(cell=cell, data_dir=data_dir, **common) for cell in cells]

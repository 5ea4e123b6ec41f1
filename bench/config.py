"""The options: one dataclass, which the command line and TOML files are made from."""

import math
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from bench.arms import ARMS, user_arms
from fixedbias.biases import bias_values

Engine = Literal["compiled", "fit", "fit-xla"]
Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]


class UsageError(Exception):
    """Bad input. Its text is one sentence for the user: the rule, what came, what to do."""


@dataclass(frozen=True)
class Options:
    """Dense layers with a fixed bias, raced against the standard Dense over a grid.

    Every cell of the grid is measured by itself: all arms train on the same batches from the
    same kernels, their speed is timed in interleaved rounds, and their accuracy comes from full
    trainings, one per seed. Every option can also stand in a TOML file, under its name.
    """

    device: str = "auto"
    """cpu, gpu, gpu:N, all (CPU and every GPU), or auto (the first GPU if there is one)."""
    layers: tuple[int, ...] = (2, 3, 5)
    """Depths: layers with weights, the output layer counted."""
    units: tuple[int, ...] = (64, 128, 256)
    """Widths: units of every hidden layer."""
    batch_size: tuple[int, ...] = (32,)
    """Examples in a training step."""
    epochs: int = 5
    """Epochs of every full training."""
    seeds: int = 3
    """Full trainings per arm; a seed sets the kernels and the order of the examples."""
    arms: tuple[str, ...] = ("dense", "dense-nobias", "fixed")
    """What competes: dense, dense-nobias, dense-frozen, fixed. `dense` is always there."""
    layer: tuple[str, ...] = ()
    """A layer of your own as a further arm, module:Class or file.py:Class, then key=value
    arguments. This imports and runs that code."""
    engine: tuple[Engine, ...] = ("compiled",)
    """What drives training: compiled (whole epochs inside XLA), fit (Keras, XLA off), fit-xla."""
    precision: tuple[Precision, ...] = ("float32",)
    """Precision policies."""
    bias: tuple[str, ...] = ("constant",)
    """Bias presets: zeros, constant, ramp, linspace, uniform, normal, decreasing or file:PATH,
    with settings as in constant:value=0.5."""
    data: str = "auto"
    """mnist, fashion_mnist, digits, synthetic, synthetic:EXAMPLES, or auto (MNIST if it is at
    hand, else digits)."""
    data_dir: Path | None = None
    """Folder with the data files (default: the environment variable FIXEDBIAS_DATA)."""
    results: Path = Path("results")
    """Folder for the runs."""
    resume: Path | None = None
    """Finish the run in this folder, with the options it was started with."""
    config: Path | None = None
    """Read options from this TOML file; the command line overrides them."""
    dry_run: bool = False
    """Print the plan and stop."""
    quick: bool = False
    """A small grid, short trainings and loose timing: under two minutes to a first table."""
    halfwidth: float = 0.01
    """Stop timing a cell when every ratio is known to this relative half-width."""
    time_cap: float = 60.0
    """Seconds of timing per cell, precise or not."""
    timeout: float = 1800.0
    """Seconds after which a cell is given up and recorded as failed."""
    floor: float = 0.02
    """Seconds that one timing sample must last."""
    margin: float = 0.02
    """Speed ratios within this of 1 are the same for all practical purposes."""
    order_seed: int = 0
    """Seed of the order of the arms within the timing rounds."""


_QUICK = Options(layers=(2, 3), units=(64, 128), epochs=1, seeds=1, time_cap=6.0, halfwidth=0.02)


def parse(argv: Sequence[str]) -> Options:
    """The options on a command line, with those of its TOML file under them.

    Raises:
        UsageError: What is asked for makes no sense. (A malformed command line ends in
            `SystemExit(2)` with tyro's message.)

    Example:

    >>> parse(["--layers", "2", "3", "--bias", "constant:value=0.5"]).layers
    (2, 3)
    """
    options = _from_command_line(argv, Options())
    if options.config is not None:
        argv = [*_toml_arguments(options.config), *argv]
        options = _from_command_line(argv, Options())
    if options.quick:
        options = _from_command_line(argv, _QUICK)
    options = replace(options, arms=tuple(dict.fromkeys(("dense", *options.arms))))
    _check(options)
    return options


def _from_command_line(argv: Sequence[str], default: Options) -> Options:
    return tyro.cli(
        Annotated[Options, tyro.conf.FlagCreatePairsOff],
        args=list(argv),
        default=default,
        prog="python -m bench.grid",
    )


def _toml_arguments(path: Path) -> list[str]:
    """A TOML file as command-line arguments, so that one parser checks both."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config must be a readable file: {error.strerror}: {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config must be a TOML file in UTF-8: {path}: {error}") from None
    known = {f.name for f in fields(Options)} - {"config", "resume"}
    arguments: list[str] = []
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise UsageError(
                f"--config has an option that does not exist, {key!r} in {path}: "
                f"use {', '.join(sorted(known))}."
            )
        flag = _flag(name)
        if isinstance(value, bool):
            arguments += [flag] if value else []
        else:
            values = value if isinstance(value, list) else [value]
            if any(isinstance(v, list | dict) for v in values):
                raise UsageError(f"--config must hold values and lists of values: {key} in {path}.")
            arguments += [flag, *map(str, values)]
    return arguments


def _check(options: Options) -> None:
    for name in ("layers", "units", "batch_size", "arms", "engine", "precision", "bias"):
        values = getattr(options, name)
        flag = _flag(name)
        if not values:
            raise UsageError(f"{flag} needs at least one value.")
        if len(set(values)) != len(values):
            raise UsageError(f"{flag} must not name a value twice. Received: {_words(values)}.")
    for name in ("layers", "units", "batch_size", "epochs", "seeds"):
        values = getattr(options, name)
        for value in values if isinstance(values, tuple) else (values,):
            if value < 1:
                raise UsageError(
                    f"{_flag(name)} must be a positive whole number. Received: {value}."
                )
    for name in ("halfwidth", "time_cap", "timeout", "margin"):
        value = getattr(options, name)
        if not 0 < value < math.inf:
            raise UsageError(f"{_flag(name)} must be a positive number. Received: {value}.")
    if not 0 <= options.floor < math.inf:
        raise UsageError(f"--floor must be zero or a positive number. Received: {options.floor}.")
    for arm in options.arms:
        if arm not in ARMS:
            raise UsageError(
                f"--arms must be among {_words(ARMS)}; for a layer of your own use --layer. "
                f"Received: {arm}."
            )
    try:
        user_arms(options.layer)
    except ValueError as error:
        raise UsageError(f"{error}.") from None
    kind, _, index = options.device.partition(":")
    if options.device not in ("cpu", "gpu", "all", "auto") and not (
        kind == "gpu" and index.isdecimal()
    ):
        raise UsageError(
            f"--device must be cpu, gpu, gpu:N, all or auto. Received: {options.device}."
        )
    for preset in options.bias:
        for units in options.units:
            for t in range(max(options.layers) - 1):
                try:
                    bias_values(preset, t, units)
                except ValueError as error:
                    raise UsageError(f"--bias: {error}.") from None
    if options.results.exists() and not options.results.is_dir():
        raise UsageError(f"--results must be a folder. Received: the file {options.results}.")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _words(values: Sequence[object] | dict) -> str:
    return ", ".join(map(str, values))


def usage_error(error: UsageError) -> int:
    """Prints the sentence; the exit status of a command that was used wrongly is 2."""
    print(f"error: {error}", file=sys.stderr)
    return 2

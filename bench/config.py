"""The options: one dataclass, which the command line and TOML files are made from."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from bench.rules import UsageError, check_cluster, check_options, flag, words

Engine = Literal["compiled", "fit", "fit-xla", "plain"]
Task = Literal["images", "line", "half-plane", "odd"]
Loss = Literal["auto", "cross-entropy", "sum-of-squares", "hinge", "huber"]
Norm = Literal["none", "layer"]
Precision = Literal["float32", "tf32", "mixed_float16", "mixed_bfloat16"]
Threads = int | Literal["all"]


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
    """What competes: dense, dense-nobias, dense-frozen, fixed, fixed-lambda, plain, or
    freeze-after=K (bias trained for K epochs, then fixed); with @POLICY after it, in that
    precision. `dense` is always there."""
    layer: tuple[str, ...] = ()
    """A layer of your own as a further arm, module:Class or file.py:Class, then key=value
    arguments. This imports and runs that code."""
    engine: tuple[Engine, ...] = ("compiled",)
    """What drives training: compiled (whole epochs inside XLA), fit (Keras, XLA off), fit-xla,
    plain (a loop by hand, XLA off)."""
    precision: tuple[Precision, ...] = ("float32",)
    """Precision policies, a cell for each; for their ratio ask --arms dense@mixed_bfloat16. float32
    means IEEE float32, and tf32 that a GPU may round the operands of its products to
    TensorFloat-32."""
    threads: tuple[Threads, ...] = (1,)
    """Threads of TensorFlow on the CPU, a cell for each number; all takes every core, as a program
    by itself does. Threads that wait for each other scatter, so that arms on one thread are told
    apart in a fraction of the time. Cells on a GPU have all, and so has what is not timed."""
    bias: tuple[str, ...] = ("constant",)
    """Bias presets: zeros, constant, ramp, linspace, uniform, normal, decreasing or file:PATH,
    with settings as in constant:value=0.5."""
    activation: tuple[str, ...] = ("relu",)
    """Activations of the hidden layers: relu, tanh, sigmoid, linear, swish, mish, elish,
    hard_sigmoid, step."""
    loss: tuple[Loss, ...] = ("auto",)
    """Losses; auto is cross-entropy for classes, sum-of-squares for numbers. hinge too is for
    classes."""
    norm: tuple[Norm, ...] = ("none",)
    """Normalisation after every hidden layer: none or layer."""
    task: tuple[Task, ...] = ("images",)
    """What is learnt: images (those of --data), line (2x + 10), half-plane (x1 + x2 > 0.5), odd
    (sin pi x). Where it has no classes, accuracy is R^2."""
    data: str = "auto"
    """mnist, fashion_mnist, digits, synthetic, synthetic:EXAMPLES, or auto (MNIST if it is at
    hand, else digits)."""
    data_dir: Path | None = None
    """Folder with the data files (default: the environment variable FIXEDBIAS_DATA)."""
    results: Path = Path("results")
    """Folder for the runs."""
    resume: Path | None = None
    """Finish the run in this folder, with the options it was started with."""
    cluster: str | None = None
    """Measure on the workers of the Dask cluster at this address, tcp://HOST:PORT or
    tls://HOST:PORT, instead of here. --device then says which workers: cpu, gpu, all, or auto."""
    config: Path | None = None
    """Read options from this TOML file; the command line overrides them."""
    dry_run: bool = False
    """Print the plan and stop."""
    plan_cost: bool = False
    """Predict time, device-hours and energy of the plan on --workers, and stop. It goes by the
    newest finished run under --results that is like it, or by a short calibration."""
    workers: tuple[int, ...] = (1, 2, 10, 100, 1000)
    """Numbers of workers for --plan-cost."""
    evidence: Path | None = None
    """For --plan-cost: the run to go by, also of a cluster's workers (default: the newest of this
    machine that is like the plan)."""
    failure_rate: float = 0.01
    """For --plan-cost: failures of a worker per hour; what it was measuring is begun again."""
    straggler_rate: float = 0.01
    """For --plan-cost: share of the comparisons that take three times as long."""
    watts: float | None = None
    """For --plan-cost: power of a device, where the records do not have its energy."""
    time_breakdown: bool = False
    """Say at the end where the time went."""
    quick: bool = False
    """A small grid, short trainings and loose timing: under two minutes to a first table."""
    profile: bool = False
    """Afterwards, trace a few steps of every arm of the last cell for TensorBoard's Profile tab."""
    halfwidth: float = 0.01
    """Stop timing a cell when every ratio is known to this relative half-width."""
    time_cap: float = 120.0
    """Seconds of timing per cell, precise or not."""
    builds: int = 8
    """Build and compile the arms of a cell so many times at least before timing can stop on
    precision: what is built twice runs at speeds 0.2 % to 1.2 % apart. 1 builds once, and cannot
    tell such differences from those between arms. (On a GPU XLA chooses kernels once for a process:
    all builds of a cell share the choice.)"""
    timeout: float = 1800.0
    """Seconds after which a cell is given up and recorded as failed."""
    floor: float = 0.008
    """Seconds that one timing sample must last. Bursts are made little longer, because short
    samples that lie close together meet what disturbs a machine alike."""
    margin: float = 0.02
    """Speed ratios within this of 1 are the same for all practical purposes."""
    accuracy_only: bool = False
    """Train for the accuracies and time nothing."""
    target: float | None = None
    """Test accuracy whose time to reach is reported, a share of 1 (default: 0.97 on MNIST)."""
    order_seed: int = 0
    """Seed of the order of the arms within the timing rounds."""
    force: bool = False
    """Start also what is estimated to need more memory than is free."""


_QUICK = Options(
    layers=(2, 3), units=(64, 128), epochs=1, seeds=1, time_cap=6.0, halfwidth=0.02, builds=1
)


def parse(argv: Sequence[str]) -> Options:
    """The options on a command line, with those of its TOML file under them.

    Raises:
        UsageError: What is asked for makes no sense. (A malformed command line ends in
            `SystemExit(2)` with tyro's message.)

    Example:

    >>> parse(["--layers", "2", "3", "--bias", "constant:value=0.5"]).layers
    (2, 3)
    """
    for word in argv:
        if not word.isprintable():  # bytes that are no UTF-8, line breaks, control characters
            raise UsageError(f"The command line must be printable text. Received: {word!r}.")
    options = _from_command_line(argv, Options())
    if options.resume is not None:
        own = {name: getattr(options, name) for name in ("resume", "cluster", "force")}
        if options != Options(**own):
            raise UsageError(
                "--resume takes no other option than --cluster and --force: the run goes on with "
                "those it was started with."
            )
        check_cluster(options)
        return options
    if options.config is not None:
        argv = [*_toml_arguments(options.config), *argv]
        options = _from_command_line(argv, Options())
    if options.quick:
        options = _from_command_line(argv, _QUICK)
    return _checked(options)


def restore(
    table: dict[str, Any], where: str, cluster: str | None = None, *, force: bool = False
) -> Options:
    """The options a run was started with, from its header; where it goes on is said anew, and
    whether it may with little memory.

    Raises:
        UsageError: An option is unknown or makes no sense, as for `parse`.
    """
    own = ("config", "resume", "cluster")
    # Runs from before there was a choice had all threads.
    known = {"threads": ["all"]} | {n: value for n, value in table.items() if n not in own}
    known |= {"force": True} if force else {}
    return _checked(_from_command_line(_arguments(known, where), Options(cluster=cluster)))


def _checked(options: Options) -> Options:
    options = replace(options, arms=tuple(dict.fromkeys(("dense", *options.arms))))
    check_options(options)
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
        if path.exists() and not path.is_file():  # reading a pipe would block for ever
            raise UsageError(f"--config must be a file. Received: {path}.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--config must be a readable file: {error.strerror}: {path}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"--config must be a TOML file in UTF-8: {path}: {error}") from None
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not TOML, or numbers and nests beyond reason
        raise UsageError(f"--config must be a TOML file in UTF-8: {path}: {error}") from None
    return _arguments(table, f"--config {path}")


def to_arguments(options: Options) -> list[str]:
    """Options as the command line that gives them; `config` and `resume` are left out.

    Example:

    >>> parse(to_arguments(parse(["--layers", "2", "3"]))).layers
    (2, 3)
    """
    table = {n: v for n, v in vars(options).items() if n not in ("config", "resume", "quick")}
    plain = {n: str(v) if isinstance(v, Path) else v for n, v in table.items()}
    lists = {n: list(v) if isinstance(v, tuple) else v for n, v in plain.items()}
    return _arguments(lists, "The options")


def _arguments(table: dict[str, Any], where: str) -> list[str]:
    """Options by name as command-line arguments."""
    known = {f.name: f.default for f in fields(Options) if f.name not in ("config", "resume")}
    arguments: list[str] = []
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise UsageError(
                f"{where} has an option that does not exist, {key!r}: use {words(sorted(known))}."
            )
        if value is None:
            continue
        rule = f"{where}: {flag(name)} must be"
        if isinstance(value, bool) or isinstance(known[name], bool):
            if not isinstance(value, bool) or not isinstance(known[name], bool):
                kind = "true or false" if isinstance(known[name], bool) else "a value"
                raise UsageError(f"{rule} {kind}. Received: {value!r}.")
            arguments += [flag(name)] if value else []
            continue
        values = value if isinstance(value, list) else [value]
        for word in values:
            if not isinstance(word, str | int | float) or isinstance(word, bool):
                raise UsageError(f"{rule} of values and lists of values. Received: {value!r:.80}.")
            # Else a text could pass for an option of its own.
            if isinstance(word, str) and (word.startswith("-") or not word.isprintable()):
                raise UsageError(f"{rule} printable, without a dash before it. Received: {word!r}.")
        if values or isinstance(known[name], tuple):
            arguments += [flag(name), *map(str, values)]
    return arguments

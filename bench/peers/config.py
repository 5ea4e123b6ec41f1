"""The options of `python -m bench.peers`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from bench.peers.registry import OURS, PEERS
from bench.rules import UsageError, check_values


@dataclass(frozen=True)
class Options:
    """The same training in Keras, JAX, PyTorch and with fit_compiled, side by side.

    Every peer trains in a process of its own; rounds are interleaved across the processes. What
    is not installed is skipped by name: pip install -e '.[peers]' brings all of them.
    """

    device: str = "auto"
    """cpu, gpu, gpu:N, or auto (the first GPU if there is one)."""
    layers: tuple[int, ...] = (2, 3, 5)
    """Depths: layers with weights, the output layer counted."""
    units: tuple[int, ...] = (64, 128, 512)
    """Widths: units of every hidden layer."""
    batch_size: tuple[int, ...] = (32, 128, 1024)
    """Examples in a training step."""
    peers: tuple[str, ...] = tuple(PEERS)
    """What competes. fit_compiled is always there."""
    images: Literal["float32", "uint8"] = "float32"
    """Form of the images, for all peers alike: float32 in [0, 1], or uint8 scaled in the step."""
    epochs: int = 2
    """Epochs of the training by which the peers' accuracy is checked."""
    data: str = "auto"
    """mnist, fashion_mnist, digits, synthetic, synthetic:EXAMPLES, or auto (MNIST if it is at
    hand, else digits)."""
    data_dir: Path | None = None
    """Folder with the data files (default: the environment variable FIXEDBIAS_DATA)."""
    results: Path = Path("results")
    """Folder for the runs."""
    dry_run: bool = False
    """Print the plan and stop."""
    quick: bool = False
    """A few small cells and loose timing: under three minutes."""
    halfwidth: float = 0.03
    """Stop timing a cell when every ratio is known to this relative half-width."""
    time_cap: float = 9.0
    """Seconds of timing per cell, precise or not; but six rounds at least."""
    timeout: float = 300.0
    """Seconds after which a peer that does not answer is given up."""
    epoch_seconds: float = 1.0
    """Seconds that an epoch lasts, unless that takes more than all of the data. An epoch of fit
    costs 24 to 49 ms beside its steps: much of a short one, little of a real one."""
    floor: float = 0.2
    """Seconds that one timing sample must last: an epoch, or several where the data is small."""
    margin: float = 0.02
    """Speed ratios within this of 1 are the same for all practical purposes."""
    order_seed: int = 0
    """Seed of the kernels, the batches, and the order of the peers within the rounds."""


_QUICK = Options(
    layers=(3,),
    units=(64, 128),
    batch_size=(32, 128),
    epochs=1,
    epoch_seconds=0.2,
    time_cap=12.0,
    halfwidth=0.05,
)


def parse(argv: Sequence[str]) -> Options:
    """The options on a command line.

    Raises:
        UsageError: What is asked for makes no sense.

    Example:

    >>> parse(["--peers", "jax"]).peers
    ('fit_compiled', 'jax')
    """
    options = _from_command_line(argv, Options())
    if options.quick:
        options = _from_command_line(argv, _QUICK)
    check_values(options)
    if options.device == "all":
        raise UsageError("--device must be cpu, gpu, gpu:N or auto. Received: all.")
    for peer in options.peers:
        if peer not in PEERS:
            raise UsageError(f"--peers must be among {', '.join(PEERS)}. Received: {peer}.")
    return replace(options, peers=tuple(dict.fromkeys((OURS, *options.peers))))


def _from_command_line(argv: Sequence[str], default: Options) -> Options:
    return tyro.cli(
        Annotated[Options, tyro.conf.FlagCreatePairsOff],
        args=list(argv),
        default=default,
        prog="python -m bench.peers",
    )

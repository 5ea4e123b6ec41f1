"""The rules that options must keep, checked before anything is imported that takes long."""

import importlib.util
import math
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.arms import find_arm, user_arms
from bench.machine import usable_cores
from bench.memory import estimate_parts, lacking
from bench.tasks import task_of
from fixedbias.biases import bias_values
from fixedbias.by_hand import ACTIVATIONS
from fixedbias.datasets import check_name
from fixedbias.text import one_line

if TYPE_CHECKING:
    from bench.config import Options


class UsageError(Exception):
    """Bad input. Its text is one sentence for the user: the rule, what came, what to do."""

    def __init__(self, sentence: str) -> None:
        super().__init__(one_line(sentence))


def check_options(options: "Options") -> None:
    """What holds for the options of `bench.grid`, each by itself and together.

    Raises:
        UsageError: A value is none, or options contradict each other.
    """
    check_values(options)
    if options.time_cap >= options.timeout:
        raise UsageError(
            "--timeout must be more than --time-cap, or every cell would be given up. "
            f"Received: {options.timeout:g} and {options.time_cap:g}."
        )
    if options.floor > options.time_cap:
        raise UsageError(
            "--floor must not be more than --time-cap, or no sample would be taken. "
            f"Received: {options.floor:g} and {options.time_cap:g}."
        )
    if options.target is not None and not 0 < options.target < 1:
        raise UsageError(
            "--target must be an accuracy between 0 and 1, such as 0.97. "
            f"Received: {options.target}."
        )
    check_precisions(options.precision, [options.device])
    cores = usable_cores()
    # What a cluster's workers have is theirs to know.
    here = options.cluster is None and options.evidence is None
    for threads in options.threads:
        if isinstance(threads, int) and threads > cores and here:
            raise UsageError(
                f"--threads must not be more than the {cores} cores here, or all. "
                f"Received: {threads}."
            )
    for arm in options.arms:
        try:
            find_arm(arm)
        except ValueError as error:
            raise UsageError(f"--arms: {error}; for a layer of your own use --layer.") from None
    for activation in options.activation:
        if activation not in ACTIVATIONS:
            raise UsageError(
                f"--activation must be among {words(ACTIVATIONS)}. Received: {activation}."
            )
    for task in options.task:
        for loss in options.loss:
            if loss != "auto" and loss not in task_of(task).losses:
                raise UsageError(
                    f"--loss must be among {words(task_of(task).losses)} for --task {task}, or "
                    f"auto. Received: {loss}."
                )
    if options.straggler_rate > 1:
        raise UsageError(
            "--straggler-rate must be a share of 1, such as 0.01. "
            f"Received: {options.straggler_rate:g}."
        )
    if options.evidence is not None and not options.plan_cost:
        raise UsageError(f"--evidence is for --plan-cost. Received: {options.evidence} without it.")
    if options.plan_cost and importlib.util.find_spec("simpy") is None:
        raise UsageError("--plan-cost needs simpy: pip install -e '.[plan]'.")
    if options.profile and importlib.util.find_spec("xprof") is None:
        raise UsageError("--profile needs xprof: pip install -e '.[profile]'.")
    try:
        user_arms(options.layer)
    except ValueError as error:
        raise UsageError(f"{error}.") from None
    try:
        examples = check_name(options.data)
    except ValueError as error:
        raise UsageError(f"--data: {error}.") from None
    check_cluster(options)
    if not options.force and here:
        _check_memory(options, examples)
    for preset in options.bias:
        _check_bias(preset, max(options.layers) - 1, options.units)


def _check_bias(preset: str, hidden: int, widths: Sequence[int]) -> None:
    layers: Sequence[int] = range(hidden)
    if not preset.startswith("file:"):
        # A rule holds for all layers if for the first and the last, and for every width if for one,
        # which here is short: what is to be made elsewhere may be too long for this machine.
        layers = sorted({0, hidden - 1}) if hidden else ()
        widths = (min(widths[0], 1000),)
    for t in layers:
        for units in widths:
            try:
                bias_values(preset, t, units)
            except ValueError as error:
                raise UsageError(f"--bias: {error}.") from None


def check_cluster(options: "Options") -> None:
    """What holds for `--cluster`, also where a run is resumed on one."""
    if options.cluster is None:
        return
    from bench.addresses import check_address

    check_address(options.cluster)
    if importlib.util.find_spec("distributed") is None:
        raise UsageError("--cluster needs Dask: pip install -e '.[cluster]'.")
    if ":" in options.device:
        raise UsageError(
            "--device must be cpu, gpu, all or auto with --cluster, since every worker has one GPU "
            f"of its own. Received: {options.device}."
        )
    if options.plan_cost:
        raise UsageError(
            "--plan-cost asks no cluster: leave --cluster out, say with --workers how many there "
            "would be, and name a run on such workers with --evidence."
        )
    for name in ("profile", "time_breakdown"):
        if getattr(options, name):
            raise UsageError(f"{flag(name)} is about this machine, and not for --cluster.")


def _check_memory(options: "Options", examples: int) -> None:
    """Refuses what will not fit, before anything of it is allocated."""
    layers, units, batch_size = max(options.layers), max(options.units), max(options.batch_size)
    host, on_device = estimate_parts(
        layers=layers,
        units=units,
        batch_size=batch_size,
        arms=len(options.arms) + len(user_arms(options.layer)),
        examples=examples,
    )
    if found := lacking(options.device, host, on_device):
        whose, needed, free = found
        raise UsageError(
            f"--layers {layers} --units {units} --batch-size {batch_size} would need about "
            f"{needed / 2**30:,.1f} GiB of memory on {whose}, and {free / 2**30:,.1f} GiB are "
            "free: ask for less, or insist with --force."
        )


def check_values(options: Any) -> None:
    """What holds for the options of every command: lists, numbers, device, results folder.

    Raises:
        UsageError: An option is empty, has a value twice or is out of range.
    """
    values = vars(options)
    for name, value in values.items():
        if isinstance(value, tuple) and name not in _ANY:
            if not value:
                raise UsageError(f"{flag(name)} needs at least one value.")
            if len(set(value)) != len(value):
                raise UsageError(
                    f"{flag(name)} must not name a value twice. Received: {words(value)}."
                )
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, bool) or name in _ANY:
                continue
            if isinstance(one, int) and one < 1:
                raise UsageError(f"{flag(name)} must be a positive whole number. Received: {one}.")
            if isinstance(one, int) and one >= 2**63:
                raise UsageError(f"{flag(name)} must be below 2^63. Received: {one}.")
            if isinstance(one, float) and name not in _FROM_ZERO and not 0 < one < math.inf:
                raise UsageError(f"{flag(name)} must be a positive number. Received: {one}.")
            if name in _FROM_ZERO and not 0 <= one < math.inf:
                raise UsageError(
                    f"{flag(name)} must be zero or a positive number. Received: {one}."
                )
    if values.get("halfwidth", 1.0) < _LEAST_HALFWIDTH:
        raise UsageError(
            f"--halfwidth must be at least {_LEAST_HALFWIDTH:g}, which is finer than a clock. "
            f"Received: {values['halfwidth']:g}."
        )
    check_device(options.device)
    for name in ("results", "data_dir"):
        folder = getattr(options, name)
        try:
            wrong = folder is not None and folder.exists() and not folder.is_dir()
        except (OSError, ValueError) as error:  # too long a name, a folder that may not be read
            raise UsageError(f"{flag(name)} must be a folder: {error}.") from None
        if wrong:
            raise UsageError(f"{flag(name)} must be a folder. Received: the file {folder}.")


# Options that may be empty or below 1.
_ANY = ("layer", "order_seed")
# Numbers that may be zero.
_FROM_ZERO = ("floor", "failure_rate", "straggler_rate")
_LEAST_HALFWIDTH = 1e-6


def check_precisions(precisions: Sequence[str], devices: Sequence[str]) -> None:
    """Refuses TensorFloat-32 where there is none: such a cell would be float32 by another name."""
    if "tf32" in precisions and {"cpu", "all"} & {*devices}:
        raise UsageError(
            "--precision tf32 is for GPUs, a CPU has no TensorFloat-32: use --device gpu, or leave "
            f"it out. Received: {words(devices)}."
        )


def check_device(device: str) -> None:
    """Refuses what `--device` cannot mean."""
    if not re.fullmatch("cpu|all|auto|gpu(:(0|[1-9][0-9]{0,3}))?", device):
        raise UsageError(f"--device must be cpu, gpu, gpu:N, all or auto. Received: {device}.")


def flag(name: str) -> str:
    """An option as it is typed."""
    return "--" + name.replace("_", "-")


def words(values: Sequence[object] | dict) -> str:
    """Values as a sentence lists them."""
    return ", ".join(map(str, values))


def usage_error(error: UsageError) -> int:
    """Prints the sentence; the exit status of a command that was used wrongly is 2."""
    print(f"error: {error}", file=sys.stderr)
    return 2

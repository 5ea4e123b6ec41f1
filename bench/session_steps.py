"""The steps of a GPU session, most valuable first: commands, and how long each may take."""

import importlib.util
import math
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One step: a Python module and its arguments.

    Args:
        name: Also the folder of its results, under the session's.
        argv: Behind `python -m`.
        seconds: It may take at most, however much of the budget is left.
        missing: Why it cannot run here; empty if it can.
    """

    name: str
    argv: tuple[str, ...]
    seconds: float
    missing: str = ""


_TESTS = Path(__file__).parent.parent / "tests" / "gpu"
_GRID = ("--layers", "--units", "--batch-size", "--precision")


def make_steps(device: str, folder: Path, data: str) -> list[Step]:
    """All steps of a session on a device.

    On a CPU the same ones, smaller, and of those that are one path one: two minutes' worth.

    Args:
        device: `cpu`, `gpu` or `gpu:N`.
        folder: The session's.
        data: As for bench.grid; on a CPU `auto` is scikit-learn's digits, which are few.
    """
    gpu = device != "cpu"
    data = "digits" if data == "auto" and not gpu else data
    where = ("--device", device)

    def results(name: str) -> tuple[str, ...]:
        return ("--results", str(folder / name))

    def grid(
        name: str, cells: tuple[str, ...], seconds: float, *more: str, epochs: str = "1"
    ) -> Step:
        axes: list[str] = []
        for flag, values in zip(_GRID, cells, strict=True):
            axes += [flag, *values.split()]
        # Building and compiling take seconds: in less there is one build, and no second.
        timing: tuple[str, ...] = ("--time-cap", "20", "--builds", "4")
        if not gpu:
            timing = ("--time-cap", "1")
        if "--time-cap" in more:
            timing = ()
        rough = () if gpu else ("--builds", "1", "--halfwidth", "0.2")
        usual_arms = ("dense-nobias", "fixed") if gpu else ("fixed",)
        arms = () if "--arms" in more else ("--arms", *usual_arms)
        place = () if "--device" in more else where
        common = ("--data", data, "--epochs", epochs, "--seeds", "1", *results(name))
        return Step(
            name, ("bench.grid", *axes, *place, *arms, *timing, *rough, *common, *more), seconds
        )

    def peers(name: str, *names: str) -> Step:
        cell = ("--layers", "3", "--units", "128", "--batch-size", "128", "--epochs", "1")
        # Where a framework compiles within each sample, a second's worth would be half a minute.
        timing = ("--time-cap", "9" if gpu else "1", *(("--epoch-seconds", "0.2") if gpu else ()))
        argv = ("bench.peers", *where, "--peers", *names, *cell, *timing, "--data", data)
        return Step(name, (*argv, *results(name)), 120)

    like = dict.fromkeys(("wide", "narrow", "depths", "sizes", "rest"), "epochs") | {"fit": "peers"}

    def for_gpu(step: Step) -> Step:
        missing = "" if gpu else f"on a CPU, {like[step.name]} is the same path"
        return replace(step, missing=missing)

    few = () if gpu else ("--arms", "dense")
    every = "mixed_bfloat16 float32 tf32 mixed_float16"  # the first is what has a target
    stacks = ("4", "16", "64", "256") if gpu else ("2",)
    # A CPU has them all in every run of the tests: here it shows that they can be run.
    # Here nothing is pinned, and what a newer NumPy warns of is no failure of the GPU's.
    on_gpu = ("-m", "gpu", "-k", "float32 or bfloat16", "-W", "default")
    chosen = on_gpu if gpu else ("-k", "float32 and zero_bias")
    tests = ("pytest", str(_TESTS), "-q", "-p", "no:cacheprovider", *chosen)
    rates = ("bench.rates", *where, "--size", "8192" if gpu else "256", *results("rates"))
    xprof = "" if importlib.util.find_spec("xprof") else "xprof is not installed"
    usual = ("3", "128", "128", "float32")
    rivals = ("jax", "torch", "torch-graph") if gpu else ("fit",)
    steps = [
        Step("doctor", ("bench.doctor", *where, "--data", data, *results("doctor")), 90),
        Step("tests", tests, 120, _no_tests()),
        grid("epochs", usual, 120, epochs="20" if gpu else "1"),
        for_gpu(peers("fit", "fit", "fit-xla", "fit-xla-32")),
        Step("rates", (*rates, *(() if gpu else ("--time-cap", "1"))), 40),
        for_gpu(grid("wide", ("3", "4096", "16384", every), 120)),
        Step(
            "stacking",
            (
                *("bench.stacking", *where, "--counts", *stacks, "--data", data),
                *("--time-cap", "15" if gpu else "1", *results("stacking")),
            ),
            75,
        ),
        for_gpu(grid("narrow", ("3", "128", "128", every.replace("float32 ", "", 1)), 120)),
        peers("peers", *rivals),
        for_gpu(grid("depths", ("2 5 9", "128", "128", "float32"), 120)),
        replace(
            grid(
                "crossover",
                ("3", "64 512 2048", "128", "float32"),
                120,
                # The CPU's cells come first.
                *("--arms", "dense", "--device", "all", "--threads", "all", "--time-cap", "3"),
            ),
            missing="" if gpu else "it compares a GPU with the CPU",
        ),
        Step(
            "programs",
            ("bench.programs", *where, *few, "--save", str(folder / "programs.json")),
            60,
        ),
        replace(grid("profile", usual, 60, "--profile", *few), missing=xprof),
        for_gpu(grid("sizes", ("3", "64 256 1024", "128 1024 16384", every), 120)),
        for_gpu(grid("rest", ("2 5 9", "64 1024 4096", "128 1024 16384", every), 600)),
    ]
    # The times are a GPU host's. Elsewhere the budget alone is kept.
    return steps if gpu else [replace(step, seconds=math.inf) for step in steps]


def _no_tests() -> str:
    if not _TESTS.is_dir():
        return "there is no tests/gpu here"
    needed = ("pytest", "pytest_timeout", "hypothesis")
    absent = [name for name in needed if not importlib.util.find_spec(name)]
    return f"{absent[0]} is not installed" if absent else ""

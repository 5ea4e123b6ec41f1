"""The steps of a GPU session, most valuable first: commands, and how long each may take."""

import importlib.util
from dataclasses import dataclass
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
    """All steps of a session on a device; on a CPU the same ones, smaller.

    Args:
        device: `cpu`, `gpu` or `gpu:N`.
        folder: The session's.
        data: As for bench.grid.
    """
    gpu = device != "cpu"
    where = ("--device", device)

    def results(name: str) -> tuple[str, ...]:
        return ("--results", str(folder / name))

    def grid(
        name: str, cells: tuple[str, ...], seconds: float, *more: str, epochs: str = "1"
    ) -> Step:
        axes: list[str] = []
        for flag, values in zip(_GRID, cells, strict=True):
            axes += [flag, *values.split()]
        timing = ("--time-cap", "8", "--builds", "4") if gpu else ("--time-cap", "1.5")
        rough = () if gpu else ("--builds", "1", "--halfwidth", "0.1")
        arms = () if "--arms" in more else ("--arms", "dense-nobias", "fixed")
        place = () if "--device" in more else where
        common = ("--data", data, "--epochs", epochs, "--seeds", "1", *results(name))
        return Step(
            name, ("bench.grid", *axes, *place, *arms, *timing, *rough, *common, *more), seconds
        )

    def peers(name: str, *names: str) -> Step:
        cell = ("--layers", "3", "--units", "128", "--batch-size", "128", "--epochs", "1")
        timing = ("--time-cap", "9" if gpu else "3")
        argv = ("bench.peers", *where, "--peers", *names, *cell, *timing, "--data", data)
        return Step(name, (*argv, *results(name)), 75)

    every = "float32 tf32 mixed_bfloat16 mixed_float16" if gpu else "float32 mixed_bfloat16"
    wide = ("3", "4096", "16384", every) if gpu else ("3", "256", "1024", "float32")
    stacks = ("4", "16", "64", "256") if gpu else ("2", "4")
    # A CPU has them all in every run of the tests: here it shows that they can be run.
    chosen = ("-m", "gpu") if gpu else ("-k", "float32 and test_3")
    tests = ("pytest", str(_TESTS), "-q", "-p", "no:cacheprovider", *chosen)
    rates = ("bench.rates", *where, "--size", "8192" if gpu else "256", *results("rates"))
    xprof = "" if importlib.util.find_spec("xprof") else "xprof is not installed"
    return [
        Step("doctor", ("bench.doctor", *where, "--data", data, *results("doctor")), 90),
        Step("tests", tests, 120, "" if _TESTS.is_dir() else "there is no tests/gpu here"),
        grid("epochs", ("3", "128", "128", "float32"), 60, epochs="20" if gpu else "1"),
        peers("fit", *(("fit", "fit-32", "fit-xla", "fit-xla-32") if gpu else ("fit",))),
        Step("rates", (*rates, *(() if gpu else ("--time-cap", "2"))), 40),
        grid("wide", wide, 75),
        Step(
            "stacking",
            (
                *("bench.stacking", *where, "--counts", *stacks, "--data", data),
                *("--time-cap", "15" if gpu else "3", *results("stacking")),
            ),
            75,
        ),
        grid("narrow", ("3", "128", "128", every.replace("float32 ", "", 1)), 60),
        peers("peers", "jax", "torch", "torch-compile", "torch-graph"),
        grid("depths", ("2 5 9", "128", "128", "float32"), 60),
        _with_reason(
            grid(
                "crossover",
                ("3", "64 512 2048", "128", "float32"),
                60,
                *("--arms", "dense", "--device", "all"),
            ),
            "" if gpu else "it compares a GPU with the CPU",
        ),
        Step(
            "programs",
            ("bench.programs", *where, "--save", str(folder / "programs.json")),
            60,
        ),
        _with_reason(grid("profile", ("3", "128", "128", "float32"), 60, "--profile"), xprof),
        grid("sizes", ("3", "64 256 1024", "128 1024 16384", every), 120),
        grid("rest", ("2 5 9", "64 1024 4096", "128 1024 16384", every), 600),
    ]


def _with_reason(step: Step, missing: str) -> Step:
    return Step(step.name, step.argv, step.seconds, missing)

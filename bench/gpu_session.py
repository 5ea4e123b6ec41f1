"""`python -m bench.gpu_session`: all the evidence that a GPU can give, most valuable first."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bench.rules import UsageError, check_device, usage_error
from bench.session_steps import Step, make_steps

_CAN_NOTHING = 10  # seconds that are too few to begin a step
_TAIL = 4000  # characters of a step's output that are kept


@dataclass(frozen=True)
class Options:
    """Doctor, tests, headline grid, Keras fit and other frameworks, stacked seeds, rates, profile.

    Steps are commands of their own, each within the time that is left; one that fails or takes too
    long is recorded, and the session goes on. Started again on the same folder, a session makes the
    steps that are missing.
    """

    budget: str = "8m"
    """Time for all: 8m, 90s or 1h."""
    device: str = "gpu"
    """cpu, gpu or gpu:N."""
    data: str = "auto"
    """Data set, as for bench.grid."""
    results: Path = Path("results/session")
    """Folder of this session."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a session.

    Args:
        argv: The command line, without the program's name.

    Returns:
        The exit status: 0 when every step that was begun went well, 1 if one failed or took too
        long, 2 for bad input, 130 if interrupted.
    """
    try:
        options = tyro.cli(
            Annotated[Options, tyro.conf.FlagCreatePairsOff],
            args=list(sys.argv[1:] if argv is None else argv),
            prog="python -m bench.gpu_session",
        )
        budget = parse_budget(options.budget)
        check_device(options.device)
        if options.device in ("all", "auto"):
            raise UsageError(f"--device must be cpu, gpu or gpu:N. Received: {options.device}.")
        session = Session(options.results, options.device)
        if options.device != "cpu":
            from bench.devices import find_devices

            find_devices(options.device)
    except UsageError as error:
        return usage_error(error)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        session.run(make_steps(options.device, options.results, options.data), budget)
    except KeyboardInterrupt:
        session.write()
        print(f"interrupted; what is done is in {options.results}, and the command goes on with it")
        return 130
    return int(any(step["state"] in ("failed", "over time") for step in session.steps.values()))


def parse_budget(text: str) -> float:
    """A duration in seconds.

    Raises:
        UsageError: It is none.

    Example:

    >>> parse_budget("8m"), parse_budget("90s")
    (480.0, 90.0)
    """
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smh])", text)
    if not found or not float(found[1]):
        raise UsageError(f"--budget must be a duration such as 8m, 90s or 1h. Received: {text}.")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


class Session:
    """A session's folder: `session.json`, `session.md`, and a folder of runs for every step.

    Args:
        folder: Made if it is not there; a session that was begun in it is gone on with.
        device: The session's.

    Raises:
        UsageError: The folder cannot be made, or holds something else.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self.steps: dict[str, dict[str, Any]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / "session.json").exists():
                known = json.loads((folder / "session.json").read_text())
                before, self.steps = known["device"], known["steps"]
            else:
                before = device
                (folder / "session.json").touch()
                (folder / "session.json").unlink()
        except OSError as error:
            raise UsageError(
                f"--results must be a folder that can be written. Received: {folder}: "
                f"{error.strerror}."
            ) from None
        except (ValueError, KeyError, TypeError):
            raise UsageError(
                f"--results must be new or hold a session: {folder}/session.json is damaged; name "
                "another folder."
            ) from None
        if before != device:
            raise UsageError(
                f"--results {folder} holds a session on {before}: name another folder for {device}."
            )

    def run(self, steps: list[Step], budget: float) -> None:
        """Makes what is missing of the steps, until the budget is spent."""
        end = time.monotonic() + budget
        for step in steps:
            known = self.steps.get(step.name, {})
            if known.get("state") == "ok":
                continue
            left = end - time.monotonic()
            if step.missing:
                self._note(step, "cannot run", step.missing)
            elif left < _CAN_NOTHING:
                self._note(step, "no time left", f"of the {budget:g} s")
            else:
                # So that no step takes the time of all that come after it.
                share = max(60.0, budget / 4)
                self._run(step, min(step.seconds, share, left - 2))
            self.write()
        self.write()
        print(f"session: {self.folder / 'session.md'}")

    def _note(self, step: Step, state: str, reason: str, **more: Any) -> None:
        from bench.machine import anonymous

        command = " ".join(["python", "-m", *step.argv])
        self.steps[step.name] = {
            "command": anonymous(command),
            "state": state,
            "reason": anonymous(reason),
        } | more
        print(f"{step.name}: {state}{f', {reason}' if reason else ''}", flush=True)

    def _run(self, step: Step, seconds: float) -> None:
        (self.folder / step.name).mkdir(exist_ok=True)
        begin = time.monotonic()
        log = self.folder / step.name / "output.txt"
        # In a group of its own, so that it can be ended with all that it started.
        with (
            log.open("w") as output,
            subprocess.Popen(
                [sys.executable, "-m", *step.argv],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            ) as process,
        ):
            try:
                status = process.wait(seconds)
                state = "ok" if status == 0 else "failed"
                reason = "" if status == 0 else f"exit status {status}"
            except subprocess.TimeoutExpired:
                _end(process)
                state, reason = "over time", f"ended after {seconds:.0f} s; what it wrote is kept"
            except BaseException:
                _end(process)
                raise
        took = round(time.monotonic() - begin, 1)
        self._note(step, state, reason, seconds=took, output=_tail(log))

    def write(self) -> None:
        """Writes the summary, whole or not at all."""
        from bench.machine import describe_machine, git_commit
        from bench.targets import crossover, find_targets, targets_table

        targets = find_targets(self.folder, on_gpu=self.device != "cpu")
        summary = {
            "device": self.device,
            "machine": describe_machine(),
            "git": git_commit(),
            "steps": self.steps,
            "targets": [asdict(target) for target in targets],
        }
        rows = [
            f"| {name} | {step['state']} | {step.get('seconds', '')} | {step['reason']} |"
            for name, step in self.steps.items()
        ]
        text = "\n".join(
            [
                f"# Session on {self.device}\n",
                targets_table(targets),
                "",
                *([f"{found}\n"] if (found := crossover(self.folder)) else []),
                "| step | | seconds | |",
                "| --- | --- | --- | --- |",
                *rows,
                "",
            ]
        )
        for name, content in (
            ("session.md", text),
            ("session.json", json.dumps(summary, indent=1) + "\n"),
        ):
            fresh = self.folder / f".{name}.tmp"
            fresh.write_text(content)
            os.replace(fresh, self.folder / name)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a step as Ctrl-C does, with time to say what it has; then for good."""
    for signum, patience in ((signal.SIGINT, 10.0), (signal.SIGKILL, 10.0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return


def _tail(log: Path) -> list[str]:
    """The end of what a step printed, without names of users and hosts; the file is cut to it."""
    from bench.machine import anonymous

    text = anonymous(log.read_text(errors="replace"))[-_TAIL:]
    log.write_text(text)
    return text.splitlines()[-5:]


if __name__ == "__main__":
    sys.exit(main())

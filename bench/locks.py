"""One driver to a run: two would measure each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class RunIsBusy(Exception):
    """Another process is at work on this run."""


@contextmanager
def lock_run(folder: str | Path) -> Iterator[None]:
    """Holds a run for this process. However the process ends, the lock ends with it.

    The lock is on the header, so that it leaves no file behind. Where the system has no such locks
    (Windows, some network folders) there is none; records are written once there too.

    Raises:
        RunIsBusy: Another process holds the run.
        OSError: The header cannot be opened.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with Path(folder, "run.json").open("rb") as header:
        try:
            fcntl.flock(header, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunIsBusy(f"{folder} is being run by another process") from None
        except OSError:
            pass  # a file system without locks
        yield

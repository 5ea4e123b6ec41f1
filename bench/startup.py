"""How a worker process starts: where its output goes, and that it ends with its driver."""

import os
import signal
import sys
import threading
import time


def start_worker(log: str) -> None:
    """Sets up a new worker process, before TensorFlow is imported in it.

    What TensorFlow, XLA or a crash writes to the terminal goes to the file `log` instead.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if hasattr(signal, "SIGHUP"):  # comes to all of a terminal's processes: the driver decides
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:  # the folder is gone or full: the driver will say so when it writes
        file = os.open(os.devnull, os.O_WRONLY)
    sys.stdout.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    _end_with_parent()


def _end_with_parent() -> None:
    """A driver that is killed cannot stop its workers: they look whether it is still there.

    Not Linux's PR_SET_PDEATHSIG, which kills when the thread ends that started the process.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

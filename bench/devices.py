"""Which devices to measure on."""

from bench.executors import LocalExecutor, WorkerDied
from bench.machine import describe_machine
from bench.rules import UsageError
from bench.worker import list_gpus


def find_devices(wanted: str) -> list[str]:
    """The devices that `--device` asks for.

    Args:
        wanted: `cpu`, `gpu`, `gpu:N`, `all` or `auto`.

    Returns:
        `"cpu"` and `"gpu:N"`, in TensorFlow's numbering.

    Raises:
        UsageError: A GPU is asked for and TensorFlow sees none of that number, or it cannot start.
    """
    if wanted == "cpu":
        return ["cpu"]
    gpus = _gpus()
    if wanted == "auto":
        return gpus[:1] or ["cpu"]
    if wanted == "all":
        return ["cpu", *gpus]
    chosen = "gpu:0" if wanted == "gpu" else wanted
    if chosen not in gpus:
        raise UsageError(
            f"--device {wanted} needs a GPU that TensorFlow sees, and it sees "
            f"{', '.join(gpus) or 'none'}: on Linux with an NVIDIA driver install GPU support "
            "with pip install -e '.[gpu]', or use --device cpu."
        )
    return [chosen]


def _gpus() -> list[str]:
    # Without a driver there is no GPU, and no need to start TensorFlow to learn it.
    if not describe_machine()["gpus"]:
        return []
    try:
        with LocalExecutor() as executor:
            return [f"gpu:{n}" for n in range(len(executor.call(list_gpus)))]
    except WorkerDied as error:
        raise UsageError(
            f"TensorFlow could not be asked for GPUs: {error}; measure with --device cpu, or see "
            "what python -m bench.doctor finds."
        ) from None

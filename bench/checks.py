"""What the doctor's findings mean: every check is ok, a note, or failed with its cure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

_GIB = 2**30
# Largest error of a product of 512 x 512 normal numbers, relative to that of their absolute values:
# several times what the rounding of operands and result can add up to, and in float32 a tenth of
# what TensorFloat-32 would give.
_BOUNDS = {"float32": 2e-6, "tf32": 1e-3, "bfloat16": 8e-3, "float16": 1e-3}
_XLA_BOUND = 1e-5


@dataclass(frozen=True)
class Check:
    """One line of the doctor's; `cure` is what to do where `state` is `FAIL`."""

    name: str
    state: Literal["ok", "note", "FAIL"]
    text: str
    cure: str = ""


def examine(findings: dict[str, Any]) -> list[Check]:
    """A check for everything that was found.

    Args:
        findings: From `bench.doctor.find`.
    """
    return [
        *_machine(findings),
        *_tensorflow(findings["tensorflow"]),
        *_gpus(findings),
        *(
            check
            for device, found in findings["devices"].items()
            for check in _device(device, found)
        ),
        *_storage(findings),
    ]


def _machine(findings: dict[str, Any]) -> Iterator[Check]:
    machine, load = findings["machine"], findings["state"]["load"]
    cpu = machine["cpu"]
    cores = cpu["usable_cores"] or 1
    yield Check("CPU", "ok", f"{cpu['model']}, {cores} cores usable")
    if load and load[0] > cores / 2:
        yield Check("load", "note", f"{load[0]:.1f} on {cores} cores: timings will be noisy")
    if machine["flags"]:
        flags = " ".join(f"{name}={value}" for name, value in machine["flags"].items())
        yield Check("flags", "note", f"set in the environment: {flags}")
    free, total = findings["memory_free"], machine["memory_bytes"]
    text = f"{_gib(free)} free" + (f" of {_gib(total)}" if total else "")
    if free < 2 * _GIB:
        yield Check("memory", "FAIL", text, "end other programs: a worker takes about 2 GiB")
    else:
        yield Check("memory", "ok", text)


def _tensorflow(tensorflow: dict[str, Any]) -> Iterator[Check]:
    if "error" in tensorflow:
        yield Check(
            "TensorFlow",
            "FAIL",
            f"does not start: {_reason(tensorflow)}",
            "install it with pip install -e . ; if it is ended by SIGILL this CPU lacks the "
            "instructions that its wheel was built for",
        )
        return
    found = tensorflow["found"]
    text = f"{found['tensorflow']}, Keras {found['keras']}"
    if found["cuda"]:
        text += f", built for CUDA {found['cuda']} and cuDNN {found['cudnn']}"
    yield Check("TensorFlow", "ok", text)
    if found["backend"] != "tensorflow":
        yield Check(
            "Keras backend",
            "FAIL",
            found["backend"],
            "set KERAS_BACKEND=tensorflow, or remove the backend from ~/.keras/keras.json",
        )


def _gpus(findings: dict[str, Any]) -> Iterator[Check]:
    """What the driver shows against what TensorFlow sees, and against what is wanted."""
    machine, wanted = findings["machine"], findings["wanted"]["device"]
    driver = machine["gpus"]
    for gpu in driver:
        if "note" in gpu:
            yield Check(
                f"driver's GPU {gpu['index']}",
                "FAIL",
                gpu["note"],
                "see what nvidia-smi says of it; a GPU that fell off its bus needs a reboot",
            )
            continue
        text = f"{gpu['name']}, {_gib(gpu['memory_bytes'])}, driver {gpu['driver']}"
        yield Check(f"driver's GPU {gpu['index']}", "ok", f"{text} (CUDA {gpu['driver_cuda']})")
    if not driver and machine["gpu_note"]:
        yield Check("driver's GPUs", "note", machine["gpu_note"])
    if "error" in findings["tensorflow"]:
        return
    found = findings["tensorflow"]["found"]
    seen = [f"gpu:{n}" for n in range(len(found["gpus"]))]
    if driver and not seen:
        yield Check(
            "TensorFlow's GPUs", "FAIL", "none, though the driver shows one", _unseen(findings)
        )
    elif wanted.startswith("gpu") and ("gpu:0" if wanted == "gpu" else wanted) not in seen:
        yield Check(
            "TensorFlow's GPUs",
            "FAIL",
            f"{', '.join(seen) or 'none'}; wanted: {wanted}",
            "use a machine with an NVIDIA GPU and its driver, or a GPU that is listed, or "
            "--device cpu",
        )
    else:
        names = [f"{name} {gpu}" for name, gpu in zip(seen, found["gpus"], strict=True)]
        yield Check("TensorFlow's GPUs", "ok", ", ".join(names) or "none: all runs on the CPU")
    yield from _generation(driver, found)


def _unseen(findings: dict[str, Any]) -> str:
    """Why TensorFlow sees no GPU where the driver shows one, most certain reason first."""
    found, said = findings["tensorflow"]["found"], findings["tensorflow"]["said"]
    visible = findings["machine"]["flags"].get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not re.match(r"\d|GPU-|MIG-", visible):
        return "unset CUDA_VISIBLE_DEVICES, which hides all GPUs"
    if not found["cuda"]:
        return "this TensorFlow is built without CUDA: pip install -e '.[gpu]' on Linux"
    missing = sorted(set(re.findall(r"lib[\w.+-]+\.so[\d.]*", said)))
    cure = "install the CUDA libraries with pip install -e '.[gpu]'"
    return f"{cure}; not loaded: {', '.join(missing)}" if missing else cure


def _generation(driver: list[dict[str, Any]], found: dict[str, Any]) -> Iterator[Check]:
    """Whether the driver is new enough for this TensorFlow, and TensorFlow for this GPU."""
    built = _version(found["cuda"])
    for gpu in driver:
        has = _version(gpu.get("driver_cuda"))
        if built and has and has[0] < built[0]:
            yield Check(
                f"driver of GPU {gpu['index']}",
                "FAIL",
                f"for CUDA {gpu['driver_cuda']}, TensorFlow is built for {found['cuda']}",
                f"install a driver for CUDA {built[0]} or newer",
            )
        capability = _version(gpu.get("compute_capability"))
        kernels = [int(name[3:]) for name in found["built_for"] if name.startswith("sm_")]
        if capability and kernels and 10 * capability[0] + capability[1] > max(kernels):
            yield Check(
                f"kernels for GPU {gpu['index']}",
                "note",
                f"TensorFlow has none for {gpu['compute_capability']}: the driver compiles its "
                "eager kernels at first use, which can take minutes; XLA's programs are not "
                "concerned",
            )


def _device(device: str, found: dict[str, Any]) -> Iterator[Check]:
    xla = found["xla"]
    if "error" in xla:
        yield Check(f"{device} XLA", "FAIL", f"exp and tanh: {_reason(xla)}", _xla_cure(xla))
        return
    if not xla["found"] <= _XLA_BOUND:
        yield Check(
            f"{device} XLA",
            "FAIL",
            f"exp and tanh are off by {xla['found']:.1e} of their value",
            "unset XLA_FLAGS, above all fast-math flags",
        )
    else:
        yield Check(f"{device} XLA", "ok", f"exp and tanh to {xla['found']:.0e}")
    for precision, bound in _BOUNDS.items():
        if precision in found:
            yield _product(device, precision, found[precision], bound)


def _product(device: str, precision: str, found: dict[str, Any], bound: float) -> Check:
    name = f"{device} {precision}"
    if "error" in found:
        return Check(
            name,
            "FAIL",
            f"a product fails: {_reason(found)}",
            "reinstall with pip install -e '.[gpu]'; if cuBLAS is at fault, "
            "XLA_FLAGS=--xla_gpu_autotune_level=0 does without it"
            if device != "cpu"
            else "reinstall TensorFlow with pip install -e . --force-reinstall",
        )
    error = found["found"]
    if error <= bound:
        return Check(name, "ok", f"a product to {error:.0e} of float64's")
    rounded = precision == "float32" and error <= _BOUNDS["tf32"]
    return Check(
        name,
        "FAIL",
        f"a product is off by {error:.1e} of float64's, {bound:.0e} is allowed"
        + (": its operands are rounded, as for TF32 or bfloat16" if rounded else ""),
        "unset NVIDIA_TF32_OVERRIDE, ONEDNN_DEFAULT_FPMATH_MODE and XLA_FLAGS"
        if rounded
        else "unset XLA_FLAGS; if it stays, do not trust this device",
    )


def _xla_cure(xla: dict[str, Any]) -> str:
    text = xla["error"] + xla["said"]
    if re.search("libdevice", text):
        return (
            "set XLA_FLAGS=--xla_gpu_cuda_data_dir=FOLDER, where FOLDER/nvvm/libdevice has "
            "libdevice.10.bc (pip install nvidia-cuda-nvcc-cu12 brings it)"
        )
    if re.search("ptxas", text):
        return "put ptxas in the PATH: pip install nvidia-cuda-nvcc-cu12 brings it"
    if re.search("RESOURCE_EXHAUSTED|out of memory", text, re.IGNORECASE):
        return "end the other programs that hold this device's memory (see nvidia-smi)"
    return "reinstall with pip install -e '.[gpu]' (without [gpu] for a CPU), and unset XLA_FLAGS"


def _storage(findings: dict[str, Any]) -> Iterator[Check]:
    disk, data = findings["disk"], findings["data"]
    text = f"{_gib(disk['free'])} free for {disk['results']}"
    if not disk["writable"]:
        yield Check(
            "disk", "FAIL", f"{disk['results']} cannot be written", "name another with --results"
        )
    elif disk["free"] < _GIB:
        yield Check("disk", "FAIL", text, "free a gigabyte, or name another disk with --results")
    else:
        yield Check("disk", "ok", text)
    if "error" in data:
        yield Check(
            "data",
            "FAIL",
            data["error"],
            "set FIXEDBIAS_DATA to a folder with the files, or use --data digits",
        )
    elif data["notice"]:
        yield Check("data", "note", data["notice"])
    else:
        yield Check("data", "ok", f"{data['name']}, {data['examples']:,} training images")


def _reason(found: dict[str, Any]) -> str:
    """An error in one line; of a process that died, with the last thing it said."""
    text = " ".join(found["error"].split())
    said = [line for line in found["said"].splitlines() if line.strip()]
    if "worker process" in text and said:
        text += f", after: {said[-1].strip()}"
    return text if len(text) <= 300 else text[:297] + "..."


def _version(text: str | None) -> tuple[int, int] | None:
    found = re.match(r"(\d+)(?:\.(\d+))?", text or "")
    return (int(found[1]), int(found[2] or 0)) if found else None


def _gib(size: int | None) -> str:
    return f"{size / _GIB:.1f} GiB" if size is not None else "unknown"

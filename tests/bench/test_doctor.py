"""The doctor: every failing line has its cure; a child that crashes is a line like any other."""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench import doctor, probes
from bench.checks import Check, examine

GPU = {
    "index": 0,
    "name": "NVIDIA H200",
    "driver": "570.86.15",
    "driver_cuda": "12.8",
    "memory_bytes": 141 << 30,
    "compute_capability": "9.0",
}
PRODUCTS = {"float32": 2e-7, "tf32": 4e-5, "bfloat16": 1e-3, "float16": 1e-4}
WELL: dict[str, Any] = {
    "wanted": {"device": "auto"},
    "machine": {
        "cpu": {"model": "EPYC", "usable_cores": 16},
        "flags": {},
        "memory_bytes": 64 << 30,
        "gpus": [GPU],
        "gpu_note": None,
    },
    "state": {"load": [0.1, 0.1, 0.1]},
    "memory_free": 32 << 30,
    "disk": {"results": "results", "free": 50 << 30, "writable": True},
    "data": {"name": "mnist", "notice": "", "examples": 60000},
    "tensorflow": {
        "found": {
            "tensorflow": "2.21.0",
            "keras": "3.15.1",
            "backend": "tensorflow",
            "cuda": "12.5.1",
            "cudnn": "9",
            "built_for": ["sm_80", "sm_90"],
            "gpus": ["NVIDIA H200"],
        },
        "said": "",
    },
    "devices": {
        device: {
            "xla": {"found": 1e-7, "said": ""},
            **{name: {"found": error, "said": ""} for name, error in PRODUCTS.items()},
        }
        for device in ("cpu", "gpu:0")
    },
}


def altered(path: str, value: Any) -> dict[str, Any]:
    """What is found on a machine that is well but for one thing."""
    findings = copy.deepcopy(WELL)
    *parents, last = path.split("/")
    place: Any = findings
    for name in parents:
        place = place[name]
    place[last] = value
    return findings


def died(error: str, said: str = "") -> dict[str, str]:
    return {"error": error, "said": said}


def test_all_is_well_on_a_machine_that_has_everything() -> None:
    checks = examine(WELL)
    assert {check.state for check in checks} == {"ok"}
    assert not any(check.cure for check in checks)
    lines = [f"{check.name}: {check.text}" for check in checks]
    assert "gpu:0 tf32: a product to 4e-05 of float64's" in lines
    assert "data: mnist, 60,000 training images" in lines


NO_GPU = altered("tensorflow/found/gpus", [])
HIDDEN = altered("machine/flags", {"CUDA_VISIBLE_DEVICES": "-1"})
HIDDEN["tensorflow"]["found"]["gpus"] = []
CPU_BUILD = altered("tensorflow/found/cuda", None)
CPU_BUILD["tensorflow"]["found"]["gpus"] = []
NO_CUDNN = altered("tensorflow/said", "Could not load library 'libcudnn.so.9'; Cannot dlopen")
NO_CUDNN["tensorflow"]["found"]["gpus"] = []
NO_DRIVER = altered("machine/gpus", [])
NO_DRIVER["tensorflow"]["found"]["gpus"] = []
NO_DRIVER["wanted"]["device"] = "gpu"
ABORTED = died("its worker process was ended by SIGABRT", "libdevice not found at ./libdevice.bc\n")

FAILING = {
    "memory": (altered("memory_free", 1 << 30), "memory", "end other programs"),
    "no TensorFlow": (
        altered("tensorflow", died("ModuleNotFoundError: No module named 'tensorflow'")),
        "TensorFlow",
        "pip install -e .",
    ),
    "illegal instruction": (
        altered("tensorflow", died("its worker process was ended by SIGILL", "last words\n")),
        "TensorFlow",
        "SIGILL",
    ),
    "backend": (altered("tensorflow/found/backend", "jax"), "Keras backend", "KERAS_BACKEND"),
    "lost GPU": (
        altered("machine/gpus", [{"index": 0, "note": "no answer from this GPU"}]),
        "driver's GPU 0",
        "nvidia-smi",
    ),
    "unseen": (NO_GPU, "TensorFlow's GPUs", "pip install -e '.[gpu]'"),
    "hidden": (HIDDEN, "TensorFlow's GPUs", "unset CUDA_VISIBLE_DEVICES"),
    "CPU build": (CPU_BUILD, "TensorFlow's GPUs", "built without CUDA"),
    "library": (NO_CUDNN, "TensorFlow's GPUs", "not loaded: libcudnn.so.9"),
    "no driver": (NO_DRIVER, "TensorFlow's GPUs", "--device cpu"),
    "no such GPU": (altered("wanted/device", "gpu:3"), "TensorFlow's GPUs", "a GPU that is listed"),
    "old driver": (
        altered("machine/gpus", [GPU | {"driver_cuda": "11.8"}]),
        "driver of GPU 0",
        "CUDA 12 or newer",
    ),
    "libdevice": (
        altered("devices/gpu:0/xla", ABORTED),
        "gpu:0 XLA",
        "--xla_gpu_cuda_data_dir=FOLDER",
    ),
    "ptxas": (
        altered("devices/gpu:0/xla", died("NotFoundError: Couldn't invoke ptxas")),
        "gpu:0 XLA",
        "put ptxas in the PATH",
    ),
    "full GPU": (
        altered("devices/gpu:0/xla", died("ResourceExhaustedError: Out of memory allocating")),
        "gpu:0 XLA",
        "end the other programs",
    ),
    "XLA": (altered("devices/cpu/xla", died("InternalError: no")), "cpu XLA", "reinstall"),
    "fast maths": (altered("devices/cpu/xla/found", 1e-3), "cpu XLA", "unset XLA_FLAGS"),
    "not a number": (altered("devices/cpu/xla/found", float("nan")), "cpu XLA", "unset XLA_FLAGS"),
    "cuBLAS": (
        altered("devices/gpu:0/float16", died("InternalError: cuBLAS")),
        "gpu:0 float16",
        "--xla_gpu_autotune_level=0",
    ),
    "product on a CPU": (
        altered("devices/cpu/bfloat16", died("UnimplementedError: no")),
        "cpu bfloat16",
        "reinstall",
    ),
    "rounded float32": (
        altered("devices/gpu:0/float32/found", 4e-5),
        "gpu:0 float32",
        "unset NVIDIA_TF32_OVERRIDE",
    ),
    "wrong product": (
        altered("devices/gpu:0/float32/found", 0.3),
        "gpu:0 float32",
        "do not trust this device",
    ),
    "disk": (altered("disk/free", 1 << 20), "disk", "--results"),
    "read-only": (altered("disk/writable", False), "disk", "--results"),
    "data": (altered("data", {"error": "no files"}), "data", "FIXEDBIAS_DATA"),
}


@pytest.mark.parametrize(("findings", "name", "cure"), FAILING.values(), ids=FAILING)
def test_what_fails_is_one_line_with_its_cure(
    findings: dict[str, Any], name: str, cure: str
) -> None:
    (failed,) = [check for check in examine(findings) if check.state == "FAIL"]
    assert failed.name == name
    assert cure in failed.cure
    assert "\n" not in failed.text + failed.cure


NOTED = {
    "busy": (altered("state/load", [12.0, 9.0, 9.0]), "load", "timings will be noisy"),
    "flags": (altered("machine/flags", {"XLA_FLAGS": "--x"}), "flags", "XLA_FLAGS=--x"),
    "no NVML": (
        {**NO_DRIVER, "wanted": {"device": "auto"}, "machine": {**NO_DRIVER["machine"]}},
        "driver's GPUs",
        "NVML not available",
    ),
    "new GPU": (
        altered("machine/gpus", [GPU | {"compute_capability": "12.0"}]),
        "kernels for GPU 0",
        "at first use",
    ),
    "stand-in": (altered("data/notice", "MNIST is not at hand"), "data", "not at hand"),
}
NOTED["no NVML"][0]["machine"]["gpu_note"] = "NVML not available: NVMLError"


@pytest.mark.parametrize(("findings", "name", "text"), NOTED.values(), ids=NOTED)
def test_what_is_worth_knowing_is_a_note_and_no_failure(
    findings: dict[str, Any], name: str, text: str
) -> None:
    checks = examine(findings)
    assert not [check for check in checks if check.state == "FAIL"]
    (note,) = [check for check in checks if check.state == "note"]
    assert note.name == name
    assert text in note.text


def test_a_process_that_died_is_shown_with_its_last_words() -> None:
    (failed,) = [c for c in examine(altered("devices/gpu:0/xla", ABORTED)) if c.state == "FAIL"]
    assert "SIGABRT, after: libdevice not found at ./libdevice.bc" in failed.text


def crash() -> None:
    os.write(2, b"F0000 libdevice not found\n")
    os.kill(os.getpid(), signal.SIGABRT)


def stall() -> None:
    time.sleep(60)


def fine(device: str) -> float:
    return 0.5


def test_a_child_that_crashes_or_stalls_is_a_finding_and_the_next_one_works() -> None:
    with doctor._Child(timeout=5) as child:
        crashed = child.ask(crash)
        assert "SIGABRT" in crashed["error"]
        assert "libdevice not found" in crashed["said"]
        assert child.ask(fine, "cpu")["found"] == 0.5
        assert "longer than the 5 s" in child.ask(stall)["error"]


@pytest.mark.parametrize(
    ("checks", "status", "last"),
    [
        ([Check("a", "ok", "b"), Check("c", "note", "d")], 0, "all is well"),
        ([Check("a", "ok", "b"), Check("c", "FAIL", "d", "e")], 1, "1 of 2 checks failed"),
    ],
)
def test_the_exit_status_says_whether_all_is_well(
    checks: list[Check], status: int, last: str, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(doctor, "find", lambda options: {})
    monkeypatch.setattr(doctor, "examine", lambda findings: checks)
    assert doctor.main([]) == status
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == last
    assert ("     cure: e" in shown) == bool(status)


def test_bad_input_is_refused_without_tensorflow() -> None:
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bench.doctor", "--device", "tpu"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert time.perf_counter() - begin < 30
    assert done.returncode == 2
    assert "error: --device must be cpu, gpu, gpu:N, all or auto. Received: tpu." in done.stderr
    assert "| tensorflow" not in done.stderr


def test_the_probes_find_this_cpu_well() -> None:
    assert probes.probe_xla("cpu") < 1e-5
    for precision in ("float32", "bfloat16", "float16"):
        error = probes.probe_product("cpu", precision)
        findings = altered(f"devices/cpu/{precision}/found", error)
        assert all(check.state == "ok" for check in examine(findings))
    assert probes.probe_tensorflow()["backend"] == "tensorflow"


def test_tf32s_rounding_would_not_pass_for_float32() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 512, 512))
    # Ten bits of mantissa, as TensorFloat-32 keeps.
    rounded = [
        (m.astype("float32").view("uint32") + 0x1000 & 0xFFFFE000).view("float32") for m in (a, b)
    ]
    error = np.abs(rounded[0].astype(float) @ rounded[1] - a @ b) / (np.abs(a) @ np.abs(b))
    states = {
        name: [c.state for c in examine(altered(f"devices/gpu:0/{name}/found", float(error.max())))]
        for name in ("float32", "tf32")
    }
    assert "FAIL" in states["float32"]
    assert "FAIL" not in states["tf32"]


def test_disk_is_asked_where_results_will_be_made(tmp_path: Path) -> None:
    found = doctor._disk(tmp_path / "a" / "b")
    assert found["writable"]
    assert found["free"] > 0
    (tmp_path / "file").touch()
    assert not doctor._disk(tmp_path / "file")["writable"]

"""The machine's description: complete where sensors are, quiet where not, and naming nobody."""

import doctest
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from bench import machine

READINGS = {
    "nvmlSystemGetDriverVersion": "570.86.15",
    "nvmlSystemGetCudaDriverVersion": 12080,
    "nvmlDeviceGetName": b"NVIDIA H200",
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=143 << 30),
    "nvmlDeviceGetCudaComputeCapability": (9, 0),
    "nvmlDeviceGetMaxClockInfo": 1980,
    "nvmlDeviceGetPowerManagementLimit": 700_000,
    "nvmlDeviceGetTemperatureV": 41,
    "nvmlDeviceGetTemperature": 40,
    "nvmlDeviceGetClockInfo": 1755,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x24 | 0x4000,
    "nvmlDeviceGetCurrentClocksThrottleReasons": 0x1,
    "nvmlDeviceGetViolationStatus": SimpleNamespace(violationTime=2_500_000_000),
    "nvmlDeviceGetPowerUsage": 650_500,
    "nvmlDeviceGetTotalEnergyConsumption": 123_456,
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=97),
}


class FakeNvml:
    """Takes the place of pynvml: GPU 0 has every sensor but `without`, GPU 1 has none at all."""

    def __init__(self, gpus: int = 1, without: tuple[str, ...] = ()) -> None:
        self.gpus, self.without = gpus, without
        self.asked: set[str] = set()
        self.open = 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 2:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    def __getattr__(self, name: str) -> Any:
        def read(gpu: int = 0, *_: int) -> Any:
            self.asked.add(name)
            if gpu == 1 or name in self.without:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return READINGS[name]

        return read


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)  # type: ignore[arg-type]
    yield fake
    assert fake.open == 0


def test_the_examples_hold() -> None:
    failed, tried = doctest.testmod(machine)
    assert (failed, tried) == (0, 5)


def test_tensorflow_is_not_imported() -> None:
    code = "import sys, bench.machine as m; m.describe_machine()"
    code += "; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_description() -> None:
    found = json.loads(json.dumps(machine.describe_machine(), allow_nan=False))
    assert found["cpu"]["model"]
    assert 1 <= found["cpu"]["usable_cores"] <= found["cpu"]["logical_cores"]
    assert found["memory_bytes"] > 2**28
    assert found["python"] == platform.python_version()
    assert {"tensorflow", "keras", "numpy"} <= found["versions"].keys()
    assert found["id"] == machine.describe_machine()["id"]
    assert len(found["id"]) == 12


def test_the_id_follows_the_hardware(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [machine.describe_machine()["id"]]
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    assert machine.describe_machine()["id"] == ids[0]
    monkeypatch.setitem(READINGS, "nvmlSystemGetDriverVersion", "999.1")
    ids.append(machine.describe_machine()["id"])
    nvml.gpus = 2
    ids.append(machine.describe_machine()["id"])
    monkeypatch.setattr(machine, "_cpu_model", lambda: "another")
    ids.append(machine.describe_machine()["id"])
    assert len(set(ids)) == 4


def test_flags_are_kept_and_secrets_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_auto_jit=2")
    monkeypatch.setenv("TF_VAR_password", "secret")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    flags = machine.describe_machine()["flags"]
    assert flags["TF_XLA_FLAGS"] == "--tf_xla_auto_jit=2"
    assert "OMP_NUM_THREADS" not in flags
    assert "secret" not in json.dumps(flags)


def test_nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setenv("LOGNAME", "alice")
    monkeypatch.setattr(platform, "node", lambda: "deepblue.example.org")
    flags = "--a=/home/alice/x --b=/scratch/alice/deepblue --c=deepblue.example.org --d=malice"
    monkeypatch.setenv("XLA_FLAGS", flags)
    found = machine.describe_machine()
    assert found["flags"]["XLA_FLAGS"] == "--a=~/x --b=/scratch/<user>/<host> --c=<host> --d=malice"
    text = json.dumps([found, machine.read_state()])
    assert "deepblue" not in text
    assert "alice" not in text.replace("malice", "")


def test_gpu_facts(nvml: FakeNvml) -> None:
    found = machine.describe_machine()
    assert found["gpu_note"] is None
    assert found["gpus"] == [
        {
            "index": 0,
            "name": "NVIDIA H200",
            "driver": "570.86.15",
            "driver_cuda": "12.8",
            "memory_bytes": 143 << 30,
            "compute_capability": "9.0",
            "max_sm_mhz": 1980,
            "max_memory_mhz": 1980,
            "power_limit_watts": 700.0,
        }
    ]


def test_gpu_state(nvml: FakeNvml) -> None:
    (gpu,) = machine.read_state()["gpus"]
    assert gpu == {
        "index": 0,
        "temperature_c": 41,
        "sm_mhz": 1755,
        "memory_mhz": 1755,
        "clock_reasons": ["sw_power_cap", "sw_thermal_slowdown", "0x4000"],
        "power_held_seconds": 2.5,
        "heat_held_seconds": 2.5,
        "power_watts": 650.5,
        "energy_mj": 123_456,
        "utilisation_percent": 97,
    }


def test_older_drivers_are_asked_by_the_older_names(nvml: FakeNvml) -> None:
    nvml.without = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetTemperatureV")
    (gpu,) = machine.read_state()["gpus"]
    assert (gpu["clock_reasons"], gpu["temperature_c"]) == (["gpu_idle"], 40)


def test_each_sensor_may_be_missing(nvml: FakeNvml) -> None:
    def read() -> dict[str, Any]:
        return machine.read_state()["gpus"][0] | machine.describe_machine()["gpus"][0]

    whole = read()
    old = ("nvmlDeviceGetTemperature", "nvmlDeviceGetCurrentClocksThrottleReasons")
    assert nvml.asked == READINGS.keys() - set(old)
    for sensor in sorted(nvml.asked):
        nvml.without = (sensor, *old)
        lost = {name: None for name, value in read().items() if value is None}
        assert 1 <= len(lost) <= 2  # of both memory and core clock, of both power and heat
        assert read() == whole | lost


def test_a_mute_and_a_lost_gpu_do_not_hide_the_others(nvml: FakeNvml) -> None:
    nvml.gpus = 3
    nvml.without = ("nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion")
    for found in (machine.describe_machine(), machine.read_state()):
        whole, mute, lost = found["gpus"]
        assert [gpu["index"] for gpu in found["gpus"]] == [0, 1, 2]
        assert any(value is not None for name, value in whole.items() if name != "index")
        assert all(value is None for name, value in mute.items() if name != "index")
        assert lost["note"] == "no answer from this GPU"


def test_every_name_asked_for_is_nvmls() -> None:
    assert all(hasattr(pynvml, name) for name in READINGS)


@pytest.mark.parametrize(
    ("fails", "note"),
    [
        ("pynvml", "NVML not available: ModuleNotFoundError"),
        ("nvmlInit", "NVML not available: NVMLError_LibraryNotFound"),
        ("nvmlDeviceGetCount", "NVML failed: NVMLError_LibraryNotFound"),
    ],
)
def test_no_nvml_is_a_note(fails: str, note: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    fake = FakeNvml()
    setattr(fake, fails, raise_)
    monkeypatch.setitem(sys.modules, "pynvml", None if fails == "pynvml" else fake)  # type: ignore[arg-type]
    for found in (machine.describe_machine(), machine.read_state()):
        assert found["gpus"] == []
        assert found["gpu_note"].startswith(note)


def test_a_machine_without_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(machine, "_read", lambda file: None)
    for name in ("cpu_freq", "cpu_count", "virtual_memory", "cpu_times"):
        monkeypatch.setattr(psutil, name, fail)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "getloadavg")
    found, state = machine.describe_machine(), machine.read_state()
    assert found["cpu"]["model"]
    assert found["cpu"]["usable_cores"] == os.cpu_count()
    assert found["memory_bytes"] is None
    assert state.pop("unix_time") > 0
    assert state.pop("uptime") > 0
    assert {state[name] for name in state if not name.startswith("gpu")} == {None}
    assert machine.process_memory() > 2**20
    json.dumps([found, state], allow_nan=False)


def test_sensors_of_the_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {
        "/proc/self/cgroup": "1:cpu:/old\n0::/box",
        "/sys/fs/cgroup/box/cpu.max": "150000 100000",
        "/sys/fs/cgroup/box/cpu.stat": "usage_usec 1\nnr_throttled 3\nthrottled_usec 2500000",
        "/proc/cpuinfo": "processor\t: 0\nmodel name\t: Test CPU  @ 3 GHz\n",
    }
    monkeypatch.setattr(machine, "_read", lambda file: files.get(str(file)))
    cpu = machine.describe_machine()["cpu"]
    assert (cpu["model"], cpu["quota_cores"]) == ("Test CPU  @ 3 GHz", 1.5)
    assert machine.read_state()["cpu_quota_seconds"] == 2.5


def test_held_back() -> None:
    gpu = {"index": 0, "clock_reasons": ["gpu_idle"], "heat_held_seconds": 1.0}
    before = {"unix_time": 100.0, "cpu_throttles": 1, "cpu_steal_seconds": 1.0, "gpus": [gpu]}
    assert machine.held_back(before, before) == []
    assert machine.held_back(before, {}) == machine.held_back({}, before) == []
    later = before | {"unix_time": 110.0, "cpu_steal_seconds": 1.05}
    assert machine.held_back(before, later) == []
    hot = gpu | {"clock_reasons": ["gpu_idle", "hw_thermal_slowdown"], "heat_held_seconds": 4.0}
    missing = gpu | {"clock_reasons": None, "heat_held_seconds": None}
    assert machine.held_back(before, later | {"gpus": [missing]}) == []
    assert machine.held_back(before, later | {"cpu_throttles": 3, "gpus": [hot]}) == [
        "CPU cores throttled 2 times by heat",
        "GPU 0 clocks lowered (hw_thermal_slowdown)",
        "GPU 0 held back by heat for 3.00 s of 10 s",
    ]


def test_memory_is_this_processs_own() -> None:
    mine = bytearray(b"\1") * (300 << 20)
    assert machine.process_memory() > len(mine)
    code = "import bench.machine as m; print(m.process_memory())"
    child = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert int(child.stdout) < 200 << 20


@pytest.mark.slow
def test_thread_settings() -> None:
    assert machine.thread_settings().keys() == {"intra_op", "inter_op"}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "package").mkdir()
    (tmp_path / "package/a.py").write_text("1")
    (tmp_path / ".gitignore").write_text("results")
    return tmp_path


def git(folder: Path, *command: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
    run = ["git", "-C", str(folder), *who, *command]
    return subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def test_git_commit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = repository / "package"
    assert machine.git_commit(package) is None
    git(repository, "add", ".")
    assert machine.git_commit(package) is None
    git(repository, "commit", "-q", "-m", "first")
    clean = {"commit": git(repository, "rev-parse", "HEAD"), "dirty": False}
    assert machine.git_commit(package) == machine.git_commit(package / "a.py") == clean
    (repository / "results").mkdir()
    (repository / "results/x").write_text("ignored")
    assert machine.git_commit(package) == clean
    assert machine.git_commit(repository / "results") is None
    (package / "b.py").write_text("new")
    assert machine.git_commit(package) == clean | {"dirty": True}
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert machine.git_commit(package) == clean | {"dirty": True}


def test_no_git_and_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.git_commit(tmp_path) is None
    assert machine.git_commit(tmp_path / "missing/a.py") is None
    monkeypatch.setenv("PATH", "")
    assert machine.git_commit() is None

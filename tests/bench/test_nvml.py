"""A GPU watched through a stand-in for its driver: throttled rounds, energy, memory, failures."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pynvml
import pytest

from bench.facts import gather
from bench.findings import read_findings
from bench.nvml import GpuWatch
from bench.sentences import gpu_line
from bench.summary import summarise
from bench.timing import Burst, measure_rounds
from bench.usage import PeakMemory, measure_energy
from tests.bench.conftest import make_record

SW_POWER_CAP, SW_THERMAL = 0x4, 0x20


class FakeNvml:
    """The functions of pynvml that a watch calls: one GPU, whose readings a test sets."""

    def __init__(self) -> None:
        self.reasons, self.held, self.millijoules = 0, {0: 0, 1: 0}, 5_000
        self.fails: set[str] = set()
        self.open = 0
        self.handles: list[Any] = []

    def _fail(self, name: str) -> None:
        if name in self.fails:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    def nvmlInit(self) -> None:
        self._fail("nvmlInit")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._fail("nvmlDeviceGetHandleByIndex")
        self.handles.append(index)
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self.handles.append(uuid)
        return uuid

    def nvmlDeviceGetCurrentClocksEventReasons(self, gpu: Any) -> int:
        self._fail("nvmlDeviceGetCurrentClocksEventReasons")
        return self.reasons

    def nvmlDeviceGetViolationStatus(self, gpu: Any, policy: int) -> Any:
        self._fail("nvmlDeviceGetViolationStatus")
        return SimpleNamespace(violationTime=self.held[policy])

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: Any) -> int:
        self._fail("nvmlDeviceGetTotalEnergyConsumption")
        return self.millijoules


@pytest.fixture
def nvml(monkeypatch):
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield fake
    assert fake.open == 0


def test_the_stand_in_has_no_name_that_nvml_lacks():
    assert all(hasattr(pynvml, name) for name in vars(FakeNvml) if name.startswith("nvml"))


def test_what_holds_a_gpu_back_is_told_from_what_does_not(nvml):
    with GpuWatch("gpu:0") as watch:
        watch.begin()
        nvml.reasons = 0x1 | 0x2  # idle, clocks as an application set them
        assert watch.held_back() == []
        nvml.reasons = SW_POWER_CAP | SW_THERMAL
        assert watch.held_back() == ["sw_power_cap", "sw_thermal_slowdown"]
        nvml.reasons = 0
        nvml.held[1] += 10**9  # hot for a second, and cool again when asked
        assert watch.held_back() == ["heat"]
        watch.begin()
        assert watch.held_back() == []


def timed(nvml: FakeNvml, hot: Any) -> Any:
    """A session of which round `n`, retaken ones counted, is throttled where `hot(n)`."""
    state = {"now": 0.0, "taken": -1}

    class Watch(GpuWatch):
        def begin(self) -> None:
            state["taken"] += 1
            nvml.reasons = SW_THERMAL if hot(state["taken"]) else 0
            super().begin()

    def launch() -> None:
        state["now"] += 0.03

    burst = Burst(launch, lambda _: None, examples=1)
    with Watch("gpu:0") as watch:
        return measure_rounds(
            {"a": burst, "b": burst},
            reference="a",
            compared=[],
            min_rounds=20,
            watch=watch,
            clock=lambda: state["now"],
        )


def test_a_throttled_round_is_counted_and_taken_again(nvml):
    session = timed(nvml, lambda n: n in (4, 7, 8))
    assert (session.retaken_rounds, session.held_back_rounds) == (3, 0)
    assert session.held_back_by == ["sw_thermal_slowdown"]
    assert len(session.order) == len(session.samples["a"]) == 20


def test_what_does_not_pass_is_kept_after_three_retakes(nvml):
    session = timed(nvml, lambda n: n >= 5)
    assert (session.retaken_rounds, session.held_back_rounds) == (3, 15)
    assert len(session.order) == 20
    # Cool for a round, it is worth trying again.
    session = timed(nvml, lambda n: n >= 5 and n != 12)
    assert (session.retaken_rounds, session.held_back_rounds) == (6, 14)


@pytest.mark.parametrize(
    "fails", [{"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetViolationStatus"}, set()]
)
def test_sensors_that_are_absent_hold_nothing_back(fails, nvml):
    nvml.fails = fails
    session = timed(nvml, lambda n: bool(fails))
    assert (session.retaken_rounds, session.held_back_rounds, session.held_back_by) == (0, 0, [])


@pytest.mark.parametrize("fails", ["nvmlInit", "nvmlDeviceGetHandleByIndex", "pynvml"])
def test_no_nvml_is_a_note(fails, nvml, monkeypatch):
    nvml.fails = {fails}
    if fails == "pynvml":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    with GpuWatch("gpu:0") as watch:
        watch.begin()
        assert (watch.held_back(), watch.joules()) == ([], None)
    assert watch.note.startswith("NVML does not show gpu:0: ")


def test_the_gpu_is_the_one_that_tensorflow_numbers_so(nvml, monkeypatch):
    for visible, number in (("", 1), ("3,2", 1), ("GPU-x,GPU-y", 1)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with GpuWatch(f"gpu:{number}"):
            pass
    assert nvml.handles == [1, 2, "GPU-y"]


def test_energy_is_what_the_counter_grew_by_over_the_examples(nvml):
    def launch() -> None:
        nvml.millijoules += 600

    burst = Burst(launch, lambda _: None, examples=100)
    with GpuWatch("gpu:0") as watch:
        found = measure_energy(burst, watch, repeats=2, seconds=0)
        assert found == {} or found["joules_per_example"] == pytest.approx(0.006)
        found = measure_energy(burst, watch, repeats=2, seconds=1e-6)
        assert found["joules_per_example"] == pytest.approx(0.006)
        still = Burst(lambda: None, lambda _: None, examples=1)
        assert measure_energy(still, watch, repeats=1, seconds=1e-6) == {}
        nvml.fails = {"nvmlDeviceGetTotalEnergyConsumption"}
        assert measure_energy(burst, watch, repeats=2, seconds=1e-6) == {}
    with GpuWatch("cpu") as watch:
        assert measure_energy(burst, watch, repeats=1, seconds=1e-6) == {}


def test_peak_memory_is_what_an_arm_adds(monkeypatch):
    import tensorflow as tf

    taken = {"current": 100, "peak": 900}

    def reset(device: str) -> None:
        assert device == "GPU:0"
        taken["peak"] = taken["current"]

    monkeypatch.setattr(tf.config.experimental, "reset_memory_stats", reset)
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda device: taken)
    memory = PeakMemory("gpu:0")
    assert memory.found() == {"device_peak_bytes": 0}
    taken["peak"] = 350
    assert memory.found() == {"device_peak_bytes": 250}
    assert PeakMemory("cpu").found() == {}


def test_memory_and_energy_are_shown_where_they_are_known(make_run):
    rng = np.random.default_rng(0)
    arm = {"samples": list(rng.uniform(1, 2, 60)), "device_peak_bytes": 7 << 20}
    record = make_record(fixed=arm | {"joules_per_example": 2.5e-4})
    rows = summarise([record], margin=0.02)
    assert gpu_line(rows).endswith(": fixed 7 MiB, 0.25 J.")
    ((_, _, (head, body)),) = gather(read_findings(make_run("gpu", [record]))).tables
    (line,) = (line for line in body if line[1] == "fixed")
    shown = dict(zip(head, line, strict=True))
    assert (shown["GPU MiB"], shown["J for 1,000"]) == ("7", "0.25")


def test_on_a_cpu_nothing_of_it_is_shown(make_run):
    record = make_record(fixed=1.0)
    assert gpu_line(summarise([record], margin=0.02)) == ""
    ((_, _, (head, _)),) = gather(read_findings(make_run("cpu", [record]))).tables
    assert "GPU MiB" not in head

"""The same tests on every device: on a CPU in every run, on a GPU with `pytest -m gpu`."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

# Largest error of an output, and of a weight after a step of SGD, in units of the largest value:
# some roundings of float32, TensorFloat-32, float16 and bfloat16 through three layers.
TOLERANCE = {"float32": 2e-6, "tf32": 4e-3, "mixed_float16": 1e-2, "mixed_bfloat16": 6e-2}


class Setting(NamedTuple):
    device: str
    precision: str

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.precision]


def _settings() -> list:
    found = []
    for device in ("cpu", "gpu:0"):
        for precision in TOLERANCE:
            if (device, precision) != ("cpu", "tf32"):  # a CPU has none
                marks = [pytest.mark.gpu] if device != "cpu" else []
                if device == "cpu" and precision != "float32":
                    marks = [pytest.mark.slow]
                found.append(
                    pytest.param(
                        Setting(device, precision), marks=marks, id=f"{device}-{precision}"
                    )
                )
    return found


@pytest.fixture(params=_settings())
def setting(request: pytest.FixtureRequest) -> Iterator[Setting]:
    """Sets device and precision for a test, and skips it where there is no such device."""
    import tensorflow as tf

    from bench.runtime import set_precision

    chosen: Setting = request.param
    if chosen.device != "cpu" and not tf.config.list_physical_devices("GPU"):
        asked = request.config.option.markexpr == "gpu"  # then to skip would be to pass
        (pytest.fail if asked else pytest.skip)("TensorFlow sees no GPU")
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    set_precision(chosen.precision)
    with tf.device(chosen.device):
        yield chosen
    tf.config.experimental.enable_tensor_float_32_execution(before)

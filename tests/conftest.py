"""What every test can rely on: a quiet TensorFlow, and no state left by the test before."""

import os
import random
import signal
import sys
from collections.abc import Iterator

# Before TensorFlow is imported, by whichever test comes first: its C++ side reads this once.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from hypothesis import Phase, settings

# For mutation testing, see pyproject.toml: a failure is all that it asks for.
settings.register_profile(
    "mutants", derandomize=True, deadline=None, phases=[Phase.explicit, Phase.generate]
)

# A shell starts background jobs with SIGINT ignored, nohup with SIGHUP, and so would be all that
# tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    """Gives every test the same random state, and puts back what is global in Keras and NumPy.

    Keras is left alone until a test has imported it: many tests do without, and it takes seconds.
    """
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(0)
    if "keras" in sys.modules:
        import keras

        keras.utils.set_random_seed(0)
        policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    else:
        policy, floatx = "float32", "float32"
    yield
    if "keras" in sys.modules:
        import keras

        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
    random.setstate(python)
    np.random.set_state(numpy)


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> str:
    """Sets the global precision policy that the test names by indirect parametrisation."""
    import keras

    keras.config.set_dtype_policy(request.param)
    return str(request.param)


@pytest.fixture
def tensorflow_warnings() -> Iterator[list[str]]:
    """What TensorFlow's Python logger says during the test, retracing warnings among it."""
    import logging

    import tensorflow as tf

    messages: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Collect(logging.WARNING)
    tf.get_logger().addHandler(handler)
    yield messages
    tf.get_logger().removeHandler(handler)


@pytest.fixture
def nobody() -> Iterator[None]:
    """Root may write to any folder: as root, the test is someone else for a while."""
    if root := os.geteuid() == 0:
        os.seteuid(65534)
    yield
    if root:
        os.seteuid(0)

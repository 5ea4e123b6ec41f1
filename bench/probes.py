"""What `bench.doctor` tries in a process of its own: what TensorFlow sees, and what works.

TensorFlow is imported within the functions. Everything returned is plain JSON material.
"""

from typing import Any

import numpy as np

from bench.runtime import set_up

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
_SIZE = 512


def probe_tensorflow() -> dict[str, Any]:
    """Versions, what TensorFlow was built for, and the GPUs it sees, by name."""
    import keras
    import tensorflow as tf

    build = tf.sysconfig.get_build_info()
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "cuda": build.get("cuda_version"),
        "cudnn": build.get("cudnn_version"),
        "built_for": list(build.get("cuda_compute_capabilities", [])),
        "gpus": [str(detail.get("device_name", "GPU")) for detail in details],
    }


def probe_xla(device: str) -> float:
    """Compiles exp and tanh by XLA for a device, and runs them.

    On a GPU these two need libdevice, and the whole program ptxas.

    Returns:
        The largest relative error against float64.
    """
    import tensorflow as tf

    set_up(tf32=False)
    x = np.linspace(-4, 4, 1000, dtype="float32")
    with tf.device(device):
        got = tf.function(lambda t: tf.exp(t) + tf.tanh(t), jit_compile=True)(tf.constant(x))
    wide = x.astype("float64")
    exact = np.exp(wide) + np.tanh(wide)
    return float(np.max(np.abs(got.numpy() - exact) / (np.exp(wide) + np.abs(np.tanh(wide)))))


def probe_product(device: str, precision: str) -> float:
    """Multiplies two matrices of 512 x 512 normal numbers, compiled by XLA.

    Returns:
        The largest error against float64, relative to the product of the absolute values.
    """
    import tensorflow as tf

    set_up(tf32=precision == "tf32")
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, _SIZE, _SIZE))
    dtype = "float32" if precision == "tf32" else precision
    with tf.device(device):
        operands = [tf.cast(tf.constant(m, "float32"), dtype) for m in (a, b)]
        # A function of its own, so that it is compiled under the TF32 setting just made.
        got = tf.function(lambda x, y: tf.matmul(x, y), jit_compile=True)(*operands)
    error = np.abs(tf.cast(got, "float64").numpy() - a @ b)
    return float(np.max(error / (np.abs(a) @ np.abs(b))))

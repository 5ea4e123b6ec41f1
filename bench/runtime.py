"""How a worker sets TensorFlow up, and what a record says of it.

What differs between devices by default is set here: memory growth, and TensorFloat-32, which
TensorFlow turns on by itself on GPUs that have it. XLA is on or off by the engine, explicitly.
"""

import os
import re
from typing import Any


def set_precision(precision: str) -> dict[str, Any]:
    """Sets Keras and TensorFlow up for a cell's precision. For workers only.

    Args:
        precision: A Keras policy, or `tf32`: the policy float32, its products on a GPU in
            TensorFloat-32.

    Returns:
        As `set_up`.
    """
    import keras

    keras.config.set_dtype_policy("float32" if precision == "tf32" else precision)
    return set_up(tf32=precision == "tf32")


def set_threads(threads: int | str) -> None:
    """Sets how many threads TensorFlow and NumPy's BLAS have on the CPU. For new workers only.

    A worker keeps their number for as long as it lives: TensorFlow makes its threads once.

    Args:
        threads: How many, or `"all"` for as many as there are cores.

    Raises:
        RuntimeError: TensorFlow has run with another number in this process.
    """
    import tensorflow as tf
    from threadpoolctl import threadpool_limits

    number = 0 if threads == "all" else int(threads)  # 0 leaves it to TensorFlow
    threading = tf.config.threading
    if threading.get_intra_op_parallelism_threads() != number:
        threading.set_intra_op_parallelism_threads(number)
    if threading.get_inter_op_parallelism_threads() != number:
        threading.set_inter_op_parallelism_threads(number)
    if number:
        threadpool_limits(number, "blas")


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether a device had no memory left, as TensorFlow's allocator, XLA or CUDA say it.

    >>> ran_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"))
    True
    """
    words = "RESOURCE_EXHAUSTED|out of memory|OOM when allocating"
    return type(error).__name__ == "ResourceExhaustedError" or bool(
        re.search(words, str(error), re.IGNORECASE)
    )


def set_up(*, tf32: bool) -> dict[str, Any]:
    """Sets TensorFlow up for measuring. Imports it, so for workers only.

    Args:
        tf32: Whether float32 products on a GPU may round their operands to TensorFloat-32, which
            has 10 bits of mantissa. Without it float32 means IEEE float32.

    Returns:
        What is set, for the record: `tf32`, `memory_growth` (of every GPU), and `op_determinism`,
        which is the user's to set, by `TF_DETERMINISTIC_OPS`.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        if not tf.config.experimental.get_memory_growth(gpu):
            # Else TensorFlow takes the whole GPU at its first use, and peak memory says nothing.
            # Refused once a GPU is in use; the worker calls this before anything is.
            tf.config.experimental.set_memory_growth(gpu, True)
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    return {
        "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
        "memory_growth": [tf.config.experimental.get_memory_growth(gpu) for gpu in gpus],
        "op_determinism": os.environ.get("TF_DETERMINISTIC_OPS", "").lower() in ("1", "true"),
    }

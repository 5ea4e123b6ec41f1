"""Everything of a cell lies on the device that was asked for: the second of two CPUs."""

import subprocess
import sys

CODE = """
import tensorflow as tf
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
tf.config.set_visible_devices([], "GPU")
from bench.arms import ARMS
from bench.engines import prepare_data, training_burst
from bench.models import build_model
from bench.plan import Cell
from fixedbias import load_dataset
cell = Cell(2, 8, 32, "float32", "cpu:1", "compiled", "constant", "digits")
with tf.device(cell.device):
    data = prepare_data("compiled", load_dataset("digits"))
    model = build_model(ARMS["fixed"], cell, 0)
    burst = training_burst("compiled", model, data, 32, 64)
    loss = burst.launch()
    float(loss)
tensors = [*data.train, *data.test, data.noise, loss]
tensors += [v.value for v in (*model.variables, *model.optimizer.variables)]
print(len(tensors), sorted({t.device.rpartition("/")[2] for t in tensors}))
"""


def test_nothing_strays_to_another_device():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=200)
    count, devices = done.stdout.strip().split(maxsplit=1)
    assert devices == "['device:CPU:1']", done.stderr
    assert int(count) > 10

"""What is learnt: images of a data set, or a small task that is made here, without files.

| task | inputs | target |
| --- | --- | --- |
| `images` | those of `--data` | one of 10 classes |
| `line` | x in [-50, 50) | 2x + 10, with uniform noise of 5 either way |
| `half-plane` | a point of the unit square | whether x1 + x2 > 0.5: 7 of 8 are |
| `odd` | x in [-1, 1) | sin(pi x) |

`odd` is where a bias matters. Without biases a ReLU network is positively homogeneous, f(cx) =
c f(x) for c > 0: through zero it is a straight line on either side, and of an odd function it can
only have the linear part. Of sin(pi x) that is 6 / pi^2 = 61 % of the variance, at any depth and
width, with a trained bias in the output layer or without.

Nothing here needs TensorFlow.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

EXAMPLES = 8192


@dataclass(frozen=True)
class Task:
    """How a network for the task begins and ends.

    Args:
        input_shape: Of one example.
        outputs: Units of the output layer.
        classes: Whether the targets are class indices; else they are numbers, and what is recorded
            as the accuracy is R^2, the share of the variance that the network explains.
        rescale: Factor on the inputs, as for `fixedbias.mlp`.
        learnt: Accuracy below which nothing was learnt.
        too_good: Accuracy above which something is wrong.
    """

    input_shape: tuple[int, ...]
    outputs: int
    classes: bool
    rescale: float | None = None
    learnt: float = 0.2
    too_good: float = 1.0

    @property
    def loss(self) -> str:
        """The usual loss, a name in `fixedbias.losses`."""
        return "cross-entropy" if self.classes else "sum-of-squares"

    @property
    def losses(self) -> tuple[str, ...]:
        """The losses that fit the targets."""
        both = ("sum-of-squares", "huber")
        return ("cross-entropy", "hinge", *both) if self.classes else both


# Chance is 10 %, and no network of dense layers has shown more than 99.9 % on MNIST's test images.
IMAGES = Task((28, 28), 10, classes=True, rescale=1 / 255, too_good=0.999)
TASKS: dict[str, Task] = {
    "line": Task((1,), 1, classes=False),
    # Always saying "above" is right for 7/8.
    "half-plane": Task((2,), 2, classes=True, learnt=0.89),
    "odd": Task((1,), 1, classes=False),
}


@dataclass(frozen=True, eq=False)
class TaskData:
    """Examples of a task, as `fixedbias.Dataset` holds images."""

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def checksum(self) -> str:
        arrays = (self.x_train, self.y_train, self.x_test, self.y_test)
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def task_of(data: str) -> Task:
    """The task behind a cell's `data`, which names a made task or a data set of images."""
    return TASKS.get(data, IMAGES)


def make_task(name: str) -> TaskData:
    """The examples of a made task, the same ones every time: 8,192 to train on, 2,048 to test.

    Args:
        name: A key of `TASKS`.

    Example:

    >>> data = make_task("line")
    >>> data.x_train.shape, data.y_test.shape
    ((8192, 1), (2048, 1))
    """
    # Unlike `default_rng`, it never changes between versions: a checksum stays a task's name.
    rng = np.random.RandomState(0)
    x = rng.random_sample((EXAMPLES * 5 // 4, *TASKS[name].input_shape))
    if name == "line":
        x = 100 * x - 50
        y = 2 * x + 10 + rng.uniform(-5, 5, x.shape)
    elif name == "half-plane":
        y = x.sum(1) > 0.5
    else:
        x = 2 * x - 1
        y = np.sin(np.pi * x)
    x, y = x.astype("float32"), y.astype("uint8" if TASKS[name].classes else "float32")
    return TaskData(name, x[:EXAMPLES], y[:EXAMPLES], x[EXAMPLES:], y[EXAMPLES:])

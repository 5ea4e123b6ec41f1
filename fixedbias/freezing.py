"""A bias that is trained for a while and then fixed."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from fixedbias.layers import BiasLike, FixedBiasDense


@keras.saving.register_keras_serializable(package="fixedbias")
class FreezableDense(keras.layers.Dense):
    """A dense layer whose bias starts from a given value, is trained, and can be fixed at any time.

    From `fix()` on, every step of an optimizer ends with the bias as it was then: momentum, weight
    decay and loss scaling change nothing. It works inside compiled programs and takes no new
    compilation. That the bias is fixed is saved with the weights. (An optimizer with `use_ema`
    assigns an average of the weights at the end of a training: see `hold`.)

    Where it does not help: the gradient of the bias is still computed, so it is no faster than
    `Dense`; and the bias still counts among the trainable weights. What is never to be trained
    belongs into `FixedBiasDense`.

    Args:
        units: Positive integer, the size of the output.
        bias: What the bias starts from; as for `FixedBiasDense`.
        **kwargs: As for `keras.layers.Dense`, but for `use_bias`, `bias_initializer` and
            `bias_constraint`. It cannot be quantized: Keras's `Dense` can, its subclasses cannot.

    Raises:
        ValueError: As for `FixedBiasDense`, or one of these three is given.

    Example:

    >>> layer = FreezableDense(2, bias=[0.5, -0.5])
    >>> model = keras.Sequential([keras.Input((3,)), layer])
    >>> model.compile("adam", "mse")
    >>> layer.fix()
    >>> _ = model.fit(np.ones((8, 3)), np.ones((8, 2)), verbose=0)
    >>> layer.bias.numpy()
    array([ 0.5, -0.5], dtype=float32)
    """

    def __init__(self, units: int, bias: BiasLike = 0.0, **kwargs: Any) -> None:
        # The same bias is accepted, and refused in the same words.
        checked = FixedBiasDense(units, bias, dtype=kwargs.get("dtype"))
        super().__init__(units, **kwargs)
        starts = isinstance(self.bias_initializer, keras.initializers.Zeros)
        if not (self.use_bias and starts and self.bias_constraint is None):
            raise ValueError(
                "The bias of `FreezableDense` starts from `bias` and ends fixed: leave out "
                "`use_bias`, `bias_initializer` and `bias_constraint`. Received: "
                f"use_bias={self.use_bias}, bias_initializer={self.bias_initializer}, "
                f"bias_constraint={self.bias_constraint}"
            )
        self.start: float | list[float] = checked.get_config()["bias"]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        # First, because `Dense` adds LoRA's weights and then lets no more be added.
        common: dict[str, Any] = {"initializer": "zeros", "trainable": False, "autocast": False}
        self.held = self.add_weight(name="held", shape=(self.units,), **common)
        self.is_fixed = self.add_weight(name="is_fixed", shape=(), **common)
        super().build(input_shape)
        self.bias.assign(
            np.broadcast_to(np.asarray(self.start, self.variable_dtype), (self.units,))
        )
        # A constraint acts last in an optimizer's step, whatever the optimizer is.
        self.bias.constraint = self._hold

    def _hold(self, bias: Any) -> Any:
        return ops.where(self.is_fixed > 0, self.held, bias)

    def fix(self) -> None:
        """Fixes the bias as it is now; if it is fixed already, it stays as it was then."""
        if not float(self.is_fixed.numpy()):
            self.held.assign(self.bias)
            self.is_fixed.assign(1.0)

    def hold(self) -> None:
        """Gives a fixed bias its value again, if something else than an optimizer's step took it.

        So does the end of a training with a moving average of the weights (`use_ema`), which is
        assigned to them; `FreezeAfter` calls this then.
        """
        self.bias.assign(self._hold(self.bias))

    def save_own_variables(self, store: Any) -> None:
        # As any layer: `Dense` knows its kernel and bias only.
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        keras.layers.Layer.load_own_variables(self, store)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bias": self.start}


class FreezeAfter(keras.callbacks.Callback):
    """Fixes the biases of a model's `FreezableDense` layers after some epochs of training.

    Works with `model.fit` and `fit_compiled`. With 0 epochs the biases are never trained, and the
    training is that of `FixedBiasDense`. Layers in which the bias is fixed already stay as they
    are.

    Args:
        epochs: Epochs to train the biases for, 0 or more.

    Raises:
        ValueError: `epochs` is not such a number.

    Example:

    >>> from fixedbias import mlp
    >>> model = mlp(3, 4, "ramp", hidden=FreezableDense, input_shape=(2,))
    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> x, y = np.ones((8, 2)), np.zeros(8)
    >>> _ = model.fit(x, y, epochs=3, callbacks=[FreezeAfter(2)], verbose=0)
    >>> [bool(model.get_layer(f"hidden_{t}").is_fixed.numpy()) for t in range(2)]
    [True, True]
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 0:
            raise ValueError(f"`epochs` must be 0 or more. Received: epochs={epochs!r}")
        self.epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch >= self.epochs:
            for layer in _freezable(self.model):
                layer.fix()

    def on_train_end(self, logs: Any = None) -> None:
        for layer in _freezable(self.model):
            layer.hold()


def _freezable(model: keras.Model) -> Iterator[FreezableDense]:
    """In the model, however deep: a layer has those of its own in attributes, lists and dicts."""
    waiting, seen = [model], {id(model)}
    while waiting:
        layer = waiting.pop()
        if isinstance(layer, FreezableDense):
            yield layer
        for part in _layers_in(vars(layer)):
            if id(part) not in seen:
                seen.add(id(part))
                waiting.append(part)


def _layers_in(value: Any) -> Iterator[keras.layers.Layer]:
    if isinstance(value, keras.layers.Layer):
        yield value
    elif isinstance(value, dict):
        yield from _layers_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _layers_in(inner)

"""The arms: what competes, and how a user's own layer becomes one of them.

Keras is imported when an arm is built, so that the command line can check names without it.
"""

import ast
import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
"""Dtype policies of Keras, for cells and for arms."""

REFERENCE = "dense"
AGAIN = "dense (A/A)"
"""The reference once more: what the instrument says of two arms that are the same."""


@dataclass(frozen=True)
class Arm:
    """One implementation of a hidden layer.

    Args:
        hidden: Makes the layer, called as `hidden(units, bias=..., activation=...,
            kernel_initializer=..., name=...)` (see `fixedbias.mlp`).
        prepare: Called with a hidden layer, once built, and its fixed bias.
        callbacks: Makes the callbacks of a full training.
        precision: Dtype policy of the whole network; None for the cell's.
    """

    hidden: Callable[..., "keras.layers.Layer"]
    prepare: Callable[[Any, np.ndarray], None] = lambda layer, bias: None
    callbacks: Callable[[], list[Any]] = list
    precision: str | None = None


def _dense(units: int, *, bias: Any, **common: Any) -> "keras.layers.Layer":
    import keras

    return keras.layers.Dense(units, **common)


def _dense_nobias(units: int, *, bias: Any, **common: Any) -> "keras.layers.Layer":
    import keras

    return keras.layers.Dense(units, use_bias=False, **common)


def _freeze(layer: Any, bias: np.ndarray) -> None:
    layer.bias.assign(bias)
    layer.bias.trainable = False


def _fixed(units: int, **common: Any) -> "keras.layers.Layer":
    from fixedbias import FixedBiasDense

    return FixedBiasDense(units, **common)


def _fixed_lambda(units: int, **common: Any) -> "keras.layers.Layer":
    from bench.ways import lambda_dense

    return lambda_dense(units, **common)


def _plain(units: int, **common: Any) -> "keras.layers.Layer":
    from bench.ways import PlainDense

    return PlainDense(units, **common)


def _freezable(units: int, **common: Any) -> "keras.layers.Layer":
    from fixedbias import FreezableDense

    return FreezableDense(units, **common)


def _freeze_after(epochs: int) -> list[Any]:
    from fixedbias import FreezeAfter

    return [FreezeAfter(epochs)]


ARMS: dict[str, Arm] = {
    # The standard layer: bias from zero, trained.
    REFERENCE: Arm(_dense),
    # Tells "absent" from "frozen": what is saved by having no bias at all.
    "dense-nobias": Arm(_dense_nobias),
    # The standard layer holding the fixed bias, frozen after it is built.
    "dense-frozen": Arm(_dense, _freeze),
    "fixed": Arm(_fixed),
    # The same layer as a function of `keras.ops` in a `Lambda` layer, behind the kernel's layer,
    "fixed-lambda": Arm(_fixed_lambda),
    # and in TensorFlow's operations alone.
    "plain": Arm(_plain),
}
_FREEZE_AFTER = "freeze-after="
_AT = "@"


def find_arm(name: str) -> Arm:
    """The arm of this name: one of `ARMS`, or `freeze-after=K` for any number of epochs K.

    In `freeze-after=K` the bias starts from the preset, is trained for K epochs and then fixed;
    with K = 0 it trains as `fixed` does. What is timed of it is the training before.

    `ARM@POLICY` is that arm in a network of this dtype policy, whatever the cell's is: the way to
    time precisions against each other, which lie in different cells otherwise.

    Raises:
        ValueError: There is no such arm.

    Example:

    >>> find_arm("fixed") is ARMS["fixed"]
    True
    >>> find_arm("dense@mixed_bfloat16").precision
    'mixed_bfloat16'
    """
    base, at, precision = name.partition(_AT)
    if at and precision in PRECISIONS:
        return replace(find_arm(base), precision=precision)
    if name in ARMS:
        return ARMS[name]
    epochs = name.removeprefix(_FREEZE_AFTER)
    if epochs != name and epochs.isascii() and epochs.isdecimal() and str(int(epochs)) == epochs:
        return Arm(_freezable, callbacks=partial(_freeze_after, int(epochs)))
    raise ValueError(
        f"An arm must be one of {', '.join(ARMS)} or {_FREEZE_AFTER}EPOCHS, and may have "
        f"{_AT}POLICY after it, one of {', '.join(PRECISIONS)}. Received: {name}"
    )


def user_arms(words: Sequence[str]) -> dict[str, Arm]:
    """Arms from `--layer`: `module:Class` or `file.py:Class`, each with `key=value` after it.

    The class may be any Keras layer whose constructor takes `units`. It also gets `bias`,
    `activation`, `kernel_initializer` and `name` where it takes them. Nothing is imported
    before the layer is made, but that there is such a module is checked.

    Args:
        words: As on the command line, such as `["mine.py:MyDense", "alpha=0.5"]`.

    Returns:
        The arms by class name, primed where a name comes twice.

    Raises:
        ValueError: A word is neither form, or there is no such module or file.

    Example:

    >>> list(user_arms(["keras.layers:Dense", "use_bias=False"]))
    ['Dense']
    """
    specs: list[tuple[str, str, dict[str, Any]]] = []
    for word in words:
        key, equals, text = word.partition("=")
        where, colon, name = word.rpartition(":")
        if equals and specs and key.isidentifier():
            specs[-1][2][key] = _literal(text)
        elif colon and name.isidentifier() and where:
            _check_exists(where)
            specs.append((where, name, {}))
        else:
            raise ValueError(
                "--layer must be module:Class or file.py:Class, then key=value arguments. "
                f"Received: {word}"
            )
    arms: dict[str, Arm] = {}
    for where, name, settings in specs:
        label = name
        while label in arms or label in ARMS:
            label += "'"
        arms[label] = Arm(_UserLayer(where, name, settings))
    return arms


@dataclass(frozen=True)
class _UserLayer:
    where: str
    name: str
    settings: dict[str, Any]

    def __call__(self, units: int, **common: Any) -> "keras.layers.Layer":
        cls = getattr(_module(self.where), self.name)
        # `name` goes to any Keras layer, the others only where they are declared: what a
        # constructor does not declare it hands to `Layer`, which refuses it.
        declared = inspect.signature(cls).parameters
        taken = {k: v for k, v in common.items() if k in declared or k == "name"}
        return cls(units=units, **taken | self.settings)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def layer_files(words: Sequence[str]) -> list[str]:
    """The files among what `--layer` names, as on the command line.

    >>> layer_files(["keras.layers:Dense"])
    []
    """
    layers = [arm.hidden for arm in user_arms(words).values()]
    own = [layer.where for layer in layers if isinstance(layer, _UserLayer)]
    return [where for where in own if where.endswith(".py")]


def _check_exists(where: str) -> None:
    try:
        found = Path(where).is_file() if where.endswith(".py") else _is_module(where)
    except (ImportError, OSError, ValueError):
        found = False
    if not found:
        raise ValueError(
            "--layer must name a module that Python finds, or a file that ends in .py. "
            f"Received: {where}"
        )


def _is_module(name: str) -> bool:
    """Whether there is such a module; `find_spec` of a dotted name would import its packages."""
    top, *below = name.split(".")
    spec = importlib.util.find_spec(top)
    for part in below:
        if spec is None or spec.submodule_search_locations is None:
            return False
        path = list(spec.submodule_search_locations)
        spec = importlib.machinery.PathFinder.find_spec(f"{spec.name}.{part}", path)
    return spec is not None


@cache
def _module(where: str) -> ModuleType:
    if not where.endswith(".py"):
        return importlib.import_module(where)
    path = Path(where).resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # the suffix is .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Under its name before it runs, as an import does: dataclasses and pickle look there.
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module

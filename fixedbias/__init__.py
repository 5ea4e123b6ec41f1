"""Dense layers whose bias is fixed by hand and never trained, for Keras on TensorFlow."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fixedbias.biases import bias_values
    from fixedbias.datasets import Dataset, DatasetError, load_dataset
    from fixedbias.freezing import FreezableDense, FreezeAfter
    from fixedbias.layers import FixedBiasDense
    from fixedbias.networks import mlp
    from fixedbias.plots import plot_history, plot_weights
    from fixedbias.replicas import fit_replicated
    from fixedbias.stacked import fit_stacked
    from fixedbias.training import fit_compiled

__version__ = "0.1.0"

_HOME = {
    "Dataset": "datasets",
    "DatasetError": "datasets",
    "FixedBiasDense": "layers",
    "FreezableDense": "freezing",
    "FreezeAfter": "freezing",
    "bias_values": "biases",
    "fit_compiled": "training",
    "fit_replicated": "replicas",
    "fit_stacked": "stacked",
    "load_dataset": "datasets",
    "mlp": "networks",
    "plot_history": "plots",
    "plot_weights": "plots",
}
__all__ = [
    "Dataset",
    "DatasetError",
    "FixedBiasDense",
    "FreezableDense",
    "FreezeAfter",
    "bias_values",
    "fit_compiled",
    "fit_replicated",
    "fit_stacked",
    "load_dataset",
    "mlp",
    "plot_history",
    "plot_weights",
]


def __getattr__(name: str) -> Any:
    # TensorFlow takes seconds to import: names are resolved at first use, so that the
    # command line can look at data sets and presets, and refuse bad input, without it.
    if name in _HOME:
        return getattr(import_module(f"fixedbias.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

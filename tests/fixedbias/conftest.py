"""MNIST in miniature."""

from pathlib import Path

import numpy as np
import pytest

from fixedbias.idx import ARRAYS, idx_md5
from tests.fixedbias.caches import set_child

SMALL = {
    "x_train": np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28),
    "y_train": np.array([7, 0, 9], np.uint8),
    "x_test": np.arange(1, 2 * 28 * 28 + 1, dtype=np.uint16).astype(np.uint8).reshape(2, 28, 28),
    "y_test": np.array([0, 9], np.uint8),
}
OTHER = {key: array ^ 1 for key, array in SMALL.items()}


@pytest.fixture
def small_mnist(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """For this test, MNIST is `SMALL`, by its counts and MD5."""
    for key, array in SMALL.items():
        entry = ARRAYS[key]._replace(examples=len(array), mnist_md5=idx_md5(array))
        monkeypatch.setitem(ARRAYS, key, entry)
    return SMALL


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Keras home, no data folder set, and no Keras: downloads are refused at once."""
    monkeypatch.delenv("FIXEDBIAS_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    set_child(monkeypatch, "raise OSError('Connection refused')")
    return tmp_path / "home"

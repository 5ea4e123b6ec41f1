"""Folders with data sets, and what stands in for Keras when it is asked to download one."""

from pathlib import Path

import numpy as np
import pytest

from fixedbias import datasets
from fixedbias.datasets import Dataset


def set_child(monkeypatch: pytest.MonkeyPatch, loader: str) -> None:
    """Puts code in the place of Keras's import and loader; `folder` is its Keras home."""
    before, rest = datasets._CHILD.split("try:\n", 1)
    code = loader.replace("\n", "\n    ")
    handler = rest[rest.index("except") :]
    monkeypatch.setattr(datasets, "_CHILD", f"{before}try:\n    {code}\n{handler}")


START = "(folder / 'started').touch()\n(folder / 'datasets').mkdir()\n"


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def check_equal(dataset: Dataset, arrays: dict[str, np.ndarray]) -> None:
    for key, array in arrays.items():
        np.testing.assert_array_equal(getattr(dataset, key), array)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]

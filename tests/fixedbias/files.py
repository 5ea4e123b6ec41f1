"""Image files as bytes, good ones and such as only claim to be, and how they are refused."""

import gzip
import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from fixedbias.idx import ARRAYS, DatasetError
from fixedbias.text import one_line
from tests.fixedbias.conftest import SMALL

IMAGES, LABELS = SMALL["x_train"], SMALL["y_train"]


def header(*shape: int, magic: int | None = None) -> bytes:
    return struct.pack(f">{1 + len(shape)}I", magic or 0x800 + len(shape), *shape)


def idx_bytes(array: np.ndarray) -> bytes:
    return header(*array.shape) + array.tobytes()


def npz_bytes(
    arrays: Mapping[str, np.ndarray | bytes], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """An archive of arrays, or of what stands for one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for key, array in arrays.items():
            archive.writestr(f"{key}.npy", array if isinstance(array, bytes) else npy_bytes(array))
    return buffer.getvalue()


def npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npy_claim(shape: str, data: bytes = b"", version: int = 1) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def check_refused(read: Callable[[], object], path: Path, says: str = "") -> None:
    """`read` raises one printable line that names the file and says this."""
    with pytest.raises(DatasetError) as caught:
        read()
    message = str(caught.value)
    assert str(path) in message
    assert says in message
    assert message == one_line(message)


def peak_memory(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def write_idx(folder: Path, arrays: dict[str, np.ndarray], packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for key, array in arrays.items():
        name, data = ARRAYS[key].idx_name, idx_bytes(array)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)
    return folder


def check_array(array: np.ndarray, axes: int) -> None:
    """This is what the readers promise of images (3 axes) and labels (1)."""
    assert array.dtype == np.uint8
    assert array.shape == (len(array), 28, 28)[:axes]
    assert len(array) > 0
    assert axes == 3 or array.max() <= 9

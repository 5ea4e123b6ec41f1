"""One array of a NumPy archive, read with distrust: no memory is taken on the file's word."""

import io
import warnings
import zipfile
from typing import NamedTuple

import numpy as np

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Entry(NamedTuple):
    """An array as its header claims it is, and what follows the header."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype
    data: io.BytesIO


def read_entry(archive: zipfile.ZipFile, key: str, max_bytes: int) -> Entry:
    """Unpacks an array's entry, and reads its header; nothing pickled is ever loaded.

    `np.load` is not for files from strangers: it takes as much memory as the header claims, before
    it looks whether the array is there.

    Args:
        archive: An open `.npz` file.
        key: The array's key.
        max_bytes: The most that the entry may hold, unpacked and header included.

    Raises:
        ValueError: The entry declares more than `max_bytes`, or is packed otherwise than NumPy
            does it.
        Exception: Of zipfile, zlib, NumPy or ast, a dozen types, if it is damaged.

    Example:

    >>> file = io.BytesIO()
    >>> np.savez(file, x=np.arange(3, dtype="uint8"))
    >>> with zipfile.ZipFile(file) as archive:
    ...     shape, _, dtype, data = read_entry(archive, "x", max_bytes=1000)
    >>> shape, dtype, data.read()
    ((3,), dtype('uint8'), b'\\x00\\x01\\x02')
    """
    info = archive.getinfo(f"{key}.npy")
    # bzip2 and LZMA unpack without bound in Python's reader, and NumPy writes neither.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"entry must be stored or deflated. Received: method {info.compress_type}")
    if info.file_size > max_bytes:
        raise ValueError(f"entry must have at most {max_bytes} bytes. Received: {info.file_size}")
    with archive.open(info) as stream:
        # Without a bound, zipfile would unpack what the entry holds, not what it declares.
        npy = io.BytesIO(stream.read(info.file_size + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the headers of Python 2, and those badly written
        version = np.lib.format.read_magic(npy)
        return Entry(*_HEADERS[version](npy), npy)

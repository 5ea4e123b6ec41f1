"""MNIST's files, found, read and verified: four IDX files, or one NumPy archive.

An IDX file is a big-endian header, the magic number 0x00000800 + axes followed by one uint32 per
axis, and then one unsigned byte per element.

The files come from outside, so nothing that they claim is believed before it is checked: memory
stays below a few times `MAX_BYTES` whatever a header says, and whatever is wrong with a file is a
`DatasetError` of one line that names it.
"""

import gzip
import hashlib
import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from fixedbias.npz import read_entry
from fixedbias.text import one_line

MAX_BYTES = 2**26
"""The most that one array or one file may hold; MNIST's training images take 47,040,016 bytes."""


class _Array(NamedTuple):
    content: str
    idx_name: str
    axes: int
    examples: int
    mnist_md5: str
    """Of MNIST's IDX file, unpacked: the same whoever packed it."""


ARRAYS = {
    "x_train": _Array(
        "training images", "train-images-idx3-ubyte", 3, 60_000, "6bbc9ace898e44ae57da46a324031adb"
    ),
    "y_train": _Array(
        "training labels", "train-labels-idx1-ubyte", 1, 60_000, "a25bea736e30d166cdddb491f175f624"
    ),
    "x_test": _Array(
        "test images", "t10k-images-idx3-ubyte", 3, 10_000, "2646ac647ad5339dbf082846283269ea"
    ),
    "y_test": _Array(
        "test labels", "t10k-labels-idx1-ubyte", 1, 10_000, "27ae3e4e09519cfbb04c329615203637"
    ),
}
"""The arrays of MNIST by their key in an archive; Fashion-MNIST has the same names and sizes."""

TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}

_ADVICE = "Replace the file by a good copy."


class DatasetError(ValueError):
    """A dataset cannot be had: one line with the rule, what was received, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def files_in(name: str, folder: Path) -> dict[str, Path]:
    """Where the arrays of a dataset are: looked for, not into.

    Args:
        name: `mnist` or `fashion_mnist`.
        folder: A folder with one `mnist.npz` or `fashion_mnist.npz`, or with the four IDX files
            under their usual names, plain or `.gz`; or whose subfolder of the dataset's name,
            with `_` or `-`, is such a folder.

    Returns:
        The file of each array, the same four times if it is an archive; empty if there is none.

    Raises:
        DatasetError: Some of the IDX files are missing, or the folder may not be read.
    """
    for place in (folder / name, folder / name.replace("_", "-"), folder):
        archive = place / f"{name}.npz"
        if _exists(archive):
            return dict.fromkeys(ARRAYS, archive)
        found = {
            key: path
            for key, array in ARRAYS.items()
            for path in (place / f"{array.idx_name}.gz", place / array.idx_name)  # the last stays
            if _exists(path)
        }
        if found and found.keys() != ARRAYS.keys():
            missing = ", ".join(ARRAYS[key].idx_name for key in ARRAYS if key not in found)
            raise DatasetError(
                f"{place}: the four IDX files of {TITLES[name]} must be together. "
                f"Received: no {missing}. Add what is missing, or remove the others."
            )
        if found:
            return found
    return {}


def _exists(path: Path) -> bool:
    """Whether there is something of this name, be it a broken link: then reading it will fail."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # no permission, a name too long or with a NUL
        raise DatasetError(
            f"{path}: the data folder must be readable. Received: {error}. "
            "Name another folder by --data-dir or FIXEDBIAS_DATA."
        ) from None
    return True


def read_folder(name: str, folder: Path) -> dict[str, np.ndarray]:
    """Reads and verifies the files of a dataset, all or nothing.

    MNIST must have its MD5, byte for byte. Fashion-MNIST must have its counts, and not be MNIST:
    damage that still unpacks goes unseen.

    Args:
        name, folder: As for `files_in`.

    Returns:
        The four arrays by key, as `read_idx` and `read_npz` give them.

    Raises:
        DatasetError: A file is absent, damaged, or another array's or dataset's.
    """
    files = files_in(name, folder)
    if not files:
        raise DatasetError(f"{folder}: there must be {TITLES[name]} files. Received: none.")
    if files["x_train"].suffix == ".npz":
        arrays = read_npz(files["x_train"])
    else:
        arrays = {key: read_idx(files[key], ARRAYS[key].axes) for key in ARRAYS}
    for key, array in arrays.items():
        _verify(name, key, array, files[key])
    return arrays


def _verify(name: str, key: str, array: np.ndarray, path: Path) -> None:
    expected, md5 = ARRAYS[key], idx_md5(array)
    rule = f"{path}: this must be {TITLES[name]}'s {expected.examples} {expected.content}"
    actual = next((known for known in ARRAYS.values() if known.mnist_md5 == md5), None)
    if actual and (name != "mnist" or actual is not expected):
        raise DatasetError(
            f"{rule}. Received: MNIST's {actual.content}. Put each file under its own name."
        )
    if name == "mnist" and not actual:
        raise DatasetError(
            f"{rule}, MD5 {expected.mnist_md5} once unpacked. Received: {len(array)} of them, "
            f"MD5 {md5}. {_ADVICE}"
        )
    if len(array) != expected.examples:
        raise DatasetError(f"{rule}. Received: {len(array)} of them. {_ADVICE}")


def read_idx(path: Path, axes: int) -> np.ndarray:
    """The images (3 axes) or labels (1 axis) in an IDX file, packed if its name ends in `.gz`.

    Args:
        path: The file.
        axes: 3 for images of 28 x 28 pixels, 1 for labels from 0 to 9.

    Returns:
        uint8 array of shape `(n, 28, 28)` or `(n,)`, n > 0, read-only.

    Raises:
        DatasetError: The file cannot be read or is not, to the byte, such an IDX file.

    Example:

    >>> read_idx(Path("t10k-labels-idx1-ubyte.gz"), axes=1)  # doctest: +SKIP
    array([7, 2, 1, ..., 4, 5, 6], shape=(10000,), dtype=uint8)
    """
    with _as_dataset_error(path), _open(path) as stream:
        header = stream.read(4 + 4 * axes)
        if len(header) < 4 + 4 * axes:
            raise _refused(path, "header must be complete", f"{len(header)} bytes")
        magic, *shape = struct.unpack(f">{1 + axes}I", header)
        if magic != 0x800 + axes:
            rule = f"magic number must be 0x{0x800 + axes:08x}, that of {axes} axes of bytes"
            raise _refused(path, rule, f"0x{magic:08x}")
        size = _checked_size(path, tuple(shape), axes)
        # One byte more than there may be: enough to see that something follows.
        return _checked_array(path, stream.read(size + 1), tuple(shape))


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The four arrays of a dataset in a NumPy archive, such as Keras's `mnist.npz`.

    Args:
        path: The file, with the keys `x_train`, `y_train`, `x_test` and `y_test`.

    Returns:
        The arrays by key: uint8, of shape `(n, 28, 28)` or `(n,)`, n > 0, read-only.

    Raises:
        DatasetError: The file cannot be read, lacks a key, or an array is not as above. Pickled
            objects are never loaded.

    Example:

    >>> read_npz(Path("mnist.npz"))["y_test"]  # doctest: +SKIP
    array([7, 2, 1, ..., 4, 5, 6], shape=(10000,), dtype=uint8)
    """
    with _as_dataset_error(path), _open(path) as stream, zipfile.ZipFile(stream) as archive:
        return {key: _read_npy(path, archive, key) for key in ARRAYS}


def _read_npy(path: Path, archive: zipfile.ZipFile, key: str) -> np.ndarray:
    where = f"{path} [{key}]"
    if f"{key}.npy" not in archive.namelist():
        raise _refused(where, f"archive must have the keys {', '.join(ARRAYS)}", f"no {key}")
    try:
        shape, fortran_order, dtype, npy = read_entry(archive, key, MAX_BYTES)
    except ValueError as error:
        rule = "file must be readable and whole"
        raise _refused(where, rule, f"{type(error).__name__}: {error}") from None
    if dtype != np.uint8 or fortran_order:
        received = f"{dtype} in {'Fortran' if fortran_order else 'C'} order"
        raise _refused(where, "array must be uint8 in C order", received)
    size = _checked_size(where, shape, ARRAYS[key].axes)
    return _checked_array(where, npy.read(size + 1), shape)


def idx_md5(array: np.ndarray) -> str:
    """The MD5 that an array has as an unpacked IDX file, whatever form it came in.

    Args:
        array: uint8 array in C order.

    Returns:
        32 hexadecimal digits.

    Example:

    >>> idx_md5(np.zeros(1, np.uint8))
    '56b7116890c3e0349ca070a08240151a'
    """
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    md5 = hashlib.md5(header, usedforsecurity=False)
    md5.update(array.data)
    return md5.hexdigest()


def _open(path: Path) -> BinaryIO:
    # Before it is opened: a pipe would block for ever, a device never end.
    if not path.is_file():
        received = "a folder" if path.is_dir() else "none, or a broken link, or something special"
        raise _refused(path, "must be a file", received)
    if path.stat().st_size > MAX_BYTES:
        raise _refused(path, f"file must have at most {MAX_BYTES} bytes", f"{path.stat().st_size}")
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _checked_size(where: Path | str, shape: tuple[int, ...], axes: int) -> int:
    """The bytes of an array, once the shape in its header is known to be one that may be read."""
    inner = (28, 28)[: axes - 1]
    size = math.prod(shape)
    if len(shape) != axes or shape[1:] != inner or shape[0] < 1 or size > MAX_BYTES:
        expected = f"(n, {', '.join(map(str, inner))})" if inner else "(n,)"
        rule = f"header must give a shape {expected}, n > 0, of at most {MAX_BYTES} bytes"
        raise _refused(where, rule, f"{shape}")
    return size


def _checked_array(where: Path | str, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    size = math.prod(shape)
    if len(data) != size:
        received = "more" if len(data) > size else f"{len(data)}"
        raise _refused(where, f"header must be followed by its {size} bytes", received)
    array = np.frombuffer(data, np.uint8).reshape(shape)
    if len(shape) == 1 and array.max() > 9:
        raise _refused(where, "labels must be from 0 to 9", f"{array.max()}")
    return array


def _refused(where: Path | str, rule: str, received: str) -> DatasetError:
    return DatasetError(f"{where}: the {rule}. Received: {received}. {_ADVICE}")


@contextmanager
def _as_dataset_error(path: Path) -> Iterator[None]:
    # A damaged file raises a dozen types out of gzip, zlib, zipfile, ast and NumPy: all mean this.
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:
        raise DatasetError(
            f"{path}: the file must be readable and whole. "
            f"Received: {type(error).__name__}: {error}. {_ADVICE}"
        ) from None

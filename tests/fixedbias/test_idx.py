"""The reader of IDX files takes good ones whole and refuses everything else, in little memory."""

import doctest
import gzip
import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fixedbias import idx
from fixedbias.idx import MAX_BYTES, DatasetError, files_in, idx_md5, read_idx, read_npz
from fixedbias.text import one_line
from tests.fixedbias.conftest import SMALL
from tests.fixedbias.files import IMAGES, LABELS, check_refused, header, idx_bytes, peak_memory


@pytest.mark.parametrize("array", [IMAGES, LABELS], ids=["images", "labels"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_reads_what_was_written(tmp_path: Path, array: np.ndarray, packed: bool) -> None:
    path = tmp_path / ("data.gz" if packed else "data")
    data = idx_bytes(array)
    path.write_bytes(gzip.compress(data) if packed else data)
    read = read_idx(path, array.ndim)
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.uint8
    assert not read.flags.writeable


@pytest.mark.parametrize(
    ("data", "axes", "says"),
    [
        (b"", 1, "Received: 0 bytes"),
        (header(3)[:7], 1, "header must be complete. Received: 7 bytes"),
        (idx_bytes(LABELS), 3, "header must be complete. Received: 11 bytes"),
        (idx_bytes(LABELS) + bytes(9), 3, "must be 0x00000803"),
        (idx_bytes(IMAGES), 1, "must be 0x00000801, that of 1 axes of bytes. Received: 0x00000803"),
        (header(3, magic=0xD01) + bytes(12), 1, "Received: 0x00000d01"),
        (header(0), 1, "n > 0"),
        (header(0, 28, 28), 3, "n > 0"),
        (header(1, 28, 27) + bytes(28 * 27), 3, "(n, 28, 28)"),
        (header(1, 2**32 - 1, 2**32 - 1), 3, "(n, 28, 28)"),
        (header(2**32 - 1, 28, 28), 3, f"at most {MAX_BYTES} bytes"),
        (header(2**32 - 1), 1, f"at most {MAX_BYTES} bytes"),
        (idx_bytes(IMAGES)[:-1], 3, "its 2352 bytes. Received: 2351"),
        (idx_bytes(IMAGES) + b"\0", 3, "its 2352 bytes. Received: more"),
        (idx_bytes(LABELS)[:-1], 1, "its 3 bytes. Received: 2"),
        (idx_bytes(LABELS) + b"\0", 1, "its 3 bytes. Received: more"),
        (header(2) + b"\x09\x0a", 1, "from 0 to 9. Received: 10"),
        (gzip.compress(idx_bytes(LABELS), mtime=0), 1, "Received: 0x1f8b0800"),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_refuses_idx(tmp_path: Path, data: bytes, axes: int, says: str, packed: bool) -> None:
    path = tmp_path / ("data.gz" if packed else "data")
    path.write_bytes(gzip.compress(data, mtime=0) if packed else data)
    check_refused(lambda: read_idx(path, axes), path, says.replace("0x1f8b0800", "0x1f8b08"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-9],  # inside the packed data
        lambda data: data[:-1],  # inside the trailer
        lambda data: data[:5],
        lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:],  # its CRC
        lambda data: data[:-1] + b"\x01",  # its length
        lambda data: data[:20] + bytes([data[20] ^ 255]) + data[21:],
        lambda data: data + b"something else",
        lambda data: data + gzip.compress(b"\0"),
        lambda data: b"not packed at all",
    ],
)
def test_refuses_damaged_gz(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "data.gz"
    path.write_bytes(damage(gzip.compress(idx_bytes(IMAGES))))
    check_refused(lambda: read_idx(path, 3), path)


def test_claims_and_bombs_cost_no_memory(tmp_path: Path) -> None:
    liar, bomb = tmp_path / "liar", tmp_path / "bomb.gz"
    liar.write_bytes(header(2**32 - 1, 28, 28))
    zeros = gzip.compress(bytes(2**20), 1)
    bomb.write_bytes(gzip.compress(header(8)) + zeros * 200)
    assert peak_memory(lambda: check_refused(lambda: read_idx(liar, 3), liar)) < 2**20
    assert peak_memory(lambda: check_refused(lambda: read_idx(bomb, 1), bomb)) < 2**20


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    folder, pipe, link, absent = (tmp_path / name for name in ("folder", "pipe", "link", "absent"))
    folder.mkdir()
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "nowhere")
    check_refused(lambda: read_idx(folder, 1), folder, "must be a file. Received: a folder")
    for path in pipe, link, absent:
        check_refused(partial(read_idx, path, 1), path, "must be a file")
        check_refused(partial(read_npz, path), path, "must be a file")


def test_refuses_a_huge_file_unread(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse
    check_refused(lambda: read_npz(path), path, f"at most {MAX_BYTES} bytes")


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MemoryError()])
def test_what_the_system_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*args: object) -> None:
        raise error

    path = tmp_path / "data"
    path.touch()
    monkeypatch.setattr(Path, "open", refuse)
    check_refused(lambda: read_idx(path, 1), path, type(error).__name__)
    check_refused(lambda: read_npz(path), path, type(error).__name__)


def test_no_permission(nobody: None) -> None:
    # Not in tmp_path, which is closed to others altogether.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "data"
        path.touch(0)
        check_refused(lambda: read_idx(path, 1), path, "Permission denied")
        folder.chmod(0)
        try:
            check_refused(lambda: files_in("mnist", folder), folder, "Permission denied")
        finally:
            folder.chmod(0o700)


def test_md5_is_that_of_the_unpacked_idx_file() -> None:
    for array in SMALL.values():
        assert idx_md5(array) == hashlib.md5(idx_bytes(array)).hexdigest()


def test_one_line() -> None:
    assert one_line(" a\r\n\tb\x1b[31m\udc80 ") == "a b?[31m?"
    assert str(DatasetError("a\nb")) == "a b"


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(idx).failed == 0

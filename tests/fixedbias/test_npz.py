"""The reader of npz archives takes good ones whole and refuses the rest, in little memory."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from fixedbias.idx import MAX_BYTES, read_npz
from tests.fixedbias.conftest import SMALL
from tests.fixedbias.files import (
    IMAGES,
    LABELS,
    check_refused,
    npy_bytes,
    npy_claim,
    npz_bytes,
    peak_memory,
)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_reads_npz(tmp_path: Path, method: int) -> None:
    path = tmp_path / "mnist.npz"
    path.write_bytes(npz_bytes(SMALL | {"more": np.zeros(3)}, method))
    read = read_npz(path)
    assert read.keys() == SMALL.keys()
    for key, array in SMALL.items():
        np.testing.assert_array_equal(read[key], array)
        assert not read[key].flags.writeable


def test_reads_npz_of_python_2_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    path.write_bytes(npz_bytes({**SMALL, "y_train": npy_claim("(3L,)", LABELS.tobytes())}))
    np.testing.assert_array_equal(read_npz(path)["y_train"], LABELS)


@pytest.mark.parametrize(
    ("x_train", "says"),
    [
        (IMAGES.astype(np.float32), "float32 in C order"),
        (IMAGES.astype(np.int8), "int8 in C order"),
        (np.asfortranarray(IMAGES), "uint8 in Fortran order"),
        (IMAGES.reshape(3, 784), "(n, 28, 28)"),
        (IMAGES[:0], "n > 0"),
        (IMAGES[0], "(n, 28, 28)"),
        (np.array(["x", None], object), "object in C order"),
        (npy_bytes(IMAGES)[:-1], "its 2352 bytes. Received: 2351"),
        (npy_bytes(IMAGES) + b"\0", "its 2352 bytes. Received: more"),
        (npy_claim("(1099511627776, 28, 28)"), f"at most {MAX_BYTES} bytes"),
        (npy_claim("(-1, 28, 28)"), "n > 0"),
        (npy_claim("(" * 500 + ")" * 500), "readable and whole"),
        (npy_claim("(1, 28, 28)", version=3), "readable and whole"),
        (npy_claim("1is 2"), "readable and whole"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "readable and whole"),
        (b"", "readable and whole"),
    ],
)
def test_refuses_npz_entry(tmp_path: Path, x_train: np.ndarray | bytes, says: str) -> None:
    path = tmp_path / "mnist.npz"
    path.write_bytes(npz_bytes({**SMALL, "x_train": x_train}))
    check_refused(lambda: read_npz(path), path, says)


def test_refuses_npz(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    whole = npz_bytes(SMALL)
    encrypted = bytearray(whole)
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1
    encrypted[6] |= 1
    for data, says in (
        (npz_bytes({"x_train": IMAGES}), "no y_train"),
        (npz_bytes(SMALL | {"y_test": np.array([10], np.uint8)}), "[y_test]: the labels must be"),
        (npz_bytes(SMALL, zipfile.ZIP_BZIP2), "stored or deflated"),
        (npz_bytes(SMALL, zipfile.ZIP_LZMA), "stored or deflated"),
        (bytes(encrypted), "encrypted"),
        (whole[:-30], "not a zip file"),
        (whole.replace(b"PK\x03\x04", b"PK\x03\x05", 1), "Bad magic number"),
        (npy_bytes(IMAGES), "not a zip file"),
        (b"", "not a zip file"),
    ):
        path.write_bytes(data)
        check_refused(lambda: read_npz(path), path, says)


@pytest.mark.parametrize("lies", [False, True], ids=["honest", "lying"])
def test_npz_bomb_costs_no_memory(tmp_path: Path, lies: bool) -> None:
    path = tmp_path / "mnist.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x_train.npy", "w") as entry:
            entry.write(npy_claim("(1, 28, 28)", version=2))
            for _ in range(70):
                entry.write(bytes(2**20))
        if lies:
            archive.getinfo("x_train.npy").file_size = 1000
    assert peak_memory(lambda: check_refused(lambda: read_npz(path), path)) < 2**20

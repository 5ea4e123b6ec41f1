"""The readers take good files whole and refuse everything else, in one line, in little memory."""

import doctest
import gzip
import hashlib
import io
import os
import struct
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixedbias import idx
from fixedbias.idx import (
    ARRAYS,
    MAX_BYTES,
    DatasetError,
    files_in,
    idx_md5,
    read_folder,
    read_idx,
    read_npz,
)
from fixedbias.text import one_line
from tests.fixedbias.conftest import SMALL

FUZZ_EXAMPLES = int(os.environ.get("FIXEDBIAS_FUZZ_EXAMPLES", "100"))
"""Damaged files that each fuzz test tries."""

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
        (gzip.compress(idx_bytes(LABELS)), 1, "Received: 0x1f8b0800"),
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


def test_md5_is_that_of_the_unpacked_idx_file() -> None:
    for array in SMALL.values():
        assert idx_md5(array) == hashlib.md5(idx_bytes(array)).hexdigest()


def test_one_line() -> None:
    assert one_line(" a\r\n\tb\x1b[31m\udc80 ") == "a b?[31m?"
    assert str(DatasetError("a\nb")) == "a b"


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(idx).failed == 0


# Damaged files: whatever happens to a file, its arrays are as promised or it is refused.

damage = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "cut", "end"]), st.integers(0), st.binary(max_size=9)
    ),
    max_size=4,
)


def damaged(data: bytes, damage: list[tuple[str, int, bytes]]) -> bytes:
    for kind, position, new in damage:
        at = position % (len(data) + 1)
        after = {"set": at + len(new), "insert": at, "cut": at + 1 + position % 7, "end": len(data)}
        data = data[:at] + new + data[after[kind] :]
    return data


def check_read_or_refused(path: Path, read: Callable[[], dict[int, np.ndarray]]) -> None:
    arrays, refusal = {}, None
    try:
        arrays = read()
    except DatasetError as error:
        refusal = str(error)
    if refusal is not None:
        assert str(path) in refusal
        assert refusal == one_line(refusal)
    for axes, array in arrays.items():
        assert array.dtype == np.uint8
        assert array.shape == (len(array), 28, 28)[:axes]
        assert len(array) > 0
        assert axes == 3 or array.max() <= 9


fuzz = settings(
    max_examples=FUZZ_EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each file replaces the last
)


@fuzz
@given(axes=st.sampled_from([1, 3]), data=st.binary(max_size=40), packed=st.booleans())
def test_any_bytes_as_idx(tmp_path: Path, axes: int, data: bytes, packed: bool) -> None:
    path = tmp_path / ("data.gz" if packed else "data")
    path.write_bytes(data)
    check_read_or_refused(path, lambda: {axes: read_idx(path, axes)})


@fuzz
@given(axes=st.sampled_from([1, 3]), damage=damage, packed=st.booleans())
def test_damaged_idx(
    tmp_path: Path, axes: int, damage: list[tuple[str, int, bytes]], packed: bool
) -> None:
    path = tmp_path / ("data.gz" if packed else "data")
    data = damaged(idx_bytes(IMAGES if axes == 3 else LABELS), damage)
    path.write_bytes(gzip.compress(data) if packed else data)
    check_read_or_refused(path, lambda: {axes: read_idx(path, axes)})


@fuzz
@given(axes=st.sampled_from([1, 3]), damage=damage)
def test_damaged_gz(tmp_path: Path, axes: int, damage: list[tuple[str, int, bytes]]) -> None:
    path = tmp_path / "data.gz"
    path.write_bytes(damaged(gzip.compress(idx_bytes(IMAGES if axes == 3 else LABELS)), damage))
    check_read_or_refused(path, lambda: {axes: read_idx(path, axes)})


@fuzz
@given(damage=damage, stored=st.booleans(), inside=st.booleans())
def test_damaged_npz(
    tmp_path: Path, damage: list[tuple[str, int, bytes]], stored: bool, inside: bool
) -> None:
    path = tmp_path / "mnist.npz"
    arrays: dict[str, np.ndarray | bytes] = dict(SMALL)
    if inside:
        arrays["y_train"] = damaged(npy_bytes(LABELS), damage)
    data = npz_bytes(arrays, zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED)
    path.write_bytes(data if inside else damaged(data, damage))
    check_read_or_refused(
        path, lambda: {ARRAYS[key].axes: array for key, array in read_npz(path).items()}
    )


# Folders


def write_idx(folder: Path, arrays: dict[str, np.ndarray], packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for key, array in arrays.items():
        name, data = ARRAYS[key].idx_name, idx_bytes(array)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("place", [".", "mnist"])
@pytest.mark.parametrize("form", ["plain", "gz", "npz"])
def test_reads_a_folder(
    tmp_path: Path, small_mnist: dict[str, np.ndarray], place: str, form: str
) -> None:
    assert files_in("mnist", tmp_path) == {}
    if form == "npz":
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / "mnist.npz").write_bytes(npz_bytes(small_mnist))
    else:
        write_idx(tmp_path / place, small_mnist, form == "gz")
    read = read_folder("mnist", tmp_path)
    assert list(read) == list(small_mnist)
    for key, array in small_mnist.items():
        np.testing.assert_array_equal(read[key], array)


@pytest.mark.parametrize("subfolder", ["fashion_mnist", "fashion-mnist"])
def test_each_dataset_has_its_subfolder(
    tmp_path: Path, small_mnist: dict[str, np.ndarray], subfolder: str
) -> None:
    fashion = {key: array[:: -1 if array.ndim == 1 else 1] // 2 for key, array in SMALL.items()}
    write_idx(tmp_path, small_mnist)
    write_idx(tmp_path / subfolder, fashion)
    np.testing.assert_array_equal(read_folder("mnist", tmp_path)["x_test"], SMALL["x_test"])
    np.testing.assert_array_equal(
        read_folder("fashion_mnist", tmp_path)["x_test"], fashion["x_test"]
    )


def test_plain_file_comes_before_gz(tmp_path: Path) -> None:
    write_idx(tmp_path, SMALL, packed=True)
    write_idx(tmp_path, {"y_test": LABELS})
    names = [path.name for path in files_in("mnist", tmp_path).values()]
    assert [name.endswith(".gz") for name in names] == [True, True, True, False]


def test_incomplete_folder_names_what_is_missing(tmp_path: Path) -> None:
    write_idx(tmp_path, {"x_train": IMAGES, "y_test": LABELS})
    missing = "no train-labels-idx1-ubyte, t10k-images-idx3-ubyte"
    check_refused(lambda: files_in("mnist", tmp_path), tmp_path, missing)


@pytest.mark.parametrize("name", ["nul\0", "x" * 300])
def test_impossible_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="must be readable"):
        files_in("mnist", tmp_path / name)


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert files_in("mnist", file) == {}
    check_refused(lambda: read_folder("mnist", file), file, "Received: none")


@pytest.mark.parametrize("form", ["idx", "npz"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x_train": SMALL["x_test"]}, "MNIST's 3 training images. Received: MNIST's test images"),
        ({"y_test": LABELS}, "MNIST's 2 test labels. Received: MNIST's training labels"),
        ({"x_train": IMAGES ^ 1}, "MNIST's 3 training images, MD5"),
        ({"y_train": LABELS[:2]}, "Received: 2 of them, MD5"),
        ({"y_train": LABELS[::-1]}, "MNIST's 3 training labels, MD5"),
    ],
)
def test_mnist_is_verified_byte_for_byte(
    tmp_path: Path,
    small_mnist: dict[str, np.ndarray],
    form: str,
    change: dict[str, np.ndarray],
    says: str,
) -> None:
    if form == "npz":
        (tmp_path / "mnist.npz").write_bytes(npz_bytes(small_mnist | change))
    else:
        write_idx(tmp_path, small_mnist | change)
    check_refused(lambda: read_folder("mnist", tmp_path), tmp_path, says)


def test_images_and_labels_swapped(tmp_path: Path, small_mnist: dict[str, np.ndarray]) -> None:
    write_idx(tmp_path, small_mnist | {"x_train": LABELS, "y_train": IMAGES})
    check_refused(lambda: read_folder("mnist", tmp_path), tmp_path / "train-images-idx3-ubyte")


@pytest.mark.parametrize(
    ("fashion", "says"),
    [
        (SMALL, "Fashion-MNIST's 3 training images. Received: MNIST's training images"),
        ({"x_train": SMALL["x_test"]}, "Received: MNIST's test images"),
        ({"x_train": IMAGES[:2] ^ 1}, "Fashion-MNIST's 3 training images. Received: 2 of them"),
        ({"y_test": LABELS ^ 1}, "Fashion-MNIST's 2 test labels. Received: 3 of them"),
    ],
)
def test_fashion_mnist_has_its_counts_and_is_not_mnist(
    tmp_path: Path, small_mnist: dict[str, np.ndarray], fashion: dict[str, np.ndarray], says: str
) -> None:
    other = {key: array ^ 1 for key, array in small_mnist.items()}
    read_folder("fashion_mnist", write_idx(tmp_path, other))
    write_idx(tmp_path, other | fashion)
    check_refused(lambda: read_folder("fashion_mnist", tmp_path), tmp_path, says)

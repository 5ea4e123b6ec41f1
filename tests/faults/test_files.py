"""Files from outside, damaged: read as promised, or refused in one line that names them.

`FIXEDBIAS_FUZZ_FILES` sets how many files the long test tries.
"""

import gzip
import os
import random
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from fixedbias.biases import bias_values
from fixedbias.idx import ARRAYS, MAX_BYTES, DatasetError, read_idx, read_npz
from fixedbias.text import one_line
from tests.fixedbias.conftest import SMALL
from tests.fixedbias.files import check_array, idx_bytes, npy_bytes, npz_bytes

FILES = int(os.environ.get("FIXEDBIAS_FUZZ_FILES", "120000"))
UNITS = 5
# Numbers at which readers break: signs, ends of ranges, 2^40 in one go or as a product.
EDGES = [0, 1, 9, 10, 27, 28, 2**15, 2**16 - 1, 2**20, 2**31 - 1, 2**31, 2**32 - 1]
TEXTS = [b"1099511627776", b"-1", b"|O", b"<f8", b"O8", b"(" * 200, b"True", b"\xff", b"[1]"]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A few things that happen to files: bits, blocks, lengths, ends."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        # Most bytes are pixels: half of the hits are where the structure is.
        place = (
            rng.randrange(min(len(data), 200)) if rng.random() < 0.5 else rng.randrange(len(data))
        )
        end = place + rng.choice([1, 2, 4, 8, 100])
        edge = rng.choice(EDGES)
        new = rng.choice(
            [
                bytes([data[place] ^ 1 << rng.randrange(8)]),
                struct.pack(">I", edge),
                struct.pack("<I", edge),
                struct.pack("<H", edge % 2**16),
                rng.randbytes(end - place),
                rng.choice(TEXTS),
                data[rng.randrange(len(data)) :][: end - place],
            ]
        )
        data = rng.choice(
            [
                data[:place] + new + data[place + len(new) :],
                data[:place] + new + data[place + len(new) :],
                data[:place] + new + data[place:],
                data[:place] + data[end:],
                data[:place],
                data + new,
                data[:place] + bytes(end - place) + data[end:],
            ]
        )
        data = data or b"\0"
    return data


def cases(folder: Path, rng: random.Random) -> Iterator[tuple[str, Path, bytes, Callable]]:
    """Damaged files without end: kind, path, content, and a reader that also checks."""
    biases = {"0": np.linspace(-1, 1, UNITS), "1": np.arange(UNITS)}
    while True:
        key, packed = rng.choice(["x_train", "y_train"]), rng.random() < 0.5
        method = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        match rng.choice(["idx", "gz", "npz", "bias"]):
            case "idx":
                data = damaged(idx_bytes(SMALL[key]), rng)
                path = folder / ("data.gz" if packed else "data")
                data = gzip.compress(data, 1) if packed else data
                yield "idx", path, data, lambda p, k=key: check_image_file(p, k)
            case "gz":
                data = damaged(gzip.compress(idx_bytes(SMALL[key])), rng)
                yield "gz", folder / "data.gz", data, lambda p, k=key: check_image_file(p, k)
            case "npz":
                arrays: dict[str, np.ndarray | bytes] = dict(SMALL)
                if packed:
                    arrays[key] = damaged(npy_bytes(SMALL[key]), rng)
                data = npz_bytes(arrays, method)
                yield "npz", folder / "mnist.npz", data if packed else damaged(data, rng), check_npz
            case "bias":
                inside = {"0": damaged(npy_bytes(biases["0"]), rng)} if packed else {}
                data = npz_bytes(biases | inside, method)
                yield "bias", folder / "b.npz", data if packed else damaged(data, rng), check_bias


def check_image_file(path: Path, key: str) -> None:
    check_array(read_idx(path, ARRAYS[key].axes), ARRAYS[key].axes)


def check_npz(path: Path) -> None:
    arrays = read_npz(path)
    assert arrays.keys() == ARRAYS.keys()
    for key, array in arrays.items():
        check_array(array, ARRAYS[key].axes)


def check_bias(path: Path) -> None:
    values = bias_values(f"file:{path}", 0, UNITS)
    assert (values.shape, values.dtype) == ((UNITS,), np.float32)
    assert np.isfinite(values).all()


def fuzz(folder: Path, files: int, seed: int) -> Counter:
    outcome: Counter = Counter()
    stream = cases(folder, random.Random(seed))
    for _ in range(files):
        kind, path, data, check = next(stream)
        path.write_bytes(data)
        refusals = ValueError if kind == "bias" else DatasetError
        try:
            check(path)
            outcome[kind, "read"] += 1
        except refusals as refusal:
            message = str(refusal)
            assert str(path) in message, data
            assert message == one_line(message), data
            outcome[kind, "refused"] += 1
    return outcome


def test_damaged_files_are_read_as_promised_or_refused(tmp_path):
    outcome = fuzz(tmp_path, 2000, seed=1)
    assert len(outcome) == 8  # of every kind, some are read and some refused


@pytest.mark.slow
def test_many_damaged_files_in_little_memory(tmp_path):
    fuzz(tmp_path, 1000, seed=2)
    before = psutil.Process().memory_info().rss
    outcome = fuzz(tmp_path, FILES, seed=3)
    grown = psutil.Process().memory_info().rss - before
    print(f"{outcome.total()} files, {grown / 2**20:.0f} MiB: {dict(outcome)}")
    assert len(outcome) == 8
    assert grown < MAX_BYTES


BOMB = 400 * 2**20


@pytest.mark.parametrize("lies", [False, True], ids=["honest", "lying"])
def test_a_bias_file_that_claims_much_costs_no_memory(tmp_path, lies):
    path = tmp_path / "bomb.npz"
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({2**40},), }}\n".encode()
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("0.npy", "w") as entry:
            entry.write(start)
            for _ in range(BOMB // 2**20 if lies else 1):
                entry.write(bytes(2**20))
        if lies:
            archive.getinfo("0.npy").file_size = 1000
    before = psutil.Process().memory_info().rss
    with pytest.raises(ValueError, match=re.escape(str(path))):
        bias_values(f"file:{path}", 0, UNITS)
    assert psutil.Process().memory_info().rss - before < BOMB / 4


def test_a_bias_file_that_is_a_folder_or_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder", "absent", "/dev/zero"):
        with pytest.raises(ValueError, match="which is no file"):
            bias_values(f"file:{tmp_path / name}", 0, UNITS)

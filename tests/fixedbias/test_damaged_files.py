"""Whatever happens to a file, its arrays are as promised or it is refused.

`FIXEDBIAS_FUZZ_EXAMPLES` sets how many files each test tries.
"""

import gzip
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixedbias.idx import ARRAYS, DatasetError, read_idx, read_npz
from fixedbias.text import one_line
from tests.fixedbias.conftest import SMALL
from tests.fixedbias.files import IMAGES, LABELS, check_array, idx_bytes, npy_bytes, npz_bytes

FUZZ_EXAMPLES = int(os.environ.get("FIXEDBIAS_FUZZ_EXAMPLES", "100"))

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
        check_array(array, axes)


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

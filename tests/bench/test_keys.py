"""Keys: readable names of cells, and no two cells share one."""

import itertools
import math
import string

from hypothesis import given, settings
from hypothesis import strategies as st

from bench import records
from tests.bench.tiny import CELL, TEXT, record


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_two_cells_never_share_a_key(data: st.DataObject) -> None:
    others = ["ramp", "x" * 40, 3, -3, 3.0, True, None, math.nan, [3], 10**40]
    values = st.sampled_from(others) | st.text("a3-:=~.,_/A", max_size=3) | TEXT
    names = st.sampled_from([*CELL, "arms", "threads", ""])
    changes = st.dictionaries(names, values, max_size=2)
    missing = st.sets(names, max_size=1)
    one, other = (
        {k: v for k, v in (CELL | data.draw(changes)).items() if k not in data.draw(missing)}
        for _ in range(2)
    )
    keys = [records.cell_key(cell) for cell in (one, other)]
    # What a cell is after a round trip, which tells 3 from 3.0 and True from 1 as == does not.
    same = repr(sorted(one.items())) == repr(sorted(other.items()))
    assert (keys[0].lower() == keys[1].lower()) == same
    for key, cell in zip(keys, (one, other), strict=True):
        assert set(key) <= set(string.ascii_letters + string.digits + "-_.,=~")
        assert record(key, cell=cell).key == key


def test_no_two_short_values_share_a_key() -> None:
    values = ["".join(v) for n in range(4) for v in itertools.product("a3-:=~.,_A", repeat=n)]
    for pair in (("bias", "data"), ("engine", "precision")):
        keys = {records.cell_key(CELL | dict.fromkeys(pair, v)).lower() for v in values}
        keys |= {records.cell_key(CELL | {pair[0]: v, pair[1]: "a"}).lower() for v in values}
        assert len(keys) == 2 * len(values) - 1  # that of a, a twice


def test_keys_are_readable() -> None:
    assert records.cell_key(CELL) == "mnist-cpu-compiled-float32-ramp-L3-U128-B64"
    assert records.cell_key(dict(reversed(CELL.items()))) == records.cell_key(CELL)
    assert records.cell_key(CELL | {"bias": (1, 2)}) == records.cell_key(CELL | {"bias": [1, 2]})
    assert records.cell_key(CELL | {"bias": "file:my b.npy"}).startswith(
        "mnist-cpu-compiled-float32-file=my_b.npy-L3-U128-B64-"
    )
    assert records.cell_key(CELL | {"threads": 1}) == f"{records.cell_key(CELL)}-P1"
    assert records.cell_key({}).startswith("cell-")
    odd = CELL | {"bias": "my b"}
    assert records.cell_key(dict(reversed(odd.items()))) == records.cell_key(odd)


def test_long_texts_are_cut() -> None:
    parts = records.cell_key(CELL | {"bias": "x" * 40}).split("-")
    assert parts[4] == "x" * 30
    assert len(parts[-1]) == 12
    slug, _, _ = records.cell_key({str(n): "x" * 30 for n in range(50)}).rpartition("-")
    assert len(slug) == 150
    assert len(records.cell_key({str(n): "x" * 30 for n in range(50)})) < 200

"""Names of cells."""

import hashlib
import json
import re
from typing import Any

from bench.encoding import encode, plain

_CELL = ("data", "device", "engine", "precision", "bias", "layers", "units", "batch_size")
_LETTER = {"layers": "L", "units": "U", "batch_size": "B", "threads": "P"}


def cell_key(cell: dict[str, Any]) -> str:
    """A name for a cell: readable, safe as a file name, and no other cell's.

    Parts are joined by ``-``, so within one ``~`` stands for ``-``; and ``=`` for ``:``, which some
    systems forbid. Where that cannot hold all of the cell (other characters, capitals, long texts,
    further fields) a hash of the cell follows.

    >>> cell = {"layers": 3, "units": 128, "batch_size": 64, "precision": "float32",
    ...         "device": "cpu", "engine": "compiled", "bias": "ramp", "data": "mnist"}
    >>> cell_key(cell)
    'mnist-cpu-compiled-float32-ramp-L3-U128-B64'
    >>> cell_key(cell | {"engine": "fit-xla", "bias": "normal:0.1"})
    'mnist-cpu-fit~xla-float32-normal=0.1-L3-U128-B64'
    >>> cell_key(cell | {"bias": "my bias.npy"})[:-12]
    'mnist-cpu-compiled-float32-my_bias.npy-L3-U128-B64-'
    """
    cell = plain(cell)
    parts, exact = [], cell.keys() - {"threads"} == {*_CELL}
    for name in [*(name for name in _CELL if name in cell), *sorted(cell.keys() - {*_CELL})]:
        kind, value = int if name in _LETTER else str, str(cell[name])
        shape = r"\d{1,9}" if kind is int else "[a-z0-9]([a-z0-9._,:-]{0,28}[a-z0-9])?"
        exact &= type(cell[name]) is kind and bool(re.fullmatch(shape, value, re.ASCII))
        clean = value.lower().replace(":", "=").replace("-", "~")
        clean = re.sub("[^a-z0-9._,=~]+", "_", clean).strip("._,=~")[:30]
        parts.append(_LETTER.get(name, "") + clean)
    slug = "-".join(filter(None, parts))
    if exact:
        return slug
    # Never the end of a key without hash, which is a letter and at most nine digits.
    canonical = json.dumps(encode(cell), sort_keys=True, allow_nan=False)
    return f"{slug[:150] or 'cell'}-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"

"""Records: written once, whole or not at all, and read by everything else.

A run is a folder: ``run.json``, the header, and ``records/<key>.json``, one file per comparison.
They have one field to a line, to be read and compared by line. ``bench.documents`` says what is
in them, ``load`` and ``load_samples`` give them as tables.
"""

import errno
import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from bench.documents import SCHEMA, BadRecord, Document, Record, Run, check_schema, utc_now
from bench.encoding import decode, encode, not_json
from bench.keys import cell_key
from bench.tables import load, load_samples

__all__ = [
    "SCHEMA",
    "BadRecord",
    "Record",
    "RecordExists",
    "Run",
    "cell_key",
    "each_record",
    "load",
    "load_samples",
    "new_run_folder",
    "read_header",
    "read_record",
    "read_run",
    "recorded_keys",
    "utc_now",
    "write_record",
    "write_run",
]

_D = TypeVar("_D", bound=Document)


class RecordExists(Exception):
    """There is a file for this comparison already, and it is left as it is."""


def new_run_folder(results: str | Path, moment: datetime) -> Path:
    """Makes ``results/<YYYYMMDD-HHMMSS>``, with ``-2``, ``-3``, ... where that is taken.

    Two callers never get the same folder, also when they call at once.
    """
    Path(results).mkdir(parents=True, exist_ok=True)
    name, n = f"{moment:%Y%m%d-%H%M%S}", 1
    while True:
        folder = Path(results, name if n == 1 else f"{name}-{n}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            n += 1


def write_run(folder: str | Path, run: Run) -> Path:
    """Writes the header ``run.json`` into the run's folder; else as ``write_record``."""
    return _write_once(Path(folder, "run.json"), run)


def write_record(folder: str | Path, record: Record) -> Path:
    """Writes ``records/<key>.json`` into the run's folder, whole or not at all.

    On return the record is on the disk. A process that is killed, or two that write the same key at
    once, leave one whole record or none; at worst a ``.tmp`` file that no reader looks at.

    Raises:
        RecordExists: where there is a file for this key, readable or not. It is left as it is.
        OSError: where the folder is missing, read-only or full; nothing is left behind then.
    """
    return _write_once(Path(folder, "records", f"{record.key}.json"), record)


def read_record(path: str | Path) -> Record:
    """Reads one record.

    Raises:
        BadRecord: for a file cut short, damaged, renamed or of another schema.
        OSError: for a file that is not there or may not be read.
    """
    record = _read(Record, path := Path(path))
    if record.key != path.stem:
        raise BadRecord(path, f"holds the record of another key, {record.key!r}")
    return record


def read_header(folder: str | Path) -> Run:
    """Reads a run's header alone.

    Raises:
        BadRecord, OSError: as ``read_record`` does.
    """
    return _read(Run, Path(folder, "run.json"))


def recorded_keys(folder: str | Path) -> set[str]:
    """Keys that have a file, readable or not: nothing is ever written in its place.

    Unlike `glob`, it does not take a folder that is shut for an empty one.

    Raises:
        OSError: The folder may not be read.
    """
    with suppress(FileNotFoundError):
        names = os.listdir(Path(folder, "records"))
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}
    return set()


def read_run(folder: str | Path) -> tuple[Run, list[Record], list[BadRecord]]:
    """Reads a run: its header, its records in the order of the plan, and the files that are none.

    Those last are left as they are, and ``write_record`` does not write in their place: to have
    such a comparison made again, move its file away.

    Raises:
        BadRecord, OSError: when the header itself or the folder of records cannot be read.
    """
    run, records, problems = read_header(folder), [], []
    for found in each_record(folder, run):
        if isinstance(found, Record):
            records.append(found)
        else:
            problems.append(found)
    return run, records, problems


def each_record(folder: str | Path, run: Run) -> Iterator[Record | BadRecord]:
    """What `read_run` reads, one after the other: a large run need not be in memory at once.

    Raises:
        OSError: The folder of records cannot be read.
    """
    place = {key: n for n, key in enumerate(run.plan)}
    for key in sorted(recorded_keys(folder), key=lambda key: (place.get(key, len(place)), key)):
        path = Path(folder, "records", f"{key}.json")
        try:
            record = read_record(path)
            if why := _unusable(record):
                raise BadRecord(path, why)
            yield record
        except BadRecord as problem:
            yield problem
        except OSError as error:
            yield BadRecord(path, f"cannot be read: {error.strerror}")


def _unusable(record: Record) -> str:
    """Why a record of the right form cannot be used all the same; empty if it can."""
    try:
        for arm in record.arms.values():
            if not all(0 < sample < math.inf for sample in arm.get("samples", [])):
                return f"has samples that are no times: {arm['samples']!r:.80}"
            for history in arm.get("histories", []):
                if not {"loss", "seconds"} <= history.keys():
                    return f"has a history without loss or seconds: {history!r:.80}"
        builds = [-1, *record.extra.get("builds", [0])]
        if builds[1:2] not in ([], [0]) or not all(a < b for a, b in pairwise(builds)):
            return f"has builds that do not follow each other: {builds[1:]!r:.80}"
    except (TypeError, AttributeError) as error:
        return f"has a malformed field: {error}"
    return ""


def _write_once(path: Path, document: Document) -> Path:
    lines = (
        f"{json.dumps(name)}: {json.dumps(encode(value), allow_nan=False)}"
        for name, value in vars(document).items()
    )
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        try:
            with open(temporary, "x", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            _name_once(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink()
    except OSError as error:
        raise OSError(error.errno, f"not written: {error.strerror}", str(path)) from error
    # Else a crash of the machine may forget the name. Not every file system can do it.
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return path


def _name_once(temporary: Path, path: Path) -> None:
    """Gives a whole file its name, unless that is taken: a link is made or not, in one step."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise RecordExists(f"{path} exists and is not overwritten") from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # A file system without links, as FAT: still whole or not at all, but of two processes that
        # write the same key within these two lines the last would win.
        if path.exists():
            raise RecordExists(f"{path} exists and is not overwritten") from None
        os.replace(temporary, path)


def _read(kind: type[_D], path: Path) -> _D:
    try:
        data = json.loads(path.read_text("utf-8"), parse_constant=not_json)
        if not isinstance(data, dict) or "schema" not in data:
            raise ValueError("is not a record: no schema")
        check_schema(data["schema"])
        if wrong := data.keys() ^ {item.name for item in fields(kind)}:
            raise ValueError(f"has missing or unknown fields: {', '.join(sorted(wrong))}")
        return kind(**decode(data))
    except (ValueError, RecursionError) as error:
        raise BadRecord(path, str(error)) from error
    except (TypeError, AttributeError) as error:  # of a field's inside
        raise BadRecord(path, f"has a malformed field: {error}") from error

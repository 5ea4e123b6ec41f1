"""MNIST and its stand-ins: find, verify, download, fall back.

| name | what | where from |
| --- | --- | --- |
| `mnist` | handwritten digits, 60000 + 10000 images | a folder, or Keras's cache or download |
| `fashion_mnist` | clothes, 60000 + 10000 images | likewise |
| `digits` | real handwritten digits of 8 x 8, scaled: 1442 + 355 images | scikit-learn |
| `synthetic:EXAMPLES` | random bytes (default 60000), for speed: there is nothing to learn | made |
| `auto` | MNIST if it can be had, else `digits` | |

`fixedbias.idx` says what a data folder looks like and how its files are verified.

TensorFlow is imported by nothing here but the download, which has a process of its own.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from fixedbias.idx import ARRAYS, TITLES, DatasetError, files_in, read_folder
from fixedbias.text import one_line

__all__ = ["Dataset", "DatasetError", "Located", "find_dataset", "load_dataset"]

STALL_SECONDS = 10.0
"""A download is given up when nothing has arrived for this long,"""
DOWNLOAD_SECONDS = 120.0
"""or when it has taken this long, Keras's import included."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of 10 classes, with labels, in a training and a test part; the arrays are read-only.

    Attributes:
        name: `mnist`, `fashion_mnist`, `digits` or `synthetic`.
        x_train, x_test: Images, uint8 arrays of shape `(n, 28, 28)`, 0 (background) to 255 (ink).
        y_train, y_test: Labels, uint8 arrays of shape `(n,)`, 0 to 9.
        source: Where it came from, in words.
        checksum: SHA-256 over names, shapes and bytes of the arrays, 64 hexadecimal digits: the
            same for the same data, whatever files held it.
        classes: 10.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    source: str
    classes: ClassVar[int] = 10

    def __post_init__(self) -> None:
        for key in ARRAYS:
            getattr(self, key).setflags(write=False)  # the checksum stays true

    @cached_property
    def checksum(self) -> str:
        sha256 = hashlib.sha256()
        for key in ARRAYS:
            array = np.ascontiguousarray(getattr(self, key))
            sha256.update(f"{key} {array.dtype} {array.shape}\n".encode())
            sha256.update(array.data)
        return sha256.hexdigest()


@dataclass(frozen=True)
class Located:
    """A dataset that can be loaded at once, by `load_dataset(name, data_dir, download=False)`.

    Attributes:
        name: Its name; never `auto`.
        data_dir: The folder with its files; None if it has none.
        notice: What a user must be told, one sentence; empty if it is what was asked for.
    """

    name: str
    data_dir: str | None
    notice: str


def load_dataset(
    name: str = "auto", data_dir: str | os.PathLike[str] | None = None, *, download: bool = True
) -> Dataset:
    """Loads a dataset, whole and verified, or not at all.

    Args:
        name: One of this module's table.
        data_dir: Folder with the files. By default the one that the environment variable
            `FIXEDBIAS_DATA` names if set, else the Keras cache.
        download: Whether Keras may download into its cache what is not at hand. Given up after
            10 s in which nothing arrives.

    Returns:
        The dataset. Its `name` tells what `auto` came to.

    Raises:
        DatasetError: It is not at hand and cannot be downloaded, or its files are incomplete,
            damaged or another dataset's. Such files are never passed over, by `auto` neither.

    Warns:
        UserWarning: MNIST is not where `auto` was told to look for it, or cannot be had at all.

    Example:

    >>> dataset = load_dataset("digits")
    >>> dataset.x_train.shape, dataset.y_test.shape
    ((1442, 28, 28), (355,))
    """
    located = find_dataset(name, data_dir, download=download)
    if located.notice:
        warnings.warn(located.notice, stacklevel=2)
    if located.data_dir is not None:
        folder = Path(located.data_dir)
        return Dataset(located.name, **read_folder(located.name, folder), source=str(folder))
    if located.name == "digits":
        source = "scikit-learn's load_digits, 8x8 scaled to 28x28"
        return Dataset("digits", **_digits(), source=source)
    examples = _synthetic_examples(located.name)
    return Dataset("synthetic", **_synthetic(examples), source="random bytes, seed 0")


def find_dataset(
    name: str = "auto", data_dir: str | os.PathLike[str] | None = None, *, download: bool = True
) -> Located:
    """Finds the files of a dataset, downloads them if need be, and says what `auto` comes to.

    Files are looked for, not into: what is in them is verified when they are loaded.

    Args:
        name, data_dir, download: As for `load_dataset`.

    Returns:
        A dataset that can be loaded.

    Raises:
        DatasetError: There is no dataset of this name, it is not at hand and cannot be
            downloaded, or some of its files are missing.

    Example:

    >>> find_dataset("synthetic:600")
    Located(name='synthetic:600', data_dir=None, notice='')
    """
    check_name(name)
    if name == "digits" or _synthetic_examples(name):
        return Located(name, None, "")
    wanted = "mnist" if name == "auto" else name
    title, absent = TITLES[wanted], ""
    advice = f"set --data-dir or FIXEDBIAS_DATA to a folder with the {title} files."
    given = data_dir or os.environ.get("FIXEDBIAS_DATA")
    if given:
        folder = Path(os.path.abspath(os.path.expanduser(given)))
        if files_in(wanted, folder):
            return Located(wanted, str(folder), "")
        absent = f"no {title} files in {folder}"
        if name != "auto":
            names = ", ".join(array.idx_name for array in ARRAYS.values())
            received = "none of them" if folder.is_dir() else "no such folder"
            raise DatasetError(
                f"{folder}: a data folder must hold {names}, plain or .gz, or {wanted}.npz. "
                f"Received: {received}; {advice}"
            )
    cache = _keras_cache()
    failure = ""
    if not files_in(wanted, cache):
        failure = _download(wanted, cache) if download else "downloading is off"
    if not failure:
        notice = f"There are {absent}: using those in {cache}." if absent else ""
        return Located(wanted, str(cache), one_line(notice))
    reasons = f"{absent}; {failure}" if absent else failure
    problem = f"{title} is not at hand and could not be downloaded ({reasons})"
    if name != "auto":
        raise DatasetError(f"{problem}: {advice}")
    fallback = "using scikit-learn's 8x8 digits scaled to 28x28"
    return Located("digits", None, one_line(f"{problem}: {fallback}; {advice}"))


def check_name(name: str) -> int:
    """How many training images a dataset of this name has, at most; nothing is looked for.

    Raises:
        DatasetError: There is no dataset of this name.

    Example:

    >>> check_name("synthetic:600")
    600
    """
    if name == "digits":
        return 1442
    if name in ("auto", *TITLES):
        return 60_000
    if examples := _synthetic_examples(name):
        return examples
    raise DatasetError(
        "A dataset must be auto, mnist, fashion_mnist, digits, synthetic or "
        f"synthetic:EXAMPLES with 1 to 999999 examples. Received: name={name!r}"
    )


def _keras_cache() -> Path:
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    return Path(os.path.abspath(os.path.expanduser(home)), "datasets")


def _digits() -> dict[str, np.ndarray]:
    """scikit-learn's digits in MNIST's form, every fifth image of each class for the test.

    Each pixel of 8 x 8 becomes a square of 3 x 3, with a margin of 2 around (MNIST has one of 4);
    its value of 0 to 16 becomes 0 to 255, rounded. The same writers are in both parts.
    """
    from sklearn.datasets import load_digits  # takes seconds

    bunch = load_digits()
    y = bunch.target.astype(np.uint8)
    pixels = (bunch.images.astype(np.uint16) * 255 + 8) // 16
    x = np.pad(pixels.astype(np.uint8).repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)))
    test = np.zeros(len(y), bool)
    for digit in range(10):
        test[np.flatnonzero(y == digit)[4::5]] = True
    return {"x_train": x[~test], "y_train": y[~test], "x_test": x[test], "y_test": y[test]}


def _synthetic_examples(name: str) -> int:
    """The number of training examples that `synthetic` or `synthetic:EXAMPLES` asks for, or 0."""
    match = re.fullmatch(r"synthetic(?::([1-9][0-9]{0,5}))?", name)
    return int(match[1] or 60_000) if match else 0


def _synthetic(examples: int) -> dict[str, np.ndarray]:
    rng = np.random.RandomState(0)  # unlike `default_rng`, it never changes between versions
    arrays = {}
    for part, n in ("train", examples), ("test", max(1, examples // 6)):
        arrays[f"x_{part}"] = rng.randint(0, 256, (n, 28, 28), np.uint8)
        arrays[f"y_{part}"] = rng.randint(0, 10, n, np.uint8)
    return arrays


_CHILD = """\
import pathlib, socket, sys
name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
socket.setdefaulttimeout(60)  # it ends by itself should its parent be killed
try:
    import keras
    (folder / "started").touch()
    getattr(keras.datasets, name).load_data()
except Exception as error:
    (folder / "reason").write_text(str(error), "utf-8")
    sys.exit(1)
"""


def _download(name: str, cache: Path) -> str:
    """Has Keras download a dataset into its cache, whole and verified; returns why it failed."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # Beside its goal, so that moving is renaming: the cache never has a partial file.
        with tempfile.TemporaryDirectory(
            prefix=".download-", dir=cache, ignore_cleanup_errors=True
        ) as staging:
            _run_keras(name, Path(staging))
            fetched = Path(staging, "datasets")
            read_folder(name, fetched)
            for file in set(files_in(name, fetched).values()):
                goal = cache / file.relative_to(fetched)
                goal.parent.mkdir(exist_ok=True)
                file.replace(goal)
    except (OSError, DatasetError) as error:
        return str(error)
    return ""


def _run_keras(name: str, folder: Path) -> None:
    """Runs Keras's own loader in a process that can be killed, since a download can hang."""
    # Every other backend of Keras needs a package that is not required here.
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": str(folder)}
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-P", "-c", _CHILD, name, str(folder)]
    with subprocess.Popen(
        command, env=environment, stdin=quiet, stdout=quiet, stderr=quiet
    ) as child:
        try:
            _wait(child, folder)
        finally:
            child.kill()
    if child.returncode:
        reason = folder / "reason"
        status = f"Keras's loader ended with exit status {child.returncode}"
        raise DatasetError(reason.read_text("utf-8")[:300] if reason.exists() else status)


def _wait(child: subprocess.Popen[bytes], folder: Path) -> None:
    begin = heard = time.monotonic()
    seen = 0
    while child.poll() is None:
        now, size = time.monotonic(), _size(folder)
        if size != seen or not (folder / "started").exists():
            seen, heard = size, now
        if now - heard > STALL_SECONDS:
            raise DatasetError(f"nothing arrived for {STALL_SECONDS:g} s")
        if now - begin > DOWNLOAD_SECONDS:
            raise DatasetError(f"it was not done after {DOWNLOAD_SECONDS:g} s")
        time.sleep(0.05)


def _size(folder: Path) -> int:
    try:
        return sum(file.stat().st_size for file in folder.rglob("*"))
    except FileNotFoundError:  # removed by Keras between the two looks
        return 0

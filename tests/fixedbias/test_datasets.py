"""Every dataset is found, loaded whole, or refused; a fall-back never passes for MNIST."""

import doctest
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest

from fixedbias import datasets
from fixedbias.datasets import Dataset, DatasetError, Located, find_dataset, load_dataset
from fixedbias.idx import ARRAYS
from tests.fixedbias.caches import check_equal, write_npz
from tests.fixedbias.conftest import OTHER, SMALL

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("FIXEDBIAS_DATA") or ROOT.parent / "shared" / "mnist")
"""Where the real MNIST may be."""

pytestmark = pytest.mark.usefixtures("home")


# Dataset


def test_checksum_is_of_the_data_alone() -> None:
    dataset = Dataset("mnist", **SMALL, source="here")
    same = {key: array.copy() for key, array in SMALL.items()}
    assert len(dataset.checksum) == 64
    assert Dataset("other", **same, source="there").checksum == dataset.checksum
    changes: list[dict[str, np.ndarray]] = [{key: array} for key, array in OTHER.items()]
    changes.append({"x_train": SMALL["x_train"].reshape(3, 14, 56)})
    changes.append({"y_train": SMALL["y_test"], "y_test": SMALL["y_train"]})
    checksums = {replace(dataset, **change).checksum for change in changes}  # type: ignore[arg-type]
    assert len(checksums | {dataset.checksum}) == len(changes) + 1


def test_dataset_cannot_be_changed() -> None:
    dataset = load_dataset("synthetic:6")
    with pytest.raises(FrozenInstanceError):
        dataset.name = "mnist"  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        dataset.x_train[0] = 0
    assert dataset.classes == 10


# Made on the spot


@pytest.mark.parametrize(("examples", "test"), [(1, 1), (6, 1), (600, 100), (60_000, 10_000)])
def test_synthetic(examples: int, test: int) -> None:
    name = "synthetic" if examples == 60_000 else f"synthetic:{examples}"
    dataset = load_dataset(name, data_dir="/nowhere")
    assert dataset.name == "synthetic"
    assert dataset.x_train.shape == (examples, 28, 28)
    assert dataset.x_test.shape == (test, 28, 28)
    assert dataset.y_train.shape == (examples,)
    assert dataset.y_test.shape == (test,)
    assert {getattr(dataset, key).dtype for key in ARRAYS} == {np.dtype("uint8")}
    if examples >= 600:
        assert np.bincount(dataset.x_train.ravel()).min() > 0
        assert np.bincount(dataset.y_train).min() > 0


def test_made_data_never_changes() -> None:
    """The checksums with which results are published."""
    synthetic = "302089c724e394635661fed8c61998ddf2b643d55b3de21ec0df6d67411b3153"
    assert load_dataset("synthetic:6").checksum == synthetic
    digits = "885cc9063da800545b9225f68d7b3c3eca3dc98c21ba82c0baf85e41d9efc8b0"
    assert load_dataset("digits").checksum == digits


def test_digits_are_those_of_scikit_learn_scaled_and_split() -> None:
    from sklearn.datasets import load_digits

    dataset, original = load_dataset("digits"), load_digits()
    x = np.concatenate([dataset.x_train, dataset.x_test])
    y = np.concatenate([dataset.y_train, dataset.y_test])
    assert x.dtype == y.dtype == np.uint8
    assert "scikit-learn" in dataset.source
    # Every image is there once, its pixels 3 x 3 in a margin of 2.
    small = np.rint(x[:, 3:27:3, 3:27:3] / 255 * 16)
    assert sorted(map(bytes, small.astype("uint8"))) == sorted(
        map(bytes, original.images.astype("uint8"))
    )
    np.testing.assert_array_equal(x[:, 2:26, 2:26], x[:, 3:27:3, 3:27:3].repeat(3, 1).repeat(3, 2))
    assert x.sum() == x[:, 2:26, 2:26].sum()
    assert (x.min(), x.max()) == (0, 255)
    # A fifth of each class is for the test.
    fifth = np.bincount(original.target) // 5
    np.testing.assert_array_equal(np.bincount(dataset.y_test), fifth)
    np.testing.assert_array_equal(np.bincount(y), np.bincount(original.target))


# Finding


@pytest.mark.parametrize(
    "name",
    ["", "MNIST", "cifar10", "digits:5", "synthetic:", "synthetic:٣", "synthetic:6 "]
    + [f"synthetic:{examples}" for examples in ("0", "-1", "1e3", "06", "1000000", "9" * 9999)],
)
def test_unknown_name(name: str) -> None:
    with pytest.raises(DatasetError, match=r"must be auto, mnist.* Received: name=") as caught:
        find_dataset(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["digits", "synthetic", "synthetic:600"])
def test_what_needs_no_files(name: str) -> None:
    assert find_dataset(name, "/nowhere") == Located(name, None, "")


@pytest.mark.parametrize("how", ["argument", "variable", "cache"])
@pytest.mark.parametrize("name", ["auto", "mnist"])
def test_mnist_at_hand(
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_mnist: dict[str, np.ndarray],
    how: str,
    name: str,
) -> None:
    folder = home / "datasets" if how == "cache" else tmp_path / "data"
    write_npz(folder / "mnist.npz", small_mnist)
    if how == "variable":
        monkeypatch.setenv("FIXEDBIAS_DATA", str(folder))
    data_dir = folder if how == "argument" else None
    located = find_dataset(name, data_dir)
    assert located == Located("mnist", str(folder), "")
    for dataset in (
        load_dataset(name, data_dir),
        load_dataset(located.name, located.data_dir, download=False),
    ):
        assert (dataset.name, dataset.source) == ("mnist", str(folder))
        check_equal(dataset, small_mnist)


def test_argument_comes_before_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_mnist: dict[str, np.ndarray]
) -> None:
    folder = write_npz(tmp_path / "data" / "mnist.npz", small_mnist).parent
    monkeypatch.setenv("FIXEDBIAS_DATA", str(tmp_path / "nowhere"))
    assert find_dataset("mnist", folder).data_dir == str(folder)


def test_folder_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_mnist: dict[str, np.ndarray]
) -> None:
    folder = write_npz(tmp_path / "data" / "mnist.npz", small_mnist).parent
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_dataset("mnist", "data").data_dir == str(folder)
    assert find_dataset("mnist", "~/data").data_dir == str(folder)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_named_and_not_in_the_given_folder(tmp_path: Path, home: Path, name: str) -> None:
    write_npz(home / "datasets" / f"{name}.npz", SMALL)  # not where it was told to look
    with pytest.raises(DatasetError, match=rf"{name}\.npz. Received: none of them; set --data-dir"):
        find_dataset(name, tmp_path)
    with pytest.raises(DatasetError, match="Received: no such folder"):
        find_dataset(name, tmp_path / "nowhere")


def test_auto_falls_on_to_the_cache_and_says_so(
    tmp_path: Path, home: Path, small_mnist: dict[str, np.ndarray]
) -> None:
    cache = write_npz(home / "datasets" / "mnist.npz", small_mnist).parent
    located = find_dataset("auto", tmp_path / "empty")
    notice = f"There are no MNIST files in {tmp_path / 'empty'}: using those in {cache}."
    assert located == Located("mnist", str(cache), notice)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("download", [False, True])
def test_auto_falls_back_to_digits_and_says_so(tmp_path: Path, given: bool, download: bool) -> None:
    data_dir = tmp_path if given else None
    located = find_dataset("auto", data_dir, download=download)
    assert (located.name, located.data_dir) == ("digits", None)
    reason = "Connection refused" if download else "downloading is off"
    reasons = f"no MNIST files in {tmp_path}; {reason}" if given else reason
    assert located.notice == (
        f"MNIST is not at hand and could not be downloaded ({reasons}): using scikit-learn's 8x8 "
        "digits scaled to 28x28; set --data-dir or FIXEDBIAS_DATA to a folder with the MNIST files."
    )
    with pytest.warns(UserWarning, match="using scikit-learn's 8x8 digits"):
        dataset = load_dataset("auto", data_dir, download=download)
    assert dataset.name == "digits"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_named_and_not_to_be_had(name: str) -> None:
    with pytest.raises(DatasetError, match=r"not at hand .*Connection refused\): set --data-dir"):
        load_dataset(name)
    with pytest.raises(DatasetError, match=r"not at hand .*downloading is off\): set --data-dir"):
        load_dataset(name, download=False)


@pytest.mark.parametrize("where", ["given", "cache"])
@pytest.mark.parametrize("name", ["auto", "mnist"])
def test_damaged_files_are_never_passed_over(
    tmp_path: Path, home: Path, small_mnist: dict[str, np.ndarray], where: str, name: str
) -> None:
    folder = tmp_path / "data" if where == "given" else home / "datasets"
    data_dir = folder if where == "given" else None
    path = write_npz(folder / "mnist.npz", small_mnist)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=str(path)):
        load_dataset(name, data_dir)
    write_npz(path, OTHER)
    with pytest.raises(DatasetError, match="this must be MNIST's 3 training images"):
        load_dataset(name, data_dir)
    path.unlink()
    (folder / "t10k-labels-idx1-ubyte").touch()
    with pytest.raises(DatasetError, match=r"must be together. Received: no train-images"):
        load_dataset(name, data_dir)


def test_fashion_mnist_of_the_keras_cache(home: Path, small_mnist: dict[str, np.ndarray]) -> None:
    folder = home / "datasets"
    write_npz(folder / "mnist.npz", small_mnist)
    write_npz(folder / "fashion-mnist" / "fashion_mnist.npz", OTHER)
    dataset = load_dataset("fashion_mnist")
    assert (dataset.name, dataset.source) == ("fashion_mnist", str(folder))
    check_equal(dataset, OTHER)


@pytest.mark.skipif(
    not list(REAL.glob("train-images-idx3-ubyte*")), reason="the four MNIST files are not at hand"
)
def test_the_real_mnist(tmp_path: Path) -> None:
    dataset = load_dataset("mnist", REAL)
    assert dataset.checksum == "796354bf1a5bdb3f752e23f487245288f2c35b1e0bc343e07448cffbb5f56624"
    assert dataset.x_train.shape == (60_000, 28, 28)
    assert dataset.x_test.shape == (10_000, 28, 28)
    assert list(dataset.y_test[:5]) == [7, 2, 1, 0, 4]
    arrays = {key: getattr(dataset, key) for key in ARRAYS}
    write_npz(tmp_path / "mnist.npz", arrays)
    assert load_dataset("auto", tmp_path).checksum == dataset.checksum
    write_npz(tmp_path / "fashion_mnist.npz", arrays)
    with pytest.raises(DatasetError, match="Received: MNIST's training images"):
        load_dataset("fashion_mnist", tmp_path)


# Without TensorFlow


def test_tensorflow_and_keras_are_not_imported(
    small_mnist: dict[str, np.ndarray], tmp_path: Path
) -> None:
    code = """\
import sys
from fixedbias import datasets
datasets.load_dataset("digits")
datasets.find_dataset("auto", download=False)
print([name for name in ("tensorflow", "keras", "jax", "torch") if name in sys.modules])
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(datasets).failed == 0

"""Folders of image files: what is in them, and that it is MNIST, or Fashion-MNIST, and whole."""

from pathlib import Path

import numpy as np
import pytest

from fixedbias.idx import DatasetError, files_in, read_folder
from tests.fixedbias.conftest import SMALL
from tests.fixedbias.files import IMAGES, LABELS, check_refused, npz_bytes, write_idx


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

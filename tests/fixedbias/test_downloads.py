"""A download fills the cache with the data set whole, or leaves it as it was and says why."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fixedbias import datasets
from fixedbias.datasets import DatasetError, Located, find_dataset, load_dataset
from tests.fixedbias.caches import START, check_equal, files_below, set_child, write_npz
from tests.fixedbias.conftest import OTHER

pytestmark = pytest.mark.usefixtures("home")


def served(folder: Path, arrays: dict[str, np.ndarray]) -> str:
    """Code of a loader that succeeds with these arrays."""
    path = write_npz(folder / "served" / "mnist.npz", arrays)
    return f"import shutil\nshutil.copy({str(path)!r}, folder / 'datasets')"


def test_download_fills_the_cache(
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_mnist: dict[str, np.ndarray],
    capfd: pytest.CaptureFixture[str],
) -> None:
    chatter = "print('Downloading')\nprint('WARNING', file=sys.stderr)\n"
    set_child(monkeypatch, START + chatter + served(tmp_path, small_mnist))
    check_equal(load_dataset("auto"), small_mnist)
    assert files_below(home) == [home / "datasets" / "mnist.npz"]
    assert list((home / "datasets").iterdir()) == [home / "datasets" / "mnist.npz"]
    assert capfd.readouterr() == ("", "")
    set_child(monkeypatch, "raise AssertionError('downloaded again')")
    assert find_dataset("mnist") == Located("mnist", str(home / "datasets"), "")


def check_given_up(home: Path, reason: str) -> None:
    """`auto` falls back for this reason, `mnist` is refused, and the cache is as it was."""
    located = find_dataset("auto")
    assert located.name == "digits"
    assert reason in located.notice
    with pytest.raises(DatasetError, match="could not be downloaded") as caught:
        find_dataset("mnist")
    assert reason in str(caught.value)
    assert files_below(home) == []


@pytest.mark.parametrize(
    ("loader", "reason"),
    [
        (
            "raise Exception('URL fetch\\nfailure: \\x1b[31mNo route')",
            "(URL fetch failure: ?[31mNo",
        ),
        ("raise Exception('x' * 10**6)", f"({'x' * 300})"),
        ("import os\nos._exit(3)", "ended with exit status 3"),
        ("(folder / 'datasets' / 'mnist.npz').write_text('<html>')", "not a zip file"),
        ("pass", "Received: none"),
    ],
)
def test_failed_download(
    home: Path, monkeypatch: pytest.MonkeyPatch, loader: str, reason: str
) -> None:
    set_child(monkeypatch, START + loader)
    check_given_up(home, reason)


def test_download_of_another_dataset(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, small_mnist: dict[str, np.ndarray]
) -> None:
    set_child(monkeypatch, START + served(tmp_path, OTHER))
    check_given_up(home, "this must be MNIST's 3 training images")


def test_cache_that_cannot_be_written(home: Path) -> None:
    home.touch()
    located = find_dataset("auto")
    assert located.name == "digits"
    assert "Not a directory" in located.notice


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_server_that_never_answers(
    home: Path, monkeypatch: pytest.MonkeyPatch, silent_server: int, tmp_path: Path
) -> None:
    monkeypatch.setattr(datasets, "STALL_SECONDS", 0.5)
    fetch = f"""\
import os, urllib.request
(folder / "datasets" / "mnist.npz").write_bytes(b"part")
pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))
urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open(
    "http://127.0.0.1:{silent_server}/mnist.npz"
)"""
    set_child(monkeypatch, START + fetch)
    begin = time.monotonic()
    check_given_up(home, "nothing arrived for 0.5 s")
    assert time.monotonic() - begin < 10
    with pytest.raises(ProcessLookupError):  # the loader is gone
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_time_starts_over_while_bytes_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_mnist: dict[str, np.ndarray]
) -> None:
    monkeypatch.setattr(datasets, "STALL_SECONDS", 0.5)
    drip = """\
import time
for i in range(10):
    (folder / "datasets" / "part").write_bytes(bytes(i))
    time.sleep(0.1)
"""
    before = "import time\ntime.sleep(0.7)\n"  # an import that takes longer than a stall may
    set_child(monkeypatch, before + START + drip + served(tmp_path, small_mnist))
    check_equal(load_dataset("mnist"), small_mnist)


@pytest.mark.parametrize("loader", ["import time\ntime.sleep(60)", START + "i = 0\nwhile True:\n"])
def test_download_without_end(home: Path, monkeypatch: pytest.MonkeyPatch, loader: str) -> None:
    monkeypatch.setattr(datasets, "DOWNLOAD_SECONDS", 0.5)
    if loader.endswith(":\n"):
        loader += "    i += 1\n    (folder / 'datasets' / 'part').write_bytes(bytes(i % 1000))"
    set_child(monkeypatch, loader)
    check_given_up(home, "was not done after 0.5 s")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_keras_itself_behind_a_silent_proxy(
    home: Path, monkeypatch: pytest.MonkeyPatch, silent_server: int, name: str
) -> None:
    monkeypatch.undo()
    monkeypatch.delenv("FIXEDBIAS_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(home))
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent_server}")
    monkeypatch.setattr(datasets, "STALL_SECONDS", 1.0)
    with pytest.raises(DatasetError, match="nothing arrived for 1 s"):
        find_dataset(name)
    assert files_below(home) == []


@pytest.mark.slow
def test_keras_itself_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.delenv("FIXEDBIAS_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(home))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    located = find_dataset("auto")
    assert located.name == "digits"
    assert "URL fetch failure" in located.notice
    assert "refused" in located.notice
    assert files_below(home) == []

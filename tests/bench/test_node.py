"""A machine of a cluster: cores and GPUs that are its own, and whether it is fit to measure."""

import subprocess
import sys

import pytest

from bench import claims
from bench.claims import ClaimError
from bench.config import Options
from bench.node import call_here, check_node, file_digests


@pytest.fixture
def take(tmp_path, monkeypatch):
    """Claims as another process would, without patience; all is given back in the end."""
    monkeypatch.setattr(claims, "_PATIENCE", 0.0)
    taken = []

    def take(*args):
        taken.append(claims.claim(*args, folder=tmp_path))
        return taken[-1]

    yield take
    for claim in taken:
        claim.release()


def test_cores_are_shared_out_and_never_twice(take, monkeypatch):
    monkeypatch.setattr(claims, "physical_cores", lambda: [[0, 4], [1, 5], [2], [3]])
    first = take("cpu", 2)
    assert first.cores == [0, 4, 1, 5]  # whole cores, both threads of them
    assert take("cpu", 1).cores == [2]
    with pytest.raises(ClaimError, match="2 of the 4 cores cannot be had"):
        take("cpu", 2)
    assert take("cpu", 1).cores == [3]  # what the one refused had taken is free again
    first.release()
    assert take("cpu", 2).cores == first.cores
    with pytest.raises(ClaimError, match="4 of the 4"):
        take("cpu")  # all, by default


def test_each_gpu_worker_has_one_gpu_and_its_share_of_the_cores(take, monkeypatch):
    monkeypatch.setattr(claims, "physical_cores", lambda: [[0], [1], [2], [3], [4]])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")  # dask-cuda begins with the worker's own
    first, second = (take("gpu") for _ in range(2))
    assert (first.gpu, first.cores) == ("1", [0, 1])
    assert (second.gpu, second.cores) == ("0", [2, 3])
    with pytest.raises(ClaimError, match="one of the GPUs 1, 0 cannot be had"):
        take("gpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert claims.visible_gpus() == []
    with pytest.raises(ClaimError, match="NVML and CUDA_VISIBLE_DEVICES show none"):
        take("gpu")


def test_a_gpu_is_claimed_by_what_it_is_and_not_by_how_it_is_called(take, monkeypatch):
    monkeypatch.setattr(claims, "physical_cores", lambda: [[0], [1], [2], [3]])
    monkeypatch.setattr(claims, "gpu_uuids", lambda: {"0": "GPU-a"})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    first = take("gpu", 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a")
    with pytest.raises(ClaimError, match="one of the GPUs GPU-a cannot be had"):
        take("gpu", 1)
    # Another job of a batch system, whose GPU is its number 0.
    monkeypatch.setattr(claims, "gpu_uuids", lambda: {"0": "GPU-b"})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert take("gpu", 1).gpu == first.gpu == "0"


def test_a_claim_ends_with_its_process(take, tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from bench.claims import claim\n"
        "held = claim('cpu', folder=Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=120)
    assert take("cpu").cores


def test_a_worker_is_fit_only_with_the_same_code_and_the_same_data(tmp_path):
    from bench.node import code_digest
    from bench.runs import find_data

    _, dataset = find_data("digits", None)
    expected = {
        "code": code_digest(),
        "data": "digits",
        "folder": "/nowhere",
        "task": ("images",),
        "dataset": dataset,
        "layer": (),
        "files": {},
        "threads": 1,
        "gpu": False,
    }
    assert check_node(expected) == ""
    assert "another version" in check_node(expected | {"code": "0" * 12})
    other = dataset | {"checksum": "0" * 64}
    assert "its files of digits are other ones" in check_node(expected | {"dataset": other})
    assert "and --threads asks for 9999" in check_node(expected | {"threads": 9999})
    assert "no_such" in check_node(expected | {"layer": ("no_such:Layer",)})
    mine = tmp_path / "mine.py"
    mine.write_text("import keras\n")
    files = file_digests(Options(layer=(f"{mine}:L",), bias=("zeros", f"file:{mine}")))
    assert list(files) == [str(mine)]
    assert check_node(expected | {"files": files}) == ""
    mine.write_text("import numpy\n")
    assert "mine.py is another one than the driver's" in check_node(expected | {"files": files})
    mine.unlink()
    assert "No such file" in check_node(expected | {"files": files})


def test_a_call_outside_a_worker_is_refused():
    with pytest.raises(RuntimeError, match=r"without --preload bench\.node"):
        call_here("driver", abs, -1, timeout=1)

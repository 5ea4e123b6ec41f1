"""Where a scheduler may be, and what goes with --cluster: refused before anything starts."""

import subprocess
import sys

import pytest

from bench import cluster, grid
from bench.addresses import check_address, resolve
from bench.config import parse
from bench.rules import UsageError

GOOD = ["tcp://127.0.0.1:8786", "tls://8.8.8.8:8786", "tcp://10.1.2.3:1", "tcp://[::1]:8786"]
GOOD += ["tcp://head:8786", "tcp://100.64.0.1:8786"]
BAD = ["", "127.0.0.1:8786", "http://a:1", "tcp://a", "tcp://a:0", "tcp://a:99999", "tcp:// a:1"]


@pytest.mark.parametrize("address", GOOD)
def test_an_address_that_is_one(address):
    check_address(address)
    assert parse(["--cluster", address, "--layers", "2"]).cluster == address


@pytest.mark.parametrize("address", BAD)
def test_an_address_that_is_none(address):
    with pytest.raises(UsageError, match=r"--cluster must be a scheduler's address.*Received: "):
        parse(["--cluster", address])


PUBLIC = ["tcp://8.8.8.8:8786", "tcp://[2001:4860:4860::8888]:1", "tcp://0.0.0.0:1", "tcp://[::]:1"]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_needs_tls(address):
    with pytest.raises(UsageError, match="in public reach and not encrypted: use a tls://"):
        check_address(address)


def test_a_name_of_a_public_address_needs_tls(monkeypatch):
    import socket

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(0, 0, 0, "", ("8.8.8.8", 1))])
    with pytest.raises(UsageError, match="in public reach"):
        resolve("tcp://head:1")
    resolve("tls://head:1")


def test_a_name_that_nobody_knows():
    with pytest.raises(UsageError, match="names a host that is not known"):
        resolve("tcp://no-such-host.invalid:8786")


REFUSED = {
    "--device gpu:1": "--device must be cpu, gpu, all or auto with --cluster",
    "--profile": "--profile is about this machine",
    "--time-breakdown": "--time-breakdown is about this machine",
    "--resume x --layers 3": "--resume takes no other option than --cluster",
}


@pytest.mark.parametrize(("argv", "sentence"), REFUSED.items())
def test_what_does_not_go_with_a_cluster(argv, sentence):
    with pytest.raises(UsageError, match=sentence):
        parse([*argv.split(), "--cluster", "tcp://127.0.0.1:8786"])


def test_resume_takes_a_cluster():
    options = parse(["--resume", "x", "--cluster", "tcp://127.0.0.1:8786"])
    assert options.cluster == "tcp://127.0.0.1:8786"


def test_without_dask_there_is_a_sentence_and_no_traceback(monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "distributed" else found(name)
    )
    with pytest.raises(UsageError, match=r"needs Dask: pip install -e '\.\[cluster\]'"):
        parse(["--cluster", "tcp://127.0.0.1:8786"])


def test_no_scheduler_is_a_sentence_and_leaves_nothing_behind(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "_ANSWER", 0.3)
    assert grid.main(["--cluster", "tcp://127.0.0.1:9", "--data", "digits"]) == 2
    error = capsys.readouterr().err
    assert error == (
        "error: --cluster tcp://127.0.0.1:9: the scheduler cannot be used, no answer.\n"
    )
    assert not list(tmp_path.iterdir())


def test_the_local_run_needs_no_dask():
    code = "import sys, bench.grid, bench.run, bench.node; sys.exit('distributed' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

"""The same where scheduler and workers are hosts of their own, and the network fails too."""

import json
import shutil
import subprocess

import pytest

from bench.claims import physical_cores
from tests.faults.clusters import TRIALS, Network, Site, check, trial


def why_not() -> str:
    """Why this machine does not let network namespaces be made; empty if it does."""
    if not shutil.which("ip") or not shutil.which("unshare"):
        return "ip (iproute2) and unshare (util-linux) are not installed"
    try:
        Network(1).close()
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.strip()}"
    return ""


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600 * max(1, TRIALS)),
    pytest.mark.skipif(len(physical_cores()) < 2, reason="two workers need a core each"),
]


@pytest.fixture
def network():
    if reason := why_not():
        pytest.skip(reason)
    made = Network(3)
    yield made
    made.close()


def test_nothing_is_lost_or_doubled_where_hosts_and_their_network_fail(tmp_path, network):
    site = Site(tmp_path, network=network)
    try:
        records, killed = trial(site, 0, "network")
    finally:
        site.stop()
    print(json.dumps(killed))
    check(records, killed)
    assert killed["network"] == 1
    hosts = {record.extra["worker"]["host"] for record in records if record.status == "ok"}
    assert len(hosts) == 2

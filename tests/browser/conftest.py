"""A browser that reaches this machine only, and TensorBoard on copies of what it is to show."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BASELINE = ROOT / "results" / "baseline"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A fresh page. Requests that leave this machine are aborted, and listed in `page.refused`."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium fonts-dejavu-core")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        opened = browser.new_page(viewport={"width": 1500, "height": 1000})
        opened.refused = []

        def local_only(route: Any) -> None:
            if re.match(
                r"(http://(localhost|127\.0\.0\.1)[:/]|file:|data:|blob:)", route.request.url
            ):
                route.continue_()
            else:
                opened.refused.append(route.request.url)
                route.abort()

        opened.route("**/*", local_only)
        yield opened
        opened.screenshot(path=tmp_path / "last.png", full_page=True)
        browser.close()


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], str]]:
    """Starts TensorBoard on a copy of a folder, once per folder; gives its address."""
    servers: list[subprocess.Popen[bytes]] = []
    addresses: dict[Path, str] = {}

    def start(folder: Path) -> str:
        if folder in addresses:
            return addresses[folder]
        # A copy: looking writes caches into the folder.
        logdir = tmp_path_factory.mktemp("served") / folder.name
        shutil.copytree(folder, logdir)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir)]
        command += ["--port", str(port), "--host", "127.0.0.1", "--load_fast=false"]
        servers.append(
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        addresses[folder] = f"http://127.0.0.1:{port}"
        leaves = len({path.parent for path in logdir.glob("**/events.out.tfevents.*")})
        wait_for(lambda: len(get(f"{addresses[folder]}/data/runs")) >= leaves, seconds=90)
        return addresses[folder]

    yield start
    for server in servers:
        server.terminate()
        server.wait(20)


def get(url: str) -> Any:
    """The JSON at an address."""
    import gzip
    import json

    with urllib.request.urlopen(url, timeout=30) as reply:
        content = reply.read()
    return json.loads(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)


def wait_for(condition: Callable[[], bool], *, seconds: float) -> None:
    """Waits until a condition holds; a server that is not up yet counts as no."""
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def drawn(png: bytes) -> int:
    """Pixels of a screenshot that have a colour: neither black, white nor grey."""
    import io

    import numpy as np
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    return int((pixels.max(axis=2) - pixels.min(axis=2) > 60).sum())

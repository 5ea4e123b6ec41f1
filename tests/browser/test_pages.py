"""What a person sees: drawn pixels, not only elements, in TensorBoard and in the report.

The selectors are TensorBoard's own business and may need new ones with a new version.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import BASELINE, drawn, get

LEAVES = sorted({path.parent.name for path in BASELINE.glob("board/**/events*")})


def wait_drawn(page: Any, selector: str, least: int = 150) -> None:
    """Waits until the first such element shows enough pixels that have a colour."""
    element = page.locator(selector).first
    element.wait_for(state="visible", timeout=60_000)
    found = 0
    for _ in range(60):
        found = drawn(element.screenshot())
        if found >= least:
            return
        page.wait_for_timeout(1000)
    raise AssertionError(f"{selector} has {found} coloured pixels only")


def test_the_server_offers_every_arm_of_the_baseline(serve):
    """Without a browser, so on every commit: the endpoints behind the tabs."""
    address = serve(BASELINE)
    runs = get(f"{address}/data/runs")
    assert {run.rpartition("/")[2] for run in runs} == set(LEAVES)
    tags = get(f"{address}/data/plugin/timeseries/tags")
    for kind in ("scalars", "histograms", "images"):
        assert tags[kind], kind
    assert set(tags["scalars"]["runTagInfo"]) == set(runs)
    listing = get(f"{address}/data/plugins_listing")
    assert listing["hparams"]["enabled"]
    assert listing["text"]["enabled"]


@pytest.mark.slow
def test_time_series_are_drawn(serve, page):
    page.goto(f"{serve(BASELINE)}/?smoothing=0#timeseries")
    wait_drawn(page, "scalar-card line-chart")
    assert page.refused == []


@pytest.mark.slow
def test_scalars_are_drawn(serve, page):
    page.goto(f"{serve(BASELINE)}/#scalars&_smoothingWeight=0")
    wait_drawn(page, "tf-scalar-card")
    assert page.refused == []


@pytest.mark.slow
def test_hparams_has_a_row_for_every_arm(serve, page):
    address = serve(BASELINE)
    count = len(get(f"{address}/data/runs"))
    page.goto(f"{address}/#hparams")
    page.locator("vaadin-grid-cell-content", has_text="dense").first.wait_for(timeout=60_000)
    cells = page.locator("tf-hparams-table-view vaadin-grid-cell-content").all_inner_texts()
    assert sum("board/" in text for text in cells) >= min(count, 10)
    page.get_by_text("Parallel Coordinates View").click()
    wait_drawn(page, "tf-hparams-parallel-coords-plot", least=20)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tab", "element"),
    [("images", "tf-image-loader img"), ("histograms", "vz-histogram-timeseries")],
)
def test_pictures_and_spreads_are_drawn(serve, page, tab, element):
    page.goto(f"{serve(BASELINE)}/#{tab}")
    wait_drawn(page, element)


@pytest.mark.slow
def test_the_trace_viewer_shows_step_markers(serve, page):
    pytest.importorskip("xprof", reason="xprof is not installed: pip install -e '.[profile]'")
    traces = sorted(BASELINE.glob("board/**/*.xplane.pb"))
    if not traces:
        pytest.skip("the baseline was made without --profile")
    address = serve(BASELINE)
    run = traces[0].parents[3].relative_to(BASELINE).as_posix() + "/steps"
    # The viewer draws on a canvas: what it was sent to draw is what can be read.
    with page.expect_response(lambda r: "tag=trace_viewer" in r.url and "/data?" in r.url) as sent:
        page.goto(f"{address}/?tool=trace_viewer%40&run={run}#profile")
        page.frame_locator("iframe").locator("iframe").wait_for(timeout=90_000)
    names = {event.get("name") for event in sent.value.json()["traceEvents"]}
    assert {f"train {step}" for step in range(3)} <= names


@pytest.mark.slow
def test_the_report_opens_by_itself(page):
    page.goto((BASELINE / "report.html").as_uri())
    pictures = page.locator("img")
    assert pictures.count() > 6
    widths = pictures.evaluate_all("images => images.map(image => image.naturalWidth)")
    assert min(widths) > 300
    wait_drawn(page, "figure#intervals img")
    assert "against dense" in page.locator("h1").inner_text()
    assert page.refused == []
    # Nothing is cut off at the side of a small window.
    page.set_viewport_size({"width": 700, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_baseline_is_small_and_whole():
    sizes = [path.stat().st_size for path in Path(BASELINE).rglob("*") if path.is_file()]
    assert sum(sizes) <= 1_000_000
    assert (BASELINE / "report.md").is_file()

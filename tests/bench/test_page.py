"""The report: made from records alone, always the same, nothing in it that is not text."""

import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from bench import facts, page
from bench.findings import read_findings
from bench.page import write_report
from bench.records import Record, read_run
from bench.report import main
from bench.sentences import headline
from bench.style import looks
from bench.summary import summarise
from tests.bench.conftest import make_record, write_run_folder
from tests.bench.test_board import trained

EVIL = '<script>alert("x")</script>|`[a](b)$_{'


class Page(HTMLParser):
    """Tags, their attributes, and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The report of a fast arm, an arm that fails with markup, and a comparison that failed."""
    good = trained(64, fixed=1.25, **{EVIL: 1.0})
    bad = trained(128, fixed={"error": f"ValueError: {EVIL}"})
    dead = make_record(256)
    failed = Record(key=dead.key, cell=dead.cell, status="failed", reason=f"killed {EVIL}")
    folder = tmp_path_factory.mktemp("runs") / "run"
    plan = [good.key, bad.key, dead.key, "x-L9"]
    write_run_folder(folder, [good, bad, failed], plan=plan)
    write_report(read_findings(folder))
    return folder


def test_the_same_records_give_the_same_bytes(run):
    files = {p: p.read_bytes() for p in run.glob("**/*") if p.suffix in (".html", ".md", ".png")}
    assert len(files) > 10
    (run / "figures" / "stale.png").write_bytes(b"")
    write_report(read_findings(run))
    again = {path: path.read_bytes() for path in files}
    assert again == files


def test_everything_that_came_from_outside_is_text(run):
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert EVIL in "".join(page.text)
    assert page.sources
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in page.sources)
    text = (run / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in text
    images = re.findall(r"!\[.*?\]\((figures/.*?)\)", text)
    assert sorted(p.name for p in (run / "figures").iterdir()) == sorted(
        name.removeprefix("figures/") for name in images
    )


def test_what_failed_or_is_missing_is_named(run):
    page = "".join(Page((run / "report.html").read_text(encoding="utf-8")).text)
    for words in (f"failed: killed {EVIL}", f"fixed: ValueError: {EVIL}", "not measured: x-L9"):
        assert words in page
        assert page.count("256 units") > 1


def test_captions_carry_command_machine_and_versions(run):
    text = (run / "report.html").read_text(encoding="utf-8")
    header, _, _ = read_run(run)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text, re.DOTALL)
    assert len(captions) == text.count("<img ")
    for caption in captions:
        assert "python -m bench.grid" in caption
        assert header.machine["cpu"]["model"] in caption
        assert "TensorFlow 2." in caption
    with Image.open(run / "figures" / "heatmap.png") as image:
        assert "python -m bench.grid" in image.info["Description"]


def test_the_sentence_on_top_is_the_verdict(run):
    _, records, _ = read_run(run)
    said = headline(summarise(records, margin=0.02), failed=1)
    assert said.startswith("Speed against dense: fixed faster (1.2")
    assert said.endswith("Failed: 1 comparison.")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert re.search("<h1>Speed against dense: fixed faster", page)


def test_an_arm_keeps_its_look_whatever_else_runs():
    alone, among = looks(["fixed"]), looks(["Mine", "dense", "Other", "fixed"])
    assert alone["fixed"] == among["fixed"]
    assert len(set(among.values())) == 4


def test_runs_with_little_in_them_have_reports_too(make_run):
    record = make_record(fixed=1.0, rounds=3)
    failed = Record(key=record.key, cell=record.cell, status="failed", reason="no")
    for name, records in {"short": [record], "failed": [failed], "empty": []}.items():
        assert write_report(read_findings(make_run(name, records))).stat().st_size > 1000


def test_the_command_makes_it_again(run, capsys):
    assert main([str(run)]) == 0
    assert capsys.readouterr().out == f"report: {run / 'report.html'}\n"
    assert main([str(run / "absent")]) == 2
    assert capsys.readouterr().err.startswith("error: The folder of a run is needed: ")


def test_a_page_of_a_large_run_has_the_first_rows_and_says_so(make_run, monkeypatch):
    monkeypatch.setattr(facts, "_ROWS", 2)
    monkeypatch.setattr(page, "_TROUBLES", 1)
    records = [make_record(units, fixed={"error": "ValueError: no"}) for units in (8, 16)]
    folder = make_run("run", records)
    text = write_report(read_findings(folder)).read_text()
    assert "The first 2 rows of 6, of 2 cells: numbers.csv has all." in text
    assert "... and 1 more" in text
    assert len((folder / "numbers.csv").read_text().splitlines()) == 7

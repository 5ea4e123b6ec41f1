"""The terminal's lines and table."""

import io
import re

from rich.console import Console

from bench.records import Record
from bench.report import comparison_line, print_table
from bench.summary import summarise
from tests.bench.conftest import make_record


def table(records, width=80):
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)
    print_table(summarise(records, margin=0.02), console)
    return out.getvalue()


def test_the_table_fits_80_columns_and_cuts_nothing():
    arms = {"dense-nobias": 1.234, "dense-frozen": 0.987, "fixed": 1.0}
    for width in (40, 80, 200):
        text = table([make_record(4096, **arms)], width)
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text
        assert "dense-nobias" in text
        assert "can't tell" in text or "same" in text


def test_a_line_says_each_arms_ratio_and_verdict():
    line = comparison_line(make_record(fixed=0.9, rounds=200), margin=0.02)
    assert re.search(r"fixed 0\.\d{3} slower", line)
    assert re.search(r"A/A \d\.\d{3} same", line)
    assert "\n" not in line


def test_a_failed_comparison_says_why():
    record = make_record()
    failed = Record(
        key=record.key,
        cell=record.cell,
        status="failed",
        reason="out of memory",
        started="",
        ended="",
    )
    assert comparison_line(failed, margin=0.02).endswith("failed, out of memory")
    assert table([failed]).strip() == ""


def test_markup_in_a_name_stays_text():
    text = table([make_record(**{"[red]<b>": {"error": "ValueError: [bold]"}})])
    assert "[red]<b>" in text
    assert "ValueError: [bold]" in text

"""numbers.csv: every arm of every cell, as numbers that programs read."""

import csv
from dataclasses import replace

import pandas as pd
import pytest

from bench.findings import read_findings
from bench.keys import cell_key
from bench.numbers import write_numbers
from bench.summary import summarise
from tests.bench.conftest import make_record


@pytest.fixture
def numbers(make_run, tmp_path):
    """The table of a run of some records."""

    def read(*records):
        write_numbers(read_findings(make_run("run", list(records))), tmp_path / "numbers.csv")
        return pd.read_csv(tmp_path / "numbers.csv")

    return read


def test_numbers_are_those_of_the_summary_unrounded(numbers):
    record = make_record(fixed=1.1)
    frame = numbers(record)
    reference, fixed, again = summarise([record], margin=0.02)
    assert frame["arm"].tolist() == ["dense", "fixed", "dense (A/A)"]
    line = frame.loc[1]
    assert line["examples_per_second"] == fixed.examples_per_second
    assert (line["ratio_low"], line["ratio"], line["ratio_high"]) == (
        fixed.ratio.low,
        fixed.ratio.estimate,
        fixed.ratio.high,
    )
    assert line["verdict"] == str(fixed.verdict)
    assert line["accuracy"] == fixed.accuracy
    assert line["difference"] == fixed.difference.estimate
    assert line["ceiling"] == fixed.ceiling
    assert frame.loc[0, "accuracy"] == reference.accuracy
    assert pd.isna(frame.loc[0, "ratio"])
    assert frame.loc[2, "ratio"] == again.ratio.estimate


def test_every_field_of_a_cell_is_a_column(numbers):
    line = numbers(make_record(fixed=1.0)).loc[0]
    assert (line["layers"], line["units"], line["batch_size"]) == (3, 64, 32)
    assert (line["device"], line["bias"], line["threads"]) == ("cpu", "ramp", "all")


def test_what_failed_has_a_line_that_says_why(numbers):
    whole = replace(make_record(8), arms={}, order=[], status="failed", reason="out of memory")
    frame = numbers(whole, make_record(16, fixed={"error": "ValueError: no"}))
    assert frame["units"].tolist() == [8, 16, 16, 16]
    assert frame["status"].tolist() == ["failed", "ok", "failed", "ok"]
    assert frame.loc[0, "flags"] == "out of memory"
    assert "ValueError: no" in frame.loc[2, "flags"]


def test_a_comparison_that_failed_after_training_says_so_for_every_arm(numbers):
    frame = numbers(replace(make_record(fixed=1.0), status="failed", reason="out of memory"))
    assert frame["status"].tolist() == ["failed"] * 3
    assert frame["flags"].str.startswith("out of memory").all()


def test_bounds_that_are_not_known_are_empty(numbers):
    record = make_record(fixed=1.0)
    for arm in record.arms.values():
        arm["accuracies"] = arm.get("accuracies", [])[:1]
    line = numbers(record).loc[1]
    assert pd.notna(line["difference"])
    assert pd.isna(line["difference_low"])
    assert pd.isna(line["difference_high"])


def test_fields_that_a_later_version_adds_to_a_cell_are_columns(numbers):
    record = make_record(fixed=1.0)
    record.cell["dropout"] = 0.5
    assert numbers(replace(record, key=cell_key(record.cell)))["dropout"].tolist() == [0.5] * 3


def test_names_from_elsewhere_are_no_formulas(numbers):
    frame = numbers(make_record(**{"=cmd()": 1.0}))
    assert frame["arm"].tolist() == ["dense", "'=cmd()", "dense (A/A)"]


def test_of_nothing_it_is_a_head(numbers):
    assert "ratio" in numbers().columns


def test_whole_numbers_stay_whole_beside_gaps(make_run, tmp_path):
    record = make_record(fixed=1.0)
    record.arms["dense"]["parameters"] = 118_282
    write_numbers(read_findings(make_run("run", [record])), tmp_path / "numbers.csv")
    with (tmp_path / "numbers.csv").open(newline="") as file:
        assert [line["parameters"] for line in csv.DictReader(file)] == ["118282", "", ""]

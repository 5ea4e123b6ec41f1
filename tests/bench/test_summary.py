"""What is said of a run: verdicts, accuracy, share of the ceiling, and the quality gate."""

import math

import pytest

from bench.summary import summarise, target_accuracy
from bench.verdicts import Verdict
from tests.bench.conftest import make_record


def rows(*records, margin=0.02):
    return {(row.cell["units"], row.arm): row for row in summarise(records, margin=margin)}


def test_a_planted_difference_is_named_and_its_absence_too():
    table = rows(make_record(fixed=1.0, slow=0.9, fast=1.1, rounds=200))
    words = {arm: row.verdict for (_, arm), row in table.items()}
    assert words == {
        "dense": None,
        "fixed": Verdict.SAME,
        "slow": Verdict.SLOWER,
        "fast": Verdict.FASTER,
        "dense (A/A)": Verdict.SAME,
    }


def test_speed_and_its_ratio_are_those_of_the_samples():
    table = rows(make_record(fixed=1.25))
    assert table[64, "fixed"].ratio.estimate == pytest.approx(1.25, rel=0.02)
    assert table[64, "dense"].ratio is None
    assert 2e4 < table[64, "dense"].examples_per_second < 5e5


def test_accuracy_is_paired_by_seed():
    row = rows(make_record(fixed=1.0))[64, "fixed"]
    assert row.accuracy == pytest.approx(0.9755)
    assert row.difference.estimate == pytest.approx(0.0)
    assert row.difference.seeds == 2


def test_the_ceiling_is_the_best_library_and_follows_the_ratio():
    table = rows(make_record(twice=2.0))
    assert table[64, "dense"].ceiling == pytest.approx(0.6, rel=0.03)
    assert table[64, "twice"].ceiling == pytest.approx(1.2, rel=0.05)


def test_more_cells_make_the_same_evidence_weaker():
    """Eight rounds are enough for one verdict and not for one among thirty."""
    alone = make_record(8, fixed=1.2, rounds=8)
    assert rows(alone)[8, "fixed"].verdict is Verdict.FASTER
    many = [alone, *(make_record(100 + n, seed=n, fixed=1.0) for n in range(30))]
    assert rows(*many)[8, "fixed"].verdict is Verdict.CANT_TELL


@pytest.mark.parametrize(
    ("arm", "flag"),
    [
        ({"error": "RuntimeError: no"}, "RuntimeError: no"),
        (
            {"accuracies": [0.1], "histories": [{"loss": [math.nan], "seconds": [1]}]},
            "the loss was not finite",
        ),
        ({"accuracies": [0.098], "histories": []}, "learnt nothing"),
        ({"accuracies": [0.098, 0.97, 0.1], "histories": []}, "learnt nothing with 2 of 3 seeds"),
        ({"histories": [{"loss": [2.0, 1.0, 21.0], "seconds": [1] * 3}]}, "the loss exploded"),
        ({"accuracies": [1.0], "histories": []}, "suspiciously accurate"),
    ],
)
def test_what_cannot_be_believed_is_flagged(arm, flag):
    row = rows(make_record(bad=arm))[64, "bad"]
    assert flag in row.flags


def test_a_loss_that_explodes_in_its_first_epoch_is_held_against_the_reference():
    fine = {"histories": [{"loss": [2.0], "seconds": [1]}], "accuracies": [0.9]}
    wild = {"histories": [{"loss": [1e20], "seconds": [1]}], "accuracies": [0.9]}
    record = make_record(x=1.0)
    record.arms["dense"] |= fine
    record.arms["x"] |= wild
    row = rows(record)[64, "x"]
    assert "the loss exploded" in row.flags
    assert row.verdict is Verdict.CANT_TELL


def test_a_verdict_needs_training_that_worked():
    arm = make_record(x=1.0).arms["x"]
    broken = arm | {"histories": [{"loss": [math.inf], "seconds": [1]}], "accuracies": [0.1]}
    row = rows(make_record(x=broken))[64, "x"]
    assert row.verdict is Verdict.CANT_TELL


def test_an_a_a_interval_that_leaves_out_one_is_said():
    record = make_record(rounds=200)
    tilted = [t * 1.05 for t in record.arms["dense (A/A)"]["samples"]]
    record.arms["dense (A/A)"]["samples"] = tilted
    (flag,) = rows(record)[64, "dense (A/A)"].flags
    assert "leaves out 1" in flag


def test_time_to_the_target_is_that_of_the_first_epoch_that_reaches_it():
    histories = [
        {"loss": [1, 1, 1], "val_accuracy": [0.9, 0.98, 0.96], "seconds": [3, 2, 2]},
        {"loss": [1, 1, 1], "val_accuracy": [0.9, 0.95, 0.96], "seconds": [3, 2, 2]},
    ]
    arm = {"accuracies": [0.96, 0.96], "histories": histories}
    (row,) = (r for r in summarise([make_record(x=arm)], margin=0.02, target=0.97) if r.arm == "x")
    assert row.seconds_to_target == [5, math.inf]


def test_only_mnist_has_a_target_by_itself():
    assert target_accuracy("mnist", None) == 0.97
    assert target_accuracy("digits", None) is None
    assert target_accuracy("digits", 0.9) == 0.9
    assert rows(make_record(fixed=1.0))[64, "fixed"].seconds_to_target == []

"""TensorBoard files hold what the records hold, arm by arm, and name no machine."""

import json
import platform
from dataclasses import replace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.util.tensor_util import make_ndarray

from bench.board import LEAVES, aggregates, count_leaves, write_board
from bench.records import read_run
from bench.summary import summarise
from bench.weights import describe_weights
from tests.bench.conftest import make_record

HISTORY = {
    "loss": [0.5, 0.3],
    "accuracy": [0.8, 0.9],
    "val_loss": [0.4, 0.35],
    "val_accuracy": [0.9, 0.97],
    "seconds": [2.0, 1.0],
}


def trained(units=64, **arms):
    """A record whose arms know their weights: of `fixed` the bias stays as it is."""
    rng = np.random.default_rng(0)
    record = make_record(units, **(arms or {"fixed": 1.0}))
    for name, arm in record.arms.items():
        start = {
            "hidden_0/kernel": rng.normal(size=(784, 12)).astype("float32"),
            "hidden_0/bias": np.full(12, 0.1, "float32"),
        }
        moved = 0.0 if name == "fixed" else 0.5
        end = {
            "hidden_0/kernel": start["hidden_0/kernel"] * 2,
            "hidden_0/bias": start["hidden_0/bias"] + moved * rng.normal(size=12).astype("float32"),
        }
        arm |= {"histories": [HISTORY], "compile_seconds": 2.5}
        arm |= {"weights": describe_weights(start, end)}
    record.arms["dense (A/A)"].pop("histories")
    return record


def board(make_run, *records):
    folder = make_run("run", list(records))
    run, records, _ = read_run(folder)
    write_board(folder, run, records, summarise(records, margin=0.02))
    return folder


def read(path):
    events = EventAccumulator(str(path), size_guidance={"tensors": 0}).Reload()
    return events, {
        tag: [(e.step, make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def test_curves_and_speeds_are_those_of_the_record(make_run):
    record = trained(fixed=1.25)
    folder = board(make_run, record)
    events, found = read(folder / "board" / "L3-U64" / "fixed")
    assert [(step, value.item()) for step, value in found["accuracy/test"]] == [
        (1, pytest.approx(0.9)),
        (2, pytest.approx(0.97)),
    ]
    assert found["speed/ratio to dense"][0][1].item() == pytest.approx(1.25, rel=0.02)
    times = [event.wall_time for event in events.Tensors("loss/train")]
    assert times[1] - times[0] == pytest.approx(1.0)  # seconds of training
    assert {path.name for path in (folder / "board" / "L3-U64").iterdir()} == {"dense", "fixed"}


def test_the_fixed_bias_is_flat_and_the_trained_one_moves(make_run):
    folder = board(make_run, trained())
    for arm, still in {"fixed": True, "dense": False}.items():
        _, found = read(folder / "board" / "L3-U64" / arm)
        (first, before), (last, after) = found["hidden_0/bias"]
        assert (first, last) == (0, 2)
        assert before.shape == after.shape == (30, 3)
        assert before[:, 2].sum() == after[:, 2].sum() == 12
        assert np.array_equal(before, after) is still


def test_the_weights_are_a_small_finished_png(make_run):
    folder = board(make_run, trained())
    _, found = read(folder / "board" / "L3-U64" / "fixed")
    ((_, (width, height, png)),) = found["hidden_0/kernel, first units"]
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") == int(width)
    assert int.from_bytes(png[20:24], "big") == int(height)
    assert len(png) < 20_000
    size = sum(path.stat().st_size for path in folder.glob("board/**/events*"))
    assert size < 2 * 30_000


def test_every_arm_is_a_row_of_hparams_and_the_summary_says_the_verdict(make_run):
    folder = board(make_run, trained(fixed=1.25))
    events, found = read(folder / "board" / "L3-U64" / "fixed")
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    session = hparams_metadata.parse_session_start_info_plugin_data(content)
    assert session.group_name == "run/board/L3-U64/fixed"
    assert session.hparams["arm"].string_value == "fixed"
    assert session.hparams["units"].number_value == 64
    content = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    experiment = hparams_metadata.parse_experiment_plugin_data(content)
    metrics = [info.name.tag for info in experiment.metric_infos]
    assert metrics[0] == "speed/examples per second"
    assert set(metrics) <= set(found)
    text = found["summary"][0][1].item().decode()
    assert "faster" in text
    assert "python -m bench.grid" in text


def test_the_same_records_give_the_same_bytes_and_replace_older_ones(make_run):
    folder = board(make_run, trained())
    (path,) = folder.glob("board/*/fixed/*")
    before = path.read_bytes()
    run, records, _ = read_run(folder)
    write_board(folder, run, records, summarise(records, margin=0.02))
    assert [p.name for p in path.parent.iterdir()] == ["events.out.tfevents.0"]
    assert path.read_bytes() == before
    assert platform.node().encode() not in before


def test_a_large_run_has_a_directory_per_arm(make_run):
    records = [trained(units) for units in range(1, LEAVES // 2 + 2)]
    folder = board(make_run, *records)
    run, records, _ = read_run(folder)
    assert aggregates(run, records)
    assert count_leaves(folder) == 2
    _, found = read(folder / "board" / "fixed")
    assert sum(tag.endswith("accuracy/test") for tag in found) == len(records)
    assert not aggregates(run, records[:0])


def test_a_large_run_grows_record_by_record(make_run):
    records = [trained(units) for units in range(1, LEAVES // 2 + 2)]
    folder = make_run("run", records)
    run, records, _ = read_run(folder)
    for record in records:
        write_board(folder, run, [record], summarise([record], margin=0.02), add=True)
    assert count_leaves(folder) == 2
    _, added = read(folder / "board" / "fixed")
    write_board(folder, run, records, summarise(records, margin=0.02))
    _, whole = read(folder / "board" / "fixed")
    assert added.keys() == whole.keys()
    assert sum(tag.endswith("accuracy/test") for tag in added) == len(records)


def test_records_from_before_weights_were_kept_are_shown(make_run):
    folder = board(make_run, make_record(fixed=1.0))
    _, found = read(folder / "board" / "L3-U64" / "fixed")
    assert "accuracy/test" in found
    assert "loss/train" in found


def test_writing_needs_no_tensorflow(make_run):
    import subprocess
    import sys

    folder = make_run("run", [trained()])
    code = (
        "import sys; from bench.report import main\n"
        f"assert main([{str(folder)!r}]) == 0\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True)
    assert json.loads((folder / "run.json").read_text())["plan"]


def test_names_from_elsewhere_stay_within_the_folder_of_the_run(make_run, tmp_path):
    outside = tmp_path / "outside" / "events.out.tfevents.0"
    outside.parent.mkdir()
    outside.write_bytes(b"mine")
    names = [f"{outside.parent}", "../../outside", "..", "a\\b"]
    record = trained(**dict.fromkeys(names, 1.0))
    folder = make_run("run", [record])
    run, records, _ = read_run(folder)
    # And a record of a comparison that the plan does not have.
    write_board(folder, replace(run, plan=["other"]), records, summarise(records, margin=0.02))
    assert outside.read_bytes() == b"mine"
    assert {path.name for path in tmp_path.iterdir()} == {"outside", "run"}
    written = {path.parent for path in tmp_path.glob("**/events.out.tfevents.*")}
    own = {path for path in written if path != outside.parent}
    assert len(own) == len(names) + 1  # and the reference
    assert all(path.parent == folder / "board" / record.key for path in own)

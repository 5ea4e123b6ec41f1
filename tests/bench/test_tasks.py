"""Tasks without files, and cells of them: what is learnt, by whom, and how records name it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from bench.arms import find_arm
from bench.config import parse
from bench.engines import prepare_data
from bench.models import CellModel, build_model
from bench.plan import Cell, make_plan
from bench.records import Record, read_run
from bench.rules import UsageError
from bench.tasks import TASKS, make_task, task_of

CELL = Cell(3, 32, 32, "float32", "cpu", "compiled", "linspace", "odd", loss="sum-of-squares")
OLDER = Path(__file__).parents[2] / "results" / "bias_presets"


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_what_it_says(name):
    data, again, task = make_task(name), make_task(name), TASKS[name]
    assert data.checksum == again.checksum
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert x.shape == (len(y), *task.input_shape)
        assert (x.dtype, y.dtype) == ("float32", "uint8" if task.classes else "float32")
    assert not np.isin(data.x_test[:, 0], data.x_train[:, 0]).all()  # not the same points
    x, y = data.x_test.astype("float64"), data.y_test
    if name == "line":
        noise = y - (2 * x + 10)
        assert 4.9 < np.abs(noise).max() <= 5.001
        assert noise.std() == pytest.approx(5 / np.sqrt(3), rel=0.03)
    elif name == "half-plane":
        assert ((x.sum(1) > 0.5) == y).all()
        assert y.mean() == pytest.approx(7 / 8, abs=0.02)
    else:
        np.testing.assert_allclose(y, np.sin(np.pi * x), atol=1e-6)


def trained(arm: str, cell: Cell, epochs: int) -> float:
    model = CellModel(find_arm(arm), cell, prepare_data(cell.engine, make_task(cell.data)))
    return model.train(epochs, 1)["accuracies"][0]


def test_without_biases_an_odd_function_cannot_be_learnt_and_with_spread_ones_it_can():
    """The bound is 6 / pi^2 of the variance, at any depth; fixed biases of zero share it."""
    bound = 6 / np.pi**2
    assert bound - 0.1 < trained("dense-nobias", CELL, 8) < bound + 0.02
    assert bound - 0.1 < trained("fixed", replace(CELL, bias="zeros"), 8) < bound + 0.02
    assert trained("fixed", CELL, 8) > 0.95


def test_a_line_is_learnt_nearly_as_well_as_the_noise_allows():
    assert 0.99 < trained("fixed", replace(CELL, data="line"), 5) < 0.9985


@pytest.mark.parametrize("loss", task_of("half-plane").losses)
def test_a_half_plane_is_learnt_with_every_loss(loss):
    assert trained("fixed", replace(CELL, data="half-plane", loss=loss), 4) > 0.95


@pytest.mark.parametrize(
    ("data", "loss", "output"),
    [
        ("digits", "cross-entropy", "softmax"),
        ("digits", "huber", "softmax"),
        ("digits", "hinge", "linear"),
        ("odd", "huber", "linear"),
    ],
)
def test_the_output_layer_suits_targets_and_loss(data, loss, output):
    model = build_model(find_arm("fixed"), replace(CELL, data=data, loss=loss), 0)
    assert model.get_layer("output").activation is keras.activations.get(output)


# --- cells and options


def plan(*argv: str) -> list[Cell]:
    return on(["cpu"], *argv)


def on(devices: list[str], *argv: str) -> list[Cell]:
    options = parse(["--layers", "2", "--units", "8", *argv])
    return [comparison.cell for comparison in make_plan(options, devices, "mnist", None)]


def test_the_new_axes_multiply_the_grid():
    cells = plan(
        "--task", "images", "odd", "--activation", "relu", "tanh", "--norm", "none", "layer"
    )
    assert len(cells) == len({cell.key for cell in cells}) == 8
    assert {(cell.data, cell.loss) for cell in cells} == {
        ("mnist", "cross-entropy"),
        ("odd", "sum-of-squares"),
    }


def test_a_loss_named_twice_is_measured_once():
    assert len(plan("--loss", "auto", "cross-entropy")) == 1


def test_a_usual_cell_is_recorded_and_named_as_it_always_was():
    (cell,) = plan("--threads", "all")
    assert cell.key == "mnist-cpu-compiled-float32-constant-L2-U8-B32"
    assert set(cell.recorded) == set(_older_record().cell)
    (unusual,) = plan("--activation", "tanh", "--threads", "all")
    assert unusual.recorded == cell.recorded | {"activation": "tanh"}
    assert str(unusual) == f"{cell} tanh"


def test_threads_are_an_axis_of_cells_on_a_cpu():
    one, every, gpu = on(["cpu", "gpu:0"], "--threads", "1", "all")
    assert one.key == f"{every.key}-P1"
    assert str(one) == f"{every} threads=1"
    assert (one.threads, every.threads, gpu.threads) == (1, "all", "all")
    assert plan() == [one]
    assert on(["auto"])[0].threads == 1  # as `--dry-run` has it
    assert on(["cpu"], "--accuracy-only")[0].threads == "all"  # nothing is timed
    many = on(["cpu"], "--threads", "1", "all", "--batch-size", "8", "16")
    assert [cell.threads for cell in many] == [1, 1, "all", "all"]  # a worker has one number


def test_records_from_before_these_axes_are_read():
    record = _older_record()
    cell = Cell(**record.cell)
    assert (cell.activation, cell.loss, cell.norm) == ("relu", "cross-entropy", "none")
    assert cell.threads == "all"
    assert cell.key == record.key
    assert cell.recorded == record.cell


def _older_record() -> Record:
    _, (record, *_), problems = read_run(OLDER)
    assert not problems
    return record


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--activation", "swoosh"], "--activation must be among relu, tanh"),
        (["--task", "odd", "--loss", "hinge"], "--loss must be among sum-of-squares, huber for"),
        (["--task", "odd", "--loss", "cross-entropy"], "for --task odd, or auto. Received: cross"),
        (["--task", "line", "line"], "--task must not name a value twice"),
        (["--arms", "freeze-after"], "--arms: An arm must be one of dense"),
    ],
)
def test_refuses_with_a_sentence(argv, sentence):
    with pytest.raises(UsageError) as refusal:
        parse(argv)
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_all_arms_race_at_tasks_by_the_plain_engine_and_are_resumed(tmp_path):
    def grid(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bench.grid", *argv],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=280,
        )

    arms = ["dense", "fixed", "fixed-lambda", "plain", "freeze-after=1"]
    what = ["--task", "odd", "half-plane", "--engine", "plain", "--activation", "tanh"]
    small = "--layers 2 --units 8 --epochs 2 --seeds 1 --time-cap 1 --halfwidth 0.5 --device cpu"
    done = grid(*what, "--norm", "layer", "--arms", *arms, *small.split())
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "results").iterdir()
    header, records, problems = read_run(folder)
    assert not problems
    assert header.dataset["name"] == "odd"
    assert set(header.dataset) == {"name", "checksum", "half-plane"}
    assert [record.cell["data"] for record in records] == ["odd", "half-plane"]
    # Other notes are about the machine.
    assert [any("R^2" in note for note in r.notes) for r in records] == [True, False]
    for record in records:
        assert set(record.arms) == {*arms, "dense (A/A)"}
        assert all(arm["samples"] for arm in record.arms.values())
    records_before = sorted((folder / "records").iterdir())
    records_before[0].unlink()
    again = grid("--resume", str(folder))
    assert again.returncode == 0, again.stdout + again.stderr
    assert sorted((folder / "records").iterdir()) == records_before

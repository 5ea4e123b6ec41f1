"""The side-by-side: its order, its ends, its failures, with peers that pretend; then real ones."""

import dataclasses
import math
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from bench.executors import LocalExecutor
from bench.peers.__main__ import main
from bench.peers.config import parse
from bench.peers.process import RemotePeer, Task, epoch_orders, predict
from bench.peers.race import Rules, check_accuracy, out_of_tolerance, race
from bench.peers.registry import OURS, PEERS, Network, Spec
from bench.peers.report import ceiling_share, groups, judge, print_report
from bench.records import Record, read_run
from bench.rules import UsageError
from bench.verdicts import Verdict
from tests.bench.fake_peers import train_steps

TASK = Task(Network(2, 8, 32), "synthetic:600", None)
RULES = Rules(epoch_seconds=0.0, floor=0.0, halfwidth=0.05, time_cap=60.0, order_seed=0)


@pytest.fixture
def run_race(tmp_path):
    """Races peers that pretend, given by their settings."""

    def run(rules=RULES, task=TASK, **peers):
        with ExitStack() as stack:
            remote = {}
            for name, how in {OURS: {}, **peers}.items():
                spec = Spec("tests.bench.fake_peers:Fake", settings={"name": name, **how})
                remote[name] = RemotePeer(name, spec, tmp_path / "log", timeout=60)
                stack.callback(remote[name].close)
            return race(task, remote, rules)

    return run


def test_rounds_are_interleaved_across_processes_in_the_recorded_order(run_race, tmp_path):
    log = {"log": str(tmp_path / "order")}
    record = run_race(**{OURS: log, "a": log, "b": log})
    lines = [line.split() for line in (tmp_path / "order").read_text().splitlines()]
    timed = sum(map(len, record.order))
    assert [name for name, _, _ in lines[-timed:]] == [n for turn in record.order for n in turn]
    assert len({tuple(turn) for turn in record.order}) > 1
    # One at a time, never two.
    ends = [float(end) for _, _, end in lines[-timed:]]
    begins = [float(begin) for _, begin, _ in lines[-timed:]]
    assert all(end <= begin for end, begin in zip(ends, begins[1:], strict=False))


def test_stops_on_precision_and_else_at_the_cap_with_rounds_enough_for_an_interval(run_race):
    precise = run_race(a={"seconds": 0.02})
    assert (precise.stop, precise.rounds) == ("precision", 10)
    judged = judge([precise], margin=0.02)
    assert judged[precise.key, "a"].ratio.estimate == pytest.approx(2)
    late = run_race(replace(RULES, halfwidth=1e-9, time_cap=0.01), a={"noise": 0.5})
    assert (late.stop, late.rounds) == ("time", 6)
    assert late.extra["rounds_missing"] > 0


def test_a_sample_lasts_as_long_as_the_floor(run_race):
    record = run_race(replace(RULES, floor=0.05), a={"seconds": 0.02}, b={"seconds": 0.2})
    assert record.arms["a"]["launches"] >= 3
    assert record.arms["b"]["launches"] == 1
    epoch = len(epoch_orders(TASK, 600, 1)[0])
    assert record.arms["a"]["samples"][0] == pytest.approx(0.02 / epoch)


def test_what_an_epoch_costs_beside_its_steps_weighs_what_it_does_in_a_long_one(run_race):
    # Ten times as fast in a step. What an epoch costs is a fifth of one of 4,096 examples.
    task = replace(TASK, data="synthetic:60000")
    peers = {OURS: {"step": 2e-4, "call": 2e-3}, "slow": {"step": 2e-3, "call": 0.05}}
    record = run_race(replace(RULES, epoch_seconds=0.0), task, **peers)
    assert {record.arms[name]["epoch_examples"] for name in peers} == {4096}
    biased = judge([record], margin=0.02)[record.key, "slow"].ratio.estimate
    record = run_race(replace(RULES, epoch_seconds=1.0), task, **peers)
    # The fast one's epoch is shorter: it has all of the data.
    assert record.arms[OURS]["epoch_examples"] == 60000 // 32 * 32
    assert record.arms["slow"]["epoch_examples"] == pytest.approx(500 * 32 * 256 / 306, rel=0.01)
    found = judge([record], margin=0.02)[record.key, "slow"].ratio.estimate
    whole = (0.05 + 1875 * 2e-3) / (2e-3 + 1875 * 2e-4)
    assert biased > 1.09 * whole
    assert found == pytest.approx(whole, rel=0.05)


def test_a_peer_that_fails_costs_only_itself(run_race):
    record = run_race(ill={"fails": "make"}, dead={"fails": "dies"}, well={"seconds": 0.02})
    assert record.status == "ok"
    assert record.arms["ill"]["error"] == "RuntimeError: I am not well"
    assert "SIGKILL" in record.arms["dead"]["error"]
    assert [len(record.arms[n]["samples"]) for n in (OURS, "well")] == [record.rounds] * 2
    assert all(sorted(turn) == [OURS, "well"] for turn in record.order)
    assert len(record.notes) >= 2


def test_without_fit_compiled_there_is_no_comparison(run_race):
    record = run_race(**{OURS: {"fails": "make"}, "a": {}})
    assert (record.status, record.rounds) == ("failed", 0)


def test_what_is_not_installed_is_skipped_by_name(monkeypatch, capsys):
    monkeypatch.setitem(PEERS, "jax", replace(PEERS["jax"], needs=("no_such_package",)))
    assert main(["--dry-run", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "jax: skipped, not installed: no_such_package (pip install" in out
    assert "torch-graph: skipped, not for a CPU" in out
    assert "jax" not in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--peers", "jaxx"], "--peers must be among fit_compiled"),
        (["--device", "all"], "--device must be cpu, gpu, gpu:N or auto"),
        (["--units", "0"], "--units must be a positive whole number. Received: 0"),
        (["--floor", "-1"], "--floor must be zero or a positive number"),
    ],
)
def test_refuses_with_a_sentence(argv, sentence):
    with pytest.raises(UsageError) as refusal:
        parse(argv)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(("argv", "status"), [(["--help"], 0), (["--dry-run"], 0), (["-x"], 2)])
def test_answers_before_any_framework_is_imported(argv, status):
    code = (
        "import sys\nfrom bench.peers.__main__ import main\n"
        "try: status = main(sys.argv[1:])\n"
        "except SystemExit as end: status = end.code\n"
        "print(sorted({'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules)))\n"
        "sys.exit(status)"
    )
    command = [sys.executable, "-c", code, *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("examples", [1442, 60_000])
@pytest.mark.parametrize("batch_size", [1, 32, 1024])
@pytest.mark.parametrize("multiple", [1, 32])
def test_epochs_are_whole_batches_and_no_example_comes_twice(examples, batch_size, multiple):
    orders = epoch_orders(replace(TASK, network=Network(2, 8, batch_size)), examples, multiple)
    size = len(orders[0])
    assert {len(order) for order in orders} == {size}
    assert size % batch_size == 0
    assert size // batch_size % multiple == 0 or size > examples - batch_size
    assert len(np.unique(np.concatenate(orders))) == size * len(orders)


def make_record(units: int, batch_size: int, **seconds: float) -> Record:
    rng = np.random.default_rng(units)
    arms = {
        name: {"samples": list(mean * np.exp(rng.normal(0, 0.001, 40)))}
        for name, mean in {OURS: 1e-6, **seconds}.items()
    }
    cell = {"layers": 3, "units": units, "batch_size": batch_size}
    order = [list(arms)] * 40
    return Record(key=f"U{units}-B{batch_size}", cell=cell, status="ok", arms=arms, order=order)


def test_the_summary_takes_the_best_of_a_group_and_the_mean_of_logs():
    records = [
        make_record(64, 32, **{"fit": 8e-6, "fit-xla": 4e-6, "products-numpy": 5e-7}),
        make_record(128, 128, **{"fit": 9e-6, "fit-xla": 16e-6, "products-numpy": 8e-7}),
    ]
    judged = judge(records, margin=0.02)
    (group,) = groups(records, judged)
    assert group.mean() == pytest.approx(6, rel=0.01)  # sqrt(4 * 9)
    assert group.lowest == (records[0].cell, pytest.approx(4, rel=0.01))
    assert math.isnan(group.mean(lambda cell: cell["units"] == 512))
    assert [ceiling_share(r, judged) for r in records] == pytest.approx([0.5, 0.8], rel=0.01)
    assert judged[records[0].key, "fit"].verdict is Verdict.FASTER


def test_the_report_fits_80_columns_with_every_peer(capsys):
    slow = {name: 123e-6 for name in PEERS if name not in (OURS, "torch-graph")}
    records = [make_record(u, b, **slow) for b in (32, 128, 1024) for u in (64, 512)]
    print_report(records, Console(width=40), margin=0.02)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert any(line.startswith("Keras fit, 1 step ") for line in lines)
    assert sum(line.startswith("batch 1") and line.endswith("peer's") for line in lines) == 2


def test_the_report_says_when_no_verdict_was_possible(capsys):
    record = make_record(64, 32, fit=4e-6, jax=2e-6)
    arms = {name: {"samples": arm["samples"][:5]} for name, arm in record.arms.items()}
    more = {"order": record.order[:5], "extra": {"timing_seconds": 15.0}}
    record = dataclasses.replace(record, arms=arms, **more)
    print_report([record], Console(width=80), margin=0.02)
    said = "5 rounds give no verdict among 2, however clear: it takes 7, which --time-cap 21"
    assert said in capsys.readouterr().out
    print_report([make_record(64, 32, fit=4e-6, jax=2e-6)], Console(width=80), margin=0.02)
    assert "no verdict" not in capsys.readouterr().out


def test_a_peer_that_learns_otherwise_is_named():
    found = out_of_tolerance({"a": 0.97, "b": 0.971, "c": 0.95, "d": None, "e": "died"}, 10_000)
    assert list(found) == ["c"]
    assert out_of_tolerance({"a": 0.90, "b": 0.91}, 355) == {}  # four images of 355
    assert list(out_of_tolerance({"a": 0.9, "b": 0.9, "c": math.nan}, 355)) == ["c"]


def test_the_judge_of_accuracy_is_the_network():
    network = Network(3, 4, 1, inputs=3, classes=2)
    weights = network.start(0)
    weights[1][:] = 0.3
    x = np.random.default_rng(0).uniform(size=(20, 3)).astype("float32")
    hidden = x
    for kernel, bias in ((weights[0], weights[1]), (weights[2], weights[3])):
        hidden = np.clip(hidden @ kernel + bias, 0, None)
    expected = (hidden @ weights[4] + weights[5]).argmax(1)
    assert len(set(expected)) == 2
    assert predict(weights, x).tolist() == expected.tolist()
    as_bytes = (x * 255).round().astype("uint8")
    assert predict(weights, as_bytes).shape == (20,)


TRAINED = [
    name
    for name, spec in PEERS.items()
    if "cpu" in spec.devices and not name.startswith("products") and name != "fit"
]

ELSEWHERE = ("jax", "torch", "torch-compile")


@pytest.fixture(scope="module")
def keras_weights(tmp_path_factory):
    """What Keras's own `fit` makes of five steps."""
    with LocalExecutor(tmp_path_factory.mktemp("fit") / "log") as executor:
        return {
            images: executor.call(train_steps, PEERS["fit"], Network(3, 16, 8), 5, images)
            for images in ("float32", "uint8")
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_every_peer_takes_the_steps_of_keras(name, keras_weights, tmp_path):
    spec = PEERS[name]
    if spec.missing():
        pytest.skip(f"not installed: {', '.join(spec.missing())}")
    network = Network(3, 16, 8)
    with LocalExecutor(tmp_path / "log") as executor:
        for images, expected in keras_weights.items():
            found = executor.call(train_steps, spec, network, 5, images)
            for got, want, start in zip(found, expected, network.start(1), strict=True):
                assert np.abs(want - start).max() > 1e-3  # it has moved
                # Keras adds Adam's epsilon before it corrects the bias of the second moment, JAX
                # and PyTorch after it: in the first steps that shows where a gradient is tiny.
                error = np.abs(got - want)
                assert error.max() < 1e-3  # less than one step
                assert np.mean(error > 2e-5) < (0.02 if name in ELSEWHERE else 1e-9)


@pytest.mark.slow
def test_peers_reach_the_same_accuracy_and_products_none(tmp_path):
    names = [n for n in (OURS, "fit", "jax", "torch", "products-numpy") if not PEERS[n].missing()]
    task = Task(Network(2, 32, 32), "digits", None)
    with ExitStack() as stack:
        peers = {n: RemotePeer(n, PEERS[n], tmp_path / "log", timeout=120) for n in names}
        for peer in peers.values():
            stack.callback(peer.close)
        found = check_accuracy(task, peers, 3)
    assert found["products-numpy"] is None
    trained = {name: a for name, a in found.items() if name != "products-numpy"}
    assert min(trained.values()) > 0.8
    assert out_of_tolerance(found, 355) == {}


@pytest.mark.slow
def test_the_command_as_typed(tmp_path):
    argv = (
        "--layers 2 --units 8 16 --batch-size 32 --peers fit-xla-32 jax torch products-numpy "
        "--data digits --device cpu --time-cap 1 --results runs"
    )
    command = [sys.executable, "-m", "bench.peers", *argv.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = (tmp_path / "runs").iterdir()
    run, records, problems = read_run(folder)
    assert not problems
    assert [record.key for record in records] == run.plan
    assert run.argv[:3] == ["python", "-m", "bench.peers"]
    for record in records:
        for arm in record.arms.values():
            assert len(arm["samples"]) == record.rounds >= 6
            assert 0 <= arm["idle_cpu"] < 0.2
    assert set(records[0].extra["accuracies"]) == set(records[0].arms)
    assert "test accuracy after 2 epochs at T=2 units=8 batch=32" in done.stdout
    assert "geometric means over the cells" in done.stdout
    if "no figure" not in done.stdout:
        assert (folder / "peers.png").read_bytes().startswith(b"\x89PNG")

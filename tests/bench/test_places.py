"""Unlike machines in one run: told apart wherever it is shown, and never pooled."""

import copy
from dataclasses import replace

import pytest

from bench.compare import main as compare
from bench.facts import gather
from bench.families import judge_family
from bench.findings import read_findings
from bench.labels import provenance
from bench.machine import describe_machine
from bench.page import write_report
from bench.places import likeness, told_apart
from bench.records import load, read_run
from bench.sentences import headline
from bench.summary import family_sizes, record_builds, summarise
from tests.bench.conftest import make_record

HERE = describe_machine()


def at(record, host="aaaa", *, model=None, cores=(0,), gpu=None):
    """A record as a cluster's worker makes it."""
    machine = copy.deepcopy(HERE)
    if model is not None:
        machine["cpu"]["model"] = machine["id"] = model
    machine["cpu"]["usable_cores"] = len(cores)
    worker = {"host": host, "cores": list(cores), "gpu": gpu, "machine": machine}
    return replace(record, extra=record.extra | {"worker": worker})


@pytest.fixture
def two_kinds(make_run):
    """Eight cells, four on each of two unlike machines; of one host and of two."""
    records = [
        at(
            make_record(units=8 + n, seed=n, fixed=1.3 if n % 2 else 1.0),
            host=f"host{n % 4}",
            model="Slow" if n % 2 else "Fast",
        )
        for n in range(8)
    ]
    return make_run("run", records)


def test_alike_is_what_may_stand_side_by_side():
    record = make_record()
    kinds = {
        name: likeness(worker["machine"], worker)
        for name, worker in {
            "one": at(record).extra["worker"],
            "other host, other core": at(record, "bbbb", cores=(3,)).extra["worker"],
            "two cores": at(record, cores=(0, 1)).extra["worker"],
            "other CPU": at(record, model="Slow").extra["worker"],
        }.items()
    }
    assert kinds["one"] == kinds["other host, other core"]
    assert len(set(kinds.values())) == 3


def test_versions_and_flags_make_machines_unlike():
    newer, flagged = copy.deepcopy(HERE), copy.deepcopy(HERE)
    newer["versions"]["tensorflow"] = "99"
    flagged["flags"]["XLA_FLAGS"] = "--x"
    hidden = copy.deepcopy(HERE)
    hidden["flags"]["CUDA_VISIBLE_DEVICES"] = "3"
    assert len({likeness(machine) for machine in (HERE, newer, flagged)}) == 3
    assert likeness(hidden) == likeness(HERE)


def test_a_run_of_one_machine_is_as_it_was(make_run):
    run, records, _ = read_run(make_run("run", [make_record(fixed=1.0)]))
    assert told_apart(run, records) == (run, records)
    run, records, _ = read_run(make_run("cluster", [at(make_record(fixed=1.0), model="Theirs")]))
    told, same = told_apart(run, records)
    assert same == records
    assert told.machine["cpu"]["model"] == "Theirs"
    assert "Theirs, 1 cores" in provenance(told)[1]


def test_verdicts_are_a_family_for_each_machine(two_kinds):
    _, records = told_apart(*read_run(two_kinds)[:2])
    assert [record.cell["machine"] for record in records] == ["A", "B"] * 4
    rows = summarise(records, margin=0.02)
    assert family_sizes(rows) == [4, 4]
    slow = [record for record in records if record.cell["machine"] == "B"]
    alone = judge_family(
        [(r.arms["dense"]["samples"], r.arms["fixed"]["samples"]) for r in slow],
        builds=[record_builds(r) for r in slow],
    )
    said = [row.verdict for row in rows if row.arm == "fixed" and row.cell["machine"] == "B"]
    assert said == [judgement.verdict for judgement in alone]
    assert "On machine A: Speed against dense: fixed" in headline(rows)
    assert "On machine B: Speed against dense: fixed faster in 4 of 4 cells" in headline(rows)


def test_the_report_says_so(two_kinds):
    facts = gather(read_findings(two_kinds))
    assert any("Nothing is pooled over them" in text for text in facts.method)
    machines = dict(facts.machine)
    assert machines["made, machine A"] == "4 comparisons on host0, host2, each owning 1 cores"
    assert machines["CPU, machine B"].startswith("Slow")
    text = write_report(read_findings(two_kinds)).read_text()
    assert "machine A" in text
    assert "machine B" in text


def test_tables_name_host_and_machine(two_kinds):
    table = load(two_kinds)
    assert set(table["host"]) == {f"host{n}" for n in range(4)}
    assert table.groupby("host")["machine"].nunique().eq(1).all()
    assert table["machine"].nunique() == 2


def test_a_failed_comparison_is_of_no_machine(two_kinds):
    run, records, _ = read_run(two_kinds)
    lost = replace(
        records[0], status="failed", reason="its worker was lost", arms={}, order=[], extra={}
    )
    _, told = told_apart(run, [lost, *records[1:]])
    assert "machine" not in told[0].cell


def test_what_was_measured_here_and_there_is_told_apart(two_kinds):
    run, records, _ = read_run(two_kinds)
    here = replace(records[0], extra={})
    _, told = told_apart(run, [here, at(make_record(units=99), model="Theirs")])
    assert [record.cell["machine"] for record in told] == ["A", "B"]


def test_compare_names_all_machines(two_kinds, make_run, capsys):
    other = make_run("other", [make_record(units=8 + n, fixed=1.0) for n in range(2)])
    assert compare([str(two_kinds), str(other)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "different machines (Fast, Slow and " in said


def test_how_many_threads_cells_on_a_cpu_had_is_said(make_run):
    run, _, _ = read_run(make_run("run", [make_record(fixed=1.0)]))
    key = run.plan[0]

    def said(*plan):
        return provenance(replace(run, plan=list(plan)))[1]

    assert "thread" not in said(key)
    assert said(f"{key}-P1").endswith(" cores, CPU cells on 1 thread")
    assert said(f"{key}-P16", key, f"{key}-P2").endswith("16 threads or 2 threads or all threads")
    assert "thread" not in said(f"{key}-P1".replace("-cpu-", "-gpu=0-"))

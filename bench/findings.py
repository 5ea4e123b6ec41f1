"""A run as those who show it need it: read once, unlike machines told apart, summed up."""

from dataclasses import dataclass
from pathlib import Path

from bench.places import told_apart
from bench.records import BadRecord, Record, Run, read_run
from bench.summary import Row, summarise, target_accuracy

PANELS = 48
"""That a figure of the report has at most: four pages of maps or curves. Of what is drawn in lines,
so many cells.
"""


@dataclass(frozen=True)
class Findings:
    """What a run found.

    Args:
        folder: Of the run.
        run: Its header.
        records: In the order of the plan.
        problems: Files that are no records.
        rows: What the records say, from `summarise`.
        margin: Practical margin of the verdicts.
        target: Test accuracy whose time to reach is told, where there is one.
    """

    folder: Path
    run: Run
    records: list[Record]
    problems: list[BadRecord]
    rows: list[Row]
    margin: float
    target: float | None

    @property
    def failed(self) -> int:
        """How many comparisons failed as a whole."""
        return sum(record.status == "failed" for record in self.records)


def read_findings(folder: Path) -> Findings:
    """Reads a run and sums it up by the options that it was started with.

    Raises:
        BadRecord, OSError: The run's header, or the folder of records, cannot be read.
    """
    run, records, problems = read_run(folder)
    run, records = told_apart(run, records)
    margin, asked = run.options.get("margin", 0.02), run.options.get("target")
    rows = summarise(records, margin=margin, target=asked)
    target = target_accuracy(run.dataset["name"], asked)
    return Findings(folder, run, records, problems, rows, margin, target)

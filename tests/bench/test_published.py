"""What is published in results/ is what the records there say today."""

import shutil
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from bench.report import main

BASELINE = Path(__file__).parents[2] / "results" / "baseline"
MADE = ("report.html", "report.md", "numbers.csv", "figures/*.png", "board/**/events.*")


def test_texts_numbers_and_tensorboard_files_are_what_the_records_give(tmp_path):
    again = tmp_path / "baseline"
    shutil.copytree(BASELINE, again)
    for path in made(again):
        path.unlink()
    assert main([str(again)]) == 0
    assert made(again) == {again / path.relative_to(BASELINE) for path in made(BASELINE)}
    for path in made(BASELINE):
        # Pictures, in the page too, have other bytes where other fonts are installed.
        if path.suffix not in (".png", ".html"):
            name = path.relative_to(BASELINE)
            assert content(again / name) == content(path), name


def content(path: Path) -> Any:
    if not path.name.startswith("events."):
        return path.read_bytes()
    events = list(EventFileLoader(str(path)).Load())
    values = [value for event in events for value in event.summary.value]
    return [value for value in values if value.metadata.plugin_data.plugin_name != "images"]


def made(folder: Path) -> set[Path]:
    return {path for pattern in MADE for path in folder.glob(pattern)}

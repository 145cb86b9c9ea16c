"""Lists of runs cost as much as there are runs, and not as much as all pairs of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pog.ledger import Ledger
from pog.reader import Reader
from runloop.events import Draft
from tests.long_runs import drafts

STEP = 100
"""Instructions of SQLite's machine that are counted as one."""
ASKED: dict[str, tuple[Callable[[Reader], Any], int]] = {
    "runs": (lambda reader: reader.runs(50), 2),
    "runs by somebody": (lambda reader: reader.runs_by("daemon", 50), 2),
    "runs inside": (lambda reader: reader.runs_inside("none"), 12),
    "unfinished runs": (Reader.unfinished_runs, 12),
}
"""What is asked, and how many times the work ten times as many runs may be: the newest fifty stay fifty."""


def ledger_of(path: Path, runs: int) -> Path:
    """A ledger of short runs, the newest of which goes on."""
    with Ledger.open(path, synchronous="NORMAL") as ledger:
        made: list[Draft] = []
        for number in range(runs):
            run = str(uuid.UUID(int=number + 1))
            made += drafts(12, nodes=1, run=run, finished=number < runs - 1)
        ledger.append(made)
    return path


def work(reader: Reader, asked: Callable[[Reader], Any]) -> int:
    """How many times ``STEP`` instructions were needed."""
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    reader._connection.set_progress_handler(count, STEP)
    asked(reader)
    return counted


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("many")
    return ledger_of(folder / "few.db", 80), ledger_of(folder / "many.db", 800)


@pytest.mark.requirement("S5")
@pytest.mark.parametrize("what", ASKED)
def test_ten_times_the_runs_are_no_more_than_ten_times_the_work(
    ledgers: tuple[Path, Path], what: str
) -> None:
    asked, times = ASKED[what]
    with Reader(ledgers[0]) as few, Reader(ledgers[1]) as many:
        assert work(many, asked) <= times * max(1, work(few, asked))


def test_the_newest_come_first_each_with_its_end(ledgers: tuple[Path, Path]) -> None:
    with Reader(ledgers[0]) as reader:
        found = reader.runs(3)
        assert [row["run"] for row in found] == [str(uuid.UUID(int=80 - at)) for at in range(3)]
        assert [row["state"] for row in found] == ["running", "succeeded", "succeeded"]
        assert reader.unfinished_runs() == [found[0]["run"]]
        assert reader.runs_by("daemon", 3) == found
        assert reader.runs_by("nobody", 3) == []

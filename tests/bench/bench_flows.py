"""Our engine beside LangGraph and DBOS: the same graph of steps that do nothing, over SQLite, in one run.

    python -m tests.bench flows [--nodes 100,500] [--rounds 5] [--dir /var/tmp]

Steps per second of a chain (one after another) and of a wide graph (one, then all side by side, then one).
What is recorded before a step counts as done differs, and is in the table: ours writes two facts a step, each
chained to the one before and folded into the views; DBOS a row a step; LangGraph a checkpoint a superstep, so
that a wide graph has three of them however wide it is, and a crash in the middle one repeats its steps.
``full``: each commit waits for the disk. LangGraph's file is a write-ahead log from the start, DBOS's a
rollback journal: the row ``wal`` shows it with a write-ahead log, too.

Each row is a fresh process and a fresh file; rows take turns; each round measures every row.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.load.build import Unavailable, peers_python
from tests.bench.load.tables import ratio, spread, table

HERE = Path(__file__).parent / "flows"
SHAPES = ("chain", "wide")


@dataclass(frozen=True, slots=True)
class Row:
    """One way to run the graph."""

    name: str
    argv: tuple[str, ...]
    setting: str
    beside: str | None = None
    """Row of ours that it is compared with."""


def rows(theirs: Path) -> list[Row]:
    """Ours at both durabilities, the others at theirs."""
    ours = (sys.executable, "-m", "tests.bench.flows.our_flow")
    graph = (os.fspath(theirs), os.fspath(HERE / "langgraph_flow.py"))
    dbos = (os.fspath(theirs), os.fspath(HERE / "dbos_flow.py"))
    return [
        Row("ours, full", ours, "full"),
        Row("LangGraph, full", graph, "full", "ours, full"),
        Row("DBOS, as shipped", dbos, "shipped", "ours, full"),
        Row("DBOS, wal", dbos, "wal", "ours, full"),
        Row("ours, normal", ours, "normal"),
        Row("LangGraph, normal", graph, "normal", "ours, normal"),
    ]


def measure(row: Row, shape: str, nodes: int, below: Path | None) -> dict[str, Any]:
    """One run in a folder of its own; it must have done every step."""
    with tempfile.TemporaryDirectory(prefix="flow-", dir=below) as folder:
        done = subprocess.run(
            [*row.argv, shape, str(nodes), folder, row.setting],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
    if done.returncode:
        raise SystemExit(f"{row.name} failed: {done.stderr.strip()[-600:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if found["done"] != nodes:
        raise SystemExit(f"{row.name} did {found['done']} steps of {nodes}")
    return found


def main() -> int:
    asked = argparse.ArgumentParser(prog="tests.bench flows")
    asked.add_argument("--nodes", default="100,500")
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--dir", type=Path, default=None, help="where the files lie; a disk, not a tmpfs")
    options = asked.parse_args()
    try:
        theirs = peers_python(HERE / "requirements.txt")
    except Unavailable as error:
        print(f"flows: {error}", file=sys.stderr)
        return 1
    for nodes in map(int, options.nodes.split(",")):
        for shape in SHAPES:
            _compare(rows(theirs), shape, nodes, options.rounds, options.dir)
    return 0


def _compare(all_rows: list[Row], shape: str, nodes: int, rounds: int, below: Path | None) -> None:
    rates: dict[str, list[float]] = {row.name: [] for row in all_rows}
    last: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for row in all_rows:
            last[row.name] = measure(row, shape, nodes, below)
            rates[row.name].append(nodes / last[row.name]["seconds"])
    lines = []
    for row in all_rows:
        found = last[row.name]
        beside = "" if row.beside is None else spread(ratio(rates[row.beside], rates[row.name]))
        lines.append([row.name, spread(rates[row.name]), beside, str(found["records"]), found["journal"]])
    print(f"\n{shape}, {nodes} steps, {rounds} rounds")
    print(table(["", "steps/s", "ours / it", "records", "journal"], lines), flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""DBOS: ``dbos_flow.py chain|wide NODES FOLDER shipped|wal`` prints one JSON line.

A workflow of asynchronous steps on its SQLite system database: a step's output is in the file before the step
is over. ``shipped`` leaves the file's journal as DBOS makes it; ``wal`` makes it a write-ahead log first.
Runs under an interpreter that has it, with none of our packages.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from pathlib import Path

from dbos import DBOS


@DBOS.step()
async def step(value: int) -> int:
    return value + 1


@DBOS.workflow()
async def chain(nodes: int) -> int:
    value = 0
    for _ in range(nodes):
        value = await step(value)
    return value


@DBOS.workflow()
async def wide(nodes: int) -> int:
    first = await step(0)
    middle = await asyncio.gather(*(step(first) for _ in range(nodes - 2)))
    return await step(1 + len(middle))


async def measure(shape: str, nodes: int) -> tuple[float, int]:
    workflow = {"chain": chain, "wide": wide}[shape]
    await workflow(5)
    begun = time.perf_counter()
    done = await workflow(nodes)
    return time.perf_counter() - begun, done


def main(shape: str, nodes: int, folder: Path, journal: str) -> None:
    path = folder / "dbos.sqlite"
    if journal == "wal":
        with sqlite3.connect(path) as file:  # kept in the file, whoever opens it next
            file.execute("PRAGMA journal_mode=wal")
    DBOS(
        config={
            "name": "flow",
            "system_database_url": f"sqlite:///{path}",
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    with sqlite3.connect(path) as file:
        mode = file.execute("PRAGMA journal_mode").fetchone()[0]
    seconds, done = asyncio.run(measure(shape, nodes))
    with sqlite3.connect(path) as file:
        steps = file.execute("SELECT count(*) FROM operation_outputs").fetchone()[0] - 5
    print(json.dumps({"seconds": seconds, "done": done, "records": steps, "journal": mode, "synchronous": 2}))
    DBOS.destroy()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])

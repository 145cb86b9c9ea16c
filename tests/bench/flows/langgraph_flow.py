"""LangGraph: ``langgraph_flow.py chain|wide NODES FOLDER full|normal`` prints one JSON line.

Its SQLite checkpointer, ``durability="sync"``: a superstep's state is in the file before the next begins.
Runs under an interpreter that has it, with none of our packages.
"""

from __future__ import annotations

import json
import operator
import sqlite3
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    done: Annotated[int, operator.add]


def step(state: State) -> dict[str, int]:
    return {"done": 1}


def graph(shape: str, nodes: int) -> Any:
    made = StateGraph(State)
    names = [f"n{index}" for index in range(nodes)]
    for name in names:
        made.add_node(name, step)
    made.add_edge(START, names[0])
    if shape == "chain":
        for before, after in pairwise(names):
            made.add_edge(before, after)
    else:
        for name in names[1:-1]:
            made.add_edge(names[0], name)
        made.add_edge(names[1:-1], names[-1])
    made.add_edge(names[-1], END)
    return made


def main(shape: str, nodes: int, folder: Path, durability: str) -> None:
    file = sqlite3.connect(folder / "checkpoints.db", check_same_thread=False)
    file.execute(f"PRAGMA synchronous={durability}")
    saver = SqliteSaver(file)
    runs = {size: graph(shape, size).compile(checkpointer=saver) for size in (5, nodes)}

    def run(size: int, thread: str) -> int:
        where = {"configurable": {"thread_id": thread}, "recursion_limit": size + 10}
        return int(runs[size].invoke({"done": 0}, where, durability="sync")["done"])

    run(5, "warm")
    begun = time.perf_counter()
    done = run(nodes, "measured")
    seconds = time.perf_counter() - begun
    commits = file.execute("SELECT count(*) FROM checkpoints WHERE thread_id = 'measured'").fetchone()[0]
    print(
        json.dumps(
            {
                "seconds": seconds,
                "done": done,
                "records": commits,
                "journal": file.execute("PRAGMA journal_mode").fetchone()[0],
                "synchronous": file.execute("PRAGMA synchronous").fetchone()[0],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])

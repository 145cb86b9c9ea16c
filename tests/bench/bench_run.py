"""Whole commands, as a user waits for them: a warm compose_email without the human, help, why.

``compose_email`` is timed inside the ledger: from ``run.started`` to the question put to the person, and
from the approval to ``run.finished`` with no undo window. The reference of the start-up times is the bare
interpreter, run in turn in the same loop.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.home import BIN, Home, wait_until

RUNS = 9


def line(name: str, values: Sequence[float], unit: str = "ms") -> None:
    """One figure: median, then the spread."""
    print(
        f"{name:<46} p50 {statistics.median(values):8.1f} {unit}   "
        f"(min {min(values):.1f}, max {max(values):.1f}, n {len(values)})"
    )


def runs(home: Home) -> None:
    """Time whole runs on a daemon that is warm."""
    home.play().check(5)
    asked, done = [], []
    for index in range(RUNS):
        if index:
            flags = ["-p", "recipient=john", "-p", "topic=Q4 plan", "--no-input"]
            home.rlp("run", "compose_email", *flags).check(5)
        (waiting,) = home.rlp("approvals", "--json").check().ndjson
        home.rlp("approve", str(waiting["approval"])).check()
        wait_until(lambda count=index + 1: len(home.events("run.finished")) == count, "the run to finish")
    starts = {e.run: e.ts_ms for e in home.events("run.started")}
    questions = {e.run: e.ts_ms for e in home.events("action.requested")}
    decisions = {e.run: e.ts_ms for e in home.events("action.decided")}
    ends = {e.run: e.ts_ms for e in home.events("run.finished")}
    for run in list(starts)[1:]:  # the first one warmed up
        asked.append(float(questions[run] - starts[run]))
        done.append(float(questions[run] - starts[run] + ends[run] - decisions[run]))
    line("compose_email, start to the question", asked)
    line("compose_email, whole, without the human", done)


def startup(home: Home) -> None:
    """Time commands as whole processes, each next to the bare interpreter."""
    commands = {
        "python -c pass (reference)": [sys.executable, "-c", "pass"],
        "rlp --help": [str(BIN / "rlp"), "--help"],
        'rlp why "<prompt>"': [str(BIN / "rlp"), "why", "write a mail to john about the plan"],
        "rlp runs": [str(BIN / "rlp"), "runs"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(RUNS + 1):
        for name, command in commands.items():
            begin = time.perf_counter()
            subprocess.run(command, env=home.env, check=True, capture_output=True)
            taken[name].append((time.perf_counter() - begin) * 1000)
    reference = taken["python -c pass (reference)"][1:]
    for name, values in taken.items():
        line(name, values[1:])
        if values[1:] != reference:
            ratios = [a / b for a, b in zip(values[1:], reference, strict=True)]
            line("    ratio to the reference", ratios, "x ")


def main() -> int:
    """Run both and print."""
    with tempfile.TemporaryDirectory(prefix="b") as folder, Home(Path(folder)) as home:
        home.rlp("daemon", "start", timeout=300).check()
        wait_until(home.agents_ready, "the agents to be compiled")
        runs(home)
        startup(home)
    return 0


if __name__ == "__main__":
    sys.exit(main())

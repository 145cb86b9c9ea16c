"""``python -m tests.mutants [--only WORD] [--lanes N] [--table FILE]``: is every guard guarded?

First the named tests must pass as they are. Then each guard in turn is taken out of a private copy and its
tests must fail. Exit 0 when every guard was noticed, 1 otherwise. ``--only``: guards whose name or row
contains the word. ``--lanes``: copies at work side by side. ``--table``: write the results as Markdown there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.guards import GUARDS, Guard
from tests.mutants.trial import Copy, Result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="guards whose name or row contains this")
    parser.add_argument("--lanes", type=int, default=2, help="copies at work side by side; otherwise 2")
    parser.add_argument("--table", type=Path, help="write the results as Markdown here")
    wish = parser.parse_args()
    guards = [guard for guard in GUARDS if wish.only in f"{guard.row} {guard.name}"]
    if not guards:
        print(f"mutants: no guard's name contains {wish.only!r}", file=sys.stderr)
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants") as place:
        lanes = [Copy(Path(place, str(lane))) for lane in range(max(1, wish.lanes))]
        if not _good_as_they_are(lanes[0], guards):
            return 1
        results = _all(lanes, guards)
    seconds = time.monotonic() - began
    if wish.table is not None:
        wish.table.write_text(table(results, seconds), encoding="utf-8")
    bad = [result for result in results if not result.good]
    print(
        f"mutants: {len(results)} guards, {len(results) - len(bad)} noticed, {len(bad)} not; {seconds:.0f} s"
    )
    return 1 if bad else 0


def _good_as_they_are(copy: Copy, guards: Sequence[Guard]) -> bool:
    """A test that fails anyway notices nothing."""
    tests = sorted({test for guard in guards for test in guard.tests})
    code, said = copy.run(tests)
    if code != 0:
        print(f"mutants: the tests fail as they are\n{said[-3_000:]}", file=sys.stderr)
    return code == 0


def _all(lanes: Sequence[Copy], guards: Sequence[Guard]) -> list[Result]:
    free: SimpleQueue[Copy] = SimpleQueue()
    for lane in lanes:
        free.put(lane)
    told = count(1)

    def one(guard: Guard) -> Result:
        copy = free.get()
        try:
            result = copy.without(guard)
        finally:
            free.put(copy)
        print(
            f"{next(told):3}/{len(guards)} {result.verdict:8} {result.seconds:4.0f} s  {guard.row:3} "
            f"{guard.name}  {result.by}",
            flush=True,
        )
        return result

    with ThreadPoolExecutor(len(lanes)) as pool:
        return list(pool.map(one, guards))


def table(results: Sequence[Result], seconds: float) -> str:
    """The results as a Markdown table; what a person wrote above it stays in docs/internals/mutation.md."""
    good = sum(result.good for result in results)
    rows = [
        f"{len(results)} guards, {good} noticed, {len(results) - good} not; {seconds / 60:.0f} min.\n",
        "| row | guard | what goes red |",
        "|---|---|---|",
    ]
    for result in results:
        text = result.guard.name.replace("|", "\\|")
        rows.append(f"| {result.guard.row} | `{text}` | {result.verdict}: `{result.by}` |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())

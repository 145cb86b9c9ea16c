"""Where prompts go: precision and recall for each class, the time of a decision, and every mistake.

    .venv/bin/python -m tests.bench router [--rounds 5] [--calls 30] [--quiet]

First the part of the corpus that nothing was tuned on, then the whole. Times are of this process: a decision
with all openings of the examples installed. Then ``rlp route`` as a process, in turns with a Python that does
nothing: the second number is what the first stands on.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from openings.deny import denied
from openings.router import MAX_PROMPT, route
from tests.router.corpus import KINDS, Case, cases, judged, openings


def accuracy(title: str, chosen: list[Case], *, quiet: bool) -> None:
    """One block: a line for each class, then what went wrong."""
    found = judged(chosen)
    counted = Counter(case.kind for case in chosen)
    print(f"{title}: {len(chosen)} lines, {found.right:.1%} right")
    for kind in KINDS:
        print(
            f"  {kind:<8} {counted[kind]:>4} lines   precision {found.precision[kind]:6.1%}"
            f"   recall {found.recall[kind]:6.1%}"
        )
    confused = Counter((case.kind, route_.kind) for case, route_ in found.wrong)
    for (meant, said), count in confused.most_common():
        print(f"  {meant} taken for {said}: {count}")
    if not quiet:
        for case, route_ in found.wrong:
            print(f"    {case.kind} -> {route_.kind} ({route_.rule}): {case.line[:70]!r}")


def quantiles(times: Sequence[float]) -> str:
    """p50 and p99 of milliseconds."""
    ordered = sorted(times)
    return f"p50 {statistics.median(ordered):.3f} ms   p99 {ordered[int(len(ordered) * 0.99)]:.3f} ms"


def decisions(rounds: int) -> None:
    """Times of decisions, those over what is looked at as a line apart."""
    installed = openings()
    short: list[float] = []
    deny: list[float] = []
    for _ in range(rounds):
        for case in cases():
            if len(case.line) > MAX_PROMPT:
                continue
            began = time.process_time_ns()
            denied(case.line)
            middle = time.process_time_ns()
            route(case.line, installed)
            deny.append((middle - began) / 1e6)
            short.append((time.process_time_ns() - middle) / 1e6)
    print(f"a decision, {len(installed)} openings installed   {quantiles(short)}   (CPU)")
    print(f"  of it, the deny list                  {quantiles(deny)}")
    print(f"  over 5 ms: {sum(took > 5 for took in short) / len(short):.2%} of decisions")


def processes(calls: int) -> None:
    """``rlp route`` as a shell calls it, in turns with an empty Python."""
    program = Path(sys.executable).parent / "rlp"
    took: dict[str, list[float]] = {"rlp route": [], "python -c pass": []}
    commands = {"rlp route": [str(program), "route", "-"], "python -c pass": [sys.executable, "-c", "pass"]}
    with tempfile.TemporaryDirectory() as home:
        for number in range(calls + 2):
            for name, command in commands.items():
                began = time.perf_counter_ns()
                subprocess.run(
                    command, input=b"find the mail from john", capture_output=True, check=False,
                    env={"RUNLOOP_HOME": home, "HOME": home, "PATH": "/usr/bin:/bin"},
                )  # fmt: skip
                if number >= 2:  # the first ones read the openings and the byte code
                    took[name].append((time.perf_counter_ns() - began) / 1e6)
    for name, times in took.items():
        slow = sorted(times)[int(calls * 0.9)]
        print(f"process: {name:<15} p50 {statistics.median(times):.0f} ms   p90 {slow:.0f} ms")
    print(f"  ratio {statistics.median(took['rlp route']) / statistics.median(took['python -c pass']):.1f}")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench router")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args(argv)
    accuracy("held out", [case for case in cases() if case.held], quiet=options.quiet)
    accuracy("whole corpus", list(cases()), quiet=options.quiet)
    decisions(options.rounds)
    processes(options.calls)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

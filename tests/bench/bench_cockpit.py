"""The cockpit: how soon a long run is seen, how it holds under a flood of facts, how soon a moment is there.

    .venv/bin/python -m tests.bench.bench_cockpit [--events 100000] [--seconds 10] [--rate 10000] [--only
    open]

``open``: from the start of the program to the first paint, and to the newest fact of a run of so many facts,
in a terminal of 120 columns and 40 rows. ``burst``: another process writes facts at that rate while keys are
pressed; the time from a key to what it draws, and the memory before and after. ``scrub``: any moment of the
run, the fold alone and with a pane drawn. ``million`` (only when named): a ledger of a million facts, of one
run and of two thousand. ``idle``: processor time while nothing happens. ``peers``: time to
the first paint beside ``htop``, ``btop`` and ``posting``, where they are installed. Everything but ``scrub``
runs the program as people do, behind a pseudo-terminal.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import pty
import random
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from agtop.app import CockpitApp
from agtop.feed.record import Record
from agtop.feed.twin import TwinFeed
from agtop.model.facts import Fact
from agtop.model.timeline import Timeline
from pog.ledger import Ledger
from tests.long_runs import RUN, drafts

ROWS, COLUMNS = 40, 120
AGTOP = [sys.executable, "-m", "agtop"]
PEERS = (["htop"], ["btop"], ["posting"])
PATIENCE_S = 120.0
IN_FRONT = rb"\x1b\[1;7;[0-9;]*m"
"""The name of the pane in front is bold and reversed."""


class Terminal:
    """A program behind a pseudo-terminal: what it wrote, and keys."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.began = time.perf_counter()
        self.pid, self._fd = pty.fork()
        if not self.pid:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
            os.execvp(argv[0], list(argv))
        size = struct.pack("HHHH", ROWS, COLUMNS, 0, 0)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, size)
        self.written = bytearray()

    def read(self, wait_s: float) -> bool:
        """Take in what was written meanwhile; False when nothing was."""
        ready, _, _ = select.select([self._fd], [], [], wait_s)
        if not ready:
            return False
        try:
            self.written += os.read(self._fd, 1 << 20)
        except OSError:
            return False
        return True

    def until(self, what: bytes, *, after: int = 0) -> float:
        """Seconds since the start at which ``what``, a regular expression, was on the screen."""
        deadline = time.perf_counter() + PATIENCE_S
        while re.search(what, self.written[after:]) is None:
            if time.perf_counter() > deadline:
                raise SystemExit(f"{what!r} never came; the last of it: {bytes(self.written[-400:])!r}")
            self.read(0.05)
        return time.perf_counter() - self.began

    def key(self, key: bytes, drawn: bytes) -> float:
        """Seconds from a key to what it draws."""
        while self.read(0.0):
            pass
        after, began = len(self.written), time.perf_counter()
        os.write(self._fd, key)
        self.until(drawn, after=after)
        return time.perf_counter() - began

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)


@contextlib.contextmanager
def terminal(argv: Sequence[str]) -> Iterator[Terminal]:
    made = Terminal(argv)
    try:
        yield made
    finally:
        made.close()


def ledger_of(path: Path, events: int, *, finished: bool = True) -> Path:
    with Ledger.open(path, synchronous="NORMAL") as ledger:
        made = list(drafts(events, finished=finished))
        for start in range(0, len(made), 2_000):
            ledger.append(made[start : start + 2_000])
    return path


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def row(what: str, *figures: str) -> None:
    print(f"{what:<34} {'   '.join(figures)}", flush=True)


# --- what is measured -------------------------------------------------------------------------------


def bench_open(folder: Path, events: int, rounds: int) -> None:
    path = ledger_of(folder / "events.db", events)
    painted, whole, cost = [], [], []
    for _ in range(rounds):
        with terminal([*AGTOP, "--ledger", str(path)]) as term:
            painted.append(term.until(b"1 Plan"))
            whole.append(term.until(b" end "))
            cost.append(term.cpu_s())
    row(f"open {events} facts, first paint", f"{min(painted):.2f} s best, {max(painted):.2f} s worst")
    row("  the newest of them is seen", f"{min(whole):.2f} s best, {max(whole):.2f} s worst")
    row(
        "  of that behind the first paint", f"{min(b - a for a, b in zip(painted, whole, strict=True)):.2f} s"
    )
    row("  processor until then", f"{min(cost):.2f} s best")


def bench_burst(folder: Path, rate: int, seconds: int) -> None:
    path = ledger_of(folder / "burst.db", 1_000, finished=False)
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), str(rate), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    taken: list[float] = []
    with terminal([*AGTOP, "--ledger", str(path)]) as term:
        term.until(b"1 Plan")
        term.until(b"follows")
        before = term.rss_mib()
        while writer.poll() is None:
            taken.append(term.key(b"2", IN_FRONT + b" 2 Log"))
            taken.append(term.key(b"1", IN_FRONT + b" 1 Plan"))
            time.sleep(0.05)  # or we would be what keeps it busy
        said = writer.stdout.read().split()
        if writer.returncode or not taken:
            raise SystemExit("the writer of the burst failed")
        after = term.rss_mib()
    row(
        f"burst of {said[-1] if said else rate} facts/s, {seconds} s",
        f"key to screen p50 {percentile(taken, 0.5) * 1e3:.0f} ms",
        f"p99 {percentile(taken, 0.99) * 1e3:.0f} ms of {len(taken)}",
        f"memory {before:.0f} to {after:.0f} MiB",
    )


_WRITER = """
import itertools, sys, time
from pog.ledger import Ledger
from tests.long_runs import drafts, RUN
path, rate, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
made = list(drafts(rate * seconds, finished=False))[1:]
with Ledger.open(path, synchronous="NORMAL") as ledger:
    print("ready", flush=True)
    began = time.monotonic()
    step = max(1, rate // 50)
    for number, start in enumerate(range(0, len(made), step)):
        ledger.append(made[start:start + step])
        time.sleep(max(0.0, began + number / 50 - time.monotonic()))
    print(int(len(made) / (time.monotonic() - began)))
"""


async def bench_scrub(events: int) -> None:
    made = [
        Fact(number, 1_000 + number, each.actor, each.payload.kind, each.run, each.payload, each.provenance)
        for number, each in enumerate(drafts(events), 1)
    ]
    rng = random.Random(7)
    with tempfile.TemporaryDirectory() as place:
        record = Record(ledger_of(Path(place) / "scrub.db", events))
        for kept in (True, False):
            line = Timeline(RUN, again=None if kept else partial(record.again, RUN))
            _take_in(record, line)
            _scrub_alone(line, rng, "kept in memory" if kept else "had again from the ledger")
        record.close()
    app = CockpitApp(TwinFeed(made))
    async with app.run_test(size=(COLUMNS, ROWS)) as pilot:
        while app.view().total < events:
            await asyncio.sleep(0.02)
        for key, pane in (("1", "plan"), ("2", "log")):
            await pilot.press(key)
            taken = []
            for _ in range(100):
                began = time.perf_counter()
                app.watch_.go(rng.randrange(events + 1))
                app._draw()
                app.screen._compositor.render_strips()
                taken.append(time.perf_counter() - began)
                await asyncio.sleep(0)
            row(
                f"scrub with {pane} drawn",
                f"p50 {percentile(taken, 0.5) * 1e3:.1f} ms   p99 {percentile(taken, 0.99) * 1e3:.1f} ms",
            )


def _take_in(record: Record, line: Timeline) -> None:
    while facts := record.facts(RUN, line.last_id, 4_000):
        line.extend(facts)


def _scrub_alone(line: Timeline, rng: random.Random, how: str) -> None:
    taken = []
    for _ in range(400):
        place = rng.randrange(len(line) + 1)
        began = time.perf_counter()
        line.at(place)
        taken.append(time.perf_counter() - began)
    row(
        f"scrub, facts {how}, fold alone",
        f"p50 {percentile(taken, 0.5) * 1e3:.1f} ms   p99 {percentile(taken, 0.99) * 1e3:.1f} ms",
        f"{line.held} facts held",
    )


def bench_million(folder: Path, events: int) -> None:
    """One run of so many facts, and as many runs of five hundred each as make up that number."""
    one = ledger_of(folder / "one.db", events)
    with terminal([*AGTOP, "--ledger", str(one)]) as term:
        painted = term.until(b"1 Plan")
        busy = [
            term.key(key, IN_FRONT + drawn) for key, drawn in ((b"2", b" 2 Log"), (b"1", b" 1 Plan")) * 10
        ]
        whole = term.until(b" end ")
        jumps = []
        for _ in range(10):
            jumps += [term.key(b"<", rb"paused"), term.key(b">", rb" end ")]
        row(f"one run of {events} facts", f"first paint {painted:.2f} s", f"the newest is seen {whole:.2f} s")
        row("  keys while it is read", f"worst {max(busy) * 1e3:.0f} ms of {len(busy)}")
        row("  to its beginning and its end", f"worst {max(jumps) * 1e3:.0f} ms of {len(jumps)}")
        row("  cost", f"{term.cpu_s():.2f} s of processor", f"{term.rss_mib():.0f} MiB resident")
    many = folder / "many.db"
    with Ledger.open(many, synchronous="NORMAL") as ledger:
        for number in range(events // 500):
            ledger.append(list(drafts(500, nodes=20, run=str(uuid.UUID(int=(1 << 100) + number)))))
    with terminal([*AGTOP, "--ledger", str(many)]) as term:
        painted, whole = term.until(b"1 Plan"), term.until(b" end ")
        row(f"{events // 500} runs", f"first paint {painted:.2f} s", f"the newest is seen {whole:.2f} s")
        row("  cost", f"{term.cpu_s():.2f} s of processor", f"{term.rss_mib():.0f} MiB resident")


def bench_idle(folder: Path, seconds: int) -> None:
    path = ledger_of(folder / "idle.db", 2_000)
    with terminal([*AGTOP, "--ledger", str(path)]) as term:
        term.until(b" end ")
        settle = time.monotonic() + 2
        while time.monotonic() < settle:
            term.read(0.1)
        before, written = term.cpu_s(), len(term.written)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            term.read(0.2)
        row(
            f"idle for {seconds} s",
            f"{(term.cpu_s() - before) / seconds * 100:.2f} % of a core",
            f"{len(term.written) - written} bytes drawn",
        )


def bench_peers(folder: Path, rounds: int) -> None:
    path = ledger_of(folder / "peers.db", 2_000)
    for argv in ([*AGTOP, "--ledger", str(path)], *PEERS):
        name = "agtop" if argv[0] == sys.executable else argv[0]
        if shutil.which(argv[0]) is None:
            row(f"first paint, {name}", "not installed here")
            continue
        taken = []
        for _ in range(rounds):
            with terminal(argv) as term:
                while len(term.written) < 2_000 and term.read(5.0):
                    pass
                taken.append(time.perf_counter() - term.began)
        row(f"first paint (2 kB drawn), {name}", f"{min(taken):.2f} s best of {rounds}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--million", type=int, default=1_000_000, help="facts of 'million'")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=["open", "burst", "scrub", "idle", "peers"])
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if "open" in words.only:
            bench_open(folder, words.events, words.rounds)
        if "burst" in words.only:
            bench_burst(folder, words.rate, words.seconds)
        if "scrub" in words.only:
            asyncio.run(bench_scrub(words.events))
        if "million" in words.only:
            bench_million(folder, words.million)
        if "idle" in words.only:
            bench_idle(folder, words.seconds)
        if "peers" in words.only:
            bench_peers(folder, words.rounds)


if __name__ == "__main__":
    main()

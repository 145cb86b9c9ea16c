"""Replays under changed surroundings: time zone, language, hash seed, processors, allocator; all identical?

    python -m tests.bench replays [--count 1000] [--per-daemon 25]

Real runs are recorded once, in one daemon with everything as it comes. Then daemon after daemon is started on
that home, each in another environment, and each replays all of them over and over, and walks the golden
histories once in a process of that same environment; so what is changed reaches the daemon, its workers and
everything they start. A replay counts when it is identical *and* its report is byte for byte that of the
first. Prints count, identical and seconds; exits 1 when one differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runloop.digest import digest
from tests.bench.bench_replay import connected, install
from tests.home import ROOT, Home, wait_until

REPLAY_S = 600.0
ZONES = ("UTC", "Pacific/Kiritimati", "America/St_Johns", "Asia/Kathmandu", "Pacific/Pago_Pago")
LANGUAGES = ("C", "C.UTF-8", "POSIX", "en_US.UTF-8", "tr_TR.UTF-8", "de_DE@euro", "ja_JP.eucJP", "nonsense")
SEEDS = ("0", "1", "42", "4294967295", "random")
ALLOCATORS = ("pymalloc", "malloc", "pymalloc_debug")


def surroundings() -> Iterator[tuple[dict[str, str], list[int]]]:
    """Environments and the processors that go with each, for ever; every value turns up early."""
    here = sorted(os.sched_getaffinity(0))
    number = 0
    while True:
        language = LANGUAGES[number % len(LANGUAGES)]
        environment = {
            "TZ": ZONES[number % len(ZONES)],
            "LANG": language,
            "LC_ALL": language,
            "LC_NUMERIC": LANGUAGES[(number + 3) % len(LANGUAGES)],
            "PYTHONHASHSEED": SEEDS[number % len(SEEDS)],
            "PYTHONMALLOC": ALLOCATORS[number % len(ALLOCATORS)],
            "PYTHONUTF8": str(number % 2),
            "PYTHONDEVMODE": "1" if number % 7 == 6 else "",
        }
        processors = here if number % 2 else here[number // 2 % len(here) :][:1]
        yield environment, processors
        number += 1


class Surrounded:
    """A daemon of a home in an environment of its own, and on processors of its own."""

    def __init__(self, home: Home, environment: dict[str, str], processors: list[int]) -> None:
        self._home = home
        self._env = {**home.env, **environment}
        self._processors = processors

    def __enter__(self) -> Surrounded:
        # The daemon itself, not a command that starts one: nothing may clean the environment on the way.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "runloopd", "--home", str(self._home.path)],
            env=self._env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, self._processors),
        )  # fmt: skip
        wait_until(lambda: self._home.rlp("daemon", "status").code == 0, "the daemon to listen")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)

    def histories(self) -> str:
        """What the golden histories come to, walked in this environment: one digest."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.histories.walk"],
            env=self._env, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300,
        )  # fmt: skip
        return done.stdout.strip()


def recorded(home: Home) -> list[str]:
    """Runs of both kinds, made with everything as it comes."""
    path = install(home, 12)
    home.rlp("daemon", "start", timeout=300).check()
    wait_until(home.agents_ready, "the agents to be compiled")
    home.play().check(5)
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    home.rlp("approve", str(waiting["approval"])).check()
    home.rlp("run", str(path), "--no-input", "--quiet").check()
    wait_until(lambda: len(home.events("run.finished")) == 2, "the runs to finish")
    home.rlp("daemon", "stop").check()
    wait_until(lambda: home.rlp("daemon", "status").code != 0, "the daemon to stop")
    return [str(event.run) for event in home.events("run.started")]


def replays(home: Home, count: int, per_daemon: int) -> tuple[int, int, int]:
    """Replay ``count`` times; how many were made, how many were the same, in how many environments."""
    runs = recorded(home)
    wanted: dict[str, str] = {}
    made = same = 0
    home.env["RUNLOOP_NO_AUTOSTART"] = "1"
    for environments, (environment, processors) in enumerate(surroundings()):
        if made >= count:
            return made, same, environments
        with Surrounded(home, environment, processors) as daemon:
            client = connected(home)
            for _ in range(min(per_daemon, count - made)):
                run = runs[made % len(runs)]
                report: dict[str, Any] = client.call("run.replay", {"run": run}, REPLAY_S)
                made += 1
                same += bool(report["identical"]) and _same(wanted, run, digest(report))
            if not _same(wanted, "histories", daemon.histories()):
                same -= 1
                print(f"the golden histories differ in {json.dumps(environment)}")
    raise AssertionError


def _same(wanted: dict[str, str], what: str, found: str) -> bool:
    return wanted.setdefault(what, found) == found


def main() -> int:
    """Replay and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--per-daemon", type=int, default=25)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="b") as folder, Home(Path(folder)) as home:
        home.env["RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS"] = "true"
        begin = time.monotonic()
        made, same, environments = replays(home, asked.count, asked.per_daemon)
        taken = time.monotonic() - begin
    print(f"{made} replays in {environments} environments, {same} identical, {taken:.1f} s")
    return 0 if made == same == asked.count else 1


if __name__ == "__main__":
    sys.exit(main())

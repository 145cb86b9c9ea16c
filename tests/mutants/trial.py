"""Take a guard out of a private copy of the tree and run the tests that must notice.

Knows: how the copy is made and used, what counts as noticed. Does not know: which guards there are
(``tests.mutants.guards``), or how results are told (``tests.mutants.__main__``).

Noticed is a test that fails by its own assertion. A module that cannot be imported any more, or a test file
that cannot be collected, proves nothing: that is an error of the list of guards. Nor do tests that never end:
the machine may be busy, and who waits for ever has been told nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.mutants.guards import Guard

__all__ = ["Copy", "Result", "Verdict"]

ROOT = Path(__file__).parents[2]
PATIENCE_S = 600
"""Longest run of the tests of one guard, on a machine that has other work, too; of one test, the half."""

Verdict = Literal["noticed", "HUNG", "SURVIVED", "BROKEN"]

_FAILED = re.compile(r"^FAILED (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one guard."""

    guard: Guard
    verdict: Verdict
    seconds: float
    by: str = ""
    """The first test that failed; what pytest said last where it says nothing of a test."""

    @property
    def good(self) -> bool:
        return self.verdict == "noticed"


class Copy:
    """A tree of our own, in which one guard at a time is missing."""

    def __init__(self, place: Path, source: Path = ROOT) -> None:
        """Copies what git knows or would take, and the compiled step of the bus if there is one."""
        self._root = place / "tree"
        self._compiled = place / "compiled"
        self._trials = 0
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=source,
            capture_output=True,
            check=True,
        )
        names = [name for name in os.fsdecode(listed.stdout).split("\0") if name]
        for name in (*names, "runloopd/bus/_gather.abi3.so"):
            if (source / name).is_file():
                (self._root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, self._root / name)

    def without(self, guard: Guard) -> Result:
        """Run the guard's tests while it is missing."""
        file = self._root / guard.file
        whole, stamp = file.read_text(encoding="utf-8"), file.stat()
        assert whole.count(guard.text) == 1, f"{guard.name} is there {whole.count(guard.text)} times"
        mutant = whole.replace(guard.text, guard.without)
        if guard.file.endswith(".py"):
            compile(mutant, guard.file, "exec")
        self._trials += 1
        file.write_text(mutant, encoding="utf-8")
        # A compiled file is told from an older one by whole seconds.
        os.utime(file, (stamp.st_atime, stamp.st_mtime + 10 * self._trials))
        began = time.monotonic()
        try:
            code, said = self.run(guard.tests)
        finally:
            file.write_text(whole, encoding="utf-8")
            os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        return Result(guard, *_judged(code, said, time.monotonic() - began))

    def run(self, tests: Sequence[str]) -> tuple[int | None, str]:
        """pytest's exit code (None: it had to be ended) and what it said, up to the first failure."""
        env = {
            **os.environ,
            "PYTHONPATH": f"{self._root}{os.pathsep}{self._root / 'sdk' / 'python'}",
            "PYTHONPYCACHEPREFIX": str(self._compiled),
        }
        options = ["-q", "-x", "--tb=short", "-rf", "-n", "0", "-p", "tests.mutants.patient"]
        command = [sys.executable, "-m", "pytest", *options, "-o", f"timeout={PATIENCE_S // 2}", *tests]
        try:
            done = subprocess.run(
                command,
                cwd=self._root,
                env=env,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None, ""
        return done.returncode, done.stdout + done.stderr


def _judged(code: int | None, said: str, seconds: float) -> tuple[Verdict, float, str]:
    failed = _FAILED.search(said)
    if code is None:
        return "HUNG", seconds, "tests that do not end"
    if code == 1 and failed is not None:
        return "noticed", seconds, failed[1]
    if code == 0:
        return "SURVIVED", seconds, ""
    return "BROKEN", seconds, " ".join(said.strip().splitlines()[-3:])[-300:]

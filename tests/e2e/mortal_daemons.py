"""Daemons by the dozen, some of which kill themselves with SIGKILL at a write of a run.

A process that has imported the product and forks a daemon whenever it is told to: what a start costs is
mostly the imports. The daemon is the product's code. A mortal one differs in two things: every append is a
commit of its own, so that there is a moment between any two of them; and at one commit it dies.

Whatever a daemon leaves behind is adopted and reaped here, so that the CPU it took is counted.

Orders and answers are lines of JSON, see :class:`tests.killing.Nursery`.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, TextIO

import runloopd.assembly.ground
from pog.ledger import Ledger, Prepared
from runloop.events import Draft, Event, RunStarted
from runloopd.__main__ import main
from runloopd.journal import Journal

_PR_SET_CHILD_SUBREAPER = 36


class MortalLedger(Ledger):
    """A ledger one commit of which is the last thing its daemon fails to do, or does.

    Counted are the writes that say something of a run, from the first ``run.started`` on.
    """

    sign = ""
    """Of the writes that count; empty: all do."""
    nth = 0
    """Which of them it is; 0: none."""
    moment = "before"
    diary = ""
    """File that gets the sign of each write, before it is done."""
    _nested: ClassVar[set[str | None]] = set()
    _begun = False

    def commit(self, prepared: Sequence[Prepared], blobs: Iterable[bytes] = ()) -> list[Event]:
        if not any(item.draft.run is not None for item in prepared):
            return super().commit(prepared, blobs)
        sign = self._sign([item.draft for item in prepared])
        if not self._begun:
            return super().commit(prepared, blobs)
        with open(self.diary, "a") as diary:  # noqa: PTH123
            print(sign, file=diary)
        MortalLedger.nth -= self.sign in ("", sign)
        fatal = self.sign in ("", sign) and self.nth == 0
        if fatal and self.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        events = super().commit(prepared, blobs)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return events

    def _sign(self, drafts: list[Draft]) -> str:
        for draft in drafts:
            if isinstance(draft.payload, RunStarted):
                MortalLedger._begun = True
                if draft.payload.parent is not None:
                    self._nested.add(draft.run)
        kinds = "+".join(draft.payload.kind for draft in drafts)
        return f"nested {kinds}" if any(draft.run in self._nested for draft in drafts) else kinds


def _become(order: dict[str, Any]) -> int:
    """What a forked child is from now on: the daemon of a home."""
    os.setsid()
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.closerange(3, 1024)
    os.environ.clear()
    os.environ.update(order["env"])
    if order["diary"]:
        MortalLedger.sign, MortalLedger.nth = order["sign"], order["nth"]
        MortalLedger.moment, MortalLedger.diary = order["moment"], order["diary"]
        ground = vars(runloopd.assembly.ground)
        ground.update(Ledger=MortalLedger, Journal=functools.partial(Journal, group=1))
    return main(["--home", order["home"]])


def _fork(order: dict[str, Any]) -> int:
    assert threading.active_count() == 1, "a thread would not be there after the fork"
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = _become(order)
    finally:
        os._exit(code)


def _reap(pid: int) -> int:
    """Wait for a daemon, and take whatever else has ended meanwhile; its exit code, or minus the signal."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def _spent() -> float:
    """CPU seconds, user and system, of all that was forked here and is over."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def serve(orders: TextIO, answers: TextIO) -> None:
    """Do as told until nobody tells any more; then end every daemon."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    alive: set[int] = set()
    try:
        for line in orders:
            print(json.dumps(_obey(json.loads(line), alive)), file=answers, flush=True)
    finally:  # also when nobody reads the answer any more
        for pid in alive:
            os.kill(pid, signal.SIGKILL)


def _obey(order: dict[str, Any], alive: set[int]) -> float:
    if order["do"] == "spent":
        return _spent()
    if order["do"] == "start":
        pid = _fork(order)
        alive.add(pid)
        return pid
    if order["do"] == "kill":
        os.kill(order["pid"], signal.SIGKILL)
    code = _reap(order["pid"])
    alive.discard(order["pid"])
    return code


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)

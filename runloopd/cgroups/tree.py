"""The daemon's part of the tree: itself, one group for each run, one in that for each process it starts.

    supervisor/            the daemon and its short-lived helpers
    zygote/                what workers are forked from, and those that wait for an order
    run-<id>/worker-3/     one attempt; run-<id>/program-4/  one program of a tool, with all that it starts
    servers/program-5/     a server of MCP, or its bridge
    others/compile-6/      what belongs to no run

Knows: who is put where, when a run's group is made and removed, what an agent's processes came to. Does not
know: how a process is made or what its end means (``runtime``, ``broker.tools``), what a bound should be
(their callers, the configuration).

Everything the kernel is asked for is asked by one thread: a move waits for all processors, and while the tree
changes nobody else changes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import structlog

from runloop.errors import RefusedError
from runloopd.cgroups.group import Bounds, Group, Used, remove, sweep
from runloopd.cgroups.kernel import NotDelegated, delegated

__all__ = ["Groups", "GroupsRefused", "Kind", "Member", "divided", "undivided"]

log = structlog.get_logger(__name__)

Kind = Literal["worker", "program", "compile"]

DAEMON_WEIGHT = 1_000
"""Of the processor, against 100 of a run: whoever looks, stops or cancels is heard at once."""
NEEDED = ("memory", "pids")
"""Controllers without which ``security.control_groups = "required"`` refuses to start."""
_OURS = re.compile(r"supervisor\Z|zygote\Z|servers\Z|others\Z|run-[0-9a-f-]{1,64}\Z")
_RUN = re.compile(r"[0-9a-f-]{1,64}\Z")


class GroupsRefused(RefusedError):
    """The operator insists on control groups, and there are none, or not all that it takes."""

    code = "groups.required"


@dataclass(slots=True, eq=False)
class Member:
    """A process and all that it starts, in a group of their own. From :meth:`Groups.enter`."""

    agent: str
    kind: Kind
    home: str
    bounds: Bounds
    pid: int
    pidfd: int
    """Ours: it says whether ``pid`` is still the process that was meant."""
    group: Group | None = None
    over: bool = False
    begun: asyncio.Future[None] = field(init=False)
    """Done when it is inside. An exception: it is not, and must not live on."""
    ended: asyncio.Future[Used] | None = None


class Groups:
    """One per daemon. From :func:`divided` or :func:`undivided`."""

    def __init__(
        self, root: Path | None, controllers: tuple[str, ...], why: str, run: Bounds | None = None
    ) -> None:
        self._root = root
        self._controllers = controllers
        self._why = why
        self._run = run or Bounds()
        self._pool = ThreadPoolExecutor(1, "cgroups") if root is not None else None
        self._homes: dict[str, Group] = {}
        self._inside: Counter[str] = Counter()
        """Home -> its members. Like ``_homes`` touched by the one thread alone."""
        self._count = 0
        self._cpu_us: Counter[str] = Counter()
        self._ooms: Counter[str] = Counter()
        self._peaks: dict[str, int] = {}

    @property
    def hold(self) -> bool:
        """Whether there are any."""
        return self._root is not None

    def bounds(self, controller: str) -> bool:
        """Whether ``cpu``, ``memory`` or ``pids`` is bounded by groups here."""
        return controller in self._controllers

    def told(self) -> dict[str, Any]:
        """``{hold, controllers, why}``: for 'rlp doctor'."""
        return {"hold": self.hold, "controllers": list(self._controllers), "why": self._why}

    def figures(self, agent: str) -> dict[str, int | None]:
        """Of an agent since the start: ``peak_bytes``, the most that one of its processes with all below it
        held at a time, where the kernel keeps that, and ``ooms``."""
        return {"peak_bytes": self._peaks.get(agent), "ooms": self._ooms[agent]}

    def spent_us(self, agent: str) -> int:
        """Microseconds of processor time of the programs an agent has run."""
        return self._cpu_us[agent]

    def enter(
        self, kind: Kind, pid: int, *, pidfd: int, run: str, agent: str, bounds: Bounds
    ) -> Member | None:
        """Put a process into a new group; None where there are none. It moves while the caller goes on:
        whoever must not be earlier awaits ``member.begun``.

        ``pidfd`` is copied. ``run``: empty for what belongs to none. Every member is to be :meth:`left`.
        """
        if self._root is None:
            return None
        member = Member(
            agent=agent,
            kind=kind,
            home=f"run-{run}" if _RUN.match(run) else "servers" if kind == "program" else "others",
            bounds=bounds,
            pid=pid,
            pidfd=os.dup(pidfd),
        )
        self._count += 1
        number = self._count
        member.begun = self._ask(lambda: self._begin(member, number))
        member.begun.add_done_callback(_seen)
        return member

    def kill(self, member: Member) -> None:
        """End all that is in it, soon."""

        def now() -> None:
            if member.group is not None:
                member.group.kill()

        self._ask(now).add_done_callback(_seen)

    async def left(self, member: Member) -> Used:
        """Kill what is left of it and remove its group; what it came to. May be called again."""
        if member.ended is None:
            member.over = True
            member.ended = self._ask(lambda: self._end(member))
            member.ended.add_done_callback(lambda ended: self._book(member, ended))
        return await asyncio.shield(member.ended)

    def refused(self, member: Member) -> str | None:
        """Why it is not in its group, and so must not live on; None while it moves, and once it is inside."""
        if not member.begun.done() or member.begun.cancelled():
            return None
        error = member.begun.exception()
        return None if error is None else str(error)

    async def place(self, name: Literal["zygote"], pid: int) -> None:
        """Move a process of the daemon's own to a place that has a name. Raises OSError."""
        if self._root is not None:
            await self._ask(lambda: self._place(name, pid))

    async def close(self) -> None:
        """Remove whatever is empty; nothing runs any more."""
        if self._pool is not None:
            await self._ask(self._tidied)
            self._pool.shutdown()

    # --- on the one thread ------------------------------------------------------------------------

    def _begin(self, member: Member, number: int) -> None:
        try:
            if member.over or _gone(member.pidfd):
                return  # it was quicker
            home = self._home(member.home)
            self._inside[member.home] += 1
            try:
                group = Group(
                    home.path / f"{member.kind}-{number}",
                    self._controllers,
                    member.bounds,
                    leaf=True,
                    numbered=True,
                )
                member.group = group
                with contextlib.suppress(ProcessLookupError):
                    group.take(member.pid)
            except OSError:
                if member.group is None:
                    self._leave(member.home)
                raise
        finally:
            os.close(member.pidfd)

    def _end(self, member: Member) -> Used:
        if member.group is None:
            return Used()
        try:
            return member.group.end()
        finally:
            self._leave(member.home)

    def _home(self, name: str) -> Group:
        home = self._homes.get(name)
        if home is None:
            assert self._root is not None
            bounds = self._run if name.startswith("run-") else Bounds()
            home = self._homes[name] = Group(self._root / name, self._controllers, bounds, leaf=False)
        return home

    def _leave(self, name: str) -> None:
        self._inside[name] -= 1
        if self._inside[name] == 0:
            del self._inside[name]
            home = self._homes.pop(name)
            with contextlib.suppress(OSError):  # one that does not die yet: the next one finds the place made
                remove(home.path)

    def _place(self, name: str, pid: int) -> None:
        assert self._root is not None
        home = self._homes.get(name)
        if home is None:
            home = self._homes[name] = Group(self._root / name, self._controllers, Bounds(), leaf=True)
        home.take(pid)

    def _tidied(self) -> None:
        for home in self._homes.values():
            with contextlib.suppress(OSError):
                sweep(home.path)

    # --- on the loop ------------------------------------------------------------------------------

    def _ask(self, what: Callable[[], Any]) -> asyncio.Future[Any]:
        assert self._pool is not None
        return asyncio.get_running_loop().run_in_executor(self._pool, what)

    def _book(self, member: Member, ended: asyncio.Future[Used]) -> None:
        if ended.cancelled():
            return
        if (error := ended.exception()) is not None:
            log.warning("group_stays", home=member.home, kind=member.kind, reason=str(error))
            return
        used, agent = ended.result(), member.agent
        if not agent:
            return
        self._ooms[agent] += used.ooms
        if used.peak is not None:
            self._peaks[agent] = max(used.peak, self._peaks.get(agent, 0))
        if member.kind == "program":  # what workers used is known without: their parent waits for them
            self._cpu_us[agent] += used.cpu_us


def undivided(why: str) -> Groups:
    """No groups: resource limits of each process and counting bound what runs."""
    return Groups(None, (), why)


def divided(*, run: Bounds, required: bool) -> Groups:
    """Divide the group that was handed over to this process, if one was; else no groups, and why.

    To be called once, by whoever holds the lock of this home: what a daemon before left behind in the group
    is killed. ``run``: the bounds of each run. Raises :class:`GroupsRefused` if ``required`` and there are
    none.
    """
    try:
        groups = _divided(run)
    except NotDelegated as error:
        groups = undivided(str(error))
    except OSError as error:
        groups = undivided(f"its control group could not be divided: {error.strerror or error}")
    missing = [one for one in NEEDED if not groups.bounds(one)]
    if required and (missing or not groups.hold):
        lacks = "; it lacks " + ", ".join(missing) if groups.hold else ""
        raise GroupsRefused(
            f'security.control_groups is "required", and {groups.told()["why"]}{lacks}',
            hint="start it by its systemd unit, on a machine with control groups of version 2; or set "
            'security.control_groups = "auto"',
        )
    return groups


def _divided(run: Bounds) -> Groups:
    mine = delegated()
    for left in sorted(mine.path.iterdir()):
        if left.is_dir() and _OURS.match(left.name):
            log.warning("group_left_behind", group=left.name)
            try:
                sweep(left)
            except OSError as error:  # what outlives SIGKILL; its place is used again
                log.warning("group_stays", group=left.name, reason=error.strerror)
    supervisor = Group(mine.path / "supervisor", (), Bounds(), leaf=True)
    try:
        supervisor.take(os.getpid())
        controllers = tuple(one for one in mine.controllers if _handed_on(mine.path, one))
        if "cpu" in controllers:
            (supervisor.path / "cpu.weight").write_text(str(DAEMON_WEIGHT))
    except OSError:
        with contextlib.suppress(OSError):
            (mine.path / "cgroup.procs").write_text(str(os.getpid()))
            supervisor.path.rmdir()
        raise
    lacking = "" if controllers else "no controller was handed over: groups end what runs and bound nothing"
    return Groups(mine.path, controllers, lacking, run)


def _handed_on(root: Path, controller: str) -> bool:
    try:
        (root / "cgroup.subtree_control").write_text(f"+{controller}")
    except OSError as error:
        log.warning("controller_refused", controller=controller, reason=error.strerror)
        return False
    return True


def _gone(pidfd: int) -> bool:
    """Whether the process has ended: then its number may be another's."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


def _seen(asked: asyncio.Future[Any]) -> None:
    """Whoever asked looks at the outcome when he needs it."""
    if not asked.cancelled():
        asked.exception()

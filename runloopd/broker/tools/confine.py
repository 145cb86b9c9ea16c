"""The control group of a program and of all that it starts.

Knows: the bounds that follow from a program's limits, and that whoever has no group does not begin. Does not
know: how groups are made (``cgroups``), what counting sees (``tools.running``).

Counting looks ten times a second and says what was too much; the group bounds what happens in between, and
holds for files in memory too. So its bounds lie a little above: who is ended by them was not seen in time.
"""

from __future__ import annotations

import os

from runloopd.broker.tools.sandbox import Limits, Program, SandboxError
from runloopd.cgroups import Bounds, Groups, Member, Used

__all__ = ["Confined", "program_bounds"]

_SPARE_BYTES = 48 << 20
"""The sandbox's own two processes, and tables of the kernel."""
_SPARE_TASKS = 8


def program_bounds(limits: Limits) -> Bounds:
    """Of a program with these limits: what its files in memory may hold counts as memory to the kernel."""
    return Bounds(
        memory=limits.memory + limits.file_bytes + limits.file_bytes // 4 + _SPARE_BYTES,
        tasks=limits.processes + _SPARE_TASKS,
    )


class Confined:
    """A program's group. From :meth:`of`."""

    def __init__(self, groups: Groups, member: Member) -> None:
        self._groups = groups
        self._member = member

    @classmethod
    async def of(cls, groups: Groups | None, pid: int, program: Program) -> Confined | None:
        """Once the process is inside; None where there are no groups. Raises :class:`SandboxError`, and then
        it must not go on."""
        if groups is None or not groups.hold:
            return None
        pidfd = os.pidfd_open(pid)
        try:
            member = groups.enter(
                "program",
                pid,
                pidfd=pidfd,
                run=program.run,
                agent=program.agent,
                bounds=program_bounds(program.limits),
            )
        finally:
            os.close(pidfd)
        assert member is not None
        try:
            await member.begun
        except OSError as error:
            await groups.left(member)
            raise SandboxError(
                f"the program could not be given its control group: {error.strerror or error}",
                hint="'rlp doctor' tells how control groups stand here",
            ) from error
        except BaseException:
            await groups.left(member)
            raise
        return cls(groups, member)

    def kill(self) -> None:
        """End all that is in it, soon."""
        self._groups.kill(self._member)

    async def left(self) -> Used:
        """What it came to; nothing of it is left afterwards."""
        try:
            return await self._groups.left(self._member)
        except OSError:  # said already, by the groups: its processes are gone
            return Used()

"""``fs.read``, ``fs.write``, ``fs.list``, ``fs.stat``: files below the directories an agent was granted.

Knows: which granted root a path is judged by, the bounds of a call, the order of a write (checked → prepared
→ admitted → put in place) and how a crash at any point of it is resolved. Does not know: how a path is walked
(``providers.walk``), recording (the gate).

Whether a path is granted is decided on its text, before the file system is asked anything: what lies outside
is refused in the same words whether it exists or not.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar, cast

import msgspec
import structlog

from runloop.caps.policy import Policy
from runloop.clock import Clock
from runloop.digest import blob_digest
from runloop.errors import FailedError, RunloopError, UsageError
from runloop.ops import FsList, FsRead, FsStat, FsWrite
from runloopd.broker.asks import Ask, CapabilityError, Done, UnknownOutcomeError
from runloopd.broker.effects import OverdueError, admitted, bounded
from runloopd.broker.http_ops import how_to_obtain
from runloopd.broker.ports import BlobPort, JournalPort
from runloopd.broker.providers.files import (
    MAX_ENTRIES,
    MAX_READ_BYTES,
    MAX_WRITE_BYTES,
    FilePort,
    Outcome,
    Write,
)
from runloopd.broker.providers.walk import Place, names_of, place

__all__ = ["FileOps", "granted", "to_list", "to_read", "to_stat", "to_write"]

T = TypeVar("T")

log = structlog.get_logger(__name__)

_DIGEST = frozenset("0123456789abcdef")


class FileOps:
    """``fs.*``."""

    def __init__(
        self,
        *,
        files: FilePort,
        journal: JournalPort,
        blobs: BlobPort,
        clock: Clock,
        deadline_ms: int = 30_000,
    ) -> None:
        self._files = files
        self._journal = journal
        self._blobs = blobs
        self._clock = clock
        self._deadline_ms = deadline_ms

    async def read(self, ask: Ask) -> Done:
        """``{text|base64, offset, size, eof, digest}``."""
        args = cast(FsRead, ask.args)
        part = await self._files.read(to_read(ask), args.offset, args.length)
        return Done(
            value={
                **_shown(part.data),
                "offset": part.offset,
                "size": part.size,
                "eof": part.offset + len(part.data) >= part.size,
                "digest": blob_digest(part.data),
            }
        )

    async def stat(self, ask: Ask) -> Done:
        """``{kind, size, mtime_ms}``, with ``digest`` when it was asked for and there is one."""
        args = cast(FsStat, ask.args)
        seen = await self._files.stat(to_stat(ask), digest=args.digest)
        value = {"kind": seen.kind, "size": seen.size, "mtime_ms": seen.mtime_ms}
        return Done(value=value if seen.digest is None else {**value, "digest": seen.digest})

    async def list(self, ask: Ask) -> Done:
        """``{entries: [{name, kind, size}], truncated, skipped}``."""
        args = cast(FsList, ask.args)
        found = await self._files.list(to_list(ask), args.after, args.limit)
        entries = [{"name": name, "kind": kind, "size": size} for name, kind, size in found.entries]
        return Done(value={"entries": entries, "truncated": found.truncated, "skipped": found.skipped})

    # --- writing ----------------------------------------------------------------------------------

    async def write(self, ask: Ask) -> Done:
        """``{digest, size}``. Nothing is touched under its name before the first mark is durable."""
        write = to_write(ask)
        if await self._is_open(ask):
            outcome = await self._outcome(write)
            log.warning("effect_reconciled", run=ask.caller.run, node=ask.caller.node, outcome=outcome)
            if outcome == "done":
                return _written(write, ask.run.effects[ask.key].admitted)
            if outcome == "unknown":
                raise _unknown(write)
        try:
            await self._in_time(self._files.prepare(write))
        except OverdueError as error:
            raise FailedError("fs.write took too long", hint="ask for less", code="gate.deadline") from error
        try:
            mark = await self._admit(ask, write)
        except BaseException:
            await self._files.discard(write)
            raise
        return await self._put_in_place(write, mark)

    async def _admit(self, ask: Ask, write: Write) -> int:
        # The linearisation point: the token as it is now, with no await before the journal has the mark.
        now = ask.check()
        granted(ask, "fs_rw", write.place.path, now if isinstance(now, Policy) else None)
        (mark,) = await self._journal.append(admitted(ask), blobs=(ask.args_blob,))
        return mark.id

    async def _put_in_place(self, write: Write, mark: int) -> Done:
        try:
            await self._in_time(self._files.commit(write))
        except OverdueError as error:
            # A thread in the kernel cannot be taken back: it may still finish.
            raise _unknown(write) from error
        except RunloopError as error:
            outcome = await self._outcome(write)
            if outcome == "unknown":
                raise _unknown(write) from error
            if outcome == "absent":
                await self._files.discard(write)
                raise
        return _written(write, mark)

    async def _outcome(self, write: Write) -> Outcome:
        """What became of a write; whatever goes wrong with asking, nobody knows."""
        try:
            return await self._in_time(self._files.outcome(write))
        except (RunloopError, OverdueError) as error:
            log.warning("effect_reconcile_failed", path=write.place.path, why=str(error))
            return "unknown"

    async def _is_open(self, ask: Ask) -> bool:
        """Whether the same write was begun before and nobody can tell from the record how it ended."""
        begun = ask.run.effects.get(ask.key)
        if begun is None:
            return False
        if begun.delivered is None:
            return True
        heard = msgspec.json.decode(await self._blobs.blob(begun.delivered.result_digest))
        return isinstance(heard, dict) and heard.get("code") == UnknownOutcomeError.code

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        due = self._clock.now_ms() + self._deadline_ms
        return await bounded(work, self._clock, due_ms=due, abandoned=None)


# --- rights ---------------------------------------------------------------------------------------


def granted(ask: Ask, capability: str, path: str, grants: Policy | None = None) -> Place:
    """The path below the narrowest root that covers it.

    ``grants`` None: those the call came with. Raises :class:`UsageError`, :class:`CapabilityError`.
    """
    names_of(path)
    policy = ask.grants if grants is None else grants
    verdict = policy.allows(capability, path, agent=ask.agent)
    if not verdict.allowed:
        raise CapabilityError(replace(verdict, how_to_obtain=how_to_obtain(ask.agent, capability)))
    names = ("fs_rw",) if capability == "fs_rw" else ("fs_ro", "fs_rw")
    roots = [root for name in names for root in _roots(policy, name) if _covers(root, path)]
    return place(path, max(roots, key=len))


def _roots(policy: Policy, capability: str) -> tuple[str, ...]:
    value = policy.value(capability)
    return ("/",) if value is True else tuple(str(root) for root in value or ())


def _covers(root: str, path: str) -> bool:
    above = names_of(root)
    return names_of(path)[: len(above)] == above


# --- what is asked for ----------------------------------------------------------------------------


def to_read(ask: Ask) -> Place:
    """What ``fs.read`` is going to read, once all about the call itself was judged; as the ones below."""
    args = cast(FsRead, ask.args)
    if args.offset < 0 or not 1 <= args.length <= MAX_READ_BYTES:
        raise _bad(ask, f"offset {args.offset}, length {args.length}: from 0, 1 to {MAX_READ_BYTES}")
    return granted(ask, "fs_ro", args.path)


def to_stat(ask: Ask) -> Place:
    """What ``fs.stat`` is going to look at."""
    return granted(ask, "fs_ro", cast(FsStat, ask.args).path)


def to_list(ask: Ask) -> Place:
    """What ``fs.list`` is going to list."""
    args = cast(FsList, ask.args)
    if not 1 <= args.limit <= MAX_ENTRIES:
        raise _bad(ask, f"limit is {args.limit}, not 1 to {MAX_ENTRIES}")
    return granted(ask, "fs_ro", args.path)


def to_write(ask: Ask) -> Write:
    """What ``fs.write`` is going to write."""
    args = cast(FsWrite, ask.args)
    data = _content(ask, args)
    if args.expected and (len(args.expected) != 64 or not _DIGEST.issuperset(args.expected)):
        raise _bad(ask, "expected is neither a digest nor empty")
    return Write(place=granted(ask, "fs_rw", args.path), data=data, expected=args.expected, key=ask.key)


# --- shapes ---------------------------------------------------------------------------------------


def _content(ask: Ask, args: FsWrite) -> bytes:
    if (args.text is None) == (args.base64 is None):
        raise _bad(ask, "give either text or base64")
    try:
        data = (
            args.text.encode()
            if args.text is not None
            else base64.b64decode(args.base64 or "", validate=True)
        )
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise _bad(ask, str(error)) from error
    if len(data) > MAX_WRITE_BYTES:
        raise UsageError(
            f"fs.write: {len(data)} bytes, more than {MAX_WRITE_BYTES}",
            hint="write several files",
            code="op.args",
        )
    return data


def _shown(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _written(write: Write, mark: int) -> Done:
    return Done(value={"digest": blob_digest(write.data), "size": len(write.data)}, causes=(mark,))


def _bad(ask: Ask, why: str) -> UsageError:
    return UsageError(f"{ask.op.name}: {why}", code="op.args")


def _unknown(write: Write) -> UnknownOutcomeError:
    return UnknownOutcomeError(
        f"{write.place.path!r} may or may not have been written: the write was begun, its end is not known,"
        " and the file holds something else by now",
        hint="look at the file; Runloop will not write it again by itself",
    )

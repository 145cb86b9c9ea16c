"""Two things the kernel tells that Python 3.11 has no name for: an alarm on the wall clock, and that
something in a folder changed.

Knows: timerfd and inotify. Does not know: what is due, or what a change means. Nothing here ticks: without an
alarm set and without a folder listened to, nobody is woken.

The alarm rings at a time of the wall clock also when that clock is set or the machine was suspended, which no
sleep of asyncio does: those count the time that the machine was awake. The ears are no more than a hint that
it is worth looking: they may hear too much, or forget (a queue that overflowed is heard by everybody).
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import struct
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from runloop.errors import FailedError

__all__ = ["Alarm", "Ears", "WallAlarm"]

_CLOCK_REALTIME = 0
_TIMER_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE_UNTIL_SET = 0b11
"""TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET."""

_CHANGES = 0x2 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
"""IN_MODIFY, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF, MOVE_SELF."""
_A_FOLDER_ITSELF = 0x01000000 | 0x02000000
"""IN_ONLYDIR | IN_DONT_FOLLOW."""
_OVERFLOW, _GONE = 0x4000, 0x8000
_HEAD = struct.Struct("iIII")
_REST_S = 0.1
"""Pause between two readings: a flood of changes is heard ten times a second, whatever its size."""

_libc = ctypes.CDLL(None, use_errno=True)


class Alarm(Protocol):
    """The wall clock, and to be woken by it."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        ...

    async def until(self, due_ms: int) -> None:
        """Return when ``now_ms() >= due_ms``, or earlier when the clock was set; at once if it is past."""
        ...


class _Spec(ctypes.Structure):
    _fields_ = [("interval", ctypes.c_long * 2), ("value", ctypes.c_long * 2)]


class WallAlarm:
    """An :class:`Alarm` on the machine's clock. One waits at a time; close it."""

    def __init__(self) -> None:
        self._file = _checked(_libc.timerfd_create(_CLOCK_REALTIME, _TIMER_FLAGS), "timerfd_create")

    def close(self) -> None:
        """Let go of the timer."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def until(self, due_ms: int) -> None:
        if due_ms <= self.now_ms():
            return
        seconds, left_ms = divmod(due_ms, 1000)
        spec = _Spec((0, 0), (seconds, left_ms * 1_000_000))
        _checked(
            _libc.timerfd_settime(self._file, _ABSOLUTE_UNTIL_SET, ctypes.byref(spec), None),
            "timerfd_settime",
        )
        loop = asyncio.get_running_loop()
        rung: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._file, _ring, rung)
        try:
            await rung
        finally:
            loop.remove_reader(self._file)
            self._take()

    def _take(self) -> None:
        try:
            os.read(self._file, 8)
        except OSError as error:
            # ECANCELED: the clock was set. EAGAIN: whoever waited was called away.
            if error.errno not in (errno.ECANCELED, errno.EAGAIN):
                raise


class Ears:
    """Tells who listens to a folder that something in it changed; ``heard(who)`` is called on the loop."""

    def __init__(self, heard: Callable[[str], None]) -> None:
        self._heard = heard
        self._file = -1
        self._listeners: dict[int, set[str]] = {}
        """Watch descriptor -> who listens there."""
        self._resting: asyncio.TimerHandle | None = None

    @property
    def open(self) -> bool:
        """Whether the kernel was asked for anything."""
        return self._file >= 0

    def listen(self, who: str, folders: Iterable[str]) -> None:
        """From now on these folders and no others; one that is not there is left out.

        Raises :class:`FailedError` when the kernel watches no more.
        """
        wanted = set()
        for folder in folders:
            watch = self._add(folder)
            if watch is not None:
                wanted.add(watch)
                self._listeners.setdefault(watch, set()).add(who)
        for watch in [watch for watch, heard in self._listeners.items() if who in heard]:
            if watch not in wanted:
                self._drop(watch, who)
        if not self._listeners:
            self.close()

    def close(self) -> None:
        """Hear nothing more."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self._file >= 0:
            asyncio.get_running_loop().remove_reader(self._file)
            os.close(self._file)
            self._file = -1
        self._listeners.clear()

    def _add(self, folder: str) -> int | None:
        if self._file < 0:
            self._file = _checked(_libc.inotify_init1(_TIMER_FLAGS), "inotify_init1")
            asyncio.get_running_loop().add_reader(self._file, self._read)
        watch = _libc.inotify_add_watch(self._file, os.fsencode(folder), _CHANGES | _A_FOLDER_ITSELF)
        if watch >= 0:
            return int(watch)
        number = ctypes.get_errno()
        if number in (errno.ENOSPC, errno.ENOMEM):
            raise FailedError(
                f"the kernel watches no more folders ({os.strerror(number)})",
                hint="watch fewer, or raise fs.inotify.max_user_watches",
                code="schedule.watch",
            )
        return None  # gone, or no folder any more, or not ours to read: the next look tells

    def _drop(self, watch: int, who: str) -> None:
        self._listeners[watch].discard(who)
        if not self._listeners[watch]:
            del self._listeners[watch]
            _libc.inotify_rm_watch(self._file, watch)

    def _read(self) -> None:
        try:
            data = os.read(self._file, 1 << 20)
        except BlockingIOError:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._file)
        self._resting = loop.call_later(_REST_S, self._rested)
        told: set[str] = set()
        place = 0
        while place < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, place)
            place += _HEAD.size + length
            if mask & _OVERFLOW:
                told.update(*self._listeners.values())
            told |= self._listeners.get(watch, set())
            if mask & _GONE:
                self._listeners.pop(watch, None)
        for who in sorted(told):
            self._heard(who)

    def _rested(self) -> None:
        self._resting = None
        if self._file >= 0:
            asyncio.get_running_loop().add_reader(self._file, self._read)


def _ring(rung: asyncio.Future[None]) -> None:
    if not rung.done():
        rung.set_result(None)


def _checked(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise FailedError(
            f"{call} failed: {os.strerror(number)}",
            hint="'rlp doctor' looks for causes",
            code="schedule.kernel",
        )
    return int(result)

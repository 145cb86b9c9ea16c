"""Folders that triggers watch: one task each, which looks when the kernel hints at a change.

Knows: waiting until the files are left alone, what differs between two looks, whose change it was. Does not
know: what is done about it (it tells). Between two hints nothing is done at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog

from runloop.clock import Clock
from runloop.errors import RunloopError
from runloopd.triggers.folder import Look, Watch
from runloopd.triggers.kernel import Ears

__all__ = ["MAX_LISTED", "Change", "Watches", "without"]

log = structlog.get_logger(__name__)

MAX_LISTED = 256
"""Paths that are named; the rest is only counted."""
_PATIENCE = 10
"""Settling times after which files that are never left alone are told of all the same."""
_CALM = 4
"""Looks in a row that may each find new folders to listen to."""


@dataclass(slots=True)
class Change:
    """What was changed and not yet acted upon."""

    first_ms: int
    last_ms: int
    paths: dict[str, None] = field(default_factory=dict)
    count: int = 0
    """Paths in all, the unnamed ones included."""

    def add(self, paths: Iterable[str], now_ms: int) -> None:
        """More of it."""
        for path in paths:
            if path in self.paths:
                continue
            self.count += 1
            if len(self.paths) < MAX_LISTED and _is_text(path):
                self.paths[path] = None
        self.last_ms = now_ms


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


class Watches:
    """Every watch of this daemon. ``changed(name, paths)`` is told of what files are new, other or gone;
    ``lost(name)`` that there are too many to tell."""

    def __init__(
        self, clock: Clock, *, changed: Callable[[str, list[str]], None], lost: Callable[[str], None]
    ) -> None:
        self._clock = clock
        self._changed = changed
        self._lost = lost
        self._ears = Ears(self._heard)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._hints: dict[str, asyncio.Event] = {}
        # Of its own: a file system that hangs takes these threads and nobody else's.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="watch")

    async def look(self, watch: Watch) -> Look:
        """Look at once."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, watch.look)

    def begin(self, name: str, watch: Watch, before: Look) -> None:
        """Follow a watch from what was seen before on."""
        self.end(name)
        self._hints[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._follow(name, watch, before), name=f"watch {name}")

    def end(self, name: str) -> None:
        """Follow it no more."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            del self._hints[name]
            self._ears.listen(name, ())

    async def close(self) -> None:
        """Follow nothing any more."""
        tasks = list(self._tasks.values())
        for name in list(self._tasks):
            self.end(name)
        await asyncio.gather(*tasks, return_exceptions=True)
        self._ears.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _heard(self, name: str) -> None:
        if name in self._hints:
            self._hints[name].set()

    async def _follow(self, name: str, watch: Watch, before: Look) -> None:
        hint = self._hints[name]
        try:
            while True:
                after = (await self._listening_look(name, watch)).behind(before)
                if before.whole and not after.whole:
                    self._lost(name)
                elif paths := after.changed_since(before):
                    self._changed(name, paths)
                before = after
                await hint.wait()
                await self._settled(watch, hint)
        except RunloopError as error:
            log.error("watch_failed", trigger=name, code=error.named_code, reason=error.message)
            self._lost(name)

    async def _listening_look(self, name: str, watch: Watch) -> Look:
        """A look at folders all of which are listened to, so that nothing falls between."""
        heard: tuple[str, ...] = ()
        for _ in range(_CALM):
            look = await self.look(watch)
            if set(look.folders) == set(heard):
                break
            heard = look.folders
            self._ears.listen(name, heard)
        return look

    async def _settled(self, watch: Watch, hint: asyncio.Event) -> None:
        """Return when the files have been left alone for a while, or have not been for long."""
        patience = self._clock.now_ms() + _PATIENCE * watch.settle_ms
        while hint.is_set():
            hint.clear()
            await self._clock.sleep_until(self._clock.now_ms() + watch.settle_ms)
            if self._clock.now_ms() >= patience:
                return


def without(look: Look, paths: Mapping[str, object]) -> Look:
    """The look as it was before these files were there."""
    return Look(
        {path: facts for path, facts in look.files.items() if path not in paths},
        look.folders,
        look.gone,
        look.whole,
    )

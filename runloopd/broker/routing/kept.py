"""Answers kept for equal requests of the same agent: ``models.cache``.

Knows: which requests may be answered so, what makes two of them equal, how long an answer holds, and how much
is kept. Does not know: which model is asked (``catalogue``), or what a hit is booked as (``call``).

Only where nothing is at chance (temperature 0) and the model is offered no functions. The key is BLAKE3 over
canonical JSON of the whole request, the model, the agent with its bundle, and whether the request is private:
no agent is ever told what another was. Whatever is wrong with a kept answer, it is a miss and goes.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import structlog

from runloop.clock import Clock
from runloop.digest import digest
from runloop.errors import UsageError
from runloop.ops import ModelComplete
from runloopd.broker.ports import Asker
from runloopd.broker.routing.route import Route
from runloopd.broker.routing.told import NotToldError, Told, read, request_json, written

__all__ = ["KeptAnswers", "key_of"]

log = structlog.get_logger(__name__)

_SUFFIX = ".answer"
_MAX_BYTES = 16 * 1024 * 1024
"""Of one answer; a longer one is not kept."""
_SWEEP_EVERY = 64
"""Answers written between two looks at how much there is."""


def key_of(request: ModelComplete, route: Route, asker: Asker) -> str | None:
    """Name of the answer to keep; None where an equal request may well get another answer."""
    plain = request.temperature == 0 and not request.tools and asker.agent and route.kind != "rules"
    if not plain or any(message.tool_calls or message.role == "tool" for message in request.messages):
        return None
    try:
        return digest(
            {
                "v": 1,
                "agent": asker.agent,
                "bundle": asker.bundle,
                "private": asker.private,
                "request": request_json(request),
                "provider": route.name,
                "model": route.model,
            }
        )
    except UsageError:  # nested too deeply to be told apart
        return None


class KeptAnswers:
    """A folder of answers, one file each."""

    def __init__(self, folder: Path, clock: Clock, *, ttl_ms: int, most_bytes: int) -> None:
        self._folder = folder
        self._clock = clock
        self._ttl_ms = ttl_ms
        self._most_bytes = most_bytes
        self._written = 0

    async def find(self, key: str) -> Told | None:
        """The answer, if there is one and it still holds."""
        return await asyncio.to_thread(self._find, key)

    async def keep(self, told: Told) -> None:
        """Keep an answer. It is not worth an error: what cannot be written is only not kept."""
        try:
            await asyncio.to_thread(self._keep, told)
        except (OSError, UsageError) as error:
            log.warning("model_answer_not_kept", why=str(error))

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"

    def _find(self, key: str) -> Told | None:
        path = self._path(key)
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise NotToldError("it is too large")
            told, _ = read(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, NotToldError) as error:
            log.warning("kept_answer_unreadable", key=key, why=str(error))
            with suppress(OSError):
                path.unlink()
            return None
        age_ms = self._clock.now_ms() - told.at_ms
        return told if told.key == key and 0 <= age_ms < self._ttl_ms else None

    def _keep(self, told: Told) -> None:
        data = written(told)
        if len(data) > min(_MAX_BYTES, self._most_bytes):
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._folder)  # 0600: the answer to a prompt is the user's own
        made = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            made.replace(self._path(told.key))
        except BaseException:
            made.unlink()
            raise
        self._written += 1
        if self._written % _SWEEP_EVERY == 1:
            self._sweep()

    def _sweep(self) -> None:
        """The oldest go until the rest is no more than may be kept."""
        found = []
        for path in self._folder.glob(f"*{_SUFFIX}"):
            with suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found, key=lambda row: row[0]):
            if total <= self._most_bytes:
                return
            with suppress(OSError):
                path.unlink()
            total -= size

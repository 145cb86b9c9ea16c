"""What is on record about secrets: which were set, where each may be sent for agents, when it was last used.

Knows: the facts, and how often the host's own uses are stated. Does not know: values, or where they lie.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol

import structlog

from runloop.caps.destination import parse_destination
from runloop.clock import Clock
from runloop.errors import RunloopError, UsageError
from runloop.events import Draft, Event, SecretRemoved, SecretSet, SecretUsed
from runloopd.broker.toolbox import FAMILIES
from runloopd.journal import Journal

__all__ = ["SECRET_KINDS", "Destinations", "SecretBook", "SecretEntry", "check_destination"]

log = structlog.get_logger(__name__)

SECRET_KINDS = (SecretSet.kind, SecretRemoved.kind, SecretUsed.kind)
MAX_DESTINATIONS = 32
STATED_EVERY_MS = 3_600_000
"""Of the same use by the host itself; every call of a model has its own fact anyway."""
_MAX_TEXT = 200
_KINDS = ("mcp", "program")


class Destinations(Protocol):
    """Where a secret may be sent on behalf of agents."""

    def destinations(self, name: str) -> frozenset[str]:
        """None: nowhere."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretEntry:
    """What is known of one secret."""

    name: str
    store: str = ""
    destinations: frozenset[str] = frozenset()
    set_ms: int | None = None
    used_ms: int | None = None
    used_by: str = ""
    used_to: str = ""


def check_destination(text: str) -> str:
    """``text`` in canonical form. Raises :class:`UsageError` (``secret.destination``) for what is none."""
    kind, _, rest = text.partition(":")
    if kind in _KINDS and 0 < len(rest) <= _MAX_TEXT and rest.isprintable() and " " not in rest:
        return text
    if "/" in text:
        _no(text)
    try:
        place = parse_destination(f"https://{text}/").authority
    except RunloopError:
        _no(text)
    if place in FAMILIES:
        _no(text)  # a tool is no place: whoever calls it says where it sends what it is lent
    return place


def _no(text: str) -> NoReturn:
    raise UsageError(
        f"{text[:_MAX_TEXT]!r} is no destination of a secret",
        hint="give a host (api.example.org, localhost:8080), mcp:<server>, or program:<name>",
        code="secret.destination",
    )


class SecretBook:
    """The facts, folded; and the pen for new ones. Used from its event loop, but for :meth:`note`."""

    def __init__(self, journal: Journal, clock: Clock, before: Iterable[Event] = ()) -> None:
        """``before``: what was stated so far, in order. Made on the event loop it is used from."""
        self._journal = journal
        self._clock = clock
        self._entries: dict[str, SecretEntry] = {}
        self._stated: dict[tuple[str, str, str], int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        self._heard(before)
        journal.listen(self._heard)

    async def close(self) -> None:
        """Let what is being stated be stated."""
        self._loop = None
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def entries(self) -> dict[str, SecretEntry]:
        """By name."""
        return dict(self._entries)

    def destinations(self, name: str) -> frozenset[str]:
        """See :class:`Destinations`."""
        entry = self._entries.get(name)
        return frozenset() if entry is None else entry.destinations

    async def state_set(self, name: str, store: str, destinations: Iterable[str], principal: str) -> None:
        """State that a secret is being set, or where it may be sent."""
        where = sorted({check_destination(text) for text in destinations})
        if len(where) > MAX_DESTINATIONS:
            raise UsageError(
                f"{len(where)} destinations; a secret has at most {MAX_DESTINATIONS}",
                hint="use a secret of its own for each service",
                code="secret.destination",
            )
        fact = SecretSet(name=name, store=store, destinations=where, principal=principal)
        await self._journal.append(Draft(payload=fact, actor=principal, scope="system"))

    async def state_removed(self, name: str, principal: str) -> None:
        """State that a secret is being removed."""
        fact = SecretRemoved(name=name, principal=principal)
        await self._journal.append(Draft(payload=fact, actor=principal, scope="system"))

    def note(self, name: str, by: str, to: str) -> None:
        """A use by the host itself, from any thread: stated soon, at most once an hour for the same one."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._state_used, name, by[:_MAX_TEXT], to[:_MAX_TEXT])

    def _state_used(self, name: str, by: str, to: str) -> None:
        now = self._clock.now_ms()
        before = self._stated.get((name, by, to))
        if self._loop is None or (before is not None and now - before < STATED_EVERY_MS):
            return
        self._stated[(name, by, to)] = now
        task = asyncio.create_task(self._append(SecretUsed(name=name, by=by, to=to)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _append(self, fact: SecretUsed) -> None:
        try:
            await self._journal.append(Draft(payload=fact, actor="daemon", scope="system"))
        except RunloopError as error:
            # The use itself is on record where it was made (model.called, email.sent).
            log.warning("secret_use_unstated", secret=fact.name, by=fact.by, why=error.named_code)

    def _heard(self, events: Iterable[Event]) -> None:
        for event in events:
            match event.payload:
                case SecretSet() as fact:
                    old = self._entries.get(fact.name, SecretEntry(name=fact.name))
                    self._entries[fact.name] = replace(
                        old,
                        store=fact.store or old.store,
                        # Of before: a family of tools was a destination, wherever a call of it led.
                        destinations=frozenset(fact.destinations) - FAMILIES,
                        set_ms=event.ts_ms if fact.store else old.set_ms,
                    )
                case SecretRemoved() as fact:
                    self._entries.pop(fact.name, None)
                case SecretUsed() as fact:
                    old = self._entries.get(fact.name, SecretEntry(name=fact.name))
                    self._entries[fact.name] = replace(
                        old, used_ms=event.ts_ms, used_by=fact.by, used_to=fact.to
                    )

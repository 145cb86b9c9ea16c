"""Taking a fact back: what came of it, and which facts do not count at present.

Knows: how to walk from a source to everything that names it as a cause. Does not know: what that does to the
views (``pog.refold``), who may retract, or how runs and questions are held (``runloopd.authority``). Only
recorded causes count; none is inferred.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from pog.reader import Reader
from pog.refold import KNOWLEDGE, REFOLDS
from pog.trace import Trace
from runloop.errors import ConflictError, UsageError
from runloop.events import ActionRequested, Event, HostcallDelivered, SourceRestored, SourceRetracted

__all__ = ["Dependants", "dependants", "retracted", "retractions"]

MAX_DEPENDANTS = 100_000


# --- what came of it ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Dependants:
    """Everything that names a fact as a cause, directly or through others."""

    source: int
    facts: tuple[int, ...]
    """Knowledge, the source first."""
    effects: tuple[int, ...]
    """Every event reached, knowledge or not."""
    runs: tuple[str, ...]
    """Runs that heard of it."""
    approvals: tuple[str, ...]
    """Questions that were put because of it."""
    sent: tuple[int, ...]
    """Mails that left because of it: they cannot be taken back."""
    unlinked: tuple[str, ...]
    """Runs that read the knowledge by SQL after it was learnt: rows of a query name no source, so nobody can
    say whether these heard of it."""


def dependants(reader: Reader, trace: Trace, source: int) -> Dependants:
    """Walk forward from a fact. Raises :class:`UsageError` for one that is no knowledge."""
    event = reader.event(source)
    if event.kind not in KNOWLEDGE:
        raise UsageError(
            f"event {source} is {event.kind}; what can be retracted is what was learnt",
            hint="'rlp kb search' and 'rlp kb why' tell the event of a contact, note, mail or memory",
            code="kb.retract",
        )
    trace.catch_up()
    reached, frontier = {source}, [source]
    while frontier:
        frontier = [effect for effect in trace.effects(frontier) if effect not in reached]
        reached.update(frontier)
        if len(reached) > MAX_DEPENDANTS:
            raise ConflictError(
                f"more than {MAX_DEPENDANTS} events came of {source}",
                hint="retract what it led to first",
                code="kb.retract",
            )
    effects = sorted(reached - {source})
    events = [reader.event(effect) for effect in effects]
    return Dependants(
        source=source,
        facts=(source, *(event.id for event in events if event.kind in KNOWLEDGE)),
        effects=tuple(effects),
        runs=tuple(dict.fromkeys(event.run for event in events if event.run is not None)),
        approvals=tuple(
            dict.fromkeys(e.payload.approval for e in events if isinstance(e.payload, ActionRequested))
        ),
        sent=tuple(event.id for event in events if event.kind == "email.sent"),
        unlinked=_unlinked(reader, source, event.run),
    )


def _unlinked(reader: Reader, source: int, own: str | None) -> tuple[str, ...]:
    runs = (
        event.run
        for event in reader.events(kinds={HostcallDelivered.kind}, after=source)
        if cast(HostcallDelivered, event.payload).op == "kb.query" and event.run not in (None, own)
    )
    return tuple(dict.fromkeys(run for run in runs if run is not None))


def retractions(reader: Reader) -> dict[int, tuple[Event, Event | None]]:
    """Id of each retraction -> it, and what took it back."""
    found: dict[int, tuple[Event, Event | None]] = {}
    for event in reader.events(kinds=REFOLDS):
        if isinstance(event.payload, SourceRetracted):
            found[event.id] = (event, None)
        elif isinstance(event.payload, SourceRestored) and event.payload.retraction in found:
            found[event.payload.retraction] = (found[event.payload.retraction][0], event)
    return found


def retracted(reader: Reader) -> dict[int, Event]:
    """Id of each fact that does not count now -> the retraction that says so."""
    found: dict[int, Event] = {}
    for event, restored in retractions(reader).values():
        if restored is None:
            for fact in cast(SourceRetracted, event.payload).facts:
                found.setdefault(fact, event)
    return found

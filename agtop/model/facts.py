"""A fact as the cockpit holds it: an event of the ledger without its place in the hash chain.

Knows: how events of the ledger and of the wire become facts, and that a newer daemon may state kinds this
build has never heard of. Does not know: what facts mean (``model.reduce``), where they come from (``feed``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from runloop.errors import UsageError
from runloop.events import Event, Payload, Provenance, decode_payload, encode_payload

__all__ = ["Fact", "Unknown", "fact_of", "told"]

_NOTHING = Provenance()


class Unknown(Payload, frozen=True, kw_only=True):
    """What a kind says that this build does not know, as it was written."""

    fields: dict[str, Any] = {}


class Fact(msgspec.Struct, frozen=True, gc=False):
    """One event of one run."""

    id: int
    """Place in the ledger's chain."""
    ts_ms: int
    actor: str
    kind: str
    run: str | None
    payload: Payload
    provenance: Provenance = _NOTHING


def fact_of(event: Event | Mapping[str, Any]) -> Fact:
    """An event as the ledger's reader gives it, or as the wire does (``Event.to_json``).

    A kind, version or shape that is not known becomes :class:`Unknown`: it is counted, never guessed at.
    Raises :class:`UsageError` where not even id, time and kind are there.
    """
    if isinstance(event, Event):
        return Fact(
            id=event.id,
            ts_ms=event.ts_ms,
            actor=event.actor,
            kind=event.kind,
            run=event.run,
            payload=event.payload,
            provenance=event.provenance,
        )
    try:
        kind, fields = str(event["kind"]), event["payload"]
        return Fact(
            id=int(event["id"]),
            ts_ms=int(event["ts_ms"]),
            actor=str(event["actor"]),
            kind=kind,
            run=event["run"],
            payload=_payload(kind, fields, event.get("version", 1)),
            provenance=_provenance(event.get("provenance")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"not an event: {error!r}", code="event.shape") from error


def told(fact: Fact) -> dict[str, Any]:
    """What a fact says, as a JSON object."""
    if isinstance(fact.payload, Unknown):
        return fact.payload.fields
    return encode_payload(fact.payload)


def _payload(kind: str, fields: Any, version: int) -> Payload:
    try:
        return decode_payload(kind, fields, version)
    except UsageError:
        return Unknown(fields=fields if isinstance(fields, dict) else {"value": fields})


def _provenance(value: Any) -> Provenance:
    if not value:
        return _NOTHING
    try:
        return msgspec.convert(value, Provenance)
    except msgspec.ValidationError:
        return _NOTHING

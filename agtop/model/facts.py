"""A fact as the cockpit holds it: an event of the ledger without its place in the hash chain.

Knows: how events of the ledger and of the wire become facts, that a newer daemon may state kinds this build
has never heard of, and that of a long run most facts are never looked at: what the ledger has written stays
text until somebody asks for it. Does not know: what facts mean (``model.reduce``), where they come from
(``feed``).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from pog.chain import payload_decoder
from runloop.digest import blob_digest
from runloop.errors import UsageError
from runloop.events import KINDS, Event, Payload, Provenance, decode_payload, encode_payload

__all__ = ["Fact", "Unknown", "fact_of", "told", "unreadable"]

_NOTHING = Provenance()


class Unknown(Payload, frozen=True, kw_only=True):
    """What a kind says that this build does not know, as it was written."""

    fields: dict[str, Any] = {}


class Fact(msgspec.Struct, frozen=True, gc=False, eq=False):
    """One event of one run."""

    id: int
    """Place in the ledger's chain."""
    ts_ms: int
    actor: str
    kind: str
    run: str | None
    says: Payload | str
    """What it says, or that as the ledger has it: JSON of a kind and version that this build knows."""
    of: Provenance | str = _NOTHING

    @property
    def payload(self) -> Payload:
        """What it says. A text that is not what its kind says becomes :class:`Unknown`: the rest is still
        worth seeing, and ``rlp verify`` is where damage is judged."""
        says = self.says
        if not isinstance(says, str):
            return says
        try:
            return payload_decoder(KINDS[self.kind]).decode(says)
        except (ValueError, RecursionError) as error:
            return unreadable(error, says)

    @property
    def provenance(self) -> Provenance:
        """What it came of."""
        return _provenance_of(self.of) if isinstance(self.of, str) else self.of

    @property
    def known(self) -> bool:
        """Whether this build knows its kind, version and shape, as far as that is seen without reading it."""
        return type(self.says) is not Unknown

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fact):
            return NotImplemented
        return _parts(self) == _parts(other)

    __hash__ = None  # type: ignore[assignment]


def _parts(fact: Fact) -> tuple[object, ...]:
    return fact.id, fact.ts_ms, fact.actor, fact.kind, fact.run, fact.payload, fact.provenance


@lru_cache(maxsize=1_024)
def _provenance_of(text: str) -> Provenance:
    """Facts of one node share theirs."""
    try:
        return msgspec.json.decode(text, type=Provenance)
    except (ValueError, RecursionError):
        return _NOTHING


def unreadable(error: Exception, written: object) -> Unknown:
    """What is told of a fact that cannot be read."""
    raw = written.encode("utf-8", "surrogatepass") if isinstance(written, str) else b""
    return Unknown(fields={"unreadable": str(error), "bytes": len(raw), "digest": blob_digest(raw)})


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
            says=event.payload,
            of=event.provenance,
        )
    try:
        kind, fields = str(event["kind"]), event["payload"]
        return Fact(
            id=int(event["id"]),
            ts_ms=int(event["ts_ms"]),
            actor=str(event["actor"]),
            kind=kind,
            run=event["run"],
            says=_payload(kind, fields, event.get("version", 1)),
            of=_provenance(event.get("provenance")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"not an event: {error!r}", code="event.shape") from error


def told(fact: Fact) -> dict[str, Any]:
    """What a fact says, as a JSON object."""
    payload = fact.payload
    return payload.fields if isinstance(payload, Unknown) else encode_payload(payload)


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

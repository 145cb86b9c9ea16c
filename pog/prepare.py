"""From a draft to a row's texts: validated, canonical, known to be readable. Pure; nothing is stored here.

Knows: the closed schemas, the two ways to canonical text, what a draft must say of itself. Does not know: the
chain's present end or the file (``pog.ledger``).

Two ways to the same bytes. A kind whose fields are single texts, integers and truth values is held against
its shape, which proves the very types a reader's decoder asks for, and written by msgspec with sorted keys:
of such values that is the canonical text (tests/unit/pog/test_prepare.py compares the ways). Any other kind
is walked by ``runloop.digest.canonical``, and its text decoded once by what a reader uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache

import msgspec

from pog.chain import payload_decoder, setting
from pog.shapes import plain_shape
from runloop.digest import MAX_SAFE, canonical
from runloop.errors import UsageError
from runloop.events import KINDS, Draft, Payload, Provenance, encode_payload

__all__ = ["Prepared", "prepare"]

_SCOPE = re.compile(r"(user|system|agent:[a-z][a-z0-9_]{0,63})\Z")
encode = msgspec.json.Encoder(order="sorted").encode
convert, astuple = msgspec.convert, msgspec.structs.astuple
_decode_provenance = msgspec.json.Decoder(Provenance).decode


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A draft that is known to be storable: validated, with its canonical texts."""

    draft: Draft
    payload: Payload
    """As a reader will see it."""
    payload_text: bytes
    provenance_text: bytes
    setting: bytes
    """The framed parts of the link between time and payload."""


def prepare(draft: Draft) -> Prepared:
    """Validate a draft and write its canonical texts.

    Raises :class:`UsageError` for a kind, payload, provenance, scope or text that the ledger refuses.
    """
    kind = draft.payload.kind
    known = KINDS.get(kind)
    if known is not type(draft.payload):
        raise UsageError(f"unknown event kind {kind!r}", code="event.kind")
    scope = draft.scope
    if not draft.actor or draft.run == "" or not (scope == "user" or _SCOPE.match(scope)):
        raise UsageError(
            f"{kind}: actor {draft.actor!r}, scope {scope!r}, run {draft.run!r}",
            hint="scope is user, system or agent:<name>; actor and run are not empty",
            code="event.shape",
        )
    try:
        payload, text = _writer(known)(draft.payload)
        stamp = _stamp(draft.provenance)
        place = setting(draft.actor, kind, known.version, scope, draft.run)
    except (msgspec.ValidationError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise UsageError(f"{kind}: {error}", code="event.shape") from error
    return Prepared(draft, payload, text, stamp, place)


# --- payloads -------------------------------------------------------------------------------------

_Writer = Callable[[Payload], tuple[Payload, bytes]]


@cache
def _writer(kind: type[Payload]) -> _Writer:
    shape = plain_shape(kind)
    if shape is None:
        decode = payload_decoder(kind).decode

        def walk(payload: Payload) -> tuple[Payload, bytes]:
            text = canonical(encode_payload(payload))
            return decode(text), text

        return walk

    def hold(payload: Payload) -> tuple[Payload, bytes]:
        convert(astuple(payload), shape)
        return payload, encode(payload)

    return hold


def _check_number(number: int | None) -> None:
    if number is not None and not -MAX_SAFE <= number <= MAX_SAFE:
        raise UsageError(
            f"the number {number} is beyond 2^53-1", hint="write it as a string", code="json.number"
        )


# --- provenance -----------------------------------------------------------------------------------


def _stamp(stamp: Provenance) -> bytes:
    try:
        return _known_stamp(stamp)
    except TypeError:  # causes as a list have no hash
        return _provenance_text(stamp)


def _provenance_text(stamp: Provenance) -> bytes:
    found = _decode_provenance(encode(stamp))
    for number in (*found.causes, found.attempt, found.call, found.msg_id):
        _check_number(number)
    return encode(found)


_known_stamp = lru_cache(maxsize=1024)(_provenance_text)

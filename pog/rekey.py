"""One signing key after another: which key may have signed which head, and how that is proven.

Knows: the statement with which a key vouches for what the key before it has signed, and how the present key
leads back to every earlier one. Does not know: when a key is exchanged (``maintain.rotate``), or where keys
lie.

Only the present key is believed of itself. It vouches for the one before by signing that key's public half
together with the last event it was in charge of: a head by the earlier key over anything later counts
nothing, so a key that was stolen after its time signs no history.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from runloop.digest import framed
from runloop.events import LedgerRekeyed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["KIND", "Reign", "reigns", "rekeyed"]

KIND = LedgerRekeyed.kind
_DOMAIN = b"runloop.ledger.rekey.v1"


class Reign(msgspec.Struct, frozen=True, kw_only=True):
    """The time of one key."""

    public: bytes
    last: int | None
    """The last event it may have signed a head for; None: it is the present one."""

    def signs(self, event: int) -> bool:
        """Whether a head over ``event`` may be its."""
        return self.last is None or event <= self.last


def rekeyed(
    before: bytes,
    after: Ed25519PrivateKey,
    *,
    last: int,
    last_hash: bytes,
    principal: str,
    handing: Ed25519PrivateKey | None = None,
) -> LedgerRekeyed:
    """The fact that ``after`` follows the key whose public half is ``before``, as event ``last`` + 1.

    ``handing``: the earlier key itself, which then says so too; who comes back to an old backup has it no
    more.
    """
    public = after.public_key().public_bytes_raw()
    statement = _statement(before, public, last, last_hash)
    return LedgerRekeyed(
        before=before.hex(),
        after=public.hex(),
        last=last,
        last_hash=last_hash.hex(),
        vouched=after.sign(statement).hex(),
        handed=None if handing is None else handing.sign(statement).hex(),
        principal=principal,
    )


def reigns(connection: sqlite3.Connection, public: bytes) -> list[Reign]:
    """The present key (``public``), and those it vouches for, directly or through others; newest first.

    A fact that proves nothing ends the way: what lies before it is signed by nobody we know.
    """
    found = [Reign(public=public, last=None)]
    for event, previous, text in _facts(connection):
        try:
            fact = msgspec.json.decode(text, type=LedgerRekeyed)
            before, last_hash = bytes.fromhex(fact.before), bytes.fromhex(fact.last_hash)
            holds = (
                bytes.fromhex(fact.after) == found[-1].public
                and (fact.last, last_hash) == (event - 1, previous)
                and _vouched(found[-1].public, bytes.fromhex(fact.vouched), before, fact.last, last_hash)
            )
        except ValueError:  # msgspec's errors are ValueErrors
            holds = False
        if not holds:
            break
        found.append(Reign(public=before, last=event - 1))
    return found


def _facts(connection: sqlite3.Connection) -> Iterator[tuple[int, bytes, str]]:
    yield from connection.execute(
        "SELECT id, prev_hash, payload FROM events WHERE kind = ? ORDER BY id DESC", (KIND,)
    )


def _vouched(public: bytes, signature: bytes, before: bytes, last: int, last_hash: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        verifier = Ed25519PublicKey.from_public_bytes(public)
        verifier.verify(signature, _statement(before, public, last, last_hash))
    except (InvalidSignature, ValueError):
        return False
    return True


def _statement(before: bytes, after: bytes, last: int, last_hash: bytes) -> bytes:
    return framed(_DOMAIN, before, after, last.to_bytes(8, "big"), last_hash)

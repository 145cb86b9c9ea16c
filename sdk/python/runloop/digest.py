"""Canonical JSON (RFC 8785) and BLAKE3: the only hashing in the house.

Two paths to the same bytes: orjson with sorted keys where a type walk proves the result equal, ``jcs``
elsewhere. Both sit behind one guard, because ``jcs`` alone maps distinct large integers to the same text
(2^53 and 2^53+1), and because orjson sorts by code point while RFC 8785 sorts by UTF-16 unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jcs
import orjson
from blake3 import blake3

from runloop.errors import UsageError

__all__ = [
    "MAX_SAFE",
    "blob_digest",
    "blob_hash",
    "canonical",
    "digest",
    "framed",
    "hasher",
    "keyed_stream",
    "stream_digest",
]

MAX_SAFE = 2**53 - 1
"""Largest magnitude of any JSON number in Runloop; larger values travel as strings."""

_MAX_DEPTH = 64


def _plain(value: Any, depth: int) -> bool:
    """Refuse what has no canonical form; tell whether orjson's bytes are the canonical ones."""
    kind = type(value)
    if kind is str:
        return True
    if kind is int:
        if -MAX_SAFE <= value <= MAX_SAFE:
            return True
        raise UsageError(
            f"the number {value} is beyond 2^53-1", hint="write it as a string", code="json.number"
        )
    if kind is bool or value is None:
        return True
    if depth >= _MAX_DEPTH:
        raise UsageError(f"JSON nested deeper than {_MAX_DEPTH}", code="json.depth")
    if kind is dict:
        return _plain_object(value, depth)
    if kind is list or kind is tuple:
        plain = True
        for item in value:
            if type(item) is not str and not _plain(item, depth + 1):
                plain = False
        return plain
    if kind is float:
        if not -MAX_SAFE <= value <= MAX_SAFE:  # also refuses NaN and the infinities
            raise UsageError(
                f"the number {value} has no canonical form", hint="write it as a string", code="json.number"
            )
        return False  # number formatting differs between orjson and ECMAScript
    raise UsageError(f"{kind.__name__} is not a JSON value", code="json.type")


def _plain_object(value: dict[Any, Any], depth: int) -> bool:
    plain = True
    for key, item in value.items():
        if type(key) is not str:
            raise UsageError(f"JSON key {key!r} is not a string", code="json.key")
        # Above U+D7FF, UTF-16 order (RFC 8785 §3.2.3) and code point order may differ.
        if not key.isascii() and max(key) >= "\ud800":
            plain = False
        # Most items are texts: spare them the call.
        if type(item) is not str and not _plain(item, depth + 1):
            plain = False
    return plain


def canonical(value: Any) -> bytes:
    """The RFC 8785 bytes of a JSON value.

    Raises :class:`UsageError` for what has none here: numbers beyond 2^53-1, NaN, keys that are not
    strings, lone surrogates, other types, nesting beyond 64.
    """
    try:
        if _plain(value, 0):
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        return bytes(jcs.canonicalize(value))
    except (TypeError, UnicodeEncodeError) as error:
        raise UsageError(f"not canonical JSON: {error}", code="json.type") from error


def digest(value: Any) -> str:
    """BLAKE3 of the canonical text of a JSON value, as 64 lower-case hex characters."""
    return blake3(canonical(value)).hexdigest()


def blob_digest(data: bytes) -> str:
    """BLAKE3 of raw bytes, as 64 lower-case hex characters."""
    return blake3(data).hexdigest()


def stream_digest(chunks: Iterable[bytes]) -> str:
    """:func:`blob_digest` of the chunks joined, without holding them all."""
    hasher = blake3()
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.hexdigest()


def blob_hash(data: bytes) -> bytes:
    """BLAKE3 of raw bytes, as 32 bytes."""
    return blake3(data).digest()


def hasher() -> Callable[[bytes], bytes]:
    """:func:`blob_hash` for one thread that hashes much: the state, half the cost, is made once."""
    state = blake3()
    reset, update, digest_of = state.reset, state.update, state.digest

    def hash_of(data: bytes) -> bytes:
        reset()
        update(data)
        return digest_of()

    return hash_of


def framed(*parts: bytes) -> bytes:
    """Join parts so that no two lists share bytes: each is preceded by its length as u64 (attacks.md L3)."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def keyed_stream(key: bytes, data: bytes, units: int) -> bytes:
    """Two bytes for each unit, which nobody can foretell or take back without the 32 bytes of ``key``."""
    return blake3(data, key=key).digest(length=2 * max(1, units))

"""Where in a row that does not chain the change is: the column, where trying all values of one byte tells.

Knows: how much work that may cost. Does not know: where rows come from, or what is done about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from pog.chain import RawRow, Row, link
from runloop.digest import canonical
from runloop.errors import UsageError

__all__ = ["SEARCHES", "blame", "locate", "misfit", "relink"]

_SEARCH_BYTES = 384 * 1024 * 1024
"""Bytes hashed, at most, to find out which byte of the first bad rows was changed."""
SEARCHES = 3
"""Bad rows for which that is tried."""


def relink(raw: RawRow, prev_hash: bytes) -> bytes | None:
    """The hash a row should have behind ``prev_hash``; None when its cells are of no type that is written."""
    event_id, ts_ms, actor, kind, version, scope, run, payload, provenance = raw[:9]
    if not all(isinstance(number, int) for number in (event_id, ts_ms, version)):
        return None
    if not all(isinstance(text, bytes) for text in (actor, kind, scope, payload, provenance)):
        return None
    if not isinstance(prev_hash, bytes) or len(prev_hash) != 32:
        return None
    return link(
        prev_hash,
        event_id=event_id,
        ts_ms=ts_ms,
        actor=actor,
        kind=kind,
        version=version,
        scope=scope,
        run=run,
        payload=payload,
        provenance=provenance,
    )


def locate(raw: RawRow, prev_hash: bytes, *, search: bool) -> tuple[str | None, str]:
    """Which column of a row that does not chain was changed."""
    own = raw[9]
    if raw[10] != prev_hash:
        if relink(raw, prev_hash) == own:
            return "prev_hash", "its prev_hash is not the hash of the event before it"
        return "prev_hash", "it does not follow the event before it"
    for column, candidate in _one_byte_off(raw) if search else ():
        if relink(candidate, prev_hash) == own:
            return column, f"one byte of {column} was changed"
    if _differ_in_one_byte(own, relink(raw, prev_hash)):
        return "hash", "one byte of its hash was changed"
    bad = misfit(raw)
    if bad:
        return bad, f"{bad} is not what was written"
    return None, "its hash does not fit its content"


def blame(raw: RawRow) -> tuple[str, str]:
    """The column of a row that does not hash to its own hash, on the assumption that one byte was changed:
    where that byte is, if the search can afford it, and else the one column that is left."""
    own, prev_hash = raw[9], raw[10]
    if not isinstance(prev_hash, bytes):
        return "prev_hash", "its prev_hash is no hash"
    if _differ_in_one_byte(own, relink(raw, prev_hash)):
        return "hash", "one byte of its hash was changed"
    for candidate in _near_bytes(prev_hash):
        if relink(raw, candidate) == own:
            return "prev_hash", "one byte of its prev_hash was changed"
    short = sorted(range(9), key=lambda index: len(raw[index]) if isinstance(raw[index], bytes) else 8)
    for column, changed in _one_byte_off(raw, short):
        if relink(changed, prev_hash) == own:
            return column, f"one byte of its {column} was changed"
    longest = misfit(raw) or Row._fields[short[-1]]
    return longest, f"its {longest} is not what was written, or more than one byte of the row was changed"


def _differ_in_one_byte(first: Any, second: bytes | None) -> bool:
    if second is None or not isinstance(first, bytes) or len(first) != len(second):
        return False
    return sum(a != b for a, b in zip(first, second, strict=True)) == 1


def _one_byte_off(raw: RawRow, columns: Iterable[int] = range(9)) -> Iterator[tuple[str, RawRow]]:
    """The row with every single byte of these columns set to every value, as far as the budget goes."""
    work = sum(len(cell) for cell in raw if isinstance(cell, bytes)) + 64
    budget = _SEARCH_BYTES // work
    for index in columns:
        name, cell = Row._fields[index], raw[index]
        if isinstance(cell, int):
            variants: Iterable[Any] = _near_numbers(cell)
        elif isinstance(cell, bytes):
            variants = _near_bytes(cell)
        else:
            continue
        for variant in variants:
            budget -= 1
            if budget < 0:
                return
            yield name, (*raw[:index], variant, *raw[index + 1 :])


def _near_numbers(number: int) -> Iterator[int]:
    packed = number.to_bytes(8, "big", signed=True)
    for changed in _near_bytes(packed):
        yield int.from_bytes(changed, "big", signed=True)


def _near_bytes(data: bytes) -> Iterator[bytes]:
    for place, byte in enumerate(data):
        before, after = data[:place], data[place + 1 :]
        for delta in range(1, 256):
            yield before + bytes((byte ^ delta,)) + after


def misfit(raw: RawRow) -> str | None:
    """The first column whose text is not the canonical JSON it must be; None when both are."""
    for name in ("payload", "provenance"):
        try:
            text = raw[Row._fields.index(name)]
            if canonical(msgspec.json.decode(text)) != text:
                return name
        except (msgspec.DecodeError, UsageError, TypeError, ValueError, RecursionError):
            return name
    return None

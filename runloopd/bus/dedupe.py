"""Which message ids were seen lately: two generations of keys, bounded in number and age.

A key is 24 bytes, trace and message id; it belongs to a publisher, whose identity is the *tag* before it. An
id never seen is new to every receiver, so the common case is one probe and one insert per message, however
many receivers there are; only a hit asks who failed to get the message (``GivenBack``), or came later.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["CAPACITY", "MAX_AGE_MS", "STAMP_SHIFT", "Dedupe", "GivenBack"]

CAPACITY = 65_536
MAX_AGE_MS = 30_000
STAMP_SHIFT = 20
"""A stamp has the milliseconds above these bits."""

_Generation = dict[bytes, dict[bytes, int]]
"""By publisher, then by key: no key has to be put together to be asked for."""


class Dedupe:
    """Remembers at least the last ``capacity`` keys of the last ``max_age_ms``, at most twice as many."""

    def __init__(self, *, capacity: int = CAPACITY, max_age_ms: int = MAX_AGE_MS) -> None:
        self._capacity = capacity
        self._max_age_ms = max_age_ms
        self._young: _Generation = {}
        self._old: _Generation = {}
        self._young_count = self._old_count = 0
        self._turned_ms = 0
        self._stamp = 0

    def __len__(self) -> int:
        return self._young_count + self._old_count

    def stamp(self, now_ms: int) -> int:
        """A number larger than every one before it, with the time in its upper bits."""
        self._stamp = max(self._stamp + 1, now_ms << STAMP_SHIFT)
        return self._stamp

    def first(self, tag: bytes, key: bytes, now_ms: int) -> int | None:
        """Remember the key and return None when it is new; else the stamp it was first seen with."""
        young, old = self._young.get(tag), self._old.get(tag)
        seen = None if young is None else young.get(key)
        if seen is None and old is not None:
            seen = old.get(key)
        if seen is not None and now_ms - (seen >> STAMP_SHIFT) <= self._max_age_ms:
            return seen
        if self._young_count >= self._capacity or now_ms - self._turned_ms > self._max_age_ms:
            self._turn(now_ms)
        self._young.setdefault(tag, {})[key] = self.stamp(now_ms)
        self._young_count += 1
        return None

    def first_all(self, tag: bytes, keys: Sequence[bytes], now_ms: int) -> bool:
        """Remember all the keys; False when they must be looked at one by one: one is known, a turn due."""
        count = self._young_count + len(keys)
        if count > self._capacity or now_ms - self._turned_ms > self._max_age_ms:
            return False
        fresh = dict.fromkeys(keys, self.stamp(now_ms))
        young, old = self._young.setdefault(tag, {}), self._old.get(tag)
        if len(fresh) != len(keys) or not young.keys().isdisjoint(fresh):
            return False
        if old is not None and not old.keys().isdisjoint(fresh):
            return False
        young.update(fresh)
        self._young_count = count
        return True

    def _turn(self, now_ms: int) -> None:
        self._old, self._old_count = self._young, self._young_count
        self._young, self._young_count = {}, 0
        self._turned_ms = now_ms


class GivenBack:
    """Keys whose delivery failed, with the receivers that did not get the message; at most ``capacity``."""

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._failed: dict[bytes, set[int]] = {}

    def add(self, key: bytes, receiver: int) -> None:
        """A delivery failed: the same message may be delivered to this receiver once more."""
        if len(self._failed) >= self._capacity:
            self._failed.pop(next(iter(self._failed)))
        self._failed.setdefault(key, set()).add(receiver)

    def take(self, key: bytes) -> frozenset[int]:
        """Take the receivers that gave the key back."""
        return frozenset(self._failed.pop(key, ()))

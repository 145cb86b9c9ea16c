"""Which message ids were seen lately: two generations of keys, bounded in number and age.

A key is the publisher's identity and the 24 bytes of trace and message id. An id never seen is new to every
receiver, so the common case is one probe and one insert per message, however many receivers there are; only
a hit asks who failed to get the message, or came later (``failed``).
"""

from __future__ import annotations

__all__ = ["Dedupe"]


class Dedupe:
    """Remembers at least the last ``capacity`` keys of the last ``max_age_ms``, at most twice as many."""

    def __init__(self, *, capacity: int = 65_536, max_age_ms: int = 30_000) -> None:
        self._capacity = capacity
        self._max_age_ms = max_age_ms
        self._young: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}
        self._turned_ms = 0
        self._stamp = 0
        self._failed: dict[bytes, set[int]] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def stamp(self, now_ms: int) -> int:
        """A number larger than every one before it, with the time in its upper bits."""
        self._stamp = max(self._stamp + 1, now_ms << 24)
        return self._stamp

    def first(self, key: bytes, now_ms: int) -> int | None:
        """Remember the key and return None when it is new; else the stamp it was first seen with."""
        young = self._young
        seen = young.get(key)
        if seen is None:
            seen = self._old.get(key)
        if seen is not None and now_ms - (seen >> 24) <= self._max_age_ms:
            return seen
        if len(young) >= self._capacity or now_ms - self._turned_ms > self._max_age_ms:
            self._old, self._young = young, {}
            young = self._young
            self._turned_ms = now_ms
        self._stamp = stamp = max(self._stamp + 1, now_ms << 24)
        young[key] = stamp
        return None

    def give_back(self, key: bytes, receiver: int) -> None:
        """A delivery failed: the same message may be delivered to this receiver once more."""
        if len(self._failed) >= self._capacity:
            self._failed.pop(next(iter(self._failed)))
        self._failed.setdefault(key, set()).add(receiver)

    def failed(self, key: bytes) -> frozenset[int]:
        """Take the receivers that gave the key back."""
        return frozenset(self._failed.pop(key, ()))

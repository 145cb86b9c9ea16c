"""The bytes of a run with stand-ins in them, and the way from old digests to new ones.

Knows: that a digest of something that goes would let whoever guesses it see that they guessed right, so that
every hash which is not made again is replaced as well, the same everywhere. Does not know: events, or guests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from pog.sealed.seal import Content
from pog.sealed.standins import Kind, Standins
from runloop.digest import blob_digest, canonical, keyed_stream
from runloop.errors import RunloopError
from runloop.events import RunStarted

__all__ = ["STRUCTURE", "Bytes"]

STRUCTURE = frozenset(
    {
        "node",
        "op",
        "agent",
        "effect",
        "capability",
        "type",
        "act",
        "outcome",
        "status",
        "code",
        "timer",
        "port",
    }
    | {
        "opening",
        "provider",
        "model",
        "sender",
        "receiver",
        "topic",
        "id",
        "use",
        "from",
        "to",
        "kind",
        "via",
    }
    | {"before", "after", "trigger", "instance", "decision", "holder", "principal", "bundle", "finish"}
)
"""Keys whose texts are what programs call things: a word of a name is left alone there."""
_HASH = re.compile(
    r"(?<![0-9A-Za-z])(?<!msg_)"
    r"(?:[0-9a-f]{128}|[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32}|[0-9a-f]{16})(?![0-9A-Za-z])"
)
"""What may be a hash; the id of a message is drawn from its place in the run, not from what it says."""


class Bytes:
    """The bytes of the derived record, and the way from old digests to new ones."""

    def __init__(self, old: Content, standins: Standins, salt: bytes) -> None:
        self._old = old
        self._standins = standins
        self._salt = salt
        self._kept = _public(old)
        self._digests: dict[str, str] = {}
        self.made: dict[str, bytes] = {}
        self.places: list[dict[str, Any]] = []
        self.unknown: set[str] = set()

    def put(self, data: bytes, instead: str | None = None) -> str:
        """Keep bytes; ``instead`` of those of an old digest. Returns their digest."""
        name = blob_digest(data)
        self.made[name] = data
        if instead is not None:
            self._digests[instead] = name
        return name

    def know(self, old: str, new: str) -> None:
        """From here on the one stands for the other."""
        self._digests[old] = new

    def blob(self, old: str) -> str:
        """The digest of the bytes that stand for old ones."""
        if old not in self._digests:
            data = self._old.blobs[old]
            before = self._standins.tally.copy()
            made = self._changed(data)
            self.put(made, old)
            self.note({"blob": self._digests[old]}, self._standins.tally - before)
        return self._digests[old]

    def note(self, place: Mapping[str, Any], tally: Mapping[Kind, int]) -> None:
        """Something was replaced there."""
        self.places += [{**place, "kind": kind, "places": count} for kind, count in sorted(tally.items())]

    def value(self, value: Any, *, structure: frozenset[str] = frozenset()) -> Any:
        """A JSON value with stand-ins, and with the hashes of what they stand for."""
        return self._rehashed(self._standins.value(value, structure=structure))

    def text(self, text: str) -> str:
        """The same of one text, in which words of names are names of programs."""
        return self._rehash(self._standins.text(text, names=False))

    def _changed(self, data: bytes) -> bytes:
        try:
            value = msgspec.json.decode(data)
            if canonical(value) == data:
                return canonical(self.value(value))
        except (msgspec.DecodeError, RunloopError, ValueError, RecursionError):
            pass
        made = self._standins.data(data).decode("utf-8", "surrogateescape")
        return self._rehash(made).encode("utf-8", "surrogateescape")

    def _rehashed(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._rehash(value)
        if isinstance(value, dict):
            return {self._rehash(key): self._rehashed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._rehashed(item) for item in value]
        return value

    def _rehash(self, text: str) -> str:
        return _HASH.sub(lambda found: self._hash(found[0]), text) if len(text) >= 16 else text

    def _hash(self, old: str) -> str:
        if old in self._kept or old in self.made:
            return old
        if old in self._old.blobs:
            return self.blob(old)
        known = self._digests.get(old)
        if known is None:
            known = self._digests[old] = keyed_stream(self._salt, b"hash\0" + old.encode(), len(old)).hex()[
                : len(old)
            ]
            self.unknown.add(old)
        return known


def _public(content: Content) -> frozenset[str]:
    """Digests of what is no secret of the run: its agents, its ids, what it was executed with."""
    found = set(content.bundles)
    for event in content.events:
        if isinstance(event.payload, RunStarted):
            for pin in event.payload.agents.values():
                found |= {pin.bundle_digest, pin.component_digest}
    return frozenset(found | {run.replace("-", "") for run in content.runs})

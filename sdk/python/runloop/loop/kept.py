"""Results too large for a conversation: kept as artifacts, told in one line, read in slices.

Knows: when a result is too large, how it is told, how a slice of it is read again. Does not know: tools. A
result has the trust label of what gave it, and so has every slice.
"""

from __future__ import annotations

import base64
import codecs
from typing import Any, NamedTuple

from runloop.host import Host, HostRefused
from runloop.loop.conversation import brief, compact
from runloop.loop.toolbox import Seen, Tool

__all__ = ["READ", "Kept"]

READ = "result.read"
_SLICE = 4_000
"""Bytes of one slice."""
_BEGINS = 600
"""Characters of a kept result that are shown at once."""


class _One(NamedTuple):
    digest: str
    label: str
    size: int


class Kept:
    """What one loop put aside."""

    def __init__(self, host: Host, limit_chars: int) -> None:
        self._host = host
        self._limit = limit_chars
        self._slice = min(_SLICE, limit_chars // 2)
        self._all: dict[str, _One] = {}

    def tool(self) -> Tool:
        """Reads what was put aside."""
        return Tool(
            name=READ,
            description="Read part of a result that was too long to be shown, by the name it was kept under.",
            parameters={
                "properties": {
                    "kept": {"type": "string", "description": "as the result says: r1, r2 …"},
                    "offset": {
                        "type": "integer",
                        "minimum": 0,
                        "description": "in bytes; 0 is the beginning",
                    },
                },
                "required": ["kept"],
                "additionalProperties": False,
            },
            run=self._read,
        )

    def told(self, name: str, seen: Seen) -> tuple[str, str]:
        """What the model is told of a result, whole and in one line."""
        head: dict[str, Any] = {"tool": name, "trust": seen.label}
        whole = compact({**head, "result": seen.value})
        line = {**head, "summary": brief(seen.value)}
        if len(whole) <= self._limit:
            return whole, compact(line)
        text = seen.value if isinstance(seen.value, str) else compact(seen.value)
        kept = self._keep(text, seen.label)
        if kept is not None:
            line |= {"kept": kept, "bytes": self._all[kept].size, "blob": self._all[kept].digest}
        else:
            line |= {"cut": True}
        return compact({**line, "begins": text[: min(_BEGINS, self._limit // 4)]}), compact(line)

    def _keep(self, text: str, label: str) -> str | None:
        """A name for the text, or None where artifacts may not be made: then the rest of it is lost."""
        name = f"r{len(self._all) + 1}"
        try:
            digest = self._host.put_artifact(f"result-{name}.txt", text.encode(errors="replace").decode())
        except HostRefused:
            return None
        self._all[name] = _One(digest, label, len(text.encode(errors="replace")))
        return name

    def _read(self, args: dict[str, Any]) -> Seen:
        name, offset = str(args["kept"]), int(args.get("offset", 0))
        one = self._all.get(name)
        if one is None:
            known = ", ".join(self._all) or "nothing"
            raise HostRefused("loop.kept", f"nothing is kept as {name[:40]!r}; there is {known}")
        answer = self._host.call("blob.read", {"digest": one.digest, "offset": offset, "length": self._slice})
        part = base64.b64decode(answer["base64"])
        text, read = _whole_characters(part)
        more = offset + read < one.size
        value = {"kept": name, "offset": offset, "bytes": one.size, "text": text}
        return Seen({**value, "next": offset + read} if more else value, one.label)


def _whole_characters(part: bytes) -> tuple[str, int]:
    """The text of a slice, and how many bytes were read: a character cut at its end is the next slice's, the
    rest of one at its beginning is nobody's."""
    rest = next((n for n, byte in enumerate(part[:4]) if byte & 0xC0 != 0x80), len(part[:4]))
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(part[rest:])
    return text, len(part) - len(decoder.getstate()[0])

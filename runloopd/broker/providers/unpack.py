"""Content codings of HTTP, taken off piece by piece within a bound.

Knows: gzip and deflate. Everything else is refused unread, and so is one coding inside another: what is
never unpacked cannot be a bomb (attacks.md W8). Does not know: how long an answer may be (the caller gives
the room that is left), or where the bytes come from.
"""

from __future__ import annotations

import zlib

from runloopd.broker.ports import ProviderError

__all__ = ["ACCEPTED", "Unpacker", "unpacker"]

ACCEPTED = "gzip, deflate"
"""What a request asks for."""

_GZIP, _ZLIB, _RAW = 31, 15, -15
_MAX_MEMBERS = 100
"""Of one gzip stream; a stream of empty ones costs time and gives nothing."""


class Unpacker:
    """Takes off no coding at all."""

    complete = True
    """Whether the stream may end here."""

    def feed(self, data: bytes, room: int) -> bytes:
        """What ``data`` unpacks to, at most ``room`` bytes (at least 1); what does not fit is dropped."""
        return data[:room]


class _Inflate(Unpacker):
    def __init__(self, *window_bits: int) -> None:
        """``window_bits``: the forms the stream may have, likeliest first."""
        self._forms = list(window_bits)
        self._engine = zlib.decompressobj(self._forms.pop(0))
        self._begun = False
        self._members = 1
        self.complete = True  # an empty answer has no coding to take off

    def feed(self, data: bytes, room: int) -> bytes:
        out = bytearray()
        while data and len(out) < room:
            data = self._step(data, room - len(out), out)
        self.complete = self._engine.eof
        return bytes(out)

    def _step(self, data: bytes, room: int, out: bytearray) -> bytes:
        """Unpack once; return what is left of ``data``."""
        if self._engine.eof:
            self._next_member()
        try:
            out += self._engine.decompress(data, room)
        except zlib.error:
            if self._begun or not self._forms:
                raise broken() from None
            # "deflate" is zlib by the standard and bare by the habit of some servers.
            self._engine = zlib.decompressobj(self._forms.pop(0))
            return data
        self._begun = True
        return self._engine.unused_data if self._engine.eof else self._engine.unconsumed_tail

    def _next_member(self) -> None:
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise broken()
        self._engine = zlib.decompressobj(_GZIP)


def unpacker(encoding: str) -> Unpacker:
    """For a ``Content-Encoding``; raises :class:`ProviderError` (``http.encoding``) for a foreign one."""
    names = [name for word in encoding.lower().split(",") if (name := word.strip()) not in ("", "identity")]
    match names:
        case []:
            return Unpacker()
        case ["gzip" | "x-gzip"]:
            return _Inflate(_GZIP)
        case ["deflate"]:
            return _Inflate(_ZLIB, _RAW)
    raise ProviderError(
        "the answer is packed in a way that was not asked for",
        hint="that server must answer in gzip, deflate or unpacked",
        code="http.encoding",
    )


def broken() -> ProviderError:
    """The stream cannot be unpacked."""
    return ProviderError("the answer cannot be unpacked", hint="look at that server", code="http.encoding")

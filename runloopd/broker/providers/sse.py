"""Two framings of streamed answers, without I/O: server-sent events and one JSON object per line.

Knows: line ends, UTF-8 cut between chunks, and bounds. Does not know: what an event means, or whether the
stream ended where it should.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["JsonLines", "ServerSentEvent", "ServerSentEvents", "StreamTooLargeError"]

MAX_LINE = 1024 * 1024
"""Bytes of one line, and of the data of one event."""


class StreamTooLargeError(ValueError):
    """A line or an event beyond the bound."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event of the stream; ``name`` is ``message`` where the server gave none."""

    name: str
    data: str


class JsonLines:
    """Splits bytes into lines that are not empty."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines completed by ``data``."""
        self._rest += data
        if b"\n" not in data and len(self._rest) <= MAX_LINE:
            return []  # a line that comes in a million pieces is not searched a million times
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        if len(rest) > MAX_LINE or any(len(line) > MAX_LINE for line in lines):
            raise StreamTooLargeError("a line of the stream is too long")
        return [line for line in (line.strip() for line in lines) if line]

    def end(self) -> list[bytes]:
        """The last line, when it came without its line end."""
        rest, self._rest = bytes(self._rest).strip(), bytearray()
        return [rest] if rest else []


class ServerSentEvents:
    """Parses ``text/event-stream`` as the HTML standard describes it; ids and retry times are ignored."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._held = b""
        self._begun = False
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events completed by ``data``. An event without its empty line never completes."""
        self._rest += data
        if not self._begun:
            if len(self._rest) < 3 and b"\xef\xbb\xbf".startswith(self._rest):
                return []
            self._begun = True
            if self._rest.startswith(b"\xef\xbb\xbf"):
                del self._rest[:3]
        elif not self._held and b"\n" not in data and b"\r" not in data and len(self._rest) <= MAX_LINE:
            return []  # a line that comes in a million pieces is not searched a million times
        # A final CR may be the first half of CR LF: it waits for the next chunk.
        held = self._held = b"\r" if self._rest.endswith(b"\r") else b""
        text = bytes(self._rest[: len(self._rest) - len(held)])
        *lines, rest = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = bytearray(rest + held)
        if len(rest) > MAX_LINE:
            raise StreamTooLargeError("a line of the stream is too long")
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: bytes) -> ServerSentEvent | None:
        if not line:
            event = ServerSentEvent(self._name or "message", "\n".join(self._data)) if self._data else None
            self._name, self._data, self._size = "", [], 0
            return event
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value) + 1
            if self._size > MAX_LINE:
                raise StreamTooLargeError("an event of the stream is too long")
            self._data.append(value.decode(errors="replace"))
        elif field == b"event":
            self._name = value.decode(errors="replace")
        return None

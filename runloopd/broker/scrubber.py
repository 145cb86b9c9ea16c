"""Keeps the text of known secrets out of foreign text, in the encodings they are known to come back in.

Knows: the spellings of a value (plain, hex, base64 at every offset, URL, JSON, HTML, UTF-16) and that a text
may arrive in pieces (attacks.md K1, K2). Does not know: where secrets lie, or which of them a text may hold.

Only whole values are matched, never what merely looks like a key: ordinary text passes untouched (K3).
"""

from __future__ import annotations

import base64
import html
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from runloopd.broker.secrets import Secret

__all__ = ["MASK", "Scrubber", "StreamScrubber"]

MASK = "[secret]"
_MIN_SCRUBBED = 6
"""Shorter values ("x" for a local server) are no secrets; scrubbing them would shred ordinary text."""
_HEAD = 3
"""Characters by which a piece that may begin a secret is looked up."""
_MIN_BROKEN = 12
"""Shorter forms are not looked for across blanks: ordinary words would make them up."""
_BLANKS = " \t\r\n\f\v"
_WITHOUT = str.maketrans("", "", _BLANKS)
_URLSAFE = str.maketrans("+/", "-_")


def _forms(value: str) -> Iterator[str]:
    """The texts a value may come back as."""
    yield value
    yield from _in_urls(value)
    yield from _in_json(value)
    yield from _in_html(value)
    yield "\0".join(value)  # UTF-16 of either order, but for its outermost zero
    yield "\\u0000".join(value)
    for raw in (value.encode(), value.encode("utf-16-le"), value.encode("utf-16-be")):
        yield raw.hex()
        yield raw.hex().upper()
        yield from _in_base64(raw)


def _in_urls(value: str) -> Iterator[str]:
    for text in (quote(value, safe=""), quote(value, safe="/"), "".join(f"%{ord(c):02X}" for c in value)):
        yield text
        yield re.sub(r"%..", lambda escape: escape[0].lower(), text)


def _in_json(value: str) -> Iterator[str]:
    plain = value.replace("\\", "\\\\").replace('"', '\\"')
    yield plain
    yield plain.replace("/", "\\/")
    # As Go's and some JavaScript encoders write it, for texts that end up in pages.
    careful = plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    yield careful
    yield careful.replace("'", "\\u0027")
    yield "".join(f"\\u{ord(char):04x}" for char in value)
    yield "".join(f"\\u{ord(char):04X}" for char in value)


def _in_html(value: str) -> Iterator[str]:
    escaped = html.escape(value)
    yield escaped
    yield html.escape(value, quote=False)
    yield escaped.replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    yield "".join(f"&#{ord(char)};" for char in value)
    yield "".join(f"&#x{ord(char):x};" for char in value)
    yield "".join(f"&#x{ord(char):X};" for char in value)


def _in_base64(raw: bytes) -> Iterator[str]:
    for offset in range(3):
        # The characters that depend only on the value, wherever it starts inside a longer encoded text.
        text = base64.b64encode(b"\0" * offset + raw).decode().rstrip("=")
        begin, end = (0, 2, 3)[offset], len(text) - (1 if (offset + len(raw)) % 3 else 0)
        for core in (text[begin:end], text[begin:]):
            yield core
            yield core.translate(_URLSAFE)


class Scrubber:
    """Replaces secrets in foreign text by ``[secret]``. Immutable; shared by threads as it is."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        forms = {
            form
            for secret in secrets
            if len(secret.reveal()) >= _MIN_SCRUBBED
            for form in _forms(secret.reveal())
            if len(form) >= _MIN_SCRUBBED
        }
        self._forms = tuple(sorted(forms, key=lambda form: (-len(form), form)))
        self._begins: dict[str, list[str]] = defaultdict(list)
        """Every beginning of up to three characters -> the forms that begin so."""
        for form in self._forms:
            for size in range(1, _HEAD + 1):
                self._begins[form[:size]].append(form)
        unbroken = {form.translate(_WITHOUT) for form in self._forms}
        self._unbroken = tuple(sorted((form for form in unbroken if len(form) >= _MIN_BROKEN), key=len))[::-1]
        self._longest = max(map(len, self._forms), default=0)

    def __repr__(self) -> str:
        return f"<scrubber of {len(self._forms)} forms>"

    def __reduce__(self) -> str:
        raise TypeError("a scrubber holds secrets, and is not copied to other processes")

    def text(self, text: str) -> str:
        """``text`` without any known form of any secret."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        return text

    def page(self, text: str) -> str:
        """As :meth:`text`, and for what a program prints: ``base64`` and ``xxd`` break what they spell into
        lines, so a form is found across blanks, too. For whole texts only."""
        text = self.text(text)
        if not any(blank in text for blank in _BLANKS):
            return text
        compact = text.translate(_WITHOUT)
        hits = [form for form in self._unbroken if form in compact]
        return _masked(text, compact, hits) if hits else text

    def data(self, data: bytes, *, cut: bool = False) -> bytes:
        """The same for bytes of whatever encoding. ``cut``: they were cut off where more followed, so an end
        that may be the beginning of a secret goes, too."""
        if not self._forms:
            return data
        text = data.decode("latin-1")
        if cut:
            text = text[: self.decided(text)]
        return self.text(text).encode("latin-1")

    def value(self, value: Any) -> Any:
        """The same for every string and every key of a JSON value."""
        if not self._forms:
            return value
        if isinstance(value, str):
            return self.page(value)
        if isinstance(value, dict):
            return {self.value(key): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def stream(self) -> StreamScrubber:
        """A scrubber for text that arrives in pieces."""
        return StreamScrubber(self)

    def open_end(self, text: str) -> int:
        """Length of the longest end of ``text`` that is the proper beginning of a form."""
        for at in range(max(0, len(text) - self._longest + 1), len(text)):
            for form in self._begins.get(text[at : at + _HEAD], ()):
                if len(form) > len(text) - at and form.startswith(text[at:]):
                    return len(text) - at
        return 0

    def decided(self, text: str) -> int:
        """How much of ``text`` no continuation can change any more: no form is open or cut through there."""
        place = len(text) - self.open_end(text)
        moved = place < len(text)
        while moved:
            moved = False
            for form in self._forms:
                # A whole form may reach into the open end of a longer one: both are judged together, later.
                at = text.find(form, max(0, place - len(form) + 1), place + len(form) - 1)
                if 0 <= at < place:
                    place, moved = at, True
        return place


def _masked(text: str, compact: str, hits: Iterable[str]) -> str:
    """``text`` without the parts that spell one of ``hits`` once blanks are left out."""
    places = [at for at, char in enumerate(text) if char not in _BLANKS]
    hidden = bytearray(len(text))
    for form in hits:
        at = compact.find(form)
        while at >= 0:
            begin, end = places[at], places[at + len(form) - 1] + 1
            hidden[begin:end] = b"\1" * (end - begin)
            at = compact.find(form, at + 1)
    parts = []
    for hide, run in groupby(range(len(text)), key=lambda at: hidden[at]):
        parts.append(MASK if hide else "".join(text[at] for at in run))
    return "".join(parts)


class StreamScrubber:
    """Holds back the few characters that may be the beginning of a secret until it is clear they are not."""

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._held = ""

    def feed(self, piece: str) -> str:
        """What may be shown of everything fed so far and not yet shown."""
        text = self._held + piece
        decided = self._scrubber.decided(text)
        self._held = text[decided:]
        return self._scrubber.text(text[:decided])

    def end(self) -> str:
        """The rest, once the stream is over."""
        rest, self._held = self._scrubber.text(self._held), ""
        return rest

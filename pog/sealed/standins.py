"""Stand-ins: the same value becomes the same other value everywhere, of the same shape and the same length.

Knows: how a value is found in a text, plain and in the encodings it may hide in (base64 at every alignment
and folded over lines, hex, URL, quoted-printable, JSON escapes, each within the other), and what is put in
its place. Does not know: which values are to go (``pog.sealed.rules``) or what the text belongs to.

A stand-in is drawn word by word from a key: ``John`` in a name, ``john.`` in an address and ``JOHN`` in a
subject become one word, so that a program which compares them goes on as before. Letters stay letters, digits
digits, every character keeps its bytes in UTF-8, punctuation stays. The last label of an address's domain
becomes ``z…``: nobody's.
"""

from __future__ import annotations

import binascii
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from runloop.digest import canonical, keyed_stream
from runloop.errors import RunloopError

__all__ = ["Kind", "Needle", "Standins", "decoded_texts"]

Kind = Literal["secret", "email", "name", "phone", "value", "field"]
_DEPTH = 3
"""Encodings within encodings that are looked into."""
_LINE = r"[A-Za-z0-9+/_-]"
_BASE64 = re.compile(rf"{_LINE}{{8,}}(?:\r?\n{_LINE}{{4,}})*")
_HEX = re.compile(r"[0-9A-Fa-f]{8,}")
_UNITS = {
    "%": re.compile(r"%([0-9A-Fa-f]{2})"),
    "=": re.compile(r"=([0-9A-Fa-f]{2})|=\r?\n"),
    # From the first of the backslashes only: from each of them, a run of many would take its length squared.
    "\\": re.compile(r"(?<!\\)\\+(?:u([0-9A-Fa-f]{4})|[/nrt\"])"),
}
_ESCAPED = {"/": b"/", "n": b"\n", "r": b"\r", "t": b"\t", '"': b'"'}
_WORD = re.compile(r"[^\W_]+")
_TWO = "àâäçéèêëïîôöùûüñáíóúãõåæøýþð"
_URLSAFE = str.maketrans("-_", "+/")
_STANDARD = str.maketrans("+/", "-_")


@dataclass(frozen=True, kw_only=True, slots=True)
class Needle:
    """A value that goes."""

    text: str
    kind: Kind

    @property
    def whole(self) -> bool:
        """Only where it stands as a word of its own."""
        return self.kind == "name"


class Standins:
    """Replaces needles. ``tally`` counts what was replaced since somebody last cleared it."""

    def __init__(self, needles: Iterable[Needle], salt: bytes) -> None:
        """``salt``: 32 bytes. With the same needles and the same salt, the same stand-ins."""
        ordered = sorted(set(needles), key=lambda needle: (-len(needle.text), needle.text, needle.kind))
        self.tally: Counter[Kind] = Counter()
        self._salt = salt
        self._kinds: dict[str, Kind] = {}
        for needle in ordered:
            self._kinds.setdefault(needle.text.casefold(), needle.kind)
        self._words = self._drawn(ordered)
        self._every = _pattern(ordered)
        self._unnamed = _pattern([needle for needle in ordered if not needle.whole])

    # --- replacing --------------------------------------------------------------------------------

    def text(self, text: str, *, names: bool = True) -> str:
        """The text with every needle replaced; ``names`` False leaves single words of names alone."""
        pattern = self._every if names else self._unnamed
        if pattern is None:
            return text
        plain = pattern
        return _everywhere(text, lambda part: plain.sub(self._replace, part), _DEPTH)

    def value(self, value: Any, *, structure: frozenset[str] = frozenset()) -> Any:
        """A JSON value with every needle replaced, keys too. Under a key in ``structure``, and in keys,
        single words of names stay: they are what programs call things."""
        return self._walk(value, structure, names=True)

    def data(self, data: bytes) -> bytes:
        """Bytes: as JSON where they are canonical JSON, else as text, whatever they are."""
        try:
            value = msgspec.json.decode(data)
            if canonical(value) == data:
                return canonical(self.value(value))
        except (msgspec.DecodeError, RunloopError, ValueError, RecursionError):
            pass
        return self.text(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def remains(self, data: bytes) -> list[Kind]:
        """The kinds of which something is still in these bytes, in any encoding."""
        kept, self.tally = self.tally, Counter()
        self.text(data.decode("utf-8", "surrogateescape"))
        found, self.tally = self.tally, kept
        return sorted(found)

    def _walk(self, value: Any, structure: frozenset[str], *, names: bool) -> Any:
        if isinstance(value, str):
            return self.text(value, names=names)
        if isinstance(value, dict):
            return {
                self.text(key, names=False): self._walk(item, structure, names=names and key not in structure)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._walk(item, structure, names=names) for item in value]
        if isinstance(value, bool) or value is None:
            return value
        return self._number(value)

    def _number(self, value: int | float) -> int | float:
        """A number that a needle spells, as another of as many digits."""
        spelled = canonical(value).decode()
        if spelled not in self._kinds:
            return value
        self.tally[self._kinds[spelled]] += 1
        made: int | float = msgspec.json.decode(self._reworded(spelled))
        return made

    def _replace(self, found: re.Match[str]) -> str:
        text = found[0]
        kind = self._kinds.get(text.casefold(), "value")
        self.tally[kind] += 1
        local, at, domain = text.rpartition("@")
        if kind != "email" or not at:
            return self._reworded(text)
        rest, dot, last = domain.rpartition(".")
        if not dot:
            return self._reworded(local) + at + self._reworded(domain)
        return (
            self._reworded(local) + at + self._reworded(rest) + dot + "".join(_as("z", char) for char in last)
        )

    def _reworded(self, text: str) -> str:
        return _WORD.sub(lambda word: self._word(word[0]), text)

    def _word(self, word: str) -> str:
        known = self._words.get(word.casefold())
        if known is None or len(known) != len(word):
            known = _spelled(word, keyed_stream(self._salt, word.casefold().encode(), len(word)))
        return "".join(_as(char, old) for char, old in zip(known, word, strict=True))

    def _drawn(self, needles: list[Needle]) -> dict[str, str]:
        """A stand-in for each word there is, none of them another's, none a word that goes."""
        words = sorted({word.casefold() for needle in needles for word in _WORD.findall(needle.text)})
        taken, drawn = set(words), dict[str, str]()
        for word in words:
            for turn in range(64):
                seed = word.encode() + (bytes([0, turn]) if turn else b"")
                made = _spelled(word, keyed_stream(self._salt, seed, len(word)))
                if made not in taken or len(word) < 3:
                    break
            taken.add(made)
            drawn[word] = made
        return drawn


def decoded_texts(text: str) -> Iterator[str]:
    """The text, and every reading of a part of it that an encoding may have hidden."""
    found = [text]

    def note(part: str) -> str:
        found.append(part)
        return part

    _everywhere(text, note, _DEPTH)
    return iter(dict.fromkeys(found))


# --- where a value may hide -----------------------------------------------------------------------


def _everywhere(text: str, change: Callable[[str], str], depth: int) -> str:
    """``change`` on the text and on everything that is encoded in it, which is encoded again afterwards."""
    if depth == 0 or len(text) < 8:
        return change(text)

    def inner(raw: bytes) -> bytes:
        part = raw.decode("utf-8", "surrogateescape")
        return _everywhere(part, change, depth - 1).encode("utf-8", "surrogateescape")

    for mark, unit in _UNITS.items():
        if mark in text and unit.search(text):
            text = _unit_encoded(text, unit, inner)
    text = _HEX.sub(lambda run: _hex_encoded(run[0], inner), text)
    text = _BASE64.sub(lambda run: _base64_encoded(run[0], inner), text)
    # Last: a word of a name would else be taken out of an address that is encoded around it.
    return change(text)


def _hex_encoded(run: str, inner: Callable[[bytes], bytes]) -> str:
    for start in (0, 1):
        part = run[start:]
        part = part[: len(part) & ~1]
        raw = bytes.fromhex(part)
        if not _readable(raw):
            continue
        made = inner(raw)
        if made != raw and len(made) == len(raw):
            spelled = made.hex().upper() if part.upper() == part else made.hex()
            run = run[:start] + spelled + run[start + len(part) :]
    return run


def _base64_encoded(run: str, inner: Callable[[bytes], bytes]) -> str:
    letters = "".join(run.split())
    safe = "-" in letters or "_" in letters
    plain = letters.translate(_URLSAFE)
    for start in range(4):
        part = plain[start:]
        part = part[:-1] if len(part) % 4 == 1 else part
        raw = binascii.a2b_base64(part + "=" * (-len(part) % 4))
        if not _readable(raw):
            continue
        made = inner(raw)
        if made != raw and len(made) == len(raw):
            spelled = binascii.b2a_base64(made, newline=False).decode().rstrip("=")
            whole = len(part) - len(part) % 4
            # The last letters of a cut group also carry bits that are not ours.
            cut = whole // 4 * 3
            if made[cut:] == raw[cut:]:
                spelled = spelled[:whole] + part[whole:]
            plain = plain[:start] + spelled + plain[start + len(part) :]
    if plain == letters.translate(_URLSAFE):
        return run
    new = iter(plain.translate(_STANDARD) if safe else plain)
    return "".join(char if char.isspace() else next(new) for char in run)


_RUN = re.compile(rb"[\x20-\x7e\x80-\xff]{4,}")


def _readable(raw: bytes) -> bool:
    """Whether there may be words in it at all; what decodes to noise is not looked into."""
    return _RUN.search(raw) is not None


def _unit_encoded(text: str, unit: re.Pattern[str], inner: Callable[[bytes], bytes]) -> str:
    """Text in which some characters are spelled by a code: decoded, changed, each spelled as it was."""
    pieces: list[tuple[str, bytes]] = []
    done = 0
    for found in unit.finditer(text):
        pieces += [(char, char.encode("utf-8", "surrogateescape")) for char in text[done : found.start()]]
        pieces.append((found[0], _meant(found)))
        done = found.end()
    pieces += [(char, char.encode("utf-8", "surrogateescape")) for char in text[done:]]
    raw = b"".join(part for _, part in pieces)
    made = inner(raw)
    if made == raw or len(made) != len(raw):
        return text
    spelled, at = [], 0
    for written, part in pieces:
        now = made[at : at + len(part)]
        at += len(part)
        spelled.append(written if now == part else _spell(written, now))
    return "".join(spelled)


def _meant(found: re.Match[str]) -> bytes:
    code = found[1]
    if code is None:
        return _ESCAPED.get(found[0][-1], b"") if found[0][0] == "\\" else b""
    return bytes.fromhex(code) if len(code) == 2 else chr(int(code, 16)).encode("utf-8", "surrogatepass")


def _spell(written: str, now: bytes) -> str:
    if written[0] == "\\" and written[-1] != "/":
        return f"{written[:-4]}{ord(now.decode('utf-8', 'surrogatepass')):04x}"
    if written[0] in "%=" and len(written) == 3:
        return written[0] + (now.hex() if written[1:] == written[1:].lower() else now.hex().upper())
    return now.decode("utf-8", "surrogateescape")


# --- what is put in its place ---------------------------------------------------------------------


def _pattern(needles: list[Needle]) -> re.Pattern[str] | None:
    parts = [
        rf"(?<![^\W_]){re.escape(needle.text)}(?![^\W_])" if needle.whole else re.escape(needle.text)
        for needle in needles
    ]
    return re.compile("|".join(parts), re.IGNORECASE) if parts else None


def _spelled(word: str, stream: bytes) -> str:
    """Another word of this shape, in small letters; a number never begins with 0."""
    draws = [stream[at] * 256 + stream[at + 1] for at in range(0, 2 * len(word), 2)]
    made = "".join(map(_other, word, draws))
    return f"{1 + draws[0] % 9}{made[1:]}" if made[:1] == "0" else made


def _other(char: str, draw: int) -> str:
    if char.isascii():
        return str(draw % 10) if char.isdigit() else chr(97 + draw % 26)
    size = len(char.encode("utf-8", "surrogateescape")) if not 0xDC80 <= ord(char) <= 0xDCFF else 0
    if not char.isalpha() or size == 0:
        return char
    if size == 2:
        return _TWO[draw % len(_TWO)]
    return chr(0x3041 + draw % 86) if size == 3 else chr(0x20000 + draw % 4096)


def _as(char: str, old: str) -> str:
    """A character in the case of the one it stands for."""
    upper = char.upper() if old.isupper() else char
    return upper if len(upper) == 1 else char

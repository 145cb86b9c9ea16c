"""Foreign bytes, read within bounds and made storable."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runloop.digest import digest

__all__ = [
    "MAX_TEXT_CHARS",
    "Problem",
    "addresses_in",
    "clean",
    "clean_line",
    "is_address",
    "read_bounded",
    "stable_id",
]

MAX_TEXT_CHARS = 256 * 1024
"""Of one note or mail; the rest is cut off and that is said in the text."""

_ADDRESS = re.compile(r"[^\s<>()\[\],;:\"@\\\x00-\x1f\x7f]{1,64}@(?:[\w-]{1,63}\.){0,8}[\w-]{1,63}\Z")
_ADDRESSES = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[\w-]{1,63}")
_CUT = "\n[cut: the source is longer]"


@dataclass(frozen=True, slots=True)
class Problem:
    """An item that was left out."""

    source: str
    """The file, and where it helps the item in it."""
    what: str

    def __str__(self) -> str:
        return f"{self.source}: {self.what}"


def read_bounded(
    path: Path, limit: int, report: Callable[[Problem], None], *, whole: bool = True
) -> bytes | None:
    """The file's bytes, or None after reporting why not: unreadable, a link, or larger than ``limit``."""
    try:
        # Not through a link that has taken the file's place, and not waiting for a FIFO's other end.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        report(Problem(str(path), error.strerror or str(error)))
        return None
    if len(data) <= limit:
        return data
    if whole:
        report(Problem(str(path), f"it is larger than {limit} bytes"))
        return None
    return data[:limit]


def stable_id(kind: str, key: str) -> str:
    """The id of what a source calls ``key``."""
    return digest([kind, clean(key)])


def clean(text: str, limit: int = MAX_TEXT_CHARS) -> str:
    """Storable text: no lone surrogates, no NUL, plain newlines, bounded. Escapes stay; output escapes."""
    plain = text[: limit + 1].encode("utf-8", "replace").decode()
    plain = plain.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "\ufffd")
    plain = unicodedata.normalize("NFC", plain)
    return plain if len(plain) <= limit else plain[: limit - len(_CUT)] + _CUT


def clean_line(text: str, limit: int = 998) -> str:
    """The same for what stands on one line."""
    return " ".join(clean(text, 4 * limit).split())[:limit]


def is_address(text: str) -> bool:
    """Whether it can be written on an envelope: one address, no names, no control characters."""
    return len(text) <= 254 and bool(_ADDRESS.match(text))


def addresses_in(text: str, at_most: int = 64) -> list[str]:
    """Addresses that stand in a text, in order, once each."""
    found = dict.fromkeys(match.group() for match in _ADDRESSES.finditer(text))
    return list(found)[:at_most]

"""Foreign bytes, read within bounds and made storable."""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runloop.digest import digest

__all__ = [
    "MAX_TEXT_CHARS",
    "Problem",
    "Report",
    "addresses_in",
    "clean",
    "clean_line",
    "decode_text",
    "is_address",
    "open_regular",
    "read_bounded",
    "stable_id",
    "was_cut",
]

MAX_TEXT_CHARS = 256 * 1024
"""Of one note or mail; the rest is cut off and that is said in the text."""

_ADDRESS = re.compile(r"[^\s<>()\[\],;:\"@\\\x00-\x1f\x7f]{1,64}@(?:[\w-]{1,63}\.){0,8}[\w-]{1,63}\Z")
_ADDRESSES = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[\w-]{1,63}")
_CUT = "\n[cut: the source is longer]"


@dataclass(frozen=True, slots=True)
class Problem:
    """An item that was left out, or (``note``) something about it that a person may want to know."""

    source: str
    """The file, and where it helps the item in it."""
    what: str
    note: bool = False
    """True: nothing was lost that the user would miss."""

    def __str__(self) -> str:
        return f"{self.source}: {self.what}"


Report = Callable[[Problem], None]
"""Where a reader tells of what it left out."""


def open_regular(path: Path) -> BinaryIO:
    """Open for reading what is a regular file at this moment; raises :class:`OSError`.

    Not through a link that has taken the file's place, and not waiting for a FIFO's other end.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bounded(
    path: Path, limit: int, report: Callable[[Problem], None], *, whole: bool = True
) -> bytes | None:
    """The file's bytes, or None after reporting why not: unreadable, a link, or larger than ``limit``."""
    try:
        with open_regular(path) as file:
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


def decode_text(data: bytes) -> str:
    """Text of a file that does not say how it is encoded: UTF-8, UTF-16 with a mark, else Windows-1252 (and
    for its five holes Latin-1). Never fails."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def stable_id(kind: str, key: str) -> str:
    """The id of what a source calls ``key``."""
    return digest([kind, clean(key)])


def clean(text: str, limit: int = MAX_TEXT_CHARS) -> str:
    """Storable text: no lone surrogates, no NUL, plain newlines, bounded. Escapes stay; output escapes."""
    plain = text[: limit + 1].encode("utf-8", "replace").decode()
    plain = plain.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "\ufffd")
    plain = unicodedata.normalize("NFC", plain)
    return plain if len(plain) <= limit else plain[: limit - len(_CUT)] + _CUT


def was_cut(text: str) -> bool:
    """Whether :func:`clean` has left something out."""
    return text.endswith(_CUT)


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

"""A tape archive with exactly one spelling: ustar, plain files, everything that could vary fixed.

Knows: the 512-byte headers, the one form of each field, which names may stand beside each other, and a fault
of its own for every way an archive can be hostile. Does not know: what the files are for, who signed them
(``bundle.archive``, ``bundle.trust``). Pure and in memory: nothing is ever written to a disk, no link is ever
followed, because there is none. Reading stops at the first fault; sizes are judged from the header, before a
body is touched.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from runloop.bundle.digest import MAX_BUNDLE_BYTES, MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES, MAX_PATH_CHARS
from runloop.errors import RefusedError

__all__ = ["FAULTS", "ArchiveError", "Bounds", "Data", "is_tar_of", "read_tar", "write_tar"]

BLOCK = 512
END = bytes(2 * BLOCK)
"""The end of an archive: two blocks of zeros, and nothing behind them."""

Data = bytes | memoryview

_REBUILD = "build the bundle again with 'rlp agent build'; do not repair it by hand"
_RENAME = "the author must rename the file and build again"

FAULTS: dict[str, tuple[str, str]] = {
    "archive.truncated": ("ends in the middle", "fetch it again; if that does not help, ask its publisher"),
    "archive.checksum": (
        "a header's checksum is wrong",
        "name a bundle, NAME-VERSION.rlb; if it is one, it was altered on the way: fetch it again",
    ),
    "archive.format": ("a header is not ustar", _REBUILD),
    "archive.header": ("a header field does not have its one legal form", _REBUILD),
    "archive.padding": ("there is data, or room for it, where only fixed padding may be", _REBUILD),
    "archive.appended": ("something follows its end", "fetch it again; somebody appended to it"),
    "archive.symlink": ("holds a symbolic link", "the author must replace the link by the file"),
    "archive.hardlink": ("holds a hard link", "the author must replace the link by the file"),
    "archive.device": ("holds a device", "a bundle holds plain files only; do not install it"),
    "archive.fifo": ("holds a named pipe", "a bundle holds plain files only; do not install it"),
    "archive.directory": ("lists a directory", _REBUILD),
    "archive.pax": ("holds an extended (pax) header, which can overrule names and sizes", _REBUILD),
    "archive.gnu": ("holds a GNU header, which can overrule names and sizes", _REBUILD),
    "archive.sparse": ("declares a sparse file, which can be larger than its bytes", _REBUILD),
    "archive.type": ("holds a member of an unknown type", _REBUILD),
    "archive.traversal": ("a name leads out of the bundle", "do not install it; it tries to write elsewhere"),
    "archive.absolute": ("a name is absolute", "do not install it; it tries to write elsewhere"),
    "archive.backslash": ("a name contains a backslash", _RENAME),
    "archive.drive": ("a name carries a drive letter", _RENAME),
    "archive.name": ("a name is not allowed", _RENAME),
    "archive.duplicate": ("the same name stands there twice", _REBUILD),
    "archive.case": ("two names differ by upper and lower case only", _RENAME),
    "archive.unicode": ("a name has another spelling that looks the same", _RENAME),
    "archive.overlap": ("a name is a file and a directory at once", _RENAME),
    "archive.order": ("its members are not in their one order", _REBUILD),
    "archive.file_size": ("a file is larger than allowed", "ask the author for a smaller one"),
    "archive.total_size": ("its files together are larger than allowed", "ask the author for a smaller one"),
    "archive.file_count": ("it has more files than allowed", "ask the author for a smaller one"),
    "archive.members": ("it does not have exactly the two members of a bundle", _REBUILD),
    "archive.attestations": ("its attestations are not in their one form", _REBUILD),
    "archive.canonical": ("its bytes are not the ones these files are packed to", _REBUILD),
}
"""Every way an archive is refused: code -> what is wrong, what to do."""


class ArchiveError(RefusedError):
    """These bytes are no bundle's archive. ``named_code`` is one of :data:`FAULTS`; nothing was written."""

    code: ClassVar[str] = "archive.format"

    def __init__(self, code: str, detail: str = "", *, at: int = 0, member: str = "") -> None:
        what, fix = FAULTS[code]
        where = f" ({detail})" if detail else ""
        super().__init__(
            f"the archive is refused: {what}{where}",
            hint=fix,
            code=code,
            at=at,
            member=member[:MAX_PATH_CHARS],
        )
        self.at = at
        """Offset of the header or byte at fault."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """How much an archive may hold."""

    files: int = MAX_FILES
    file_bytes: int = MAX_FILE_BYTES
    total_bytes: int = MAX_BUNDLE_BYTES


# --- writing --------------------------------------------------------------------------------------


def write_tar(members: Iterable[tuple[str, bytes]], *, bounds: Bounds | None = None) -> bytes:
    """The one archive of these members in this order; raises :class:`ArchiveError` for what none may hold."""
    listed = list(members)
    names = _Names(bounds or Bounds())
    for name, data in listed:
        names.add(name, len(data), at=0)
    return b"".join(_parts(listed))


def is_tar_of(members: Iterable[tuple[str, Data]], data: Data) -> bool:
    """Whether ``data`` is what :func:`write_tar` makes of ``members``, without making it."""
    view, at = memoryview(data), 0
    for part in _parts(members):
        if view[at : at + len(part)] != part:
            return False
        at += len(part)
    return at == len(view)


def _parts(members: Iterable[tuple[str, Data]]) -> Iterator[Data]:
    for name, data in members:
        yield _header(name, len(data))
        yield data
        yield bytes(-len(data) % BLOCK)
    yield END


def _header(name: str, size: int) -> bytes:
    prefix, last = _split(name)
    fields = (
        last.ljust(100, b"\0"),
        b"0000644\0",  # mode
        b"0000000\0",  # uid
        b"0000000\0",  # gid
        b"%011o\0" % size,
        b"00000000000\0",  # mtime
        b" " * 8,  # checksum, filled in below
        b"0",  # a plain file
        bytes(100),  # link name
        b"ustar\x0000",
        bytes(32),  # user
        bytes(32),  # group
        bytes(8),  # device numbers
        bytes(8),
        prefix.ljust(155, b"\0"),
        bytes(12),
    )
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _split(name: str) -> tuple[bytes, bytes]:
    """Prefix and name: cut at the first slash that lets both fit, as every other writer of ustar does."""
    raw = name.encode()
    if len(raw) <= 100:
        return b"", raw
    cut = raw.find(b"/")
    while cut >= 0:
        if cut <= 155 and len(raw) - cut - 1 <= 100:
            return raw[:cut], raw[cut + 1 :]
        cut = raw.find(b"/", cut + 1)
    raise ArchiveError("archive.name", "too long for a ustar header", member=name)


# --- reading --------------------------------------------------------------------------------------


def read_tar(data: Data, *, bounds: Bounds | None = None) -> list[tuple[str, memoryview]]:
    """The members in their order. Raises :class:`ArchiveError` at the first fault, by its own code.

    What comes back has passed every rule on names, types, fields and sizes except the order of members, which
    is the caller's. Bodies are views of ``data``: nothing is copied.
    """
    data = memoryview(data)
    names = _Names(bounds or Bounds())
    members: list[tuple[str, memoryview]] = []
    at = 0
    while True:
        block = bytes(data[at : at + BLOCK])
        if len(block) < BLOCK:
            raise ArchiveError("archive.truncated", "no end mark", at=at)
        if not any(block):
            _check_end(data, at)
            return members
        name, size = _read_header(block, at)
        names.add(name, size, at=at)
        body, end = at + BLOCK, at + BLOCK + size
        at = end + -size % BLOCK
        if at > len(data):
            raise ArchiveError("archive.truncated", f"{size} bytes are declared", at=body, member=name)
        if any(data[end:at]):
            raise ArchiveError("archive.padding", "behind a file", at=end, member=name)
        if block != _header(name, size):
            raise ArchiveError(
                "archive.header", _field(block, _header(name, size)), at=body - BLOCK, member=name
            )
        members.append((name, data[body:end]))


def _check_end(data: memoryview, at: int) -> None:
    if len(data) < at + len(END):
        raise ArchiveError("archive.truncated", "half an end mark", at=at)
    if any(data[at : at + len(END)]):
        raise ArchiveError("archive.appended", "behind one block of zeros", at=at + BLOCK)
    rest = data[at + len(END) :]
    if len(rest):
        code = "archive.appended" if any(rest[:_LOOK]) else "archive.padding"
        raise ArchiveError(code, f"{len(rest)} bytes behind the end mark", at=at + len(END))


_LOOK = 65_536
"""How far what follows the end is looked at to name it; it is refused either way."""

_TYPES = {
    b"1": "archive.hardlink",
    b"2": "archive.symlink",
    b"3": "archive.device",
    b"4": "archive.device",
    b"5": "archive.directory",
    b"6": "archive.fifo",
    b"S": "archive.sparse",
    b"x": "archive.pax",
    b"g": "archive.pax",
    b"X": "archive.pax",
    **dict.fromkeys((b"L", b"K", b"D", b"M", b"N", b"V"), "archive.gnu"),
}


def _read_header(block: bytes, at: int) -> tuple[str, int]:
    """Name and size of a plain file's header; its other fields are the caller's to compare."""
    declared = block[148:156]
    actual = sum(block) - sum(declared) + 8 * 32
    if declared != b"%06o\0 " % actual:
        raise ArchiveError("archive.checksum", at=at)
    raw = _text(block[345:500]) + (b"/" if block[345] else b"") + _text(block[:100])
    shown = raw.decode(errors="backslashreplace")
    kind = block[156:157]
    if kind != b"0":
        code = _TYPES.get(kind, "archive.type")
        raise ArchiveError(code, f"{shown!r}, type {kind!r}", at=at, member=shown)
    if block[257:265] != b"ustar\x0000":
        raise ArchiveError("archive.format", f"the header of {shown!r}", at=at, member=shown)
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise ArchiveError("archive.name", f"{shown!r} is not UTF-8", at=at, member=shown) from error
    return name, _size(block[124:136], at, name)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _size(field: bytes, at: int, name: str) -> int:
    digits = field[:11]
    if field[11:] != b"\0" or any(digit not in b"01234567" for digit in digits):
        code = "archive.gnu" if field[0] & 0x80 else "archive.header"  # GNU's binary numbers reach 2^88
        raise ArchiveError(code, "the size is not eleven octal digits", at=at, member=name)
    return int(digits, 8)


_FIELDS = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12s")
_FIELD_NAMES = (
    *("name", "mode", "user id", "group id", "size", "time", "checksum", "type", "link name", "magic"),
    *("user", "group", "device", "device", "prefix", "padding"),
)


def _field(block: bytes, wanted: bytes) -> str:
    """Which field differs; the checksum only if nothing else does."""
    pairs = zip(_FIELD_NAMES, _FIELDS.unpack(block), _FIELDS.unpack(wanted), strict=True)
    wrong = [name for name, have, want in pairs if have != want and name != "checksum"]
    return ", ".join(dict.fromkeys(wrong)) or "checksum"


# --- names ----------------------------------------------------------------------------------------


class _Names:
    """The names of one archive so far, and how much they declare."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._total = 0
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._spelled: dict[str, str] = {}
        """Folded path of every file and of every directory above one -> how it was spelled."""

    def add(self, name: str, size: int, *, at: int) -> None:
        """Take one more member; raises :class:`ArchiveError` when it may not stand beside the others."""
        bounds = self._bounds
        if len(self._files) >= bounds.files:
            raise ArchiveError("archive.file_count", f"at most {bounds.files}", at=at, member=name)
        if size > bounds.file_bytes:
            detail = f"{name!r} declares {size} bytes, {bounds.file_bytes} are allowed"
            raise ArchiveError("archive.file_size", detail, at=at, member=name)
        self._total += size
        if self._total > bounds.total_bytes:
            raise ArchiveError(
                "archive.total_size", f"at most {bounds.total_bytes} bytes", at=at, member=name
            )
        fault = _name_fault(name) or self._beside(name)
        if fault is not None:
            raise ArchiveError(fault, repr(name), at=at, member=name)
        self._files.add(name)

    def _beside(self, name: str) -> str | None:
        if name in self._files:
            return "archive.duplicate"
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            there = self._spelled.setdefault(_folded(path), path)
            if there != path:
                return "archive.case" if there.lower() == path.lower() else "archive.unicode"
            if path in (self._folders if path == name else self._files):
                return "archive.overlap"
            if path != name:
                self._folders.add(path)
        return None


def _folded(path: str) -> str:
    """What names share that some file system or some eye takes for the same."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", path).casefold())
    return unicodedata.normalize("NFKC", folded.casefold())


def _name_fault(name: str) -> str | None:  # noqa: PLR0911 - one return per fault
    """The code of what is wrong with a name by itself."""
    if "\\" in name:
        return "archive.backslash"
    if name.startswith("/"):
        return "archive.absolute"
    if len(name) > 1 and name[1] == ":":
        return "archive.drive"
    if name.endswith("/") and name.strip("/"):
        return "archive.directory"
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "archive.traversal" if name else "archive.name"
    if not name.isprintable() or len(name) > MAX_PATH_CHARS or len(parts) > MAX_DEPTH + 1:
        return "archive.name"
    if unicodedata.normalize("NFC", name) != name:
        return "archive.unicode"
    return None

"""What no bundle may contain, whatever it says it is for: things that only serve to be run or read elsewhere.

An agent's code is source for a shipped runner or one WebAssembly component. Knows: the first bytes of native
programs, scripts and archives, padding that hides from scanners, and the command mark of prompt files
(attacks.md M4). Does not know: manifests, policy, trust; nothing here parses a file. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from runloop.errors import RefusedError

__all__ = ["ContentError", "check_content"]

PADDING_BYTES = 32_768
"""A stretch of this many equal bytes, beginning at a multiple of it, is padding; components may have it."""

_NATIVE = {
    b"\x7fELF": "a Linux program or a compiled module",
    b"\xfe\xed\xfa\xce": "a macOS program",
    b"\xfe\xed\xfa\xcf": "a macOS program",
    b"\xce\xfa\xed\xfe": "a macOS program",
    b"\xcf\xfa\xed\xfe": "a macOS program",
    b"\xca\xfe\xba\xbe": "a macOS program or a Java class",
}
_ARCHIVES = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x1f\x8b": "gzip",
    b"\x1f\x9d": "compress",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"MSCF": "cab",
    b"!<arch>\n": "ar or deb",
    b"\xed\xab\xee\xdb": "rpm",
}
_WASM = b"\0asm"
_COMMAND = re.compile(rb"^[ \t]*(?:[-*>][ \t]+)?!`", re.MULTILINE)
"""``!`cmd```: what some prompt formats run before the model reads the text."""


class ContentError(RefusedError):
    """A file that has no business in a bundle. ``data["path"]`` names it."""

    code: ClassVar[str] = "bundle.content"


def check_content(files: Mapping[str, bytes]) -> None:
    """Raise :class:`ContentError` for the first file no bundle may hold; codes ``bundle.native``,
    ``bundle.nested``, ``bundle.script``, ``bundle.padding``, ``bundle.command``."""
    for path, data in files.items():
        fault = _fault(path, data)
        if fault is not None:
            code, what, fix = fault
            raise ContentError(f"the bundle's file {path!r} {what}", hint=fix, code=code, path=path)


def _fault(path: str, data: bytes) -> tuple[str, str, str] | None:  # noqa: PLR0911 - one return per fault
    for magic, kind in _NATIVE.items():
        if data.startswith(magic):
            return "bundle.native", f"is {kind}", "agents are source or a WebAssembly component; leave it out"
    if data.startswith(b"MZ") and b"\0" in data[:64]:
        return "bundle.native", "is a Windows program", "agents are source or a component; leave it out"
    for magic, kind in _ARCHIVES.items():
        if data.startswith(magic):
            return "bundle.nested", f"is an archive ({kind})", "put its files into the bundle themselves"
    if data[257:262] == b"ustar":
        return "bundle.nested", "is an archive (tar)", "put its files into the bundle themselves"
    if data.startswith(b"#!"):
        return "bundle.script", "is a script for the system to run", "remove its first line, or leave it out"
    if not data.startswith(_WASM) and _is_padded(data):
        return "bundle.padding", f"holds {PADDING_BYTES} equal bytes in a row", "take the padding out"
    if path.endswith((".md", ".markdown", ".txt", ".prompt")) and _COMMAND.search(data):
        return "bundle.command", "asks for a command to be run (!`…`)", "write what the command would print"
    return None


def _is_padded(data: bytes) -> bool:
    """Looked at block by block, so that no content makes this slow."""
    for at in range(0, len(data) - PADDING_BYTES + 1, PADDING_BYTES):
        first = data[at : at + 1]
        if data[at + PADDING_BYTES - 1 : at + PADDING_BYTES] == first and data.startswith(
            first * PADDING_BYTES, at
        ):
            return True
    return False

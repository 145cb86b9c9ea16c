"""Canaries: values that may be nowhere, looked for in every spelling they could come back in.

Written apart from the product's scrubber on purpose: what it does not know of, this must still find.
"""

from __future__ import annotations

import base64
import html
import json
import re
from urllib.parse import quote

__all__ = ["found", "spellings"]


def spellings(value: str) -> dict[str, bytes]:
    """Every spelling, by name. Of base64 only the part that depends on the value alone."""
    raw, le, be = value.encode(), value.encode("utf-16-le"), value.encode("utf-16-be")
    texts = {
        "plain": value,
        "hex": raw.hex(),
        "HEX": raw.hex().upper(),
        "url": quote(value, safe=""),
        "url-path": quote(value),
        "url-lower": re.sub("%..", lambda escape: escape[0].lower(), quote(value, safe="")),
        "url-whole": "".join(f"%{byte:02x}" for byte in raw),
        "json": json.dumps(value)[1:-1],
        "json-slash": json.dumps(value)[1:-1].replace("/", "\\/"),
        "json-html": re.sub("[<>&]", lambda char: f"\\u{ord(char[0]):04x}", json.dumps(value)[1:-1]),
        "json-whole": "".join(f"\\u{ord(char):04x}" for char in value),
        "html": html.escape(value),
        "html-whole": "".join(f"&#{byte};" for byte in raw),
        "utf-16-hex": le.hex(),
        **{f"base64-{at}": _core(raw, at) for at in range(3)},
        **{f"base64-url-{at}": _core(raw, at).translate(str.maketrans("+/", "-_")) for at in range(3)},
        **{f"utf-16-base64-{at}": _core(le, at) for at in range(3)},
    }
    return {name: text.encode() for name, text in texts.items()} | {"utf-16": le[:-1], "utf-16-be": be[1:]}


def _core(raw: bytes, at: int) -> str:
    """Base64 of the value where it begins at the ``at``-th byte of a group, without the shared ends."""
    text = base64.b64encode(b"\0" * at + raw + b"\0\0\0").decode()
    return text[(0, 2, 3)[at] : (len(raw) + at) * 8 // 6]


def found(value: str, data: bytes) -> list[str]:
    """Names of the spellings of ``value`` that ``data`` holds, and of its halves in clear."""
    half = len(value) // 2 + 1
    parts = {"beginning": value[:half].encode(), "end": value[-half:].encode()}
    return [name for name, text in {**spellings(value), **parts}.items() if text in data]

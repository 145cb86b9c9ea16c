"""Bytes as people read them: offset, hexadecimal, text. Knows nothing of where they come from."""

from __future__ import annotations

__all__ = ["PER_ROW", "hex_row", "is_text"]

PER_ROW = 16
_LOOKED_AT = 8_192


def hex_row(data: bytes, row: int) -> tuple[str, str, str]:
    """Offset, pairs of digits and text of one row of 16 bytes; the last row is padded.

    The text is printable ASCII alone, a dot for every other byte: nothing in it acts on a terminal.
    """
    start = row * PER_ROW
    part = data[start : start + PER_ROW]
    pairs = [f"{byte:02x}" for byte in part] + ["  "] * (PER_ROW - len(part))
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
    return f"{start:08x}", " ".join(pairs[:8]) + "  " + " ".join(pairs[8:]), text


def is_text(data: bytes) -> bool:
    """Whether it reads as UTF-8 text: judged by its beginning."""
    head = data[:_LOOKED_AT]
    if b"\0" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return len(data) > len(head) and error.start > len(head) - 4  # cut within a character
    return True

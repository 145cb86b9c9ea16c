"""What may reach a terminal: every character that shows as itself, and nothing that acts.

Mail bodies, file names, agents' messages and model answers are foreign. Shown raw they can move the cursor,
set the clipboard, reverse the reading order or hide text (attacks.md C6). Here each such character becomes a
visible ``\\x1b`` or ``\\u202e``. Knows Unicode; knows nothing of layout, colour or who wrote the text.
"""

from __future__ import annotations

__all__ = ["block", "columns_of", "fold", "json_text", "mixed_scripts", "pieces", "visible"]

_SPACES = "\u00a0\u2007\u2009\u202f\u3000"
"""Not ``isprintable`` for Python, harmless on a terminal."""

_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Letters and marks by category, invisible in fact."""

_MARKS = 3
"""Marks in a row, combining or enclosing, that are still writing; beyond, a smear over neighbouring lines."""


def visible(text: str) -> str:
    """One line of foreign text, with everything that acts or hides written as an escape.

    Line breaks and tabs are escaped too: what is one field stays on one line.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_walk(text))


def block(text: str, *, width: int | None = None) -> list[str]:
    """Foreign text as lines; tabs become four spaces. A line of more than ``width`` columns is folded at
    a space or, without one, anywhere; nothing is lost."""
    lines: list[str] = []
    for raw in text.replace("\r\n", "\n").split("\n"):
        line = visible(raw.replace("\t", "    "))
        lines += pieces(line, width) if width else [line]
    return lines


MORE = "│ "
"""Begins what is left of a line that was folded: no foreign text stands where a line of ours begins."""


def fold(lead: str, text: str, width: int) -> list[str]:
    """``lead`` (ours) and one line of foreign text behind it, in rows that no terminal of ``width`` columns
    wraps. Rows after the first begin with blanks as wide as ``lead`` and the mark ``│``, so that a long text
    cannot write a row that looks like ours (attacks.md C6)."""
    safe = visible(text)
    if columns_of(lead) + columns_of(safe) <= width:
        return [lead + safe]
    blank = " " * columns_of(lead)
    first, *more = pieces(safe, max(_NARROWEST, width - len(blank) - len(MORE)))
    return [lead + first, *(blank + MORE + piece for piece in more)]


def columns_of(text: str) -> int:
    """Terminal columns of a safe text: wide East Asian characters take two, combining marks none."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(char: str) -> int:
    import unicodedata

    if unicodedata.combining(char):
        return 0
    return 1 + (unicodedata.east_asian_width(char) in "WF" or _wide_by_now(ord(char)))


def _wide_by_now(code: int) -> bool:
    """Two columns since Unicode 16, which this interpreter's tables do not know: counted as one, a row of
    them would be cut off or wrapped by whoever draws it, and what stands behind them hidden (attacks.md C6).
    """
    return any(first <= code <= last for first, last in _WIDE_SINCE_16)


_WIDE_SINCE_16 = (
    (0x2630, 0x2637), (0x268A, 0x268F), (0x4DC0, 0x4DFF), (0x1D300, 0x1D356), (0x1D360, 0x1D376),
)  # fmt: skip


_NARROWEST = 8


def pieces(line: str, width: int, *, early: bool = False) -> list[str]:
    """A safe line in pieces of at most ``width`` columns, cut behind a space where there is one: in the
    second half of a piece or, with ``early``, anywhere in it."""
    found: list[str] = []
    start = 0
    while True:
        end = _reach(line, start, width)
        if end >= len(line):
            return [*found, line[start:]]
        space = line.rfind(" ", start if early else start + (end - start) // 2, end)
        cut = space + 1 if space > start else end
        found.append(line[start:cut])
        start = cut


def _reach(line: str, start: int, width: int) -> int:
    """How far ``width`` columns go from ``start``: one character at least."""
    end = start + width
    if line[start:end].isascii():
        return end
    used, end = 0, start
    while end < len(line) and (used := used + _columns(line[end])) <= width:
        end += 1
    return max(end, start + 1)


def json_text(value: object) -> str:
    """Compact JSON in printable ASCII: the same value for a parser, harmless on a terminal."""
    import json

    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str)


def mixed_scripts(text: str) -> list[str]:
    """Words that mix Latin with Cyrillic or Greek letters: the look-alikes used to forge addresses."""
    if text.isascii():
        return []
    import re
    import unicodedata

    suspects = []
    for word in re.findall(r"\w+", text):
        scripts = {unicodedata.name(char, "").partition(" ")[0] for char in word if char.isalpha()}
        if "LATIN" in scripts and scripts & {"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"}:
            suspects.append(word)
    return suspects


def _walk(text: str) -> list[str]:
    import unicodedata

    out: list[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        shown = (char.isprintable() and char not in _BLANK) or char in _SPACES
        if shown and marks <= _MARKS and not _is_variation(char):
            out.append(char)
        else:
            out.append(_escaped(ord(char)))
    return out


def _is_variation(char: str) -> bool:
    """Variation selectors carry hidden bytes; only the emoji one (U+FE0F) is common in honest text."""
    return "\ufe00" <= char <= "\ufe0e" or "\U000e0100" <= char <= "\U000e01ef"


def _escaped(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

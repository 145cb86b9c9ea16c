"""Two hundred strings that would act on a terminal, hide, or read as something else (attacks.md C6).

For every way that foreign text takes to a person: tables, JSON, errors, panes, titles. In each of them
something must be written as an escape. :data:`WITNESS` stands in every string, so that a test can tell that
the text came through at all.
"""

from __future__ import annotations

import unicodedata

__all__ = ["ALL_AT_ONCE", "HIDDEN", "HOSTILE", "WITNESS", "assert_harmless"]

WITNESS = "wit7ness"

_CONTROLS = [*range(0x20), *range(0x7F, 0xA0)]
_BIDI = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
HIDDEN = [
    0x00AD, 0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, 0x200B, 0x200C, 0x200D, 0x2028, 0x2029, 0x2060,
    0x2061, 0x2062, 0x2063, 0x2064, 0x206A, 0x206F, 0x2800, 0x3164, 0xFEFF, 0xFFA0, 0xFFF9, 0xFFFA, 0xFFFB,
    0xFE00, 0xFE0E, 0xE0001, 0xE0020, 0xE0041, 0xE007F, 0xE0100, 0xE01EF, 0xE000, 0xF8FF, 0xF0000, 0xFFFE,
    0x1FFFF, 0xFDD0, 0x1D173, 0x1BCA0,
]  # fmt: skip
"""Characters that take no place, or a place nobody sees."""
_SEQUENCES = [
    "\x1b]52;c;cm0gLXJmIH4=\x07", "\x1b]52;p;?\x1b\\", "\x1b]0;approved\x07", "\x1b]2;title\x1b\\",
    "\x1b]7;file:///\x07", "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\", "\x1b]9;note\x07",
    "\x1b]10;?\x07", "\x1b]11;?\x07", "\x1b]50;font\x07", "\x1b]104\x07", "\x1b]133;A\x07",
    "\x1b]777;notify;a;b\x07", "\x1b]1337;File=inline=1:AA==\x07", "\x1b]99;;note\x1b\\", "\x1b[2J\x1b[H",
    "\x1b[3J", "\x1b[1A\x1b[2Kall is well", "\x1b[1F", "\x1b[10;1H", "\x1b[?1049h", "\x1b[?1000h",
    "\x1b[?1003h\x1b[?1006h", "\x1b[?2004l", "\x1b[?2026h", "\x1b[?25l", "\x1b[?7l", "\x1b[?5h", "\x1b[4h",
    "\x1b[5n", "\x1b[6n", "\x1b[c", "\x1b[>c", "\x1b[>q", "\x1b[18t", "\x1b[21t", "\x1b[8;1;1t", "\x1b[31m",
    "\x1b[8m", "\x1b[38;2;0;0;0m", "\x1b[0 q", "\x1b[!p", "\x1b[1;1r", "\x1b[r", "\x1b[20l", "\x1b[b",
    "\x1b[S", "\x1b[T", "\x1b[L", "\x1b[200~y\n\x1b[201~", "\x1bc", "\x1b7", "\x1b8", "\x1bM", "\x1bD",
    "\x1bE", "\x1b#8", "\x1b(0", "\x1b=", "\x1b>", "\x1bN", "\x1bP+q544e\x1b\\", "\x1bP$q\"p\x1b\\",
    "\x1bPq#0;2;0;0;0#0~~\x1b\\", "\x1b_Gf=100;\x1b\\", "\x1b^private\x1b\\", "\x1bXstring\x1b\\",
    "\x9b31m", "\x9b2J", "\x90q\x9c", "\x9d0;t\x9c", "\x98s\x9c", "nice\rnasty", "a\x08b", "a\x7fb",
    "line\x0bfeed\x0cform", "\u202egnp.exe", "\u2066a\u2069b", "john@\u200bexample.org", "appro\u00adve",
    "a\u2028b", "x" + "\u0301" * 40, "x" + "\u20e3" * 9, "\U000e0061\U000e0062", "\ufe01" * 8, "a\tb\nc",
]  # fmt: skip

HOSTILE = [
    *(f"{WITNESS}{chr(code)}b" for code in (*_CONTROLS, *_BIDI, *HIDDEN)),
    *(f"{WITNESS}{text}" for text in _SEQUENCES),
]
"""Each has something that must be written as an escape."""

ALL_AT_ONCE = " ".join(HOSTILE)
"""For places where a text may be long."""

_NEVER = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def assert_harmless(line: str, *, but: str = "") -> None:
    """Fail where a character acts or hides; ``but``: characters that are ours here."""
    for char in line:
        if char not in but:
            assert unicodedata.category(char) not in _NEVER, ascii(line)
            assert ord(char) not in HIDDEN, ascii(line)

"""Nothing foreign acts on a terminal (attacks.md C6)."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlp.output import Console, Style
from runloop.escape import block, json_text, mixed_scripts, visible

CONTROLS = [*range(0x20), *range(0x7F, 0xA0)]
BIDI = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
HIDDEN = [0x00AD, 0x034F, 0x115F, 0x1160, 0x180E, 0x200B, 0x200C, 0x200D, 0x2028, 0x2029, 0x2060, 0x2800]
HIDDEN += [0x3164, 0xFEFF, 0xFFA0, 0xFFF9, 0xFE00, 0xE0041, 0xE0100, 0xE000, 0xD800, 0xFFFE]
SEQUENCES = [
    "\x1b]52;c;cm0gLXJmIH4=\x07",
    "\x1b]0;approved\x07",
    "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x1b[2J\x1b[H",
    "\x1b[1A\x1b[2Kall is well",
    "\x1b[?1049h",
    "\x9b31m",
    "\x90q\x9c",
    "\x1bP+q544e\x1b\\",
    "\x1b_Gf=100;\x1b\\",
    "\x1b[6n",
    "\x1b[200~y\n\x1b[201~",
    "nice\rnasty",
    "a\x08b",
    "line\x0bfeed\x0cform",
    "\u202egnp.exe",
    "john@\u200bexample.org",
    "appro\u00adve",
    "x" + "\u0301" * 40,
]
HOSTILE = [f"a{chr(code)}b" for code in (*CONTROLS, *BIDI, *HIDDEN)] + SEQUENCES
"""More than a hundred strings; in each, something must be written as an escape."""


@pytest.mark.requirement("C6")
@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_what_acts_or_hides_is_written_as_an_escape(text: str) -> None:
    shown = visible(text)
    assert shown != text
    assert "\\x" in shown or "\\u" in shown or "\\U" in shown
    assert_harmless(shown)


@pytest.mark.requirement("C6")
@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_every_way_out_of_the_console_escapes(text: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    console = Console(out, err, Style(verbose=True))
    console.data(text)
    console.text(text)
    console.say(text)
    console.note(text)
    console.detail(text)
    console.rows([{"a": text, "b": [text], "c": {text: text}}], ("a", "b", "c"), titles={"a": text})
    console.json({"a": text})
    for line in (out.getvalue() + err.getvalue()).split("\n"):
        assert_harmless(line)


@pytest.mark.requirement("C6")
@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_json_keeps_the_value_and_is_printable_ascii(text: str) -> None:
    written = json_text({"text": text})
    assert written.isascii()
    assert written.isprintable()
    assert json.loads(written) == {"text": text}


def assert_harmless(line: str) -> None:
    for char in line:
        assert unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}, ascii(line)
        assert ord(char) not in HIDDEN, ascii(line)


@given(st.text())
def test_no_text_at_all_gets_through(text: str) -> None:
    assert_harmless(visible(text))
    for line in block(text):
        assert_harmless(line)


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "Grüße aus Köln",
        "日本語 です",
        "Ёлка",
        "naïve café",
        "e\u0301",
        "10\u00a0€",
        "👍",
        "tab-free",
    ],
)
def test_honest_writing_is_shown_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_a_field_stays_on_one_line_and_a_block_keeps_its_lines() -> None:
    assert visible("one\ntwo\tthree") == "one\\x0atwo\\x09three"
    assert block("one\r\ntwo\n\tthree") == ["one", "two", "    three"]


def test_a_long_line_is_folded_and_loses_nothing() -> None:
    lines = block("x" * 250, width=100)
    assert [len(line) for line in lines] == [100, 100, 50]
    assert block("every word of it stays", width=12) == ["every word ", "of it stays"]


def test_words_of_two_alphabets_are_noticed() -> None:
    assert mixed_scripts("write to \u0440aypal@example.org") == ["\u0440aypal"]
    assert mixed_scripts("Ёлка and Grüße") == []
    assert mixed_scripts("plain") == []

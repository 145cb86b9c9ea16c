"""Nothing foreign acts on a terminal (attacks.md C6)."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlp.output import Console, Style
from runloop.escape import block, json_text, mixed_scripts, visible
from tests.hostile_text import HOSTILE, assert_harmless


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

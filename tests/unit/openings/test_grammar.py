"""The reference page of the language and the parser say the same."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lark import Lark

from openings import brace, edges, keys
from openings.load import parse, read
from openings.write import to_brace
from tests.unit.openings import ebnf
from tests.unit.openings.conftest import LIBRARY

UNREAD = {"opening.syntax", "opening.expression", "opening.empty", "opening.depth", "opening.yaml"}
"""Findings of a text that is no sentence of the grammar; all others are about what it says."""

_OF_POLICY = ("budget $", "ask $")
"""Statements of the table that stand in a policy."""

blanks = st.sampled_from([" ", " ", " ", "\n", "\t", "  # a comment; } {\n", "\r\n"])


def unread(text: str) -> list[str]:
    return [str(found) for found in parse(text).findings if found.code in UNREAD]


@pytest.mark.requirement("I5.language.2")
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(ebnf.sentences(), st.data())
def test_the_parser_reads_every_sentence_of_the_published_grammar(
    words: list[str], data: st.DataObject
) -> None:
    text = "".join(word + data.draw(blanks) for word in words)
    assert unread(text) == []


@pytest.mark.requirement("I5.language.2")
def test_every_production_and_every_terminal_of_the_published_grammar_is_read() -> None:
    rules = ebnf.rules()
    named = {found for tree in rules.values() for kind, found in ebnf.walk(tree) if kind != "pattern"}
    met: set[str] = set()
    for seed in range(2_000):
        words, used = ebnf.cover(seed)
        if used <= met:
            continue
        met |= used
        assert unread(" ".join(words)) == [], words
    assert met == named | set(rules)


def test_the_published_grammar_names_every_statement_the_parser_knows_and_no_other() -> None:
    rules = ebnf.rules()

    def words_of(*names: str) -> set[str]:
        return {
            found.strip('"') for name in names for kind, found in ebnf.walk(rules[name]) if kind == "word"
        }

    starts = {
        next(iter(ebnf.walk(rules[str(name)])))[1].strip('"') for _, name in ebnf.walk(rules["statement"])
    }
    assert starts - {"ref"} == set(brace.TOP)
    assert set(brace.BODY) <= words_of("term")
    assert set(brace.LIMITS) <= words_of("limit")


@cache
def recogniser() -> Lark:
    return ebnf.recogniser()


EXAMPLES = ebnf.PAGE.parents[1] / "examples" / "openings"


@pytest.mark.requirement("I5.language.2")
@pytest.mark.parametrize(
    "path", [LIBRARY / "compose_email.yaml", *sorted(EXAMPLES.iterdir())], ids=lambda p: p.stem
)
def test_what_is_written_as_brace_text_is_a_sentence_of_the_published_grammar(path: Path) -> None:
    recogniser().parse(to_brace(read(path)))


@pytest.mark.parametrize(
    ("title", "table"),
    [
        ("The opening", keys.TOP),
        ("A parameter", keys.PARAM),
        ("Policy", keys.POLICY),
        ("A node", keys.NODE),
        ("Retry", keys.RETRY),
        ("For each", keys.FOR_EACH),
        ("An edge", edges.EDGE),
        ("Success", edges.MODES),
    ],
)
def test_the_reference_page_lists_the_keys_that_are_read(title: str, table: tuple[str, ...]) -> None:
    page = ebnf.PAGE.read_text(encoding="utf-8")
    part = page.split(f"### {title}\n", 1)[1].split("\n#", 1)[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)) == table


def test_the_examples_of_the_reference_page_are_read() -> None:
    page = ebnf.PAGE.read_text(encoding="utf-8")
    (example,) = re.findall(r"```\n(opening .*?)```", page, re.DOTALL)
    assert parse(example).findings == ()
    table = page.split("| brace text | YAML |", 1)[1].split("\n\n", 1)[0]
    rows = re.findall(r"^\| `(.+?)`(?:, `(.+?)`)? \|", table, re.MULTILINE)
    assert len(rows) > 10
    for statement in filter(None, (one for row in rows for one in row)):
        words = statement.replace("{ … }", "{ exists(a.out) }").replace("…", "words")
        inside = words.split()[0] in (*brace.BODY,) and not words.startswith(_OF_POLICY)
        body = f"node a = agent:a {{ {words} }}" if inside else f"node a = agent:a; node b = agent:b; {words}"
        body = f"policy {{ {words} }} node a = agent:a;" if words.startswith(_OF_POLICY) else body
        assert [found.code for found in parse(f"opening x {{ {body} }}").findings] == [], statement

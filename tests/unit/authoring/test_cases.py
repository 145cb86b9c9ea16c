"""tests/cases.toml: how cases are read, and when an outcome is the expected one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.authoring.cases import MAX_CASES, CasesError, Outcome, differences, parse_cases

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def one(text: str) -> Any:
    (case,) = parse_cases(text.encode())
    return case


def faults(text: str) -> list[str]:
    with pytest.raises(CasesError) as caught:
        parse_cases(text.encode())
    return [f"{finding.line}: {finding.what}" for finding in caught.value.findings]


WHOLE = """
[[case]]
name = "a"
ports = { text = ["x"] }
with = { n = 1 }
expect = { ports = { out = [{ ok = true }] } }
[case.host]
"kb.search" = { items = [] }
"time.now" = { refuse = { code = "cap.denied", message = "no" } }
"""


def test_a_case_is_read_whole() -> None:
    case = one(WHOLE)
    assert (case.name, case.line, case.op) == ("a", 2, "handle")
    assert case.guest_input("me") == {
        "op": "handle",
        "ports": {"text": ["x"]},
        "with": {"n": 1},
        "context": {"agent": "me", "node": "test", "attempt": 1, "run": "test", "trace_id": "test"},
        "message": {"type": "intent.generic.v1", "payload": {"n": 1, "text": "x"}, "meta": {}},
    }
    assert case.host["time.now"] == {"refuse": {"code": "cap.denied", "message": "no"}}


def test_a_case_of_a_tool_calls_it() -> None:
    case = one('[[case]]\nname="t"\nop="tool"\ntool="a.b"\nargs={n=1}\nexpect={error="a.c"}')
    given = case.guest_input("me")
    assert (given["op"], given["tool"], given["args"]) == ("tool", "a.b", {"n": 1})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[[case]\n", "1: not TOML"),
        ("other = 1", "0: unknown key 'other'"),
        ("case = 3", "0: 'case' is no list of tables"),
        ("[[case]]\nexpect = {error='a'}", "1: the case has no name"),
        ("[[case]]\nname='a'\nexpect={}", "1: 'expect' says neither ports nor error"),
        ("[[case]]\nname='a'\n", "1: 'expect' says neither ports nor error"),
        ("[[case]]\nname='a'\nexpect={error='a', ports={}}", "1: 'expect' says neither ports nor error"),
        ("[[case]]\nname='a'\nexpect={error='Not a code'}", "1: 'expect.error' cannot be"),
        ("[[case]]\nname='a'\nexpect={ports=1}", "1: 'expect.ports' must be a table"),
        ("[[case]]\nname='a'\nexpect={ports={out=1}}", "1: expect.ports.out must be a list of values"),
        ("[[case]]\nname='a'\nports={x=1}\nexpect={error='a'}", "1: ports.x must be a list of values"),
        ("[[case]]\nname='a'\nwith=1\nexpect={error='a'}", "1: 'with' must be a table"),
        ("[[case]]\nname='a'\nop='describe'\nexpect={error='a'}", "1: 'op' cannot be 'describe'"),
        ("[[case]]\nname='a'\nop='tool'\nexpect={error='a'}", "1: a case of a tool names it"),
        ("[[case]]\nname='a'\ntool='a.b'\nexpect={error='a'}", "1: 'tool' and 'args' belong to op"),
        ("[[case]]\nname='a'\nwith={d=2031-01-01}\nexpect={error='a'}", "1: with.d is a date"),
        ("[[case]]\nname='a'\nwith={d=[nan]}\nexpect={error='a'}", "1: with.d[0] is no number"),
        (
            "[[case]]\nname='a'\nhost={'kb.serch'=1}\nexpect={error='a'}",
            "1: there is no host call 'kb.serch'",
        ),
        ("[[case]]\nname='a'\nhost={'kb.read'={refuse={}}}\nexpect={error='a'}", "1: the refusal of kb.read"),
        ("[[case]]\nname='a'\nmore=1\nexpect={error='a'}", "1: unknown key 'more'"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, fault: str) -> None:
    assert [said for said in faults(text) if said.startswith(fault)], faults(text)


def test_every_mistake_is_reported_at_once_and_each_case_has_its_own_line() -> None:
    text = "[[case]]\nname='a'\nexpect={error='a'}\n\n[[case]]\nname='a'\nexpect={error='A'}\nx=1\n"
    assert [said.partition(":")[0] for said in faults(text)] == ["5", "5", "5"]


def test_there_is_an_end_to_the_number_and_the_size_of_cases() -> None:
    many = "".join(f"[[case]]\nname='{n}'\nexpect={{error='a'}}\n" for n in range(MAX_CASES + 1))
    assert any("more than" in said for said in faults(many))
    assert "larger than" in faults("#" * (1024 * 1024 + 1))[0]


@pytest.mark.parametrize(
    ("expected", "got", "agree"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, True),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": False}, {"a": 0}, False),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": 1}, {}, False),
        ([1, 2], [1, 2, 3], False),
        ([{"a": 1}], [{"a": 1, "b": 2}], True),
        ({}, [], False),
        ("", None, False),
    ],
)
def test_objects_may_have_more_and_lists_must_be_as_long(expected: Any, got: Any, agree: bool) -> None:
    wrong = differences({"ports": {"out": [expected]}}, Outcome(ok=True, ports={"out": [got]}))
    assert (wrong == []) is agree, wrong


@given(JSON)
def test_what_came_out_is_what_came_out(value: Any) -> None:
    assert differences({"ports": {"out": [value]}}, Outcome(ok=True, ports={"out": [value]})) == []


@pytest.mark.parametrize(
    ("outcome", "expect", "words"),
    [
        (Outcome(ok=False, code="a.b", message="why"), {"ports": {}}, "it failed with a.b: why"),
        (Outcome(ok=False, code="a.b"), {"error": "a.c"}, "it failed with a.b; 'a.c' was expected"),
        (Outcome(ok=True), {"error": "a.c"}, "it succeeded; the failure 'a.c' was expected"),
        (Outcome(ok=True), {"ports": {"out": []}}, "ports has no 'out'; it has nothing"),
        (Outcome(ok=True, unscripted=("kb.read",)), {"ports": {}}, "it called kb.read, which the case gives"),
        (
            Outcome(ok=False, code="x", unscripted=("kb.read",)),
            {"error": "x"},
            "it called kb.read, which the",
        ),
    ],
)
def test_a_difference_says_what_and_where(outcome: Outcome, expect: dict[str, Any], words: str) -> None:
    (said,) = differences(expect, outcome)
    assert said.startswith(words)

"""The language of guards and success clauses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openings.expressions import (
    ABSENT,
    Compare,
    Exists,
    ExpressionError,
    Parser,
    Ref,
    Truth,
    evaluate,
    parse_condition,
    parse_endpoint,
    walk,
)


@pytest.mark.parametrize(
    ("text", "ref", "op", "literal"),
    [
        ("a.out", Ref("a", ("out",)), None, None),
        ("review.ok == true", Ref("review", ("ok",)), "==", True),
        ("review.ok==true", Ref("review", ("ok",)), "==", True),
        ("a.b.c.d >= -1.5", Ref("a", ("b", "c", "d")), ">=", -1.5),
        ("a.b<3.0", Ref("a", ("b",)), "<", 3),
        ('a.b != "x \\"y\\" \\u00e9"', Ref("a", ("b",)), "!=", 'x "y" é'),
        ("a.b == 'it is \\ raw'", Ref("a", ("b",)), "==", "it is \\ raw"),
        ("a.b == null", Ref("a", ("b",)), "==", None),
        ("exists.out == 1", Ref("exists", ("out",)), "==", 1),
        ("existsnot.out", Ref("existsnot", ("out",)), None, None),
        ("true.false == false", Ref("true", ("false",)), "==", False),
    ],
)
def test_the_source_of_an_edge_is_read(text: str, ref: Ref, op: str | None, literal: object) -> None:
    read = parse_endpoint(text)
    assert read == (ref, op, literal)
    assert type(read[2]) is type(literal)


def test_a_success_clause_is_a_comparison_or_asks_whether_something_exists() -> None:
    assert parse_condition("exists( a.out )") == Exists(Ref("a", ("out",)))
    assert parse_condition("a.n > 3") == Compare(Ref("a", ("n",)), ">", 3)
    assert str(parse_condition("a.n   ==   'x'")) == 'a.n == "x"'


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("", 1),
        ("a", 2),
        ("a.", 3),
        ("a.b ==", 7),
        ("a.b = 1", 5),
        ("a.b == maybe", 8),
        ("a.b == true and c.d == 1", 13),
        ("a.b == 9007199254740993", 8),
        ("a.b == 1e400", 9),
        ("a.b == [1]", 8),
        ("__import__('os').x", 11),
        ('a.b == "\\ud800"', 8),
        ("a.b.c.d.e.f.g.h.i", 1),
        ("a.b == " + "1" * 2000, 1024),
        ("a.b\n== 1", 4),
    ],
)
def test_what_is_no_expression_is_refused_with_its_column(text: str, column: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_endpoint(text)
    assert caught.value.column == column
    assert caught.value.hint


def test_a_plain_reference_is_no_success_clause() -> None:
    with pytest.raises(ExpressionError):
        parse_condition("a.out")


@pytest.mark.parametrize(
    ("text", "value", "truth"),
    [
        ("a.b == true", True, Truth.TRUE),
        ("a.b == true", 1, Truth.FALSE),
        ("a.b == 1", True, Truth.FALSE),
        ("a.b == 1", 1.0, Truth.TRUE),
        ("a.b != 1", 2, Truth.TRUE),
        ("a.b != 1", "1", Truth.FALSE),
        ("a.b >= 2", 2, Truth.TRUE),
        ("a.b < 2", 2, Truth.FALSE),
        ("a.b > 'a'", "b", Truth.TRUE),
        ("a.b > 1", "2", Truth.FALSE),
        ("a.b > true", True, Truth.FALSE),
        ("a.b == 'x'", ["x"], Truth.FALSE),
        ("a.b == null", None, Truth.TRUE),
        ("a.b == null", 0, Truth.FALSE),
        ("a.b != null", 0, Truth.TRUE),
        ("a.b == 0", None, Truth.FALSE),
        ("a.b != 0", None, Truth.FALSE),
        ("a.b < null", None, Truth.FALSE),
        ("a.b == 1", ABSENT, Truth.UNKNOWN),
        ("exists(a.b)", ABSENT, Truth.FALSE),
        ("exists(a.b)", None, Truth.TRUE),
    ],
)
def test_a_condition_has_three_values(text: str, value: object, truth: Truth) -> None:
    judged = evaluate(parse_condition(text), lambda ref: value)
    assert judged.truth is truth
    assert bool(judged) is (truth is Truth.TRUE)
    assert judged.reason or truth is Truth.TRUE


def test_fields_are_followed_through_objects_only() -> None:
    assert walk({"a": {"b": None}}, ("a", "b")) is None
    assert walk({"a": [1]}, ("a", "0")) is ABSENT
    assert walk("text", ("a",)) is ABSENT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    JSON,
    st.sampled_from(["==", "!=", ">=", "<=", ">", "<"]),
    st.none() | st.booleans() | st.integers() | st.text(),
)
def test_no_value_makes_an_evaluation_fail(value: object, op: str, literal: object) -> None:
    judged = evaluate(Compare(Ref("a", ("b",)), op, literal), lambda ref: value)
    assert judged.truth in (Truth.TRUE, Truth.FALSE)


@given(JSON, JSON)
def test_equal_and_unequal_are_never_both_true(value: object, literal: object) -> None:
    def lookup(ref: Ref) -> object:
        return value

    equal = evaluate(Compare(Ref("a", ("b",)), "==", literal), lookup)
    unequal = evaluate(Compare(Ref("a", ("b",)), "!=", literal), lookup)
    assert not (equal and unequal)


PARSER = Parser()


@given(st.text(max_size=60) | st.text("ab.=!<> '\"true()0159-\\", max_size=40))
def test_any_text_is_read_or_refused_and_what_is_read_reads_the_same_again(text: str) -> None:
    try:
        condition = PARSER.condition(text)
    except ExpressionError as error:
        assert 1 <= error.column <= len(text) + 1
        return
    assert PARSER.condition(str(condition)) == condition

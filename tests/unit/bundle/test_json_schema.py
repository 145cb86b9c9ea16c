"""JSON Schema as tools may use it: the same verdicts as the library of reference, within bounds."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.bundle.json_schema import MAX_NODES, read_schema


def read(schema: Any) -> tuple[Any, list[str]]:
    findings: list[str] = []
    return read_schema(schema, findings), findings


def misfit(schema: Any, value: Any) -> str | None:
    made, findings = read(schema)
    assert findings == []
    found: str | None = made.misfit(value)
    return found


NAMES = st.sampled_from(["a", "b", "city"])
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.sampled_from([0.5, 1.0, -2.0]),
        st.sampled_from(["", "a", "ab", "é"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
TYPES = st.sampled_from(["array", "boolean", "integer", "null", "number", "object", "string"])


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    counts = st.integers(0, 3)
    some = st.lists(inner, min_size=1, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.one_of(TYPES, st.lists(TYPES, min_size=1, max_size=2, unique=True)),
            "enum": st.lists(VALUES, min_size=1, max_size=3),
            "const": VALUES,
            "properties": st.dictionaries(NAMES, inner, max_size=2),
            "required": st.lists(NAMES, max_size=2, unique=True),
            "additionalProperties": inner,
            "items": inner,
            "prefixItems": some,
            "uniqueItems": st.booleans(),
            "anyOf": some,
            "allOf": some,
            "oneOf": some,
            "not": inner,
            "minimum": st.integers(-2, 2),
            "exclusiveMaximum": st.integers(-2, 2),
            "minLength": counts,
            "maxLength": counts,
            "minItems": counts,
            "maxItems": counts,
            "minProperties": counts,
            "maxProperties": counts,
            "$ref": st.just("#/$defs/shared"),
            "description": st.just("a note"),
            "format": st.just("email"),
        },
    )


SCHEMAS = st.recursive(st.booleans(), objects, max_leaves=5)


@given(SCHEMAS, st.one_of(st.booleans(), st.just({"type": "string"})), VALUES)
def test_the_verdict_is_that_of_the_library_of_reference(schema: Any, shared: Any, value: Any) -> None:
    document = {**schema, "$defs": {"shared": shared}} if isinstance(schema, dict) else schema
    fits = jsonschema.Draft202012Validator(document).is_valid(value)
    assert (misfit(document, value) is None) == fits


@pytest.mark.parametrize(
    ("schema", "value", "words"),
    [
        ({"type": "object", "required": ["city"]}, {}, "$: 'city' is missing"),
        ({"properties": {"city": {"type": "string"}}}, {"city": 1}, "$.city: must be of type string"),
        ({"additionalProperties": False}, {"x": 1}, "$.x: nothing is allowed here"),
        ({"items": {"maximum": 3}}, [1, 9], "$[1]: out of bounds"),
        ({"enum": ["C", "F"]}, "K", "$: must be one of 'C', 'F'"),
        ({"maxLength": 2}, "abc", "$: maxLength is 2, and it has 3"),
        ({"type": "number"}, True, "$: must be of type number"),
    ],
)
def test_a_misfit_says_where_and_why(schema: Any, value: Any, words: str) -> None:
    assert misfit(schema, value) == words


@pytest.mark.parametrize(
    ("schema", "finding"),
    [
        ([], "$: a schema is an object, true or false"),
        (
            {"pattern": "(a+)+$"},
            "$.pattern: regular expressions of strangers are not run; use enum or maxLength",
        ),
        ({"patternProperties": {"(a+)+$": {}}}, "$.patternProperties: regular expressions"),
        ({"$ref": "https://evil.example/schema"}, "$.$ref: a reference stays inside the schema"),
        ({"$ref": "other.json#/a"}, "$.$ref: a reference stays inside the schema"),
        ({"$ref": "#"}, "$.$ref: a schema that contains itself has no bound"),
        ({"$ref": "#/$defs/x"}, "$.$ref: there is nothing at '#/$defs/x'"),
        ({"$dynamicRef": "#x"}, "$.$dynamicRef: this keyword is not supported"),
        ({"if": {}}, "$.if: this keyword is not supported"),
        ({"type": "text"}, "$.type: must name types"),
        ({"type": []}, "$.type: must name types"),
        ({"enum": []}, "$.enum: must be a list of values"),
        ({"required": "city"}, "$.required: must be a list of names"),
        ({"minLength": -1}, "$.minLength: must be a count"),
        ({"minLength": True}, "$.minLength: must be a count"),
        ({"maximum": "9"}, "$.maximum: must be a number"),
        ({"anyOf": []}, "$.anyOf: must be a list of schemas"),
        ({"properties": []}, "$.properties: must be an object"),
        ({"items": [{}]}, "$.items: a schema is an object, true or false"),
        ({"uniqueItems": 1}, "$.uniqueItems: must be true or false"),
        ({"$defs": 1}, "$.$defs: must be an object"),
    ],
)
def test_what_cannot_be_evaluated_safely_is_refused(schema: Any, finding: str) -> None:
    _, findings = read(schema)
    assert findings[0].startswith(finding)


def test_every_mistake_is_told_at_once() -> None:
    _, findings = read({"type": "text", "properties": {"a": {"pattern": "x"}, "b": 1}})
    assert len(findings) == 3


def test_a_ring_of_references_is_found() -> None:
    ring = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}
    assert "contains itself" in read(ring)[1][0]


def test_references_that_double_at_every_step_are_too_large() -> None:
    defs: dict[str, Any] = {"s0": {"type": "string"}}
    for n in range(1, 25):
        defs[f"s{n}"] = {"anyOf": [{"$ref": f"#/$defs/s{n - 1}"}, {"$ref": f"#/$defs/s{n - 1}"}]}
    _, findings = read({"$defs": defs, "$ref": "#/$defs/s24"})
    assert findings and all("too deep or too large" in finding for finding in findings)


def test_depth_and_size_are_bounded() -> None:
    deep: Any = {}
    for _ in range(40):
        deep = {"items": deep}
    assert "too deep" in read(deep)[1][0]
    wide = {"properties": {f"p{n}": {} for n in range(MAX_NODES + 1)}}
    assert "too deep or too large" in read(wide)[1][0]


def test_a_comparison_that_takes_too_long_is_a_misfit_even_where_a_misfit_is_wanted() -> None:
    heavy = {"items": {"anyOf": [*[{"type": "string"}] * 400, {"type": "number"}]}}
    values = [0] * 4_000
    assert "too large to check" in (misfit({"not": heavy}, values) or "")
    assert misfit({"oneOf": [heavy, True]}, values) is not None
    assert misfit({"anyOf": [{"not": heavy}, {"not": heavy}]}, values) is not None
    assert misfit(heavy, values) is not None


def test_looking_for_the_same_item_twice_counts_as_steps() -> None:
    words = [f"{n:04}" * 500 for n in range(100)]
    assert misfit({"uniqueItems": True}, words) is None
    assert misfit({"allOf": [{"uniqueItems": True}] * 900}, words) is not None


@given(SCHEMAS, VALUES)
def test_nothing_is_raised_for_whatever_schema(schema: Any, value: Any) -> None:
    findings: list[str] = []
    made = read_schema({"properties": schema, "items": value, "anyOf": [schema, value]}, findings)
    if not findings:
        made.misfit(value)

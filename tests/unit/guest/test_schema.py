"""Type hints as schemas: what a hint says is what a value must be, and what the schema accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from runloop.schema import Misfit, arguments_schema, build, plain, schema_for


@dataclass(frozen=True)
class Day:
    label: str
    high: float
    notes: list[str] = field(default_factory=list)


class Query(TypedDict):
    city: str
    days: NotRequired[int]


HINTS: list[tuple[Any, dict[str, Any]]] = [
    (str, {"type": "string"}),
    (int, {"type": "integer"}),
    (float, {"type": "number"}),
    (bool, {"type": "boolean"}),
    (None, {"type": "null"}),
    (Any, {}),
    (list[int], {"type": "array", "items": {"type": "integer"}}),
    (Sequence[str], {"type": "array", "items": {"type": "string"}}),
    (list, {"type": "array"}),
    (
        tuple[int, str],
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "items": False,
            "minItems": 2,
        },
    ),
    (dict[str, bool], {"type": "object", "additionalProperties": {"type": "boolean"}}),
    (Mapping[str, Any], {"type": "object"}),
    (str | None, {"type": ["string", "null"]}),
    (list[int] | str, {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "string"}]}),
    (Literal["a", 1], {"enum": ["a", 1]}),
    (Annotated[str, "A city"], {"type": "string", "description": "A city"}),
    (
        Day,
        {
            "type": "object",
            "properties": {
                "label": {"type": "string"},
                "high": {"type": "number"},
                "notes": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["high", "label"],
            "additionalProperties": False,
        },
    ),
    (
        Query,
        {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    ),
]


@pytest.mark.parametrize(("hint", "schema"), HINTS, ids=lambda value: str(value)[:40])
def test_a_hint_is_a_schema(hint: Any, schema: dict[str, Any]) -> None:
    assert schema_for(hint) == schema
    Draft202012Validator.check_schema(schema_for(hint))


@pytest.mark.parametrize("hint", [bytes, object, set[int], dict[int, str], complex])
def test_what_json_cannot_carry_is_refused_when_the_schema_is_made(hint: Any) -> None:
    with pytest.raises(TypeError, match=r"JSON|keys"):
        schema_for(hint)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(-9, 9, width=16)
    | st.sampled_from(["", "a", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["city", "days", "label", "high", "notes", "z"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.mark.requirement("I3.sdk.2")
@given(st.sampled_from([hint for hint, _ in HINTS]), JSON)
def test_a_value_is_built_exactly_when_the_schema_accepts_it(hint: Any, value: Any) -> None:
    accepted = Draft202012Validator(schema_for(hint)).is_valid(value)
    # JSON Schema takes 1.0 for an integer and True == 1 in an enum; Python's types do not.
    strict = not (isinstance(value, float) and value.is_integer())
    try:
        made = build(hint, value)
    except Misfit:
        assert not accepted or not strict or _holds_whole_floats(value)
    else:
        assert accepted
        assert plain(made) == value or _holds_whole_floats(value)


def _holds_whole_floats(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_whole_floats, value.values()))
    if isinstance(value, list):
        return any(map(_holds_whole_floats, value))
    return isinstance(value, float) and value.is_integer()


@pytest.mark.parametrize(
    ("hint", "value", "words"),
    [
        (int, True, "value must be an integer, not a boolean"),
        (list[int], [1, "2"], "value[1] must be an integer, not a string"),
        (Day, {"label": "x", "high": 1, "low": 2}, "value has no 'low'; it has high, label, notes"),
        (Day, {"label": "x"}, "value lacks 'high'"),
        (Literal["a", "b"], "c", "value must be one of 'a', 'b', not 'c'"),
        (tuple[int, int], [1], "value must have 2 items, not 1"),
        (dict[str, int], {"k": None}, "value.k must be an integer, not null"),
    ],
)
def test_a_misfit_says_what_is_wrong_and_where(hint: Any, value: Any, words: str) -> None:
    with pytest.raises(Misfit) as misfit:
        build(hint, value)
    assert str(misfit.value) == words


def test_arguments_are_an_object_with_defaults_and_without_what_is_left_out() -> None:
    def look(
        city: Annotated[str, "where"], days: int = 3, *, host: Any, when: Query | None = None
    ) -> Day: ...

    schema = arguments_schema(look, ("host",))
    assert schema["required"] == ["city"]
    assert schema["properties"]["days"] == {"type": "integer", "default": 3}
    assert set(schema["properties"]) == {"city", "days", "when"}
    assert schema["additionalProperties"] is False


def test_arguments_that_have_no_name_have_no_schema() -> None:
    def loose(*values: int) -> None: ...

    with pytest.raises(TypeError, match="by name"):
        arguments_schema(loose)

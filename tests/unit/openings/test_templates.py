"""Templates: parameters are put in, nothing is evaluated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openings.template import fill, template_params

PARAMS = {"name": "Ann", "n": 3, "list": [1, {"a": None}], "yes": True, "evil": "{{params.name}}"}


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("{{params.n}}", 3),
        ("{{ params.list }}", [1, {"a": None}]),
        ("Dear {{params.name}}, {{params.n}} {{params.yes}}", "Dear Ann, 3 true"),
        ("x {{params.list}}", 'x [1,{"a":null}]'),
        ("{{params.evil}}", "{{params.name}}"),
        ("see {{params.evil}}", "see {{params.name}}"),
        ("{{params.nobody}}", None),
        ("{{env.HOME}}", "{{env.HOME}}"),
        ("a {{1+1}}", "a {{1+1}}"),
        ({"k": ["{{params.n}}"], "{{params.n}}": 1}, {"k": [3], "{{params.n}}": 1}),
        (5, 5),
        (None, None),
    ],
)
def test_a_template_keeps_the_type_when_it_is_the_whole_value(given_: object, expected: object) -> None:
    assert fill(given_, PARAMS) == expected


def test_templates_are_found_with_their_places() -> None:
    found = list(template_params({"a": ["x {{params.b}} {{c}}"], "d": 1}))
    assert found == [(("a", 0), "{{params.b}}", "b"), (("a", 0), "{{c}}", None)]


@given(st.text(), st.text())
def test_what_is_put_in_is_not_looked_at_again(before: str, value: str) -> None:
    if "{" not in before and "}" not in before:
        assert fill(before + ": {{params.x}}", {"x": value}) == before + ": " + value

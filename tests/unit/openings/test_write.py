"""An opening written as text reads back as the opening it was, in both syntaxes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from openings.definition import Opening
from openings.load import load
from openings.write import to_brace, to_yaml
from tests.unit.openings.anything import openings


@pytest.mark.requirement("I5.language.1")
@settings(max_examples=80, deadline=None)
@given(openings())
def test_yaml_and_brace_text_read_back_as_the_definition_they_were_written_from(opening: Opening) -> None:
    for write in (to_brace, to_yaml):
        read = load(write(opening))
        assert read == opening
        assert read.digest == opening.digest
        assert write(read) == write(opening)


def test_the_reference_opening_is_one_definition_in_both_syntaxes(compose_email: Opening) -> None:
    assert load(to_brace(compose_email)).digest == load(to_yaml(compose_email)).digest == compose_email.digest


@pytest.mark.parametrize("ms", [1, 999, 1000, 60_000, 90_000, 3_600_000, 86_400_000, 172_800_000])
def test_a_duration_is_written_in_the_largest_unit_that_divides_it(ms: int) -> None:
    made = load(f"opening x {{ node a = agent:a {{ timeout {ms}ms }} }}")
    assert load(to_brace(made)).nodes[0].timeout_ms == ms
    assert ("ms" in to_brace(made)) == (ms % 1000 != 0)

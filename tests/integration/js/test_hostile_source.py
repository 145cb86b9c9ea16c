"""Whatever text is source or data: an attempt ends with a code, in bounds, and the next one runs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.js.conftest import Stage

pytestmark = pytest.mark.asyncio(loop_scope="package")

TOKENS = st.sampled_from(
    """( ) [ ] { } => = == + ++ . ?. ... ; , : ? ! ~ ` ${ " ' / /* */ // \\ # @ 0x 1e 1n _ a b exports module
    require('./agent.js') require("runloop") this null undefined NaN new typeof void delete in of instanceof
    function class extends super static get set async await yield let const var if else for while do switch
    case break continue return throw try catch finally import export default eval Function Proxy Reflect
    Symbol Object.prototype Array.prototype Promise.prototype __proto__ constructor toString valueOf toJSON
    then JSON Date Math.random() globalThis arguments with debugger Error.prepareStackTrace stack
    message""".split()  # noqa: SIM905  words read better than a column of strings
)
SOURCES = st.one_of(
    st.text(max_size=200),
    st.lists(TOKENS, max_size=40).map(" ".join),
    st.lists(TOKENS, max_size=12).map(lambda parts: f"exports.handle = () => {{ {' '.join(parts)} }};"),
    st.lists(TOKENS, max_size=12).map(
        lambda parts: f"exports.handle = () => ({{ out: {' '.join(parts)} }});"
    ),
)
CODES = {
    "agent.async", "agent.entrypoint", "agent.exception", "agent.output", "agent.syntax",
    "guest.deadline", "guest.error", "guest.fuel", "guest.output",
}  # fmt: skip
"""No trap: short text cannot exhaust the stack. ``guest.error``: an agent may break its own library."""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(source=SOURCES)
async def test_any_text_as_source_ends_with_a_code(stage: Stage, source: str) -> None:
    result = await stage.run(source.encode(errors="replace").decode(), fuel=100_000_000)
    if result.error is not None:
        assert result.error.code in CODES, result.error


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SAFE = 2**53 - 1
NUMBERS = st.integers(-SAFE, SAFE) | st.floats(-SAFE, SAFE)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=30,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=JSON)
async def test_any_json_goes_through_an_agent_unchanged(stage: Stage, value: Any) -> None:
    source = "exports.handle = (task) => ({ out: task.port('in') });"
    result = await stage.run(source, input={"ports": {"in": [value]}})
    assert result.ok, result.error
    assert result.output is not None
    assert result.output["ports"]["out"] == [value]

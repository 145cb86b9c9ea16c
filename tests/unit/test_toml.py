"""Documents of strangers: whatever stands in them, a reader answers with its own findings or not at all."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop import toml
from runloop.bundle.config_agent import expand
from runloop.bundle.manifest import parse_manifest
from runloop.bundle.tools import ToolsError, parse_tools
from runloop.bundle.trust import parse_trust
from runloop.caps.policy import CAPABILITIES, parse_policy
from runloop.errors import RunloopError

HUGE = "0x" + "f" * 5_000
VALUES = [HUGE, "9" * 5_000, f"[{HUGE}]", f"{{a = {HUGE}}}", "1979-05-27", "[1979-05-27T07:32:00Z]",
          "{a = 07:32:00}", "nan", "-inf", "1e400", "[]", "{}", "[[{}]]", "true", "-1", '"\\u0000"',
          '"\\u202e"', '""']  # fmt: skip
MANIFEST_KEYS = ("name", "version", "variant", "language", "entrypoint", "description", "ports", "ops",
                 "caps", "tools", "limits", "accepts", "replies", "min_runloop", "ports.in", "ports.in.text",
                 "ports.in.text.type", "ports.in.text.required", "limits.fuel", "other")  # fmt: skip
CONFIG_KEYS = ("name", "version", "variant", "description", "ports", "limits", "prompt", "template", "turns",
               "max_tokens", "temperature", "model", "tools", "gather", "kb", "net", "output", "schema",
               "tool", "schema.type", "other")  # fmt: skip
TRUST_KEYS = ("version", "only", "anchors", "anchors.a", "anchors.a.keys", "anchors.a.names",
              "anchors.a.capabilities", "anchors.a.expires", "revoked", "other")  # fmt: skip


def test_an_integer_beyond_64_bits_is_no_toml() -> None:
    assert toml.loads(f"a = {2**63 - 1}\nb = {-(2**63)}") == {"a": 2**63 - 1, "b": -(2**63)}
    for number in (
        str(2**63),
        str(-(2**63) - 1),
        HUGE,
        "1" * 5_000,
        f"[[{HUGE}]]",
        f"{{b = {{c = {HUGE}}}}}",
    ):
        with pytest.raises(tomllib.TOMLDecodeError):
            toml.loads(f"a = {number}")


@given(st.recursive(st.integers() | st.booleans() | st.text("ab", max_size=3), st.lists, max_leaves=8))
def test_what_is_read_is_what_tomllib_reads(value: Any) -> None:
    text = f"a = {json.dumps(value)}"
    try:
        assert toml.loads(text) == tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assert "beyond 64 bits" in _why(text)


LEAVES = st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) \
    | st.text() | st.dates()  # fmt: skip


@given(
    st.recursive(
        LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
    ),
    st.text(),
)
def test_what_is_written_is_read_back(given_value: Any, name: str) -> None:
    assert toml.loads(f"{toml.key(name)} = {toml.value(given_value)}") == {name: given_value}


def _why(text: str) -> str:
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        toml.loads(text)
    return str(caught.value)


def test_times_are_refused_where_they_cannot_be_kept() -> None:
    for value in ("1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "[{a = 1979-05-27}]"):
        toml.loads(f"a = {value}")
        with pytest.raises(tomllib.TOMLDecodeError, match="quotes"):
            toml.loads(f"a = {value}", times=False)


def refused_or_read(reader: Callable[..., object], text: str | bytes, **named: Any) -> None:
    try:
        reader(text, **named)
    except RunloopError as error:
        assert error.message


@pytest.mark.parametrize("value", VALUES, ids=[value[:12] for value in VALUES])
def test_no_value_of_any_key_brings_a_reader_down(value: str) -> None:
    base = {"name": '"x"', "version": '"1.0.0"'}
    for key in MANIFEST_KEYS:
        refused_or_read(parse_manifest, _lines({**base, key: value}))
    for key in CONFIG_KEYS:
        more = {"schema": {"output": '"json"'}, "kb": {"gather": '["text"]'},
                "net": {"tools": '["http.fetch"]'},
                "tool": {"tools": '["tool.call"]'}}.get(key, {})  # fmt: skip
        whole = _lines({**base, "prompt": '"p"', **more, key: value})
        refused_or_read(expand, whole.encode(), origin="x.agent.toml")
    for key in ("id", "description", "transport", "input_schema", "capabilities", "budget"):
        whole = _lines({**base, "prompt": '"p"', "tools": '["tool.call"]'}) + f"[[tool]]\n{key} = {value}\n"
        refused_or_read(expand, whole.encode(), origin="x.agent.toml")
    for key in CAPABILITIES:
        refused_or_read(parse_policy, f"[capabilities]\n{json.dumps(key)} = {value}\n")
    for key in ("hosts", "methods", "paths", "allow_http"):
        refused_or_read(parse_policy, f"[capabilities]\nnet = [{{{key} = {value}}}]\n")
    for key in TRUST_KEYS:
        refused_or_read(parse_trust, _lines({"version": "1", key: value}), system=True)
    for key in ("key", "bundle", "reason"):
        refused_or_read(parse_trust, f"version = 1\n[[revoked]]\n{key} = {value}\n")


def _lines(pairs: dict[str, str]) -> str:
    return "".join(f"{key} = {value}\n" for key, value in pairs.items())


@pytest.mark.parametrize("kind", [[], {}, [[]], None, 1, {"a": None}])
def test_a_transport_of_no_kind_is_a_finding(kind: Any) -> None:
    tool = {"id": "a.b", "description": "d", "transport": {"kind": kind}, "input_schema": {}}
    with pytest.raises(ToolsError, match=r"transport\.kind"):
        parse_tools(json.dumps({"version": 1, "tools": [tool]}))

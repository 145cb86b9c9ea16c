"""The manifest is read strictly, and every mistake is named at once, with its line and a way out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.bundle.manifest import Manifest, ManifestError, PortSpec, check_values, parse_manifest
from runloop.errors import UsageError

GOOD = """
name = "writer"
version = "1.2.3-rc.1+build.5"
variant = "c"
language = "component"
entrypoint = "bin/agent.wasm"
description = "Writes"
accepts = "intent.draft.write.v1"
replies = "artifact.draft.email.v1"
ops = ["model.complete", "kb.search"]
caps = "policy.caps"

[ports.in.context]
type = "object"
required = true
description = "facts"
schema = "schemas/context.json"

[ports.out.out]

[limits]
fuel = 2000000
memory_mb = 32
guest_ms = 1000
max_host_calls = 9
"""


def test_a_full_manifest_is_read_as_it_stands() -> None:
    made = parse_manifest(GOOD)
    assert (made.name, made.version, made.variant, made.language) == (
        "writer",
        "1.2.3-rc.1+build.5",
        "c",
        "component",
    )
    assert made.entrypoint == "bin/agent.wasm"
    assert made.ops == ("model.complete", "kb.search")
    assert made.inputs == {
        "context": PortSpec(type="object", required=True, description="facts", schema="schemas/context.json")
    }
    assert made.outputs == {"out": PortSpec()}
    assert (made.limits.fuel, made.limits.memory_mb, made.limits.guest_ms, made.limits.max_host_calls) == (
        2_000_000,
        32,
        1_000,
        9,
    )
    assert made.to_json()["ports"]["in"]["context"]["type"] == "object"


def test_name_and_version_are_enough() -> None:
    made = parse_manifest('name = "a"\nversion = "0.1.0"')
    assert made == Manifest(name="a", version="0.1.0")
    assert (made.language, made.entrypoint, made.caps) == ("python", "agent:handle", "policy.caps")


def test_every_mistake_is_reported_at_once_with_its_line() -> None:
    text = """name = "Writer"
versoin = "1.0.0"
language = "pyton"
ops = ["kb.serach", 3]

[ports.in.x]
type = "str"
requird = true

[ports.sideways.y]

[limits]
memory_mb = 0
memroy = 1
"""
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, origin="agents/writer/manifest.toml")
    found = {(finding.line, finding.what): finding.fix for finding in caught.value.findings}
    assert [(line, what) for line, what in found if line] == [
        (1, "'name' cannot be 'Writer'"),
        (2, "unknown key 'versoin'"),
        (3, "'language' cannot be 'pyton'"),
        (4, "there is no host call 'kb.serach'"),
        (4, "there is no host call 3"),
        (7, "'ports.in.x.type' cannot be 'str'"),
        (8, "unknown key 'ports.in.x.requird'"),
        (13, "'limits.memory_mb' cannot be 0"),
        (14, "unknown key 'limits.memroy'"),
    ]
    assert found[2, "unknown key 'versoin'"] == "did you mean 'version'?"
    assert found[4, "there is no host call 'kb.serach'"] == "did you mean 'kb.search'?"
    assert (0, "unknown key 'ports.sideways'") in found
    assert (0, "'version' is missing") in found
    assert str(caught.value).startswith("agents/writer/manifest.toml: ")
    assert caught.value.data["findings"][-1]["line"] == 14


@pytest.mark.parametrize(
    "line",
    [
        'name = "1a"',
        'name = "a-b"',
        'name = ""',
        "name = 3",
        f'name = "{"a" * 65}"',
        'version = "1"',
        'version = "01.0.0"',
        'version = "1.0.0-"',
        'variant = "C"',
        'entrypoint = "agent"',
        'entrypoint = "../agent:handle"',
        "description = 7",
        'caps = "../policy.caps"',
        'caps = "/etc/passwd"',
        'tools = "a//b"',
        'accepts = "hello"',
        'min_runloop = "soon"',
        'ops = "kb.search"',
        "limits = 3",
        "limits.fuel = 1.5",
        "limits.fuel = true",
        "ports = []",
        "ports.in = []",
        'ports.in.x = "string"',
        'ports.in."a b".type = "any"',
        'ports.in.x.required = "yes"',
        'ports.in.x.schema = "/abs"',
    ],
)
def test_a_value_that_does_not_fit_is_refused(line: str) -> None:
    key = line.split(" ", maxsplit=1)[0]
    head = "".join(
        f"{name} = {value}\n" for name, value in (("name", '"a"'), ("version", '"0.1.0"')) if name != key
    )
    with pytest.raises(ManifestError) as caught:
        parse_manifest(f"{head}{line}\n")
    assert len(caught.value.findings) == 1


def test_a_component_is_a_file_of_the_bundle() -> None:
    head = 'name = "a"\nversion = "0.1.0"\nlanguage = "component"\n'
    assert parse_manifest(head).entrypoint == "agent.wasm"
    for bad in ("../x.wasm", "/x.wasm", "agent:handle", ".hidden"):
        with pytest.raises(ManifestError):
            parse_manifest(f'{head}entrypoint = "{bad}"')


@pytest.mark.parametrize("text", ["name =", "a = 1\na = 2", b"\xff\xfe", "x" * 70_000, "a = " + "[" * 10_000])
def test_what_is_not_toml_or_too_large_is_refused(text: str | bytes) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(text)


def test_a_syntax_error_names_its_line() -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest('name = "a"\nversion = \n')
    assert caught.value.findings[0].line == 2


def test_too_many_ports_are_refused() -> None:
    ports = "".join(f"[ports.in.p{n}]\n" for n in range(65))
    with pytest.raises(ManifestError, match="more than 64 ports"):
        parse_manifest(f'name = "a"\nversion = "0.1.0"\n{ports}')


@given(st.text(max_size=300))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    try:
        parse_manifest(text)
    except UsageError as error:
        assert error.named_code == "bundle.manifest"


PORTS = {"a": PortSpec(type="string", required=True), "n": PortSpec(type="number"), "x": PortSpec()}


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"a": ["x"]}, []),
        ({"a": ["x", "y"], "n": [1, 2.5], "x": [None, {}, True]}, []),
        ({"a": []}, ["output port 'a' is required and got no value"]),
        ({}, ["output port 'a' is required and got no value"]),
        ({"a": [3]}, ["output port 'a' takes string, not number"]),
        ({"a": ["x"], "n": [True]}, ["output port 'n' takes number, not boolean"]),
        ({"a": ["x"], "n": [None]}, ["output port 'n' takes number, not null"]),
        ({"a": "x"}, ["output port 'a' must carry a list of values"]),
        ({"a": ["x"], "m": [1]}, ["there is no output port 'm'; known: a, n, x"]),
    ],
)
def test_values_are_checked_against_their_ports(values: dict[str, object], wrong: list[str]) -> None:
    assert check_values(PORTS, values, direction="output") == wrong


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("string", ["", "x"], [1, None, [], {}, True]),
        ("object", [{}], [[], "x", 1, None, True]),
        ("list", [[]], [{}, "x", 1, None, True]),
        ("boolean", [True, False], [0, 1, "true", None]),
        ("number", [0, -1.5], [True, "1", None]),
        ("any", [None, True, 1, "x", [], {}], []),
    ],
)
def test_a_port_accepts_its_type_and_nothing_else(kind: str, good: list[object], bad: list[object]) -> None:
    port = PortSpec(type=kind)  # type: ignore[arg-type]
    assert all(port.accepts(value) for value in good)
    assert not any(port.accepts(value) for value in bad)

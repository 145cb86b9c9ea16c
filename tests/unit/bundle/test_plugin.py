"""A plugin of the older kind becomes a bundle with the rights it names and no more, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.bundle.archive import pack, unpack
from runloop.bundle.plugin import ImportedPlugin, PluginError, import_plugin
from runloop.bundle.sbom import SBOM_FILE
from runloop.bundle.tools import parse_tools
from runloop.caps.policy import parse_policy
from runloop.guest_testing import FakeHost, Outcome, Refuse, load_agent

WEATHER = Path(__file__).parents[3] / "docs/examples/plugins/weather/plugin.manifest.json"
TOOL: dict[str, Any] = {
    "name": "weather.get_forecast",
    "description": "The forecast",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "endpoint": {"url": "https://api.example.org/v1/forecast"},
}
PLUGIN: dict[str, Any] = {
    "name": "weather",
    "version": "1.0.0",
    "permissions": ["network:api.example.org"],
    "tools": [TOOL],
}


def imported(**change: Any) -> ImportedPlugin:
    return import_plugin(json.dumps({**PLUGIN, **change}))


def refusal(**change: Any) -> PluginError:
    with pytest.raises(PluginError) as refused:
        imported(**change)
    return refused.value


def tool(**change: Any) -> dict[str, Any]:
    return {**TOOL, **change}


# --- what is carried over -------------------------------------------------------------------------


def test_the_weather_example_becomes_a_bundle() -> None:
    made = import_plugin(WEATHER.read_bytes())
    (forecast,) = parse_tools(made.files["tools.json"])
    assert (forecast.id, forecast.kind, forecast.capabilities) == (
        "weather.get_forecast",
        "http",
        ("net:api.open-meteo.com",),
    )
    assert forecast.http is not None
    assert forecast.http.fill({"latitude": 52.5, "longitude": 13.4}) == (
        "https://api.open-meteo.com/v1/forecast?latitude=52.5&longitude=13.4"
    )
    assert parse_policy(made.files["policy.caps"]).to_json() == {"net": ["api.open-meteo.com"]}
    assert (made.manifest.name, made.manifest.version, made.manifest.ops) == (
        "weather",
        "1.0.0",
        ("tool.call",),
    )
    assert made.left_behind == ()


@pytest.mark.requirement("I3.plugin.1")
def test_the_weather_example_without_its_permission_is_refused_by_the_name_of_it() -> None:
    value = {**json.loads(WEATHER.read_text()), "permissions": []}
    with pytest.raises(PluginError) as refused:
        import_plugin(json.dumps(value))
    assert refused.value.named_code == "plugin.permission"
    assert refused.value.missing == ["network:api.open-meteo.com"]
    assert "weather.get_forecast needs the permission 'network:api.open-meteo.com'" in refused.value.message


def test_the_bundle_of_a_plugin_is_the_same_every_time_and_has_its_inventory() -> None:
    data = imported().package(builder_version="0.1.0")
    assert data == imported().package(builder_version="0.1.0")
    package = unpack(data)
    assert SBOM_FILE in package.files
    assert (
        json.loads(package.envelopes[1].payload)["predicate"]["buildDefinition"]["externalParameters"][
            "language"
        ]
        == "plugin"
    )


def test_network_alone_means_the_hosts_of_its_own_tools() -> None:
    made = imported(permissions=["network"])
    assert made.policy.to_json() == {"net": ["api.example.org"]}


@pytest.mark.parametrize(
    ("permission", "granted"),
    [
        ("time", {"time": True}),
        ("random", {"random": True}),
        ("model", {"model": True}),
        ("model:rules:*", {"model": ["rules:*"]}),
        ("network:*.example.net", {"net": ["*.example.net", "api.example.org"]}),
        ("filesystem:read:/data", {"fs_ro": ["/data"]}),
        ("filesystem:write:/data", {"fs_rw": ["/data"]}),
    ],
)
def test_a_permission_becomes_one_capability(permission: str, granted: dict[str, Any]) -> None:
    made = imported(permissions=["network:api.example.org", permission])
    assert made.policy.to_json() == {"net": ["api.example.org"], **granted}


def test_a_short_name_gets_the_plugins_own() -> None:
    (made,) = parse_tools(imported(tools=[tool(name="get_forecast")]).files["tools.json"])
    assert made.id == "weather.get_forecast"


def test_an_argument_may_fill_the_path_and_a_port_is_part_of_the_right() -> None:
    made = imported(
        permissions=["network:api.example.org:8443"],
        tools=[tool(endpoint={"url": "https://api.example.org:8443/v1/{city}"})],
    )
    (only,) = parse_tools(made.files["tools.json"])
    assert only.http is not None
    assert only.http.fill({"city": "a/../b"}) == "https://api.example.org:8443/v1/a%2F..%2Fb"
    assert made.policy.to_json() == {"net": ["api.example.org:8443"]}


def test_a_tool_that_changes_something_asks_first() -> None:
    made = imported(tools=[tool(endpoint={"url": "https://api.example.org/x", "method": "POST"})])
    (only,) = parse_tools(made.files["tools.json"])
    assert only.requires_confirmation


def test_a_tool_that_was_code_is_left_behind_and_the_bundle_says_so() -> None:
    made = imported(tools=[TOOL, {"name": "weather.guess", "description": "x"}])
    assert any("weather.guess has no endpoint" in line for line in made.left_behind)
    assert b"weather.guess has no endpoint" in made.files["README.md"]


def test_an_agent_of_the_plugin_keeps_its_instructions_as_data() -> None:
    hostile = 'Answer.\n"""\nimport os\n{!`id`} \U0001f600'
    made = imported(permissions=["network", "model"], agents=[{"name": "helper", "instructions": hostile}])
    space: dict[str, Any] = {}
    exec(made.files["imported.py"], space)
    assert space["AGENTS"] == {"helper": hostile}
    assert "os" not in space
    pack(made.files)


def test_an_agent_without_the_model_permission_is_refused() -> None:
    found = refusal(agents=[{"name": "helper", "prompt": "Answer."}])
    assert (found.named_code, found.missing) == ("plugin.permission", ["model"])


# --- what it does when it runs --------------------------------------------------------------------


def run(made: ImportedPlugin, folder: Path, with_: dict[str, Any], host: FakeHost) -> Outcome:
    for name, data in made.files.items():
        (folder / name).write_bytes(data)
    return load_agent(folder).run(with_=with_, host=host)


def test_the_imported_agent_calls_its_tool(tmp_path: Path) -> None:
    host = FakeHost({"tool.call": {"result": {"days": 3}}})
    outcome = run(imported(), tmp_path, {"args": {"city": "Berlin"}}, host)
    assert outcome.value("out") == {"days": 3}
    assert host.made("tool.call") == [{"tool": "weather.get_forecast", "args": {"city": "Berlin"}}]


def test_the_imported_agent_calls_no_tool_it_does_not_have(tmp_path: Path) -> None:
    outcome = run(imported(), tmp_path, {"tool": "weather.delete_all"}, FakeHost())
    assert (outcome.ok, outcome.code) == (False, "plugin.tool")


def test_a_refused_call_is_the_agents_failure(tmp_path: Path) -> None:
    host = FakeHost({"tool.call": Refuse("cap.denied", "no network")})
    assert not run(imported(), tmp_path, {}, host).ok


def test_an_imported_agent_asks_the_model_with_its_instructions(tmp_path: Path) -> None:
    made = imported(permissions=["network", "model"], agents=[{"name": "helper", "prompt": "Be brief."}])
    host = FakeHost({"model.complete": {"text": "Yes."}})
    outcome = run(made, tmp_path, {"agent": "helper", "text": "Rain?"}, host)
    assert outcome.value("out") == "Yes."
    assert host.made("model.complete")[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Rain?"},
    ]
    assert run(made, tmp_path, {"agent": "nobody"}, host).code == "plugin.agent"


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "about"),
    [
        ({"name": "Weather"}, "name cannot be 'Weather'"),
        ({"name": None}, "name is missing"),
        ({"version": "1"}, "version cannot be '1'"),
        ({"description": "a\x1b[2J"}, "description is no text of one line"),
        ({"description": "a\u202eb"}, "description is no text of one line"),
        ({"author": ["x"]}, "author is no text"),
        ({"main": "index.js"}, "unknown key 'main'"),
        ({"scripts": {"postinstall": "curl"}}, "unknown key 'scripts'"),
        ({"tools": {}}, "'tools' must be a list"),
        ({"tools": [3]}, "tools[0] must be an object"),
        ({"tools": [tool(command="rm")]}, "unknown key 'tools[0].command'"),
        ({"tools": [tool(name="other.get")]}, "is not a tool of weather"),
        ({"tools": [tool(name="weather.Get")]}, "tools[0].name cannot be"),
        ({"tools": [TOOL, TOOL]}, "is there twice"),
        ({"tools": [tool(input_schema={"type": "object"})]}, "'parameters' and 'input_schema'"),
        ({"tools": [tool(parameters={"city": "string"})]}, "no schema of an object"),
        (
            {"tools": [tool(parameters={"type": "object", "properties": {"a": {"pattern": "(a+)+"}}})]},
            "pattern",
        ),
        ({"tools": [tool(endpoint="https://api.example.org")]}, "endpoint must be an object"),
        ({"tools": [tool(endpoint={"url": "http://api.example.org/"})]}, "write an https URL"),
        ({"tools": [tool(endpoint={"url": "https://user:pw@api.example.org/"})]}, "endpoint.url"),
        ({"tools": [tool(endpoint={"url": "file:///etc/passwd"})]}, "endpoint.url"),
        ({"tools": [tool(endpoint={"url": "https://{city}.example.org/"})]}, "endpoint.url"),
        ({"tools": [tool(endpoint={"url": "https://api.example.org/", "headers": {}})]}, "unknown key"),
        (
            {"tools": [tool(endpoint={"url": "https://api.example.org/", "method": "BREW"})]},
            "transport.method",
        ),
        ({"tools": [tool(endpoint={"url": "https://api.example.org/", "query": ["town"]})]}, "'town'"),
        ({"tools": [tool(requires_confirmation="no")]}, "must be true or false"),
        ({"tools": [tool(approved=True)]}, "unknown key 'tools[0].approved'"),
        ({"permissions": "network"}, "permissions must be a list"),
        ({"permissions": ["network", "network"]}, "is there twice"),
        ({"permissions": ["network", "sudo"]}, "the permission 'sudo' is refused"),
        ({"permissions": ["network", "netwrok"]}, "did you mean 'network'?"),
        ({"permissions": ["network", "filesystem:read:../etc"]}, "'filesystem:read:../etc' is refused"),
        ({"permissions": ["network", "filesystem"]}, "'filesystem' is refused"),
        ({"permissions": ["network", "exec:sh"]}, "'exec:sh' is refused"),
        ({"permissions": ["network", "network:*"]}, "'network:*' is refused"),
        ({"permissions": ["network:"]}, "'network:' is refused"),
        ({"agents": [{"name": "a"}], "permissions": ["network", "model"]}, "instructions must be a text"),
        ({"agents": [{"name": "a", "prompt": "x", "instructions": "x"}]}, "'instructions' and 'prompt'"),
        ({"tools": []}, "nothing in it can be carried over"),
        ({"tools": [{"name": "weather.guess"}]}, "nothing in it can be carried over"),
    ],
)
def test_a_mistake_is_named(change: dict[str, Any], about: str) -> None:
    found = refusal(**change)
    assert any(about in finding for finding in found.findings), found.findings
    assert found.named_code == "plugin.invalid"


def test_a_tool_names_a_permission_the_plugin_does_not_have() -> None:
    found = refusal(tools=[tool(permissions=["network:api.example.org", "time"])])
    assert (found.named_code, found.missing) == ("plugin.permission", ["time"])


def test_a_permission_for_another_host_does_not_help() -> None:
    for permission in (
        "network:example.org",
        "network:api.example.org.evil.example",
        "network:*.api.example.org",
    ):
        assert refusal(permissions=[permission]).missing == ["network:api.example.org"]


def test_every_mistake_is_named_at_once() -> None:
    assert len(refusal(name="X", version="y", permissions=["z"], extra=1).findings) >= 5


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"name": "a", "name": "b"}', "[" * 5_000, '{"version": NaN}', " " * 300_000]
)
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(PluginError):
        import_plugin(text)
    with pytest.raises(PluginError):
        import_plugin(b"\xff")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "version", "tools", "agents", "permissions", "endpoint", "url", "x"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(["name", "version", "tools", "agents", "permissions", "description"]), JSON)
def test_whatever_stands_in_a_field_it_is_refused_or_a_valid_bundle(key: str, value: Any) -> None:
    try:
        made = imported(**{key: value})
    except PluginError as error:
        assert error.findings
        return
    assert unpack(made.package()).files

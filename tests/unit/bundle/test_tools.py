"""``tools.json``: read strictly, every mistake at once, and requests whose place no argument can move."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.bundle.tools import Tool, ToolsError, parse_tools
from runloop.caps.destination import parse_destination
from runloop.errors import UsageError


def weather(**more: Any) -> dict[str, Any]:
    """The example of the docs, with changes; None leaves a key out."""
    made = {
        "id": "weather.get_forecast",
        "description": "The forecast for a city.",
        "transport": {
            "kind": "http",
            "method": "GET",
            "url": "https://api.weather.example/v1/forecast",
            "query": ["city"],
        },
        "input_schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "result_schema": {"type": "object", "required": ["forecast"]},
        "capabilities": ["net:api.weather.example"],
        "secrets": [],
        "requires_confirmation": False,
        "tags": ["weather"],
        **more,
    }
    return {key: value for key, value in made.items() if value is not None}


def transport(**more: Any) -> dict[str, Any]:
    return {**weather()["transport"], **more}


def parse(*tools: Any) -> tuple[Tool, ...]:
    return parse_tools(json.dumps({"version": 1, "tools": list(tools)}))


def findings(*tools: Any) -> list[str]:
    with pytest.raises(ToolsError) as caught:
        parse(*tools)
    assert caught.value.named_code == "bundle.tools"
    return caught.value.findings


def test_the_weather_tool_is_read() -> None:
    (tool,) = parse(weather(budget={"calls": 5}))
    assert (tool.id, tool.kind, tool.calls) == ("weather.get_forecast", "http", 5)
    assert tool.http is not None and tool.http.fill({"city": "Bern"}) == (
        "https://api.weather.example/v1/forecast?city=Bern"
    )
    assert tool.accepts.misfit({}) == "$: 'city' is missing"
    assert tool.returns.misfit({"forecast": "sun"}) is None
    assert tool.to_json()["capabilities"] == ["net:api.weather.example"]


def test_what_may_be_left_out_may_be_left_out() -> None:
    left_out = dict.fromkeys(("result_schema", "secrets", "requires_confirmation", "tags"))
    (tool,) = parse(weather(**left_out))
    assert tool.returns.misfit([1, "anything"]) is None and not tool.requires_confirmation


def test_no_tools_are_no_mistake() -> None:
    assert parse() == ()


TRANSPORTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"kind": "exec", "argv": ["git", "log", "--", "{city}"]}, ["exec:git"]),
    ({"kind": "exec", "argv": ["git"], "env": {"TOKEN": "{secret:runloop/a/b}"}}, ["exec:git"]),
    ({"kind": "mcp", "server": "board", "tool": "post"}, []),
    ({"kind": "wasm", "tool": "own.do"}, []),
    ({"kind": "wasm", "tool": "own.do", "agent": "other"}, ["spawn:other"]),
]


@pytest.mark.parametrize(("given", "needs"), TRANSPORTS)
def test_every_kind_of_tool_is_read(given: dict[str, Any], needs: list[str]) -> None:
    secrets = ["runloop/a/b"] if "env" in given else []
    (tool,) = parse(weather(transport=given, capabilities=needs, secrets=secrets))
    assert (tool.kind, tool.http) == (given["kind"], None)
    assert getattr(tool, given["kind"]) is not None


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        ({"transport": {"kind": "exec", "argv": []}}, "transport.argv must be a list"),
        ({"transport": {"kind": "exec", "argv": "git log"}}, "transport.argv must be a list"),
        ({"transport": {"kind": "exec", "argv": ["{city}"]}}, "transport.argv: the program itself is fixed"),
        ({"transport": {"kind": "exec", "argv": ["git log"]}}, "transport.argv: the program itself is fixed"),
        ({"transport": {"kind": "exec", "argv": ["git", "--x={city}"]}}, "transport.argv: an argument as"),
        ({"transport": {"kind": "exec", "argv": ["git", "{town}"]}}, "the argument 'town' is a word of argv"),
        ({"transport": {"kind": "exec", "argv": ["git"]}}, "it runs git and does not ask for 'exec:git'"),
        ({"transport": {"kind": "exec", "argv": ["a"], "env": {"LD_PRELOAD": "x"}}}, "transport.env: LD_"),
        ({"transport": {"kind": "exec", "argv": ["a"], "env": {"A": "{x}"}}}, "transport.env: 'A': only"),
        ({"transport": {"kind": "mcp", "server": "B", "tool": "x"}}, "transport.server must be"),
        ({"transport": {"kind": "mcp", "server": "b", "tool": "x y"}}, "transport.tool must be"),
        ({"transport": {"kind": "wasm", "tool": "x"}}, "transport.tool must be a tool as its agent names it"),
        (
            {"transport": {"kind": "wasm", "tool": "a.b", "agent": "other"}},
            "other serves it, and it does not",
        ),
        ({"transport": transport(headers={"Host": "x"})}, "transport.headers: 'Host' is not the author's"),
        ({"transport": transport(headers={"A": "x\ny"})}, "transport.headers: 'A' cannot be written"),
        (
            {"transport": transport(headers={"A": "{secret:runloop/a/b}"})},
            "it sends runloop/a/b and does not",
        ),
        ({"transport": transport(headers={"A": "{secret:runloop/a/b}x"})}, "transport.headers: 'A': one"),
        ({"secrets": ["runloop/a/b"]}, "nothing of the request carries runloop/a/b"),
        ({"transport": transport(body=["city"])}, "transport.body must be a list of names"),
        ({"transport": transport(method="POST", query=[], body=[])}, "nothing of the request carries the"),
        ({"effect": "harmless"}, "effect is 'harmless'"),
        ({"effect": "write"}, "effect: a request changes nothing here"),
    ],
)
def test_a_transport_that_cannot_be_carried_out_is_told(changed: dict[str, Any], finding: str) -> None:
    assert any(found.startswith(f"weather.get_forecast: {finding}") for found in findings(weather(**changed)))


def test_a_secret_goes_over_https_only() -> None:
    plain = transport(url="http://api.weather.example/", headers={"A": "{secret:runloop/a/b}"})
    found = findings(weather(transport=plain, secrets=["runloop/a/b"]))
    assert any("over https only" in finding for finding in found)


def program(*argv: str) -> Tool:
    schema = {"type": "object", "properties": {"a": {}}}
    given = {"kind": "exec", "argv": ["git", *argv]}
    return parse(weather(transport=given, capabilities=["exec:git"], input_schema=schema))[0]


@pytest.mark.parametrize(
    ("argv", "value", "words"),
    [
        (["{a}"], "x y; $(z)", ["x y; $(z)"]),
        (["{a}"], ["x", 1, None, True], ["x", "1", "true"]),
        (["{a}", "b"], None, ["b"]),
        (["--", "{a}"], "--output=/etc/x", ["--", "--output=/etc/x"]),
    ],
)
def test_an_argument_is_whole_words_of_an_argv(argv: list[str], value: Any, words: list[str]) -> None:
    tool = program(*argv)
    assert tool.exec is not None and tool.exec.words({"a": value}) == ("git", *words)


@pytest.mark.requirement("C2")
@pytest.mark.parametrize("value", ["-x", "--output=/etc/x", ["ok", "-c"], {"b": 1}, "a\0b", -1])
def test_an_argument_never_becomes_an_option_of_the_program(value: Any) -> None:
    tool = program("log", "{a}")
    assert tool.exec is not None
    with pytest.raises(UsageError) as caught:
        tool.exec.words({"a": value})
    assert caught.value.named_code == "tool.args"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 1}',
        '{"version": 1, "tools": {}}',
        '{"version": 2, "tools": []}',
        '{"version": true, "tools": []}',
        '{"version": 1, "tools": [], "extra": 1}',
        '{"version": 1, "version": 1, "tools": []}',
        '{"version": 1, "tools": [NaN]}',
        '{"version": 1, "tools": [1e999]}',
        '{"version": 1, "tools": [9007199254740993]}',
        '{"version": 1, "tools": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"version": 1, "tools": ' + "[" * 100 + "]" * 100 + "}",
        '{"version": 1, "tools": [' + "1," * 300 + "1]}",
        " " * 600_000,
        "\ud800",
    ],
)
def test_what_is_no_list_of_tools_is_refused(text: str) -> None:
    with pytest.raises(ToolsError):
        parse_tools(text)
    with pytest.raises(ToolsError):
        parse_tools(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    ("tool", "finding"),
    [
        ([], "tools[0]: a tool is an object"),
        (weather(id=None), "tools[0]: 'id' is missing"),
        (weather(id="Weather"), "tools[0]: id cannot be 'Weather'"),
        (weather(id="weather"), "tools[0]: id cannot be 'weather'"),
        (
            weather(descripton="x"),
            "weather.get_forecast: unknown key 'descripton'; did you mean 'description'?",
        ),
        (weather(description=""), "weather.get_forecast: description cannot be ''"),
        (weather(transport=None), "weather.get_forecast: 'transport' is missing"),
        (weather(transport={}), "weather.get_forecast: transport.kind is missing"),
        (weather(transport="http"), "weather.get_forecast: transport must be an object"),
        (weather(transport={"kind": "shell"}), "weather.get_forecast: transport.kind is 'shell'"),
        (weather(transport=transport(proxy="x")), "weather.get_forecast: transport: unknown key 'proxy'"),
        (weather(transport=transport(method="get")), "weather.get_forecast: transport.method is 'get'"),
        (
            weather(transport=transport(url="ftp://a.example/")),
            "weather.get_forecast: transport.url: the URL",
        ),
        (
            weather(transport=transport(url="https://{city}.example/")),
            "weather.get_forecast: transport.url: ",
        ),
        (
            weather(transport=transport(url="https://a.example/{city}x")),
            "weather.get_forecast: transport.url: ",
        ),
        (
            weather(transport=transport(url="https://a.example/?q={city}")),
            "weather.get_forecast: transport.url: ",
        ),
        (
            weather(transport=transport(url="https://u:p@a.example/")),
            "weather.get_forecast: transport.url: the",
        ),
        (weather(transport=transport(query="city")), "weather.get_forecast: transport.query must be"),
        (weather(transport=transport(query=["a=b&c"])), "weather.get_forecast: transport.query must be"),
        (
            weather(transport=transport(query=["town"])),
            "weather.get_forecast: the argument 'town' of the request",
        ),
        (weather(transport=transport(query=[])), "weather.get_forecast: nothing of the request carries"),
        (weather(capabilities=[]), "weather.get_forecast: it calls api.weather.example and does not ask for"),
        (weather(capabilities=["net:weather.example"]), "weather.get_forecast: it calls api.weather.example"),
        (weather(capabilities=["net:api.weather.example:80"]), "weather.get_forecast: it calls"),
        (weather(capabilities=["net:a b"]), "weather.get_forecast: the capability 'net:a b'"),
        (
            weather(capabilities=["nett:a"]),
            "weather.get_forecast: there is no capability 'nett'; did you mean",
        ),
        (weather(capabilities=["net:"]), "weather.get_forecast: the capability 'net:' names no target"),
        (weather(secrets=["password"]), "weather.get_forecast: secrets must be a list of runloop/"),
        (weather(budget={"calls": 0}), "weather.get_forecast: budget.calls is 0"),
        (weather(budget={"calls": True}), "weather.get_forecast: budget.calls is True"),
        (weather(budget={"calls": 1, "money": 1}), "weather.get_forecast: budget: unknown key 'money'"),
        (weather(requires_confirmation="no"), "weather.get_forecast: requires_confirmation must be true or"),
        (weather(input_schema={"pattern": "x"}), "weather.get_forecast: the argument 'city' of the request"),
        (weather(result_schema={"$ref": "http://x"}), "weather.get_forecast: result_schema at $.$ref: "),
        (weather(input_schema=None), "weather.get_forecast: 'input_schema' is missing"),
    ],
)
def test_a_mistake_is_named_with_the_tool_it_is_in(tool: Any, finding: str) -> None:
    assert any(found.startswith(finding) for found in findings(tool)), findings(tool)


def test_every_mistake_is_told_at_once() -> None:
    found = findings(weather(tags=[1]), weather(budget={}), weather(id="other.tool", capabilities=["nett"]))
    assert len(found) == 5
    assert found[-1] == "weather.get_forecast is there twice"


def test_a_path_may_have_places_for_arguments() -> None:
    url = "https://api.weather.example/v1/{city}/days"
    (tool,) = parse(weather(transport=transport(url=url, query=[])))
    assert tool.http is not None
    assert tool.http.fill({"city": "Zürich/../x?y#z"}) == (
        "https://api.weather.example/v1/Z%C3%BCrich%2F..%2Fx%3Fy%23z/days"
    )
    for bad in ("", ".", "..", None, ["a", "b"], [], {"a": 1}):
        with pytest.raises(UsageError) as caught:
            tool.http.fill({"city": bad})
        assert caught.value.named_code == "tool.args"
    with pytest.raises(UsageError):
        tool.http.fill({})


def test_an_argument_of_a_path_must_be_required() -> None:
    optional = {"type": "object", "properties": {"city": {}}}
    where = transport(url="https://api.weather.example/{city}", query=[])
    assert "must require it" in findings(weather(transport=where, input_schema=optional))[0]


@given(
    st.dictionaries(
        st.sampled_from(["city", "days"]),
        st.one_of(
            st.text(max_size=20),
            st.integers(-9, 9),
            st.booleans(),
            st.none(),
            st.floats(-5, 5),
            st.lists(st.text(max_size=5), max_size=3),
        ),
    )
)
def test_no_argument_leads_to_another_place(args: dict[str, Any]) -> None:
    url = "https://api.weather.example/v1/{city}?units=C"
    schema = {"type": "object", "properties": {"city": {}, "days": {}}, "required": ["city"]}
    (tool,) = parse(weather(transport=transport(url=url, query=["days"]), input_schema=schema))
    assert tool.http is not None
    try:
        filled = tool.http.fill(args)
    except UsageError:
        return
    place = parse_destination(filled)
    assert (place.scheme, place.host, place.port) == ("https", "api.weather.example", 443)
    prefix, v1, last = place.path.split("/")
    assert (prefix, v1) == ("", "v1") and last not in ("", ".", "..")
    assert set(parse_qs(urlsplit(filled).query, keep_blank_values=True)) <= {"units", "days"}


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from(sorted(weather())), inner, max_size=4),
        ),
        max_leaves=12,
    )
)
def test_whatever_stands_in_the_file_is_read_or_refused(tool: Any) -> None:
    for one in (tool, weather(**tool) if isinstance(tool, dict) else None):
        try:
            parse(one)
        except ToolsError as error:
            assert error.findings

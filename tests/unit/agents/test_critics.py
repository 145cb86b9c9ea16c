"""The two critics: one in Python, one in C, one table of drafts, one answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from wasmtime import component as wc

from runloop.guest import Program
from runloop.guest_testing import AgentUnderTest, FakeHost
from tests.unit.agents.conftest import AGENTS

GOOD = {
    "to": ["john@acme.example"],
    "subject": "The Q4 plan",
    "body": "Hello John,\n\nthe launch moves.\n",
    "sources": ["d1"],
}


def draft(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**GOOD, **changes}.items() if value is not ...}


DRAFTS: dict[str, tuple[Any, list[str]]] = {
    # name: (draft, checks that do not hold)
    "a good draft": (draft(), []),
    "no source": (draft(sources=[]), ["sourced"]),
    "sources of a wrong type": (draft(sources="d1"), ["sourced"]),
    "no recipient": (draft(to=[]), ["recipient"]),
    "recipient missing": (draft(to=...), ["recipient"]),
    "recipient as text": (draft(to="john@acme.example"), ["recipient"]),
    "recipient without host": (draft(to=["john@"]), ["recipient"]),
    "recipient without name": (draft(to=["@acme.example"]), ["recipient"]),
    "recipient with two signs": (draft(to=["a@b@c"]), ["recipient"]),
    "recipient with a blank": (draft(to=["a b@c"]), ["recipient"]),
    "recipient with a line end": (draft(to=["a@b\n"]), ["recipient"]),
    "recipient that is no text": (draft(to=[3]), ["recipient"]),
    "second recipient bad": (draft(to=["a@b", "c"]), ["recipient"]),
    "longest address": (draft(to=["a" * 252 + "@b"]), []),
    "address too long": (draft(to=["a" * 253 + "@b"]), ["recipient"]),
    "address too long in bytes": (draft(to=["ä" * 127 + "@b"]), ["recipient"]),
    "address of other script": (draft(to=["γιάννης@παράδειγμα"]), []),
    "no subject": (draft(subject=""), ["subject"]),
    "subject missing": (draft(subject=...), ["subject", "subject_length", "subject_line"]),
    "subject null": (draft(subject=None), ["subject", "subject_length", "subject_line"]),
    "subject blank": (draft(subject=" \t"), ["subject"]),
    "subject of 120 wide characters": (draft(subject="😀" * 120), []),
    "subject of 121 characters": (draft(subject="ä" * 121), ["subject_length"]),
    "subject of two lines": (draft(subject="a\nb"), ["subject_line"]),
    "subject with a return": (draft(subject="a\rb"), ["subject_line"]),
    "body missing": (draft(body=...), ["body", "body_length"]),
    "body a number": (draft(body=5), ["body", "body_length"]),
    "body blank": (draft(body=" " * 40), ["body"]),
    "body of 19": (draft(body="ä" * 19), ["body"]),
    "body of 20": (draft(body="ä" * 20), []),
    "body of 20000": (draft(body="€" * 20_000), []),
    "body of 20001": (draft(body="€" * 20_001), ["body_length"]),
    "escape sequence": (draft(body=GOOD["body"] + "\x1b[31m"), ["visible"]),
    "NUL": (draft(subject="a\0b"), ["visible"]),
    "tab and line ends are fine": (draft(body="a\tb\r\n" * 10), []),
    "next line": (draft(body=GOOD["body"] + "\x85"), ["visible"]),
    "soft hyphen": (draft(body=GOOD["body"] + "\xad"), ["visible"]),
    "no-break space is fine": (draft(body=GOOD["body"] + "\xa0"), []),
    "bidi override": (draft(subject="a\u202eb"), ["visible"]),
    "zero width": (draft(body=GOOD["body"] + "\u200b"), ["visible"]),
    "byte order mark": (draft(body="\ufeff" + GOOD["body"]), ["visible"]),
    "isolate": (draft(body=GOOD["body"] + "\u2066"), ["visible"]),
    "arabic mark": (draft(body=GOOD["body"] + "\u061c"), ["visible"]),
    "tag character": (draft(body=GOOD["body"] + "\U000e0041"), ["visible"]),
    "emoji is fine": (draft(body=GOOD["body"] + "😀"), []),
    "lone surrogate": (draft(body=GOOD["body"] + "\ud800"), ["visible"]),
    "template left": (draft(body=GOOD["body"] + "{{name}}"), ["finished"]),
    "name left": (draft(subject="Hi [Name]"), ["finished"]),
    "signature left": (draft(body=GOOD["body"] + "[Your name]"), ["finished"]),
    "todo left": (draft(body=GOOD["body"] + "TODO: date"), ["finished"]),
    "everything wrong": (
        {"to": 1, "subject": "\x00\n" + "x" * 130 + "TBD", "body": "{{\u200b", "sources": {}},
        ["recipient", "subject_length", "subject_line", "body", "visible", "finished", "sourced"],
    ),
    "empty": (
        {},
        [
            "recipient",
            "subject",
            "subject_length",
            "subject_line",
            "body",
            "body_length",
            "sourced",
        ],
    ),
    "nested rubbish": (draft(extra={"a": [1, 2.5e3, -0.1, None, True, {"subject": "x"}]}), []),
    "quotes and escapes": (draft(subject='He said "no" \\ / ok'), []),
}

Serve = Callable[[str], tuple[bool, str]]


@pytest.fixture(scope="module")
def c_critic() -> Serve:
    """The component in a bare wasmtime: the sandbox around it is tests/integration's matter."""
    engine = wasmtime.Engine()
    component = wc.Component(engine, (AGENTS / "critic_c" / "agent.wasm").read_bytes())
    linker = wc.Linker(engine)
    with linker.root() as root, root.add_instance("runloop:agent/host@0.1.0") as gate:
        gate.add_func("call", lambda _store, _op, _payload: wc.Variant("err", "{}"))
    store = wasmtime.Store(engine)
    handle = linker.instantiate(store, component).get_func(store, "handle")
    assert handle is not None

    def serve(text: str) -> tuple[bool, str]:
        answers: list[Any] = []

        def off_the_main_thread() -> None:
            answers.append(handle(store, text))
            handle.post_return(store)

        thread = threading.Thread(target=off_the_main_thread)
        thread.start()
        thread.join(30)
        (answer,) = answers
        return answer.tag == "ok", answer.payload

    return serve


@pytest.fixture
def python_critic(critic: AgentUnderTest) -> Serve:
    source = {"critic_under_test": critic.modules["agent"]}
    return lambda text: Program(source, "critic_under_test:handle").handle(text, FakeHost().host)


def asked(value: Any, **json_options: Any) -> str:
    return json.dumps({"op": "handle", "ports": {"in": [value]}, "with": {}, "context": {}}, **json_options)


@pytest.mark.parametrize("name", DRAFTS)
def test_the_python_critic_finds_exactly_what_is_wrong(critic: AgentUnderTest, name: str) -> None:
    value, wrong = DRAFTS[name]
    review = critic.run(ports={"in": [value]}).value("review")
    assert [check for check, holds in review["checks"].items() if not holds] == sorted(wrong)
    assert len(review["notes"]) == len(wrong)
    assert review["ok"] == (not set(wrong) - {"sourced"})


@pytest.mark.requirement("I2.sandbox.2")
@pytest.mark.parametrize("name", DRAFTS)
def test_the_critic_in_c_gives_the_same_bytes(c_critic: Serve, python_critic: Serve, name: str) -> None:
    value, _ = DRAFTS[name]
    for text in (asked(value), *([] if name == "lone surrogate" else [asked(value, ensure_ascii=False)])):
        ok, answer = c_critic(text)
        assert (ok, answer) == python_critic(text)
        assert ok


@pytest.mark.parametrize(
    "text",
    [
        '{"ports": {}}',
        "{}",
        '{"ports": {"in": []}}',
        asked(3),
        asked(None),
        asked([GOOD]),
        '{"ports": {"in": [1, {"subject": "first"}]}}',
        '{"ports": {"in": [{"subject": "first", "subject": "last one counts"}]}}',
        ' { "ports" : { "in" : [ { "to" : [ "a@b" ] } ] } } \n',
        "[]",
        "3",
    ],
)
def test_both_critics_answer_alike_to_inputs_of_other_shapes(
    c_critic: Serve, python_critic: Serve, text: str
) -> None:
    assert c_critic(text) == python_critic(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"a": }',
        '{"a" 1}',
        "[1,]",
        '{"a": 1,}',
        '"\\ud8"',
        '"\\x"',
        '"a\nb"',
        '{"ports": {"in": [01]}}',
        "tru",
        "1.",
        "-",
        "1e",
        '{"a": "unterminated',
        '"ends in a backslash\\',
        "{} {}",
        "[" * 5_000,
    ],
    ids=range(18),
)
def test_the_critic_in_c_survives_what_is_not_json(c_critic: Serve, text: str) -> None:
    ok, answer = c_critic(text)
    assert not ok
    assert json.loads(answer)["code"] == "abi.input"


def test_the_critic_in_c_serves_many_tasks_without_growing_out_of_its_memory(c_critic: Serve) -> None:
    text = asked(draft(body="€" * 20_000))
    answers = {c_critic(text) for _ in range(200)}
    assert len(answers) == 1


def test_a_critic_makes_no_host_call(critic: AgentUnderTest) -> None:
    host = FakeHost()
    critic.run(ports={"in": [GOOD]}, host=host)
    assert host.calls == []


def test_the_two_manifests_promise_the_same(critic: AgentUnderTest) -> None:
    from runloop.bundle.manifest import parse_manifest

    other = parse_manifest(Path(AGENTS / "critic_c" / "manifest.toml").read_bytes())
    assert (other.name, other.inputs, other.outputs) == (
        critic.manifest.name,
        critic.manifest.inputs,
        critic.manifest.outputs,
    )
    assert (other.variant, critic.manifest.variant) == ("c", "default")

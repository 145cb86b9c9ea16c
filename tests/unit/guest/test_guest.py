"""How source becomes an agent: tasks in, results and failures out, modules found and kept apart."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from runloop.agent import Fail, Result, Task, handler
from runloop.guest import Program
from runloop.guest_testing import FakeHost, Refuse

HEAD = "from runloop.agent import Fail, Result, handler\n@handler\ndef handle(task, host):\n    "


def serve(source: str | dict[str, str], text: str | None = None, **parts: Any) -> tuple[bool, dict[str, Any]]:
    modules = {"guest_agent": source} if isinstance(source, str) else source
    program = Program(modules, "guest_agent:handle")
    try:
        given = json.dumps({"op": "handle", **parts}) if text is None else text
        ok, answer = program.handle(given, FakeHost(HOST).host)
    finally:
        if program.finder in sys.meta_path:
            sys.meta_path.remove(program.finder)
        for name in modules:
            sys.modules.pop(name, None)
            sys.modules.pop(name.partition(".")[0], None)
    return ok, json.loads(answer)


HOST = {
    "kb.read": Refuse("cap.denied", "no", "ask"),
    "mail.send": Refuse("approval.denied", "denied", retryable=False),
}


def failure(source: str, **parts: Any) -> dict[str, Any]:
    ok, answer = serve(HEAD + source, **parts)
    assert not ok
    return answer


def test_a_handler_sees_ports_with_context_and_message() -> None:
    ok, answer = serve(
        HEAD + "return {'out': [task.port('a'), task.all('a'), task.param('w'), task.context, task.message]}",
        ports={"a": [1, 2]},
        **{"with": {"w": "x"}},
        context={"node": "n"},
        message={"type": "t"},
    )
    assert ok
    assert answer == {"ports": {"out": [[2, [1, 2], "x", {"node": "n"}, {"type": "t"}]]}, "artifacts": []}


def test_a_result_may_carry_several_values_and_artifacts() -> None:
    ok, answer = serve(HEAD + "return Result(ports={'out': [1, 2]}, artifacts=['ab'])")
    assert (ok, answer) == (True, {"ports": {"out": [1, 2]}, "artifacts": ["ab"]})


def test_a_missing_port_fails_the_attempt_unless_there_is_a_default() -> None:
    assert failure("return {'out': task.port('a')}")["code"] == "task.port"
    assert failure("return {'out': task.param('a')}")["code"] == "task.with"
    assert serve(HEAD + "return {'out': [task.port('a', 1), task.param('b', None), task.all('a')]}")[1] == {
        "ports": {"out": [[1, None, []]]},
        "artifacts": [],
    }


def test_a_failure_on_purpose_keeps_its_code_and_whether_to_retry() -> None:
    assert failure("raise Fail('my.code', 'sad', True)") == {
        "code": "my.code",
        "message": "sad",
        "retryable": True,
    }


def test_a_refusal_the_agent_does_not_catch_keeps_the_code_of_the_gate() -> None:
    assert failure("host.kb_read('contact', 'x')") == {
        "code": "cap.denied",
        "message": "no; ask",
        "retryable": False,
    }


def test_an_exception_names_the_line_of_the_agent_it_came_from() -> None:
    answer = failure("return {'out': 1 / 0}")
    assert answer["code"] == "agent.exception"
    assert answer["message"] == "ZeroDivisionError: division by zero (guest_agent.py:4)"


@pytest.mark.parametrize(
    "way", ["raise SystemExit(3)", "raise KeyboardInterrupt", "raise GeneratorExit", "exit(1)"]
)
def test_no_exception_of_an_agent_escapes(way: str) -> None:
    assert failure(way)["code"] == "agent.exception"


def test_an_exception_that_cannot_be_shown_is_still_reported() -> None:
    source = "\n    ".join(["class E(Exception):", "    def __str__(self): return 1 / 0", "raise E"])
    assert "cannot be shown" in failure(source)["message"]


@pytest.mark.parametrize(
    "value", ["float('nan')", "object()", "'\\ud800'", "{1: {2, 3}}", "[[]].__class__"], ids=str
)
def test_a_result_that_is_not_json_fails_with_a_reason(value: str) -> None:
    assert failure(f"return {{'out': {value}}}")["code"] == "agent.output"


@pytest.mark.parametrize("value", ["None", "3", "'text'", "[1]"])
def test_a_handler_that_returns_no_ports_fails_with_a_reason(value: str) -> None:
    assert "not a Result" in failure(f"return {value}")["message"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "nope",
        '{"ports": []}',
        '{"ports": {"a": 1}}',
        '{"with": 3}',
        '{"context": "x"}',
        '{"op": "dance"}',
    ],
)
def test_an_input_that_breaks_the_abi_is_refused_by_code(text: str) -> None:
    ok, answer = serve(HEAD + "return {}", text=text)
    assert not ok
    assert answer["code"] in ("abi.input", "abi.op")


def test_an_entrypoint_that_does_not_exist_is_named() -> None:
    ok, answer = serve("x = 1")
    assert (ok, answer["code"]) == (False, "agent.entrypoint")


def test_an_agent_imports_its_own_modules_and_packages() -> None:
    ok, answer = serve(
        {
            "guest_agent": "from guest_pkg.deep import low\nimport guest_pkg\n"
            "def handle(task, host): return {'out': [low.X, guest_pkg.__name__]}",
            "guest_pkg.deep.low": "X = 7",
        }
    )
    assert (ok, answer["ports"]) == (True, {"out": [[7, "guest_pkg"]]})


def test_one_program_serves_many_tasks_and_imports_once() -> None:
    program = Program(
        {"guest_many": "N = []\ndef handle(t, h):\n    N.append(1)\n    return {'n': len(N)}"}, "guest_many"
    )
    try:
        answers = [json.loads(program.handle("{}", FakeHost().host)[1])["ports"]["n"] for _ in range(3)]
    finally:
        sys.meta_path.remove(program.finder)
        del sys.modules["guest_many"]
    assert answers == [[1], [2], [3]]


def test_the_handler_mark_is_seen_by_readers_and_changes_nothing() -> None:
    def plain(task: Task, host: Any) -> Result:
        return Result.of(out=1)

    assert handler(plain) is plain
    assert plain.__runloop_handler__ is True  # type: ignore[attr-defined]


def test_a_very_long_message_is_cut() -> None:
    assert len(failure("raise Fail('c', 'x' * 100_000)")["message"]) == 4_000


def test_a_failure_is_not_confused_by_names_that_are_no_text() -> None:
    assert failure("raise Fail(3, None)") == {"code": "3", "message": "None", "retryable": False}


def test_fail_is_an_exception_with_words() -> None:
    assert str(Fail("c", "words")) == "words"


TOOLED = """
from __future__ import annotations
from dataclasses import dataclass
from runloop.agent import Result, Task, handler, tool
from runloop.host import Host

@dataclass
class Count:
    words: int
    longest: str

@tool("words.count")
def count(text: str, least: int = 1, *, host: Host) -> Count:
    '''How many words a text has.

    More words.
    '''
    found = [word for word in text.split() if len(word) >= least]
    return Count(len(found), max(found, key=len, default=""))

@handler
def handle(text: str, host: Host, note: str | None = None) -> Count:
    return count(text, host=host)
"""


def test_a_handler_may_name_its_ports_and_return_a_dataclass() -> None:
    ok, answer = serve(TOOLED, ports={"text": ["one three", "a bc"]})
    assert (ok, answer["ports"]) == (True, {"out": [{"words": 2, "longest": "bc"}]})


@pytest.mark.parametrize(
    ("ports", "words"),
    [
        ({}, "nothing was given for input port 'text'"),
        ({"text": [3]}, "input port 'text' must be a string, not an integer"),
        ({"text": ["a"], "host": ["mine"]}, "there is no input port 'host' of handle"),
    ],
)
def test_a_value_that_is_not_of_the_hinted_type_fails_the_attempt(ports: Any, words: str) -> None:
    ok, answer = serve(TOOLED, ports=ports)
    assert not ok
    assert (answer["code"], answer["message"]) == ("task.arguments", words)


@pytest.mark.requirement("I3.sdk.2")
def test_an_agent_describes_its_tools_by_their_hints() -> None:
    ok, answer = serve(TOOLED, json.dumps({"op": "describe"}))
    assert ok
    (described,) = answer["tools"]
    assert (described["id"], described["description"]) == ("words.count", "How many words a text has.")
    assert described["input_schema"]["properties"] == {
        "text": {"type": "string"},
        "least": {"type": "integer", "default": 1},
    }
    assert described["result_schema"]["required"] == ["longest", "words"]
    assert answer["inputs"]["required"] == ["text"]


def test_a_tool_is_called_by_its_id_with_json_arguments() -> None:
    asked = {"op": "tool", "tool": "words.count", "args": {"text": "a bcd", "least": 2}}
    ok, answer = serve(TOOLED, json.dumps(asked))
    assert (ok, answer["ports"]) == (True, {"result": [{"words": 1, "longest": "bcd"}]})


def test_a_tool_that_is_not_there_and_arguments_that_do_not_fit_are_failures() -> None:
    for asked, code in [
        ({"op": "tool", "tool": "words.cut"}, "abi.tool"),
        ({"op": "tool", "tool": "words.count", "args": {"txt": "x"}}, "task.arguments"),
        ({"op": "dance"}, "abi.op"),
    ]:
        ok, answer = serve(TOOLED, json.dumps(asked))
        assert (ok, answer["code"]) == (False, code)


def test_two_tools_of_one_id_are_refused() -> None:
    twice = TOOLED + '\n@tool("words.count")\ndef other() -> int: return 1\n'
    ok, answer = serve(twice, json.dumps({"op": "describe"}))
    assert (ok, answer["code"]) == (False, "agent.tools")


def test_a_syntax_error_names_the_line() -> None:
    ok, answer = serve("x = 1\ndef handle(:\n")
    assert (ok, answer["code"]) == (False, "agent.syntax")
    assert answer["message"].endswith("(guest_agent.py:2)")

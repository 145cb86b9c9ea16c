"""The author's test kit keeps what it promises."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from runloop.errors import UsageError
from runloop.guest_testing import AgentUnderTest, FakeHost, load_agent

MANIFEST = """
name = "counter"
version = "1.0.0"
ops = ["kb.read"]
[ports.in.text]
type = "string"
required = true
[ports.out.out]
type = "number"
required = true
"""


@pytest.fixture
def agent(tmp_path: Path) -> AgentUnderTest:
    (tmp_path / "manifest.toml").write_text(MANIFEST)
    (tmp_path / "agent.py").write_text(
        "import json_words\ndef handle(task, host):\n"
        "    return {task.param('port', 'out'): json_words.n(task.port('text'))}"
    )
    (tmp_path / "json_words.py").write_text("def n(text): return len(text.split())")
    return load_agent(tmp_path)


def test_an_agent_runs_as_it_would_in_the_sandbox(agent: AgentUnderTest) -> None:
    assert agent.run(ports={"text": ["a b c"]}).value("out") == 3


def test_the_modules_of_the_agent_do_not_stay_behind(agent: AgentUnderTest) -> None:
    mine = type(sys)("json_words")
    sys.modules["json_words"] = mine
    try:
        before = list(sys.meta_path)
        agent.run(ports={"text": ["a"]})
        assert sys.modules["json_words"] is mine
        assert sys.meta_path == before
        assert "agent" not in sys.modules
    finally:
        del sys.modules["json_words"]


def test_an_input_that_does_not_fit_the_manifest_fails_the_test(agent: AgentUnderTest) -> None:
    with pytest.raises(AssertionError, match="takes string, not number"):
        agent.run(ports={"text": [3]})
    with pytest.raises(AssertionError, match="required"):
        agent.run()


def test_an_output_that_does_not_fit_the_manifest_fails_the_test(agent: AgentUnderTest) -> None:
    with pytest.raises(AssertionError, match="did you mean 'out'"):
        agent.run(ports={"text": ["a"]}, with_={"port": "oul"})


def test_a_value_that_is_not_there_is_said_with_the_reason_of_the_failure(agent: AgentUnderTest) -> None:
    outcome = agent.run_input({"ports": {}})
    assert not outcome.ok
    with pytest.raises(AssertionError, match=r"task\.port"):
        outcome.value("out")


def test_a_call_without_an_answer_in_the_script_fails_the_test() -> None:
    with pytest.raises(AssertionError, match=r"kb\.read"):
        FakeHost().host.kb_read("contact", "x")


def test_arguments_the_gate_would_refuse_fail_the_test() -> None:
    with pytest.raises(UsageError):
        FakeHost({"kb.search": []}).host.call("kb.search", {"quary": "x"})


def test_a_tool_is_called_like_the_function_it_is_and_held_to_no_port(tmp_path: Path) -> None:
    from tests.unit.authoring.folders import python_agent

    agent = load_agent(python_agent(tmp_path))
    found = agent.call_tool("asks.requests", text="todo: one\nReally?", limit=1)
    assert [request["text"] for request in found.value("result")] == ["one"]
    assert agent.call_tool("asks.requests").code == "task.arguments"
    assert [tool["id"] for tool in agent.run_input({"op": "describe"}).ports["tools"]] == ["asks.requests"]


def test_an_authors_virtual_environment_is_no_part_of_the_agent(tmp_path: Path) -> None:
    from tests.unit.authoring.folders import python_agent

    folder = python_agent(tmp_path)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "python").symlink_to("/usr/bin/python3")
    assert set(load_agent(folder).modules) == {"agent"}

"""Every mistake in a folder, at once, each with its file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runloop.authoring.lint import lint
from runloop.errors import NotFoundError

from .folders import change, found, python_agent, said, write


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    return python_agent(tmp_path)


def test_a_folder_that_is_not_there_has_no_findings_but_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        lint(tmp_path / "nowhere")


def test_an_empty_folder_lacks_everything(tmp_path: Path) -> None:
    assert [finding.file for finding in found(tmp_path) if finding.severity == "error"] == [
        *("LICENSE", "README.md", "manifest.toml", "policy.caps", "tools.json"),
    ]


def test_mistakes_of_every_file_are_reported_together(agent: Path) -> None:
    change(agent, "manifest.toml", 'version = "0.1.0"', 'version = "one"')
    write(agent, "policy.caps", "[capabilities]\nmail = true\nkb_red = true\n")
    write(agent, "tools.json", '{"version": 1,\n "tools": [}')
    write(agent, "agent.py", "def handle(:\n")
    write(agent, "tests/cases.toml", "[[case]]\nname = 1\nexpect = {}\n")
    (agent / "README.md").unlink()
    places = {finding.place for finding in found(agent)}
    assert {
        *(
            "manifest.toml:3",
            "policy.caps:3",
            "tools.json:2",
            "agent.py:1",
            "tests/cases.toml:1",
            "README.md",
        ),
    } <= places


# --- host calls and rights ------------------------------------------------------------------------


def test_a_host_call_that_is_not_declared_is_an_error_where_it_is_made(agent: Path) -> None:
    change(
        agent,
        "agent.py",
        "    found = requests(text)\n    host",
        '    host.kb_search("x")\n    found = []\n    host',
    )
    (finding,) = found(agent)
    assert (finding.file, finding.severity) == ("agent.py", "error")
    assert "calls kb.search, which manifest.toml does not declare" in finding.what
    line = (agent / "agent.py").read_text().splitlines()[finding.line - 1]
    assert "kb_search" in line


def test_a_declared_call_without_its_right_is_an_error(agent: Path) -> None:
    change(
        agent, "agent.py", "    found = requests(text)", '    host.kb_search("x")\n    found = requests(text)'
    )
    change(agent, "manifest.toml", '["log.write"]', '["log.write", "kb.search"]')
    (finding,) = found(agent)
    assert finding.severity == "error"
    assert "kb.search needs the capability kb_read, which policy.caps does not ask for" in finding.what
    write(agent, "policy.caps", '[capabilities]\nkb_read = ["notes"]\n')
    assert found(agent) == []


def test_a_right_that_nothing_needs_is_a_warning(agent: Path) -> None:
    write(agent, "policy.caps", "[capabilities]\ntime = true\nmail = true\n")
    assert {(f.line, f.severity) for f in found(agent)} == {(2, "warning"), (3, "warning")}


def test_a_right_that_a_tool_names_is_needed(agent: Path) -> None:
    tool = {
        "id": "a.b",
        "description": "asks",
        "transport": {"kind": "http", "method": "GET", "url": "https://api.example.org/x"},
        "input_schema": {"type": "object"},
        "capabilities": ["net:api.example.org"],
    }
    write(agent, "tools.json", json.dumps({"version": 1, "tools": [tool]}))
    write(agent, "policy.caps", '[capabilities]\nnet = ["api.example.org"]\n')
    assert said(agent) == []


def test_a_declared_call_that_nothing_makes_is_a_warning(agent: Path) -> None:
    change(agent, "manifest.toml", '["log.write"]', '["log.write", "memory.get"]')
    (finding,) = found(agent)
    assert (finding.severity, finding.line) == ("warning", 9)


def test_a_call_that_does_not_exist_gets_a_suggestion(agent: Path) -> None:
    change(
        agent,
        "agent.py",
        "    found = requests(text)",
        '    host.call("kb.serch")\n    found = requests(text)',
    )
    (finding,) = found(agent)
    assert (finding.what, finding.fix) == ("there is no host call 'kb.serch'", "did you mean 'kb.search'?")


# --- files ----------------------------------------------------------------------------------------


def test_the_language_of_manifest_and_source_must_agree(agent: Path) -> None:
    change(
        agent, "manifest.toml", 'language = "python"\nentrypoint = "agent:handle"', 'language = "component"'
    )
    assert "the language is 'component', and what is built here is 'python'" in said(agent)[0]


@pytest.mark.parametrize("text", ["language = 'cobol'", "language = ", "language = ['python']"])
def test_a_build_file_that_means_nothing_is_told(agent: Path, text: str) -> None:
    write(agent, "build.toml", text)
    assert said(agent)[0].startswith("build.toml: ")


def test_names_that_differ_in_case_only_are_refused(agent: Path) -> None:
    write(agent, "lib.py", "")
    write(agent, "Lib.py", "")
    assert any("differs from Lib.py in case only" in line for line in said(agent))


def test_a_schema_of_a_port_must_be_there_and_be_one(agent: Path) -> None:
    change(agent, "manifest.toml", "[ports.out.out]\n", '[ports.out.out]\nschema = "schemas/out.json"\n')
    assert any("the schema of ports.out.out is no file" in line for line in said(agent))
    write(agent, "schemas/out.json", '{"type": "objct"}')
    assert any(line.startswith("schemas/out.json: at $.type") for line in said(agent))
    write(agent, "schemas/out.json", '{\n"type": }')
    assert any(line.startswith("schemas/out.json:2: not JSON") for line in said(agent))
    write(agent, "schemas/out.json", '{"type": "object"}')
    assert said(agent) == []


def test_what_no_bundle_may_hold_is_told_before_the_build(agent: Path) -> None:
    write(agent, "README.md", "# hello\n!`rm -rf /`\n")
    assert any(line.startswith("README.md: ") and "command" in line for line in said(agent))


def test_a_tool_is_named_with_its_line(agent: Path) -> None:
    write(agent, "tools.json", '{"version": 1, "tools": [\n {"id": "a.b"}\n]}')
    assert all(finding.line == 2 for finding in found(agent))
    assert any("'input_schema' is missing" in line for line in said(agent))


# --- cases ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("ports = { nope = [1] }\nexpect = { ports = {} }", "there is no input port 'nope'"),
        ("ports = { text = [1] }\nexpect = { ports = {} }", "input port 'text' takes string"),
        ("expect = { ports = { nope = [] } }", "expects output port 'nope'"),
        (
            'op = "tool"\ntool = "a.b"\nexpect = { ports = { out = [] } }',
            "a tool answers on port 'result' only",
        ),
    ],
)
def test_a_case_that_does_not_fit_the_manifest_is_told(agent: Path, case: str, words: str) -> None:
    write(agent, "tests/cases.toml", f'[[case]]\nname = "c"\n{case}\n')
    assert any(line.startswith("tests/cases.toml:1: c: ") and words in line for line in said(agent))


def test_an_answer_the_gate_would_never_give_is_a_warning(agent: Path) -> None:
    text = '[[case]]\nname = "c"\nexpect = { error = "a" }\n[case.host]\n"mail.send" = {}\n'
    write(agent, "tests/cases.toml", text)
    (finding,) = found(agent)
    assert finding.severity == "warning" and "the gate will refuse it first" in finding.what

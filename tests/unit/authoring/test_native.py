"""What runs outside the sandbox on the author's machine: bounded, and with little to hold on to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runloop.authoring import native
from runloop.authoring.cases import Case, differences, parse_cases
from runloop.authoring.lint import lint
from runloop.authoring.native import run_cases, run_native
from runloop.authoring.toolchains.python import PythonToolchain
from runloop.errors import FailedError

from .folders import python_agent, write

AGENT = """
import os
from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host, HostRefused
seen = []
@handler
def handle(task: Task, host: Host) -> Result:
    seen.append(1)
    print("noise on stdout")
    if task.param("search", False):
        try:
            return Result.of(out={"hits": len(host.kb_search("x"))})
        except HostRefused as no:
            raise Fail("asks.no", no.code)
    if task.param("bad", False):
        return Result.of(out=[1])
    return Result.of(out={"seen": len(seen), "key": os.environ.get("SECRET_KEY")})
"""


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    return python_agent(tmp_path)


def test_the_cases_of_the_template_hold_against_the_fake_host(agent: Path) -> None:
    cases = parse_cases((agent / "tests" / "cases.toml").read_bytes())
    outcomes = run_cases(agent, cases, "asks", os.environ)
    assert [differences(case.expect, out) for case, out in zip(cases, outcomes, strict=True)] == [[]] * 4


def test_every_case_starts_with_fresh_modules_and_sees_nothing_of_the_environment(agent: Path) -> None:
    write(agent, "agent.py", AGENT)
    outcomes = run_cases(agent, [Case(name="a"), Case(name="b")], "asks", {**os.environ, "SECRET_KEY": "k"})
    assert [out.ports for out in outcomes] == [{"out": [{"seen": 1, "key": None}]}] * 2


def test_the_script_answers_and_refuses_and_what_it_lacks_is_named(agent: Path) -> None:
    write(agent, "agent.py", AGENT)
    asks = {"search": True}
    no = {"refuse": {"code": "cap.denied", "message": "no"}}
    cases = [
        Case(name="yes", with_=asks, host={"kb.search": {"items": [{}, {}]}}),
        Case(name="no", with_=asks, host={"kb.search": no}),
        Case(name="silent", with_=asks),
    ]
    yes, refused, silent = run_cases(agent, cases, "asks", os.environ)
    assert yes.ports == {"out": [{"hits": 2}]}
    assert (refused.code, refused.message) == ("asks.no", "cap.denied")
    assert silent.unscripted == ("kb.search",)


def test_values_are_held_to_the_ports_as_in_a_run(agent: Path) -> None:
    write(agent, "agent.py", AGENT)
    wrong_in, wrong_out = run_cases(
        agent, [Case(name="a", ports={"text": [1]}), Case(name="b", with_={"bad": True})], "asks", os.environ
    )
    assert (wrong_in.code, wrong_out.code) == ("node.input", "guest.output")


def test_an_agent_that_never_ends_or_ends_the_process_is_an_error(
    agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(agent, "agent.py", "import os\nos._exit(3)\n")
    with pytest.raises(FailedError, match="exit 3"):
        run_cases(agent, [Case(name="a")], "asks", os.environ)
    monkeypatch.setattr(native, "CASES_TIMEOUT_S", 1.5)
    write(agent, "agent.py", "while True: pass\n")
    with pytest.raises(FailedError, match="ran longer than"):
        run_cases(agent, [Case(name="a")], "asks", os.environ)


def test_the_authors_own_tests_run_and_their_words_are_kept(agent: Path) -> None:
    done = run_native(agent, PythonToolchain(), lint(agent)[0].cases, os.environ)
    assert done is not None and done.ok and "Ran 3 tests" in done.output
    write(
        agent,
        "tests/test_agent.py",
        "import unittest\nclass T(unittest.TestCase):\n  def test_x(self): self.fail('boo')\n",
    )
    done = run_native(agent, PythonToolchain(), [], os.environ)
    assert done is not None and not done.ok and "boo" in done.output
    assert not list(agent.rglob("__pycache__"))
    (agent / "tests" / "test_agent.py").unlink()
    assert run_native(agent, PythonToolchain(), [], os.environ) is None

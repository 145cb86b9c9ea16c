"""An author's way, through the installed commands: from nothing to a verified message of one's own agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from runloop.bundle.archive import unpack
from tests.home import Done, Home

MOST_COMMANDS = 8
"""From a clean machine to the first verified message."""


class Author:
    """Types commands in a folder of its own, and counts them."""

    def __init__(self, home: Home, place: Path) -> None:
        self._home = home
        self.place = place
        self.typed: list[str] = []

    def rlp(self, *words: str, cwd: str = "", code: int = 0, env: dict[str, str] | None = None) -> Done:
        self.typed.append(" ".join(words))
        return self._home.rlp(*words, cwd=self.place / cwd, env=env, timeout=300).check(code)

    def allow(self, approval: str) -> None:
        self.typed.append(f"approve {approval} --confirm")
        self._home.allow(approval).check()


@pytest.fixture
def author(home: Home, tmp_path: Path) -> Author:
    return Author(home, tmp_path)


@pytest.mark.requirement("I3.author.2")
def test_from_nothing_to_a_verified_message_in_eight_commands(author: Author) -> None:
    author.rlp("agent", "scaffold", "asks")
    author.rlp("agent", "test", cwd="asks")
    author.rlp("agent", "build", "--dev-key", cwd="asks")
    parked = author.rlp("agent", "install", "--dev-key", "asks-0.1.0.rlb", cwd="asks", code=5)
    approval = parked.err.partition("rlp approve ")[2].split()[0]
    author.allow(approval)  # on a terminal, install itself asks
    ran = author.rlp("run", "opening.yaml", "-p", "text=todo: try it by 2031-01-01", "--json", cwd="asks")
    assert '"todos":["try it by 2031-01-01"]' in ran.out
    author.rlp("verify", cwd="asks")
    assert len(author.typed) <= MOST_COMMANDS, author.typed


@pytest.mark.requirement("I3.author.3")
def test_what_is_scaffolded_passes_its_tests_and_lint_at_once(author: Author) -> None:
    author.rlp("agent", "scaffold", "weather_man", "--lang", "python", "--dir", "here")
    assert author.rlp("agent", "lint", "here", "--json").out == ""
    report = author.rlp("agent", "test", "here", "--json").json
    assert report["ok"] and report["unit"]["ok"]
    assert len(report["cases"]) == 4
    for case in report["cases"]:
        assert case["fake"] == {"ok": True, "differences": []}
        assert case["sandbox"]["ok"] and case["sandbox"]["fuel"] > 0


@pytest.mark.requirement("I3.bundle.1")
def test_two_builds_in_two_places_and_surroundings_are_one_bundle(author: Author) -> None:
    author.rlp("agent", "scaffold", "asks", "--dir", "first/asks")
    author.rlp("agent", "scaffold", "asks", "--dir", "second/some/where/else")
    author.rlp(
        "agent", "build", "first/asks", "-o", "one.rlb", env={"TZ": "UTC", "LANG": "C", "PYTHONHASHSEED": "0"}
    )
    other = {"TZ": "Pacific/Auckland", "LANG": "C.UTF-8", "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1"}
    author.rlp("agent", "build", "second/some/where/else", "-o", "two.rlb", env=other)
    one, two = ((author.place / name).read_bytes() for name in ("one.rlb", "two.rlb"))
    assert one == two
    assert b"asks.requests" in unpack(one).files["tools.json"], "described in the sandbox, the same twice"
    for name in ("one", "two"):
        author.rlp("agent", "sign", f"{name}.rlb", "--dev-key")
    assert (author.place / "one.rlb").read_bytes() == (author.place / "two.rlb").read_bytes() != one


@pytest.mark.requirement("I3.author.5")
def test_a_mistake_is_shown_where_it_is_and_nothing_is_built(author: Author) -> None:
    author.rlp("agent", "scaffold", "asks")
    source = author.place / "asks" / "agent.py"
    text = source.read_text().replace("    found = requests(text)\n", "    found = host.kb_search(text)\n")
    source.write_text("import numpy\n" + text.replace("from __future__ import annotations\n", ""))
    for command in ("lint", "build", "test"):
        done = author.rlp("agent", command, "asks", code=2)
        said = done.out + done.err
        assert "agent.py:1: 'numpy' is no module of the standard library" in said
        assert "calls kb.search, which manifest.toml does not declare" in said
    assert list(author.place.glob("*.rlb")) == []


@pytest.mark.requirement("I3.author.3")
def test_an_agent_that_passes_the_fake_host_and_not_the_gate_fails_its_test(author: Author) -> None:
    author.rlp("agent", "scaffold", "asks")
    source = author.place / "asks" / "agent.py"
    sneak = '    host.call("kb" + ".search", {"query": text})\n    found = requests(text)\n    host'
    source.write_text(source.read_text().replace("    found = requests(text)\n    host", sneak))
    case = '[[case]]\nname = "sneaks"\nwith = { text = "x" }\nexpect = { ports = {} }\n'
    case += '[case.host]\n"kb.search" = {}\n'
    (author.place / "asks" / "tests" / "cases.toml").write_text(case)
    report = author.rlp("agent", "test", "asks", "--json", code=1).json
    (judged,) = report["cases"]
    assert judged["fake"]["ok"] and not judged["sandbox"]["ok"]
    assert judged["sandbox"]["denied"][0]["code"] == "cap.denied"


def test_a_trial_leaves_nothing_in_the_ledger_and_a_line_in_the_log(author: Author, home: Home) -> None:
    author.rlp("agent", "scaffold", "asks")
    home.rlp("daemon", "start").check()
    before = [event.kind for event in home.events()]
    author.rlp("agent", "test", "asks")
    assert [event.kind for event in home.events()] == before
    assert "agent_tried" in author.rlp("logs", "--json").out


def test_only_the_operator_may_try_an_agent(author: Author, home: Home) -> None:
    from runloop.client import BlockingClient
    from runloop.errors import RefusedError

    home.rlp("daemon", "start").check()
    with (
        BlockingClient.connect(home.path / "run" / "rmp.sock") as peer,
        pytest.raises(RefusedError, match="needs the operator"),
    ):
        peer.call("agents.try", {"upload": "", "cases": []})

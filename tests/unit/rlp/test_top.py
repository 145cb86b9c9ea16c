"""``rlp top``, ``agent kill`` and ``restart``: what the daemon is asked, what is shown, how it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rlp.completing import kind_of
from rlp.table import find
from runloop.errors import NotFoundError
from runloop.metrics import COLUMNS
from tests.unit.agtop.samples import agent, sample
from tests.unit.rlp.conftest import Rlp, Terminal
from tests.unit.rlp.daemon_twin import DaemonTwin

HOSTILE = "a\x1b[2J\u202eb"


class Looks:
    """Answers ``agents.metrics``, and remembers since when each look wanted rates."""

    def __init__(self, daemon: DaemonTwin, *rows: dict[str, Any]) -> None:
        self.since: list[int | None] = []
        self.rows = rows or (
            agent("idle_one"),
            agent("writer", state="running", cpu_percent=12.5, rss_bytes=41 << 20, input_tokens=1_500),
            agent("held", state="quarantined", why="8 failures within 600 s"),
        )
        daemon.methods["agents.metrics"] = self

    def __call__(self, since: int | None) -> dict[str, Any]:
        self.since.append(since)
        return sample(len(self.since), *self.rows)


def test_once_is_two_looks_and_one_table_with_the_busiest_first(daemon: DaemonTwin, rlp: Rlp) -> None:
    looks = Looks(daemon)
    done = rlp("top", "--once", "--interval", "0.1")
    assert (done.code, looks.since) == (0, [None, 1])
    head, counts, titles, first, second, why, third = done.out.splitlines()
    assert head.startswith("daemon 4242  up ") and "agents 3  running 1" in counts
    assert titles.split()[:5] == ["AGENT", "STATE", "CPU%*", "RSS", "IN"]
    assert first.split()[:6] == ["writer", "running", "12.5", "41.0", "M", "1.5k"]
    assert (second.split()[0], why.strip(), third.split()[0]) == (
        "held",
        "8 failures within 600 s",
        "idle_one",
    )
    assert max(map(len, done.out.splitlines())) <= 80


def test_json_has_an_object_for_the_daemon_and_one_for_each_agent_of_a_look(
    daemon: DaemonTwin, rlp: Rlp
) -> None:
    Looks(daemon)
    daemon_line, *agents = rlp("top", "--once", "--interval", "0.1", "--json", "--sort", "name").lines
    assert (daemon_line["type"], daemon_line["sample"], daemon_line["interval_ms"]) == ("daemon", 2, 1_000)
    assert [(row["type"], row["sample"], row["agent"]) for row in agents] == [
        ("agent", 2, "held"), ("agent", 2, "idle_one"), ("agent", 2, "writer"),
    ]  # fmt: skip
    writer = agent("writer", state="running", cpu_percent=12.5, rss_bytes=41 << 20, input_tokens=1_500)
    assert agents[2] == {"type": "agent", "sample": 2, **writer}


def test_only_the_agents_that_are_named_and_all_of_them_are_known(daemon: DaemonTwin, rlp: Rlp) -> None:
    Looks(daemon)
    shown = rlp("top", "writer", "--once", "--interval", "0.1", "--json").lines
    assert [row["agent"] for row in shown[1:]] == ["writer"]
    unknown = rlp("top", "writer", "wirter", "--once", "--interval", "0.1")
    assert (unknown.code, "no agent is called 'wirter'" in unknown.err) == (7, True)


def test_without_a_daemon_none_is_started(home: object, rlp: Rlp) -> None:
    done = rlp("top", "--once")
    assert (done.code, done.out) == (3, "")
    assert "'rlp daemon start'" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sort", "beauty"), "'beauty' is no column; one of: name, state, cpu"),
        (("--interval", "0"), "is no time between 0.1 and 3600 seconds"),
        (("--interval", "nan"), "is no time between"),
        (("--interval", "soon"), "is no time between"),
    ],
    ids=["column", "zero", "nan", "words"],
)
def test_what_cannot_be_is_refused_before_anybody_is_asked(
    daemon: DaemonTwin, rlp: Rlp, words: tuple[str, ...], said: str
) -> None:
    looks = Looks(daemon)
    done = rlp("top", "--once", *words)
    assert (done.code, looks.since) == (2, [])
    assert said in done.err


def test_help_and_completion_name_the_columns_there_are() -> None:
    found = find(["top"])
    assert found is not None
    sort = next(option for option in found[0].options if option.name == "sort")
    names = [one.name for one in COLUMNS]
    assert sort.help.replace(" or ", ", ").split(", ") == names
    assert kind_of("top", sort) == "words," + ",".join(names)


def test_foreign_names_and_reasons_are_shown_harmless(daemon: DaemonTwin, rlp: Rlp) -> None:
    Looks(daemon, agent(HOSTILE, state="broken", why=HOSTILE))
    out = rlp("top", "--once", "--interval", "0.1").out
    assert "\x1b" not in out and "\u202e" not in out and "\\x1b[2J" in out


def test_on_a_terminal_one_table_is_drawn_over_the_other_until_it_is_interrupted(
    daemon: DaemonTwin, terminal: Callable[..., Terminal]
) -> None:
    foreign = agent(HOSTILE, state="broken", why=HOSTILE)
    looks = Looks(daemon, foreign, *(agent(f"agent_{number:02}") for number in range(40)))
    screen = terminal("top", "--interval", "0.1")
    screen.wait_for("daemon 4242", times=3)
    screen.type("\x03")
    assert screen.end() == 130
    assert looks.since[:3] == [None, 1, 2]
    first, *over = screen.seen.split("\x1b[23A")
    assert over and "more lines" in first and "agent_39" not in screen.seen
    assert "\x1b[2J" not in screen.seen and "\u202e" not in screen.seen
    assert screen.seen.count("\\x1b[2J") >= 6, "name and reason, in each table"
    assert "\x1b[?" not in screen.seen, "no mode of the terminal is changed: a kill leaves nothing behind"


def test_killing_and_restarting_tell_which_attempts_it_was(daemon: DaemonTwin, rlp: Rlp) -> None:
    asked: list[tuple[str, str]] = []

    def ended(agent: str, reason: str) -> dict[str, Any]:
        asked.append((agent, reason))
        attempts = [{"run": "0b7c3f52-8a55", "node": "draft", "attempt": 2}]
        return {"agent": agent, "how": "killed", "attempts": attempts, "tools": 1, "event": 9}

    daemon.methods["agent.kill"] = daemon.methods["agent.restart"] = ended
    killed = rlp("agent", "kill", "writer", "--reason", "stuck")
    assert killed.out == "0b7c3f52  draft  attempt 2\n"
    assert "1 attempt and 1 of its tools killed; 'rlp agent quarantine writer' keeps it" in killed.err
    assert "restarted; each goes on from its record" in rlp("agent", "restart", "writer").err
    assert rlp("agent", "kill", "writer", "--json").lines[0]["event"] == 9
    assert asked == [("writer", "stuck"), ("writer", "asked to"), ("writer", "asked to")]


def test_an_agent_that_does_nothing_is_not_killed(daemon: DaemonTwin, rlp: Rlp) -> None:
    def idle(agent: str, reason: str) -> dict[str, Any]:
        raise NotFoundError(f"{agent} does nothing now", hint="'rlp top' shows who works", code="agent.idle")

    daemon.methods["agent.kill"] = idle
    done = rlp("agent", "kill", "writer")
    assert (done.code, "'rlp top' shows who works" in done.err) == (7, True)

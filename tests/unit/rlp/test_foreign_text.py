"""Foreign text on its way through every command that shows any: nothing of it acts on a terminal (C6)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runloop.errors import FailedError, RefusedError
from runloop.escape import visible
from tests.hostile_text import ALL_AT_ONCE, HOSTILE, WITNESS, assert_harmless
from tests.unit.rlp.conftest import Rlp, Terminal
from tests.unit.rlp.daemon_twin import RUN, DaemonTwin

X = "<foreign>"
"""Where the foreign text stands in an answer."""
NOW = 1_750_000_000_000
_TRIGGER = {
    "trigger": X,
    "opening": X,
    "cron": X,
    "zone": X,
    "watch": None,
    "next_at": X,
    "fired": 1,
    "missed": 0,
    "file": "same",
    "running": [X],
    "paused_ms": None,
    "principal": X,
    "state": X,
    "missed_times": "skip",
    "overlap": "skip",
    "last_run": X,
    "params": {X: X},
    "source": X,
    "source_path": X,
    "set_ms": NOW,
    "event": 1,
    "due_ms": NOW,
    "at": X,
}
_TOOL = {
    "name": X,
    "state": "changed",
    "effect": X,
    "description": X,
    "why": X,
    "changes": [X],
    "approved": X,
}
_PORTS = {"in": {X: {"type": X, "required": True}}, "out": {}}
_AGENT = {
    "name": X,
    "variant": X,
    "version": X,
    "dev": False,
    "origin": X,
    "publisher": X,
    "description": X,
    "bundle": X,
    "owner": X,
    "installed": {
        "publisher": X,
        "key": X,
        "bundle": X,
        "dev": False,
        "installed_ms": NOW,
        "by": X,
        "how": X,
        "principal": X,
    },
    "versions": [],
    "ports": _PORTS,
    "tools": [{"id": X, "description": X}],
    "asked": {X: X},
    "rights": None,
    "last_run": None,
    "refused": None,
}
_ENTRY = {
    "id": X,
    "principal": X,
    "client": X,
    "version": X,
    "state": X,
    "capabilities": [X],
    "serves": [X],
    "claimed": True,
}

ANSWERS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "runs": (
        ("runs",),
        {
            "run.list": {
                "runs": [
                    {
                        "run": RUN,
                        "opening": X,
                        "principal": X,
                        "state": X,
                        "started_ms": NOW,
                        "finished_ms": NOW,
                        "error": {"message": X},
                    }
                ]
            }
        },
    ),
    "grants": (
        ("grant", "list"),
        {
            "grants.list": {
                "grants": [
                    {
                        "grant": X,
                        "agent": X,
                        "bundle": X,
                        "tool": X,
                        "effect": X,
                        "resource": X,
                        "asked_by": X,
                        "given_ms": NOW,
                        "principal": X,
                        "approval": X,
                        "definition": X,
                    }
                ]
            }
        },
    ),
    "promises": (
        ("promises",),
        {
            "promise.list": {
                "promises": [
                    {
                        "promise": X,
                        "state": X,
                        "resolver": "operator",
                        "run": RUN,
                        "node": X,
                        "question": X,
                        "expires_ms": NOW,
                    }
                ]
            }
        },
    ),
    "secrets": (
        ("secret", "list"),
        {
            "secret.list": {
                "secrets": [
                    {
                        "name": X,
                        "store": X,
                        "destinations": [X],
                        "set_ms": NOW,
                        "used_ms": NOW,
                        "used_by": X,
                        "used_to": X,
                    }
                ]
            }
        },
    ),
    "memory spaces": (
        ("memory", "list"),
        {"memory.list": {"spaces": [{"namespace": X, "keys": 1, "bytes": 1}]}},
    ),
    "memory value": (
        ("memory", "show", "agent:a", "k"),
        {
            "memory.show": {
                "value": {X: X},
                "namespace": X,
                "key": X,
                "version": 1,
                "size": 1,
                "updated_ms": NOW,
                "event": 1,
            }
        },
    ),
    "query": (("kb", "query", "SELECT 1"), {"kb.query": {"columns": [X], "rows": [{X: X}]}}),
    "search": (
        ("kb", "search", "words"),
        {
            "kb.search": {
                "items": [
                    {
                        "kind": X,
                        "event": 1,
                        "title": X,
                        "label": X,
                        "found_by": {X: 1},
                        "snippet": X,
                    }
                ],
                "embedders": [X],
            }
        },
    ),
    "why": (
        ("kb", "why", "9"),
        {
            "kb.why": {
                "hops": [
                    {
                        "event": 9,
                        "kind": X,
                        "ts_ms": NOW,
                        "actor": X,
                        "depth": 1,
                        "summary": X,
                        "node": X,
                        "digests": {X: X},
                    }
                ],
                "grants": [{"token": X, "holder": X, "parent": X, "event": 3}],
                "asked": [{"prompt": X, "principal": X, "run": X, "event": 1}],
                "decisions": [{"decision": X, "principal": X, "summary": X, "event": 2, "content_blob": X}],
                "retracted": [{"event": 1, "retraction": 2, "reason": X}],
                "severed": [{"event": 4, "missing": X, "reason": X}],
                "also": [],
                "truncated": False,
            }
        },
    ),
    "capabilities": (
        ("cap", "list"),
        {"cap.list": {"agents": [{"agent": X, "asked": {X: X}, "effective": {X: X}, "warnings": [X]}]}},
    ),
    "schedules": (
        ("schedule", "list"),
        {"trigger.list": {"triggers": [_TRIGGER], "charged_micro_usd": 1, "day_micro_usd": 2}},
    ),
    "schedule": (("schedule", "show", "s"), {"trigger.show": _TRIGGER}),
    "servers": (
        ("mcp", "ls"),
        {
            "mcp.list": {
                "servers": [
                    {
                        "server": X,
                        "transport": X,
                        "state": X,
                        "tools": 1,
                        "approved": 0,
                        "suspended": 0,
                        "runs": X,
                    }
                ]
            }
        },
    ),
    "server": (
        ("mcp", "show", "s"),
        {
            "mcp.show": {
                "shown": X,
                "state": X,
                "why": X,
                "protocol": X,
                "identity": X,
                "tools": [_TOOL],
                "refused": [X],
                "stderr": X,
                "server": X,
            }
        },
    ),
    "tools of a server": (
        ("mcp", "tools", "s"),
        {"mcp.show": {"tools": [_TOOL], "refused": [X], "state": X, "why": X}},
    ),
    "peers": (("peers",), {"directory.find": {"entries": [_ENTRY]}}),
    "held agents": (
        ("agent", "held"),
        {
            "agent.held": {
                "agents": [
                    {
                        "agent": X,
                        "reason": X,
                        "by": X,
                        "since_ms": NOW,
                        "event": 1,
                        "principal": X,
                        "held_ms": NOW,
                    }
                ]
            }
        },
    ),
    "agents": (
        ("agent", "list"),
        {
            "agents.list": {"agents": [_AGENT]},
            "agents.refused": {"refused": [{"name": X, "place": X, "reason": X}]},
        },
    ),
    "publishers": (
        ("trust", "list"),
        {
            "trust.list": {
                "anchors": [
                    {
                        "publisher": X,
                        "key": X,
                        "names": [X],
                        "capabilities": [X],
                        "expires": X,
                        "from": X,
                        "layer": X,
                        "place": X,
                    }
                ],
                "revoked": [{"subject": X, "key": X, "reason": X, "revoked_ms": NOW, "layer": X}],
                "only_system": False,
            }
        },
    ),
    "providers": (
        ("providers",),
        {
            "provider.list": {
                "providers": [
                    {
                        "target": X,
                        "local": False,
                        "price": None,
                        "tools": True,
                        "json": True,
                        "stream": True,
                        "state": X,
                        "why": X,
                        "kind": X,
                    }
                ]
            }
        },
    ),
    "cost": (
        ("cost",),
        {
            "kb.query": {
                "columns": ["key"],
                "rows": [
                    {
                        "key": X,
                        "calls": 1,
                        "input_tokens": 1,
                        "output_tokens": 1,
                        "cost_micro_usd": 1,
                        "lost_micro_usd": 0,
                        "saved_micro_usd": 0,
                        "scheduled_micro_usd": 0,
                        "held_micro_usd": 0,
                        "untold_micro_usd": 0,
                    }
                ],
            }
        },
    ),
}
"""What is typed, and what the daemon answers. Every string in it that can be foreign is."""


def filled(shape: Any, text: str) -> Any:
    """A shape with the foreign text in its places, keys included."""
    if isinstance(shape, dict):
        return {filled(key, text): filled(value, text) for key, value in shape.items()}
    if isinstance(shape, list):
        return [filled(value, text) for value in shape]
    return text if shape == X else shape


def answering(daemon: DaemonTwin, methods: dict[str, Any], text: str) -> None:
    for name, shape in methods.items():
        answer = filled(shape, text)
        daemon.methods[name] = lambda answer=answer, **_: answer


@pytest.mark.requirement("C6")
@pytest.mark.parametrize("command", ANSWERS)
def test_no_answer_of_the_daemon_acts_on_a_terminal(command: str, daemon: DaemonTwin, rlp: Rlp) -> None:
    words, methods = ANSWERS[command]
    answering(daemon, methods, ALL_AT_ONCE)
    for style in ((), ("--verbose",)):
        done = rlp(*words, *style)
        assert done.code == 0, done.err[-2_000:]
        assert WITNESS in done.out
        for line in (done.out + done.err).split("\n"):
            assert_harmless(line)
    answering(daemon, methods, WITNESS + "\x1b]0;t\x07\u202e")
    told = rlp(*words, "--json")
    assert told.out.replace("\n", "").isascii() and told.out.replace("\n", "").isprintable()
    assert WITNESS in told.out and told.lines


@pytest.mark.requirement("C6")
def test_none_of_two_hundred_strings_gets_through_a_table_or_an_error(daemon: DaemonTwin, rlp: Rlp) -> None:
    for text in HOSTILE:
        answering(daemon, ANSWERS["runs"][1], text)
        shown = rlp("runs")
        assert shown.code == 0 and visible(text) in shown.out
        for line in (shown.out + shown.err).split("\n"):
            assert_harmless(line)

    def refuse(limit: int) -> Any:
        raise RefusedError(ALL_AT_ONCE, hint=ALL_AT_ONCE, run=ALL_AT_ONCE)

    daemon.methods["run.list"] = refuse
    done = rlp("runs")
    assert done.code == 4 and done.err.count(WITNESS) == 3 * len(HOSTILE)
    for line in done.err.split("\n"):
        assert_harmless(line)


@pytest.mark.requirement("C6")
def test_findings_of_the_daemon_are_escaped_like_any_error(daemon: DaemonTwin, rlp: Rlp) -> None:
    finding = {
        "file": ALL_AT_ONCE,
        "line": 1,
        "column": 2,
        "what": ALL_AT_ONCE,
        "why": WITNESS,
        "fix": ALL_AT_ONCE,
    }

    def refuse(limit: int) -> Any:
        raise FailedError("no", findings=[finding, ALL_AT_ONCE])

    daemon.methods["run.list"] = refuse
    done = rlp("runs")
    assert done.err.count(WITNESS) > 3 * len(HOSTILE)
    for line in done.err.split("\n"):
        assert_harmless(line)


def told(twin: DaemonTwin) -> None:
    """A run in which everything that a guest can name or say is foreign."""
    x = ALL_AT_ONCE
    pins = {"draft": {"name": x}, "send": {"name": x}}
    twin.emit("run.started", {"opening": x, "agents": pins, "principal": x, "origin": {"dev": [x]}})
    twin.emit("node.scheduled", {"node": "draft", "attempt": 1})
    at = {"node": "draft", "attempt": 1, "call": 1}
    twin.emit("cap.audit", {**at, "decision": "denied", "op": x, "reason": x, "agent": x, "capability": x})
    twin.emit("tool.called", {**at, "tool": x, "outcome": "unknown", "origin": x, "resource": x, "code": x})
    posted = {"to": x, "act": x, "message": x, "in_reply_to": x, "size": 9, "conversation": x}
    twin.emit("message.posted", {**at, **posted})
    called = {"provider": x, "model": x, "generated": True, "estimated": False, "route": x, "finish": x}
    spent = {"input_tokens": 1, "output_tokens": 1, "cost_micro_usd": 1}
    twin.emit("model.called", {**at, **called, **spent})
    twin.node("draft", {"draft": {"to": [x], "subject": x, "body": x}, "review": {"notes": [x]}, "save": x})
    twin.emit("node.skipped", {"node": "send", "reason": x})
    twin.emit("email.sent", {"recipients": [x], "location": x, "provider": x, "subject": x})
    twin.emit(
        "artifact.created",
        {
            "name": x,
            "blob": "ab" * 32,
            "node": "draft",
            "port": "save",
            "size": 1,
            "media_type": x,
        },
    )
    twin.emit(
        "run.finished",
        {
            "outcome": "failed",
            "clause": x,
            "outputs": {},
            "output_digest": "",
            "error": {"code": "x", "message": x},
        },
    )


@pytest.mark.requirement("C6")
@pytest.mark.parametrize(
    "words",
    [
        ("run", "compose_email", "-p", "recipient=john", "-p", "topic=t", "-p", "tone=dry"),
        ("trace", RUN),
        ("trace", RUN, "--all"),
        ("trace", RUN, "--spans"),
        ("artifact", RUN),
        ("resume", RUN),
    ],
    ids=lambda words: " ".join(words[:1] + words[2:]),
)
def test_no_run_that_is_followed_or_looked_at_acts_on_a_terminal(
    words: tuple[str, ...], daemon: DaemonTwin, rlp: Rlp
) -> None:
    told(daemon)
    daemon.methods["run.show"] = lambda run: {"run": RUN, "state": "running", "nested": [], "outcome": None}
    for style in ((), ("--verbose",)):
        done = rlp(*words, *style)
        assert WITNESS in done.out + done.err, done.err
        for line in (done.out + done.err).split("\n"):
            assert_harmless(line)


@pytest.mark.requirement("C6")
def test_on_a_real_terminal_with_colour_only_our_own_sequences_come_through(
    daemon: DaemonTwin, terminal: Callable[..., Terminal]
) -> None:
    """The rows that are painted over included: up, erase, colour, and nothing else."""
    import re

    daemon.on_submit = told
    shown = terminal(
        "run", "compose_email", "-p", "recipient=john", "-p", "topic=t", "-p", "tone=dry", color=True
    )
    assert shown.end() == 1
    ours = re.sub(r"\x1b\[(?:\d*m|\d+A|K|J)|\r", "", shown.seen)
    assert WITNESS in ours
    for line in ours.split("\n"):
        assert_harmless(line)


@pytest.mark.requirement("C6")
def test_names_and_texts_of_files_are_escaped(home: Path, rlp: Rlp) -> None:
    (home / "openings").mkdir()
    evil = "evil\x1b]0;t\x07\u202e"
    (home / "openings" / f"{evil}.yaml").write_text(f"name: [{WITNESS}\n  {ALL_AT_ONCE!r}")
    (home / "log").mkdir()
    record = {
        "event": ALL_AT_ONCE,
        "level": "info",
        "timestamp": "2026-11-21T00:00:00Z",
        ALL_AT_ONCE: ALL_AT_ONCE,
    }
    (home / "log" / "runloopd.log").write_text(json.dumps(record) + f"\nnot json {ALL_AT_ONCE}\n")
    for words in (
        ("list",),
        ("plan", evil),
        ("logs",),
        ("config", "get", ALL_AT_ONCE),
        ("plan", ALL_AT_ONCE[:200]),
    ):
        done = rlp(*words)
        assert done.out + done.err
        for line in (done.out + done.err).split("\n"):
            assert_harmless(line)


@pytest.mark.requirement("C6")
def test_an_approval_shows_every_byte_and_none_of_them_acts(daemon: DaemonTwin, rlp: Rlp) -> None:
    body = ALL_AT_ONCE.encode("utf-8", "surrogatepass")
    daemon.begin()
    daemon.hold(
        content=b"Subject: x\r\n\r\n" + body, summary=ALL_AT_ONCE, resource=ALL_AT_ONCE, agent=ALL_AT_ONCE
    )
    assert base64.b64decode(daemon.approvals["ap_1234567890abcdef"]["content"]).endswith(body)
    for words in (("approvals",), ("approve", "ap_12")):
        done = rlp(*words)
        assert WITNESS in done.out + done.err
        for line in (done.out + done.err).split("\n"):
            assert_harmless(line)

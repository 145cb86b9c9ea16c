"""A word that nobody knows, and what was perhaps meant: everywhere one can be mistyped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runloop.errors import RunloopError
from runloop.events import decode_payload
from runloopd.authority.policies import Policies
from runloopd.broker.mcp.book import Book, Server
from tests.unit.rlp.conftest import Rlp


@pytest.mark.requirement("I7.words.1")
@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("rnu", "compose_email"), "rlp run"),
        (("shcedule", "list"), "rlp schedule"),
        (("schedule", "lst"), "rlp schedule list"),
        (("trace", "--spns", "x"), "--spans"),
        (("run", "compose_emial"), "compose_email"),
        (("plan", "compose_emial"), "compose_email"),
        (("run", "compose_email", "-p", "recipent=x"), "recipient"),
        (("config", "get", "security.undo_windw_ms"), "security.undo_window_ms"),
        (("config", "show", "--set", "security.undo_windw_ms=1"), "security.undo_window_ms"),
        (("cost", "--by", "openin"), "opening"),
        (("kb", "search", "x", "--kind", "contcat"), "contact"),
        (("shell", "enable", "bahs"), "bash"),
        (("shell", "completion", "fihs"), "fish"),
        (("agent", "scaffold", "x", "--lang", "pythn"), "--lang python"),
        (("eval", "--provider", "olama"), "ollama"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_what_was_perhaps_meant_is_said(words: tuple[str, ...], meant: str, home: Path, rlp: Rlp) -> None:
    done = rlp(*words)
    assert done.code in (2, 7)
    assert "did you mean " in done.err
    assert meant in done.err.partition("did you mean ")[2]


def _server() -> None:
    book = Book(lambda digest: b"")
    book._servers["weather"] = Server.__new__(Server)
    book.find("wether")


@pytest.mark.requirement("I7.words.1")
@pytest.mark.parametrize(
    ("ask", "meant"),
    [
        (lambda: decode_payload("contact.upsertd", {}), "contact.upserted"),
        (lambda: Policies._capability("mial"), "mail"),
        (_server, "weather"),
    ],
    ids=["event kind", "capability", "MCP server"],
)
def test_the_daemon_says_it_too(ask: Callable[[], Any], meant: str) -> None:
    with pytest.raises(RunloopError) as raised:
        ask()
    assert raised.value.hint == f"did you mean {meant!r}?"

"""A cockpit under test: fed from golden histories, driven by keys, read as text.

Every wait is for something to be seen, and bounded; nothing sleeps for its own sake. Time stands still: the
application is given a clock that never moves, and the time zone is UTC.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from textual.geometry import Region
from textual.pilot import Pilot

from agtop.app import CockpitApp
from agtop.feed.twin import TwinFeed
from runloop.digest import blob_digest, digest

__all__ = [
    "GOLDEN",
    "NOW_MS",
    "WRITE",
    "approval",
    "cockpit",
    "feed",
    "golden",
    "question",
    "seen",
    "text_of",
]

HISTORIES = Path(__file__).parents[1] / "histories"
GOLDEN = Path(__file__).parent / "golden"
WRITE = "RUNLOOP_WRITE_SNAPSHOTS"
NOW_MS = 1_800_000_000_000
"""What the clock of the application says; histories lie before it."""
PATIENCE_S = 20
MAIL = (
    b"From: me@example.org\r\nTo: John Carter <john.carter@example.org>\r\nSubject: Q4 plan\r\n"
    b"Message-ID: <k1@runloop.local>\r\nDate: Mon, 02 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\nHello John,\r\nthe plan.\r\n"
)


# --- what is fed ------------------------------------------------------------------------------------


@functools.cache
def _history(name: str) -> tuple[Mapping[str, Any], ...]:
    lines = (HISTORIES / f"{name}.jsonl").read_text().splitlines()
    return tuple(json.loads(line) for line in lines)


def feed(*histories: str) -> TwinFeed:
    """A feed of golden histories, each behind the one before it."""
    events: list[Mapping[str, Any]] = []
    for name in histories:
        last = events[-1]["id"] if events else 0
        events += ({**event, "id": event["id"] + last} for event in _history(name))
    return TwinFeed(events)


def approval(
    name: str = "ap_1234567890abcdef", content: bytes = MAIL, *, type: str = "message/rfc822", **changes: Any
) -> dict[str, Any]:
    """An approval as ``approvals.show`` has it, bound to its content; ``action`` changes the action."""
    action = {
        "kind": "mail.send",
        "summary": "send “Q4 plan” to john.carter@example.org",
        "recipients": ["john.carter@example.org"],
        "resource": "outbox:/home/me/outbox",
        "agent": "mailer",
        "bundle": "ab" * 32,
        "amount_micro_usd": 0,
        **changes.pop("action", {}),
    }
    return {
        "approval": name,
        "state": "open",
        "run": "0b7c3f52-8a55-4c1e-9f6e-2d6f1f0a7b11",
        "node": "send",
        "attempt": 1,
        "op": "mail.send",
        "effect": "send",
        "action": action,
        "action_digest": digest({"action": action, "content": blob_digest(content)}),
        "content_blob": blob_digest(content),
        "content_type": type,
        "requested_ms": NOW_MS - 60_000,
        "expires_ms": NOW_MS + 604_800_000,
        "dispatch_after_ms": 0,
        "note": "",
        "label": None,
        "content": base64.b64encode(content).decode(),
        **changes,
    }


def question(name: str = "pr_1234567890abcdef", **changes: Any) -> dict[str, Any]:
    """A promise as ``promise.show`` has it."""
    return {
        "promise": name,
        "run": "0b7c3f52-8a55-4c1e-9f6e-2d6f1f0a7b11",
        "node": "assist",
        "agent": "assistant",
        "resolver": "operator",
        "question": "Which day suits you?",
        "choices": [],
        "state": "open",
        "created_ms": NOW_MS - 30_000,
        "expires_ms": NOW_MS + 3_600_000,
        **changes,
    }


# --- driving ----------------------------------------------------------------------------------------


@contextmanager
def utc() -> Iterator[None]:
    """Moments are written in UTC while this lasts."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


@asynccontextmanager
async def cockpit(
    fed: TwinFeed, pane: str, size: tuple[int, int] = (80, 24), said_s: float = PATIENCE_S, **options: Any
) -> AsyncIterator[tuple[CockpitApp, Pilot[None]]]:
    """The application with every fact taken in and a pane in front.

    ``said_s``: how long a notice stays, in seconds; else as long as a test waits for it.
    """
    options.setdefault("now_ms", lambda: NOW_MS)
    app = CockpitApp(fed, **options)
    app.NOTIFICATION_TIMEOUT = said_s  # type: ignore[misc]
    wanted = len(fed._facts.get(options["run"], ())) if options.get("run") else None
    with utc():
        async with app.run_test(size=size, notifications=True) as pilot:
            app.show_pane(pane)
            newest = (await fed.runs(1))[:1]
            total = (
                wanted
                if wanted is not None
                else len(await fed.facts(newest[0].run, 0, 10**9))
                if newest
                else 0
            )
            await seen(pilot, lambda: app.view().total == total and app.pane.view is not None)
            await seen(pilot, lambda: app.pane.view is not None and app.pane.view.total == total)
            yield app, pilot


async def seen(pilot: Pilot[None], holds: Callable[[], Any], what: str = "it to be seen") -> None:
    """Wait until something holds, for a bounded time."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}\n{text_of(pilot.app)}"
        await pilot.pause()
        await asyncio.sleep(0.01)


def text_of(app: Any, region: Region | None = None) -> str:
    """What is on the screen, or on a part of it, as lines of text."""
    strips = app.screen._compositor.render_strips()
    rows = ["".join(segment.text for segment in strip) for strip in strips]
    if region is not None:
        rows = [
            "".join(s.text for s in strip.crop(region.x, region.right))
            for strip in strips[region.y : region.bottom]
        ]
    return "\n".join(row.rstrip() for row in rows) + "\n"


# --- comparing --------------------------------------------------------------------------------------


async def golden(name: str, app: CockpitApp, pilot: Pilot[None], *, whole: bool = False) -> None:
    """What is seen is what ``golden/<name>.txt`` holds: the pane, or with ``whole`` the screen."""
    path = GOLDEN / f"{name}.txt"

    def frame() -> str:
        return text_of(app, None if whole or len(app.screen_stack) > 1 else app.pane.region)

    if os.environ.get(WRITE):
        path.parent.mkdir(exist_ok=True)
        path.write_text(await _resting(pilot, frame))
        return
    assert path.exists(), f"{path.name} is missing; draw it with 'python -m tests.snapshots {name}'"
    wanted = path.read_text()
    deadline = time.monotonic() + PATIENCE_S
    while (found := frame()) != wanted and time.monotonic() < deadline:
        await pilot.pause()
        await asyncio.sleep(0.02)
    assert found.splitlines() == wanted.splitlines(), (
        f"{path.name}: if that is meant, 'python -m tests.snapshots {name}'"
    )


async def _resting(pilot: Pilot[None], frame: Callable[[], str]) -> str:
    """The frame once nothing has changed for two seconds: what counts down has counted down."""
    found, since = frame(), time.monotonic()
    while time.monotonic() - since < 2.0:
        await pilot.pause()
        await asyncio.sleep(0.02)
        if (now := frame()) != found:
            found, since = now, time.monotonic()
    return found

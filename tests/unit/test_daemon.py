"""The small hands of the daemon's assembly."""

from __future__ import annotations

from typing import Any

from runloop.rmp import topics
from runloop.testing import ManualClock
from runloopd.assembly.gate import tell_followers
from runloopd.broker.ports import Delta
from runloopd.bus.bus import Bus

RUN = "0b7c7a0e-5a0f-4a3c-9d6e-0123456789ab"


def test_a_guests_fields_never_stand_for_what_the_daemon_says_itself() -> None:
    bus = Bus(ManualClock())
    heard: list[Any] = []
    bus.subscribe(topics.run_events(RUN), lambda delivery: heard.append(delivery.payload))
    fields = {"node": "mailer", "kind": "text", "text": "sent", "level": "info"}
    tell_followers(bus, Delta(run=RUN, node="draft", kind="log", text="hello", fields=fields))
    assert heard == [{"delta": {"node": "draft", "kind": "log", "text": "hello", "level": "info"}}]

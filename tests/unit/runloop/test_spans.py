"""The tree of spans: what begins and ends one, what lies in what, and that nothing lost is hidden."""

from __future__ import annotations

from typing import Any

import pytest

from runloop.spans import spans


def told(*facts: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"id": number, "ts_ms": 1_000 + 10 * number, "kind": kind, "payload": payload}
        for number, (kind, payload) in enumerate(facts, 1)
    ]


STARTED = ("run.started", {"opening": "o"})


def attempt(node: str, number: int = 1, **more: Any) -> dict[str, Any]:
    return {"node": node, "attempt": number, **more}


@pytest.mark.requirement("I5.market.5")
def test_calls_lie_in_attempts_models_in_calls_items_in_their_node_and_all_in_the_run() -> None:
    call = attempt("each[0]", call=3, op="model.complete")
    found = spans(
        told(
            STARTED,
            ("node.expanded", {"node": "each", "items": 1}),
            ("node.scheduled", attempt("each[0]")),
            ("hostcall.admitted", call),
            ("model.called", {**call, "provider": "p", "model": "m", "finish": "stop"}),
            ("hostcall.delivered", {**call, "ok": True}),
            ("message.posted", attempt("each[0]", message="msg_1", to="talk/x", act="inform")),
            ("node.finished", attempt("each[0]", status="succeeded")),
            ("node.gathered", {"node": "each", "status": "succeeded"}),
            ("run.finished", {"outcome": "succeeded"}),
        )
    )
    assert [(span["kind"], span["parent"], span["start_ms"], span["end_ms"]) for span in found] == [
        ("run", None, 0, 90),
        ("map", "run", 10, 80),
        ("attempt", "node:each", 20, 70),
        ("call", "attempt:each[0]/1", 30, 50),
        ("model", "call:each[0]/1/3", 40, 40),
        ("message", "attempt:each[0]/1", 60, 60),
    ]
    assert {span["parent"] for span in found} - {None} <= {span["span"] for span in found}


def test_each_attempt_is_a_span_and_what_has_not_ended_is_open() -> None:
    found = spans(
        told(
            STARTED,
            ("node.scheduled", attempt("a")),
            ("node.finished", attempt("a", status="failed")),
            ("node.scheduled", attempt("a", 2)),
        )
    )
    assert [(span["span"], span["end_ms"], span["status"]) for span in found] == [
        ("run", None, ""),
        ("attempt:a/1", 20, "failed"),
        ("attempt:a/2", None, ""),
    ]


def test_an_orphan_keeps_the_name_of_what_is_missing() -> None:
    found = spans(told(STARTED, ("hostcall.delivered", attempt("a", call=1, op="time.now", ok=False))))
    assert (found[1]["parent"], found[1]["status"]) == ("attempt:a/1", "refused")


def test_a_call_that_waits_for_a_person_began_when_the_person_was_asked() -> None:
    call = attempt("send", call=0, op="mail.send")
    found = spans(
        told(
            STARTED,
            ("node.scheduled", attempt("send")),
            ("action.requested", {**call, "approval": "ap_1"}),
            ("action.decided", {"approval": "ap_1", "decision": "approved"}),
            ("hostcall.admitted", call),
            ("hostcall.delivered", {**call, "ok": True}),
        )
    )
    assert [(span["kind"], span["parent"], span["start_ms"], span["end_ms"]) for span in found[2:]] == [
        ("call", "attempt:send/1", 20, 50),
        ("wait", "call:send/1/0", 20, 30),
    ]

"""Sending what was reviewed, to whom it was written for, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from runloop.guest_testing import AgentUnderTest, FakeHost, Outcome, Refuse

CONTACT = {"name": "John", "email": "john@acme.example"}
DRAFT = {"to": ["john@acme.example"], "subject": "Hi", "body": "Hello John\n"}
REVIEW = {"ok": True, "notes": [], "checks": {}}


def send(agent: AgentUnderTest, host: FakeHost | None = None, **ports: Any) -> tuple[Outcome, FakeHost]:
    host = host or FakeHost({"mail.send": {"status": "sent", "message_id": "<1@x>", "location": "outbox"}})
    given = {"draft": [DRAFT], "review": [REVIEW], "contact": [CONTACT], "in": [True]}
    given.update({name: [value] for name, value in ports.items()})
    return agent.run(ports=given, host=host), host


def test_a_reviewed_draft_is_sent_as_it_is(mailer: AgentUnderTest) -> None:
    outcome, host = send(mailer)
    assert outcome.value("out") == {"message_id": "<1@x>", "status": "sent", "to": ["john@acme.example"]}
    (args,) = host.made("mail.send")
    assert (args["to"], args["subject"], args["body"]) == (["john@acme.example"], "Hi", "Hello John\n")
    assert (args["cc"], args["bcc"]) == ([], [])


@pytest.mark.parametrize("ok", [False, None, "true", 1, {}])
def test_a_draft_that_no_review_cleared_is_never_sent(mailer: AgentUnderTest, ok: Any) -> None:
    outcome, host = send(mailer, review={"ok": ok, "notes": ["too short"]})
    assert outcome.code == "mailer.not_reviewed"
    assert "too short" in outcome.message
    assert host.calls == []


@pytest.mark.parametrize(
    "to", [["eve@evil.example"], ["john@acme.example", "eve@evil.example"], [], "john@acme.example"]
)
def test_a_draft_for_somebody_else_is_never_sent(mailer: AgentUnderTest, to: Any) -> None:
    outcome, host = send(mailer, draft={**DRAFT, "to": to})
    assert outcome.code == "mailer.recipient"
    assert host.calls == []


@pytest.mark.parametrize("missing", ["subject", "body"])
def test_a_draft_with_a_part_missing_is_never_sent(mailer: AgentUnderTest, missing: str) -> None:
    outcome, host = send(mailer, draft={**DRAFT, missing: ""})
    assert outcome.code == "mailer.input"
    assert host.calls == []


def test_the_denial_of_a_person_fails_the_node_and_is_not_retried(mailer: AgentUnderTest) -> None:
    denied = FakeHost({"mail.send": Refuse("approval.denied", "the operator said no")})
    outcome, _ = send(mailer, denied)
    assert (outcome.code, outcome.retryable) == ("approval.denied", False)


def test_the_guard_port_may_stay_empty(mailer: AgentUnderTest) -> None:
    host = FakeHost({"mail.send": {"message_id": "<1@x>"}})
    given = {"draft": [DRAFT], "review": [REVIEW], "contact": [CONTACT]}
    assert mailer.run(ports=given, host=host).value("out")["status"] == "sent"

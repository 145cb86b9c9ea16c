"""The shipped agents in the real sandbox, as an opening would run them one after the other."""

from __future__ import annotations

from typing import Any

import pytest

from runloopd.broker.calls import Answer
from runloopd.broker.providers.template import render
from tests.integration.guest.conftest import House, Script
from tests.unit.agents.test_critics import DRAFTS

pytestmark = pytest.mark.asyncio(loop_scope="package")

JOHN = {"contact": "c1", "name": "John Smith", "emails": ["john@acme.example"], "org": "Acme", "event": 3}
PLAN = {
    "type": "note",
    "title": "Q4",
    "text": "The Q4 plan moves the launch to November.",
    "people": [],
    "event": 4,
}


def knowledge(args: dict[str, Any]) -> dict[str, Any]:
    return {"item": JOHN if args["kind"] == "contact" else PLAN}


def found(args: dict[str, Any]) -> dict[str, Any]:
    contact = args["kinds"] == ["contact"]
    return {
        "items": [{"kind": "contact" if contact else "note", "id": "c1" if contact else "d1", "event": 3}]
    }


def rules(args: dict[str, Any]) -> dict[str, Any]:
    return {"text": render(args["template"], args["facts"]), "provider": "rules", "generated": False}


def last(result: Any, port: str) -> Any:
    assert result.ok, result.error
    return result.output["ports"][port][-1]


@pytest.mark.requirement("I2.sandbox.1")
async def test_the_five_agents_carry_a_wish_to_the_outbox(house: House) -> None:
    script = Script(
        {
            "kb.search": found,
            "kb.read": knowledge,
            "model.complete": rules,
            "mail.send": {"status": "sent", "message_id": "<1@x>"},
        }
    )
    contact = last(await house.agent("agent:contact_resolver", ports={}, script=script, query="john"), "out")
    context = last(
        await house.agent(
            "agent:context_gatherer", ports={"contact": contact}, script=script, topic="the Q4 plan"
        ),
        "out",
    )
    draft = last(
        await house.agent(
            "agent:writer", ports={"recipients": contact, "context": context}, script=script, tone="formal"
        ),
        "out",
    )
    reviews = [
        last(await house.agent(use, ports={"in": draft}, script=script), "review")
        for use in ("agent:critic", "agent:critic@c")
    ]
    sent = last(
        await house.agent(
            "agent:mailer", ports={"draft": draft, "review": reviews[0], "contact": contact}, script=script
        ),
        "out",
    )
    assert reviews[0] == reviews[1]
    assert reviews[0]["ok"]
    assert sent == {"message_id": "<1@x>", "status": "sent", "to": ["john@acme.example"]}
    (mail,) = [call.args for call in script.calls if call.op == "mail.send"]
    assert mail["subject"] == "The Q4 plan"
    assert "- The Q4 plan moves the launch to November." in mail["body"]


async def test_a_denied_mail_fails_the_mailer_with_the_code_of_the_gate(house: House) -> None:
    denied = Answer(
        ok=False, value={"code": "approval.denied", "message": "denied", "hint": None, "retryable": False}
    )
    draft = {"to": ["a@b"], "subject": "s", "body": "b"}
    result = await house.agent(
        "agent:mailer",
        ports={"draft": draft, "review": {"ok": True}, "contact": {"email": "a@b"}},
        script=Script({"mail.send": denied}),
    )
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("approval.denied", False)


@pytest.mark.requirement("I2.sandbox.2")
@pytest.mark.parametrize(
    "name", ["a good draft", "everything wrong", "subject of 121 characters", "tag character"]
)
async def test_both_critics_agree_in_the_sandbox_too(house: House, name: str) -> None:
    draft, _ = DRAFTS[name]
    one, other = [
        last(await house.agent(use, ports={"in": draft}, script=Script()), "review")
        for use in ("agent:critic", "agent:critic@c")
    ]
    assert one == other


async def test_no_shipped_agent_comes_near_its_limits(house: House) -> None:
    script = Script({"kb.search": found, "kb.read": knowledge})
    result = await house.agent("agent:contact_resolver", ports={}, script=script, query="john")
    assert result.fuel * 100 < house.registry.resolve("agent:contact_resolver").limits.fuel

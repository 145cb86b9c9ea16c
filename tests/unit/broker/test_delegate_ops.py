"""Which rights an agent may pass on, and what it hears of how that ended."""

from __future__ import annotations

from typing import Any

import pytest

from runloop.caps.policy import Policy
from runloop.events import GuestError
from runloopd.broker.delegate_ops import Delegation, Ended
from tests.unit.broker.world import World

HELD = """
spawn = ["writer", "opening:digest"]
time = true
model = ["ollama:*"]
net = [{hosts = ["api.example.org"], methods = ["GET"], paths = ["/public"]}]
"""


class Port:
    """Takes the wish and answers at once."""

    def __init__(self, ended: Ended) -> None:
        self.ended = ended
        self.wishes: list[Delegation] = []

    async def delegated(self, wish: Delegation) -> Ended:
        self.wishes.append(wish)
        return self.ended


def done(answer: dict[str, Any] | None = None, **more: Any) -> Port:
    return Port(Ended(run="r", event=1, answer=answer, **more))


async def ask(world: World, port: Port | None, **args: Any) -> Any:
    world.gate.delegates.port = port
    caller = await world.caller(HELD)
    return await world.call(caller, "agent.delegate", {"use": "agent:writer", **args})


async def test_what_is_passed_on_is_all_the_caller_has_or_what_it_names(world: World) -> None:
    port = done({"run": "r", "ports": {}})
    assert (await ask(world, port)).ok
    assert (await ask(world, port, caps={"time": True, "model": ["ollama:small"]})).ok
    everything, some = (wish.bound for wish in port.wishes)
    assert set(everything.grants) == {"spawn", "time", "model", "net"}
    assert some == Policy({"time": True, "model": ("ollama:small",)})


@pytest.mark.requirement("P8")
@pytest.mark.parametrize(
    "caps",
    [{"random": True}, {"model": ["*"]}, {"time": True, "mail": ["*@example.org"]}, {"spawn": ["critic"]}],
    ids=["another", "wider", "one-more", "whom"],
)
async def test_a_right_the_caller_does_not_hold_is_refused_and_nothing_is_started(
    world: World, caps: dict[str, Any]
) -> None:
    port = done({"run": "r", "ports": {}})
    answer = await ask(world, port, caps=caps)
    assert (answer.ok, answer.value["code"]) == (False, "cap.denied")
    assert port.wishes == []
    denied = [one for one in world.payloads("cap.audit") if one.decision == "denied"]
    assert denied[-1].capability in caps


@pytest.mark.requirement("P8")
async def test_a_host_is_passed_on_for_the_methods_and_paths_it_is_held_for(world: World) -> None:
    port = done({"run": "r", "ports": {}})
    assert (await ask(world, port, caps={"net": ["api.example.org"]})).ok
    bound = port.wishes[0].bound
    assert bound.allows("net", "GET https://api.example.org/public/a").allowed
    assert not bound.allows("net", "POST https://api.example.org/public/a").allowed
    assert not bound.allows("net", "GET https://api.example.org/private").allowed


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"use": "agent:critic"}, "cap.denied"),
        ({"use": "opening:compose_email"}, "cap.denied"),
        ({"use": "writer"}, "op.args"),
        ({"use": "agent:"}, "op.args"),
        ({"timeout_ms": 10}, "op.args"),
        ({"budget_tokens": -1}, "op.args"),
        ({"caps": {"everything": True}}, "op.args"),
    ],
    ids=["agent", "opening", "bare", "nameless", "hasty", "negative", "unknown"],
)
async def test_what_may_not_be_asked_for_starts_nothing(
    world: World, args: dict[str, Any], code: str
) -> None:
    port = done({"run": "r", "ports": {}})
    answer = await ask(world, port, **args)
    assert (answer.ok, answer.value["code"]) == (False, code)
    assert port.wishes == []


async def test_the_caller_hears_why_it_was_not_done(world: World) -> None:
    failed = await ask(world, done(error=GuestError(code="writer.dry", message="no ink")))
    assert failed.value["code"] == "delegate.failed"
    assert "no ink (writer.dry)" in failed.value["message"]
    late = await ask(world, done(error=GuestError(code="run.timeout", message="slow"), timed_out=True))
    assert late.value["code"] == "delegate.timed_out"


async def test_without_anybody_to_start_runs_nothing_is_delegated(world: World) -> None:
    assert (await ask(world, None)).value["code"] == "delegate.absent"

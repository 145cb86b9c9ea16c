"""Who started the run that asks: shown, bound, and never mixed up with anybody else."""

from __future__ import annotations

import asyncio
import base64
from types import SimpleNamespace
from typing import Any

import pytest

from runloop.approval import asker, content_of, describe
from runloop.digest import digest
from runloop.errors import RunloopError
from runloopd.authority.faces import asker_of, principal_of
from runloopd.authority.standing import Scope
from runloopd.broker.flows import OWN
from runloopd.broker.tool_testing import ScriptedTools, offer
from runloopd.runs.fork import ForkWish, _origin

from .test_mail import asked, decide
from .world import OPERATOR, RUN, World, mail, until, within

TEXT = {"type": "string"}
POST = offer("board.post", {"to": TEXT, "text": TEXT}, resource=("to",), definition="d" * 64)
GRANTS = 'tools = ["board.post"]'
DESK, OTHER, EDITOR = principal_of("desk"), principal_of("other"), principal_of("desk", editor=True)
ME = "operator:1000"


async def as_(world: World, principal: str, **origin: Any) -> None:
    """From here on the run is one of ``principal``."""
    await world.end_run()
    await world.run(principal=principal, origin=origin)


@pytest.fixture
async def tools(world: World) -> ScriptedTools:
    source = ScriptedTools([POST])
    world.sources.append(source)
    await world.restart()
    return source


def post(world: World, caller: Any, text: str) -> asyncio.Task[Any]:
    return world.begin(caller, "tool.call", {"tool": "board.post", "args": {"to": "all", "text": text}})


@pytest.mark.requirement("I6.faces.12")
@pytest.mark.parametrize("given", [ME, DESK, EDITOR])
@pytest.mark.parametrize("wanted", [ME, DESK, OTHER, EDITOR])
async def test_a_standing_grant_given_for_one_serves_no_other(
    world: World, tools: ScriptedTools, given: str, wanted: str
) -> None:
    await as_(world, given)
    task = post(world, await world.caller(GRANTS), "x")
    approval = await asked(world)
    await world.standing.give(OPERATOR, approval, approval.action_digest, approval.action["tool"])
    await decide(world)
    world.clock.advance(5_000)
    assert (await within(task)).ok
    await world.restart()  # and so it is from the record alone
    (grant,) = world.standing.list()
    assert grant.to_json()["asked_by"] == ("" if given == ME else given)
    await as_(world, wanted)
    again = post(world, await world.caller(GRANTS), "y")
    await until(lambda: again.done() or bool(world.approvals.list()))
    assert again.done() == (given == wanted)


def test_the_id_of_a_grant_for_the_user_is_what_it_was_before_programs_had_names() -> None:
    parts = {"agent": "a", "bundle": "b", "tool": "t", "definition": "d", "effect": "e", "resource": "r"}
    assert Scope(**parts).name == f"gr_{digest(list(parts.values()))[:16]}"
    assert Scope(**parts).name != Scope(**parts, asked_by=DESK).name


@pytest.mark.requirement("I6.faces.12", "C1")
async def test_an_approval_for_one_program_is_void_for_another(world: World) -> None:
    await as_(world, DESK)
    call = world.begin(await world.caller(), "mail.send", mail())
    approval = await decide(world)
    run = world.gate._record.run(RUN)
    assert run is not None
    run.asked_by = OTHER  # as if the record had been swapped between the yes and the dispatch
    world.clock.advance(5_000)
    answer = await within(call)
    assert not answer.ok and answer.value["code"] == "approval.voided"
    assert world.mail.dispatched == [] and world.approvals.find(approval.id).state == "voided"


@pytest.mark.requirement("I6.faces.12")
@pytest.mark.parametrize(
    ("principal", "words"),
    [
        (ME, ""),
        (DESK, "the program desk, from outside"),
        (EDITOR, "you, in the editor desk"),
        ("schedule:nightly", "the schedule nightly"),
    ],
    ids=["user", "program", "editor", "schedule"],
)
async def test_the_person_is_shown_who_asks(world: World, principal: str, words: str) -> None:
    await as_(world, principal)
    world.begin(await world.caller(), "mail.send", mail())
    approval = await asked(world)
    assert asker(approval.action) == words
    shown = {**approval.to_json(), "content": base64.b64encode(world.reader.blob(approval.content_blob))}
    lines = describe(shown, content_of(shown))
    assert [line for line in lines if line.startswith("  asked by")] == (
        [f"  asked by    {words}"] if words else []
    )


@pytest.mark.parametrize(
    ("principal", "origin", "floor", "private"),
    [
        (ME, {}, None, False),
        (ME, {"names_files": True}, None, False),
        (DESK, {}, DESK, True),
        (EDITOR, {}, None, False),
        (EDITOR, {"names_files": True}, "file:named", True),
        ("mcp:desk", {}, None, True),  # of a ledger from before
        (ME, {"asked_by": DESK}, DESK, True),  # a fork
        (ME, {"asked_by": EDITOR, "names_files": True}, "file:named", True),
        (DESK, {"asked_by": ME}, DESK, True),  # nobody is made the user
    ],
)
async def test_what_a_program_says_or_a_file_is_called_is_nobodys_own_word(
    world: World, principal: str, origin: dict[str, Any], floor: str | None, private: bool
) -> None:
    await as_(world, principal, **origin)
    run = world.gate._record.run(RUN)
    assert run is not None
    assert run.floor == floor and (OWN in run.tree.origins) == private
    named = origin.get("asked_by")
    assert run.asked_by == (named if named in (DESK, EDITOR) else principal)
    caller = await world.caller()
    assert (await world.call(caller, "memory.put", {"key": "k", "value": 1})).ok
    (fact,) = world.events("memory.updated")
    assert fact.provenance.label == (floor or "agent:writer")


@pytest.mark.requirement("I6.faces.12")
@pytest.mark.parametrize(
    ("principal", "origin", "asker"),
    [
        (DESK, {"via": "mcp"}, DESK),
        ("mcp:desk", {"via": "mcp"}, "mcp:desk"),
        (EDITOR, {"via": "acp:ses_1", "names_files": True}, EDITOR),
        (ME, {"asked_by": DESK}, DESK),  # a fork of a fork
        (ME, {"via": "cli"}, ME),
        ("schedule:nightly", {"via": "schedule"}, ME),
    ],
)
def test_a_fork_of_what_a_program_wanted_is_still_what_the_program_wanted(
    principal: str, origin: dict[str, Any], asker: str
) -> None:
    begun: Any = SimpleNamespace(principal=principal, origin=origin)
    fork = _origin(begun, ForkWish(run=RUN, origin={"via": "cli", "asked_by": ME}), [])
    assert asker_of(ME, fork) == asker
    assert fork.get("names_files") == origin.get("names_files") and fork["via"] == "cli"


@pytest.mark.parametrize("name", ["acp:desk", "Desk", "", "a" * 65, "a\nb", "desk#1"])
def test_no_client_can_be_called_as_an_editor_is(name: str) -> None:
    with pytest.raises(RunloopError):
        principal_of(name)

"""Memory through the gate and for people: rights, quotas, races, and what is left when a key is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from pog.errors import MemoryConflictError
from runloop.errors import NotFoundError
from runloop.testing import ManualClock
from runloopd.gateway.memory import MemoryMethods

from .world import OPERATOR, World, quotas

SHARED = 'memory = ["team", "team_*"]\n'


async def put(world: World, caller: Any, key: str, value: Any, **more: Any) -> Any:
    return await world.call(caller, "memory.put", {"key": key, "value": value, **more})


async def test_shared_memory_needs_the_right_to_its_name(world: World) -> None:
    writer = await world.caller(SHARED)
    critic = await world.caller(SHARED, node="review", agent="critic")
    stranger = await world.caller('kb_read = ["memory"]', node="spy", agent="spy")
    assert (await put(world, writer, "k", 1, namespace="shared:team")).ok
    seen = await world.call(critic, "memory.get", {"key": "k", "namespace": "shared:team"})
    assert seen.value == {"value": 1, "version": 1}
    for caller, name in ((stranger, "shared:team"), (writer, "shared:other"), (writer, "shared")):
        for op, args in (
            ("memory.get", {"key": "k"}),
            ("memory.list", {}),
            ("memory.put", {"key": "k", "value": 2}),
            ("memory.delete", {"key": "k"}),
        ):
            answer = await world.call(caller, op, {**args, "namespace": name})
            assert (answer.ok, answer.value["code"]) == (False, "cap.denied")
    for name in (
        "agent:critic",
        "shared:",
        "shared:Team",
        "shared:a/b",
        "shared:*",
        "system",
        "agent:writer",
    ):
        answer = await put(world, writer, "k", 2, namespace=name)
        assert answer.value["code"] == "memory.namespace"
    assert len(world.events("memory.updated")) == 1


async def test_keys_are_listed_and_deleted(world: World) -> None:
    caller = await world.caller("")
    for key in ("a", "b/1", "b/2"):
        await put(world, caller, key, {"n": key})
    listed = await world.call(caller, "memory.list", {"prefix": "b/", "limit": 1})
    assert listed.value == {
        "keys": [{"key": "b/1", "version": 1, "size": 3 + len('{"n":"b/1"}')}],
        "truncated": True,
    }
    stale = await world.call(caller, "memory.delete", {"key": "a", "expected_version": 4})
    assert stale.value["code"] == "memory.conflict"
    assert (await world.call(caller, "memory.delete", {"key": "a", "expected_version": 1})).value == {
        "version": 2
    }
    assert (await world.call(caller, "memory.delete", {"key": "never"})).value == {"version": 0}
    assert (await world.call(caller, "memory.get", {"key": "a"})).value == {"value": None, "version": 2}
    (forgotten,) = world.events("memory.forgotten")
    assert (forgotten.actor, forgotten.scope) == ("agent:writer", "agent:writer")
    assert (await world.call(caller, "memory.list", {"limit": 0})).value["code"] == "op.args"


@pytest.mark.requirement("I4.memory.1")
async def test_of_two_hundred_writers_of_each_version_exactly_one_wins(world: World) -> None:
    callers = [await world.caller("", node=f"n{n}") for n in range(20)]
    for version in range(3):
        puts = [
            world.begin(callers[n % 20], "memory.put", {"key": "k", "value": n, "expected_version": version})
            for n in range(200)
        ]
        answers = await asyncio.gather(*puts)
        assert [a.value for a in answers if a.ok] == [{"version": version + 1}]
        assert {a.value["code"] for a in answers if not a.ok} == {"memory.conflict"}
    assert [p.entry_version for p in world.payloads("memory.updated")] == [1, 2, 3]
    await world.restart()
    caller = await world.caller("", node="after")
    assert (await world.call(caller, "memory.get", {"key": "k"})).value["version"] == 3


async def test_bytes_of_a_namespace_are_limited_and_deleting_makes_room(tmp_path: Path) -> None:
    world = await World(tmp_path, ManualClock(), quotas=quotas(memory_bytes=100)).start()
    await world.run()
    caller = await world.caller("memory = true")
    assert (await put(world, caller, "a", "x" * 80, namespace="shared:team")).ok
    full = await put(world, caller, "b", "x" * 80, namespace="shared:team")
    assert full.value["code"] == "memory.full"
    assert (await put(world, caller, "a", "y" * 90, namespace="shared:team")).ok, "the old value leaves"
    assert (await world.call(caller, "memory.delete", {"key": "a", "namespace": "shared:team"})).ok
    assert (await put(world, caller, "b", "x" * 80, namespace="shared:team")).ok
    assert (await put(world, caller, "mine", "x" * 60)).ok
    assert (await put(world, caller, "more", "x" * 60)).value["code"] == "quota.exceeded"
    await world.stop()


async def test_what_was_refused_holds_no_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a full disk nor a quota leaves a key that nobody may write any more."""
    caller = await world.caller("")
    real = world.ledger.commit

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(world.ledger, "commit", full)
    assert not (await put(world, caller, "k", 1)).ok
    monkeypatch.setattr(world.ledger, "commit", real)
    assert (await put(world, caller, "k", 1, expected_version=0)).value == {"version": 1}


async def test_a_caller_who_is_gone_holds_no_key(world: World) -> None:
    memory = world.knowledge.memory
    keys = [f"k{number}" for number in range(20)]  # new ones: what is known is claimed without a pause
    for key in keys:
        claim = asyncio.ensure_future(memory.put("agent:writer", key, 1))
        await asyncio.sleep(0)
        claim.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claim

    async def free(key: str) -> Any:
        while True:
            try:
                return await memory.put("agent:writer", key, 1)
            except MemoryConflictError:
                await asyncio.sleep(0.001)

    for key in keys:
        (await asyncio.wait_for(free(key), 20)).end()


async def test_what_was_written_names_everything_it_was_made_from(world: World) -> None:
    caller = await world.caller("")
    await put(world, caller, "source", 1)
    await world.call(caller, "memory.get", {"key": "source"})
    await put(world, caller, "copy", 2)
    source, copy = world.events("memory.updated")
    read = next(e for e in world.events("hostcall.delivered") if e.payload.op == "memory.get")
    assert source.id in read.provenance.causes
    assert read.id in copy.provenance.causes


# --- people ---------------------------------------------------------------------------------------


@pytest.fixture
def ask(world: World) -> Any:
    methods = {
        name: (params, call) for name, params, call, _ in MemoryMethods(world.knowledge, world.journal).rows()
    }

    def asked(name: str, **params: Any) -> Awaitable[Any]:
        shape, call = methods[name]
        return call(OPERATOR, shape(**params))

    return asked


async def test_a_person_sees_and_takes_away_what_an_agent_remembers(world: World, ask: Any) -> None:
    caller = await world.caller("")
    await put(world, caller, "tone", {"warm": True})
    assert await ask("memory.list") == {"spaces": [{"namespace": "agent:writer", "keys": 1, "bytes": 17}]}
    (key,) = (await ask("memory.list", namespace="agent:writer"))["keys"]
    assert (key["key"], key["version"]) == ("tone", 1)
    shown = await ask("memory.show", namespace="agent:writer", key="tone")
    assert (shown["value"], shown["version"]) == ({"warm": True}, 1)
    gone = await ask("memory.forget", namespace="agent:writer", key="tone")
    assert gone["version"] == 2
    for method in ("memory.show", "memory.forget"):
        with pytest.raises(NotFoundError):
            await ask(method, namespace="agent:writer", key="tone")
    (forgotten,) = world.events("memory.forgotten")
    assert (forgotten.actor, forgotten.provenance.label) == ("operator:1000", "user")
    assert (await put(world, caller, "tone", 1, expected_version=1)).value["code"] == "memory.conflict"

"""Clock, chance, log, progress, files of a run."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from runloop.digest import blob_digest

from .world import World


@pytest.mark.requirement("W1")
@pytest.mark.parametrize("n", [0, -1, 65_537])
async def test_random_bytes_are_bounded(world: World, n: int) -> None:
    assert (await world.call(await world.caller(), "random.bytes", {"n": n})).value["code"] == "op.args"


async def test_progress_is_shown_and_its_fraction_is_between_nothing_and_all(world: World) -> None:
    caller = await world.caller()
    assert (await world.call(caller, "progress", {"message": "half", "fraction": 0.5})).ok
    assert not (await world.call(caller, "progress", {"message": "more", "fraction": 1.5})).ok
    assert [(d.kind, d.text, d.fields) for d in world.deltas] == [("progress", "half", {"fraction": 0.5})]


async def test_an_artifact_is_kept_and_read_in_slices_by_its_run(world: World) -> None:
    caller = await world.caller()
    answer = await world.call(caller, "artifact.put", {"name": "draft.txt", "text": "héllo"})
    digest = answer.value["digest"]
    assert digest == blob_digest("héllo".encode()) and answer.value["size"] == 6
    part = await world.call(caller, "blob.read", {"digest": digest, "offset": 1, "length": 2})
    assert base64.b64decode(part.value["base64"]) == "é".encode()
    assert part.value["eof"] is False
    rest = await world.call(caller, "blob.read", {"digest": digest, "offset": 3, "length": 100})
    assert rest.value["eof"] is True
    (created,) = world.payloads("artifact.created")
    assert (created.name, created.blob, created.size) == ("draft.txt", digest, 6)


async def test_a_blob_of_somebody_else_does_not_exist(world: World) -> None:
    caller = await world.caller()
    await world.call(caller, "log.write", {"message": "x"})
    foreign = world.payloads("hostcall.delivered")[0].args_blob
    assert world.reader.blob(foreign)
    answer = await world.call(caller, "blob.read", {"digest": foreign})
    assert answer.value["code"] == "blob.absent"


@pytest.mark.parametrize(
    "args",
    [
        {"name": "a"},
        {"name": "a", "text": "x", "base64": "eA=="},
        {"name": "a", "base64": "not base64!"},
        {"name": "a/b", "text": "x"},
        {"name": "..", "text": "x"},
        {"name": "a\x1b[2J", "text": "x"},
        {"name": "", "text": "x"},
        {"name": "x" * 256, "text": "x"},
        {"name": "a", "text": "x", "media_type": "evil\r\nheader"},
        {"name": "a", "text": "x" * (4 * 1024 * 1024 + 1)},
    ],
)
async def test_an_artifact_has_a_plain_name_a_type_and_a_bounded_size(
    world: World, args: dict[str, Any]
) -> None:
    answer = await world.call(await world.caller(), "artifact.put", args)
    assert answer.value["code"] == "op.args"
    assert world.payloads("artifact.created") == []


@pytest.mark.parametrize("args", [{"offset": -1}, {"length": 0}, {"length": 2**30}])
async def test_a_slice_is_bounded(world: World, args: dict[str, Any]) -> None:
    answer = await world.call(await world.caller(), "blob.read", {"digest": "a" * 64, **args})
    assert answer.value["code"] == "op.args"

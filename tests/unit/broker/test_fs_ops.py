"""``fs.*`` at the gate: which root judges a path, what is on record before what, and what a crash leaves."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pog.errors import LedgerWriteError
from runloop.digest import blob_digest
from runloopd.broker.asks import Ask
from runloopd.broker.calls import Answer, Caller
from runloopd.broker.fs_ops import granted

from .test_mail import crash
from .test_rehearsal import TOOLS
from .world import World, caps


@pytest.fixture
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder beside the home of the daemon, which is where a user's files are."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "a.txt").write_text("Grüße")
    (folder / "sub").mkdir()
    return folder


@pytest.fixture
async def writer(world: World, docs: Path) -> Caller:
    return await world.caller(rw(docs))


def rw(*roots: Path) -> str:
    return f"fs_rw = {[str(root) for root in roots]}".replace("'", '"')


def ro(*roots: Path) -> str:
    return rw(*roots).replace("fs_rw", "fs_ro")


async def value(world: World, caller: Caller, op: str, path: Any, **args: Any) -> Any:
    return (await world.call(caller, op, {"path": str(path), **args})).value


# --- reading --------------------------------------------------------------------------------------


async def test_what_is_read_is_on_record_before_the_guest_sees_it(world: World, docs: Path) -> None:
    answer = await value(world, await world.caller(ro(docs)), "fs.read", docs / "a.txt")
    assert answer == {
        "text": "Grüße",
        "offset": 0,
        "size": 7,
        "eof": True,
        "digest": blob_digest("Grüße".encode()),
    }
    (delivered,) = world.payloads("hostcall.delivered")
    assert (delivered.op, delivered.effect, delivered.ok) == ("fs.read", "read", True)
    assert b"Gr\xc3\xbc\xc3\x9fe" in world.reader.blob(delivered.result_blob)


async def test_bytes_that_are_no_text_come_as_base64(world: World, docs: Path) -> None:
    caller = await world.caller(ro(docs))
    cut = await value(world, caller, "fs.read", docs / "a.txt", offset=0, length=3)
    assert (base64.b64decode(cut["base64"]), cut["eof"]) == (b"Gr\xc3", False)
    assert "text" not in cut


async def test_a_listing_and_a_look_say_what_there_is(world: World, docs: Path) -> None:
    caller = await world.caller(ro(docs))
    assert await value(world, caller, "fs.list", docs) == {
        "entries": [
            {"name": "a.txt", "kind": "file", "size": 7},
            {"name": "sub", "kind": "dir", "size": 0},
        ],
        "truncated": False,
        "skipped": 0,
    }
    seen = await value(world, caller, "fs.stat", docs / "a.txt", digest=True)
    assert (seen["kind"], seen["size"], seen["digest"]) == ("file", 7, blob_digest("Grüße".encode()))
    assert (await value(world, caller, "fs.stat", docs / "none"))["code"] == "fs.absent"


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("fs.read", {"length": 0}),
        ("fs.read", {"length": 1024 * 1024 + 1}),
        ("fs.read", {"offset": -1}),
        ("fs.list", {"limit": 0}),
        ("fs.list", {"limit": 1_001}),
        ("fs.write", {}),
        ("fs.write", {"text": "x", "base64": "eA=="}),
        ("fs.write", {"base64": "?"}),
        ("fs.write", {"text": "x" * (4 * 1024 * 1024 + 1)}),
        ("fs.write", {"text": "x", "expected": "abc"}),
    ],
)
async def test_every_call_is_bounded(
    world: World, writer: Caller, docs: Path, op: str, args: dict[str, Any]
) -> None:
    assert (await value(world, writer, op, docs / "sub", **args))["code"] == "op.args"


# --- rights ---------------------------------------------------------------------------------------


@pytest.mark.requirement("F1")
async def test_what_lies_outside_is_refused_alike_whether_it_exists_or_not(world: World, docs: Path) -> None:
    beside = docs.with_name(docs.name + "-private")
    beside.mkdir()
    (beside / "f").write_text("secret")
    caller = await world.caller(ro(docs))
    words = set()
    for path in (beside / "f", beside / "none", beside):
        for op in ("fs.read", "fs.stat", "fs.list"):
            refused = await value(world, caller, op, path)
            assert refused["code"] == "cap.denied"
            words.add(refused["message"].replace(str(path), "…"))
    assert words == {f"fs_ro … is not granted to writer: only {docs} is granted"}
    audit = world.payloads("cap.audit")[0]
    assert (audit.capability, audit.target, audit.decision) == ("fs_ro", str(beside / "f"), "denied")


async def test_reading_is_no_right_to_write(world: World, docs: Path) -> None:
    caller = await world.caller(ro(docs))
    refused = await value(world, caller, "fs.write", docs / "a.txt", text="x")
    assert (refused["code"], refused["message"]) == (
        "cap.denied",
        f"fs_rw {docs / 'a.txt'} is not granted to writer: nothing of it is granted",
    )
    assert "rlp cap grant writer fs_rw" in refused["hint"]
    assert (docs / "a.txt").read_text() == "Grüße"


async def test_a_writable_folder_inside_a_readable_one_is_the_one_that_counts(
    world: World, docs: Path
) -> None:
    caller = await world.caller(f"{ro(docs)}\n{rw(docs / 'sub')}")
    assert (await world.call(caller, "fs.write", {"path": str(docs / "sub/n"), "text": "x"})).ok
    assert (await value(world, caller, "fs.read", docs / "sub/n"))["text"] == "x"
    assert (await value(world, caller, "fs.write", docs / "n", text="x"))["code"] == "cap.denied"


@pytest.mark.parametrize(
    ("grants", "capability", "path", "root"),
    [
        ('fs_ro = ["/", "/mnt/x"]', "fs_ro", "/mnt/x/f", "/"),
        ('fs_ro = ["/mnt"]\nfs_rw = ["/mnt/x"]', "fs_ro", "/mnt/x/f", "/mnt/x"),
        ('fs_ro = ["/mnt"]\nfs_rw = ["/mnt/x"]', "fs_ro", "/mnt/xy", "/mnt"),
        ('fs_ro = ["/mnt"]\nfs_rw = ["/mnt/x"]', "fs_rw", "/mnt/x/f", "/mnt/x"),
    ],
)
async def test_the_narrowest_root_that_covers_a_path_is_where_the_walk_begins(
    world: World, grants: str, capability: str, path: str, root: str
) -> None:
    ask = SimpleNamespace(grants=caps(grants), agent="writer")
    assert granted(cast(Ask, ask), capability, path).root == root


@pytest.mark.requirement("F1", "F4")
@pytest.mark.parametrize("name", ["..", "sub/../../x", "./a.txt", "sub//x", "\0", "a.txt/"])
async def test_a_path_that_is_not_written_out_is_refused_before_any_right_is_looked_at(
    world: World, writer: Caller, docs: Path, name: str
) -> None:
    for op in ("fs.read", "fs.stat", "fs.list", "fs.write"):
        more = {"text": "x"} if op == "fs.write" else {}
        refused = await world.call(writer, op, {"path": f"{docs}/{name}", **more})
        assert refused.value["code"] == "fs.path"


@pytest.mark.requirement("F4")
async def test_a_grant_of_everything_does_not_reach_ledger_socket_or_keys(world: World) -> None:
    caller = await world.caller()
    places = [world.home, *world.home.rglob("*")]
    assert {"events.db", "keys"} <= {path.name for path in places}
    for path in places:
        for op, more in (("fs.read", {}), ("fs.stat", {}), ("fs.list", {}), ("fs.write", {"text": "x"})):
            refused = await value(world, caller, op, path, **more)
            assert refused["code"] == "fs.own", (path, op)
    assert all(path.stat().st_size == 32 for path in (world.home / "keys").glob("*.key"))
    for path in map(Path, ("/proc/self/environ", "/proc/self/mem", "/sys/kernel", "/dev/mem", "/dev/shm/x")):
        assert (await value(world, caller, "fs.read", path))["code"] in ("fs.mount", "fs.system")


async def test_a_right_taken_back_between_the_check_and_the_mark_stops_the_write(
    world: World, writer: Caller, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = world.files.prepare

    async def revoking(write: Any) -> None:
        await honest(write)
        await world.mint.revoke_agent("writer", "taken back", actor="operator:1000")

    monkeypatch.setattr(world.files, "prepare", revoking)
    refused = await value(world, writer, "fs.write", docs / "a.txt", text="x")
    assert refused["code"].startswith(("token.", "cap."))
    assert (docs / "a.txt").read_text() == "Grüße"
    assert names(docs) == ["a.txt", "sub"]
    assert world.payloads("hostcall.admitted") == []


async def test_a_write_is_judged_again_by_what_the_token_grants_when_it_is_admitted(
    world: World, writer: Caller, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, asked = world.gate._admissible, [0]

    def narrowing(*args: Any) -> Any:
        asked[0] += 1
        return honest(*args) if asked[0] == 1 else caps(rw(docs / "sub"))

    monkeypatch.setattr(world.gate, "_admissible", narrowing)
    assert (await value(world, writer, "fs.write", docs / "a.txt", text="x"))["code"] == "cap.denied"
    assert asked[0] > 1 and (docs / "a.txt").read_text() == "Grüße"


# --- writing --------------------------------------------------------------------------------------


async def test_a_write_has_both_marks_and_answers_with_the_digest(
    world: World, writer: Caller, docs: Path
) -> None:
    answer = await value(world, writer, "fs.write", docs / "n.bin", base64="AP8=")
    assert answer == {"digest": blob_digest(b"\0\xff"), "size": 2}
    assert (docs / "n.bin").read_bytes() == b"\0\xff"
    assert world.kinds()[-2:] == ["hostcall.admitted", "hostcall.delivered"]
    marked, delivered = world.payloads("hostcall.admitted")[0], world.payloads("hostcall.delivered")[0]
    assert (marked.op, marked.effect, delivered.ok) == ("fs.write", "write", True)


async def test_compare_and_swap_by_the_digest_that_was_read(world: World, writer: Caller, docs: Path) -> None:
    read = await value(world, writer, "fs.read", docs / "a.txt")
    (docs / "a.txt").write_text("the user's own")
    refused = await value(world, writer, "fs.write", docs / "a.txt", text="mine", expected=read["digest"])
    assert refused["code"] == "fs.changed"
    assert (docs / "a.txt").read_text() == "the user's own"
    made = await value(world, writer, "fs.write", docs / "n", text="1", expected="")
    assert (await value(world, writer, "fs.write", docs / "n", text="2", expected=""))["code"] == "fs.changed"
    assert (await value(world, writer, "fs.write", docs / "n", text="2", expected=made["digest"]))[
        "size"
    ] == 1


@pytest.mark.requirement("L1")
@pytest.mark.parametrize(("number", "content"), [(1, "Grüße"), (2, "new")])
async def test_an_append_that_fails_lets_no_unrecorded_write_out(
    world: World, writer: Caller, docs: Path, number: int, content: str
) -> None:
    commits = full_at(world, number)
    answer = await world.call(writer, "fs.write", {"path": str(docs / "a.txt"), "text": "new"})
    assert answer.value["code"] == "ledger.write"
    assert commits() >= number, "the disk was never full: this proves nothing"
    assert (docs / "a.txt").read_text() == content
    assert names(docs) == ["a.txt", "sub"]
    assert len(world.payloads("hostcall.admitted")) == number - 1


def full_at(world: World, number: int) -> Callable[[], int]:
    """Let commit ``number`` and all after it fail as on a full disk."""
    honest, made = world.ledger.commit, [0]

    def commit(prepared: Any, blobs: Any = ()) -> Any:
        made[0] += 1
        if made[0] >= number:
            raise LedgerWriteError("no space left on device", hint="make room")
        return honest(prepared, blobs)

    world.ledger.commit = commit  # type: ignore[method-assign]
    return lambda: made[0]


async def test_the_same_write_of_a_later_attempt_is_answered_from_the_record(
    world: World, writer: Caller, docs: Path
) -> None:
    first = await world.call(writer, "fs.write", {"path": str(docs / "a.txt"), "text": "new"})
    (docs / "a.txt").write_text("the user's own")
    again = await world.caller(rw(docs), attempt=2)
    assert await world.call(again, "fs.write", {"path": str(docs / "a.txt"), "text": "new"}) == first
    assert (docs / "a.txt").read_text() == "the user's own"


@pytest.mark.parametrize("moment", ["before", "after", "changed since"])
async def test_a_write_that_a_crash_cut_short_is_brought_to_one_end(
    world: World, writer: Caller, docs: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The daemon dies right before or right after the file took its name."""
    honest = world.files.commit

    async def dying(write: Any) -> None:
        if moment != "before":
            await honest(write)
        world.journal._closed = True
        raise RuntimeError("the machine lost power")

    monkeypatch.setattr(world.files, "commit", dying)
    await world.call(writer, "fs.write", {"path": str(docs / "a.txt"), "text": "new"})
    monkeypatch.setattr(world.files, "commit", honest)
    await crash(world)
    assert world.payloads("hostcall.delivered") == [] and len(world.payloads("hostcall.admitted")) == 1
    if moment == "changed since":
        (docs / "a.txt").write_text("the user's own")

    async def again(attempt: int) -> Answer:
        caller = await world.caller(rw(docs), attempt=attempt)
        return await world.call(caller, "fs.write", {"path": str(docs / "a.txt"), "text": "new"})

    answer = await again(2)
    if moment == "changed since":
        assert answer.value["code"] == (await again(3)).value["code"] == "effect.unknown_outcome"
        assert (docs / "a.txt").read_text() == "the user's own"
    else:
        assert answer.value == {"digest": blob_digest(b"new"), "size": 3}
        assert (docs / "a.txt").read_text() == "new"
        assert len(world.payloads("hostcall.admitted")) == (2 if moment == "before" else 1)
    assert names(docs) == ["a.txt", "sub"]


async def test_a_file_system_that_hangs_ends_a_write_as_unknown(
    world: World, writer: Caller, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def hanging(write: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(world.files, "commit", hanging)
    call = world.begin(writer, "fs.write", {"path": str(docs / "a.txt"), "text": "new"})
    await asyncio.wait_for(begun.wait(), 20)
    world.clock.advance(30_000)
    assert (await asyncio.wait_for(call, 20)).value["code"] == "effect.unknown_outcome"

    monkeypatch.undo()
    for path in docs.glob(".runloop-*"):
        path.unlink()
    again = await world.caller(rw(docs), attempt=2)
    refused = await value(world, again, "fs.write", docs / "a.txt", text="new")
    assert refused["code"] == "effect.unknown_outcome"
    assert (docs / "a.txt").read_text() == "Grüße"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- F3: there is no native child -----------------------------------------------------------------

SPAWNING = ("subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system")
started: list[str] = []
watching = False


def _watch(event: str, _: Any) -> None:
    if watching and event in SPAWNING:
        started.append(event)


@pytest.fixture
def spawned() -> Iterator[list[str]]:
    """Every program this process starts from now on; an audit hook cannot be gone around."""
    global watching
    if _watch not in HOOKED:
        sys.addaudithook(_watch)
        HOOKED.append(_watch)
    started.clear()
    watching = True
    yield started
    watching = False


HOOKED: list[Any] = []


@pytest.mark.requirement("F3")
async def test_a_grant_of_exec_starts_nothing_and_is_refused_by_name(
    world: World, spawned: list[str]
) -> None:
    caller = replace(
        await world.caller('exec = true\ntools = ["*"]'),
        ops=frozenset({"exec.run", "tool.call", "tool.list"}),
        tools=TOOLS,
    )
    for args in ({"argv": ["/bin/sh", "-c", "id"]}, {"argv": ["git"]}, {}):
        refused = await world.call(caller, "exec.run", args)
        assert (refused.ok, refused.value["code"]) == (False, "op.unknown")
        assert "exec.run" in refused.value["message"]
    tool = await world.call(caller, "tool.call", {"tool": "own.do", "args": {}})
    assert tool.value["code"] == "tool.unavailable"
    assert spawned == []
    os.posix_spawn("/bin/true", ["true"], {})
    os.wait()
    assert spawned == ["os.posix_spawn"], "the hook sees nothing: this proves nothing"
    assert world.payloads("hostcall.admitted") == []

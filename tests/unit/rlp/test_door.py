"""Who comes in over HTTP, how slowly, and with how many others: real sockets, a small daemon behind."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rlp.output import Console, Style
from rlp.serving.door import Rooms, keep_open, listener, names_of
from rlp.serving.keeper import MAX_BODY, Keeper, Pace, caller_of
from rlp.serving.limits import Allowance
from rlp.serving.link import Busy, Link
from rlp.session import Session
from runloop.digest import blob_digest
from tests.unit.rlp.daemon_twin import DaemonTwin

TOKENS = {name: f"rlt_{name}" for name in ("desk", "other")}


class Served:
    """A face that says who asked, behind the real door; raw connections to it."""

    def __init__(self, port: int, daemon: DaemonTwin) -> None:
        self.port = port
        self.daemon = daemon
        self.entered: list[str] = []
        self.hold: asyncio.Event | None = None

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        client = caller_of(scope).client
        self.entered.append(client)
        if self.hold is not None:
            await self.hold.wait()
        body = f"{client}:{len(message['body'])}".encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", b"%d" % len(body))],
            }
        )
        await send({"type": "http.response.body", "body": body})

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def head(self, token: str | None = None, length: int = 0, *more: str) -> bytes:
        lines = ["POST / HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"Content-Length: {length}", *more]
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        return "\r\n".join([*lines, "", ""]).encode()

    def asked(self) -> int:
        """How often the daemon was asked who has a token."""
        return [method for method, *_ in self.daemon.asked].count("face.state")


async def status(reader: asyncio.StreamReader) -> int:
    """Of the next answer; 0 where the connection ends without one."""
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0
    length = next(
        int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    )
    await reader.readexactly(length)
    return int(head.split()[1])


async def over(reader: asyncio.StreamReader) -> bool:
    """Whether the other side hung up without a word."""
    try:
        return await asyncio.wait_for(reader.read(1), 30) == b""
    except ConnectionError:
        return True


Open = Callable[..., contextlib.AbstractAsyncContextManager[Served]]


@pytest.fixture
def open_door(daemon: DaemonTwin, home: Path) -> Open:
    known = dict(TOKENS)

    def face_state() -> dict[str, Any]:
        tokens = [{"name": n, "digest": blob_digest(t.encode()), "issued_ms": 1} for n, t in known.items()]
        return {"exposed": ["kb"], "tokens": tokens}

    daemon.methods["face.state"] = face_state

    @contextlib.asynccontextmanager
    async def opened(*, body_s: float = 30.0, rate: float = 1_000, **rooms: Any) -> AsyncIterator[Served]:
        link = Link(session(home))
        door = listener("127.0.0.1:0")
        place, hosts = names_of(door)
        served = Served(int(place.rpartition(":")[2]), daemon)
        pace = Pace(Allowance(per_s=rate, burst=int(rate)), Allowance(per_s=0.001, burst=3))
        keeper = Keeper(served.app, link=link, hosts=hosts, pace=pace, body_s=body_s)
        ready = asyncio.Event()
        serving = asyncio.create_task(keep_open(keeper, door, ready=ready.set, rooms=Rooms(**rooms)))
        await ready.wait()
        try:
            yield served
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            await asyncio.to_thread(link.close)
            door.close()

    return opened


def session(home: Path, **environ: str) -> Session:
    import io

    console = Console(io.StringIO(), io.StringIO(), Style(quiet=True))
    return Session(console=console, environ={"RUNLOOP_HOME": str(home), **environ})


@pytest.mark.requirement("I6.faces.10")
async def test_a_head_that_does_not_come_ends_its_connection_however_it_dribbles(open_door: Open) -> None:
    async with open_door(head_s=0.2) as served:
        silent, _ = await served.connect()
        slow, writer = await served.connect()
        writer.write(served.head(TOKENS["desk"])[:-2])

        async def dribble() -> None:
            with contextlib.suppress(ConnectionError):
                while True:  # a byte now and then gains no time
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.02)

        dribbling = asyncio.create_task(dribble())
        assert await over(silent) and await over(slow)
        dribbling.cancel()
        reader, writer = await served.connect()
        for _ in range(2):  # one after the other on one connection, the second in two halves
            whole = served.head(TOKENS["desk"])
            writer.write(whole[:40])
            await writer.drain()
            writer.write(whole[40:])
            assert await status(reader) == 200


@pytest.mark.requirement("I6.faces.10")
@pytest.mark.parametrize(("unproven", "most"), [(5, 1_000), (1_000, 8)], ids=["of strangers", "of all"])
async def test_connections_of_strangers_never_keep_out_a_client_with_a_token(
    open_door: Open, unproven: int, most: int
) -> None:
    async with open_door(unproven=unproven, most=most, head_s=60) as served:
        mine, writer = await served.connect()
        writer.write(served.head(TOKENS["desk"]))
        assert await status(mine) == 200
        strangers = [await served.connect() for _ in range(30)]
        assert await over(strangers[0][0])  # the oldest of them make room
        late, other = await served.connect()
        other.write(served.head(TOKENS["other"]))
        assert await status(late) == 200
        writer.write(served.head(TOKENS["desk"]))
        assert await status(mine) == 200  # proven once, it stays


@pytest.mark.requirement("I6.faces.10")
async def test_one_client_has_its_share_of_the_connections(open_door: Open) -> None:
    async with open_door(of_one=3) as served:
        answers = []
        kept = []
        for _ in range(5):
            reader, writer = await served.connect()
            kept.append(writer)
            writer.write(served.head(TOKENS["desk"]))
            answers.append(await status(reader))
        assert answers == [200, 200, 200, 429, 429]
        reader, writer = await served.connect()
        writer.write(served.head(TOKENS["other"]))
        assert await status(reader) == 200
        for one in kept:
            one.close()
            await one.wait_closed()

        async def again() -> int:
            reader, writer = await served.connect()
            writer.write(served.head(TOKENS["desk"]))
            return await status(reader)

        await until(again, 200)


def test_a_connection_that_ended_while_its_token_was_looked_up_counts_for_nobody() -> None:
    rooms = Rooms(of_one=2)
    for _ in range(10):
        gone: Any = _Hashable()
        rooms.enter(gone)
        rooms.leave(gone)
        assert not rooms.prove(gone, "desk")
    kept: list[Any] = [_Hashable() for _ in range(3)]
    for one in kept:
        rooms.enter(one)
    assert [rooms.prove(one, "desk") for one in kept] == [True, True, False]


class _Hashable:
    """As much of a connection as is counted."""


async def until(ask: Callable[[], Awaitable[int]], wanted: int) -> None:
    for _ in range(500):
        if await ask() == wanted:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"never {wanted}")


@pytest.mark.requirement("I6.faces.10")
async def test_a_body_is_bounded_in_size_and_time_and_never_read_for_a_stranger(open_door: Open) -> None:
    async with open_door(body_s=0.2) as served:
        reader, writer = await served.connect()
        writer.write(served.head(TOKENS["desk"], 100) + b"x" * 99)
        assert await status(reader) == 408
        reader, writer = await served.connect()
        writer.write(served.head(TOKENS["desk"], MAX_BODY + 1) + b"x" * (MAX_BODY + 1))
        assert await status(reader) == 413
        assert served.entered == []
        reader, writer = await served.connect()
        writer.write(served.head("wrong", 1_000_000))
        assert await status(reader) == 401 and await over(reader)
        reader, writer = await served.connect()
        writer.write(served.head(TOKENS["desk"], 5) + b"12345")
        assert await status(reader) == 200


@pytest.mark.requirement("I6.faces.10")
async def test_strangers_who_come_often_cost_the_daemon_nothing(open_door: Open) -> None:
    async with open_door() as served:
        reader, writer = await served.connect()
        writer.write(served.head(TOKENS["desk"]))
        assert await status(reader) == 200  # who has which token is known from here on
        answers = []
        for number in range(20):
            stranger, out = await served.connect()
            out.write(served.head(f"wrong{number}"))
            answers.append(await status(stranger))
        assert answers[:2] == [401, 401] and set(answers[2:]) == {429}
        assert served.asked() <= 3
        writer.write(served.head(TOKENS["desk"]))
        assert await status(reader) == 200


@pytest.mark.requirement("I6.faces.10", "B5")
async def test_strangers_who_were_here_first_do_not_keep_out_a_client_nobody_has_heard_of(
    open_door: Open,
) -> None:
    async with open_door() as served:
        for number in range(8):  # they use up the whole allowance of strangers, and the daemon is asked once
            stranger, out = await served.connect()
            out.write(served.head(None if number else "wrong"))
            assert await status(stranger) in (401, 429)
        assert served.asked() == 1
        reader, writer = await served.connect()
        writer.write(served.head(TOKENS["desk"]))
        assert await status(reader) == 200


@pytest.mark.requirement("I6.faces.10", "B5")
async def test_a_token_is_learnt_of_although_no_stranger_was_asked_about(open_door: Open) -> None:
    async with open_door() as served:
        for _ in range(8):
            stranger, out = await served.connect()
            out.write(served.head(None))
            assert await status(stranger) in (401, 429)
        assert served.asked() == 0
        reader, writer = await served.connect()
        writer.write(served.head(TOKENS["desk"]))
        assert await status(reader) == 200
        for _ in range(8):
            stranger, out = await served.connect()
            out.write(served.head("wrong"))
            assert await status(stranger) == 429
        assert served.asked() == 1


async def test_what_is_not_a_token_of_one_header_is_none(open_door: Open) -> None:
    async with open_door() as served:
        wrong = [
            served.head(None, 0, "Cookie: token=rlt_desk"),
            served.head(TOKENS["desk"], 0, "Authorization: Bearer rlt_desk"),  # twice
            served.head(None, 0, "Authorization: Basic rlt_desk"),
            served.head(None, 0, "X-Forwarded-Host: 127.0.0.1", "Authorization: Bearer"),
            served.head(None).replace(b"POST /", b"POST /?access_token=rlt_desk"),
        ]
        for request in wrong:
            reader, writer = await served.connect()
            writer.write(request)
            assert await status(reader) in (401, 429), request
        assert served.entered == [] and served.asked() == 0


@pytest.mark.requirement("I6.faces.10")
async def test_one_client_takes_its_share_of_the_work_and_no_more(home: Path) -> None:
    link = Link(session(home), most=4, share=2)
    begun, let_go = threading.Semaphore(0), threading.Event()

    def work(_: Session, __: threading.Event) -> str:
        begun.release()
        let_go.wait(30)
        return "done"

    try:
        first = [asyncio.create_task(link.do(work, "desk")) for _ in range(2)]
        for _ in first:
            await asyncio.to_thread(begun.acquire)
        with pytest.raises(Busy):
            await link.do(work, "desk")
        second = [asyncio.create_task(link.do(work, "other")) for _ in range(2)]
        for _ in second:
            await asyncio.to_thread(begun.acquire)
        with pytest.raises(Busy):
            await link.do(work, "third")
        # Who leaves gives nothing back while the work goes on.
        first[0].cancel()
        await asyncio.wait([first[0]])
        with pytest.raises(Busy):
            await link.do(work, "desk")
        let_go.set()
        assert await asyncio.gather(first[1], *second) == ["done"] * 3
        assert await link.do(work, "desk") == "done"
    finally:
        let_go.set()
        await asyncio.to_thread(link.close)


@pytest.mark.requirement("I6.faces.10")
async def test_the_questions_of_one_client_wait_behind_each_other_and_not_before_the_door(home: Path) -> None:
    link = Link(session(home), share=1)
    let_go = threading.Event()

    def slow(_: Session) -> str:
        return str(let_go.wait(30))

    try:
        asked = [asyncio.create_task(link.ask(slow, "desk")) for _ in range(20)]
        await asyncio.sleep(0)
        asked[0].cancel()  # and the thread is as busy as before
        assert await asyncio.wait_for(link.ask(lambda _: "soon", "other"), 30) == "soon"
        assert not any(one.done() for one in asked[1:])
        for client in ("second", "third"):  # all that is asked soon is asked by somebody
            asked += [asyncio.create_task(link.ask(slow, client)) for _ in range(20)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(link.ask(lambda _: "at the door"), 30) == "at the door"
        let_go.set()
        assert set(await asyncio.gather(*asked[1:])) == {"True"}
    finally:
        let_go.set()
        await asyncio.to_thread(link.close)


@pytest.mark.requirement("I6.faces.11")
def test_whoever_serves_others_takes_the_users_socket_and_no_file_of_the_folder_it_stands_in(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    runtime = tmp_path / "run"
    runtime.mkdir()
    import io

    console = Console(io.StringIO(), io.StringIO(), Style(quiet=True))
    mine = Session(console=console, environ={"XDG_RUNTIME_DIR": str(runtime)})
    theirs = mine.for_others(console)
    assert theirs.paths.socket == mine.paths.socket == runtime / "runloop" / "rmp.sock"
    assert not theirs.interactive
    for mine_dirs, their_dirs in (
        (mine.openings_dirs, theirs.openings_dirs),
        (mine.agents_dirs, theirs.agents_dirs),
    ):
        assert mine_dirs[0].parent == tmp_path and mine_dirs[1:] == their_dirs
    monkeypatch.chdir(mine.paths.home.parent)
    (mine.paths.home / "openings").mkdir(parents=True)
    monkeypatch.chdir(mine.paths.home)  # the user's own openings count, wherever one stands
    assert theirs.openings_dirs[0] == mine.paths.home / "openings"

"""A name that leads elsewhere the second time: real sockets that nobody may knock at (attacks.md M12)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runloop.errors import RunloopError
from runloopd.broker.mcp import dialling
from runloopd.broker.mcp.dialling import Dialler
from runloopd.broker.mcp.spec import ServerSpec, checked

PUBLIC = "93.184.216.34"


@asynccontextmanager
async def canary() -> AsyncIterator[tuple[int, list[str]]]:
    """A port of this machine, and who knocked there."""
    knocked: list[str] = []

    async def heard(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knocked.append(str(writer.get_extra_info("peername")))
        writer.close()

    async with await asyncio.start_server(heard, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], knocked


@pytest.mark.requirement("M12", "I6.mcp.9")
@pytest.mark.parametrize(
    "answers",
    [[["127.0.0.1"]], [[PUBLIC, "127.0.0.1"]], [["127.0.0.1", PUBLIC]], [["::ffff:127.0.0.1"]]],
    ids=["private", "public first", "private first", "mapped"],
)
async def test_a_name_that_leads_into_this_machine_is_not_dialled_at_all(answers: list[list[str]]) -> None:
    async with canary() as (port, knocked):
        spec = checked(ServerSpec(url=f"https://mcp.example.org:{port}/mcp"))

        async def resolver(_: str, __: int) -> list[str]:
            return answers[0]

        with pytest.raises(RunloopError) as caught:
            await Dialler(spec, resolver).dial("mcp.example.org", port)
        assert caught.value.named_code == "net.address"
        await asyncio.sleep(0)
        assert knocked == []


@pytest.mark.requirement("M12", "I6.mcp.9")
async def test_the_address_that_was_judged_is_the_one_that_is_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Public when it is judged, private a moment later: nobody asks a second time."""
    async with canary() as (port, knocked):
        spec = checked(ServerSpec(url=f"https://mcp.example.org:{port}/mcp"))
        asked: list[str] = []

        async def resolver(name: str, _: int) -> list[str]:
            asked.append(name)
            return [PUBLIC] if len(asked) == 1 else ["127.0.0.1"]

        dialled: list[str] = []

        async def no_internet(address: object, port: int) -> None:
            dialled.append(f"{address}:{port}")
            raise OSError("there is no way out of a test")

        monkeypatch.setattr(dialling, "_connect", no_internet)
        with pytest.raises(OSError, match="no way out"):
            await Dialler(spec, resolver).dial("mcp.example.org", port)
        assert (dialled, asked) == ([f"{PUBLIC}:{port}"], ["mcp.example.org"])
        # Dialled again, it is judged again; the judge sees what the name says now.
        with pytest.raises(RunloopError) as caught:
            await Dialler(spec, resolver).dial("mcp.example.org", port)
        assert caught.value.named_code == "net.address" and knocked == []


@pytest.mark.requirement("M12")
async def test_a_server_that_was_added_at_this_machine_is_reached_and_shows_that_the_canary_hears() -> None:
    async with canary() as (port, knocked):
        spec = checked(ServerSpec(url=f"http://127.0.0.1:{port}/mcp"))
        made = await Dialler(spec).dial("127.0.0.1", port)
        made.close()
        while not knocked:
            await asyncio.sleep(0)
        assert len(knocked) == 1

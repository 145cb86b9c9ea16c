"""The host's own tools at the gate: what is granted, what a person reads, what a crash leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runloopd.broker.calls import Answer, Caller
from runloopd.broker.providers.files import Files
from runloopd.broker.tools.bubblewrap import Bubblewrap
from runloopd.broker.tools.changes import Changes
from runloopd.broker.tools.host import host_tools
from runloopd.broker.tools.notify_tools import Desktop

from .test_mail import asked, crash, decide
from .world import World, until, within


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("docs")
    (made / "a.txt").write_text("one line")
    return made


@pytest.fixture
async def tools(world: World) -> AsyncIterator[World]:
    """A world with the host's tools, over parts that outlive a crash of it."""
    async with AsyncExitStack() as stack:
        ours = [world.home]
        sandbox, files, changes = Bubblewrap(ours), Files(ours), Changes(ours)
        for service in (sandbox, files, changes):
            stack.push_async_callback(service.close)
        world.programs = sandbox
        world.sources += host_tools(
            files=files,
            changes=changes,
            sandbox=sandbox,
            web=world.web,
            mail=world.mail,
            knowledge=world.knowledge,
            on_delta=world.deltas.append,
            clock=world.clock,
            desktop=Desktop({}),
        )
        await world.restart()
        yield world


def grants(folder: Path, *more: str) -> str:
    lines = (f'fs_rw = ["{folder}"]', 'tools = ["files.*", "exec.*", "shell.run", "http.get"]', *more)
    return "\n".join(lines)


async def call(world: World, caller: Caller, tool: str, **args: object) -> Answer:
    return await world.call(caller, "tool.call", {"tool": tool, "args": args})


async def test_a_read_asks_nobody_and_a_deletion_a_person(tools: World, folder: Path) -> None:
    caller = await tools.caller(grants(folder))
    found = await call(tools, caller, "files.search", path=str(folder), text="line")
    assert found.value["result"]["matches"][0]["text"] == "one line"
    task = tools.begin(caller, "tool.call", {"tool": "files.delete", "args": {"path": str(folder / "a.txt")}})
    approval = await asked(tools)
    assert (folder / "a.txt").exists() and approval.action["resource"].endswith(f'{folder}/a.txt"}}')
    await decide(tools)
    tools.clock.advance(5_000)
    assert (await within(task)).ok and not (folder / "a.txt").exists()


@pytest.mark.requirement("C2")
async def test_a_line_of_shell_is_read_by_a_person_each_time_and_never_allowed_for_good(
    tools: World, folder: Path
) -> None:
    caller = await tools.caller(grants(folder))
    args = {"tool": "shell.run", "args": {"line": f"cat {folder}/a.txt"}}
    for _ in range(2):
        task = tools.begin(caller, "tool.call", args)
        approval = await asked(tools)
        assert approval.action["grantable"] is False
        assert f"cat {folder}/a.txt" in tools.reader.blob(approval.content_blob).decode()
        await decide(tools)
        tools.clock.advance(5_000)
        assert (await within(task)).value["result"]["stdout"] == "one line"


@pytest.mark.requirement("I6.host.4")
async def test_what_is_not_granted_is_refused_before_a_person_is_asked(tools: World, folder: Path) -> None:
    caller = await tools.caller(grants(folder))
    for tool, args in (
        ("files.delete", {"path": "/etc/hostname"}),
        ("exec.ask", {"argv": ["id"]}),
        ("shell.run", {"line": "id", "cwd": "/etc"}),
        ("http.get", {"url": "https://example.org/"}),
    ):
        answer = await call(tools, caller, tool, **args)
        assert answer.value["code"] == "cap.denied", tool
    assert tools.approvals.list() == []
    denied = [audit for audit in tools.payloads("cap.audit") if audit.decision == "denied"]
    assert [audit.capability for audit in denied] == ["fs_rw", "exec", "fs_ro", "net"]


KNOCK = """
import os, socket, sys
host, port = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")
for place in sys.argv[1:]:
    with socket.create_connection((host, int(port)), 10) as made:
        made.sendall(f"CONNECT {place} HTTP/1.1\\r\\n\\r\\n".encode())
        print(made.recv(1000).split()[1].decode())
"""


@pytest.mark.requirement("I6.programs.4")
async def test_a_person_reads_which_hosts_a_program_may_reach_and_the_record_says_which_it_did(
    tools: World, folder: Path
) -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    place = f"localhost:{server.sockets[0].getsockname()[1]}"
    net = f'net = ["{place}", "other.example", {{ hosts = ["narrow.example"], methods = ["GET"] }}]'
    caller = await tools.caller(grants(folder, 'exec = ["python3"]', net))
    argv = ["python3", "-c", KNOCK, place, place, "nobody.example:443", place]
    args = {"tool": "exec.ask", "args": {"argv": argv, "net": True}}
    task = tools.begin(caller, "tool.call", args)
    approval = await asked(tools)
    sends = json.loads(tools.reader.blob(approval.content_blob))["sends"]
    assert sends["network"] == sorted([place, "other.example"])
    assert sends["folders"] == [{"path": str(folder), "writable": True}]
    await decide(tools)
    tools.clock.advance(5_000)
    assert (await within(task)).value["result"]["stdout"].split() == ["200", "200", "403", "200"]
    server.close()
    went = [said for said in tools.payloads("cap.audit") if said.capability == "net"]
    assert [(said.target, said.decision) for said in went] == [(f"CONNECT {place}", "allowed")]
    assert went[0].reason.endswith("connected 3 times")


@pytest.mark.requirement("I6.programs.4")
async def test_what_reaches_nobody_says_so_and_what_is_granted_by_method_is_not_reached(
    tools: World, folder: Path
) -> None:
    narrow = 'net = [{ hosts = ["narrow.example"], methods = ["GET"] }]'
    caller = await tools.caller(grants(folder, 'exec = ["id"]', narrow))
    for tool, args in (("shell.run", {"line": "id"}), ("exec.ask", {"argv": ["id"]})):
        tools.begin(caller, "tool.call", {"tool": tool, "args": args})
        approval = await asked(tools)
        sends = json.loads(tools.reader.blob(approval.content_blob))["sends"]
        assert sends["network"] == [] and sends["folders"][0]["path"] == str(folder)
        await decide(tools, "deny")
    task = tools.begin(caller, "tool.call", {"tool": "exec.ask", "args": {"argv": ["id"], "net": True}})
    await asked(tools)
    await decide(tools)
    tools.clock.advance(5_000)
    assert "no host is granted" in (await within(task)).value["message"]


async def test_a_named_program_runs_once_and_is_found_again_on_record(tools: World, folder: Path) -> None:
    caller = await tools.caller(grants(folder, 'exec = ["tee"]'))
    args = {"argv": ["tee", "-a", f"{folder}/log"], "stdin": "x"}
    assert (await call(tools, caller, "exec.run", **args)).value["result"]["stdout"] == "x"
    assert tools.payloads("hostcall.delivered")[-1].effect == "write"
    again = await tools.caller(grants(folder, 'exec = ["tee"]'), attempt=2)
    assert (await call(tools, again, "exec.run", **args)).value["result"]["stdout"] == "x"
    assert (folder / "log").read_text() == "x"


async def test_a_program_that_was_begun_when_the_daemon_died_is_not_run_again(
    tools: World, folder: Path
) -> None:
    caller = await tools.caller(grants(folder, 'exec = ["tee", "sleep"]'))
    args = {"tool": "exec.run", "args": {"argv": ["sleep", "30"]}}
    tools.begin(caller, "tool.call", args)
    assert isinstance(tools.programs, Bubblewrap)
    await until(lambda: tools.programs.running)  # type: ignore[union-attr]
    await crash(tools)
    await until(lambda: not tools.programs.running)  # type: ignore[union-attr]
    again = await tools.caller(grants(folder, 'exec = ["tee", "sleep"]'), attempt=2)
    answer = await tools.call(again, "tool.call", args)
    assert answer.value["code"] == "tool.unknown_outcome"

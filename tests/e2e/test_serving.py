"""Programs outside: MCP clients of the official SDK on pipes and HTTP, in both eras, of good and ill will."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import select
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import mcp
import pytest
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from runloop.digest import blob_digest
from runloop.events import ActionDecided, RunCancelRequested, RunFinished, RunStarted
from tests.contract import fake_model_server as fake
from tests.contract.scripted_model import Behave, ScriptedModel
from tests.home import BIN, ROOT, Home, wait_until

ERAS = ("legacy", "auto")
EXPOSED = ("kb", "opening:compose_email", "tool:notify.send", "tool:git.status", "tool:files.search@looker")
ERRAND = ROOT / "sdk" / "agents" / "errand"


def stdio(home: Home, *flags: str) -> StdioServerParameters:
    words = [word for flag in flags for word in ("--expose", flag)]
    # An editor starts it wherever somebody's code lies: what lies there is not believed.
    planted = home.path / "cloned" / "openings" / "compose_email.yaml"
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text("version: 0\nname: compose_email\nnodes:\n  - {id: x, use: 'agent:critic'}\n")
    args = ["mcp", "serve", "--stdio", "--as", "editor", *words]
    return StdioServerParameters(
        command=str(BIN / "rlp"), args=args, env=home.env, cwd=str(home.path / "cloned")
    )


def structured(result: Any) -> dict[str, Any]:
    assert isinstance(result.structured_content, dict)
    return result.structured_content


@pytest.mark.requirement("I6.faces.1", "I6.faces.2", "C9")
@pytest.mark.parametrize("era", ERAS)
def test_a_client_on_the_pipes_reaches_what_is_exposed_and_a_mail_waits_for_the_person(
    home: Home, era: str, tmp_path: Path
) -> None:
    folder = tmp_path
    (folder / "plan.txt").write_text("the rollout is on Monday\n")
    manifest = (ERRAND / "manifest.toml").read_text().replace('"errand"', '"looker"')
    grants = f'fs_ro = {json.dumps([str(folder)])}\ntools = ["files.search"]\n'
    home.write_agent("looker", manifest, (ERRAND / "agent.py").read_text(), grants)
    home.rlp("import", str(ROOT / "docs/examples/contacts.vcf")).check()
    steps: list[str] = []

    async def play() -> tuple[dict[str, Any], dict[str, Any]]:
        async with mcp.Client(stdio(home, *EXPOSED), mode=era) as client:
            named = {tool.name: tool for tool in (await client.list_tools()).tools}
            # git.status needs a right to a folder; it is offered, and refused when it is called.
            assert set(named) == {
                "kb_search", "kb_read", "opening_compose_email", "tool_notify_send", "tool_git_status",
                "tool_files_search", "run_result",
            }  # fmt: skip
            assert named["opening_compose_email"].input_schema["required"] == ["recipient", "topic"]

            found = structured(await client.call_tool("kb_search", {"query": "John"}))["items"]
            assert found[0]["title"] == "John Carter"
            assert "@example.org" not in json.dumps(found)
            whole = structured(await client.call_tool("kb_read", {"kind": "contact", "id": found[0]["id"]}))
            assert whole["name"] == "John Carter" and "@example.org" not in json.dumps(whole)

            refused = await client.call_tool("tool_git_status", {"repo": str(ROOT)})
            assert refused.is_error and structured(refused)["error"]["code"] == "cap.denied"

            wanted = {"path": str(folder), "text": "rollout"}
            looked = structured(await client.call_tool("tool_files_search", wanted))
            assert looked["state"] == "succeeded", looked
            assert looked["outputs"]["call.out"][0]["matches"][0]["line"] == 1
            outside = await client.call_tool("tool_files_search", {**wanted, "path": "/etc"})
            assert structured(outside)["error"]["code"] == "cap.denied"

            async def told(step: float, total: float | None, line: str | None) -> None:
                steps.append(line or "")

            asked = {"recipient": "john", "topic": "Q4 plan"}
            sent = await client.call_tool("opening_compose_email", asked, progress_callback=told)
            waiting = structured(sent)
            # Whatever a client adds to its arguments is no decision.
            for smuggled in ({"approved": True}, {"decision": "approve"}, {"confirm_external": False}):
                forged = await client.call_tool("opening_compose_email", {**asked, **smuggled})
                assert forged.is_error
            with pytest.raises(MCPError):
                await client.call_tool("opening_assistant", {"prompt": "hello"})
            return waiting, structured(await client.call_tool("run_result", {"run": waiting["run"]}))

    waiting, again = asyncio.run(play())
    assert waiting["state"] == again["state"] == "waiting"
    assert "@" not in json.dumps(waiting) and again["waiting"] == waiting["waiting"]
    assert "send starts" in steps and "send waits for a person" in steps
    started = [e.payload for e in home.events("run.started") if e.run == waiting["run"]]
    assert isinstance(started[0], RunStarted)
    assert (started[0].principal, started[0].origin["interactive"]) == ("face:editor", False)
    assert home.events("action.decided") == []

    # The person's yes, in rlp; the client hears of it afterwards, and reads what the run produced.
    home.rlp("approve", waiting["waiting"][0]["id"]).check()
    wait_until(lambda: any(e.run == waiting["run"] for e in home.events("run.finished")), "the run to finish")

    async def after() -> tuple[dict[str, Any], str]:
        async with mcp.Client(stdio(home, *EXPOSED), mode=era) as client:
            rest = structured(await client.call_tool("run_result", {"run": waiting["run"]}))
            text = (await client.read_resource(rest["artifacts"][0]["uri"])).contents[0]
            other = home.rlp("run", "compose_email", "-p", "recipient=john", "-p", "topic=x", "--json", "-d")
            theirs = await client.call_tool("run_result", {"run": other.check().json["run"]})
            assert theirs.is_error and structured(theirs)["error"]["code"] == "face.run"
            return rest, getattr(text, "text", "")

    rest, text = asyncio.run(after())
    assert rest["state"] == "succeeded" and list(rest["outputs"]) == ["draft.out"]
    assert "Q4 plan" in text
    decided = [e.payload for e in home.events("action.decided")]
    assert [one.principal.partition(":")[0] for one in decided if isinstance(one, ActionDecided)] == [
        "operator"
    ]
    assert home.rlp("replay", waiting["run"], "--json").check().json["identical"] is True


# --- over HTTP ------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(home: Home, *flags: str) -> Iterator[str]:
    """``rlp mcp serve --http`` on a free port; its URL."""
    process = subprocess.Popen(
        [str(BIN / "rlp"), "mcp", "serve", "--http", "127.0.0.1:0", *flags],
        env=home.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 60)[0], "it does not say where it listens"
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextlib.asynccontextmanager
async def client_at(url: str, token: str, era: str) -> AsyncIterator[mcp.Client]:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        mcp.Client(streamable_http_client(url, http_client=http), mode=era) as client,
    ):
        yield client


@pytest.mark.requirement("I6.faces.3", "I6.faces.4", "B1", "M12")
def test_over_http_a_token_opens_what_the_operator_exposed_and_nothing_else_comes_in(
    home: Home,
) -> None:
    home.rlp("import", str(ROOT / "docs/examples/contacts.vcf")).check()
    home.rlp("mcp", "serve", "--http", "127.0.0.1:0").check(2)  # without a token nobody could come in
    token = home.rlp("mcp", "serve", "--new-token", "desk", "--json").check().json["token"]
    other = home.rlp("mcp", "serve", "--new-token", "other").check().out.strip()
    home.rlp("mcp", "serve", "--new-token", "desk").check(8)
    for place in ("0.0.0.0:0", "192.0.2.1:80", "example.org:80", "127.0.0.1:http", "[::]:1"):
        home.rlp("mcp", "serve", "--http", place).check(2)
    everything = b"".join(path.read_bytes() for path in home.path.rglob("*") if path.is_file())
    assert token.encode() not in everything
    assert blob_digest(token.encode()).encode() in everything

    with served(home, "--rate", "1000") as url:

        async def names(bearer: str, era: str) -> set[str]:
            async with client_at(url, bearer, era) as client:
                return {tool.name for tool in (await client.list_tools()).tools}

        assert asyncio.run(names(token, "legacy")) == set()  # nothing is exposed by itself
        home.rlp("mcp", "expose", "kb", "opening:compose_email").check()
        for era in ERAS:
            assert "kb_search" in asyncio.run(names(token, era))

        async def runs() -> dict[str, Any]:
            async with client_at(url, token, "auto") as client:
                asked = {"recipient": "john", "topic": "Q4 plan"}
                mine = structured(await client.call_tool("opening_compose_email", asked))
            async with client_at(url, other, "auto") as client:
                foreign = await client.call_tool("run_result", {"run": mine["run"]})
                assert foreign.is_error
            return mine

        assert asyncio.run(runs())["state"] == "waiting"
        assert "face:desk" in {getattr(e.payload, "principal", "") for e in home.events("run.started")}
        _hostile(url, token)
        _stateful(url, token)
        assert home.events("action.decided") == []
        home.rlp("mcp", "expose", "--hide", "kb").check()
        home.rlp("mcp", "serve", "--revoke", "desk").check()
        # At once, with the server still running; strangers who come too often are told so, and no more.
        assert _post(url, token).status_code in (401, 429)
        wait_until(lambda: _post(url, token).status_code == 401, "the pace of strangers to be kept again")
        assert _post(url, other).status_code == 200
    with served(home, "--rate", "1") as url:  # one token's flood is cut off, and nobody else's door closes
        assert {_post(url, other).status_code for _ in range(40)} == {200, 429}


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"},
    },
}


def _post(url: str, token: str | None, **headers: str) -> httpx2.Response:
    said = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json", **headers}
    if token is not None:
        said["Authorization"] = f"Bearer {token}"
    return httpx2.post(url, json=INITIALIZE, headers=said, timeout=30)


def _hostile(url: str, token: str) -> None:
    """No token, a wrong one, a rebound name, a page, a flood, a body too large: each is told no."""
    assert _post(url, token).status_code == 200
    assert _post(url, token, Host="evil.example:80").status_code == 421
    assert _post(url, token, Host="localhost").status_code == 421
    assert _post(url, token, Origin="http://evil.example").status_code == 403
    assert _post(url, token, Origin="null").status_code == 403
    # Before anybody looks for a token: neither learns whether one would do.
    assert _post(url, None, Host="evil.example:80").status_code == 421
    assert _post(url, None, Origin="http://evil.example").status_code == 403
    big = httpx2.post(
        url,
        content=b'{"pad": "' + b"x" * 1_100_000 + b'"}',
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        timeout=30,
    )
    assert big.status_code == 413
    for wrong in (None, "-", token[:-1], token + "x", "x" * 5_000):
        assert _post(url, wrong).status_code == 401
    # Strangers who come often are not even listened to; whoever has a token is, all the while.
    assert 429 in {_post(url, "wrong").status_code for _ in range(40)}
    assert _post(url, token).status_code == 200


def _stateful(url: str, token: str) -> None:
    """A token of another home, by another way, or with a state and a session that nobody gave it."""
    elsewhere = f"rlt_{secrets.token_urlsafe(32)}"  # as any home makes them; its audience is that home
    for at, brought, more in (
        (url, elsewhere, {}),
        (f"{url}?access_token={token}", None, {}),
        (url, None, {"Cookie": f"token={token}"}),
    ):
        assert _post(at, brought, **more).status_code in (401, 429)
    params = {
        "name": "opening_compose_email",
        "arguments": {"recipient": "john", "topic": "Q4 plan"},
        "requestState": "eyJhcHByb3ZlZCI6dHJ1ZX0",
        "inputResponses": {"approve": {"action": "accept", "content": {"approved": True}}},
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "x", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        },
    }
    said = httpx2.post(
        url,
        json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params},
        headers={
            "Authorization": f"Bearer {token}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Session-Id": "somebody-elses",
            "Mcp-Method": "tools/call",
            "Mcp-Name": "opening_compose_email",
        },
        timeout=90,
    )
    assert said.json()["result"]["structuredContent"]["state"] == "waiting", said.text


@pytest.mark.requirement("I6.faces.1")
@pytest.mark.parametrize("era", ERAS)
def test_a_client_that_cancels_its_call_cancels_the_run(home: Home, era: str) -> None:
    with ScriptedModel([Behave(fake.stall)]) as model:
        home.env.update(model.env())

        async def play() -> None:
            async with mcp.Client(stdio(home, "opening:assistant"), mode=era) as client:
                asked = client.call_tool("opening_assistant", {"prompt": "tell me how things are, please"})
                call = asyncio.create_task(asked)
                await asyncio.to_thread(wait_until, lambda: bool(model.asked), "the model to be asked")
                call.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await call
                ended = lambda: bool(home.events("run.finished"))  # noqa: E731
                await asyncio.to_thread(wait_until, ended, "the run to end")
                assert (await client.list_tools()).tools  # and the connection goes on

        asyncio.run(play())
    (finished,) = [e.payload for e in home.events("run.finished")]
    assert isinstance(finished, RunFinished) and finished.outcome == "cancelled"
    (asked,) = [e.payload for e in home.events("run.cancel_requested")]
    assert isinstance(asked, RunCancelRequested) and "cancelled" in asked.reason

"""A server in the web: reached at the place that was named, at an address that was judged, nowhere else."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from runloop.errors import UsageError
from runloopd.broker.mcp.dialling import Dialler
from runloopd.broker.mcp.spec import ServerSpec, checked
from runloopd.broker.toolbox import TOOL_CODES, ToolError
from tests.contract.raw_web import Authority

from .conftest import CANARY, Mcp, encodings


@pytest.mark.parametrize("legacy", [True, False], ids=["2025-11-25", "2026-07-28"])
@pytest.mark.requirement("I6.mcp.3")
async def test_both_eras_are_served_over_http(mcp: Mcp, port: int, legacy: bool) -> None:
    await mcp.ready(ServerSpec(url=f"http://127.0.0.1:{port}/mcp", legacy=legacy))
    assert mcp.keeper.show("tester")["protocol"] == ("2025-11-25" if legacy else "2026-07-28")
    assert (await mcp.call("mcp.tester.add", a=2, b=3)).value["structured"] == {"result": 5}
    read = await mcp.call("mcp.tester.resources.read", uri="note://rollout")
    assert read.value["contents"][0]["text"] == "note rollout"
    with pytest.raises(ToolError) as caught:
        await mcp.call("mcp.tester.slow", 300, seconds=60)
    assert caught.value.named_code == "tool.timeout"
    with pytest.raises(ToolError) as died:
        await mcp.call("mcp.tester.dies", status=1)
    assert died.value.named_code in ("tool.unavailable", "tool.result", "tool.failed")


Answering = Callable[[bytes, asyncio.StreamWriter], object]


@asynccontextmanager
async def answering(answer: Answering, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A web server that answers every request with whatever ``answer`` writes."""
    requests: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.add(asyncio.current_task())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
            found = answer(head + body, writer)
            if asyncio.iscoroutine(found):
                await found
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


def head(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "Connection: close", "", ""]).encode()


async def endless(writer: asyncio.StreamWriter, piece: bytes) -> None:
    while True:
        writer.write(piece)
        await writer.drain()


BOMBS: dict[str, Answering] = {
    "endless json": lambda _, w: (
        w.write(head("200 OK", "Content-Type: application/json") + b'{"a":"'),
        endless(w, b"x" * 65536),
    )[1],
    "endless event": lambda _, w: (
        w.write(head("200 OK", "Content-Type: text/event-stream") + b"data: "),
        endless(w, b"x" * 65536),
    )[1],
    "packed": lambda _, w: w.write(
        head("200 OK", "Content-Type: application/json", "Content-Encoding: gzip") + b"\x1f\x8b\x08"
    ),
    "nested": lambda _, w: w.write(
        head("200 OK", "Content-Type: application/json") + b"[" * 100_000 + b"]" * 100_000
    ),
    "not there": lambda _, w: w.write(head("404 Not Found", "Content-Length: 0")),
    "wants a login": lambda _, w: w.write(
        head(
            "401 Unauthorized",
            'WWW-Authenticate: Bearer resource_metadata="http://169.254.169.254/latest"',
            "Content-Length: 0",
        )
    ),
    "endless headers": lambda _, w: endless(w, b"HTTP/1.1 200 OK\r\nX-A: " + b"y" * 4096 + b"\r\n"),
}


WHY = {
    "endless json": "an answer of more than 5177344 bytes",
    "endless event": "exceeded the 1048576 byte limit",
    "packed": "the answer is packed (gzip)",
    "nested": "recursion limit exceeded",
}


@pytest.mark.requirement("W8")
async def test_answers_without_bounds_end_with_a_code(mcp: Mcp) -> None:
    async def look(name: str, bomb: Answering) -> tuple[str, str]:
        async with answering(bomb) as port:
            await mcp.add(name, ServerSpec(url=f"http://127.0.0.1:{port}/mcp"))
            with pytest.raises(ToolError) as caught:
                async with asyncio.timeout(60):
                    await mcp.keeper.look(name)
            return caught.value.named_code, caught.value.message

    names = {kind: f"bomb_{number}" for number, kind in enumerate(BOMBS)}
    ended = await asyncio.gather(*(look(names[kind], bomb) for kind, bomb in BOMBS.items()))
    assert {code for code, _ in ended} <= TOOL_CODES
    assert max(len(message) for _, message in ended) < 3_000
    for kind, why in WHY.items():
        assert why in ended[list(BOMBS).index(kind)][1], kind


@pytest.mark.requirement("M2", "I6.mcp.9")
async def test_no_address_that_a_server_sends_is_dialled(mcp: Mcp) -> None:
    """Redirects, authorisation and metadata URLs: discovery leads nowhere (attacks.md M2, M12)."""
    reached: list[bytes] = []
    async with answering(lambda asked, w: (reached.append(asked), w.write(head("404 Not Found")))) as other:
        elsewhere = f"http://127.0.0.1:{other}/"
        steps = iter(
            [
                head("307 Temporary Redirect", f"Location: {elsewhere}", "Content-Length: 0"),
                head("302 Found", f"Location: {elsewhere}", "Content-Length: 0"),
                head(
                    "401 Unauthorized",
                    f'WWW-Authenticate: Bearer resource_metadata="{elsewhere}", as_uri="{elsewhere}"',
                    "Content-Length: 0",
                ),
            ]
        )
        last = [b""]

        def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
            last[0] = next(steps, last[0])
            writer.write(last[0])

        async with answering(answer) as port:
            await mcp.add("tester", ServerSpec(url=f"http://127.0.0.1:{port}/mcp"))
            for _ in range(2):
                with pytest.raises(ToolError):
                    await mcp.keeper.look("tester")
    assert not reached


@pytest.mark.requirement("I6.mcp.9")
async def test_a_server_is_judged_by_its_certificate(mcp: Mcp, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.server(x509.IPAddress(ip_address("127.0.0.1")))
    async with answering(BOMBS["not there"], tls) as port:
        await mcp.add("tester", ServerSpec(url=f"https://127.0.0.1:{port}/mcp"))
        with pytest.raises(ToolError, match="CERTIFICATE_VERIFY_FAILED"):
            await mcp.keeper.look("tester")
        mcp.source._launcher._authorities = str(authority.file)
        with pytest.raises(ToolError, match="Not Found"):
            await mcp.keeper.look("tester")


@pytest.mark.requirement("I6.mcp.5")
async def test_a_token_goes_to_the_server_and_comes_back_masked(mcp: Mcp) -> None:
    mcp.world.vault.put("runloop/mcp/token", CANARY)
    heard: list[bytes] = []

    def answer(asked: bytes, writer: asyncio.StreamWriter) -> None:
        heard.append(asked)
        body = json.dumps(
            {"jsonrpc": "2.0", "id": 0, "error": {"code": -32000, "message": f"your key {CANARY} is old"}}
        ).encode()
        writer.write(
            head("403 Forbidden", "Content-Type: application/json", f"Content-Length: {len(body)}") + body
        )

    async with answering(answer) as port:
        await mcp.add(
            "tester", ServerSpec(url=f"http://127.0.0.1:{port}/mcp", secrets={"bearer": "runloop/mcp/token"})
        )
        with pytest.raises(ToolError) as caught:
            await mcp.keeper.look("tester")
    assert f"authorization: bearer {CANARY}".encode() in heard[0].lower()
    said = f"{caught.value} {caught.value.message} {mcp.keeper.show('tester')}"
    kept = b"".join(path.read_bytes() for path in mcp.world.home.rglob("*") if path.is_file())
    for form in encodings(CANARY):
        assert form not in said
        assert form.encode() not in kept


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.7",
        "169.254.169.254",
        "::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "100.64.0.1",
    ],
)
@pytest.mark.requirement("I6.mcp.9")
async def test_a_name_that_leads_to_an_address_that_is_not_public_is_refused(address: str) -> None:
    async def resolver(_: str, __: int) -> list[str]:
        return ["93.184.216.34", address]

    spec = checked(ServerSpec(url="https://mcp.example.org/mcp"))
    with pytest.raises(Exception, match="no public address") as caught:
        await Dialler(spec, resolver).dial("mcp.example.org", 443)
    assert getattr(caught.value, "named_code", "") == "net.address"


@pytest.mark.parametrize(("host", "port"), [("other.example.org", 443), ("mcp.example.org", 8443)])
@pytest.mark.requirement("I6.mcp.9")
async def test_another_place_than_the_named_one_is_refused(host: str, port: int) -> None:
    spec = checked(ServerSpec(url="https://mcp.example.org/mcp"))
    with pytest.raises(Exception, match="not where this server was added") as caught:
        await Dialler(spec).dial(host, port)
    assert getattr(caught.value, "named_code", "") == "net.host"


@pytest.mark.parametrize(
    "url",
    [
        "http://mcp.example.org/mcp",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://user:pw@mcp.example.org/",
        "https://mcp.example.org\\@127.0.0.1/",
        "stdio:calc.exe",
        "$(touch x)",
    ],
)
def test_a_url_that_is_not_plain_https_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        checked(ServerSpec(url=url))

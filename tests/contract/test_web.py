"""The web, over real sockets: who is dialled, what is believed, and where an answer ends."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from runloop.caps.destination import Destination, kind_of_address, parse_destination
from runloop.errors import RefusedError
from runloopd.broker.ports import ProviderError
from runloopd.broker.providers.web import Address, Web, WebLimits, WebRequest, WebResponse

from .raw_web import Authority, RawWeb, answer


class Allows:
    """Everything but what is not public; remembers what it was asked."""

    def __init__(self, *named: str) -> None:
        self._named = {ip_address(text) for text in named}
        self.checked: list[str] = []
        self.dialled: list[str] = []

    def check(self, method: str, place: Destination) -> None:
        self.checked.append(f"{method} {place}")

    def dial(self, place: Destination, address: Address) -> None:
        self.dialled.append(str(address))
        if kind_of_address(address) is not None and address not in self._named:
            raise RefusedError(f"{address} is not public", code="net.address")


class Names:
    """A resolver that answers from a table; the n-th question gets the n-th answer, the last one for ever."""

    def __init__(self, **table: Sequence[Sequence[str]]) -> None:
        self._table = {name.replace("_", "."): list(answers) for name, answers in table.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self._table.get(host)
        if not answers:
            raise OSError("no such name")
        return answers.pop(0) if len(answers) > 1 else answers[0]


LOCAL = ("127.0.0.1", "::1")


@asynccontextmanager
async def web(**more: Any) -> AsyncIterator[Web]:
    made = Web(**more)
    try:
        yield made
    finally:
        await made.close()


def request(url: str, **more: Any) -> WebRequest:
    return WebRequest(method=more.pop("method", "GET"), place=parse_destination(url), **more)


async def fetch(url: str, *, says: Any = None, limits: WebLimits | None = None, **more: Any) -> WebResponse:
    """One exchange with a server of ours that stands on loopback, which is granted."""
    async with RawWeb(says if says is not None else answer(b"hello")) as server, web(limits=limits) as it:
        return await it.exchange(request(url.replace("PORT", str(server.port)), **more), Allows(*LOCAL))


async def failure(says: Any, *, limits: WebLimits | None = None, **more: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await fetch("http://127.0.0.1:PORT/", says=says, limits=limits, **more)
    return caught.value


# --- what is sent ---------------------------------------------------------------------------------


async def test_an_answer_comes_back_whole_with_the_headers_that_describe_it() -> None:
    says = answer(b"hello", ETag='"1"', Set_Cookie="id=1", X_Internal="x")
    got = await fetch("http://127.0.0.1:PORT/a?b=c", says=says)
    assert (got.status, got.body, got.truncated) == (200, b"hello", False)
    assert got.headers == {"content-type": "text/plain", "etag": '"1"'}


async def test_a_request_carries_its_own_headers_and_nothing_of_its_surroundings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with RawWeb(answer(b"", Set_Cookie="id=1; Path=/")) as server, web() as it:
        url = f"http://127.0.0.1:{server.port}/a?b=%20c"
        for _ in range(2):
            await it.exchange(request(url, headers=(("Accept", "text/plain"),)), Allows(*LOCAL))
    lines = [sorted(head.decode().strip().split("\r\n")) for head in server.requests]
    assert lines[0] == lines[1]
    assert lines[0] == sorted(
        [
            "GET /a?b=%20c HTTP/1.1",
            f"Host: 127.0.0.1:{server.port}",
            "Accept: text/plain",
            "Accept-Encoding: gzip, deflate",
            "Connection: close",
            "User-Agent: runloop",
        ]
    )


async def test_a_head_request_has_no_body() -> None:
    got = await fetch("http://127.0.0.1:PORT/", method="HEAD", says=answer(b"hello")[:-5])
    assert (got.status, got.body) == (200, b"")


# --- names and addresses --------------------------------------------------------------------------


async def test_the_address_that_was_checked_is_the_one_that_is_dialled() -> None:
    """DNS rebinding: the second look-up would lead somewhere else, and there is none."""
    names = Names(api_example=[["127.0.0.1"], ["127.0.0.2"]])
    async with RawWeb(answer(b"here")) as server, web(resolver=names) as it:
        allows = Allows("127.0.0.1")
        got = await it.exchange(request(f"http://api.example:{server.port}/"), allows)
        assert got.body == b"here"
        assert f"Host: api.example:{server.port}".encode() in server.requests[0]
        with pytest.raises(RefusedError) as caught:
            await it.exchange(request(f"http://api.example:{server.port}/"), allows)
    assert caught.value.named_code == "net.address"
    assert names.asked == ["api.example", "api.example"]
    assert allows.dialled == ["127.0.0.1", "127.0.0.2"]
    assert len(server.requests) == 1


@pytest.mark.parametrize("private", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "::1"])
async def test_one_private_address_among_public_ones_condemns_the_name(private: str) -> None:
    names = Names(api_example=[["93.184.215.14", private]])
    async with web(resolver=names) as it:
        with pytest.raises(RefusedError):
            await it.exchange(request("https://api.example/"), Allows())


@pytest.mark.requirement("P4")
async def test_a_name_is_resolved_only_after_it_was_permitted() -> None:
    names = Names(api_example=[["93.184.215.14"]])

    class Refuses(Allows):
        def check(self, method: str, place: Destination) -> None:
            raise RefusedError("no", code="cap.denied")

    async with web(resolver=names) as it:
        with pytest.raises(RefusedError):
            await it.exchange(request("https://secret.api.example/"), Refuses())
    assert names.asked == []


async def test_a_name_without_an_address_can_be_tried_again() -> None:
    async with web(resolver=Names()) as it:
        with pytest.raises(ProviderError) as caught:
            await it.exchange(request("https://api.example/"), Allows())
    assert (caught.value.named_code, caught.value.retryable) == ("http.unreachable", True)


async def test_the_next_address_is_tried_when_nobody_listens_at_the_first() -> None:
    names = Names(api_example=[["127.0.0.2", "127.0.0.1"]])
    async with RawWeb(answer(b"here")) as server, web(resolver=names) as it:
        got = await it.exchange(
            request(f"http://api.example:{server.port}/"), Allows("127.0.0.1", "127.0.0.2")
        )
    assert got.body == b"here"


async def test_an_ipv6_address_is_dialled_as_it_is_written() -> None:
    async with RawWeb(answer(b"six"), host="::1") as server, web() as it:
        got = await it.exchange(request(f"http://[0:0::1]:{server.port}/"), Allows("::1"))
    assert got.body == b"six"
    assert f"Host: [::1]:{server.port}".encode() in server.requests[0]


async def test_nobody_listening_is_told_as_that() -> None:
    async with RawWeb() as server:
        port = server.port
    async with web() as it:
        with pytest.raises(ProviderError) as caught:
            await it.exchange(request(f"http://127.0.0.1:{port}/"), Allows(*LOCAL))
    assert (caught.value.named_code, caught.value.retryable) == ("http.unreachable", True)


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


async def test_a_server_proves_the_name_and_not_the_address_it_was_dialled_at(authority: Authority) -> None:
    tls = authority.server(x509.DNSName("api.example"))
    names = Names(api_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
    async with RawWeb(answer(b"safe"), tls=tls) as server, web(resolver=names, tls=authority.trusted) as it:
        got = await it.exchange(request(f"https://API.example.:{server.port}/"), Allows("127.0.0.1"))
        assert got.body == b"safe"
        with pytest.raises(ProviderError) as caught:
            await it.exchange(request(f"https://other.example:{server.port}/"), Allows("127.0.0.1"))
        assert server.names == ["api.example", "other.example"]
    assert (caught.value.named_code, caught.value.retryable) == ("http.tls", False)
    assert len(server.requests) == 1


async def test_a_server_may_prove_an_address(authority: Authority) -> None:
    tls = authority.server(x509.IPAddress(ip_address("127.0.0.1")))
    async with RawWeb(answer(b"safe"), tls=tls) as server, web(tls=authority.trusted) as it:
        got = await it.exchange(request(f"https://127.0.0.1:{server.port}/"), Allows("127.0.0.1"))
    assert got.body == b"safe"


async def test_a_certificate_of_a_stranger_is_not_believed(authority: Authority) -> None:
    tls = authority.server(x509.IPAddress(ip_address("127.0.0.1")))
    async with RawWeb(answer(b"safe"), tls=tls) as server, web() as it:
        with pytest.raises(ProviderError) as caught:
            await it.exchange(request(f"https://127.0.0.1:{server.port}/"), Allows("127.0.0.1"))
    assert caught.value.named_code == "http.tls"
    assert server.requests == []


async def test_an_operator_may_name_authorities_beside_the_systems(authority: Authority) -> None:
    tls = authority.server(x509.IPAddress(ip_address("127.0.0.1")))
    async with RawWeb(answer(b"safe"), tls=tls) as server, web(authorities=str(authority.file)) as it:
        got = await it.exchange(request(f"https://127.0.0.1:{server.port}/"), Allows("127.0.0.1"))
    assert got.body == b"safe"
    async with web(authorities="/nowhere/ours.pem") as it:
        with pytest.raises(ProviderError) as caught:
            await it.exchange(request("https://127.0.0.1/"), Allows("127.0.0.1"))
    assert caught.value.named_code == "http.tls" and "web_authorities" in str(caught.value.hint)


# --- redirects ------------------------------------------------------------------------------------


def redirect(to: str, status: str = "302 Found") -> bytes:
    return answer(b"elsewhere", status=status, Location=to)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 T", "308 P"])
async def test_a_redirect_is_followed_after_both_places_were_checked(status: str) -> None:
    async with (
        RawWeb(answer(b"there")) as there,
        RawWeb(redirect(f"http://127.0.0.1:{there.port}/b", status)) as here,
        web() as it,
    ):
        allows = Allows(*LOCAL)
        sent = request(
            f"http://127.0.0.1:{here.port}/a",
            headers=(("Authorization", "Bearer of-this-server"), ("Accept", "text/plain")),
        )
        got = await it.exchange(sent, allows)
    assert (got.body, str(got.place)) == (b"there", f"http://127.0.0.1:{there.port}/b")
    assert allows.checked == [f"GET http://127.0.0.1:{here.port}/a", f"GET http://127.0.0.1:{there.port}/b"]
    assert b"of-this-server" in here.requests[0]
    assert b"of-this-server" not in there.requests[0] and b"Accept: text/plain" in there.requests[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"])
async def test_a_redirect_into_this_machine_is_refused(host: str) -> None:
    names = Names(api_example=[["127.0.0.9"]], localhost=[["127.0.0.1"]])
    async with (
        RawWeb(answer(b"inside")) as inside,
        RawWeb(redirect(f"http://{host}:{inside.port}/"), host="127.0.0.9") as outside,
        web(resolver=names) as it,
    ):
        with pytest.raises(RefusedError) as caught:
            await it.exchange(request(f"http://api.example:{outside.port}/"), Allows("127.0.0.9"))
    assert caught.value.named_code == "net.address"
    assert inside.requests == []


async def test_a_redirect_off_tls_is_refused(authority: Authority) -> None:
    tls = authority.server(x509.IPAddress(ip_address("127.0.0.1")))
    async with (
        RawWeb(answer(b"plain")) as plain,
        RawWeb(redirect(f"http://127.0.0.1:{plain.port}/"), tls=tls) as safe,
        web(tls=authority.trusted) as it,
    ):
        with pytest.raises(ProviderError) as caught:
            await it.exchange(request(f"https://127.0.0.1:{safe.port}/"), Allows(*LOCAL))
    assert caught.value.named_code == "http.redirects"
    assert plain.requests == []


async def test_a_ring_of_redirects_ends() -> None:
    error = await failure(redirect("/again"))
    assert error.named_code == "http.redirects"


async def test_only_what_reads_follows_a_redirect() -> None:
    got = await fetch("http://127.0.0.1:PORT/", says=redirect("/b"), method="POST", body=b"x")
    assert (got.status, got.body) == (302, b"elsewhere")


# --- bounds ---------------------------------------------------------------------------------------


async def test_what_is_longer_than_asked_for_is_cut() -> None:
    got = await fetch("http://127.0.0.1:PORT/", says=answer(b"0123456789"), max_bytes=4)
    assert (got.body, got.truncated) == (b"0123", True)
    whole = await fetch("http://127.0.0.1:PORT/", says=answer(b"0123456789"), max_bytes=10)
    assert (whole.body, whole.truncated) == (b"0123456789", False)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 9, mtime=0),
    "x-gzip": lambda data: gzip.compress(data[:3], mtime=0) + gzip.compress(data[3:]),
    "deflate": lambda data: zlib.compress(data, 9),
    "deflate (bare)": raw_deflate,
}


@pytest.mark.parametrize("packing", PACKINGS)
async def test_a_packed_answer_is_unpacked(packing: str) -> None:
    data = b"the weather in Bern " * 20
    says = answer(PACKINGS[packing](data), Content_Encoding=packing.partition(" ")[0])
    assert (await fetch("http://127.0.0.1:PORT/", says=says)).body == data


@pytest.mark.requirement("W8")
@pytest.mark.parametrize("packing", ["gzip", "deflate", "deflate (bare)"])
async def test_a_bomb_is_not_unpacked(packing: str) -> None:
    bomb = PACKINGS[packing](bytes(8 * 1024 * 1024))
    says = answer(bomb, Content_Encoding=packing.partition(" ")[0])
    error = await failure(says, max_bytes=4 * 1024 * 1024)
    assert error.named_code == "http.bomb"
    small = await fetch("http://127.0.0.1:PORT/", says=says, max_bytes=1_000)
    assert (len(small.body), small.truncated) == (1_000, True)


@pytest.mark.requirement("W8")
@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "deflate, gzip", "gzip,br"])
async def test_a_packing_that_was_not_asked_for_is_not_unpacked(encoding: str) -> None:
    twice = gzip.compress(gzip.compress(bytes(1024 * 1024)))
    assert (await failure(answer(twice, Content_Encoding=encoding))).named_code == "http.encoding"


@pytest.mark.requirement("W8")
async def test_a_stream_that_packs_nothing_for_ever_ends() -> None:
    async def endless(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n\r\n" + b"\x78\x01")
        while True:
            writer.write(b"\x00\x00\x00\xff\xff" * 4_000)  # empty stored blocks
            await writer.drain()

    assert (await failure(endless, max_bytes=1_000)).named_code == "http.bomb"
    members = gzip.compress(b"", mtime=0) * 3_000
    assert (await failure(answer(members, Content_Encoding="gzip"))).named_code == "http.encoding"


@pytest.mark.parametrize(
    "data",
    [b"not packed", gzip.compress(b"hello" * 100, mtime=0)[:-20], gzip.compress(b"x", mtime=0) + b"junk"],
)
async def test_a_broken_packing_is_an_error_and_not_half_an_answer(data: bytes) -> None:
    assert (await failure(answer(data, Content_Encoding="gzip"))).named_code == "http.encoding"


async def test_an_answer_that_is_cut_is_an_error_and_not_half_an_answer() -> None:
    error = await failure(answer(b"0123456789")[:-3])
    assert (error.named_code, error.retryable) == ("http.cut", True)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    assert (await failure(chunked)).named_code == "http.cut"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"220 smtp.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Header: x\r\n\r\n",
        b"\x00" * 500,
    ],
)
async def test_what_is_no_http_is_refused(nonsense: bytes) -> None:
    assert (await failure(nonsense)).named_code in ("http.cut", "http.protocol")


async def test_headers_have_a_bound() -> None:
    many = answer(b"", **{f"X_{n}": "v" for n in range(200)})
    assert (await failure(many)).named_code == "http.headers"
    assert (await failure(answer(b"", X_Big="v" * 70_000))).named_code == "http.headers"

    async def endless(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-More: " + b"v" * 1_000 + b"\r\n")
            await writer.drain()

    assert (await failure(endless)).named_code in ("http.cut", "http.protocol")


async def test_a_header_that_is_no_text_is_not_shown() -> None:
    says = answer(b"", ETag="a\x1b[2J")
    got = await fetch("http://127.0.0.1:PORT/", says=says)
    assert "etag" not in got.headers
    long = await fetch("http://127.0.0.1:PORT/", says=answer(b"", ETag="a" * 9_000))
    assert "etag" not in long.headers


async def test_a_server_that_falls_silent_is_left() -> None:
    async def silent(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"0123456789")[:-5])
        await writer.drain()
        await asyncio.Event().wait()

    error = await failure(silent, limits=WebLimits(idle_ms=50))
    assert (error.named_code, error.retryable) == ("http.timeout", True)


async def test_a_server_that_drips_is_left_in_the_end() -> None:
    async def drip(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.01)

    error = await failure(drip, limits=WebLimits(total_ms=200, idle_ms=10_000))
    assert error.named_code == "http.timeout"


async def test_a_name_that_hangs_is_left_in_the_end() -> None:
    async def hang(_host: str, _port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    async with web(resolver=hang, limits=WebLimits(total_ms=50)) as it:
        with pytest.raises(ProviderError) as caught:
            await it.exchange(request("https://api.example/"), Allows())
    assert caught.value.named_code == "http.timeout"


async def test_a_run_that_meets_deaf_servers_does_not_stop_another() -> None:
    async def deaf(_head: bytes, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    limits = WebLimits(at_once=3, at_once_each=2)
    async with RawWeb(deaf) as slow, RawWeb(answer(b"quick")) as quick, web(limits=limits) as it:
        url = f"http://127.0.0.1:{slow.port}/"
        stuck = [
            asyncio.create_task(it.exchange(request(url, owner="greedy"), Allows(*LOCAL))) for _ in range(5)
        ]
        while len(slow.requests) < 2:
            await asyncio.sleep(0.001)
        url = f"http://127.0.0.1:{quick.port}/"
        got = await asyncio.wait_for(it.exchange(request(url, owner="modest"), Allows(*LOCAL)), 20)
        assert got.body == b"quick"
        assert len(slow.requests) == 2
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


async def test_an_effect_that_may_have_happened_is_told_as_unknown() -> None:
    error = await failure(answer(b"0123456789")[:-3], method="POST", body=b"x")
    assert error.outcome == "unknown"
    async with RawWeb() as server:
        port = server.port
    async with web() as it:
        with pytest.raises(ProviderError) as caught:
            await it.exchange(request(f"http://127.0.0.1:{port}/", method="POST", body=b"x"), Allows(*LOCAL))
    assert caught.value.outcome == "absent"


async def test_a_failure_names_the_server_and_nothing_that_was_sent() -> None:
    with pytest.raises(ProviderError) as caught:
        await fetch(
            "http://127.0.0.1:PORT/?token=hunter2",
            says=b"",
            headers=(("Authorization", "Bearer hunter2"),),
        )
    assert "hunter2" not in repr(caught.value) + str(caught.value.__cause__)
    assert caught.value.__cause__ is None and caught.value.__context__ is None


async def test_the_real_resolver_knows_this_machine() -> None:
    async with RawWeb(answer(b"here")) as server, web() as it:
        got = await it.exchange(request(f"http://localhost:{server.port}/"), Allows(*LOCAL))
    assert got.body == b"here"

"""Which servers a program reaches: by name, by port, and only at the addresses that were judged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from runloop.caps.destination import parse_destination
from runloop.caps.grants import NetRule
from runloop.errors import RunloopError
from runloopd.broker.tools.egress import GrantedHosts, OnlyTo


def resolves(*addresses: str) -> object:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


async def refused(rules: Sequence[NetRule] | bool, host: str, port: int, *addresses: str) -> str:
    egress = GrantedHosts(rules, resolve=resolves(*addresses))  # type: ignore[arg-type]
    with pytest.raises(RunloopError) as caught:
        await egress.connect(host, port)
    return caught.value.named_code


@pytest.mark.parametrize(
    ("rules", "host", "port", "address", "code"),
    [
        ([], "a.example", 443, "93.184.216.34", "cap.denied"),
        ([NetRule(host="b.example")], "a.example", 443, "93.184.216.34", "cap.denied"),
        ([NetRule(host="a.example", port=8443)], "a.example", 443, "93.184.216.34", "cap.denied"),
        ([NetRule(host="a.example", methods=("GET",))], "a.example", 443, "93.184.216.34", "cap.denied"),
        ([NetRule(host="a.example", paths=("/x",))], "a.example", 443, "93.184.216.34", "cap.denied"),
        ([NetRule(host="a.example")], "a.example", 443, "127.0.0.1", "net.address"),
        ([NetRule(host="a.example")], "a.example", 443, "169.254.169.254", "net.address"),
        ([NetRule(host="a.example")], "a.example", 443, "::ffff:10.0.0.1", "net.address"),
        (True, "a.example", 443, "10.0.0.1", "net.address"),
        ([NetRule(host="127.0.0.1", port=1)], "127.0.0.1", 2, "127.0.0.1", "cap.denied"),
        ([NetRule(host="a.example")], "0x7f.1", 443, "127.0.0.1", "http.url"),
    ],
)
@pytest.mark.requirement("I6.programs.3")
async def test_what_is_not_granted_is_not_dialled(
    rules: Sequence[NetRule] | bool, host: str, port: int, address: str, code: str
) -> None:
    assert await refused(rules, host, port, address) == code


async def test_one_address_of_a_name_that_may_not_be_dialled_condemns_it() -> None:
    rules = [NetRule(host="a.example")]
    assert await refused(rules, "a.example", 443, "93.184.216.34", "127.0.0.1") == "net.address"


async def test_what_is_granted_is_dialled_at_the_address_that_was_judged() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    noted: list[tuple[str, int, int]] = []
    rules = [NetRule(host="a.example"), NetRule(host="127.0.0.1", port=port)]
    egress = GrantedHosts(
        rules,
        resolve=resolves("127.0.0.1"),  # type: ignore[arg-type]
        noted=lambda host, at, size: noted.append((host, at, size)),
    )
    reader, writer = await egress.connect("a.example", port)
    assert await reader.read() == b"" and noted == [("a.example", port, 0)]
    egress.sending("a.example", port, 7)
    assert noted[1:] == [("a.example", port, 7)]
    writer.close()
    server.close()


@pytest.mark.requirement("I6.programs.3")
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
async def test_a_program_that_goes_to_one_place_reaches_no_other_that_is_granted(host: str) -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    rules = [NetRule(host="127.0.0.1"), NetRule(host="127.0.0.2")]
    place = parse_destination(f"https://127.0.0.1:{port}/x.git")
    egress = OnlyTo(place, GrantedHosts(rules))
    _, writer = await egress.connect("127.0.0.1", port)
    writer.close()
    other = (host, port + 1 if host == "127.0.0.1" else port)
    with pytest.raises(RunloopError) as caught:
        await egress.connect(*other)
    assert caught.value.named_code == "cap.denied"
    server.close()

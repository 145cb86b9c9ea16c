"""Model servers found on this machine: who is asked, who is believed, and how long nobody is waited for."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from runloop.config import MODEL_SERVERS, Models
from runloopd.broker.models import Patience
from runloopd.broker.providers.discovery import (
    LOCAL_SERVERS,
    LocalServer,
    ask_server,
    owned_here,
    owners,
    trusted,
)
from runloopd.broker.providers.http import Http, HttpLimits, is_loopback
from tests.contract import fake_model_server as fake
from tests.contract.conftest import NOWHERE, BrokerMaker, RestlessClock, ask, budget, provider
from tests.contract.fake_model_server import Exchange, FakeModelServer
from tests.contract.scripted_model import MODEL, ScriptedModel, say

LIST = {"object": "list", "data": [{"id": "a-7b", "object": "model"}]}


def at(url: str, name: str = "vllm") -> LocalServer:
    return LocalServer(name=name, kind="ollama" if name == "ollama" else "openai", url=url)


@pytest.fixture
async def http() -> Any:
    made = Http(HttpLimits(connect_ms=2_000, idle_ms=2_000))
    yield made
    await made.close()


def test_nobody_but_this_machine_is_looked_at() -> None:
    assert all(is_loopback(server.url.split("//")[1].split(":")[0]) for server in LOCAL_SERVERS)
    assert tuple(server.name for server in LOCAL_SERVERS) == MODEL_SERVERS
    assert Models().looked_for == MODEL_SERVERS
    assert Models(detect="vllm ollama").looked_for == ("ollama", "vllm")
    assert Models(detect="none").looked_for == Models(detect_ollama=False).looked_for == ()


@pytest.mark.requirement("I6.adapters.1")
@pytest.mark.parametrize("name", MODEL_SERVERS)
async def test_each_kind_of_server_is_found_by_its_own_list_and_answers(
    broker: BrokerMaker, clock: RestlessClock, name: str
) -> None:
    with ScriptedModel([say("Hello.")]) as server:
        made = broker(servers=(at(server.url, name),), detect=name)
        answer = await made.complete(ask(), budget=budget(clock), on_delta=None, idempotency_key="k" * 64)
        (asked,) = server.asked
    assert (answer.provider, answer.model, answer.cost_micro_usd) == (name, MODEL, 0)
    assert asked.dialect == ("ollama" if name == "ollama" else "openai")
    headers = server.posts[0].headers
    assert "Authorization" not in headers, "a server that was found is given no key"


async def test_a_server_that_was_not_to_be_looked_for_is_not_asked(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    with ScriptedModel([say("Hello.")]) as server:
        made = broker(servers=(at(server.url),), detect="ollama llamacpp")
        routes = await made.routes()
    assert [route.target for route in routes] == ["rules:template-1"] and server.seen == []


NOT_MODELS = {
    "a page": fake.raw(b"<html>hello</html>"),
    "nothing": fake.status(404),
    "a refusal": fake.status(401),
    "another list": fake.as_json({"object": "list", "data": [{"id": "a"}]}),
    "other rows": fake.as_json({"object": "list", "data": [{"id": "a", "object": "file"}]}),
    "a list of another kind": fake.as_json({**LIST, "object": "page"}),
    "a bare list": fake.as_json([{"id": "a", "object": "model"}]),
    "no word for list": fake.as_json({"data": LIST["data"]}),
    "names that are none": fake.as_json({"object": "list", "data": [{"id": "\x1b[2J", "object": "model"}]}),
    "numbers": fake.as_json({"object": "list", "data": [{"id": 7, "object": "model"}]}),
    "only embeddings": fake.as_json(
        {"object": "list", "data": [{"id": "nomic-embed-text", "object": "model"}]}
    ),
    "a bomb": fake.bomb,
    "somewhere else": fake.status(302, Location="http://192.0.2.1/v1/models"),
}


@pytest.mark.requirement("I6.adapters.5")
@pytest.mark.parametrize("what", NOT_MODELS)
async def test_a_strangers_server_on_a_usual_port_is_no_model(http: Http, what: str) -> None:
    with FakeModelServer(fake.openai("no"), tags=NOT_MODELS[what]) as server:
        listing = await ask_server(http, at(server.url), timeout_s=2)
        assert listing.models == () and "no model server answers" in listing.why
        assert [seen.path for seen in server.seen] == ["/v1/models"]


async def test_models_that_run_elsewhere_behind_a_local_server_are_not_local(http: Http) -> None:
    rows = [
        {"name": "gpt-oss:120b-cloud", "details": {"family": "gptoss"}},
        {"name": "deep", "remote_host": "https://models.example", "details": {"family": "x"}},
        {"name": "tiny:1b", "details": {"family": "llama"}},
    ]
    with FakeModelServer(fake.openai("no"), tags=fake.as_json({"models": rows})) as server:
        listing = await ask_server(http, at(server.url, "ollama"), timeout_s=2)
    assert listing.models == ("tiny:1b",)


async def test_such_a_model_costs_and_leaves_this_machine_also_when_it_is_named(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    (route, *_) = await broker(provider(NOWHERE, "ollama", model="gpt-oss:120b-cloud")).routes()
    assert not route.local and route.price_version is None


async def test_several_silent_servers_cost_the_patience_of_one(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    together = asyncio.Event()
    waiting = 0

    def silent(x: Exchange) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 3:
            loop.call_soon_threadsafe(together.set)
        x.stall()

    loop = asyncio.get_running_loop()
    with (
        FakeModelServer(fake.stall, tags=silent) as one,
        FakeModelServer(fake.stall, tags=silent) as two,
        FakeModelServer(fake.stall, tags=silent) as three,
    ):
        servers = (at(one.url, "ollama"), at(two.url, "vllm"), at(three.url, "lmstudio"))
        made = broker(servers=servers, detect="ollama vllm lmstudio", patience=Patience(detect_ms=3_000))
        looking = asyncio.create_task(made.routes())
        # All three are asked before the first is given up.
        await asyncio.wait_for(together.wait(), 2.5)
        for server in (one, two, three):
            server.released.set()
        assert [route.target for route in await looking] == ["rules:template-1"]


async def test_a_list_is_asked_for_once_in_a_while(broker: BrokerMaker, clock: RestlessClock) -> None:
    with FakeModelServer(fake.openai("no"), tags=fake.as_json(LIST)) as server:
        made = broker(servers=(at(server.url),), detect="vllm")
        await asyncio.gather(*(made.routes() for _ in range(5)))
        assert len(server.seen) == 1
        clock.advance(60_001)
        await made.routes()
        assert len(server.seen) == 2


# --- whose it is ----------------------------------------------------------------------------------


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 1 1
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1002        0 3 1
   3: 0101A8C0:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1003        0 4 1
   4: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1004        0 5 1
   5: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0  1005 0 6
   6: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0  1006 0 7
   7: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0  1007 0 8
   8: torn
"""


def test_everybody_who_could_answer_on_a_port_is_told_from_who_could_not() -> None:
    assert owners(8080, TABLE) == {1001, 0, 1005, 1006, 1007}
    assert owners(8081, TABLE) == {1004}
    assert owners(1, TABLE) == owners(8080, "") == set()


def test_one_stranger_among_those_who_may_answer_is_enough_to_trust_nobody() -> None:
    assert trusted({1001}, me=1001) and trusted({1001, 0, 998}, me=1001)
    assert not trusted({1001, 1002}, me=1001)
    assert not trusted({1002}, me=1001) and not trusted(set(), me=1001)
    assert not trusted({1001}, me=0), "root trusts people no more than others do"


def test_a_port_nobody_listens_on_or_far_away_belongs_to_nobody_we_trust() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert not owned_here(f"http://127.0.0.1:{bound.getsockname()[1]}"), "bound, but not listening"
        bound.listen()
        assert owned_here(f"http://127.0.0.1:{bound.getsockname()[1]}")
    assert not owned_here("http://192.0.2.1:80") and not owned_here("http://127.0.0.1")


LISTENER = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
body = b'{"object": "list", "data": [{"id": "trap", "object": "model"}]}'
while True:
    connection, _ = server.accept()
    connection.recv(65536)
    head = b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Type: application/json\\r\\nContent-Length: "
    connection.sendall(head + str(len(body)).encode() + b"\\r\\n\\r\\n" + body)
    connection.close()
"""


@pytest.fixture
def stranger() -> Iterator[str]:
    """A real server, run by somebody else."""
    process = subprocess.Popen([sys.executable, "-c", LISTENER, "12345"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.requirement("I6.adapters.5")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for somebody else")
async def test_a_server_of_another_user_of_this_machine_is_told_nothing(http: Http, stranger: str) -> None:
    listing = await ask_server(http, at(stranger), timeout_s=2, ours=owned_here)
    assert listing.models == () and "another user" in listing.why
    assert (await ask_server(http, at(stranger), timeout_s=2)).models == ("trap",), "unless it is named"


@pytest.mark.requirement("I6.adapters.5")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for somebody else")
async def test_such_a_server_is_no_route_and_the_list_says_why(
    broker: BrokerMaker, clock: RestlessClock, stranger: str
) -> None:
    found = broker(servers=(at(stranger),), detect="vllm")
    assert [route.target for route in await found.routes()] == ["rules:template-1"]
    ((name, _, why),) = await found.absent()
    assert name == "vllm" and "another user" in why
    named = broker(provider(stranger, "openai", model="trap"))
    assert "main:trap" in [route.target for route in await named.routes()]

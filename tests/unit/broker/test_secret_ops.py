"""Secrets on behalf of agents: by reference, towards destinations the operator named, over real sockets."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.errors import UsageError
from runloop.events import SecretSet
from runloopd.broker.providers.web import Web
from runloopd.broker.secret_book import check_destination
from runloopd.broker.secret_ops import MARK
from runloopd.broker.toolbox import FAMILIES
from tests.contract.raw_web import RawWeb, answer

from .world import World

NAME = "runloop/tools/weather"
CANARY = "sk-canary-lent-9Zq4/+x"
HOLDS = f'secrets = ["{NAME}"]\n'


class Echo:
    """A server that says back what it is told, in every encoding it can think of."""

    def __init__(self, status: str = "200 OK", **headers: str) -> None:
        self.heard: list[bytes] = []
        self._status, self._headers = status, headers

    async def __call__(self, head: bytes, writer: Any) -> None:
        self.heard.append(head)
        key = next(
            (line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"authorization: ")), b""
        )
        coded = b" ".join(
            [key, base64.b64encode(b"x:" + key), key.hex().encode(), key.decode().encode("utf-16-le")]
        )
        extra = {name: value.replace("KEY", CANARY) for name, value in self._headers.items()}
        writer.write(answer(head + coded, status=self._status, **extra))


@asynccontextmanager
async def server(world: World, says: Any) -> AsyncIterator[str]:
    """A real server, and the real web to reach it by; the authority it is reached at."""
    async with RawWeb(says) as raw:
        world.web = Web()  # type: ignore[assignment]
        await world.stop()
        await world.start()
        yield f"127.0.0.1:{raw.port}"
        await world.web.close()  # type: ignore[attr-defined]


async def granted(world: World, place: str, more: str = HOLDS) -> Any:
    """A caller that may reach the place, and a run for it."""
    return await world.caller(f'net = [{{hosts = ["{place}"], allow_http = true}}]\n{more}')


async def reference(world: World, caller: Any) -> str:
    got = await world.call(caller, "secret.use", {"name": NAME})
    assert got.ok, got.value
    return str(got.value["reference"])


async def fetch(world: World, caller: Any, place: str, held: str, path: str = "/", **args: Any) -> Any:
    headers = {"Authorization": held, **args.pop("headers", {})}
    asked = {"url": f"http://{place}{path}", "headers": headers, **args}
    return await world.call(caller, "http.fetch", asked)


def on_record(world: World) -> bytes:
    """Everything the world wrote."""
    return b"".join(path.read_bytes() for path in sorted(world.home.rglob("*")) if path.is_file())


@pytest.mark.requirement("I6.secrets.6")
async def test_the_server_gets_the_secret_and_the_guest_its_reference(world: World) -> None:
    echo = Echo()
    world.vault.put(NAME, CANARY)
    async with server(world, echo) as place:
        caller = await granted(world, place)
        await world.book.state_set(NAME, "memory", [place], "operator:1000")
        held = await reference(world, caller)
        assert held.startswith(MARK) and CANARY not in held
        got = await fetch(world, caller, place, f"Bearer {held}")
    assert got.ok and f"Authorization: Bearer {CANARY}".encode() in echo.heard[0]
    text = json.dumps(got.value)
    assert "[secret]" in text and "canary" not in text and CANARY.encode().hex() not in text
    (used,) = world.payloads("secret.used")
    assert (used.name, used.by, used.to) == (NAME, "agent:writer", place)
    assert CANARY.encode() not in on_record(world)
    assert base64.b64encode(CANARY.encode()).rstrip(b"=")[:-1] not in on_record(world)


async def test_a_secret_is_rotated_between_two_calls_of_one_run(world: World) -> None:
    echo = Echo()
    async with server(world, echo) as place:
        caller = await granted(world, place)
        await world.book.state_set(NAME, "memory", [place], "operator:1000")
        world.vault.put(NAME, "first-value-1")
        held = await reference(world, caller)
        await fetch(world, caller, place, held)
        world.vault.put(NAME, "second-value-2")
        await fetch(world, caller, place, held)
    assert b"first-value-1" in echo.heard[0] and b"second-value-2" in echo.heard[1]


@pytest.mark.requirement("I6.secrets.6")
@pytest.mark.parametrize(
    ("more", "bound", "code"),
    [
        ("", True, "cap.denied"),
        ('secrets = ["runloop/tools/other"]\n', True, "cap.denied"),
        (HOLDS, False, "secret.destination"),
    ],
    ids=["no_capability", "another_secret", "not_bound"],
)
async def test_without_the_capability_and_the_operators_word_there_is_no_reference(
    world: World, more: str, bound: bool, code: str
) -> None:
    world.vault.put(NAME, CANARY)
    if bound:
        await world.book.state_set(NAME, "memory", ["api.example.org"], "operator:1000")
    got = await world.call(await world.caller(f"time = true\n{more}"), "secret.use", {"name": NAME})
    assert not got.ok and got.value["code"] == code, got.value


async def test_a_secret_that_is_not_there_is_said_to_be_missing(world: World) -> None:
    await world.book.state_set(NAME, "memory", ["api.example.org"], "operator:1000")
    got = await world.call(await world.caller(HOLDS), "secret.use", {"name": NAME})
    assert got.value["code"] == "tool.secrets" and f"rlp secret set {NAME}" in got.value["hint"]


async def test_a_destination_that_was_taken_back_ends_a_reference_that_was_given(world: World) -> None:
    echo = Echo()
    world.vault.put(NAME, CANARY)
    async with server(world, echo) as place:
        caller = await granted(world, place)
        await world.book.state_set(NAME, "memory", [place], "operator:1000")
        held = await reference(world, caller)
        await world.book.state_set(NAME, "", ["elsewhere.example"], "operator:1000")
        got = await fetch(world, caller, place, held)
    assert got.value["code"] == "secret.destination" and echo.heard == []


async def test_a_reference_is_worth_nothing_once_the_capability_is_gone(world: World) -> None:
    """It was given to an attempt that held it; a later one does not, by a policy that was narrowed since."""
    echo = Echo()
    world.vault.put(NAME, CANARY)
    async with server(world, echo) as place:
        caller = await granted(world, place)
        await world.book.state_set(NAME, "memory", [place], "operator:1000")
        held = await reference(world, caller)
        later = await world.caller(f'net = [{{hosts = ["{place}"], allow_http = true}}]', attempt=2)
        got = await fetch(world, later, place, held)
    assert got.value["code"] == "cap.denied" and echo.heard == []


async def test_a_granted_server_is_not_told_the_key_of_another(world: World) -> None:
    """The agent may reach both, and may use the secret: for the one the operator named."""
    echo = Echo()
    world.vault.put(NAME, CANARY)
    async with server(world, echo) as place:
        caller = await granted(world, place)
        await world.book.state_set(NAME, "memory", ["api.example.org"], "operator:1000")
        got = await fetch(world, caller, place, await reference(world, caller))
    assert got.value["code"] == "secret.destination" and echo.heard == []


async def test_a_reference_is_a_dead_text_anywhere_but_in_a_header(world: World) -> None:
    echo = Echo()
    world.vault.put(NAME, CANARY)
    async with server(world, echo) as place:
        caller = await granted(world, place)
        await world.book.state_set(NAME, "memory", [place], "operator:1000")
        held = await reference(world, caller)
        got = await fetch(world, caller, place, "plain", path=f"/?k={held.replace('/', '%2F')}")
        assert got.ok and CANARY.encode() not in echo.heard[0]
        put = await world.call(caller, "memory.put", {"key": "k", "value": held})
        assert put.ok
    assert CANARY.encode() not in on_record(world)


@pytest.mark.parametrize(
    "forged",
    [
        lambda held: held[:-1] + ("0" if held[-1] != "0" else "1"),
        lambda held: held.replace("weather", "other"),
        lambda held: f"{MARK}{NAME}",
        lambda held: f"{MARK}:::",
        lambda held: f"x{held}",
        lambda held: f"{held},{held}",
        lambda held: f"Digest {held}",
    ],
    ids=["bent", "renamed", "unsigned", "empty", "before", "twice", "scheme"],
)
async def test_what_is_no_reference_of_this_agent_is_refused_before_anything_is_sent(
    world: World, forged: Any
) -> None:
    echo = Echo()
    world.vault.put(NAME, CANARY)
    async with server(world, echo) as place:
        caller = await granted(world, place, 'secrets = ["runloop/*/*"]\n')
        await world.book.state_set(NAME, "memory", [place], "operator:1000")
        got = await fetch(world, caller, place, forged(await reference(world, caller)))
    assert got.value["code"] == "secret.reference" and echo.heard == []


async def test_the_reference_of_one_agent_is_nothing_in_the_hands_of_another(world: World) -> None:
    echo = Echo()
    world.vault.put(NAME, CANARY)
    async with server(world, echo) as place:
        mine = await granted(world, place)
        await world.book.state_set(NAME, "memory", [place], "operator:1000")
        held = await reference(world, mine)
        grants = f'net = [{{hosts = ["{place}"], allow_http = true}}]\n{HOLDS}'
        other = await world.caller(grants, node="other", agent="reader")
        got = await fetch(world, other, place, held)
    assert got.value["code"] == "secret.reference" and echo.heard == []


async def test_a_redirect_is_an_answer_and_is_not_followed_with_a_secret(world: World) -> None:
    echo = Echo(status="302 Found", Location="https://evil.example/?k=KEY")
    world.vault.put(NAME, CANARY)
    async with server(world, echo) as place:
        caller = await granted(world, place)
        await world.book.state_set(NAME, "memory", [place], "operator:1000")
        got = await fetch(world, caller, place, await reference(world, caller))
    assert (got.value["status"], len(echo.heard)) == (302, 1)
    assert got.value["headers"]["location"] == "https://evil.example/?k=[secret]"
    assert CANARY.encode() not in on_record(world)


async def test_a_secret_is_not_sent_unencrypted_beyond_this_machine(world: World) -> None:
    world.vault.put(NAME, CANARY)
    await world.book.state_set(NAME, "memory", ["api.example.org"], "operator:1000")
    caller = await world.caller(f'net = [{{hosts = ["api.example.org"], allow_http = true}}]\n{HOLDS}')
    got = await fetch(world, caller, "api.example.org", await reference(world, caller))
    assert got.value["code"] == "secret.clear" and world.web.requests == []


async def test_no_part_of_an_echoed_secret_comes_out_by_cutting_the_answer(world: World) -> None:
    """An honest server that echoes headers must not become the way to read them piece by piece."""

    async def echo(head: bytes, writer: Any) -> None:
        key = next(line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"authorization: "))
        writer.write(answer(b"key=" + key))

    world.vault.put(NAME, CANARY)
    async with server(world, echo) as place:
        caller = await granted(world, place)
        await world.book.state_set(NAME, "memory", [place], "operator:1000")
        held = await reference(world, caller)
        seen = {
            (await fetch(world, caller, place, held, max_bytes=size)).value["text"]
            for size in range(1, 4 + len(CANARY))
        }
        assert seen == {"k", "ke", "key", "key="}
        part = await fetch(world, caller, place, held, headers={"Range": "bytes=0-5"})
        assert part.value["code"] == "op.args"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("API.Example.org", "api.example.org"),
        ("api.example.org:443", "api.example.org"),
        ("localhost:8080", "localhost:8080"),
        ("[::1]:8080", "[::1]:8080"),
        ("mcp:github", "mcp:github"),
        ("program:git", "program:git"),
    ],
)
def test_destinations_have_one_spelling(given: str, kept: str) -> None:
    assert check_destination(given) == kept


@pytest.mark.parametrize("text", [*sorted(FAMILIES), "GIT", "git.", "git:443"])
def test_a_family_of_tools_is_no_destination(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_destination(text)
    assert caught.value.named_code == "secret.destination"


async def test_a_family_that_was_a_destination_before_is_none_now(world: World) -> None:
    fact = SecretSet(name=NAME, store="age", destinations=["git", "a.example"], principal="operator:1000")
    await world.state(fact)
    assert world.book.destinations(NAME) == {"a.example"}
    await world.restart()
    assert world.book.destinations(NAME) == {"a.example"}


@given(st.text(max_size=40))
def test_whatever_is_given_as_a_destination_is_one_or_is_refused(text: str) -> None:
    try:
        kept = check_destination(text)
    except UsageError as error:
        assert error.named_code == "secret.destination"
    else:
        assert (kept == check_destination(kept) and kept.isprintable() and "*" not in kept) or ":" in kept


async def test_what_was_said_about_secrets_lasts_over_a_restart(world: World, tmp_path: Path) -> None:
    await world.book.state_set(NAME, "age", ["b.example", "a.example", "a.example"], "operator:1000")
    await world.book.state_set("runloop/tools/gone", "age", ["a.example"], "operator:1000")
    await world.book.state_removed("runloop/tools/gone", "operator:1000")
    await world.restart()
    assert world.book.destinations(NAME) == {"a.example", "b.example"}
    assert world.book.destinations("runloop/tools/gone") == frozenset()
    assert world.payloads("secret.set")[0].destinations == ["a.example", "b.example"]


async def test_the_hosts_own_uses_are_stated_once_an_hour_and_whoever_reads_sees_the_last(
    world: World,
) -> None:
    for _ in range(5):
        world.book.note(NAME, "models.openai", "api.openai.com")
    world.book.note(NAME, "models.other", "api.openai.com")
    await until_stated(world, 2)
    world.clock.advance(3_600_000)
    world.book.note(NAME, "models.openai", "api.openai.com")
    await until_stated(world, 3)
    entry = world.book.entries()[NAME]
    assert (entry.used_by, entry.used_to, entry.used_ms) == (
        "models.openai", "api.openai.com", world.clock.now_ms()
    )  # fmt: skip


async def until_stated(world: World, count: int) -> None:
    from .world import until

    await until(lambda: len(world.payloads("secret.used")) >= count)
    assert len(world.payloads("secret.used")) == count

"""``http.fetch`` at the gate: which places, which addresses, which headers, what is on record."""

from __future__ import annotations

import asyncio
import base64
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runloop.caps.policy import ceiling
from runloop.errors import UsageError
from runloopd.broker.http_ops import _headers
from runloopd.broker.ports import ProviderError

from .test_agent_quotas import moved, world_of
from .world import RUN, World, until, within

URL = "https://api.weather.example/v1?city=Bern"
GRANTED = 'net = ["api.weather.example"]'


async def fetch(world: World, grants: str = GRANTED, url: str = URL, **args: Any) -> Any:
    answer = await world.call(await world.caller(grants), "http.fetch", {"url": url, **args})
    return answer.value


async def test_an_answer_is_recorded_before_the_guest_sees_it(world: World) -> None:
    world.web.body = b'{"forecast": "sun"}'
    value = await fetch(world)
    assert value == {
        "status": 200,
        "url": URL,
        "headers": {"content-type": "application/json"},
        "size": 19,
        "truncated": False,
        "text": '{"forecast": "sun"}',
    }
    (delivered,) = world.payloads("hostcall.delivered")
    assert (delivered.op, delivered.effect, delivered.ok) == ("http.fetch", "read", True)
    (sent,) = world.web.requests
    assert (sent.method, str(sent.place), sent.owner) == ("GET", URL, RUN)


async def test_where_a_call_went_is_on_record_without_what_it_asked(world: World) -> None:
    await fetch(world)
    (audit,) = world.payloads("cap.audit")
    assert (audit.capability, audit.decision) == ("net", "allowed")
    assert audit.target == "GET https://api.weather.example/v1"


@pytest.mark.parametrize("method", ["get", "HEAD"])
async def test_what_reads_is_let_through_in_any_case(world: World, method: str) -> None:
    assert (await fetch(world, method=method))["status"] == 200


# --- rights ---------------------------------------------------------------------------------------


async def test_without_net_the_refusal_names_the_permission_that_is_missing(world: World) -> None:
    value = await fetch(world, "time = true")
    assert value["code"] == "cap.denied"
    assert value["message"] == ("net api.weather.example is not granted to writer: nothing of it is granted")
    assert "rlp cap grant writer net" in value["hint"]
    (audit,) = world.payloads("cap.audit")
    assert (audit.capability, audit.target, audit.decision) == ("net", "api.weather.example", "denied")
    assert world.web.requests == []


@pytest.mark.parametrize(
    ("grants", "url", "allowed"),
    [
        (GRANTED, "https://API.Weather.Example./x", True),
        (GRANTED, "https://api.weather.example:8443/x", True),
        (GRANTED, "http://api.weather.example/x", False),
        (GRANTED, "https://weather.example/", False),
        (GRANTED, "https://api.weather.example.evil.example/", False),
        (GRANTED, "https://evilapi.weather.example/", False),
        ('net = ["api.weather.example:8443"]', "https://api.weather.example/", False),
        ('net = ["api.weather.example:8443"]', "https://api.weather.example:8443/", True),
        ('net = ["*.weather.example"]', "https://a.b.weather.example/", True),
        ('net = ["*.weather.example"]', "https://weather.example/", False),
        ('net = [{hosts = ["a.example"], allow_http = true}]', "http://a.example/", True),
        ('net = [{hosts = ["a.example"], paths = ["/v1"]}]', "https://a.example/v1/x", True),
        ('net = [{hosts = ["a.example"], paths = ["/v1"]}]', "https://a.example/v1x", False),
        ('net = [{hosts = ["a.example"], paths = ["/v1"]}]', "https://a.example/v1/%2fadmin", False),
        ('net = [{hosts = ["a.example"], methods = ["POST"]}]', "https://a.example/", False),
    ],
)
async def test_a_request_goes_where_net_lets_it(world: World, grants: str, url: str, allowed: bool) -> None:
    value = await fetch(world, grants, url)
    assert ("status" in value) == allowed
    assert allowed or value["code"] == "cap.denied"
    assert len(world.web.requests) == int(allowed)


@pytest.mark.parametrize("path", ["/v1/../admin", "/v1/%2e%2e/admin"])
async def test_a_path_with_dots_is_no_way_out_of_a_granted_one(world: World, path: str) -> None:
    value = await fetch(world, 'net = [{hosts = ["a.example"], paths = ["/v1"]}]', f"https://a.example{path}")
    assert value["code"] == "http.url"
    assert world.web.requests == []


async def test_a_granted_host_and_another_path_are_told_apart_in_words(world: World) -> None:
    grants = 'net = [{hosts = ["a.example"], paths = ["/v1"]}]'
    value = await fetch(world, grants, "https://a.example/v2?secret=1")
    assert "GET https://a.example/v2, which is beyond what writer has" in value["message"]
    assert "secret" not in value["message"]


@pytest.mark.requirement("P4")
async def test_a_guest_cannot_speak_through_a_name_below_the_one_that_is_granted(world: World) -> None:
    value = await fetch(world, GRANTED, "https://stolen-words.api.weather.example/")
    assert value["code"] == "cap.denied"
    assert world.web.requests == []


@pytest.mark.parametrize(
    ("grants", "url", "leads", "allowed"),
    [
        (GRANTED, URL, "127.0.0.1", False),
        (GRANTED, URL, "169.254.169.254", False),
        (GRANTED, URL, "10.0.0.8", False),
        (GRANTED, URL, "::ffff:93.184.215.14", False),
        (GRANTED, URL, "64:ff9b::5db8:d70e", False),
        ('net = ["api.weather.example", "10.0.0.8"]', URL, "10.0.0.8", True),
        ('net = ["api.weather.example", "10.0.0.8:8443"]', URL, "10.0.0.8", False),
        ('net = ["localhost"]', "https://localhost/", "127.0.0.1", True),
        ('net = ["localhost"]', "https://localhost/", "::1", True),
        ('net = ["localhost"]', "https://localhost/", "10.0.0.8", False),
        ('net = ["localhost", "api.weather.example"]', URL, "127.0.0.1", False),
        ('net = ["127.0.0.1"]', "https://127.0.0.1/", "", True),
        ('net = ["[::1]"]', "https://[0::1]/", "", True),
        ('net = ["[::1]"]', "https://[::ffff:127.0.0.1]/", "", False),
    ],
)
async def test_an_address_that_is_not_public_must_be_granted_itself(
    world: World, grants: str, url: str, leads: str, allowed: bool
) -> None:
    world.web.address = leads or "93.184.215.14"
    value = await fetch(world, grants, url)
    assert ("status" in value) == allowed
    if not allowed and leads:
        assert value["code"] == "net.address"
        audit = world.payloads("cap.audit")[-1]
        assert (audit.capability, audit.decision, audit.target) == ("net", "denied", str(ip_address(leads)))


async def test_a_token_revoked_meanwhile_stops_the_next_hop(world: World) -> None:
    caller = await world.caller(GRANTED)
    exchange = world.web.exchange

    async def hops(request: Any, permission: Any) -> Any:
        await exchange(request, permission)
        await world.mint.revoke(caller.token_id, "test")
        return await exchange(request, permission)

    world.web.exchange = hops  # type: ignore[method-assign]
    answer = await world.call(caller, "http.fetch", {"url": URL})
    assert answer.value["code"] == "token.revoked"
    assert len(world.web.requests) == 1


def test_net_is_within_the_ceiling_of_whoever_declares_an_op_that_needs_it() -> None:
    assert ceiling(["http.fetch"]).grants == {"net": True}
    assert ceiling(["tool.call"]).grants["net"] is True
    assert ceiling(["tool.list"]).empty


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "put", "DELETE", "PATCH", "OPTIONS"])
async def test_what_changes_something_elsewhere_is_refused_by_name(world: World, method: str) -> None:
    value = await fetch(world, method=method, text="x")
    assert value["code"] == "http.method"
    assert world.web.requests == []


async def test_who_may_not_go_there_hears_that_first(world: World) -> None:
    value = await fetch(world, "time = true", method="POST", headers={"Host": "x"}, max_bytes=0)
    assert value["code"] == "cap.denied"


@pytest.mark.parametrize(
    "args",
    [
        {"method": "CONNECT"},
        {"method": "GET\r\nX: y"},
        {"text": "a body"},
        {"base64": "YQ=="},
        {"text": "a", "base64": "YQ=="},
        {"max_bytes": 0},
        {"max_bytes": 5 * 1024 * 1024},
        {"headers": {"Host": "evil.example"}},
        {"headers": {"cookie": "id=1"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"headers": {"Proxy-Authorization": "x"}},
        {"headers": {"Accept-Encoding": "br"}},
        {"headers": {"X": "a\r\nHost: evil.example"}},
        {"headers": {"X\r\nY": "a"}},
        {"headers": {"X": " a"}},
        {"headers": {"X": "ü"}},
        {"headers": {"": "a"}},
        {"headers": {"X": "a", "x": "b"}},
        {"headers": {f"X-{n}": "a" for n in range(40)}},
        {"headers": {"X": "a" * 9_000}},
    ],
)
async def test_what_cannot_be_sent_as_it_stands_is_refused(world: World, args: dict[str, Any]) -> None:
    value = await fetch(world, **args)
    assert value["code"] == "op.args"
    assert world.web.requests == []


async def test_a_url_with_a_password_is_refused_and_never_repeated(world: World) -> None:
    value = await fetch(world, url="https://me:hunter2@api.weather.example/")
    assert value["code"] == "http.url"
    assert "hunter2" not in str(value)


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=30), max_size=3))
def test_headers_that_are_let_through_have_one_line_each(headers: dict[str, str]) -> None:
    try:
        pairs = _headers(headers)
    except UsageError:
        return
    for name, value in pairs:
        line = f"{name}: {value}".encode("ascii")
        assert not set(line) & {0, 10, 13} and name.strip() == name and name


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "media", "text"),
    [
        ("größe".encode(), "text/plain", "größe"),
        ("größe".encode(), "text/html; charset=UTF-8", "größe"),
        (b"{}", "application/problem+json", "{}"),
        ("größe".encode("latin-1"), "text/plain; charset=iso-8859-1", None),
        (b"\xff\xfe", "text/plain", None),
        (b"\x89PNG", "image/png", None),
        (b"plain", "application/octet-stream", None),
        (b"", "image/png", ""),
    ],
)
async def test_a_body_is_text_only_where_it_says_so_and_is(
    world: World, body: bytes, media: str, text: str | None
) -> None:
    world.web.body, world.web.media_type = body, media
    value = await fetch(world)
    if text is None:
        assert "text" not in value and base64.b64decode(value["base64"]) == body
    else:
        assert "base64" not in value and value["text"] == text


async def test_a_character_that_was_cut_in_two_is_left_out(world: World) -> None:
    world.web.body, world.web.media_type, world.web.truncated = "abü".encode()[:-1], "text/plain", True
    value = await fetch(world)
    assert (value["text"], value["truncated"], value["size"]) == ("ab", True, 3)


async def test_any_status_is_an_answer(world: World) -> None:
    world.web.status = 503
    assert (await fetch(world))["status"] == 503


async def test_a_failure_is_on_record_and_says_whether_to_try_again(world: World) -> None:
    world.web.fails.append(ProviderError("cut", code="http.cut", retryable=True))
    value = await fetch(world)
    assert (value["code"], value["retryable"]) == ("http.cut", True)
    (delivered,) = world.payloads("hostcall.delivered")
    assert not delivered.ok


async def test_an_exchange_has_a_deadline_of_its_own(world: World) -> None:
    world.web.gate = asyncio.Event()
    call = world.begin(await world.caller(GRANTED), "http.fetch", {"url": URL})
    await until(lambda: world.web.requests)
    world.clock.advance(39_000)
    for _ in range(100):  # as often as a deadline that is over would need to be noticed
        await asyncio.sleep(0)
    assert not call.done()
    world.clock.advance(2_000)
    assert (await within(call)).value["code"] == "gate.deadline"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="a\x00\x1b\u202eü\U0001f600\n", max_size=12))
async def test_whatever_a_server_says_can_be_recorded(world: World, text: str) -> None:
    world.web.body, world.web.media_type = text.encode(), "text/plain"
    assert (await fetch(world))["text"] == text


async def test_the_time_a_server_takes_is_not_the_agents(tmp_path: Path) -> None:
    world = await world_of(tmp_path, wall_ms=1_000)
    world.web.body = b"hello"
    caller = await world.caller(GRANTED)
    await moved(world, "ACTIVE")
    await moved(world, "WAITING")
    world.clock.advance(30_000)
    assert (await world.call(caller, "http.fetch", {"url": URL})).ok
    await moved(world, "ACTIVE")
    assert world.gate.allowance(RUN, "writer", "draft", 1)[0].wall_left == 1_000
    await world.stop()

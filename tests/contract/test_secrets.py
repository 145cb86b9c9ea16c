"""A canary key through every provider and every failure: it never comes out again (attacks.md K1, K2)."""

from __future__ import annotations

import base64
import io
import json
import logging
import pickle
import traceback
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from runloop.errors import NotFoundError, RefusedError, RunloopError, UsageError
from runloopd.broker.ports import ModelAnswer
from runloopd.broker.providers.http import HttpLimits
from runloopd.broker.scrubber import Scrubber
from runloopd.broker.secrets import Secret, SecretRef, SecretStore
from runloopd.broker.vault.testing import Kept
from tests.canary import found
from tests.contract import fake_model_server as fake
from tests.contract.conftest import CANARY, NOWHERE, PRICE, BrokerMaker, RestlessClock, ask, budget, provider
from tests.contract.fake_model_server import FakeModelServer

CODED = base64.b64encode(CANARY.encode()).decode().rstrip("=")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything any library logs, at its most talkative."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.removeHandler(handler)
    root.setLevel(level)


def everything_said(error: BaseException) -> str:
    """The error as any logger, crash reporter or ledger might write it, with the locals of every frame."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True, max_group_depth=50)
    wire = json.dumps(error.to_wire()) if isinstance(error, RunloopError) else ""
    return "".join(told.format()) + repr(error) + wire + repr(vars(error))


def reflect(x: fake.Exchange) -> None:
    """A server that tells the key to whoever asks."""
    key = x.seen.headers.get("Authorization", x.seen.headers.get("x-api-key", ""))
    fake.status(400, f"bad key {key} {quote(key, safe='')} {base64.b64encode(key.encode()).decode()}")(x)


def headers_back(x: fake.Exchange) -> None:
    """A server that shows all it was sent when it falls over."""
    fake.status(500, f"request was:\n{x.seen.headers}")(x)


def redirected(x: fake.Exchange) -> None:
    key = x.seen.headers.get("Authorization", x.seen.headers.get("x-api-key", ""))
    fake.status(302, key, Location=f"https://elsewhere.example/{quote(key)}?k={key}")(x)


FAILURES = {
    "headers": headers_back,
    "redirected": redirected,
    "refused": fake.status(401, f"Incorrect API key provided: {CANARY}"),
    "reflected": reflect,
    "overloaded": fake.status(503, CANARY),
    "cut": fake.openai_cut("Hel"),
    "silent": fake.stall,
    "html": fake.raw(f"<html>{CANARY}".encode()),
    "bomb": fake.bomb,
    "not ours": fake.as_json({"choices": CANARY}),
    "stream error": lambda x: x.chunks(*fake.sse({"error": {"message": CANARY}})),
}


@pytest.mark.requirement("K1")
@pytest.mark.parametrize("kind", ["openai", "anthropic", "ollama"])
@pytest.mark.parametrize("failure", [*FAILURES, "nobody"])
async def test_no_failure_of_any_provider_tells_the_key(
    broker: BrokerMaker, clock: RestlessClock, log: io.StringIO, kind: str, failure: str
) -> None:
    with FakeModelServer(FAILURES.get(failure, fake.stall)) as server:
        url = NOWHERE if failure == "nobody" else server.url
        made = broker(provider(url, kind, price=PRICE), limits=HttpLimits(idle_ms=100))
        with pytest.raises(RunloopError) as caught:
            await made.complete(
                ask(stream=failure in ("cut", "stream error")),
                budget=budget(clock),
                on_delta=None,
                idempotency_key="k",
            )
        if failure != "nobody":
            assert CANARY in str(server.posts[0].headers), "the key did reach the server"
    said = everything_said(caught.value) + log.getvalue() + repr(made.__dict__)
    assert found(CANARY, said.encode()) == []


@pytest.mark.parametrize("padding", range(330, 420, 7))
async def test_a_message_is_not_shortened_in_the_middle_of_the_key(
    broker: BrokerMaker, clock: RestlessClock, padding: int
) -> None:
    said = "y" * padding + " " + CANARY + "z" * 500
    for behaviour in (
        fake.status(400, said),
        lambda x: x.chunks(*fake.sse({"error": {"message": said}})),
    ):
        with FakeModelServer(behaviour) as server, pytest.raises(RunloopError) as caught:
            await broker(provider(server.url, price=PRICE)).complete(
                ask(stream=True), budget=budget(clock), on_delta=None, idempotency_key="k"
            )
        assert "sk-canary" not in json.dumps(caught.value.to_wire())


async def test_the_guard_above_would_see_a_leak() -> None:
    def leak(key: str) -> None:
        raise ValueError("boom")

    with pytest.raises(ValueError) as caught:
        leak(CANARY)
    assert CANARY in everything_said(caught.value)


@pytest.mark.requirement("K2")
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
async def test_an_answer_that_repeats_the_key_is_scrubbed_also_across_deltas(
    broker: BrokerMaker, clock: RestlessClock, size: int
) -> None:
    text = f"Your key is {CANARY}, hex {CANARY.encode().hex()}, and {CODED}. sk-can is a beginning."
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    deltas: list[str] = []
    with FakeModelServer(fake.openai_stream(*pieces)) as server:
        answer = await broker(provider(server.url)).complete(
            ask(), budget=budget(clock), on_delta=deltas.append, idempotency_key="k"
        )
    assert answer.text == "".join(deltas)
    assert answer.text == "Your key is [secret], hex [secret], and [secret]. sk-can is a beginning."


async def test_an_answer_in_one_piece_and_its_model_name_are_scrubbed(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(fake.openai(f"key={CANARY}")) as server:
        answer: ModelAnswer = await broker(provider(server.url)).complete(
            ask(), budget=budget(clock), on_delta=None, idempotency_key="k"
        )
    assert answer.text == "key=[secret]"


async def test_a_key_that_cannot_be_a_header_is_refused_without_being_told(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    for bad in (f"{CANARY}\r\nX-Evil: 1", f"{CANARY}\x00", f"{CANARY}é"):
        with FakeModelServer(fake.openai("no")) as server:
            made = broker(provider(server.url), environ={"FAKE_KEY": bad})
            with pytest.raises(RefusedError) as caught:
                await made.complete(ask(), budget=budget(clock), on_delta=None, idempotency_key="k")
        assert caught.value.named_code == "secret.malformed" and not server.seen
        assert CANARY not in str(caught.value) + json.dumps(caught.value.to_wire())


def test_a_secret_shows_its_name_wherever_it_is_printed() -> None:
    secret = Secret(CANARY, name="$FAKE_KEY")
    assert f"{secret} {secret!r} {secret:>40} {[secret]}" == " ".join(["<secret $FAKE_KEY>"] * 3) + (
        " [<secret $FAKE_KEY>]"
    )
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert secret.reveal() == CANARY


def test_short_dummies_are_not_scrubbed_out_of_ordinary_text() -> None:
    assert Scrubber([Secret("x", name="n")]).text("xylophone") == "xylophone"


@pytest.mark.requirement("K2")
@pytest.mark.parametrize("prefix", ["", "a", "ab", "abc"])
def test_a_key_inside_longer_base64_is_found_at_every_offset(prefix: str) -> None:
    coded = base64.b64encode(f"{prefix}{CANARY}:tail".encode()).decode()
    assert "[secret]" in Scrubber([Secret(CANARY, name="n")]).text(coded)


def test_ordinary_text_is_never_scrubbed() -> None:
    scrubber = Scrubber([Secret(CANARY, name="n")])
    text = " ".join(f"item {n} sk-{n:x} canary {n * 7919:o}" for n in range(10_000))
    stream = scrubber.stream()
    shown = "".join(stream.feed(text[at : at + 13]) for at in range(0, len(text), 13)) + stream.end()
    assert scrubber.text(text) == shown == text


@pytest.mark.requirement("I2.models.6")
def test_keys_are_found_in_the_environment_and_in_the_places_in_order() -> None:
    first, second = Kept("first", **{"runloop/a/b": "1"}), Kept("second", **{"runloop/a/b": "2", "c": "3"})
    store = SecretStore(environ={"A": " from-env\n"}, places=[first, second])
    assert store.find(SecretRef(env="A")).reveal() == "from-env"
    assert store.find(SecretRef(name="runloop/a/b")).reveal() == "1"
    assert store.find(SecretRef(name="c")).reveal() == "3"
    for missing in (SecretRef(env="B"), SecretRef(name="runloop/models/c")):
        with pytest.raises(NotFoundError) as caught:
            store.find(missing)
        assert caught.value.named_code == "secret.missing" and caught.value.hint


def test_a_secret_that_is_rotated_is_found_at_the_next_use() -> None:
    place = Kept(n="old")
    store = SecretStore(environ={}, places=[place])
    assert store.find(SecretRef(name="n")).reveal() == "old"
    place.secrets["n"] = "new"
    assert store.find(SecretRef(name="n")).reveal() == "new"


def test_whoever_listens_hears_who_used_a_secret_and_never_its_value() -> None:
    told: list[tuple[str, str, str]] = []
    store = SecretStore(environ={"A": CANARY}, places=[])
    store.on_use = lambda *use: told.append(use)
    store.find(SecretRef(env="A"), by="models.x", to="api.example.org")
    assert told == [("$A", "models.x", "api.example.org")]


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(UsageError):
        Secret("", name="n")

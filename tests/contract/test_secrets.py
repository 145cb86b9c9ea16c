"""A canary key through every provider and every failure: it never comes out again (attacks.md K1, K2)."""

from __future__ import annotations

import base64
import io
import json
import logging
import pickle
import sys
import traceback
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from runloop.errors import NotFoundError, RefusedError, RunloopError, UsageError
from runloopd.broker.ports import ModelAnswer
from runloopd.broker.providers.http import HttpLimits
from runloopd.broker.secrets import Scrubber, Secret, SecretRef, SecretStore
from tests.contract import fake_model_server as fake
from tests.contract.conftest import CANARY, NOWHERE, PRICE, BrokerMaker, RestlessClock, ask, budget, provider
from tests.contract.fake_model_server import FakeModelServer

CODED = base64.b64encode(CANARY.encode()).decode().rstrip("=")
FORMS = (CANARY, CANARY.encode().hex(), quote(CANARY, safe=""), CODED)


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


FAILURES = {
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
    for form in FORMS:
        assert form not in said


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
    # A shorter form may match before a longer one is complete; what then remains says nothing.
    plain = answer.text.replace("[secret]g.", "[secret].")
    assert plain == "Your key is [secret], hex [secret], and [secret]. sk-can is a beginning."


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
def test_keys_are_found_in_the_environment_the_file_and_the_keyring(tmp_path) -> None:
    file = tmp_path / "secrets.toml"
    file.write_text('"runloop/models/a" = "from-file"\n')
    file.chmod(0o600)
    store = SecretStore(
        environ={"A": " from-env\n"}, file=file, keyring={"runloop/models/b": "from-keyring"}.get
    )
    assert store.find(SecretRef(env="A")).reveal() == "from-env"
    assert store.find(SecretRef(name="runloop/models/a")).reveal() == "from-file"
    assert store.find(SecretRef(name="runloop/models/b")).reveal() == "from-keyring"
    for missing in (SecretRef(env="B"), SecretRef(name="runloop/models/c")):
        with pytest.raises(NotFoundError) as caught:
            store.find(missing)
        assert caught.value.named_code == "secret.missing" and caught.value.hint


def test_a_secrets_file_that_others_can_read_is_refused(tmp_path) -> None:
    file = tmp_path / "secrets.toml"
    file.write_text('"runloop/models/a" = "from-file"\n')
    store = SecretStore(environ={}, file=file)
    ref = SecretRef(name="runloop/models/a")
    file.chmod(0o640)
    with pytest.raises(RefusedError, match="others can read"):
        store.find(ref)
    file.chmod(0o600)
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    with pytest.raises(RefusedError):
        SecretStore(environ={}, file=link).find(ref)
    with pytest.raises(RefusedError, match="regular file"):
        SecretStore(environ={}, file=tmp_path).find(ref)


def test_a_secrets_file_that_is_not_toml_is_refused_without_its_text(tmp_path) -> None:
    file = tmp_path / "secrets.toml"
    file.touch(mode=0o600)
    ref = SecretRef(name="runloop/models/a")
    for content in (f'"runloop/models/a" = {CANARY}'.encode(), b"\xff\xfe", b'"runloop/models/a" = 7'):
        file.write_bytes(content)
        with pytest.raises(RefusedError) as caught:
            SecretStore(environ={}, file=file).find(ref)
        assert CANARY not in everything_said(caught.value).replace(str(content), "")


def test_an_unusable_keyring_is_one_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from runloopd.broker.secrets import keyring_lookup

    class Broken:
        @staticmethod
        def get_password(service: str, name: str) -> str:
            raise RuntimeError("no D-Bus")

    monkeypatch.setitem(sys.modules, "keyring", Broken)
    assert keyring_lookup("runloop/models/a") is None
    monkeypatch.setattr(Broken, "get_password", staticmethod(lambda service, name: f"{service}:{name}"))
    assert keyring_lookup("n") == "runloop:n"
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert keyring_lookup("n") is None


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(UsageError):
        Secret("", name="n")

"""With a model server and an SMTP server configured: the same job over real wires."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator

import pytest

from runloop.digest import blob_digest
from runloop.events import ActionRequested, EmailSent, ModelCalled
from tests.contract.fake_model_server import FakeModelServer, openai_stream, status
from tests.contract.test_smtp import Postmaster, Server
from tests.home import Home, wait_until

CANARY = "sk-canary-e2e-4f1Zq8"
DRAFT = '{"subject": "Q4 plan", "body": "Dear John,\\n\\nthe plan is attached to my thoughts.\\n\\nBest"}'


def use_model_server(home: Home, server: FakeModelServer) -> None:
    home.env.update(
        {
            "RUNLOOP__MODELS__PROVIDERS__FAKE__KIND": "openai",
            "RUNLOOP__MODELS__PROVIDERS__FAKE__BASE_URL": f"{server.url}/v1",
            "RUNLOOP__MODELS__PROVIDERS__FAKE__MODEL": "fake-1",
            "RUNLOOP__MODELS__PROVIDERS__FAKE__API_KEY_ENV": "FAKE_KEY",
            "RUNLOOP__MODELS__DEFAULT": "fake",
            "FAKE_KEY": CANARY,
        }
    )


def everything_written(home: Home) -> bytes:
    files = [p for p in home.path.rglob("*") if p.is_file() and "cache" not in p.parts]
    return b"".join(path.read_bytes() for path in files)


@pytest.mark.requirement("I2.models.2", "I2.models.4", "I2.models.7")
def test_a_model_server_streams_the_draft_and_its_key_is_nowhere(home: Home) -> None:
    with FakeModelServer(openai_stream(DRAFT[:20], DRAFT[20:])) as server:
        use_model_server(home, server)
        parked = home.play().check(5)
        (called,) = home.events("model.called")
        assert isinstance(called.payload, ModelCalled)
        assert (called.payload.provider, called.payload.generated) == ("fake", True)
        assert (called.payload.input_tokens, called.payload.output_tokens) == (11, 7)
        assert server.posts[0].headers["Authorization"] == f"Bearer {CANARY}"
    (asked,) = home.events("action.requested")
    assert isinstance(asked.payload, ActionRequested)
    shown = home.rlp("approvals", "--json").check().ndjson
    assert shown[0]["action"]["summary"]
    assert CANARY not in parked.out + parked.err
    assert CANARY.encode() not in everything_written(home)


@pytest.mark.requirement("I2.models.1")
def test_when_the_server_fails_the_rules_write_the_draft_and_say_so(home: Home) -> None:
    with FakeModelServer(status(500)) as server:
        use_model_server(home, server)
        home.play().check(5)
        (called,) = home.events("model.called")
        assert isinstance(called.payload, ModelCalled)
        assert (called.payload.provider, called.payload.generated) == ("rules", False)


@pytest.fixture
def smtp() -> Iterator[tuple[Postmaster, Server]]:
    postmaster = Postmaster()
    server = Server(postmaster)
    server.start()
    yield postmaster, server
    server.stop()


@pytest.mark.requirement("I2.mail.2", "M3")
def test_over_smtp_the_server_gets_the_very_bytes_that_were_approved(
    home: Home, smtp: tuple[Postmaster, Server]
) -> None:
    postmaster, server = smtp
    home.env.update(
        {
            "RUNLOOP__MAIL__PROVIDER": "smtp",
            "RUNLOOP__MAIL__HOST": "127.0.0.1",
            "RUNLOOP__MAIL__PORT": str(server.port),
            "RUNLOOP__MAIL__TLS": "none",
            "RUNLOOP__MAIL__FROM": "me@example.org",
        }
    )
    home.play().check(5)
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    assert postmaster.taken == []
    home.rlp("approve", str(waiting["approval"])).check()
    wait_until(lambda: bool(home.events("run.finished")), "the run to finish")
    (sent,) = home.events("email.sent")
    assert isinstance(sent.payload, EmailSent)
    (envelope,) = postmaster.taken
    assert blob_digest(envelope.original_content) == sent.payload.content_blob
    assert envelope.rcpt_tos == sent.payload.recipients == ["john.carter@example.org"]
    message = email.message_from_bytes(envelope.original_content, policy=email.policy.default)
    assert message["From"] == "me@example.org"

"""Mail to a real SMTP server: byte for byte, everybody or nobody, and never a guess about what happened."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from runloop.config import Mail
from runloop.errors import RefusedError, UsageError
from runloop.ops import MailSend
from runloopd.broker.mail import MailBroker, render
from runloopd.broker.ports import PreparedMail, ProviderError
from runloopd.broker.providers.smtp import SmtpConfig, SmtpSender
from runloopd.broker.secrets import SecretRef, SecretStore
from runloopd.broker.vault.testing import Lookup

PASSWORD = "pass-canary-41Zq"
ENDLESS = 64 * 1024 * 1024
"""Bytes after which a server gives up talking: far more than kernel buffers hold."""
NOW_MS = 1_750_000_000_000


class Postmaster:
    """Takes mail, or refuses it where a test says so."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.refuse_recipient: str | None = None
        self.data_reply = "250 taken"
        self.hang = threading.Event()
        self.in_data = threading.Event()
        self.hang_in_data = False
        self.logins: list[bytes] = []

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address == self.refuse_recipient:
            return f"550 no {PASSWORD} such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.in_data.set()
        if self.hang_in_data:
            await asyncio.to_thread(self.hang.wait, 20)
        if self.data_reply.startswith("250"):
            self.taken.append(envelope)
        return self.data_reply

    def authenticate(self, server, session, envelope, mechanism, data) -> AuthResult:
        self.logins.append(data.password)
        return AuthResult(success=data.password == PASSWORD.encode())


class Server(Controller):
    """aiosmtpd on a free port of loopback."""

    def __init__(self, master: Postmaster, **options: Any) -> None:
        self._options = options
        super().__init__(master, hostname="127.0.0.1", port=0)

    def factory(self) -> SMTP:
        return SMTP(self.handler, **self._options)

    def _trigger_server(self) -> None:
        """The base class connects to the port it was given; ours is known only now."""
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def master() -> Iterator[Postmaster]:
    made = Postmaster()
    yield made
    made.hang.set()


@pytest.fixture
def server(master: Postmaster) -> Iterator[Server]:
    made = Server(master)
    made.start()
    yield made
    master.hang.set()
    made.stop()


def mail(**fields: Any) -> MailSend:
    values: dict[str, Any] = {
        "to": ["John Doe <john@example.org>"],
        "cc": ["mary@example.org"],
        "bcc": ["boss@example.org"],
        "subject": "Plan für Q4",
        "body": "Hello John,\n.\n..two dots\nGrüße\n",
    }
    return MailSend(**(values | fields))


def prepared(sender: SmtpSender, key: str = "k1", **fields: Any) -> PreparedMail:
    return render(mail(**fields), key=key, now_ms=NOW_MS, sender="me@example.org", resource=sender.resource)


def smtp(tmp_path: Path, port: int, environ: dict[str, str] | None = None, **config: Any) -> SmtpSender:
    context = config.pop("tls_context", ssl.create_default_context)
    values: dict[str, Any] = {"host": "127.0.0.1", "port": port, "tls": "none", "step_ms": 10_000}
    return SmtpSender(
        SmtpConfig(**(values | config)),
        spool=tmp_path / "spool",
        secrets=SecretStore(environ=environ or {}),
        tls_context=context,
    )


@pytest.mark.requirement("I2.mail.2")
async def test_the_server_receives_the_prepared_bytes_and_the_whole_envelope(
    tmp_path: Path, master: Postmaster, server: Server
) -> None:
    sender = smtp(tmp_path, server.port)
    message = prepared(sender)
    receipt = await sender.dispatch(message)
    (envelope,) = master.taken
    assert envelope.original_content == message.content
    assert envelope.mail_from == "me@example.org"
    assert tuple(envelope.rcpt_tos) == message.recipients
    assert message.recipients == ("john@example.org", "mary@example.org", "boss@example.org")
    assert b"boss" not in message.content
    assert (receipt.provider, receipt.location) == ("smtp", "250 taken")


async def test_a_message_already_sent_is_not_sent_again(
    tmp_path: Path, master: Postmaster, server: Server
) -> None:
    sender = smtp(tmp_path, server.port)
    message = prepared(sender)
    assert await sender.reconcile(message) == "absent"
    await sender.dispatch(message)
    again = await smtp(tmp_path, server.port).dispatch(message)
    assert len(master.taken) == 1 and "sent before" in again.location
    assert await sender.reconcile(message) == "done"
    assert await sender.reconcile(prepared(sender, key="other")) == "absent"


@pytest.mark.requirement("I2.mail.2")
async def test_one_refused_recipient_means_that_nobody_gets_it(
    tmp_path: Path, master: Postmaster, server: Server
) -> None:
    master.refuse_recipient = "boss@example.org"
    sender = smtp(tmp_path, server.port)
    with pytest.raises(ProviderError) as caught:
        await sender.dispatch(prepared(sender))
    assert caught.value.outcome == "absent" and caught.value.named_code == "mail.refused"
    assert "boss@example.org" in caught.value.message and not master.taken
    assert await sender.reconcile(prepared(sender)) == "absent"


@pytest.mark.parametrize(("reply", "retryable"), [("554 spam", False), ("451 later", True)])
async def test_a_message_the_server_refuses_was_not_sent(
    tmp_path: Path, master: Postmaster, server: Server, reply: str, retryable: bool
) -> None:
    master.data_reply = reply
    sender = smtp(tmp_path, server.port)
    with pytest.raises(ProviderError) as caught:
        await sender.dispatch(prepared(sender))
    assert caught.value.outcome == "absent" and caught.value.retryable is retryable
    assert await sender.reconcile(prepared(sender)) == "absent"


@pytest.mark.requirement("L6")
async def test_a_server_that_hangs_up_while_taking_the_message_leaves_it_unknown(
    tmp_path: Path, master: Postmaster, server: Server
) -> None:
    master.hang_in_data = True
    sender = smtp(tmp_path, server.port, step_ms=100)
    with pytest.raises(ProviderError) as caught:
        await sender.dispatch(prepared(sender))
    assert caught.value.outcome == "unknown" and caught.value.named_code == "mail.unknown"
    assert not caught.value.retryable
    assert await sender.reconcile(prepared(sender)) == "unknown"
    master.hang.set()
    with pytest.raises(ProviderError) as caught:
        await sender.dispatch(prepared(sender))
    assert caught.value.outcome == "unknown", "never sent again by itself"


async def test_the_whole_dispatch_has_a_deadline(tmp_path: Path, master: Postmaster, server: Server) -> None:
    master.hang_in_data = True
    sender = smtp(tmp_path, server.port, total_ms=150)
    with pytest.raises(ProviderError) as caught:
        await sender.dispatch(prepared(sender))
    assert caught.value.outcome == "unknown"


async def test_cancelling_before_the_message_leaves_nothing_behind(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with silent:
        sender = smtp(tmp_path, silent.sockets[0].getsockname()[1])
        task = asyncio.create_task(sender.dispatch(prepared(sender)))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 0.1)
        await asyncio.wait_for(gone.wait(), 5)
        assert await sender.reconcile(prepared(sender)) == "absent"


async def test_cancelling_while_the_password_is_looked_up_means_that_nothing_is_sent(
    tmp_path: Path, master: Postmaster
) -> None:
    asked, released = threading.Event(), threading.Event()

    def slow_keyring(name: str) -> str:
        asked.set()
        released.wait(10)
        return PASSWORD

    server = Server(master, authenticator=master.authenticate, auth_require_tls=False)
    server.start()
    try:
        config = SmtpConfig(
            host="127.0.0.1", port=server.port, tls="none", user="me", password=SecretRef(name="mail")
        )
        sender = SmtpSender(
            config, spool=tmp_path / "spool", secrets=SecretStore(environ={}, places=[Lookup(slow_keyring)])
        )
        task = asyncio.create_task(sender.dispatch(prepared(sender)))
        assert await asyncio.to_thread(asked.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        released.set()
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=10)  # type: ignore[arg-type]
        assert not master.taken
        assert await sender.reconcile(prepared(sender)) == "absent"
    finally:
        server.stop()


async def test_cancelling_while_the_server_takes_it_closes_the_connection_and_leaves_it_unknown(
    tmp_path: Path, master: Postmaster, server: Server
) -> None:
    master.hang_in_data = True
    sender = smtp(tmp_path, server.port)
    task = asyncio.create_task(sender.dispatch(prepared(sender)))
    assert await asyncio.to_thread(master.in_data.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await sender.reconcile(prepared(sender)) == "unknown"


async def test_a_server_that_is_not_there_took_nothing(tmp_path: Path) -> None:
    sender = smtp(tmp_path, 9)
    with pytest.raises(ProviderError) as caught:
        await sender.dispatch(prepared(sender))
    assert caught.value.outcome == "absent" and caught.value.retryable
    assert caught.value.named_code == "mail.smtp"


@pytest.mark.parametrize("reply", [b"220-more\r\n", b"220-" + b"x" * 8_000 + b"\r\n", b"x" * 10_000])
@pytest.mark.parametrize(
    ("dialogue", "outcome"),
    [
        ((), "absent"),
        ((b"220 hello\r\n",), "absent"),
        ((b"220 hello\r\n", *[b"250 OK\r\n"] * 5, b"354 go on\r\n"), "unknown"),
    ],
)
async def test_a_reply_without_end_is_cut(
    tmp_path: Path, dialogue: tuple[bytes, ...], outcome: str, reply: bytes
) -> None:
    """A server that says one line per command, and then never stops."""
    poured = 0

    def talk(listening: socket.socket) -> None:
        nonlocal poured
        with listening.accept()[0] as peer, suppress(OSError):
            for said in dialogue:
                peer.sendall(said)
                while not peer.recv(4096).endswith(b"\r\n.\r\n" if said[:3] == b"354" else b"\r\n"):
                    pass
            while poured < ENDLESS:
                peer.sendall(reply * 10)
                poured += len(reply) * 10

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = asyncio.create_task(asyncio.to_thread(talk, listening))
        sender = smtp(tmp_path, listening.getsockname()[1])
        with pytest.raises(ProviderError) as caught:
            await sender.dispatch(prepared(sender))
        await server
    assert caught.value.outcome == outcome and "bytes" in caught.value.message
    assert poured < ENDLESS, "we hang up"
    assert await sender.reconcile(prepared(sender)) == outcome


@pytest.mark.parametrize(("lines", "why"), [(100, "SMTPConnectError"), (101, "100 lines")])
async def test_a_reply_has_a_hundred_lines_at_most(tmp_path: Path, lines: int, why: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"554-no\r\n" * (lines - 1) + b"554 no\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as wordy:
        sender = smtp(tmp_path, wordy.sockets[0].getsockname()[1])
        with pytest.raises(ProviderError) as caught:
            await sender.dispatch(prepared(sender))
    assert why in caught.value.message and caught.value.outcome == "absent"


@pytest.mark.parametrize("greeting", [b"554 go away\r\n", b"garbage\r\n", b"\xff\xfe" * 9_000, b""])
async def test_a_server_that_talks_nonsense_took_nothing(tmp_path: Path, greeting: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as odd:
        sender = smtp(tmp_path, odd.sockets[0].getsockname()[1])
        with pytest.raises(ProviderError) as caught:
            await sender.dispatch(prepared(sender))
    assert caught.value.outcome == "absent"


async def test_a_spool_that_cannot_be_written_means_nothing_is_sent(
    tmp_path: Path, master: Postmaster, server: Server
) -> None:
    (tmp_path / "spool").write_text("a file in the way")
    sender = smtp(tmp_path, server.port)
    with pytest.raises(ProviderError) as caught:
        await sender.dispatch(prepared(sender))
    assert caught.value.outcome == "absent" and not master.taken


# --- TLS and login --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def tls_server(master: Postmaster, certificate: tuple[Path, Path]) -> Iterator[Server]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    made = Server(
        master,
        tls_context=context,
        require_starttls=True,
        authenticator=master.authenticate,
        auth_required=True,
    )
    made.start()
    yield made
    made.stop()


def trusting(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


LOGIN = {"user": "me", "password": SecretRef(env="MAIL_PASSWORD"), "tls": "starttls"}


async def test_mail_goes_out_encrypted_and_logged_in(
    tmp_path: Path, master: Postmaster, tls_server: Server, certificate: tuple[Path, Path]
) -> None:
    sender = smtp(
        tmp_path,
        tls_server.port,
        {"MAIL_PASSWORD": PASSWORD},
        tls_context=lambda: trusting(certificate),
        **LOGIN,
    )
    await sender.dispatch(prepared(sender))
    assert len(master.taken) == 1 and master.logins == [PASSWORD.encode()]


async def test_a_certificate_nobody_vouches_for_ends_it_before_the_password(
    tmp_path: Path, master: Postmaster, tls_server: Server
) -> None:
    sender = smtp(tmp_path, tls_server.port, {"MAIL_PASSWORD": PASSWORD}, **LOGIN)
    with pytest.raises(ProviderError) as caught:
        await sender.dispatch(prepared(sender))
    assert caught.value.named_code == "mail.tls" and caught.value.outcome == "absent"
    assert not master.logins and not master.taken


async def test_a_server_that_offers_no_starttls_gets_neither_password_nor_mail(
    tmp_path: Path, master: Postmaster, server: Server
) -> None:
    sender = smtp(tmp_path, server.port, {"MAIL_PASSWORD": PASSWORD}, **LOGIN)
    with pytest.raises(ProviderError) as caught:
        await sender.dispatch(prepared(sender))
    assert "STARTTLS" in caught.value.message and not master.logins and not master.taken


async def test_a_wrong_password_is_told_without_being_told(
    tmp_path: Path, tls_server: Server, certificate: tuple[Path, Path]
) -> None:
    from tests.contract.test_secrets import everything_said

    wrong = "wrong-canary-77Xy"
    sender = smtp(
        tmp_path,
        tls_server.port,
        {"MAIL_PASSWORD": wrong},
        tls_context=lambda: trusting(certificate),
        **LOGIN,
    )
    with pytest.raises(ProviderError) as caught:
        await sender.dispatch(prepared(sender))
    assert caught.value.named_code == "mail.auth", caught.value.message
    said = everything_said(caught.value).replace(f"wrong = {wrong!r}", "")
    assert wrong not in said


async def test_what_a_server_says_never_holds_the_password(
    tmp_path: Path, master: Postmaster, tls_server: Server, certificate: tuple[Path, Path]
) -> None:
    master.refuse_recipient = "john@example.org"
    sender = smtp(
        tmp_path,
        tls_server.port,
        {"MAIL_PASSWORD": PASSWORD},
        tls_context=lambda: trusting(certificate),
        **LOGIN,
    )
    with pytest.raises(ProviderError) as caught:
        await sender.dispatch(prepared(sender))
    assert PASSWORD not in json.dumps(caught.value.to_wire()) and "[secret]" in caught.value.message


@pytest.mark.parametrize(
    "config",
    [
        {"host": "mail.example.org", "tls": "none"},
        {"tls": "sometimes"},
        {"user": "me"},
        {"password": SecretRef(env="P")},
    ],
)
def test_a_configuration_that_would_betray_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        smtp(tmp_path, 25, **config)
    assert caught.value.named_code == "config.mail"


# --- the broker on top ----------------------------------------------------------------------------


def broker(tmp_path: Path, port: int) -> MailBroker:
    config = Mail(provider="smtp", sender="me@example.org", host="127.0.0.1", port=port, tls="none")
    return MailBroker.configured(
        config, outbox=tmp_path / "outbox", user="me", secrets=SecretStore(environ={})
    )


async def test_the_broker_sends_what_it_prepared_and_nothing_else(
    tmp_path: Path, master: Postmaster, server: Server
) -> None:
    mails = broker(tmp_path, server.port)
    message = mails.prepare(mail(), key="k", now_ms=NOW_MS, sender=None)
    assert message.resource == f"smtp:127.0.0.1:{server.port}"
    widened = PreparedMail(
        **{name: getattr(message, name) for name in message.__slots__}
        | {"content": message.content.replace(b"mary@example.org", b"evil@example.org")}
    )
    with pytest.raises(RefusedError) as caught:
        await mails.dispatch(widened)
    assert caught.value.named_code == "mail.mismatch" and not master.taken
    await mails.dispatch(message)
    assert [envelope.original_content for envelope in master.taken] == [message.content]
    assert await mails.reconcile(message) == "done"


@pytest.mark.requirement("C1")
async def test_a_message_approved_for_one_door_does_not_leave_by_another(
    tmp_path: Path, master: Postmaster, server: Server
) -> None:
    elsewhere = MailBroker.configured(
        Mail(), outbox=tmp_path / "outbox", user="me", secrets=SecretStore(environ={})
    )
    message = elsewhere.prepare(mail(), key="k", now_ms=NOW_MS, sender=None)
    mails = broker(tmp_path, server.port)
    with pytest.raises(RefusedError) as caught:
        await mails.dispatch(message)
    assert caught.value.named_code == "mail.resource" and not master.taken
    assert await mails.reconcile(message) == "unknown"

"""SMTP: the door to the world. All recipients or none, and an honest answer about what happened.

Knows: TLS, login, the order of the dialogue, and the one moment after which nobody can tell: between the end
of the message and the server's reply. A mark on disk brackets that moment (``<spool>/sending``), and the
message moves to ``<spool>/sent`` when the server took it, so that a daemon that died in between knows what
it may repeat. Does not know: who may send; the password is looked up at login and kept nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runloop.durable import sync_folder
from runloop.errors import RunloopError, UsageError
from runloopd.broker.ports import MailReceipt, Outcome, PreparedMail, ProviderError
from runloopd.broker.providers.http import bare, is_loopback, readable
from runloopd.broker.providers.outbox import file_name
from runloopd.broker.scrubber import Scrubber
from runloopd.broker.secrets import Secret, SecretRef, SecretStore

__all__ = ["SmtpConfig", "SmtpSender"]

_MAX_REPLY_LINES = 100
_MAX_REPLY_BYTES = 64 * 1024
_EHLO = "[127.0.0.1]"
"""Said instead of this machine's name, which is nobody's business."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SmtpConfig:
    """How to reach the server."""

    host: str
    port: int
    tls: str = "starttls"
    """``tls`` from the first byte, ``starttls`` insisted on, ``none`` only towards this machine."""
    user: str | None = None
    password: SecretRef | None = None
    step_ms: int = 30_000
    """Longest silence of the server."""
    total_ms: int = 120_000
    """Longest dispatch."""


class _EndlessReplyError(smtplib.SMTPException):
    """The server goes on answering beyond what any answer needs."""

    def __init__(self) -> None:
        super().__init__(
            f"the server's reply has more than {_MAX_REPLY_LINES} lines or {_MAX_REPLY_BYTES} bytes"
        )


class _Smtp(smtplib.SMTP):
    """The library gathers the lines of a reply without end; this one stops and hangs up."""

    def getreply(self) -> tuple[int, bytes]:
        """As the library does it. Raises :class:`_EndlessReplyError`."""
        if self.file is None:
            assert self.sock is not None
            self.file = self.sock.makefile("rb")
        said: list[bytes] = []
        left = _MAX_REPLY_BYTES
        while len(said) < _MAX_REPLY_LINES:
            try:
                line = self.file.readline(left + 1)
            except OSError as error:
                self.close()
                raise smtplib.SMTPServerDisconnected(f"Connection unexpectedly closed: {error}") from error
            if not line:
                self.close()
                raise smtplib.SMTPServerDisconnected("Connection unexpectedly closed")
            left -= len(line)
            if left < 0:
                break
            said.append(line[4:].strip(b" \t\r\n"))
            try:
                code = int(line[:3])
            except ValueError:
                return -1, b"\n".join(said)
            if line[3:4] != b"-":
                return code, b"\n".join(said)
        self.close()
        raise _EndlessReplyError


class _SmtpTls(_Smtp, smtplib.SMTP_SSL):
    """The same, encrypted from the first byte."""


class SmtpSender:
    """Sends through one server."""

    def __init__(
        self,
        config: SmtpConfig,
        *,
        spool: Path,
        secrets: SecretStore,
        tls_context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        """Raises :class:`UsageError` (``config.mail``) for a connection that would carry mail in clear."""
        if config.tls not in ("tls", "starttls", "none"):
            raise UsageError(
                f"mail.tls is {config.tls!r}", hint="use tls, starttls or none", code="config.mail"
            )
        if config.tls == "none" and not is_loopback(config.host):
            raise UsageError(
                f"mail to {config.host} would cross the network unencrypted",
                hint="set mail.tls to 'starttls' or 'tls'",
                code="config.mail",
            )
        if (config.user is None) != (config.password is None):
            raise UsageError(
                "mail.user belongs together with mail.password_env or mail.secret",
                hint="set both or none",
                code="config.mail",
            )
        self._config = config
        self._spool = spool
        self._secrets = secrets
        self._tls_context = tls_context

    @property
    def resource(self) -> str:
        """``smtp:<host>:<port>``."""
        return f"smtp:{self._config.host}:{self._config.port}"

    async def dispatch(self, prepared: PreparedMail) -> MailReceipt:
        """Send to every recipient or to none. A message already sent under this key is not sent again.

        Raises :class:`ProviderError`: ``outcome="unknown"`` from the moment the message was handed over.
        Cancelling closes the connection.
        """
        talk = _Talk(self._config, self._find_password, self._tls_context, prepared, self._spool)
        work = asyncio.create_task(asyncio.to_thread(talk.run))
        try:
            async with asyncio.timeout(self._config.total_ms / 1000):
                return await asyncio.shield(work)
        except TimeoutError as error:
            talk.abort()
            return await self._late(work, error)
        except asyncio.CancelledError:
            talk.abort()
            work.add_done_callback(_look_away)
            raise

    async def _late(self, work: asyncio.Task[MailReceipt], error: TimeoutError) -> MailReceipt:
        """The connection is closed; what the thread says now is what happened."""
        try:
            return await work
        except ProviderError as failure:
            raise failure from error

    async def reconcile(self, prepared: PreparedMail) -> Outcome:
        """From the marks on disk: ``done``, ``absent``, or ``unknown`` between handing over and the reply."""
        return await asyncio.to_thread(_Marks(self._spool, prepared.key).outcome)

    def _find_password(self) -> Secret | None:
        wanted = self._config.password
        return None if wanted is None else self._secrets.find(wanted, by="mail", to=self.resource)


def _look_away(work: asyncio.Task[MailReceipt]) -> None:
    """Whoever cancelled does not want the result; asyncio must not complain that nobody read it."""
    if not work.cancelled():
        work.exception()


class _Marks:
    """The two marks of one message: ``sending/<name>`` and ``sent/<name>``."""

    def __init__(self, spool: Path, key: str) -> None:
        name = file_name(key)
        self._sending, self._sent = spool / "sending" / name, spool / "sent" / name

    def outcome(self) -> Outcome:
        if self._sent.exists():
            return "done"
        return "unknown" if self._sending.exists() else "absent"

    @property
    def sent(self) -> Path:
        return self._sent

    def begin(self, content: bytes) -> None:
        """Durable before the first byte of the message leaves."""
        for folder in (self._sending.parent, self._sent.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(
            self._sending, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._sending.parent)

    def forget(self) -> None:
        """Certainly not sent."""
        self._sending.unlink(missing_ok=True)
        sync_folder(self._sending.parent)

    def done(self) -> None:
        """Certainly sent."""
        self._sending.rename(self._sent)
        sync_folder(self._sent.parent)


class _Talk:
    """One dialogue, in a thread of its own."""

    def __init__(
        self,
        config: SmtpConfig,
        password: Callable[[], Secret | None],
        tls_context: Callable[[], ssl.SSLContext],
        prepared: PreparedMail,
        spool: Path,
    ) -> None:
        self._config = config
        self._password = password
        self._tls_context = tls_context
        self._prepared = prepared
        self._marks = _Marks(spool, prepared.key)
        self._aborted = threading.Event()
        self._server: smtplib.SMTP | None = None
        self._scrubber = Scrubber()

    def abort(self) -> None:
        """From any thread: stop before the message if that is still possible, and wake a blocked read."""
        self._aborted.set()
        connection = self._server.sock if self._server is not None else None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def run(self) -> MailReceipt:
        """Raises :class:`ProviderError`, without the foreign exception: its frames hold the password."""
        failure: RunloopError | None = None
        try:
            receipt = self._run()
        except RunloopError as error:
            failure = error
        if failure is not None:
            raise bare(failure, self._scrubber)
        return receipt

    def _run(self) -> MailReceipt:
        outcome = self._marks.outcome()
        if outcome == "done":
            return MailReceipt(location=f"sent before; copy in {self._marks.sent}", provider="smtp")
        if outcome == "unknown":
            raise self._failed("an earlier attempt was cut off while the server took it", outcome="unknown")
        password = self._password()
        self._scrubber = Scrubber([password] if password is not None else [])
        with (
            self._foreign_errors("the connection failed"),
            self._connected() as server,
        ):
            if password is not None:
                self._login(server, password)
            self._envelope(server)
            return self._hand_over(server)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        config = self._config
        step_s = config.step_ms / 1000
        made: smtplib.SMTP
        if config.tls == "tls":
            made = _SmtpTls(local_hostname=_EHLO, timeout=step_s, context=self._tls_context())
        else:
            made = _Smtp(local_hostname=_EHLO, timeout=step_s)
        self._server = made
        try:
            # Not by the constructor, which would connect before abort() can see the socket.
            made._host = config.host  # type: ignore[attr-defined]  # the name that TLS checks
            code, said = made.connect(config.host, config.port)
            if code != 220:
                raise smtplib.SMTPConnectError(code, said)
            if config.tls == "starttls":
                made.starttls(context=self._tls_context())
            made.ehlo_or_helo_if_needed()
            yield made
        finally:
            made.close()
            self._server = None

    def _login(self, server: smtplib.SMTP, password: Secret) -> None:
        try:
            server.login(self._config.user or "", password.reveal())
        except _EndlessReplyError:
            raise
        except smtplib.SMTPException as error:  # some servers hang up instead of answering
            said = error.smtp_error if isinstance(error, smtplib.SMTPResponseException) else str(error)
            raise self._failed(
                f"the server refuses the login: {self._clean(said)}",
                hint="check mail.user and the password variable",
                code="mail.auth",
            ) from None

    def _envelope(self, server: smtplib.SMTP) -> None:
        code, said = server.mail(
            self._prepared.sender, [f"size={len(self._prepared.content)}"] if server.has_extn("size") else []
        )
        if code != 250:
            raise self._refused(code, said, "the sender", self._prepared.sender)
        for recipient in self._prepared.recipients:
            code, said = server.rcpt(recipient)
            if code not in (250, 251):
                raise self._refused(code, said, "the recipient", recipient)

    def _hand_over(self, server: smtplib.SMTP) -> MailReceipt:
        """From the mark on, only the server's reply tells what happened."""
        self._begin()
        try:
            code, said = server.data(self._prepared.content)
        except smtplib.SMTPDataError as error:  # refused before the message itself
            code, said = error.smtp_code, error.smtp_error  # type: ignore[assignment]
        except _EndlessReplyError as error:
            raise self._failed(str(error), outcome="unknown") from None
        except Exception as error:
            raise self._failed(
                f"the connection broke while the server took the message ({type(error).__name__})",
                outcome="unknown",
            ) from None
        if code != 250:
            self._marks.forget()
            raise self._refused(code, said, "the message", "")
        reply = f"{code} {self._clean(said)}"
        with contextlib.suppress(OSError):  # sent all the same; the mark then says "unknown", never "absent"
            self._marks.done()
        with contextlib.suppress(smtplib.SMTPException, OSError):
            server.quit()
        return MailReceipt(location=reply, provider="smtp")

    def _begin(self) -> None:
        try:
            self._marks.begin(self._prepared.content)
        except OSError as error:
            raise self._failed(f"its mark cannot be written: {error.strerror}") from error
        if self._aborted.is_set():
            self._marks.forget()
            raise self._failed("it was stopped in time")

    @contextlib.contextmanager
    def _foreign_errors(self, why: str) -> Iterator[None]:
        try:
            yield
        except RunloopError:
            raise
        except _EndlessReplyError as error:
            raise self._failed(str(error)) from None
        except smtplib.SMTPNotSupportedError as error:
            raise self._failed(self._clean(str(error)), hint="check mail.tls and mail.user") from None
        except ssl.SSLError as error:
            raise self._failed(
                f"its certificate or TLS is not accepted: {readable(str(error.reason or error))}",
                hint="check mail.host and mail.tls",
                code="mail.tls",
            ) from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise self._failed(f"{why} ({type(error).__name__})", retryable=True) from None

    def _clean(self, said: bytes | str) -> str:
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        return readable(self._scrubber.text(text))

    def _refused(self, code: int, said: bytes, what: str, whom: str) -> ProviderError:
        detail = f"{what} {whom}".strip()
        return self._failed(
            f"the server refuses {detail} ({code} {self._clean(said)})",
            hint="correct the address, or ask the owner of the server",
            code="mail.refused",
            retryable=400 <= code < 500,
        )

    def _failed(
        self,
        why: str,
        *,
        hint: str = "look at the section [mail], then try again",
        code: str = "mail.smtp",
        retryable: bool = False,
        outcome: Outcome = "absent",
    ) -> ProviderError:
        return ProviderError(
            f"the message was not sent by {self.resource}: {why}"
            if outcome == "absent"
            else f"nobody can tell whether the message left by {self.resource}: {why}",
            hint=hint if outcome == "absent" else "ask the recipients before sending it again",
            code=code if outcome == "absent" else "mail.unknown",
            retryable=retryable and outcome == "absent",
            outcome=outcome,
        )

    @property
    def resource(self) -> str:
        return f"{self._config.host}:{self._config.port}"

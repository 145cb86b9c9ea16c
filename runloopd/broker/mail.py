"""Mail: one exact rendering of a message, and the door it leaves by.

Knows: how a message is written (RFC 5322), that who is shown is who receives (attacks.md M3), which sender
is configured. The envelope and the headers come from the same parse; the rendered bytes are read back and
compared before anybody sees them, so that no header library's bug can add, drop or move a recipient. Does
not know: who may send, or whether a person agreed (the gate); how a folder or a server takes a message
(``providers.outbox``, ``providers.smtp``).
"""

from __future__ import annotations

import email
import email.policy
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from itertools import groupby
from pathlib import Path
from typing import Protocol

from runloop.config import Mail
from runloop.digest import blob_digest
from runloop.errors import RefusedError, UsageError
from runloop.ops import MailSend
from runloopd.broker.ports import MailReceipt, Outcome, PreparedMail
from runloopd.broker.providers.address import Address, parse_address
from runloopd.broker.providers.outbox import Outbox
from runloopd.broker.providers.smtp import SmtpConfig, SmtpSender
from runloopd.broker.secrets import SecretRef, SecretStore

__all__ = ["MailBroker", "Transport", "message_name", "render"]

MAX_RECIPIENTS = 100
MAX_SUBJECT = 400
"""Characters."""
MAX_BLANKS = 7
"""Blanks in a row within a subject: more only serve to fill a line, so that the next looks like another."""
MAX_BODY = 1024 * 1024
"""Characters."""
_MAX_LINE = 900
"""Octets of a line that may travel as it is; RFC 5321 ends at 998."""


class Transport(Protocol):
    """A door that mail leaves by."""

    @property
    def resource(self) -> str:
        """What an approval is bound to: ``outbox:<path>``, ``smtp:<host>:<port>``."""
        ...

    async def dispatch(self, prepared: PreparedMail) -> MailReceipt: ...

    async def reconcile(self, prepared: PreparedMail) -> Outcome: ...


class MailBroker:
    """Implements :class:`runloopd.broker.ports.MailPort`."""

    def __init__(self, *, sender: str, transport: Transport) -> None:
        """``sender`` is the From address of a message for which nobody gives another."""
        self._sender = sender
        self._transport = transport

    @classmethod
    def configured(cls, config: Mail, *, outbox: Path, user: str, secrets: SecretStore) -> MailBroker:
        """The broker that the section ``[mail]`` describes. ``user`` is the login name of the owner.

        Raises :class:`UsageError` (``config.mail``) where the section does not hold together.
        """
        plain_user = "".join(char if char.isascii() and char.isalnum() else "-" for char in user).strip("-")
        sender = config.sender or f"{plain_user or 'runloop'}@localhost"
        parse_address(sender)
        if config.provider == "outbox":
            return cls(sender=sender, transport=Outbox(outbox))
        if config.provider != "smtp" or not config.host or not config.sender:
            raise UsageError(
                "the section [mail] needs provider = 'outbox', or 'smtp' with host and from",
                hint="rlp config check",
                code="config.mail",
            )
        smtp = SmtpConfig(
            host=config.host,
            port=config.port,
            tls=config.tls,
            user=config.user,
            password=SecretRef(env=config.password_env, name=config.secret)
            if config.password_env or config.secret
            else None,
        )
        return cls(sender=sender, transport=SmtpSender(smtp, spool=outbox.with_name("smtp"), secrets=secrets))

    def prepare(self, args: MailSend, *, key: str, now_ms: int, sender: str | None) -> PreparedMail:
        """See :meth:`MailPort.prepare`."""
        return render(
            args, key=key, now_ms=now_ms, sender=sender or self._sender, resource=self._transport.resource
        )

    async def dispatch(self, prepared: PreparedMail) -> MailReceipt:
        """See :meth:`MailPort.dispatch`. Refuses (``mail.mismatch``) what hides a recipient."""
        self._insist(prepared)
        return await self._transport.dispatch(prepared)

    async def reconcile(self, prepared: PreparedMail) -> Outcome:
        """See :meth:`MailPort.reconcile`."""
        return await self._transport.reconcile(prepared) if self._is_ours(prepared) else "unknown"

    def _is_ours(self, prepared: PreparedMail) -> bool:
        return prepared.resource == self._transport.resource

    def _insist(self, prepared: PreparedMail) -> None:
        if not self._is_ours(prepared):
            raise RefusedError(
                f"the message was approved for {prepared.resource}, and mail now leaves by "
                f"{self._transport.resource}",
                hint="ask for the approval again",
                code="mail.resource",
            )
        shown = _read_back(prepared.content)
        if shown.hidden or not set(shown.recipients) <= set(prepared.recipients):
            raise RefusedError(
                "the message names recipients that are not in its envelope, or hides some",
                hint="ask for the approval again",
                code="mail.mismatch",
            )


# --- rendering ------------------------------------------------------------------------------------


def message_name(key: str) -> str:
    """The part of Message-ID and file names that stands for an idempotency key: 40 hex characters."""
    return blob_digest(key.encode())[:40]


def render(args: MailSend, *, key: str, now_ms: int, sender: str, resource: str) -> PreparedMail:
    """Write the message. Pure: same arguments, same bytes. Raises :class:`UsageError` (``mail.*``)."""
    author = parse_address(sender)
    to, cc, bcc = (_addresses(texts) for texts in (args.to, args.cc, args.bcc))
    recipients = tuple(dict.fromkeys(address.spec for address in (*to, *cc, *bcc)))
    if not recipients:
        raise UsageError(
            "the message has no recipient", hint="name at least one in 'to'", code="mail.address"
        )
    if len(recipients) > MAX_RECIPIENTS:
        raise UsageError(
            f"the message has {len(recipients)} recipients, more than {MAX_RECIPIENTS}",
            hint="send several messages",
            code="mail.address",
        )
    message_id = f"<{message_name(key)}@{author.domain}>"
    headers = [("From", _mailbox(author))]
    # RFC 5322 allows no destination at all, but many servers do not.
    headers.append(("To", _mailboxes(to) if to or cc else "undisclosed-recipients:;"))
    headers.append(("Cc", _mailboxes(cc)))
    headers.append(("Subject", _text(_subject(args.subject), used=len("Subject: "))))
    headers.append(("Date", format_datetime(datetime.fromtimestamp(now_ms // 1000, UTC))))
    headers.append(("Message-ID", message_id))
    if args.in_reply_to is not None:
        answered = _message_id(args.in_reply_to)
        headers += [("In-Reply-To", answered), ("References", answered)]
    body = _body(args.body)
    content = EmailMessage(policy=email.policy.SMTP)
    content.set_content(body, subtype="plain", charset="utf-8", cte=_encoding(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers if value or name == "Subject")
    prepared = PreparedMail(
        content=head.encode("ascii") + content.as_bytes(),
        message_id=message_id,
        sender=author.spec,
        recipients=recipients,
        subject=args.subject,
        resource=resource,
        key=key,
    )
    _insist_readable(prepared, body, shown=tuple(dict.fromkeys(a.spec for a in (*to, *cc))))
    return prepared


def _addresses(texts: Sequence[str]) -> list[Address]:
    """Parsed, each mailbox once."""
    return list({address.spec: address for address in map(parse_address, reversed(texts))}.values())[::-1]


# The standard library's header folding loses blanks between encoded words (measured with 3.11: one long
# subject in ten), so headers are written here and only read back by it.

_ATOMS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~ ")
_WORD_BYTES = 42
"""UTF-8 bytes in one encoded word: with its frame it stays under 75 characters (RFC 2047 §2)."""


def _mailboxes(addresses: Sequence[Address]) -> str:
    return ",\r\n ".join(map(_mailbox, addresses))


def _mailbox(address: Address) -> str:
    name = address.name
    if not name:
        return address.spec
    if name == " ".join(name.split()) and "=?" not in name and len(name) < 60:
        if _ATOMS.issuperset(name):
            return f"{name} <{address.spec}>"
        if name.isascii() and not set(name) & set('"\\'):
            return f'"{name}" <{address.spec}>'
    return f"{_encoded(name)}\r\n <{address.spec}>"


def _text(text: str, *, used: int) -> str:
    """A header's text: as it is where that is safe in every reader, as encoded words otherwise."""
    plain = text.isascii() and "=?" not in text and text == " ".join(text.split())
    return text if plain and used + len(text) <= 78 else _encoded(text)


def _encoded(text: str) -> str:
    words, word = [], b""
    for char in text:
        coded = char.encode()
        if len(word) + len(coded) > _WORD_BYTES:
            words.append(word)
            word = b""
        word += coded
    words.append(word)
    return "\r\n ".join(f"=?utf-8?b?{b64encode(word).decode()}?=" for word in words)


def _subject(subject: str) -> str:
    if not all(char.isprintable() or _is_format(char) for char in subject):
        raise UsageError(
            "the subject has line breaks or control characters",
            hint="keep it to one line",
            code="mail.header",
        )
    if len(subject) > MAX_SUBJECT:
        raise UsageError(
            f"the subject has {len(subject)} characters, more than {MAX_SUBJECT}",
            hint="shorten it",
            code="mail.header",
        )
    blanks = max((len(list(run)) for blank, run in groupby(subject, _is_blank) if blank), default=0)
    if blanks > MAX_BLANKS:
        raise UsageError(
            f"the subject has {blanks} blanks in a row, more than {MAX_BLANKS}",
            hint="write it without the gap",
            code="mail.header",
        )
    return subject


def _is_blank(char: str) -> bool:
    """Spaces of every width, and the characters that show as one."""
    return char.isspace() or _is_format(char) or char in "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"


def _is_format(char: str) -> bool:
    """Joiners and direction marks, which whole scripts and emoji need; shown escaped in approvals."""
    import unicodedata

    return unicodedata.category(char) == "Cf"


def _message_id(text: str) -> str:
    inner = text[1:-1]
    good = (
        text.startswith("<")
        and text.endswith(">")
        and len(text) <= 250
        and inner.count("@") == 1
        and inner.isascii()
        and inner.isprintable()
        and not set(inner) & set(' <>()[]\\,;:"')
    )
    if not good:
        raise UsageError(
            f"in_reply_to is not a message id: {text[:100]!r}", hint="write <id@domain>", code="mail.header"
        )
    return text


def _body(body: str) -> str:
    text = body.replace("\r\n", "\n").replace("\r", "\n")
    strange = next(
        (char for char in text if (char < " " and char not in "\n\t") or "\x7f" <= char < "\xa0"), None
    )
    if strange is not None:
        raise UsageError(
            f"the body has the control character {strange!r}", hint="take it out", code="mail.body"
        )
    if len(text) > MAX_BODY:
        raise UsageError(
            f"the body has {len(text)} characters, more than {MAX_BODY}", hint="shorten it", code="mail.body"
        )
    return text if text.endswith("\n") else text + "\n"


def _encoding(body: str) -> str:
    """7bit where every server passes it on unchanged, quoted-printable otherwise."""
    plain = body.isascii() and all(len(line) <= _MAX_LINE for line in body.split("\n"))
    return "7bit" if plain else "quoted-printable"


# --- reading back ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shown:
    """What a mail program makes of the bytes."""

    names: tuple[str, ...]
    recipients: tuple[str, ...]
    hidden: bool
    subject: str
    body: str


def _read_back(content: bytes) -> _Shown:
    message = email.message_from_bytes(content, policy=email.policy.SMTP)
    recipients = [
        address.addr_spec
        for header in ("To", "Cc")
        for value in message.get_all(header, [])
        for address in value.addresses
    ]
    names = tuple(name.lower() for name, _ in message.items())
    return _Shown(
        names=names,
        recipients=tuple(dict.fromkeys(recipients)),
        hidden=any(name in ("bcc", "resent-to", "resent-cc", "resent-bcc") for name in names),
        subject=str(message["Subject"]),
        body=message.get_content() if not message.is_multipart() else "",
    )


_HEADERS = frozenset(
    {
        "cc",
        "content-transfer-encoding",
        "content-type",
        "date",
        "from",
        "in-reply-to",
        "message-id",
        "mime-version",
        "references",
        "subject",
        "to",
    }
)


def _insist_readable(prepared: PreparedMail, body: str, *, shown: tuple[str, ...]) -> None:
    """The rendered bytes say what was asked, to whom it was asked, and nothing else."""
    read = _read_back(prepared.content)
    faithful = (
        set(read.names) <= _HEADERS
        and len(set(read.names)) == len(read.names)
        and read.recipients == shown
        and read.subject == prepared.subject
        and read.body.replace("\r\n", "\n") == body
    )
    if not faithful:
        raise UsageError(
            "the message cannot be written so that every mail program reads it alike",
            hint="simplify names and subject",
            code="mail.header",
        )

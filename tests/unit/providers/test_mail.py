"""Rendering mail and putting it into the outbox."""

from __future__ import annotations

import email
import email.policy
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runloop.config import Mail
from runloop.errors import RefusedError, UsageError
from runloop.ops import MailSend
from runloopd.broker.mail import MailBroker, render
from runloopd.broker.ports import PreparedMail, ProviderError
from runloopd.broker.providers.address import parse_address
from runloopd.broker.providers.outbox import Outbox, file_name
from runloopd.broker.secrets import SecretStore

NOW_MS = 1_750_000_000_000


def write(sender: str = "Me <me@example.org>", key: str = "k", **fields: Any) -> PreparedMail:
    values: dict[str, Any] = {"to": ["john@example.org"], "subject": "Hi", "body": "Hello\n"}
    return render(
        MailSend(**(values | fields)), key=key, now_ms=NOW_MS, sender=sender, resource="outbox:/tmp/x"
    )


def parsed(message: PreparedMail) -> Any:
    return email.message_from_bytes(message.content, policy=email.policy.SMTP)


# --- rendering ------------------------------------------------------------------------------------


def test_a_plain_message_looks_exactly_like_this() -> None:
    message = write(to=["John Doe <john@Example.ORG>"], cc=["mary@example.org"], bcc=["boss@example.org"])
    assert message.content.decode().split("\r\n") == [
        "From: Me <me@example.org>",
        "To: John Doe <john@example.org>",
        "Cc: mary@example.org",
        "Subject: Hi",
        "Date: Sun, 15 Jun 2025 15:06:40 +0000",
        f"Message-ID: {message.message_id}",
        'Content-Type: text/plain; charset="utf-8"',
        "Content-Transfer-Encoding: 7bit",
        "MIME-Version: 1.0",
        "",
        "Hello",
        "",
    ]
    assert message.recipients == ("john@example.org", "mary@example.org", "boss@example.org")
    assert message.sender == "me@example.org"


def test_the_same_request_gives_the_same_bytes_and_another_key_another_id() -> None:
    assert write() == write()
    assert write(key="a").message_id != write(key="b").message_id
    assert write().message_id.endswith("@example.org>")


def test_a_blind_copy_is_in_the_envelope_only() -> None:
    message = write(to=[], bcc=["boss@example.org"])
    assert message.recipients == ("boss@example.org",)
    assert b"boss" not in message.content
    assert parsed(message)["To"] == "undisclosed-recipients:;"


def test_everybody_is_written_to_once() -> None:
    message = write(to=["a@example.org", "A Name <a@EXAMPLE.org>"], cc=["a@example.org", "b@example.org"])
    assert message.recipients == ("a@example.org", "b@example.org")


@pytest.mark.parametrize(
    ("subject", "body"),
    [
        ("Größe: 10 €", "Grüße aus München\n"),
        ("x" * 400, "y" * 5_000 + "\n"),
        ("日本語の件名" * 20, "本文\n" * 100),
        ("👩‍👩‍👧 family", "tab\there\n"),
        ("=?utf-8?q?literal?=", "From here\n.\n..\n"),
        ("", ""),
        ("a  b   c", "trailing blanks   \n\n\n"),
        ("ends with blank word " * 19, "soft=20break =\n"),
    ],
)
def test_what_was_written_is_what_is_read(subject: str, body: str) -> None:
    message = write(subject=subject, body=body)
    read = parsed(message)
    assert str(read["Subject"]) == subject == message.subject
    assert read.get_content().replace("\r\n", "\n").rstrip("\n") == body.rstrip("\n")
    assert all(len(line) <= 998 for line in message.content.split(b"\r\n"))
    assert message.content.isascii()


@pytest.mark.parametrize(
    "field",
    [
        {"subject": "Hi\r\nBcc: evil@example.org"},
        {"subject": "Hi\nX: y"},
        {"subject": "Hi\x00"},
        {"subject": "Hi\u2028there"},
        {"subject": "x" * 401},
        {"subject": "Hi" + " " * 8 + "there"},
        {"subject": "Hi" + " \u3000\u00a0\u2007" * 2 + "there"},
        {"to": ["john@example.org\r\nBcc: evil@example.org"]},
        {"to": ["J\r\nBcc: evil@example.org <john@example.org>"]},
        {"to": ["john@example.org, evil@example.org"]},
        {"to": ["john@example.org evil@example.org"]},
        {"to": ["<john@example.org> evil@example.org"]},
        {"to": ["alice@example.org)bob@example.net"]},
        {"to": ["evil@example.org <john@example.org>"]},
        {"to": ['"evil@example.org" <john@example.org>']},
        {"to": ["Doe, John <john@example.org>"]},
        {"to": ["group: a@example.org;"]},
        {"to": ["john"]},
        {"to": ["@example.org"]},
        {"to": ["jöhn@example.org"]},
        {"to": ["john@exa mple.org"]},
        {"to": ["john@-example.org"]},
        {"to": ["john@example..org"]},
        {"to": ["john.@example.org"]},
        {"to": ["john@[127.0.0.1]"]},
        {"to": ["john@" + "a" * 64 + ".org"]},
        {"to": ["j" * 65 + "@example.org"]},
        {"to": [""]},
        {"to": []},
        {"to": [f"u{n}@example.org" for n in range(101)]},
        {"cc": ["\x1b[31m@example.org"]},
        {"body": "bell \x07"},
        {"body": "escape \x1b]0;title\x07"},
        {"body": "c1 \x9b31m"},
        {"body": "x" * (1024 * 1024 + 1)},
        {"in_reply_to": "<a@b>\r\nBcc: evil@example.org"},
        {"in_reply_to": "no brackets"},
        {"in_reply_to": "<two@at@signs>"},
    ],
)
def test_what_cannot_be_written_safely_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        write(**field)
    assert caught.value.named_code.startswith("mail.") and caught.value.hint


def test_an_international_domain_is_shown_as_it_is_looked_up() -> None:
    message = write(to=["John <john@bücher.example>"])
    assert message.recipients == ("john@xn--bcher-kva.example",)
    assert b"xn--bcher-kva" in message.content


def test_a_quoted_name_keeps_its_comma_and_one_recipient() -> None:
    message = write(to=['"Doe, John" <john@example.org>'])
    (address,) = parsed(message)["To"].addresses
    assert (address.display_name, address.addr_spec) == ("Doe, John", "john@example.org")


def test_a_reply_names_the_message_it_answers() -> None:
    read = parsed(write(in_reply_to="<abc.1@example.org>"))
    assert read["In-Reply-To"] == read["References"] == "<abc.1@example.org>"


NAMES = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x24FF, blacklist_categories=("Cs", "Cc")), max_size=60
)


@settings(max_examples=150, deadline=None)
@given(
    names=st.lists(NAMES, min_size=1, max_size=12),
    subject=st.text(st.characters(blacklist_categories=("Cs",)), max_size=120),
    body=st.text(st.characters(blacklist_categories=("Cs",)), max_size=300),
)
def test_whatever_is_accepted_reads_back_exactly_and_reaches_nobody_else(
    names: list[str], subject: str, body: str
) -> None:
    to = [
        '"' + name.replace("\\", "").replace('"', "") + f'" <u{n}@example.org>'
        for n, name in enumerate(names)
    ]
    try:
        message = write(to=to, subject=subject, body=body)
    except UsageError:
        return
    read = parsed(message)
    specs = tuple(address.addr_spec for address in read["To"].addresses)
    assert specs == message.recipients == tuple(f"u{n}@example.org" for n in range(len(names)))
    assert str(read["Subject"]) == subject
    assert {name.lower() for name, _ in read.items()} <= {
        *("from", "to", "subject", "date", "message-id"),
        *("content-type", "content-transfer-encoding", "mime-version"),
    }
    assert read["Bcc"] is None


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_an_address_is_one_mailbox_or_an_error(text: str) -> None:
    try:
        address = parse_address(text)
    except UsageError:
        return
    assert address.spec.isascii() and address.spec.count("@") == 1 and address.spec.isprintable()


# --- the outbox -----------------------------------------------------------------------------------


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox")


@pytest.mark.requirement("I2.mail.1")
async def test_a_message_lands_complete_in_new_readable_by_its_owner_only(
    tmp_path: Path, outbox: Outbox
) -> None:
    message = write()
    assert await outbox.reconcile(message) == "absent"
    receipt = await outbox.dispatch(message)
    there = Path(receipt.location)
    assert receipt.provider == "outbox" and there.parent == tmp_path / "outbox" / "new"
    assert there.read_bytes() == message.content
    assert stat.S_IMODE(there.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "outbox").stat().st_mode) == 0o700
    assert not list((tmp_path / "outbox" / "tmp").iterdir())
    assert await outbox.reconcile(message) == "done"


async def test_the_same_message_twice_is_one_message(tmp_path: Path, outbox: Outbox) -> None:
    first, second = await outbox.dispatch(write()), await outbox.dispatch(write())
    assert first == second
    assert len(list((tmp_path / "outbox" / "new").iterdir())) == 1


async def test_a_message_that_a_mail_program_has_seen_is_still_there(tmp_path: Path, outbox: Outbox) -> None:
    there = Path((await outbox.dispatch(write())).location)
    seen = tmp_path / "outbox" / "cur" / f"{there.name}:2,S"
    there.rename(seen)
    assert await outbox.reconcile(write()) == "done"
    assert (await outbox.dispatch(write())).location == str(seen)


async def test_another_message_under_the_same_key_is_refused(tmp_path: Path, outbox: Outbox) -> None:
    await outbox.dispatch(write())
    other = write(body="Something else\n")
    with pytest.raises(RefusedError) as caught:
        await outbox.dispatch(other)
    assert caught.value.named_code == "mail.duplicate"
    assert await outbox.reconcile(other) == "unknown"


async def test_what_a_dead_daemon_left_half_written_is_no_message(tmp_path: Path, outbox: Outbox) -> None:
    half = tmp_path / "outbox" / "tmp" / file_name("k")
    half.parent.mkdir(parents=True)
    half.write_bytes(b"From: half")
    assert await outbox.reconcile(write()) == "absent"
    receipt = await outbox.dispatch(write())
    assert Path(receipt.location).read_bytes() == write().content and not half.exists()


async def test_a_key_cannot_choose_a_path(tmp_path: Path, outbox: Outbox) -> None:
    receipt = await outbox.dispatch(write(key="../../../../tmp/evil"))
    assert Path(receipt.location).parent == tmp_path / "outbox" / "new"


async def test_an_outbox_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "outbox").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError):
        await Outbox(tmp_path / "outbox").dispatch(write())
    assert not [path for path in (tmp_path / "elsewhere").rglob("*") if not path.is_dir()]


async def test_an_outbox_that_cannot_be_written_took_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ProviderError) as caught:
        await Outbox(tmp_path / "file").dispatch(write())
    assert caught.value.outcome == "absent" and caught.value.named_code == "mail.outbox"


async def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await outbox.dispatch(write(key="first"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ProviderError, match="No space left"):
        await outbox.dispatch(write())
    monkeypatch.undo()
    assert await outbox.reconcile(write()) == "absent"
    assert not list((tmp_path / "outbox" / "tmp").iterdir())


# --- the broker -----------------------------------------------------------------------------------


def configured(tmp_path: Path, **fields: Any) -> MailBroker:
    return MailBroker.configured(
        Mail(**fields), outbox=tmp_path / "outbox", user="jane doe", secrets=SecretStore(environ={})
    )


async def test_without_configuration_mail_goes_to_the_outbox_from_the_user_of_this_machine(
    tmp_path: Path,
) -> None:
    broker = configured(tmp_path)
    args = MailSend(to=["john@example.org"], subject="Hi", body="Hello")
    message = broker.prepare(args, key="k", now_ms=NOW_MS, sender=None)
    assert message.sender == "jane-doe@localhost"
    assert message.resource == f"outbox:{tmp_path / 'outbox'}"
    assert message.content.endswith(b"\r\n\r\nHello\r\n")
    await broker.dispatch(message)
    assert await broker.reconcile(message) == "done"


@pytest.mark.parametrize(
    "fields",
    [
        {"provider": "smtp"},
        {"provider": "smtp", "host": "mail.example.org"},
        {"provider": "pigeon"},
        {"sender": "nobody"},
        {"provider": "smtp", "host": "mail.example.org", "sender": "me@example.org", "tls": "none"},
    ],
)
def test_a_section_that_does_not_hold_together_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        configured(tmp_path, **fields)


@pytest.mark.requirement("M3")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"To: john@example.org", b"To: john@example.org, evil@example.org"),
        (b"Subject: Hi", b"Bcc: evil@example.org\r\nSubject: Hi"),
    ],
)
async def test_a_message_that_shows_other_recipients_than_its_envelope_does_not_leave(
    tmp_path: Path, old: bytes, new: bytes
) -> None:
    broker = configured(tmp_path)
    args = MailSend(to=["john@example.org"], subject="Hi", body="Hello")
    message = broker.prepare(args, key="k", now_ms=NOW_MS, sender=None)
    values = {name: getattr(message, name) for name in PreparedMail.__slots__}
    forged = PreparedMail(**(values | {"content": message.content.replace(old, new)}))
    with pytest.raises(RefusedError) as caught:
        await broker.dispatch(forged)
    assert caught.value.named_code == "mail.mismatch"
    assert not (tmp_path / "outbox").exists()

"""What a person is shown before saying yes."""

from __future__ import annotations

import base64
from email.message import EmailMessage
from typing import Any

import pytest

from runloop.approval import content_of, describe, raw_lines
from runloop.digest import blob_digest, digest
from runloop.errors import DivergenceError


def approval(content: bytes, content_type: str = "message/rfc822", **action: Any) -> dict[str, Any]:
    whole = {"summary": "send it", "recipients": ["a@example.org"], "resource": "outbox:/o", **action}
    return {
        "approval": "ap_1",
        "run": "r",
        "node": "send",
        "action": whole,
        "action_digest": digest({"action": whole, "content": blob_digest(content)}),
        "content_blob": blob_digest(content),
        "content_type": content_type,
        "content": base64.b64encode(content).decode(),
        "expires_ms": 0,
    }


def shown(content: bytes, content_type: str = "message/rfc822", **action: Any) -> str:
    return "\n".join(describe(approval(content, content_type, **action), content))


def test_the_content_is_taken_only_when_it_is_what_the_answer_binds() -> None:
    good = approval(b"bytes")
    assert content_of(good) == b"bytes"
    for broken in (
        {**good, "content": base64.b64encode(b"other").decode()},
        {**good, "action": {**good["action"], "recipients": ["eve@example.org"]}},
        {**good, "content": "!"},
        {**good, "content": None},
    ):
        with pytest.raises(DivergenceError):
            content_of(broken)


def test_recipients_that_the_message_hides_are_named() -> None:
    text = shown(
        b"To: a@example.org\r\nSubject: s\r\n\r\nhi\r\n", recipients=["A@example.org", "b@example.org"]
    )
    assert "also goes to, without being named in the message: b@example.org" in text


def test_attachments_and_a_second_body_are_named() -> None:
    message = EmailMessage()
    message["To"] = "a@example.org"
    message.set_content("plain words")
    message.add_alternative("<p>other words</p>", subtype="html")
    message.add_attachment(b"x", maintype="application", subtype="pdf", filename="in\u202evoice.pdf")
    text = shown(message.as_bytes())
    assert "| plain words" in text
    assert "attachment in\\u202evoice.pdf (application/pdf)" in text
    assert "there is an HTML part too" in text


def test_a_message_without_text_is_shown_as_its_bytes() -> None:
    text = shown(b"To: a@example.org\r\nContent-Type: application/pdf\r\n\r\n\xff\x00\x1b")
    assert "\\x00\\x1b" in text


def test_an_unknown_charset_does_not_hide_the_text() -> None:
    assert "| words" in shown(
        b"To: a@example.org\r\nContent-Type: text/plain; charset=klingon\r\n\r\nwords\r\n"
    )


def test_other_content_is_shown_as_text_with_its_price() -> None:
    text = shown(b'{"pay": 1}', "application/json", amount_micro_usd=1_500_000, recipients=[])
    assert '| {"pay": 1}' in text
    assert "costs       $1.50" in text
    assert "recipients" not in text


@pytest.mark.requirement("C6")
def test_a_look_alike_is_pointed_out() -> None:
    assert "NOTE        recipients: \u0440aypal mixes alphabets" in shown(
        b"To: \r\n\r\nx", recipients=["\u0440aypal@example.org"]
    )


@pytest.mark.requirement("P1")
@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("import:document", "reading what was imported: mails, notes and contacts hold other people's words"),
        ("web:evil.example", "reading a web page (web:evil.example)"),
        ("made\x1bup", "nobody can say the origin of (made\\x1bup)"),
        ("user:1000", ""),
        ("model:fake", ""),
        (None, ""),
    ],
)
def test_whose_words_an_agent_had_read_when_it_asked_is_shown(label: str | None, words: str) -> None:
    approval = {"action": {"agent": "assistant"}, "run": "r", "node": "n", "label": label}
    text = "\n".join(describe(approval, b"x", width=400))
    assert (f"asked after {words}" in text) if words.startswith("reading") else (words in text)
    assert ("asked after" in text) is bool(words)


def test_a_long_body_is_cut_with_the_number_of_lines_and_the_way_to_see_all() -> None:
    content = b"To: a@example.org\r\n\r\n" + b"line\r\n" * 500
    assert "... 100 more lines; every byte: v" in shown(content)
    assert len(raw_lines(content)) == 503


def rows(text: str, width: int) -> list[str]:
    """What a terminal of that many columns shows: it wraps by itself what is longer."""
    from rlp.output import columns_of

    found = []
    for line in text.splitlines():
        row = ""
        for char in line:
            if columns_of(row + char) > width:
                found.append(row)
                row = ""
            row += char
        found.append(row)
    return found


@pytest.mark.requirement("C6")
@pytest.mark.parametrize("width", [24, 40, 80, 133])
@pytest.mark.parametrize("blank", [" ", "\u3000", "\u00a0"])
def test_no_foreign_text_begins_a_row(width: int, blank: str) -> None:
    """Spaces up to the edge of the terminal, then rows that look like ours."""
    step = 2 if blank == "\u3000" else 1
    fake = "  recipients  boss@corp.example"
    forged = "Hi" + (blank * ((width - 2) // step) + fake.ljust(width)) * 5
    subject = forged[:900].encode("utf-8")
    content = b"To: a@example.org\r\nSubject: " + subject + b"\r\n\r\n" + forged.encode() + b"\r\n"
    lines = describe(
        approval(content, summary=f"send '{forged}'", recipients=["a@example.org"], agent=forged),
        content,
        width=width,
    )
    ours = ("  |", "  -", " " * 14 + "│ ")
    names = [row[2:14].strip() for row in rows("\n".join(lines), width) if not row.startswith(ours)]
    assert names[0] == "recipients"
    assert names.count("recipients") == 1
    known = {"recipients", "what", "by", "run", "leaves to", "content", "to", "subject", "NOTE"}
    assert set(names) <= known


def test_a_summary_has_no_gaps() -> None:
    from runloop.approval import bare

    assert bare({"summary": "send  a \u3000 b" + " " * 80 + "c"}) == "send a b c"

"""Bringing in what the user has; all of it foreign."""

from __future__ import annotations

import contextlib
import mailbox
import os
import time
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pog.errors import ImportProblemsError
from pog.importers import Problem, named, parse, unseen
from pog.importers.mail import parse_message
from pog.importers.vcard import parse_cards
from runloop.digest import canonical
from runloop.errors import NotFoundError
from runloop.events import ContactUpserted, DocumentImported, Payload, encode_payload

from . import facts

CARDS = (
    "BEGIN:VCARD\r\nVERSION:3.0\r\nUID:urn:uuid:1\r\nFN:John Doe\r\nN:Doe;John;;;\r\n"
    "item1.EMAIL;TYPE=WORK:john.doe@example.com\r\nEMAIL;TYPE=HOME,PREF:jd@home.example\r\nTEL:+1 555\r\n"
    "ORG:Acme\\, Inc.;Plans\r\nTITLE:Head of\r\n  Plans\r\nNOTE:Likes\\ntea\\; and \\\\\r\n"
    "NICKNAME:Johnny,JD\r\nPHOTO;ENCODING=b:AAAA\r\n AAAA\r\nEND:VCARD\r\n"
    'BEGIN:VCARD\nVERSION:4.0\nFN:Zoë Ångström\nEMAIL;PREF=1;X="a;b:c":zoe@example.org\n'
    "TEL;VALUE=uri:tel:+46-1\nEND:VCARD\n"
    "BEGIN:VCARD\nVERSION:2.1\nN;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:M=C3=BCller;J=C3=B6rg=\n;;\n"
    "EMAIL;INTERNET:joerg@example.org\nEND:VCARD\n"
)


def cards(text: str | bytes) -> tuple[list[ContactUpserted], list[Problem]]:
    problems: list[Problem] = []
    data = text if isinstance(text, bytes) else text.encode()
    return list(parse_cards(data, "c.vcf", problems.append)), problems  # type: ignore[arg-type]


def imported(*paths: Path) -> tuple[list[Payload], list[str]]:
    problems: list[Problem] = []
    return list(parse(paths, on_problem=problems.append)), [problem.what for problem in problems]


def mail(**headers: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in {
        "From": "Ann <ann@example.org>",
        "To": "john.doe@example.com",
        "Subject": "Plan",
    }.items():
        message[name] = value
    for name, value in headers.items():
        del message[name.replace("_", "-")]
        message[name.replace("_", "-")] = value
    message.set_content("See you at ten.\n")
    return message


# --- vCard ----------------------------------------------------------------------------------------


def test_cards_of_every_version_are_read() -> None:
    (john, zoe, joerg), problems = cards(CARDS)
    assert problems == []
    assert (john.name, john.emails) == ("John Doe", ["jd@home.example", "john.doe@example.com"])
    assert (john.org, john.title, john.note) == ("Acme, Inc., Plans", "Head of Plans", "Likes\ntea; and \\")
    assert (john.phones, john.nicknames, john.source) == (["+1 555"], ["Johnny", "JD"], "c.vcf")
    assert (zoe.name, zoe.emails, zoe.phones) == ("Zoë Ångström", ["zoe@example.org"], ["+46-1"])
    assert (joerg.name, joerg.emails) == ("Jörg Müller", ["joerg@example.org"])


def test_a_bad_card_is_reported_with_its_line_and_the_rest_is_read() -> None:
    found, problems = cards(
        "BEGIN:VCARD\nEND:VCARD\n"
        "BEGIN:VCARD\nFN:One\nEMAIL:not an address\nnonsense\nEND:VCARD\n"
        "BEGIN:VCARD\nFN:Two\n"
        "BEGIN:VCARD\nEMAIL:three@example.org\nEND:VCARD\n"
        "BEGIN:VCARD\nFN:Four\n"
    )
    assert [contact.name for contact in found] == ["One", "three@example.org"]
    assert [str(problem) for problem in problems] == [
        "c.vcf:1: the card has neither a name nor an address",
        "c.vcf:6: this line is no property",
        "c.vcf:3: 'not an address' is not an address",
        "c.vcf:8: the card has no END:VCARD",
        "c.vcf:13: the card has no END:VCARD",
    ]


@pytest.mark.timeout(40)
@pytest.mark.parametrize(
    "bomb",
    [
        "NOTE:x" + "\n " * 500_000,
        "NOTE;ENCODING=QUOTED-PRINTABLE:" + "x" * 60_000 + "=" + "\n=" * 500_000,
        "item.TEL" + ";a=b" * 200_000 + ":x",
        "EMAIL:" + "a" * 100_000,
        "EMAIL:" + "a." * 50_000 + "@" + "b." * 50_000,
    ],
)
def test_an_endless_line_costs_its_property_and_nothing_else(bomb: str) -> None:
    found, problems = cards(f"BEGIN:VCARD\nFN:One\n{bomb}\n\nTITLE:t\nEND:VCARD\n")
    assert [(contact.name, contact.title, contact.note) for contact in found] == [("One", "t", "")]
    assert [str(problem) for problem in problems] == ["c.vcf:3: it is longer than 65536 characters"]


@pytest.mark.timeout(40)
def test_a_long_picture_is_passed_over_and_very_many_parts_are_cut() -> None:
    found, problems = cards(
        "BEGIN:VCARD\nFN:One\nPHOTO;ENCODING=b:" + "A" * 70 + ("\n " + "A" * 70) * 5_000 + "\n"
        "NICKNAME:" + "a," * 30_000 + "\nORG:" + "b;" * 30_000 + "\nEND:VCARD\n"
    )
    assert problems == []
    assert len(found[0].nicknames) == 50
    assert len(found[0].org) < 200


@pytest.mark.parametrize(
    "address",
    [
        "a@b\\nBcc: c@d.example",
        "a b@example.org",
        "@example.org",
        "a@",
        "a@b@c.example",
        "<a@b.example>",
        "a" * 300 + "@b.example",
    ],
)
def test_what_cannot_stand_on_an_envelope_is_no_address(address: str) -> None:
    found, problems = cards(f"BEGIN:VCARD\nFN:X\nEMAIL:{address}\nEND:VCARD\n")
    assert found[0].emails == []
    assert problems


def test_a_contacts_id_follows_its_uid_else_its_name_and_address() -> None:
    def ids(text: str) -> list[str]:
        return [contact.contact for contact in cards(text)[0]]

    card = "BEGIN:VCARD\nFN:{}\nUID:u1\nEMAIL:{}\nEND:VCARD\n"
    assert ids(card.format("A", "a@x.example")) == ids(card.format("B", "b@x.example"))
    card = card.replace("UID:u1\n", "")
    assert ids(card.format("Ann", "A@x.example")) == ids(card.format("ANN", "a@x.example"))
    assert ids(card.format("Ann", "a@x.example")) != ids(card.format("Ann", "b@x.example"))


def test_text_that_is_not_utf8_or_no_card_is_survived() -> None:
    assert cards("BEGIN:VCARD\nFN:Jörg\nEND:VCARD\n".encode("latin-1"))[0][0].name == "Jörg"
    assert cards("hello\n")[1][0].what == "text outside of a card"
    assert cards("\ufeffBEGIN:VCARD\nFN:A\nEND:VCARD")[0][0].name == "A"


@given(st.binary(max_size=300), st.text(max_size=200))
def test_no_bytes_break_the_card_reader(data: bytes, text: str) -> None:
    for body in (
        data,
        b"BEGIN:VCARD\n" + data + b"\nEND:VCARD",
        f"BEGIN:VCARD\nFN:{text}\nEND:VCARD".encode("utf-8", "replace"),
    ):
        for contact in cards(body)[0]:
            canonical(encode_payload(contact))


# --- notes ----------------------------------------------------------------------------------------


def note(tmp_path: Path, text: str, name: str = "q4_plan.md") -> DocumentImported:
    (tmp_path / name).write_text(text, encoding="utf-8")
    (found,), problems = imported(tmp_path / name)
    assert problems == []
    assert isinstance(found, DocumentImported)
    return found


def test_a_note_takes_its_title_from_front_matter_heading_or_name(tmp_path: Path) -> None:
    front = note(
        tmp_path, "---\ntitle: 'The plan'\ndate: 2026-10-01\npeople: [ann@example.org]\n---\n# Other\n\nText"
    )
    assert (front.title, front.text, front.people) == ("The plan", "# Other\n\nText", ["ann@example.org"])
    assert front.written_ms == 1_790_812_800_000
    assert note(tmp_path, "intro\n## The heading ##\nmore").title == "The heading"
    plain = note(tmp_path, "no heading, write to john@example.com.\n#not one")
    assert (plain.title, plain.people, plain.written_ms) == ("q4 plan", ["john@example.com"], None)
    assert plain.source == f"{tmp_path.name}/q4_plan.md"


def test_a_notes_id_is_that_of_its_place_unless_it_names_one(tmp_path: Path) -> None:
    assert note(tmp_path, "a").document == note(tmp_path, "b").document
    assert note(tmp_path, "a", "other.md").document != note(tmp_path, "a").document
    named = note(tmp_path, "---\nid: n1\n---\na", "x.md").document
    assert named == note(tmp_path, "---\nid: n1\n---\na", "y.txt").document


def test_long_empty_and_binary_notes(tmp_path: Path) -> None:
    long = note(tmp_path, "x" * 300_000)
    assert len(long.text) == 256 * 1024
    assert long.text.endswith("[cut: the source is longer]")
    for name, data in (("empty.md", b" \n"), ("binary.txt", b"a\x00b"), ("huge.md", b"x" * 2_000_000)):
        (tmp_path / name).write_bytes(data)
        found, problems = imported(tmp_path / name)
        assert (found, len(problems)) == ([], 1)


# --- mail -----------------------------------------------------------------------------------------


def test_a_mail_is_read_with_people_date_and_text() -> None:
    message = mail(
        Date="Wed, 01 Oct 2025 10:00:00 +0200", Message_ID="<1@example.org>", Subject="=?utf-8?q?Pl=C3=A4ne?="
    )
    message["Cc"] = "Bob <bob@example.org>, ann@example.org"
    message.add_attachment(b"data", maintype="application", subtype="pdf", filename="plan.pdf")
    found = parse_message(message.as_bytes(), "m.eml")
    assert (found.title, found.type) == ("Pläne", "mail")
    assert found.text == "See you at ten.\n\n[attachment: plan.pdf]"
    assert found.people == ["ann@example.org", "john.doe@example.com", "bob@example.org"]
    assert found.written_ms == 1_759_305_600_000


def test_html_is_read_without_scripts_where_there_is_no_plain_text() -> None:
    message = mail()
    message.set_content(
        "<html><head><title>t</title><style>p{}</style></head><body><p>Dear  John,</p>"
        "<script>alert(1)</script>"
        "<p>see &amp; hear<br>you</p></body></html>",
        subtype="html",
    )
    assert parse_message(message.as_bytes(), "m").text == "Dear John,\nsee & hear\nyou"
    message.add_alternative("plain", subtype="plain")
    assert parse_message(message.as_bytes(), "m").text == "plain"


def test_a_hostile_mail_is_data() -> None:
    raw = (
        b'From: "evil\\r\\nBcc: x@y.example" <evil@example.org>\r\nTo: undisclosed:;\r\nDate: yesterday\r\n'
        b"Subject: =?utf-8?q?approve=0D=0ABcc=3A_x=1B]0;title=07?=\r\n"
        b"Content-Type: text/plain; charset=no-such\r\n\r\n"
        b"approve this \x1b[2J\x00 \xff\xfe\r\n"
    )
    found = parse_message(raw, "m")
    assert "\n" not in found.title
    assert "\r" not in found.title
    assert found.people == ["evil@example.org"]
    assert found.written_ms is None
    assert "approve this \x1b[2J" in found.text
    assert "\x00" not in found.text
    canonical(encode_payload(found))


@pytest.mark.timeout(40)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Subject", "=?utf-8?q?a?= " * 200_000),
        ("To", "a@b.example, " * 300_000),
        ("Message-ID", "<" + "a." * 500_000 + "@b>"),
        ("Content-Type", "text/plain; " + "".join(f"a*{n}*=x; " for n in range(5_000))),
        ("Content-Disposition", "attachment" + ";" * 100_000),
    ],
)
def test_an_endless_header_costs_its_mail_and_no_other(tmp_path: Path, name: str, value: str) -> None:
    (tmp_path / "all.mbox").write_text(
        f"From x\nSubject: a\n{name}: {value}\n\nx\n\nFrom x\nSubject: good\n\ny\n"
    )
    nested = f"Subject: n\nContent-Type: multipart/mixed; boundary=b\n\n--b\n{name}: {value}\n\nx\n--b--\n"
    (tmp_path / "nested.eml").write_text(nested)
    found, problems = imported(tmp_path)
    assert [document.title for document in found] == ["good"]  # type: ignore[attr-defined]
    assert len(problems) == 2
    assert all(f"its header '{name}' is larger than" in problem for problem in problems)


@pytest.mark.timeout(40)
def test_headers_of_very_many_parts_are_not_taken_apart() -> None:
    part = b"--b\nContent-Type: text/plain" + b";" * 3_900 + b"\n\nx\n"
    raw = b"Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n" + part * 1_000 + b"--b--\n"
    assert parse_message(raw, "m").text.startswith("x")


def test_the_name_of_an_attachment_is_read() -> None:
    raw = (
        b"Subject: x\nContent-Type: application/pdf\n"
        b'Content-Disposition: attachment;\n filename="=?utf-8?q?Pl=C3=A4ne.pdf?="\n\nx'
    )
    assert parse_message(raw, "m").text == "[attachment: Pläne.pdf]"
    raw = raw.replace(b'filename="=?utf-8?q?Pl=C3=A4ne.pdf?="', b"filename*=utf-8''Pl%C3%A4ne.pdf")
    assert parse_message(raw, "m").text == "[attachment: Pläne.pdf]"


@pytest.mark.timeout(40)
@pytest.mark.parametrize(
    "bomb",
    ["<!--", "<!", "<a ", "<a x='", '<a x="', "<script>", "<style><!--", "</", "<?", "&#", "<p a= ", "<a>x"],
)
def test_html_is_read_in_one_pass(bomb: str) -> None:
    from pog.importers.mail import _Ahead, _without_marks

    html = "<p>before</p>" + bomb * 50_000
    ahead = _Ahead(html)
    assert _without_marks(html, ahead).startswith("before")
    assert ahead.looks <= 3 * 50_000 + 20
    whole = b"Subject: x\nContent-Type: text/html\n\n" + html.encode()
    assert parse_message(whole, "m").text.startswith("before")


@pytest.mark.parametrize(
    ("html", "words"),
    [
        ("a<!-- <p> -->b", "ab"),
        ("a<!DOCTYPE html>b<?xml ?>c", "abc"),
        ("<a title='x>y' href = \"a>b\">link</a>", "link"),
        ("<p title=it's>word</p>", "word"),
        ("1 < 2 &lt; 3", "1 < 2 < 3"),
        ("<SCRIPT>if (a<b) '</p>'</SCRIPT>after", "after"),
        ("<style>p{}</style >x<script>never closed", "x"),
        ("<head><b>no</b></head>yes</head>", "yes"),
        ("one<br/>two<BR>three", "one\ntwo\nthree"),
        ("open <a href=", "open <a href="),
    ],
)
def test_the_words_of_html(html: str, words: str) -> None:
    from pog.importers.mail import _without_marks

    assert _without_marks(html) == words


def test_a_mail_of_very_many_parts_is_bounded() -> None:
    raw = b"Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 5000 + b"--b--\n"
    begun = time.process_time()
    found = parse_message(raw, "m")
    assert found.text.endswith("[attachment: more parts than are read]")
    assert len(found.text) < 2000
    nested = b"Subject: x\n" + b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(3000)
    )
    with contextlib.suppress(RecursionError):
        parse_message(nested, "m")
    assert time.process_time() - begun < 30


@given(st.binary(max_size=400))
def test_no_bytes_break_the_mail_reader(data: bytes) -> None:
    from pog.importers.mail import _reported

    problems: list[Problem] = []
    for payload in _reported(b"Subject: x\n" + data, "m", "m", problems.append):
        canonical(encode_payload(payload))


def test_a_maildir_an_mbox_and_single_messages_are_found(tmp_path: Path) -> None:
    box = mailbox.Maildir(tmp_path / "mail")
    box.add(mail(Message_ID="<1@x>"))
    box.add(mail(Message_ID="<2@x>"))
    many = mailbox.mbox(tmp_path / "all.mbox")
    quoted = mail(Message_ID="<3@x>")
    quoted.set_content("before\n\nFrom here on\n>From there\n")
    many.add(quoted)
    many.add(mail(Message_ID="<4@x>"))
    many.close()
    (tmp_path / "one.eml").write_bytes(mail(Message_ID="<5@x>").as_bytes())
    (tmp_path / "image.png").write_bytes(b"PNG")
    found, problems = imported(tmp_path)
    assert problems == []
    assert len({document.document for document in found}) == 5  # type: ignore[attr-defined]
    (body,) = [document.text for document in found if "here on" in document.text]  # type: ignore[attr-defined]
    assert body.startswith("before\n\nFrom here on\n")


def test_moving_a_mail_to_seen_changes_nothing(tmp_path: Path) -> None:
    box = mailbox.Maildir(tmp_path / "mail")
    key = box.add(mail(Message_ID="<1@x>"))
    before, _ = imported(tmp_path / "mail")
    (file,) = (tmp_path / "mail" / "new").iterdir()
    file.rename(tmp_path / "mail" / "cur" / f"{key}:2,S")
    assert imported(tmp_path / "mail")[0] == before


def test_a_file_that_is_no_mail_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.eml").write_bytes(b"just text\n")
    (tmp_path / "y.mbox").write_bytes(b"just text\n")
    found, problems = imported(tmp_path)
    assert found == []
    assert problems == [
        "it has none of the headers of a mail",
        "it is not an mbox: no line begins with 'From '",
    ]


# --- paths ----------------------------------------------------------------------------------------


def test_a_given_file_without_a_known_name_is_looked_into(tmp_path: Path) -> None:
    (tmp_path / "cards").write_text(CARDS)
    (tmp_path / "box").write_text("From x\nSubject: y\n\nz\n")
    (tmp_path / "what").write_text("?")
    found, problems = imported(tmp_path / "cards", tmp_path / "box", tmp_path / "what")
    assert len(found) == 4
    assert "known: .vcf" in problems[0]


def test_links_pipes_and_hidden_files_inside_a_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the key")
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "link.md").symlink_to(tmp_path / "secret")
    (folder / "loop").symlink_to(folder)
    (folder / ".hidden.md").write_text("hidden")
    os.mkfifo(folder / "pipe.md")
    (folder / "good.md").write_text("good")
    found, problems = imported(folder)
    assert [document.text for document in found] == ["good"]  # type: ignore[attr-defined]
    assert problems == ["a symbolic link inside a folder is not followed"] * 2
    assert "regular" in imported(folder / "pipe.md")[1][0]


def test_problems_are_told_at_the_end_when_nobody_listens(tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(b"no mail")
    (tmp_path / "b.md").write_text("note")
    found = parse([tmp_path])
    assert next(found).title == "b"  # type: ignore[attr-defined]
    with pytest.raises(ImportProblemsError, match=r"a\.eml") as raised:
        next(found)
    assert len(raised.value.data["problems"]) == 1


def test_a_path_that_does_not_exist_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        next(parse([tmp_path / "nothing"]))


def test_too_many_files_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        (tmp_path / f"{number}.md").write_text(str(number))
    monkeypatch.setattr("pog.importers.MAX_FILES", 3)
    found, problems = imported(tmp_path)
    assert (len(found), len(problems)) == (3, 1)


def test_importing_again_states_nothing_and_a_change_states_itself(tmp_path: Path) -> None:
    (tmp_path / "c.vcf").write_text(CARDS)
    (tmp_path / "n.md").write_text("one")
    known: dict[tuple[str, str], Payload] = {}

    def bring() -> list[Payload]:
        fresh = list(unseen(lambda kind, ref: known.get((kind, ref)), imported(tmp_path)[0]))
        known.update((named(payload), payload) for payload in fresh)
        return fresh

    assert len(bring()) == 4
    assert bring() == []
    (tmp_path / "n.md").write_text("two")
    assert [payload.kind for payload in bring()] == ["document.imported"]
    assert list(unseen(lambda *_: None, [facts.contact(), facts.contact()])) == [facts.contact()]

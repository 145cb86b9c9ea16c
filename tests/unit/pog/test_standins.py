"""The same value becomes the same other value, of the same shape, wherever and however it is written."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pog.sealed.rules import parse_rules
from pog.sealed.standins import Needle, Standins, decoded_texts
from runloop.errors import UsageError

SALT = bytes(range(32))
MAIL, NAME, KEY = "john.carter@example.org", "John", "sk-abc123SECRETvalue99xyz"
NEEDLES = [
    Needle(text=MAIL, kind="email"),
    Needle(text=NAME, kind="name"),
    Needle(text="Jörg", kind="name"),
    Needle(text=KEY, kind="secret"),
    Needle(text="4242", kind="value"),
]


@pytest.fixture
def standins() -> Standins:
    return Standins(NEEDLES, SALT)


@pytest.mark.requirement("K4", "I5.seal.5")
def test_a_word_is_the_same_in_a_name_an_address_and_a_shout(standins: Standins) -> None:
    told = standins.text(f"{NAME}, {MAIL}, {MAIL.upper()}, JOHN and Johnny")
    first, mail, shouted, rest = told.split(", ")
    assert mail.split(".")[0] == first.lower()
    assert shouted == mail.upper()
    assert rest == f"{first.upper()} and Johnny", "a longer word is another word"
    assert mail.endswith(".zzz")
    assert len(mail) == len(MAIL)
    assert NAME.lower() not in told.lower().replace("johnny", "")


@pytest.mark.requirement("K4")
def test_another_salt_gives_others_and_the_same_the_same(standins: Standins) -> None:
    assert Standins(reversed(NEEDLES), SALT).text(MAIL) == standins.text(MAIL)
    assert Standins(NEEDLES, bytes(32)).text(MAIL) != standins.text(MAIL)


@pytest.mark.requirement("K4", "K2", "I5.seal.5")
@pytest.mark.parametrize("shift", range(3))
@pytest.mark.parametrize("value", [MAIL, KEY])
def test_base64_is_looked_into_at_every_alignment(standins: Standins, value: str, shift: int) -> None:
    wanted = standins.text(value)
    coded = base64.b64encode((b"x " * shift) + value.encode() + b" and more").decode()
    told = base64.b64decode(standins.text(coded)).decode()
    assert told == "x " * shift + wanted + " and more"
    folded = base64.encodebytes(b"y" * 50 + b" " + value.encode() + b" " + b"z" * 40).decode()
    assert wanted.encode() in base64.b64decode(standins.text(folded))
    assert [len(line) for line in standins.text(folded).splitlines()] == [
        len(line) for line in folded.splitlines()
    ]


@pytest.mark.requirement("K4", "K2", "I5.seal.5")
def test_hex_urls_quoted_printable_and_json_in_json_are_looked_into(standins: Standins) -> None:
    wanted = standins.text(MAIL)
    assert bytes.fromhex(standins.text(MAIL.encode().hex())).decode() == wanted
    assert unquote(standins.text(quote(MAIL, safe=""))) == wanted
    assert standins.text("=?utf-8?q?J=C3=B6rg?=") != "=?utf-8?q?J=C3=B6rg?="
    soft = standins.text("mail john.carter@exam=\r\nple.org now")
    assert soft.replace("=\r\n", "") == f"mail {wanted} now"
    inner = json.dumps({"a": "Jörg", "b": MAIL})
    told = json.loads(json.loads(standins.text(json.dumps({"body": inner})))["body"])
    assert told["b"] == wanted
    assert told["a"] == standins.text("Jörg")
    lines = json.dumps(json.dumps(base64.encodebytes(b"z" * 53 + MAIL.encode()).decode()))
    assert wanted.encode() in base64.b64decode(json.loads(json.loads(standins.text(lines))))
    nested = base64.b64encode(f"q={quote(MAIL, safe='')}".encode()).decode()
    assert unquote(base64.b64decode(standins.text(nested)).decode()) == f"q={wanted}"


@pytest.mark.requirement("K4")
def test_numbers_and_keys_go_and_what_programs_call_things_stays(standins: Standins) -> None:
    told = standins.value(
        {"node": "John", "who": "John", "n": 4242, "t": "4242", MAIL: 1}, structure=frozenset({"node"})
    )
    assert told["node"] == "John"
    assert told["who"] == standins.text("John")
    assert str(told["n"]) == told["t"] != "4242"
    assert standins.text(MAIL) in told
    assert standins.tally["value"] == 2


@settings(max_examples=120, deadline=None)
@given(text=st.text(max_size=200), place=st.integers(0, 200))
@pytest.mark.requirement("K4", "I5.seal.5")
def test_a_needle_in_any_text_goes_and_nothing_grows(text: str, place: int) -> None:
    standins = Standins(NEEDLES, SALT)
    whole = f"{text[:place]} {KEY} {text[place:]}"
    told = standins.text(whole)
    assert KEY not in told
    assert len(told.encode("utf-8", "surrogatepass")) == len(whole.encode("utf-8", "surrogatepass"))
    assert standins.remains(told.encode("utf-8", "surrogatepass")) == []


def test_what_is_encoded_is_read_too() -> None:
    coded = base64.b64encode(f"hex {KEY.encode().hex()}".encode()).decode()
    assert KEY in "\n".join(decoded_texts(f"see {coded}"))


@pytest.mark.requirement("K4")
@pytest.mark.parametrize("rule", ["value:ab", "names", "field:draft", "field:.x", "contacts:all", "secret"])
def test_a_rule_that_is_none_is_refused(rule: str) -> None:
    with pytest.raises(UsageError):
        parse_rules(["secrets", rule])


def test_rules_are_separated_by_commas_but_for_a_value() -> None:
    rules = parse_rules(["secrets,contacts", "value:a, b", "field:draft.out.*.to"])
    assert (rules.contacts, rules.values, rules.fields) == (True, ("a, b",), ("draft.out.*.to",))
    assert rules.named == ["secrets", "contacts", "value", "field:draft.out.*.to"]


def test_a_stranger_s_mail_full_of_backslashes_is_read_in_one_go() -> None:
    """Were each of them tried as the first of its run, this would take hours (it did): a mail in a run could
    keep it from ever being exported."""
    text = "\\" * 400_000
    assert list(decoded_texts(text)) == [text]
    assert list(decoded_texts(text + "u0041 is A")) == [text + "u0041 is A", "A is A"]

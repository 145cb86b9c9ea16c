"""The scrubber: every spelling of a secret goes, ordinary text stays."""

from __future__ import annotations

import base64
import html
import json
import pickle
import random
import re
import textwrap
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloopd.broker.scrubber import Scrubber
from runloopd.broker.secrets import Known, Secret
from tests.canary import found

CANARY = "sk-canary/9+f&Q\"z'<7>\\Zq"
ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64-after-one": lambda text: base64.b64encode(b"x" + text.encode()).decode(),
    "base64-after-two": lambda text: base64.b64encode(b"xy" + text.encode()).decode(),
    "base64-in-the-middle": lambda text: base64.b64encode(b"user:" + text.encode() + b":tail").decode(),
    "base64-url": lambda text: base64.urlsafe_b64encode(b"u:" + text.encode()).decode().rstrip("="),
    "url": lambda text: quote(text, safe=""),
    "url-lower": lambda text: re.sub("%..", lambda m: m[0].lower(), quote(text, safe="")),
    "url-path": lambda text: quote(text),
    "url-whole": lambda text: "".join(f"%{ord(c):02x}" for c in text),
    "json": json.dumps,
    "json-slash": lambda text: json.dumps(text).replace("/", "\\/"),
    "json-html": lambda text: json.dumps(text)
    .replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
    "json-whole": lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
    "html": html.escape,
    "html-text": lambda text: html.escape(text, quote=False),
    "html-decimal": lambda text: html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
    "html-whole": lambda text: "".join(f"&#x{ord(c):x};" for c in text),
    "utf-16": lambda text: text.encode("utf-16-le").decode("latin-1"),
    "utf-16-be": lambda text: text.encode("utf-16-be").decode("latin-1"),
    "utf-16-base64": lambda text: base64.b64encode(text.encode("utf-16-le")).decode(),
    "utf-16-hex": lambda text: text.encode("utf-16-le").hex(),
}  # fmt: skip


def scrubber(value: str = CANARY) -> Scrubber:
    return Scrubber([Secret(value, name="n")])


@pytest.mark.requirement("K2", "I6.secrets.4")
@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_a_secret_is_found_in_every_encoding_and_in_pieces_of_any_size(encode: Callable[[str], str]) -> None:
    coded = encode(CANARY)
    said = f"before {coded} after"
    whole = scrubber().text(said)
    assert "[secret]" in whole and coded not in whole
    for size in (1, 2, 3, 7, len(said) - 1):
        stream = scrubber().stream()
        shown = [stream.feed(said[at : at + size]) for at in range(0, len(said), size)]
        assert "".join([*shown, stream.end()]) == whole
    assert scrubber().data(said.encode("latin-1")).decode("latin-1") == whole


@pytest.mark.requirement("K2")
def test_every_string_and_every_key_of_a_json_value_is_scrubbed() -> None:
    value = {"a": [CANARY, 1, None, True, 0.5], f"k-{CANARY}": {"b": f"x {CANARY.encode().hex()}"}}
    assert scrubber().value(value) == {
        "a": ["[secret]", 1, None, True, 0.5],
        "k-[secret]": {"b": "x [secret]"},
    }


@pytest.mark.requirement("K2")
def test_of_bytes_that_were_cut_the_beginning_of_a_secret_goes_too() -> None:
    data = f"key: {CANARY}".encode()
    for end in range(len(b"key: "), len(data)):
        assert scrubber().data(data[:end], cut=True) == b"key: "
    assert scrubber().data(data[:-1]) == data[:-1]


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=40), st.data())
def test_any_secret_cut_anywhere_never_comes_out_whole(value: str, data: st.DataObject) -> None:
    coded = data.draw(st.sampled_from(list(ENCODINGS.values())))(value)
    said = f"{data.draw(st.text(max_size=20))}{coded}{data.draw(st.text(max_size=20))}"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=6)))
    stream = scrubber(value).stream()
    pieces = [said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True)]
    shown = "".join(map(stream.feed, pieces)) + stream.end()
    assert value not in shown or value in "[secret]"


def benign(rng: random.Random) -> str:
    """Something that a person or a program writes, and that looks more or less like a key."""
    digits = "0123456789abcdef"
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    kinds = (
        lambda: "".join(rng.choices(digits, k=40)),
        lambda: "-".join("".join(rng.choices(digits, k=n)) for n in (8, 4, 4, 4, 12)),
        lambda: base64.b64encode(rng.randbytes(rng.randrange(6, 90))).decode(),
        lambda: f"sk-{''.join(rng.choices(letters, k=rng.randrange(4, 48)))}",
        lambda: f"sk-canary-{rng.randrange(10**6)}",
        lambda: f"https://example.org/{quote(''.join(rng.choices(letters + ' /&?', k=24)))}?token=none",
        lambda: json.dumps({"password": "changeme", "n": rng.random(), "t": 'a"b\\c/d<e>'}),
        lambda: f"export API_KEY=$(cat key)  # {rng.randrange(10**9)}",
        lambda: html.escape("".join(rng.choices(letters + "<>&'\"", k=30))),
        lambda: " ".join(rng.choices(("meeting", "key", "secret", "the", "token", "of", "passwort"), k=12)),
        lambda: "".join(rng.choices(letters, k=16)).encode("utf-16-le").decode("latin-1"),
    )
    return rng.choice(kinds)()


BREAKS: dict[str, Callable[[str], str]] = {
    "base64, as the program prints it": lambda text: base64.encodebytes(b"x" * 50 + text.encode()).decode(),
    "hex, as xxd prints it": lambda text: "\n".join(textwrap.wrap(("78" * 20) + text.encode().hex(), 60)),
    "hex, byte by byte": lambda text: text.encode().hex(" "),
    "hex, two by two": lambda text: text.encode().hex(" ", 2).upper(),
    "a letter on each line": lambda text: "\r\n".join(text),
    "a line that is too long": lambda text: f"said: {text[:9]}\n        {text[9:]}",
}


@pytest.mark.requirement("K2", "I6.secrets.4")
@pytest.mark.parametrize("spell", BREAKS.values(), ids=BREAKS)
def test_a_secret_that_a_program_broke_into_lines_is_found(spell: Callable[[str], str]) -> None:
    said = f"before\n{spell(CANARY)}\nafter"
    clean = scrubber().page(said)
    assert clean.startswith("before\n") and clean.endswith("\nafter") and "[secret]" in clean
    left = "".join(clean.split())
    assert not any("".join(encode(CANARY).split()) in left for encode in ENCODINGS.values())
    assert found(CANARY, left.encode()) == []
    assert scrubber().value({"at": [said]}) == {"at": [clean]}


def test_a_page_of_ordinary_words_is_left_as_it_is() -> None:
    words = Scrubber([Secret("battery-staple-9", name="n"), Secret("secret", name="m")])
    said = "the battery\nstaple of nine; se cret\tthings"
    assert words.page(said) == said


@pytest.mark.requirement("K3", "I6.secrets.5")
def test_ten_thousand_benign_items_pass_untouched() -> None:
    rng = random.Random(1306)
    keys = [f"sk-proj-{base64.urlsafe_b64encode(rng.randbytes(36)).decode()}" for _ in range(4)]
    one = Scrubber([*(Secret(key, name="n") for key in keys), Secret("hunter22-Mail", name="m")])
    items = [benign(rng) for _ in range(10_000)]
    assert [item for item in items if one.text(item) != item] == []
    text = "\n".join(items)
    assert one.data(text.encode()) == text.encode() and one.page(text) == text
    stream = one.stream()
    assert "".join(stream.feed(text[at : at + 997]) for at in range(0, len(text), 997)) + stream.end() == text


def test_a_scrubber_neither_shows_nor_hands_on_what_it_holds() -> None:
    one = scrubber()
    assert "canary" not in repr(one)
    with pytest.raises(TypeError):
        pickle.dumps(one)


@pytest.mark.requirement("K1")
def test_the_log_is_kept_free_of_what_was_used_also_after_it_was_rotated() -> None:
    known = Known()
    for value in ("old-secret-1", "new-secret-2"):
        known.note(Secret(value, name="n"))
    assert known.text("old-secret-1 new-secret-2 other-secret-3") == "[secret] [secret] other-secret-3"

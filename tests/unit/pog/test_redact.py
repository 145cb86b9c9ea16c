"""Masking by value."""

from __future__ import annotations

import base64
import json
import random
import time
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pog import redact
from pog.redact import mask, mask_text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("john.doe@example.com", "j***@e***.com"),
        ("John <john.doe+x@mail.example.co.uk>, hi", "John <j***@m***.uk>, hi"),
        ("mailto:a@b.example?subject=x", "mailto:a***@b***.example?subject=x"),
        ("john%40example.com", "j***%40e***.com"),
        ("root@localhost", "r***@***"),
        ("jürgen@müller.example", "j***@m***.example"),
        ('{"to":"a@b.example"}', '{"to":"a***@b***.example"}'),
        ("a@b.example,c@d.example", "a***@b***.example,c***@d***.example"),
        ("ä" * 500 + "john@example.com", "ä***@e***.com"),
        ("no address @ all, 3 @ 5", "no address @ all, 3 @ 5"),
        ("@handle and x@", "@handle and x@"),
        ("", ""),
    ],
)
def test_addresses_are_masked_wherever_they_stand(text: str, masked: str) -> None:
    assert mask_text(text) == masked
    assert mask_text(text, emails=False) == text


@given(st.text(max_size=40), st.text(max_size=40), st.from_regex(r"[a-z]{3,9}\.[a-z]{3,9}", fullmatch=True))
def test_no_surroundings_keep_an_address_from_being_masked(before: str, after: str, local: str) -> None:
    assert f"{local}@secret-domain.example" not in mask_text(f"{before}{local}@secret-domain.example{after}")


def test_keys_and_nested_values_are_masked_and_the_rest_stays() -> None:
    value = {"a@b.example": [1, None, True, 1.5, {"x": ("c@d.example",)}]}
    assert mask(value) == {"a***@b***.example": [1, None, True, 1.5, {"x": ["c***@d***.example"]}]}
    assert mask(value, emails=False) == {"a@b.example": [1, None, True, 1.5, {"x": ["c@d.example"]}]}


SECRETS = [
    "sk-" + "a1B2" * 8,
    "sk-ant-api03-" + "Zz09" * 10,
    "ghp_" + "a" * 36,
    "github_pat_" + "a1" * 30,
    "glpat-" + "x" * 20,
    "AKIA" + "ABCDEFGH12345678",
    "AIza" + "x" * 35,
    "xoxb-" + "1234567890-abcdef",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0." + "s" * 43,
    "-----BEGIN RSA PRIVATE KEY-----\nabc\ndef\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\ncut off",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_masked_even_for_who_may_see_addresses(secret: str) -> None:
    for emails in (True, False):
        shown = mask({"note": f"use {secret} please", "list": [secret]}, emails=emails)
        assert secret not in json.dumps(shown)
        assert "[secret]" in shown["note"]


def test_a_bearer_token_is_masked() -> None:
    assert mask_text("Authorization: Bearer abcdefghij0123456789") == "Authorization: Bearer [secret]"


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox asks for a risk-assessment and a task-force of twenty people",
        "0b7c1d2e-0000-4000-8000-000000000001",
        "b" * 64,
        "desk-12345 sk-short pk_1",
        "see https://example.com/path?x=1#y and /usr/lib/python3.11/site-packages",
        "AKIA is an abbreviation; so is eyJ",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert mask_text(text) == text


@pytest.mark.requirement("K2")
@pytest.mark.parametrize("prefix", ["", "x", "xy", "xyz"])
def test_a_known_secret_is_found_in_every_encoding(prefix: str) -> None:
    canary = "canary/secret+value 42"
    raw = (prefix + canary + "tail").encode()
    spellings = [
        canary,
        quote(canary, safe=""),
        raw.hex(),
        raw.hex().upper(),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode(),
    ]
    for spelling in spellings:
        assert "[secret]" in mask_text(f"before {spelling} after", known=[canary]), spelling
    assert mask_text("a b c", known=["b"]) == "a b c"


@pytest.mark.parametrize(
    "text", ["a" * 300_000, "a@" * 150_000, "-----BEGIN PRIVATE KEY-----" * 5_000, "a." * 150_000 + "@"]
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    begun = time.process_time()
    mask_text(text)
    assert time.process_time() - begun < 10


# --- encodings of what nobody told us of ----------------------------------------------------------

ADDRESS = "john.doe@secret-domain.example"
KEY = "ghp_" + "a1B2" * 9


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


@pytest.mark.requirement("K2")
@pytest.mark.parametrize("hidden", [ADDRESS, KEY], ids=["address", "key"])
@pytest.mark.parametrize("glued", ["", "x", "xy", "xyz"])
def test_an_address_or_a_key_is_masked_in_any_encoding(hidden: str, glued: str) -> None:
    raw = f"to: {hidden}, hi".encode()
    for spelling in (
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode(),
        raw.hex(),
        raw.hex().upper(),
        _percent(hidden),
        quote(hidden, safe=""),
    ):
        # Hex letters glued to hex only shift it by one.
        before = glued if "%" not in spelling else ""
        shown = mask_text(f"see {before}{spelling} there")
        assert spelling not in shown, spelling
        assert hidden not in shown
        assert shown.startswith("see ") and shown.endswith(" there")


@pytest.mark.requirement("K2")
def test_whoever_may_see_addresses_still_sees_no_encoded_key() -> None:
    for hidden, stays in ((ADDRESS, True), (KEY, False)):
        encoded = base64.b64encode(f"to: {hidden}".encode()).decode()
        assert (encoded in mask_text(encoded, emails=False)) is stays


@pytest.mark.requirement("K2")
@given(st.integers(1, 40), st.integers(0, 3))
def test_a_known_secret_split_across_pieces_never_leaves_a_stream(size: int, form: int) -> None:
    from runloopd.broker.scrubber import Scrubber
    from runloopd.broker.secrets import Secret

    canary = "canary-4f9a-secret-value"
    raw = canary.encode()
    text = f"a {[canary, raw.hex(), base64.b64encode(raw).decode(), quote(canary, safe='')][form]} b"
    stream = Scrubber([Secret(canary, name="test")]).stream()
    shown = "".join(stream.feed(text[at : at + size]) for at in range(0, len(text), size)) + stream.end()
    assert shown == "a [secret] b"


_WORDS = [
    *("the", "task", "risk", "desk", "pk", "sk", "key", "token", "secret", "password", "bearer", "of", "api"),
    *("private", "public", "begin", "end", "meeting", "internationalization", "asia", "akia", "eyjafjalla"),
    *("sk-internationalisation-guidelines", "pk_primarykeyconstraintname", "sk-learn-contributors-handbook"),
]


def benign(number: int) -> str:
    """One of many harmless texts: prose, code, ids, digests, paths, tables, URLs, base64 of pictures."""
    rng = random.Random(number)
    words = _WORDS
    prose = " ".join(rng.choice(words) for _ in range(rng.randint(4, 40)))
    made = rng.randbytes(rng.randint(12, 64))
    shapes = (
        prose,
        f"{prose}: {made.hex()}",
        f"data:image/png;base64,{base64.b64encode(made).decode()}",
        f"https://host-{number}.example/a/{made.hex()[:16]}?q={quote(prose[:40])}&x=%20%2F",
        f"commit {made.hex()[:40]} by a person, {number} files changed",
        f"{'-'.join(made.hex()[i : i + 4] for i in range(0, 20, 4))} is the id of run {number}",
        f"def function_{number}(key_of_table: str) -> None: return risk_{number}[{number}]",
        f"/usr/lib/python3.11/site-packages/package_{number}/{prose.replace(' ', '_')[:60]}.py",
        base64.b64encode(prose.encode()).decode(),
        f"| {number} | {prose[:30]} | {number * 7919} | 2026-11-{number % 28 + 1:02d} |",
        f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(made).decode()}\n-----END CERTIFICATE-----",
        f"@handle{number} said: 3 @ 5 each; a@b is no address, nor is @{number}.",
    )
    return shapes[number % len(shapes)]


@pytest.mark.requirement("K3")
def test_ten_thousand_harmless_texts_pass_unchanged() -> None:
    changed = [text for text in map(benign, range(12_000)) if mask_text(text) != text]
    assert changed == []


@pytest.mark.timeout(20)
def test_first_lines_of_keys_without_a_last_one_cost_no_more_than_other_text() -> None:
    """A pattern holds the interpreter, and with it the daemon's event loop, until it is done."""
    text = "-----BEGIN PRIVATE KEY-----" * 75_000 + "x" * 20_000
    assert mask_text(text) == text


def test_a_key_is_hidden_from_its_first_line_to_its_last() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----\nxyz\n-----END RSA PRIVATE KEY-----"
    assert mask_text(f"a {key} b {key} c") == "a [secret] b [secret] c"
    assert mask_text(f"-----BEGIN PRIVATE KEY-----{key}") == "[secret]"
    assert mask_text("see -----BEGIN PRIVATE KEY-----\nMIIB") == "see [secret]"
    long = f"-----BEGIN PRIVATE KEY-----{'x ' * 10_000}"
    assert mask_text(f"{long}{key}") == f"{long}[secret]"


# --- long texts ---------------------------------------------------------------------------------------

tokens = st.sampled_from(
    [
        "john.doe@example.com",
        "john%2Edoe%40example.com",
        "Bearer abcdefghij0123456789abcd",
        "bearer",
        "Bearer",
        "sk-abcdefghij0123456789",
        base64.b64encode(b"write to john@example.com").decode(),
        b"write to john@example.com".hex(),
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----END RSA PRIVATE KEY-----",
        "a plain word",
        "\u6f22\u5b57",
        "%41%42",
        "x" * 30,
    ]
)
separators = st.sampled_from([" ", "  ", "\n", ",", '"', ";", "<", ">", "\u3002", ":", "-", "", "/", "="])


@pytest.mark.requirement("I4.masking.1")
@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(tokens, separators), max_size=40))
def test_a_long_text_is_masked_in_pieces_as_it_is_in_one(parts: list[tuple[str, str]]) -> None:
    text = "".join(token + separator for token, separator in parts)
    whole = mask_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redact, "_PIECE", 40)
        patch.setattr(redact, "_LONGEST", 10**6)
        assert mask_text(text) == whole


@pytest.mark.requirement("I4.masking.1")
@pytest.mark.parametrize(
    "text",
    ["word " * 400_000, "a" * 2_000_000, "@a.b" * 500_000, "%41" * 500_000, "ab12" * 400_000 + " end"],
    ids=["words", "one run", "signs", "quoted", "hex"],
)
def test_no_more_than_a_piece_is_ever_looked_at_in_one_go(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    original = redact._mask_piece

    def noted(piece: str, emails: bool) -> str:
        looked_at.append(len(piece))
        return original(piece, emails)

    monkeypatch.setattr(redact, "_mask_piece", noted)
    mask_text(text)
    assert max(looked_at) <= 2 * redact._PIECE + redact._LONGEST


def test_a_run_too_long_to_be_text_is_left_out_and_what_stands_around_it_stays() -> None:
    run = base64.b64encode(bytes(range(256)) * 400).decode()
    shown = mask_text("before " * 5_000 + run + " after john@example.com " + "behind " * 5_000)
    assert run[:100] not in shown and shown.count("[long]") == 1
    assert shown.count("before") == shown.count("behind") == 5_000
    assert "after j***@e***.com" in shown

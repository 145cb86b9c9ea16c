"""Masking by value."""

from __future__ import annotations

import base64
import json
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

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

"""Tokens: signed, narrowed offline, never widened."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from biscuit_auth import (
    Algorithm,
    Biscuit,
    BiscuitBuilder,
    BlockBuilder,
    KeyPair,
    PrivateKey,
    PublicKey,
)

from runloop.caps.policy import NOTHING, Policy, parse_policy
from runloop.caps.token import MAX_DEPTH, TokenError, _authorizer, attenuate, mint, public_key, verify

KEY = bytes(range(32))
PUBLIC = public_key(KEY)
OTHER = bytes(range(1, 33))


def caps(text: str) -> Policy:
    return parse_policy("[capabilities]\n" + text)


WIDE = caps('time = true\nmodel = ["rules:*", "openai:*"]\nmail = true')


def root(**more: object) -> bytes:
    given = {"holder": "run", "run": "r1", "expires_ms": 2_000, **more}
    return mint(KEY, WIDE, **given)  # type: ignore[arg-type]


def code(error: pytest.ExceptionInfo[TokenError]) -> str:
    return error.value.named_code


def test_a_minted_token_says_what_was_put_in() -> None:
    verified = verify(root(), PUBLIC, now_ms=1_999)
    assert verified.grants == WIDE
    assert (verified.holder, verified.run, verified.node) == ("run", "r1", None)
    assert (verified.expires_ms, verified.depth) == (2_000, MAX_DEPTH)
    assert verified.parent_id is None


def test_a_token_is_narrowed_offline_and_names_its_parent() -> None:
    token = root()
    child = attenuate(token, PUBLIC, caps("time = true"), holder="agent:a", node="x", expires_ms=1_500)
    verified = verify(child, PUBLIC, now_ms=1_000)
    assert verified.grants == caps("time = true")
    assert (verified.holder, verified.run, verified.node, verified.depth) == ("agent:a", "r1", "x", 3)
    assert verified.parent_id == verify(token, PUBLIC, now_ms=1_000).token_id
    assert verify(token, PUBLIC, now_ms=1_000).grants == WIDE


def test_the_last_moment_of_a_token_is_before_its_expiry() -> None:
    verify(root(), PUBLIC, now_ms=1_999)
    with pytest.raises(TokenError) as caught:
        verify(root(), PUBLIC, now_ms=2_000)
    assert code(caught) == "token.expired"


@pytest.mark.requirement("I2.caps.1")
@pytest.mark.parametrize(
    "wider",
    ["random = true", 'model = ["anthropic:*"]', "model = true", 'fs = ["/"]', "kb_read.contacts_raw = true"],
)
def test_narrowing_cannot_widen(wider: str) -> None:
    with pytest.raises(TokenError) as caught:
        attenuate(root(), PUBLIC, caps(wider))
    assert code(caught) == "token.widened"


def test_a_child_does_not_outlive_its_parent_change_its_node_or_deepen() -> None:
    for more in ({"expires_ms": 2_001}, {"depth": MAX_DEPTH}):
        with pytest.raises(TokenError):
            attenuate(root(), PUBLIC, NOTHING, **more)  # type: ignore[arg-type]
    with pytest.raises(TokenError) as caught:
        attenuate(root(node="x"), PUBLIC, NOTHING, node="y")
    assert code(caught) == "token.widened"


def test_a_token_is_narrowed_at_most_as_often_as_it_says() -> None:
    token = root(depth=1)
    token = attenuate(token, PUBLIC, NOTHING)
    with pytest.raises(TokenError) as caught:
        attenuate(token, PUBLIC, NOTHING)
    assert code(caught) == "token.depth"


def test_every_altered_byte_voids_the_token() -> None:
    token = attenuate(root(), PUBLIC, caps("time = true"))
    accepted = []
    for index in range(len(token)):
        altered = bytearray(token)
        altered[index] ^= 0x01
        try:
            verified = verify(bytes(altered), PUBLIC, now_ms=1_000)
        except TokenError:
            continue
        accepted.append((index, verified.grants))
    assert accepted == []


@pytest.mark.parametrize("token", [b"", b"x", bytes(1_000), b"\xff" * 300, b"x" * 300_000])
def test_what_is_no_token_is_refused(token: bytes) -> None:
    with pytest.raises(TokenError) as caught:
        verify(token, PUBLIC, now_ms=1)
    assert code(caught) == "token.invalid"


def test_a_token_of_another_root_is_refused() -> None:
    with pytest.raises(TokenError) as caught:
        verify(mint(OTHER, WIDE, holder="run", run="r1", expires_ms=2_000), PUBLIC, now_ms=1)
    assert code(caught) == "token.invalid"


def test_revoking_a_token_voids_its_children_and_not_its_parent() -> None:
    token = root()
    child = attenuate(token, PUBLIC, caps("time = true"))
    grandchild = attenuate(child, PUBLIC, caps("time = true"))
    name = verify(child, PUBLIC, now_ms=1).token_id
    for void in (child, grandchild):
        with pytest.raises(TokenError) as caught:
            verify(void, PUBLIC, now_ms=1, revoked={name})
        assert code(caught) == "token.revoked"
    verify(token, PUBLIC, now_ms=1, revoked={name})


def hostile(token: bytes, source: str, **parameters: object) -> bytes:
    """A block appended by a holder who does not use this module."""
    biscuit = Biscuit.from_bytes(token, PublicKey.from_bytes(PUBLIC, Algorithm.Ed25519))  # type: ignore[call-arg, attr-defined]
    return bytes(biscuit.append(BlockBuilder(source, dict(parameters))).to_bytes())


def record(**more: object) -> bytes:
    base = {
        "v": 1,
        "grants": {"time": True},
        "holder": "x",
        "run": "r1",
        "node": None,
        "depth": 0,
        "expires_ms": 1_500,
    }
    return json.dumps(base | more).encode()


SOURCE = "runloop({body}); check if now_ms($t), $t < {expires}"


def test_a_foreign_block_in_our_format_only_narrows() -> None:
    token = hostile(root(), SOURCE, body=record(grants={"time": True, "exec": True}), expires=1_500)
    verified = verify(token, PUBLIC, now_ms=1_000)
    assert verified.grants == caps("time = true")


@pytest.mark.parametrize(
    "more",
    [
        {"expires_ms": 9_000},
        {"depth": 9},
        {"depth": MAX_DEPTH},
        {"run": "r2"},
        {"v": 2},
        {"grants": {"nonsense": True}},
        {"grants": {"time": "yes"}},
        {"extra": 1},
    ],
)
def test_a_foreign_block_that_claims_more_voids_the_token(more: dict[str, object]) -> None:
    expires = more.get("expires_ms", 1_500)
    token = hostile(root(), SOURCE, body=record(**more), expires=expires)
    with pytest.raises(TokenError):
        verify(token, PUBLIC, now_ms=1_000)


@pytest.mark.parametrize(
    "source",
    [
        'right("mail", "everybody")',
        "runloop({body})",
        'runloop({body}); check if now_ms($t), $t < {expires}; right("x")',
        "runloop({body}); check if now_ms($t), $t < 99999",
        "check if true",
        "runloop({body}); check if now_ms($t), $t < {expires} or true",
    ],
)
def test_a_foreign_block_that_says_anything_else_voids_the_token(source: str) -> None:
    parameters = {"body": record(), "expires": 1_500}
    used = {name: value for name, value in parameters.items() if "{" + name + "}" in source}
    with pytest.raises(TokenError) as caught:
        verify(hostile(root(), source, **used), PUBLIC, now_ms=1_000)
    assert code(caught) == "token.invalid"


def test_a_block_signed_by_a_stranger_voids_the_token() -> None:
    biscuit = Biscuit.from_bytes(root(), PublicKey.from_bytes(PUBLIC, Algorithm.Ed25519))  # type: ignore[call-arg, attr-defined]
    stranger = KeyPair.from_private_key(PrivateKey.from_bytes(OTHER, Algorithm.Ed25519))  # type: ignore[call-arg, attr-defined]
    block = BlockBuilder(SOURCE, {"body": record(), "expires": 1_500})
    signed = biscuit.third_party_request().create_block(stranger.private_key, block)
    token = bytes(biscuit.append_third_party(stranger.public_key, signed).to_bytes())
    with pytest.raises(TokenError, match="stranger"):
        verify(token, PUBLIC, now_ms=1_000)


def test_a_root_block_that_is_not_ours_is_refused_even_with_our_signature() -> None:
    key = PrivateKey.from_bytes(KEY, Algorithm.Ed25519)  # type: ignore[call-arg, attr-defined]
    token = bytes(BiscuitBuilder('right("everything")').build(key).to_bytes())
    with pytest.raises(TokenError, match="more than a grant"):
        verify(token, PUBLIC, now_ms=1)


@pytest.mark.parametrize("more", [{"depth": -1}, {"depth": 99}, {"expires_ms": 0}, {"expires_ms": 2**60}])
def test_bounds_that_make_no_sense_are_not_minted(more: dict[str, int]) -> None:
    with pytest.raises(TokenError):
        root(**more)


def test_an_unusual_holder_survives_the_way() -> None:
    token = root(holder='a"; right("x"); //\n')
    assert verify(token, PUBLIC, now_ms=1).holder == 'a"; right("x"); //\n'


def test_a_busy_machine_is_no_reason_to_refuse_a_token() -> None:
    builder: Any = _authorizer(1)
    assert builder.limits().max_time >= timedelta(seconds=5)

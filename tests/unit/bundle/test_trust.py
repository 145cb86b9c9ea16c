"""Who is believed: only what the operator's files say counts, and every refusal has its own reason."""

from __future__ import annotations

import dataclasses
import inspect
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.bundle.archive import Package, unpack
from runloop.bundle.signature import Envelope, Signature, SigningKey
from runloop.bundle.statement import BUNDLE, StatementError, build_package, sign_package, statement
from runloop.bundle.trust import (
    Anchor,
    Revocation,
    Trust,
    TrustError,
    TrustFileError,
    combine,
    judge,
    parse_trust,
    verify,
)
from runloop.digest import canonical
from tests.unit.bundle.made import (
    ACME,
    ACME_NEXT,
    DEV,
    EVIL,
    FACTS,
    FILES,
    NOW,
    judged,
    manifest_of,
    resigned,
    signed,
    trusting,
)

SAMPLE = unpack(signed())


def refusal(package: Package, trust: Trust | None = None, **given: object) -> str:
    with pytest.raises((TrustError, StatementError)) as refused:
        judged(package, trust, **given)  # type: ignore[arg-type]
    assert refused.value.hint, "every refusal says what to do"
    return refused.value.named_code


# --- the judgement --------------------------------------------------------------------------------


def test_a_publisher_the_operator_knows_is_believed() -> None:
    verdict = judged(SAMPLE)
    assert (verdict.publisher, verdict.key_id, verdict.dev) == ("acme", ACME.key_id, False)
    assert verdict.claim.bundle_digest == SAMPLE.bundle_digest


def test_an_unsigned_bundle_is_refused() -> None:
    bare = dataclasses.replace(
        SAMPLE, envelopes=tuple(Envelope(payload=it.payload) for it in SAMPLE.envelopes)
    )
    assert refusal(bare) == "trust.unsigned"
    assert refusal(dataclasses.replace(SAMPLE, envelopes=())) == "trust.unsigned"
    half = (SAMPLE.envelopes[0], Envelope(payload=SAMPLE.envelopes[1].payload))
    assert refusal(dataclasses.replace(SAMPLE, envelopes=half)) == "trust.unsigned"


@pytest.mark.requirement("M4")
@pytest.mark.parametrize("key", [None, EVIL])
def test_who_signed_is_settled_before_any_file_of_the_bundle_is_parsed(key: SigningKey | None) -> None:
    """The manifest and the policy would both be refused by their readers; nobody gets to read them."""
    files = {**FILES, "manifest.toml": b"\xff", "policy.caps": b"\xff"}
    package = unpack(build_package(manifest_of(), files, FACTS))
    if key is not None:
        package = unpack(sign_package(package, key))
    with pytest.raises(TrustError) as refused:
        verify(package, trust=trusting(), now_ms=NOW)
    assert refused.value.named_code == ("trust.unsigned" if key is None else "trust.unknown_key")


@pytest.mark.requirement("M9")
def test_a_bundle_signed_again_with_the_attackers_key_is_refused() -> None:
    assert refusal(unpack(signed(EVIL))) == "trust.unknown_key"


@pytest.mark.requirement("M9")
def test_an_attackers_signature_under_the_publishers_name_is_refused() -> None:
    forged = [
        Envelope(payload=it.payload, signature=Signature(key_id=ACME.key_id, bytes=it.signature.bytes))
        for it in unpack(signed(EVIL)).envelopes
        if it.signature is not None
    ]
    assert refusal(dataclasses.replace(SAMPLE, envelopes=tuple(forged))) == "trust.signature"


@pytest.mark.requirement("M9")
def test_one_statement_by_the_publisher_does_not_lend_its_name_to_another() -> None:
    mixed = (SAMPLE.envelopes[0], SAMPLE.envelopes[1].signed(EVIL))
    assert refusal(dataclasses.replace(SAMPLE, envelopes=mixed)) == "trust.signature"


@pytest.mark.requirement("M9")
def test_the_publishers_signature_of_another_bundle_is_refused() -> None:
    other = unpack(signed(files={**FILES, "agent.py": b"import evil\n"}))
    assert refusal(dataclasses.replace(other, envelopes=SAMPLE.envelopes)) == "trust.digest"


def test_a_statement_that_names_another_agent_than_the_manifest_is_refused() -> None:
    value = json.loads(SAMPLE.envelopes[0].payload)
    for change in ({"name": "acme_two"}, {"version": "9.9.9"}, {"variant": "b"}, {"minRunloop": "0.0.1"}):
        payload = statement(BUNDLE, value["subject"], {**value["predicate"], **change})
        assert refusal(resigned(SAMPLE, [payload, SAMPLE.envelopes[1].payload])) == "trust.claim"


def test_a_sha256_of_another_tar_is_refused_even_if_signed() -> None:
    payloads = []
    for envelope in SAMPLE.envelopes:
        value = json.loads(envelope.payload)
        value["subject"][0]["digest"]["sha256"] = "0" * 64
        payloads.append(canonical(value))
    assert refusal(resigned(SAMPLE, payloads)) == "trust.digest"


def test_a_digest_of_other_files_is_refused_even_if_signed() -> None:
    payloads = []
    for envelope in SAMPLE.envelopes:
        value = json.loads(envelope.payload)
        value["subject"][0]["digest"]["blake3"] = "0" * 64
        if "bundleDigest" in value["predicate"]:
            value["predicate"]["bundleDigest"] = "0" * 64
        payloads.append(canonical(value))
    assert refusal(resigned(SAMPLE, payloads)) == "trust.digest"


def test_signed_statements_of_another_form_are_refused() -> None:
    both = [it.payload for it in SAMPLE.envelopes]
    assert refusal(resigned(SAMPLE, both[:1])) == "statement.missing"
    assert refusal(resigned(SAMPLE, both[::-1])) == "statement.order"


@pytest.mark.requirement("I3.bundle.4", "M9")
def test_the_same_name_from_another_publisher_is_refused() -> None:
    assert refusal(SAMPLE, owner="beta") == "trust.owner"
    assert refusal(SAMPLE, owner="runloop") == "trust.owner", "a shipped agent's name"
    assert judged(SAMPLE, owner="acme").publisher == "acme"


def test_a_name_the_publisher_may_not_ship_is_refused() -> None:
    assert refusal(SAMPLE, trusting(names='["acme_two", "other_*"]')) == "trust.name"


def test_a_right_beyond_the_anchor_is_refused_by_its_name() -> None:
    assert judged(SAMPLE, trusting(more='capabilities = ["time", "net"]')).publisher == "acme"
    with pytest.raises(TrustError) as refused:
        judged(SAMPLE, trusting(more='capabilities = ["time"]'))
    assert refused.value.named_code == "trust.capability"
    assert refused.value.data["capabilities"] == ["net"]
    assert refusal(SAMPLE, trusting(more="capabilities = []")) == "trust.capability"


@pytest.mark.requirement("I3.bundle.5")
def test_trust_ends_on_the_day_it_expires() -> None:
    trust = trusting(more="expires = 2027-01-15")
    day = 1_799_971_200_000
    assert judged(SAMPLE, trust, now_ms=day - 1).publisher == "acme"
    assert refusal(SAMPLE, trust, now_ms=day) == "trust.expired"


@pytest.mark.requirement("I3.bundle.5")
def test_while_a_key_is_rotated_both_are_believed_and_then_the_old_one_is_not() -> None:
    both = parse_trust(
        f'version = 1\n[anchors.acme]\nkeys = ["{ACME.public}", "{ACME_NEXT.public}"]\nnames = ["*"]\n'
    )
    assert judged(SAMPLE, both).key_id == ACME.key_id
    assert judged(unpack(signed(ACME_NEXT)), both).key_id == ACME_NEXT.key_id
    revoked = both.with_revoked([Revocation(reason="lost", key_id=ACME.key_id)])
    assert refusal(SAMPLE, revoked) == "trust.key_revoked"
    assert judged(unpack(signed(ACME_NEXT)), revoked).publisher == "acme"


def test_a_revoked_bundle_is_refused_whoever_signed_it() -> None:
    trust = trusting(more=f'[[revoked]]\nbundle = "{SAMPLE.bundle_digest}"\nreason = "steals"')
    with pytest.raises(TrustError) as refused:
        judged(SAMPLE, trust)
    assert refused.value.named_code == "trust.bundle_revoked"
    assert "steals" in refused.value.message
    assert refusal(unpack(signed(DEV)), trust, allow_dev=True) == "trust.bundle_revoked"


def test_a_publishers_revocations_reach_its_own_bundles_and_keys_only() -> None:
    foreign = Revocation(reason="sabotage", key_id=ACME.key_id, publisher="beta")
    also = Revocation(reason="sabotage", bundle=SAMPLE.bundle_digest, publisher="beta")
    assert judged(SAMPLE, trusting().with_revoked([foreign, also])).publisher == "acme"
    own = Revocation(reason="lost", key_id=ACME.key_id, publisher="acme")
    assert refusal(SAMPLE, trusting().with_revoked([own])) == "trust.key_revoked"


def test_the_authors_own_key_counts_only_when_asked_for() -> None:
    mine = unpack(signed(DEV))
    assert refusal(mine) == "trust.dev"
    verdict = judged(mine, Trust(), allow_dev=True)
    assert (verdict.publisher, verdict.dev) == ("dev", True)
    assert refusal(mine, Trust(), allow_dev=True, owner="acme") == "trust.owner"


def test_asking_for_the_authors_key_lets_nobody_else_in() -> None:
    assert refusal(unpack(signed(EVIL)), Trust(), allow_dev=True) == "trust.unknown_key"
    assert refusal(SAMPLE, Trust(), allow_dev=True) == "trust.unknown_key"


def test_a_revoked_development_key_signs_nothing_any_more() -> None:
    trust = Trust(revoked=(Revocation(reason="leaked", key_id=DEV.key_id),))
    assert refusal(unpack(signed(DEV)), trust, allow_dev=True) == "trust.key_revoked"


def test_an_empty_trust_believes_nobody() -> None:
    assert refusal(SAMPLE, Trust()) == "trust.unknown_key"


@pytest.mark.requirement("M5")
def test_no_decision_of_trust_can_take_popularity() -> None:
    """Nothing that could count downloads, stars or installs reaches the judgement, nor any file it reads."""
    assert set(inspect.signature(judge).parameters) == {
        *("package", "manifest", "policy", "trust", "now_ms", "owner_of_name", "dev_key", "allow_dev")
    }
    assert {it.name for it in dataclasses.fields(Anchor)} == {
        *("publisher", "keys", "names", "capabilities", "expires_ms", "system")
    }
    assert {it.name for it in dataclasses.fields(Trust)} == {"anchors", "revoked", "only"}
    for word in ("downloads", "stars", "rating", "installs", "verified"):
        with pytest.raises(TrustFileError):
            trusting(more=f"{word} = 1000000")


# --- trust.toml -----------------------------------------------------------------------------------

KEY = str(ACME.public)


def findings(text: str, *, system: bool = False) -> list[str]:
    with pytest.raises(TrustFileError) as refused:
        parse_trust(text, system=system)
    return refused.value.findings


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("", "'version' must be 1"),
        ("version = 2", "'version' must be 1"),
        ("version = true", "'version' must be 1"),
        ("version = 1\nonly = true", "unknown key 'only'"),
        ("version = 1\nanchor = {}", "unknown key 'anchor'"),
        ("version = 1\nanchors = 3", "'anchors' must be a table"),
        ("version = 1\nanchors.acme = 3", "anchors.acme must be a table"),
        (f'version = 1\n[anchors.dev]\nkeys = ["{KEY}"]\nnames = ["*"]', "'dev' cannot be a publisher"),
        (f'version = 1\n[anchors.runloop]\nkeys = ["{KEY}"]\nnames = ["*"]', "'runloop' cannot be"),
        (f'version = 1\n[anchors."A B"]\nkeys = ["{KEY}"]\nnames = ["*"]', "'A B' cannot be a publisher"),
        ('version = 1\n[anchors.acme]\nnames = ["*"]', "anchors.acme.keys must be a list"),
        ('version = 1\n[anchors.acme]\nkeys = []\nnames = ["*"]', "anchors.acme.keys must be a list"),
        ('version = 1\n[anchors.acme]\nkeys = ["x"]\nnames = ["*"]', "is not an Ed25519 public key"),
        (f'version = 1\n[anchors.acme]\nkeys = ["{KEY}", "{KEY}"]\nnames = ["*"]', "twice"),
        (f'version = 1\n[anchors.acme]\nkeys = ["{KEY}"]', "anchors.acme.names must be a list"),
        (f'version = 1\n[anchors.acme]\nkeys = ["{KEY}"]\nnames = ["A?"]', "fits no agent name"),
        (
            f'version = 1\n[anchors.acme]\nkeys = ["{KEY}"]\nnames = ["*"]\ncapabilities = ["fs"]',
            "no capability 'fs'",
        ),
        (
            f'version = 1\n[anchors.acme]\nkeys = ["{KEY}"]\nnames = ["*"]\ncapabilities = "net"',
            "list of texts",
        ),
        (
            f'version = 1\n[anchors.acme]\nkeys = ["{KEY}"]\nnames = ["*"]\nexpires = "soon"',
            "expires cannot be",
        ),
        (
            f'version = 1\n[anchors.acme]\nkeys = ["{KEY}"]\nnames = ["*"]\nexpires = 2027-01-01T00:00:00',
            "expires",
        ),
        ("version = 1\nrevoked = 3", "'revoked' must be a list"),
        ("version = 1\nrevoked = [3]", "revoked entry 1 must be a table"),
        (f'version = 1\n[[revoked]]\nkey = "{ACME.key_id}"', "has no reason"),
        ('version = 1\n[[revoked]]\nreason = "x"', "must name a key or a bundle"),
        (
            f'version = 1\n[[revoked]]\nkey = "{ACME.key_id}"\nbundle = "{"0" * 64}"\nreason = "x"',
            "one of them",
        ),
        ('version = 1\n[[revoked]]\nbundle = "123"\nreason = "x"', "is no bundle digest"),
        ('version = 1\n[[revoked]]\nkey = "123"\nreason = "x"', "neither a key nor a key id"),
        ("version = ", "not TOML"),
        ("version = 1\n#" + "x" * 300_000, "longer than"),
    ],
)
def test_a_mistake_in_the_file_is_named(text: str, about: str) -> None:
    assert any(about in finding for finding in findings(text)), findings(text)


def test_every_mistake_is_named_at_once_with_its_fix() -> None:
    found = findings("version = 2\nwhat = 1\n[anchors.acme]\nkeys = []\n[[revoked]]\nreason = ''")
    assert len(found) >= 5
    assert all("; " in finding for finding in found)


def test_two_publishers_cannot_share_a_key() -> None:
    text = "version = 1\n" + "".join(
        f'[anchors.{name}]\nkeys = ["{KEY}"]\nnames = ["*"]\n' for name in ("one", "two")
    )
    assert any("share the key" in finding for finding in findings(text))


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        parse_trust("version = 1\n" + text)
    except TrustFileError as error:
        assert error.findings


def test_a_key_is_revoked_by_its_id_or_written_out() -> None:
    for written in (ACME.key_id, KEY):
        trust = parse_trust(f'version = 1\n[[revoked]]\nkey = "{written}"\nreason = "lost"')
        assert trust.revocation(key_id=ACME.key_id) is not None


# --- the operator's file and the user's -----------------------------------------------------------


def anchored(name: str, key: str, more: str = "", *, system: bool = False, head: str = "") -> Trust:
    return parse_trust(
        f'version = 1\n{head}\n[anchors.{name}]\nkeys = ["{key}"]\nnames = ["*"]\n{more}', system=system
    )


def test_with_only_the_users_anchors_do_not_count_and_his_revocations_do() -> None:
    user = anchored("mine", str(EVIL.public), f'[[revoked]]\nkey = "{ACME.key_id}"\nreason = "doubt"')
    system = anchored("acme", KEY, system=True, head="only = true")
    both = combine(user, system)
    assert list(both.anchors) == ["acme"]
    assert both.anchors["acme"].system
    assert both.revocation(key_id=ACME.key_id) is not None


def test_without_only_the_user_adds_but_never_replaces() -> None:
    system = anchored("acme", KEY, 'capabilities = ["time"]', system=True)
    assert set(combine(anchored("mine", str(EVIL.public)), system).anchors) == {"acme", "mine"}
    for other in (anchored("acme", str(EVIL.public)), anchored("widened", KEY)):
        both = combine(other, system)
        assert list(both.anchors) == ["acme"]
        assert both.anchors["acme"].capabilities == {"time"}


def test_only_means_nothing_in_the_users_own_hands() -> None:
    assert combine(Trust(only=True), None).only is False
    assert "unknown key 'only'" in findings("version = 1\nonly = true")[0]

"""An index narrows what may be installed; one that is missing, old or frozen stops the install."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from runloop.bundle.archive import unpack
from runloop.bundle.index import (
    BundleIndexError,
    Index,
    IndexEntry,
    IndexRevocation,
    build_index,
    check_index,
    check_listed,
)
from runloop.bundle.signature import Envelope, SigningKey
from runloop.bundle.trust import Revocation, Trust, TrustError
from runloop.digest import canonical
from runloop.errors import NotFoundError, UsageError
from tests.unit.bundle.made import ACME, EVIL, NOW, judged, signed, trusting

ARCHIVE = signed()
PACKAGE = unpack(ARCHIVE)
HOUR = 3_600_000


def entry(version: str = "1.2.3", **change: str) -> IndexEntry:
    fields = {
        "name": "acme_one",
        "version": version,
        "variant": "default",
        "file": f"acme_one-{version}.rlb",
        "sha256": hashlib.sha256(ARCHIVE).hexdigest(),
        "blake3": PACKAGE.bundle_digest,
    }
    return IndexEntry(**{**fields, **change})


def index(
    *entries: IndexEntry,
    serial: int = 7,
    key: SigningKey = ACME,
    expires_ms: int = NOW + HOUR,
    revoked: tuple[IndexRevocation, ...] = (),
) -> bytes:
    return build_index(
        serial=serial, expires_ms=expires_ms, bundles=entries or (entry(),), key=key, revoked=revoked
    )


def checked(
    data: bytes | None, *, trust: Trust | None = None, seen: int | None = None, **given: Any
) -> Index:
    remembered = {} if seen is None else {"acme": seen}
    return check_index(data, trust=trust or trusting(), now_ms=NOW, remembered=remembered, **given)


def refusal(data: bytes | None, **given: Any) -> str:
    with pytest.raises((BundleIndexError, TrustError)) as refused:
        checked(data, **given)
    assert refused.value.hint
    return refused.value.named_code


def test_a_good_index_says_what_there_is() -> None:
    made = checked(index(entry("1.2.3"), entry("1.10.0"), entry("2.0.0-rc.1")))
    assert (made.publisher, made.serial, made.stale) == ("acme", 7, False)
    assert made.find("acme_one").version == "1.10.0", "the newest release, not the newest pre-release"
    assert made.find("acme_one", version="2.0.0-rc.1").version == "2.0.0-rc.1"
    with pytest.raises(NotFoundError):
        made.find("acme_two")
    with pytest.raises(NotFoundError):
        made.find("acme_one", "other")


def test_the_same_entries_in_any_order_give_the_same_bytes() -> None:
    assert index(entry("1.0.0"), entry("2.0.0")) == index(entry("2.0.0"), entry("1.0.0"))


def test_an_index_that_cannot_be_reached_is_a_refusal() -> None:
    assert refusal(None) == "index.unreachable"
    assert refusal(None, allow_stale=True) == "index.unreachable"


def test_an_expired_index_is_a_frozen_one_unless_asked_for() -> None:
    old = index(expires_ms=NOW - HOUR)
    assert refusal(old) == "index.expired"
    assert checked(old, allow_stale=True).stale
    assert refusal(index(expires_ms=NOW)) == "index.expired"


def test_an_older_index_than_was_seen_is_refused_whatever_is_allowed() -> None:
    assert checked(index(), seen=7).serial == 7
    assert refusal(index(), seen=8) == "index.rollback"
    assert refusal(index(), seen=8, allow_stale=True) == "index.rollback"


def test_an_index_is_signed_by_an_anchor_that_still_counts() -> None:
    assert refusal(index(key=EVIL)) == "trust.unknown_key"
    assert refusal(index(), trust=trusting(more="expires = 2020-01-01")) == "trust.expired"
    revoked = trusting().with_revoked([Revocation(reason="lost", key_id=ACME.key_id)])
    assert refusal(index(), trust=revoked) == "trust.key_revoked"
    payload = Envelope.from_line(index()).payload
    assert refusal(Envelope(payload=payload).to_line()) == "index.unsigned"


def test_a_changed_index_is_refused() -> None:
    good = Envelope.from_line(index())
    assert good.signature is not None
    other = Envelope(payload=good.payload.replace(b'"serial":7', b'"serial":9'), signature=good.signature)
    assert refusal(other.to_line()) == "index.signature"


def test_an_index_lists_names_of_its_publisher_only() -> None:
    assert refusal(index(entry(name="other_one"))) == "index.name"


def statement_with(**change: Any) -> bytes:
    value = json.loads(Envelope.from_line(index()).payload)
    value["predicate"].update(change)
    return Envelope(payload=canonical(value)).signed(ACME).to_line()


def listed(**change: Any) -> list[dict[str, Any]]:
    value = json.loads(Envelope.from_line(index()).payload)
    return [{**value["predicate"]["bundles"][0], **change}]


@pytest.mark.requirement("M5")
@pytest.mark.parametrize("word", ["downloads", "stars", "rating", "installs", "trusted"])
def test_an_index_has_no_room_for_popularity(word: str) -> None:
    assert refusal(statement_with(bundles=listed(**{word: 1_000_000}))) == "index.invalid"
    assert refusal(statement_with(**{word: 1_000_000})) == "index.invalid"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"{}\n",
        index() * 2,
        index().rstrip(b"\n"),
        statement_with(serial=-1),
        statement_with(serial="7"),
        statement_with(expires="tomorrow"),
        statement_with(expires="2027-13-01T00:00:00Z"),
        statement_with(bundles=listed(file="../escaped.rlb")),
        statement_with(bundles=listed(file="a/b.rlb")),
        statement_with(bundles=listed(file="https://evil.example/a.rlb")),
        statement_with(bundles=listed(version="latest")),
        statement_with(bundles=listed(sha256="0")),
        statement_with(bundles=listed() * 2),
        statement_with(bundles=listed(sha256="0" * 64)),  # another subject
        statement_with(revoked=[{"reason": "x"}]),
        statement_with(revoked=[{"reason": "", "bundle": "0" * 64}]),
        statement_with(revoked=[{"reason": "x", "bundle": "0" * 64, "key": ACME.key_id}]),
        Envelope(payload=PACKAGE.envelopes[0].payload).signed(ACME).to_line(),  # a bundle's statement
        Envelope(payload=b"[" * 500).signed(ACME).to_line(),
    ],
)
def test_what_is_no_index_is_refused(data: bytes) -> None:
    assert refusal(data) == "index.invalid"


def test_a_bundle_is_the_one_the_index_lists() -> None:
    check_listed(entry(), ARCHIVE, PACKAGE)
    for other in (entry(sha256="0" * 64), entry(blake3="0" * 64)):
        with pytest.raises(BundleIndexError) as refused:
            check_listed(other, ARCHIVE, PACKAGE)
        assert refused.value.named_code == "index.mismatch"


def test_what_an_index_revokes_is_refused_afterwards() -> None:
    made = checked(index(revoked=(IndexRevocation(reason="steals", bundle=PACKAGE.bundle_digest),)))
    assert judged(PACKAGE).publisher == "acme"
    with pytest.raises(TrustError) as refused:
        judged(PACKAGE, trusting().with_revoked(made.revoked))
    assert refused.value.named_code == "trust.bundle_revoked"
    assert "steals" in refused.value.message


def test_an_index_lists_more_than_an_envelope_of_a_bundle_could_hold() -> None:
    many = [entry(f"1.{minor}.{patch}") for minor in range(40) for patch in range(25)]
    assert len(checked(index(*many)).bundles) == 1_000


def test_a_publisher_is_told_before_it_signs_what_no_reader_takes() -> None:
    for bad in (entry(file="../x.rlb"), entry(sha256="x")):
        with pytest.raises(UsageError):
            index(bad)
    with pytest.raises(UsageError):
        index(serial=-1)

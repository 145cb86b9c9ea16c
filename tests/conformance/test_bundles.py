"""The Python implementation runs the bundle vectors of ``sdk/conformance``, as every other one does."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from runloop.bundle.archive import pack, unpack
from runloop.bundle.signature import PAYLOAD_TYPE, PublicKey, pae
from runloop.bundle.tar import FAULTS, ArchiveError, Bounds

VECTORS = Path(__file__).resolve().parents[2] / "sdk/conformance"
ALL: dict[str, Any] = json.loads((VECTORS / "bundles.json").read_text(encoding="utf-8"))


def plain(parts: list[str | int]) -> bytes:
    return b"".join(bytes(part) if isinstance(part, int) else bytes.fromhex(part) for part in parts)


def test_the_vectors_are_fresh() -> None:
    made = runpy.run_path(str(VECTORS / "generate_bundles.py"))
    assert made["text"]() == (VECTORS / "bundles.json").read_text(encoding="utf-8")


def test_every_named_fault_has_a_vector() -> None:
    # The last belt: no archive is known that reaches it. tests/unit/bundle/test_archive.py loosens a rule.
    assert {row["error"] for row in ALL["refused"]} == set(FAULTS) - {"archive.canonical"}


@pytest.mark.requirement("I3.bundle.4", "F5")
@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{row['error']}: {row['name']}") for row in ALL["refused"]]
)
def test_a_hostile_archive_is_refused_by_its_own_name(row: dict[str, Any]) -> None:
    with pytest.raises(ArchiveError) as refused:
        unpack(plain(row["archive"]), bounds=Bounds(**row["bounds"]))
    assert refused.value.named_code == row["error"]
    assert refused.value.message
    assert refused.value.hint


def test_the_good_bundle_is_read_and_written_byte_for_byte() -> None:
    good = ALL["good"]
    data = plain(good["archive"])
    package = unpack(data)
    assert {name: text.decode() for name, text in package.files.items()} == good["files"]
    assert (package.bundle_digest, package.tar_sha256) == (good["bundle_digest"], good["tar_sha256"])
    assert pack(package.files, package.envelopes) == data


def test_the_good_bundle_is_signed_over_the_documented_bytes() -> None:
    good = ALL["good"]
    package = unpack(plain(good["archive"]))
    key = PublicKey.parse(good["public_key"])
    assert key.key_id == good["key_id"]
    assert [pae(PAYLOAD_TYPE, it.payload).hex() for it in package.envelopes] == good["pae"]
    assert all(it.is_signed_by(key) for it in package.envelopes)


def test_the_same_bundle_signed_by_another_key_is_not_signed_by_this_one() -> None:
    package = unpack(plain(ALL["resigned"]["archive"]))
    key = PublicKey.parse(ALL["good"]["public_key"])
    assert package.bundle_digest == ALL["good"]["bundle_digest"]
    assert not any(it.is_signed_by(key) for it in package.envelopes)

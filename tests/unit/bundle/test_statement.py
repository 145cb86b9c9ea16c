"""What is signed about a bundle is the same everywhere, complete, and about nothing but the bundle."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from runloop.bundle.archive import pack, unpack
from runloop.bundle.sbom import SBOM_FILE, sbom
from runloop.bundle.semver import is_version, precedence
from runloop.bundle.signature import Envelope
from runloop.bundle.statement import (
    BUNDLE,
    PROVENANCE,
    BuildFacts,
    Dependency,
    StatementError,
    build_package,
    read_statements,
    sign_package,
)
from runloop.digest import canonical
from tests.unit.bundle.made import ACME, EVIL, FACTS, FILES, manifest_of, signed

RICH = BuildFacts(
    language="rust",
    source_digest="1" * 64,
    tools={"rustc": "1.63.0", "cargo": "1.63.0"},
    runner_digest="2" * 64,
    builder_version="0.1.0",
    dependencies=(
        Dependency(name="serde", version="1.0.0", purl="pkg:cargo/serde@1.0.0", sha256="3" * 64),
        Dependency(name="own", version="2"),
    ),
)


def payloads(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(envelope.payload) for envelope in unpack(data).envelopes]


def test_a_build_carries_both_statements_about_its_tar_and_no_signature() -> None:
    package = unpack(build_package(manifest_of(), FILES, RICH))
    bundle, provenance = (json.loads(it.payload) for it in package.envelopes)
    subject = [
        {"name": "bundle.tar", "digest": {"sha256": package.tar_sha256, "blake3": package.bundle_digest}}
    ]
    assert [bundle["predicateType"], provenance["predicateType"]] == [BUNDLE, PROVENANCE]
    assert bundle["subject"] == provenance["subject"] == subject
    assert bundle["predicate"] == {
        "name": "acme_one",
        "version": "1.2.3",
        "variant": "default",
        "bundleDigest": package.bundle_digest,
        "minRunloop": "0.1.0",
    }
    assert all(it.signature is None for it in package.envelopes)


def test_provenance_names_source_tools_runner_and_dependencies() -> None:
    made = payloads(build_package(manifest_of(), FILES, RICH))[1]["predicate"]["buildDefinition"]
    assert made["externalParameters"]["language"] == "rust"
    assert made["internalParameters"] == {"tools": {"cargo": "1.63.0", "rustc": "1.63.0"}}
    assert made["resolvedDependencies"] == [
        {"name": "source", "digest": {"blake3": "1" * 64}},
        {"name": "runner", "digest": {"blake3": "2" * 64}},
        {"name": "own@2"},
        {"uri": "pkg:cargo/serde@1.0.0", "digest": {"sha256": "3" * 64}},
    ]


def test_no_statement_carries_a_time_or_a_place() -> None:
    text = b"".join(it.payload for it in unpack(build_package(manifest_of(), FILES, RICH)).envelopes).decode()
    assert not re.search(r"20\d\d-\d\d-\d\d|startedOn|finishedOn|/home/|/tmp/|hostname", text)


def test_the_order_facts_were_gathered_in_does_not_show() -> None:
    turned = replace(
        RICH, tools=dict(reversed(RICH.tools.items())), dependencies=tuple(reversed(RICH.dependencies))
    )
    assert build_package(manifest_of(), FILES, turned) == build_package(manifest_of(), FILES, RICH)


def test_signing_again_replaces_the_signature_and_nothing_else() -> None:
    package = unpack(signed(EVIL))
    assert sign_package(package, ACME) == signed(ACME)


def test_a_key_is_not_put_under_statements_about_other_files() -> None:
    package = unpack(signed())
    other = unpack(pack({**FILES, "agent.py": b"import evil\n"}, package.envelopes))
    with pytest.raises(StatementError) as refused:
        sign_package(other, ACME)
    assert refused.value.named_code == "statement.digest"


def changed(index: int, **change: Any) -> tuple[Envelope, ...]:
    envelopes = list(unpack(build_package(manifest_of(), FILES, FACTS)).envelopes)
    value = json.loads(envelopes[index].payload)
    envelopes[index] = Envelope(payload=canonical({**value, **change}))
    return tuple(envelopes)


GOOD = unpack(build_package(manifest_of(), FILES, FACTS)).envelopes
CLAIM = json.loads(GOOD[0].payload)["predicate"]


@pytest.mark.parametrize(
    ("code", "envelopes"),
    [
        ("statement.missing", ()),
        ("statement.missing", GOOD[:1]),
        ("statement.missing", (GOOD[0], GOOD[0])),
        ("statement.missing", (*GOOD, GOOD[1])),
        ("statement.missing", changed(1, predicateType="https://example.org/other")),
        ("statement.order", (GOOD[1], GOOD[0])),
        ("statement.invalid", (Envelope(payload=b"{}"), GOOD[1])),
        ("statement.invalid", (Envelope(payload=b"not json"), GOOD[1])),
        ("statement.invalid", (Envelope(payload=GOOD[0].payload + b" "), GOOD[1])),
        ("statement.invalid", changed(0, _type="https://in-toto.io/Statement/v0.1")),
        ("statement.invalid", changed(0, subject=[])),
        ("statement.invalid", changed(0, more=1)),
        ("statement.invalid", changed(0, predicate={**CLAIM, "popularity": 5})),
        ("statement.invalid", changed(0, predicate={**CLAIM, "bundleDigest": "0" * 64})),
        ("statement.invalid", changed(0, predicate={**CLAIM, "name": 1})),
        ("statement.invalid", changed(1, predicate={})),
        ("statement.invalid", changed(1, subject=[{"name": "bundle.tar", "digest": {"sha256": "0" * 64}}])),
    ],
)
def test_statements_of_another_form_are_refused(code: str, envelopes: tuple[Envelope, ...]) -> None:
    with pytest.raises(StatementError) as refused:
        read_statements(envelopes)
    assert refused.value.named_code == code


# --- the inventory --------------------------------------------------------------------------------


def test_the_inventory_lists_every_part_once_and_says_what_depends_on_it() -> None:
    made = json.loads(sbom(manifest_of(), FILES, RICH))
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")
    assert made["metadata"]["component"]["name"] == "acme_one"
    refs = [part["bom-ref"] for part in made["components"]]
    assert refs[:3] == ["library:own@2", "pkg:cargo/serde@1.0.0", "runner:" + "2" * 64]
    assert refs[3:] == [f"file:{path}" for path in sorted(FILES)]
    assert len(set(refs)) == len(refs)
    assert made["dependencies"][0]["dependsOn"] == refs
    assert {row["ref"] for row in made["dependencies"][1:]} == set(refs)


def test_the_inventory_is_the_same_every_time_and_does_not_list_itself() -> None:
    once = sbom(manifest_of(), FILES, RICH)
    assert sbom(manifest_of(), {**dict(reversed(FILES.items())), SBOM_FILE: once}, RICH) == once
    assert b"serialNumber" not in once
    assert b"timestamp" not in once


# --- versions -------------------------------------------------------------------------------------


def test_versions_are_ordered_as_semver_has_it() -> None:
    # The example of rule 11 of semver.org.
    rising = [
        *("1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2"),
        *("1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0"),
    ]
    shuffled = rising[5:] + rising[:5]
    assert sorted(shuffled, key=precedence) == rising
    assert precedence("1.0.0+a") == precedence("1.0.0+b")


@pytest.mark.parametrize(
    "text", ["1.2", "01.2.3", "1.2.3-", "1.2.3\n", "v1.2.3", "1.2.3-" + "a" * 130, "١.2.3"]
)
def test_what_is_no_version_is_not_taken_for_one(text: str) -> None:
    assert not is_version(text)

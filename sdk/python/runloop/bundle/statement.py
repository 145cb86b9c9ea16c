"""What is signed about a bundle: two in-toto statements, deterministic to the byte.

``urn:runloop:bundle:v1`` says which bundle this is; SLSA provenance v1 says what it was built from and with.
Neither carries a time, a host or a path: the same source gives the same statements everywhere. Knows: how
they are written, and read back strictly. Does not know: signatures, or whether to believe them. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson

from runloop.bundle.archive import Package, content_tar, pack
from runloop.bundle.digest import bundle_digest
from runloop.bundle.manifest import Manifest
from runloop.bundle.signature import Envelope, SigningKey
from runloop.digest import canonical
from runloop.errors import RefusedError, RunloopError

__all__ = [
    "BUNDLE",
    "PROVENANCE",
    "BuildFacts",
    "BundleClaim",
    "Dependency",
    "StatementError",
    "build_package",
    "read_statements",
    "sign_package",
    "statement",
]

STATEMENT = "https://in-toto.io/Statement/v1"
BUNDLE = "urn:runloop:bundle:v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:runloop:build:v1"
BUILDER = "urn:runloop:builder:rlp"

_HEX = re.compile(r"[0-9a-f]{64}\Z")


class StatementError(RefusedError):
    """The statements of an archive are not the two a bundle has."""

    code: ClassVar[str] = "statement.invalid"


@dataclass(frozen=True, kw_only=True, slots=True)
class Dependency:
    """Something of others that a build put into the bundle."""

    name: str
    version: str
    purl: str = ""
    """Package URL, as ``pkg:cargo/serde@1.0.0``; empty if it comes from no registry."""
    sha256: str = ""
    """Of what was fetched, 64 hex digits; empty if not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildFacts:
    """What a build can say of itself without naming a machine or a moment."""

    language: str
    """As the author chose it: ``python``, ``rust``, ``ts``, ``c``, ``config``, ``plugin``."""
    source_digest: str
    """``bundle_digest`` of the source folder as it was read, 64 hex digits."""
    tools: Mapping[str, str] = field(default_factory=dict)
    """Program that took part -> its version: ``{"rustc": "1.63.0"}``."""
    runner_digest: str = ""
    """BLAKE3 of the shipped component that executes the source; empty for an agent's own component."""
    builder_version: str = ""
    """Version of Runloop that built it."""
    dependencies: tuple[Dependency, ...] = ()
    """What others wrote of it; for most agents nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleClaim:
    """What the bundle statement says. Holds only if the signature does."""

    name: str
    version: str
    variant: str
    bundle_digest: str
    min_runloop: str
    tar_sha256: str


def statement(
    predicate_type: str, subject: Sequence[Mapping[str, Any]], predicate: Mapping[str, Any]
) -> bytes:
    """The canonical bytes of an in-toto Statement v1."""
    return canonical(
        {
            "_type": STATEMENT,
            "subject": [dict(item) for item in subject],
            "predicateType": predicate_type,
            "predicate": dict(predicate),
        }
    )


def build_package(manifest: Manifest, files: Mapping[str, bytes], facts: BuildFacts) -> bytes:
    """The unsigned ``.rlb`` of a build: both statements are inside, neither is signed."""
    tar_sha256 = _sha256(content_tar(files))
    digest = bundle_digest(files)
    payloads = (
        _bundle_statement(manifest, digest, tar_sha256),
        _provenance(manifest, digest, tar_sha256, facts),
    )
    return pack(files, [Envelope(payload=payload) for payload in payloads])


def sign_package(package: Package, key: SigningKey) -> bytes:
    """The ``.rlb`` with both statements signed by ``key``; a signature that was there is replaced.

    Raises :class:`StatementError` when the archive's statements do not speak of its own content: a key is not
    put under what a file merely says of itself.
    """
    claim = read_statements(package.envelopes)
    if claim.bundle_digest != package.bundle_digest or claim.tar_sha256 != package.tar_sha256:
        raise StatementError(
            "the statements in this archive speak of other files than it holds",
            hint="build it again with 'rlp agent build'",
            code="statement.digest",
        )
    return pack(package.files, [envelope.signed(key) for envelope in package.envelopes])


def read_statements(envelopes: Sequence[Envelope]) -> BundleClaim:
    """The claim of an archive's statements, checked for form and against each other, not for truth.

    Raises :class:`StatementError`: ``statement.missing`` and ``statement.order`` when there are not exactly
    the bundle statement and the provenance in this order, ``statement.invalid`` for anything else in them.
    """
    values = [_decoded(envelope.payload) for envelope in envelopes]
    kinds = [value.get("predicateType") for value in values]
    if sorted(map(str, kinds)) == sorted((BUNDLE, PROVENANCE)) and kinds != [BUNDLE, PROVENANCE]:
        raise StatementError(
            "the archive's statements are reordered", hint="build the bundle again", code="statement.order"
        )
    if kinds != [BUNDLE, PROVENANCE]:
        raise StatementError(
            f"the archive has {len(kinds)} statements; a bundle has its own and its provenance",
            hint="build it again with 'rlp agent build'",
            code="statement.missing",
        )
    made, provenance = values
    if made["subject"] != provenance["subject"]:
        raise _invalid("the statements speak of different files")
    claim = _claim(made)
    if claim is None or not _is_provenance(provenance["predicate"]):
        raise _invalid("a field is missing, unknown or of another kind")
    return claim


def _bundle_statement(manifest: Manifest, digest: str, tar_sha256: str) -> bytes:
    return statement(
        BUNDLE,
        _subject(digest, tar_sha256),
        {
            "name": manifest.name,
            "version": manifest.version,
            "variant": manifest.variant,
            "bundleDigest": digest,
            "minRunloop": manifest.min_runloop,
        },
    )


def _provenance(manifest: Manifest, digest: str, tar_sha256: str, facts: BuildFacts) -> bytes:
    dependencies: list[dict[str, Any]] = [{"name": "source", "digest": {"blake3": facts.source_digest}}]
    if facts.runner_digest:
        dependencies.append({"name": "runner", "digest": {"blake3": facts.runner_digest}})
    for one in sorted(facts.dependencies, key=lambda it: (it.name, it.version)):
        named = {"uri": one.purl} if one.purl else {"name": f"{one.name}@{one.version}"}
        dependencies.append({**named, "digest": {"sha256": one.sha256}} if one.sha256 else named)
    return statement(
        PROVENANCE,
        _subject(digest, tar_sha256),
        {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "name": manifest.name,
                    "version": manifest.version,
                    "variant": manifest.variant,
                    "language": facts.language,
                },
                "internalParameters": {"tools": dict(facts.tools)},
                "resolvedDependencies": dependencies,
            },
            "runDetails": {"builder": {"id": BUILDER, "version": {"runloop": facts.builder_version}}},
        },
    )


def _subject(digest: str, tar_sha256: str) -> list[dict[str, Any]]:
    return [{"name": "bundle.tar", "digest": {"sha256": tar_sha256, "blake3": digest}}]


def _decoded(payload: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(payload)
        if canonical(value) != payload:
            raise _invalid("it is not canonical JSON")
    except (ValueError, RunloopError) as error:
        raise _invalid("it is not JSON in its one form") from error
    match value:
        case {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": list(),
            "predicateType": str(),
            "predicate": dict(),
        } if len(value) == 4:
            return dict(value)
    raise _invalid("it is not an in-toto statement")


def _claim(value: Mapping[str, Any]) -> BundleClaim | None:
    match value["subject"], value["predicate"]:
        case (
            [{"name": "bundle.tar", "digest": {"sha256": str(sha256), "blake3": str(blake3)}}],
            {
                "name": str(name),
                "version": str(version),
                "variant": str(variant),
                "bundleDigest": str(digest),
                "minRunloop": str(min_runloop),
            },
        ) if len(value["predicate"]) == 5 and blake3 == digest and _HEX.match(sha256) and _HEX.match(blake3):
            return BundleClaim(
                name=name,
                version=version,
                variant=variant,
                bundle_digest=digest,
                min_runloop=min_runloop,
                tar_sha256=sha256,
            )
    return None


def _is_provenance(predicate: Mapping[str, Any]) -> bool:
    match predicate:
        case {
            "buildDefinition": {
                "buildType": "urn:runloop:build:v1",
                "externalParameters": dict(),
                "internalParameters": dict(),
                "resolvedDependencies": [{"name": "source", "digest": {"blake3": str(source)}}, *_],
            },
            "runDetails": {"builder": {"id": str()}},
        }:
            return bool(_HEX.match(source))
    return False


def _invalid(why: str) -> StatementError:
    return StatementError(f"a statement of the archive cannot be read: {why}", hint="build the bundle again")


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()

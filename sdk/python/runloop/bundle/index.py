"""A publisher's signed list of its bundles: what there is, what was revoked, and until when the list counts.

Knows: the one line of ``index.jsonl``, who may sign it, and how a frozen or an older list is noticed
(attacks.md M8, M10). Does not know: where the list was fetched from, the time, or the serials seen before;
the caller says. An index only ever narrows: it is no reason to believe a bundle, whose own signature is
judged all the same (``bundle.trust``), and it has no room for how popular a bundle is (M5). Pure.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from runloop.bundle.archive import Package
from runloop.bundle.semver import is_version, precedence
from runloop.bundle.signature import Envelope, EnvelopeError, SigningKey
from runloop.bundle.statement import STATEMENT, statement
from runloop.bundle.trust import Anchor, Revocation, Trust, anchor_for
from runloop.caps.grants import pattern_matches
from runloop.digest import blob_digest, canonical
from runloop.errors import NotFoundError, RefusedError, RunloopError, UsageError

__all__ = [
    "INDEX",
    "BundleIndexError",
    "Index",
    "IndexEntry",
    "IndexRevocation",
    "build_index",
    "check_index",
    "check_listed",
]

INDEX = "urn:runloop:index:v1"
MAX_PAYLOAD_BYTES = 4 * 1024 * 1024
MAX_INDEX_BYTES = 2 * MAX_PAYLOAD_BYTES
MAX_SERIAL = 2**53 - 1

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_FILE = re.compile(r"[a-z][A-Za-z0-9_.+-]{0,250}\.rlb\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_KEY_ID = re.compile(r"ed25519:[0-9a-f]{32}\Z")


class BundleIndexError(RefusedError):
    """The index is not believed, and nothing is installed by it.

    ``named_code``: ``index.unreachable``, ``index.invalid``, ``index.unsigned``, ``index.signature``,
    ``index.name``, ``index.expired``, ``index.rollback``, ``index.mismatch``.
    """

    code: ClassVar[str] = "index.invalid"


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One bundle of an index."""

    name: str
    version: str
    variant: str
    file: str
    """Name of the ``.rlb`` beside the index; never a path."""
    sha256: str
    """Of the file's bytes, for programs that are not ours."""
    blake3: str
    """The bundle digest."""


class IndexRevocation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing the publisher takes back."""

    reason: str
    key: str | None = None
    """A key id of the publisher's own."""
    bundle: str | None = None
    """A bundle digest."""


class _Predicate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    serial: int
    expires: str
    bundles: tuple[IndexEntry, ...]
    revoked: tuple[IndexRevocation, ...]


class _Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    _type: str
    subject: list[dict[str, Any]]
    predicateType: str
    predicate: _Predicate


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """An index that was judged good."""

    publisher: str
    key_id: str
    serial: int
    expires: str
    """UTC, ``2027-01-31T00:00:00Z``."""
    bundles: tuple[IndexEntry, ...]
    revoked: tuple[Revocation, ...]
    """For ``Trust.with_revoked``: of this publisher's keys and bundles only."""
    digest: str
    """BLAKE3 of the signed payload."""
    stale: bool = False
    """It has expired, and the caller asked to use it all the same: to be said aloud."""

    def find(self, name: str, variant: str = "default", version: str | None = None) -> IndexEntry:
        """The entry of that version, else of the newest that is not a pre-release, else of the newest.

        Raises :class:`NotFoundError`.
        """
        fitting = [
            entry
            for entry in self.bundles
            if (entry.name, entry.variant) == (name, variant) and version in (None, entry.version)
        ]
        if not fitting:
            raise NotFoundError(
                f"the index of {self.publisher} lists no {name} {version or ''}".rstrip(),
                hint=f"it lists: {', '.join(sorted({entry.name for entry in self.bundles})) or 'nothing'}",
                code="index.missing",
            )
        return max(fitting, key=lambda entry: ("-" not in entry.version, precedence(entry.version)))


def build_index(
    *,
    serial: int,
    expires_ms: int,
    bundles: Iterable[IndexEntry],
    key: SigningKey,
    revoked: Iterable[IndexRevocation] = (),
) -> bytes:
    """The bytes of ``index.jsonl``. ``serial`` must be higher than in every index published before.

    Raises :class:`UsageError` for entries no reader would take.
    """
    rows = sorted(bundles, key=lambda entry: (entry.name, entry.variant, precedence(entry.version)))
    predicate = _Predicate(
        serial=serial, expires=_utc(expires_ms), bundles=tuple(rows), revoked=tuple(revoked)
    )
    fault = _fault(predicate)
    payload = statement(INDEX, _subject(rows), msgspec.to_builtins(predicate))
    if fault is None and len(payload) > MAX_PAYLOAD_BYTES:
        fault = f"it is larger than {MAX_PAYLOAD_BYTES} bytes"
    if fault is not None:
        raise UsageError(f"this cannot be an index: {fault}", hint="correct the entry", code="index.invalid")
    return Envelope(payload=payload).signed(key).to_line()


def check_index(
    data: bytes | None,
    *,
    trust: Trust,
    now_ms: int,
    remembered: Mapping[str, int],
    allow_stale: bool = False,
) -> Index:
    """Judge an index. ``data`` None: it could not be fetched, which is a refusal and never a shrug.

    ``remembered`` holds the highest serial seen of each publisher. ``allow_stale`` lets an expired list
    through, marked; an older one than was seen is refused whatever is allowed. Raises
    :class:`BundleIndexError` and, for the key, ``TrustError``.
    """
    if data is None:
        raise BundleIndexError(
            "the index cannot be reached, so nobody can say whether the bundle was revoked",
            hint="try again when its source answers, or install from a file",
            code="index.unreachable",
        )
    envelope, anchor = _signed(data, trust, now_ms)
    predicate = _read(envelope.payload)
    _check_names(predicate, anchor)
    seen = remembered.get(anchor.publisher)
    if seen is not None and predicate.serial < seen:
        raise BundleIndexError(
            f"the index of {anchor.publisher} has serial {predicate.serial}; {seen} was seen before",
            hint="somebody serves an old list; ask its publisher for the present one",
            code="index.rollback",
            serial=predicate.serial,
            seen=seen,
        )
    stale = now_ms >= _at_ms(predicate.expires)
    if stale and not allow_stale:
        raise BundleIndexError(
            f"the index of {anchor.publisher} expired {predicate.expires}: it may hide newer ones",
            hint="fetch a fresh one; if there is none, somebody may be holding it back",
            code="index.expired",
            expires=predicate.expires,
        )
    assert envelope.signature is not None, "it was verified"
    return Index(
        publisher=anchor.publisher,
        key_id=envelope.signature.key_id,
        serial=predicate.serial,
        expires=predicate.expires,
        bundles=predicate.bundles,
        revoked=tuple(_revocation(row, anchor) for row in predicate.revoked),
        digest=blob_digest(envelope.payload),
        stale=stale,
    )


def check_listed(entry: IndexEntry, archive: bytes, package: Package) -> None:
    """Raise :class:`BundleIndexError` unless ``archive``, unpacked as ``package``, is what is listed."""
    if hashlib.sha256(archive).hexdigest() != entry.sha256 or package.bundle_digest != entry.blake3:
        raise BundleIndexError(
            f"{entry.file} is another file than the index lists",
            hint="fetch it again; if that does not help, ask its publisher",
            code="index.mismatch",
            expected=entry.blake3,
            actual=package.bundle_digest,
        )


def _signed(data: bytes, trust: Trust, now_ms: int) -> tuple[Envelope, Anchor]:
    try:
        if len(data) > MAX_INDEX_BYTES or data.count(b"\n") != 1 or not data.endswith(b"\n"):
            raise _invalid("it is not one line of bounded length")
        envelope = Envelope.from_line(data, max_bytes=MAX_INDEX_BYTES)
    except EnvelopeError as error:
        raise _invalid("it is not a DSSE envelope in its one form") from error
    if envelope.signature is None:
        raise BundleIndexError(
            "the index is not signed", hint="ask its publisher for a signed one", code="index.unsigned"
        )
    key, anchor = anchor_for(envelope.signature.key_id, trust, now_ms)
    if not envelope.is_signed_by(key):
        raise BundleIndexError(
            f"the signature of {anchor.publisher} under the index does not hold",
            hint="it was altered on the way; fetch it again",
            code="index.signature",
        )
    return envelope, anchor


def _read(payload: bytes) -> _Predicate:
    try:
        value = msgspec.json.decode(payload)
        if canonical(value) != payload:
            raise _invalid("it is not canonical JSON")
        made = msgspec.convert(value, _Statement)
    except (msgspec.MsgspecError, RunloopError, RecursionError) as error:
        raise _invalid(str(error)) from error
    if value["_type"] != STATEMENT or made.predicateType != INDEX:
        raise _invalid("it is a statement of another kind")
    fault = _fault(made.predicate)
    if fault is None and made.subject != _subject(made.predicate.bundles):
        fault = "its subject is not its list"
    if fault is not None:
        raise _invalid(fault)
    return made.predicate


def _fault(predicate: _Predicate) -> str | None:
    """What is wrong with the content, in words."""
    if not 0 <= predicate.serial <= MAX_SERIAL:
        return "the serial is out of range"
    try:
        _at_ms(predicate.expires)
    except ValueError:
        return f"expires is {predicate.expires!r}; write it as 2027-01-31T00:00:00Z"
    seen: set[tuple[str, str, str]] = set()
    for entry in predicate.bundles:
        whole = (entry.name, entry.variant, entry.version)
        if not (
            _NAME.match(entry.name)
            and _NAME.match(entry.variant)
            and is_version(entry.version)
            and _FILE.match(entry.file)
            and ".." not in entry.file
            and _DIGEST.match(entry.sha256)
            and _DIGEST.match(entry.blake3)
        ):
            return f"the entry of {entry.name!r} has a field of another form"
        if whole in seen:
            return f"{entry.name} {entry.version} is listed twice"
        seen.add(whole)
    for row in predicate.revoked:
        good = (row.key is None) != (row.bundle is None) and bool(row.reason.strip())
        if not good or not (_KEY_ID.match(row.key) if row.key else _DIGEST.match(row.bundle or "")):
            return "a revocation must name a key id or a bundle digest, one of them, and a reason"
    return None


def _check_names(predicate: _Predicate, anchor: Anchor) -> None:
    for entry in predicate.bundles:
        if not any(pattern_matches(pattern, entry.name) for pattern in anchor.names):
            raise BundleIndexError(
                f"the index of {anchor.publisher} lists {entry.name}, a name that is not its own here",
                hint=f"if that is meant, add it to anchors.{anchor.publisher}.names in trust.toml",
                code="index.name",
            )


def _revocation(row: IndexRevocation, anchor: Anchor) -> Revocation:
    return Revocation(
        reason=f"{row.reason} (index of {anchor.publisher})",
        key_id=row.key,
        bundle=row.bundle,
        publisher=anchor.publisher,
    )


def _subject(bundles: Iterable[IndexEntry]) -> list[dict[str, Any]]:
    return [{"name": entry.file, "digest": {"sha256": entry.sha256}} for entry in bundles]


_FORM = "%Y-%m-%dT%H:%M:%SZ"


def _utc(at_ms: int) -> str:
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=at_ms // 1000)
    return moment.isoformat() + "Z"


def _at_ms(text: str) -> int:
    if len(text) != len("2027-01-31T00:00:00Z") or not text.isascii():
        raise ValueError(text)
    moment = datetime.datetime.strptime(text, _FORM).replace(tzinfo=datetime.UTC)
    return int(moment.timestamp()) * 1000


def _invalid(why: str) -> BundleIndexError:
    return BundleIndexError(f"the index cannot be read: {why}", hint="ask its publisher for a good one")

"""Whom to believe: anchors, what each may publish, what was revoked, and the one judgement over a package.

Knows: ``trust.toml``, how the operator's system file narrows it, and every reason to refuse a package. Does
not know: files on disk, who installed a name first (told by the caller), the time (told by the caller).
Nothing a package says of itself, and no measure of how popular it is, counts (attacks.md M5, M9). Pure.

There is no fall-back: a signature that does not hold, an unknown key or a digest that differs ends the
judgement, whatever else would be in favour.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from runloop import toml
from runloop.bundle.archive import Package
from runloop.bundle.manifest import Manifest
from runloop.bundle.signature import PublicKey
from runloop.bundle.statement import BundleClaim, read_statements
from runloop.caps.grants import pattern_matches
from runloop.caps.policy import CAPABILITIES, Policy
from runloop.errors import RefusedError, UsageError

__all__ = [
    "DEV_PUBLISHER",
    "RESERVED_PUBLISHERS",
    "SHIPPED_PUBLISHER",
    "Anchor",
    "Revocation",
    "Trust",
    "TrustError",
    "TrustFileError",
    "Verdict",
    "anchor_for",
    "checked_publisher",
    "combine",
    "judge",
    "parse_trust",
    "verify",
]

DEV_PUBLISHER = "dev"
"""Who signed with the author's own key of this home; never an anchor."""
SHIPPED_PUBLISHER = "runloop"
"""Who owns the names of the agents that come with Runloop; never an anchor."""
RESERVED_PUBLISHERS = (DEV_PUBLISHER, SHIPPED_PUBLISHER, "shipped", "unsigned")
MAX_TRUST_BYTES = 262_144
MAX_KEYS = 16

_PUBLISHER = re.compile(r"[a-z][a-z0-9_-]{0,63}\Z")
_PUBLISHER_FIX = (
    "use lower-case letters, digits, '-' and '_', beginning with a letter; "
    f"reserved: {', '.join(RESERVED_PUBLISHERS)}"
)
_PATTERN = re.compile(r"[a-z*][a-z0-9_*]{0,63}\Z")
_KEY_ID = re.compile(r"ed25519:[0-9a-f]{32}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def checked_publisher(name: str) -> str:
    """The name, if a trust file could hold it; raises :class:`UsageError`."""
    if not _is_publisher(name):
        raise UsageError(f"{name!r} cannot be a publisher", hint=_PUBLISHER_FIX, code="trust.publisher")
    return name


def _is_publisher(name: str) -> bool:
    return bool(_PUBLISHER.match(name)) and name not in RESERVED_PUBLISHERS


class TrustFileError(UsageError):
    """A ``trust.toml`` that cannot be used. ``findings`` lists every mistake in words: what, and its fix.

    Nothing is trusted while the file has one.
    """

    code: ClassVar[str] = "trust.invalid"

    def __init__(self, origin: str, findings: Sequence[str]) -> None:
        self.findings = list(findings)
        super().__init__(
            f"{origin}: " + ". ".join(findings),
            hint=f"correct {origin}; until then no signature is believed",
            findings=self.findings,
        )


class TrustError(RefusedError):
    """This package is not installed. ``named_code`` says which reason of the list below it was.

    ``trust.unsigned``, ``trust.unknown_key``, ``trust.key_revoked``, ``trust.bundle_revoked``,
    ``trust.expired``, ``trust.signature``, ``trust.digest``, ``trust.claim``, ``trust.dev``, ``trust.name``,
    ``trust.owner``, ``trust.capability``.
    """

    code: ClassVar[str] = "trust.refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchor:
    """One publisher the operator believes, within bounds."""

    publisher: str
    keys: tuple[PublicKey, ...]
    """Any of them may sign: while a key is rotated, both stand here."""
    names: tuple[str, ...]
    """Agent names it may publish; only ``*`` is special."""
    capabilities: frozenset[str] | None = None
    """Names of capabilities its agents may ask for at most; None: all."""
    expires_ms: int | None = None
    """Milliseconds since 1970 from which on nothing of it is installed; None: never."""
    system: bool = False
    """From the operator's system file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Revocation:
    """A key or a bundle that is no longer believed."""

    reason: str
    key_id: str | None = None
    bundle: str | None = None
    """A bundle digest."""
    publisher: str | None = None
    """Only of this publisher's; None: whoever's. Lists of a publisher reach no further than its own."""

    def hits(self, *, key_id: str = "", bundle: str = "", publisher: str | None = None) -> bool:
        """Whether it speaks of this key or this bundle of this publisher."""
        if self.publisher not in (None, publisher):
            return False
        return (self.key_id is not None and self.key_id == key_id) or (
            self.bundle is not None and self.bundle == bundle
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    """Everything the operator believes. Empty: nothing is installed but by the author's own key."""

    anchors: Mapping[str, Anchor] = field(default_factory=dict)
    revoked: tuple[Revocation, ...] = ()
    only: bool = False
    """Of a system file: no other file's anchors count."""

    def anchor_of(self, key_id: str) -> Anchor | None:
        """The anchor a key belongs to; at most one, ``combine`` and ``parse_trust`` see to that."""
        for anchor in self.anchors.values():
            if any(key.key_id == key_id for key in anchor.keys):
                return anchor
        return None

    def revocation(
        self, *, key_id: str = "", bundle: str = "", publisher: str | None = None
    ) -> Revocation | None:
        """The first revocation of a key or a bundle."""
        for row in self.revoked:
            if row.hits(key_id=key_id, bundle=bundle, publisher=publisher):
                return row
        return None

    def with_revoked(self, more: Iterable[Revocation]) -> Trust:
        """The same trust, narrowed by an index's revocations."""
        return replace(self, revoked=(*self.revoked, *more))


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Who published a package that is believed."""

    publisher: str
    key_id: str
    dev: bool
    """Signed by the author's own key of this home: to be shown wherever the agent is."""
    claim: BundleClaim


# --- the judgement --------------------------------------------------------------------------------


def judge(
    package: Package,
    manifest: Manifest,
    policy: Policy,
    *,
    trust: Trust,
    now_ms: int,
    owner_of_name: str | None,
    dev_key: PublicKey | None = None,
    allow_dev: bool = False,
) -> Verdict:
    """Say who published ``package``, or raise TrustError (or StatementError) at the first reason not to.

    ``manifest`` and ``policy`` must come from ``package.files``. ``owner_of_name`` is the publisher that
    first installed this agent's name here (:data:`SHIPPED_PUBLISHER` for shipped ones), None if nobody did.
    ``dev_key`` is the public half of this home's own key; without ``allow_dev`` what it signed is refused.
    """
    verdict = verify(package, trust=trust, now_ms=now_ms, dev_key=dev_key, allow_dev=allow_dev)
    publisher = verdict.publisher
    _check_claim(verdict.claim, manifest)
    if not verdict.dev:
        _check_bounds(trust.anchors[publisher], manifest, policy)
    if owner_of_name not in (None, publisher):
        shipped = owner_of_name == SHIPPED_PUBLISHER
        raise TrustError(
            f"the name {manifest.name} belongs to {owner_of_name} here; this bundle is signed by {publisher}",
            hint=f"ask {publisher} for another name; those of shipped agents cannot be taken"
            if shipped
            else f"ask {publisher} for another name, or 'rlp agent remove --release-name {manifest.name}'",
            code="trust.owner",
            owner=owner_of_name,
            publisher=publisher,
        )
    return verdict


def verify(
    package: Package,
    *,
    trust: Trust,
    now_ms: int,
    dev_key: PublicKey | None = None,
    allow_dev: bool = False,
) -> Verdict:
    """The part of :func:`judge` that reads no file of the bundle: signer, signature, statements, digests and
    revocations. Call it first, so that nothing unsigned is ever parsed (attacks.md M4); it permits no
    install. Raises as :func:`judge` does.
    """
    key_id = _one_signer(package)
    key, publisher, anchor = _signer(key_id, trust, now_ms, dev_key, allow_dev)
    if not all(envelope.is_signed_by(key) for envelope in package.envelopes):
        raise TrustError(
            f"the signature of {key_id} does not hold: the archive was altered, or is another's work",
            hint="fetch it again from its publisher; there is no way to install it as it is",
            code="trust.signature",
            key_id=key_id,
        )
    claim = read_statements(package.envelopes)
    _check_digests(claim, package)
    row = trust.revocation(bundle=package.bundle_digest, publisher=publisher)
    if row is not None:
        raise TrustError(
            f"the bundle {package.bundle_digest[:12]} was revoked: {row.reason}",
            hint="install another version",
            code="trust.bundle_revoked",
        )
    return Verdict(publisher=publisher, key_id=key_id, dev=anchor is None, claim=claim)


def _one_signer(package: Package) -> str:
    signers = {None if it.signature is None else it.signature.key_id for it in package.envelopes}
    if not signers or None in signers:
        raise TrustError(
            "the bundle is not signed",
            hint="its author signs it with 'rlp agent sign'",
            code="trust.unsigned",
        )
    if len(signers) > 1:
        raise TrustError(
            "the bundle's statements are signed by different keys",
            hint="its author must sign it again, with one key",
            code="trust.signature",
        )
    return str(signers.pop())


def _signer(
    key_id: str, trust: Trust, now_ms: int, dev_key: PublicKey | None, allow_dev: bool
) -> tuple[PublicKey, str, Anchor | None]:
    """The key, its publisher, and the anchor; no anchor for the author's own key."""
    if dev_key is None or dev_key.key_id != key_id:
        key, anchor = anchor_for(key_id, trust, now_ms)
        return key, anchor.publisher, anchor
    _refuse_revoked(key_id, DEV_PUBLISHER, trust)
    if not allow_dev:
        raise TrustError(
            "the bundle is signed by this home's own development key only",
            hint="add --dev-key if you wrote it yourself; it is then shown as dev everywhere",
            code="trust.dev",
            key_id=key_id,
        )
    return dev_key, DEV_PUBLISHER, None


def anchor_for(key_id: str, trust: Trust, now_ms: int) -> tuple[PublicKey, Anchor]:
    """The key and the anchor that vouch for ``key_id`` now.

    Raises :class:`TrustError`: ``trust.key_revoked``, ``trust.unknown_key``, ``trust.expired``.
    """
    anchor = trust.anchor_of(key_id)
    _refuse_revoked(key_id, anchor.publisher if anchor else None, trust)
    if anchor is None:
        raise TrustError(
            f"nobody here vouches for the key {key_id}",
            hint="if you know its publisher: 'rlp trust add <publisher> <key>', with a key from itself",
            code="trust.unknown_key",
            key_id=key_id,
        )
    if anchor.expires_ms is not None and now_ms >= anchor.expires_ms:
        raise TrustError(
            f"the trust in {anchor.publisher} expired {_day(anchor.expires_ms)}",
            hint=f"renew 'expires' of anchors.{anchor.publisher} in trust.toml",
            code="trust.expired",
            publisher=anchor.publisher,
        )
    return next(key for key in anchor.keys if key.key_id == key_id), anchor


def _refuse_revoked(key_id: str, publisher: str | None, trust: Trust) -> None:
    row = trust.revocation(key_id=key_id, publisher=publisher)
    if row is not None:
        raise TrustError(
            f"the key {key_id} was revoked: {row.reason}",
            hint="its publisher must sign again with a key that is not revoked",
            code="trust.key_revoked",
            key_id=key_id,
        )


def _check_digests(claim: BundleClaim, package: Package) -> None:
    if claim.bundle_digest != package.bundle_digest or claim.tar_sha256 != package.tar_sha256:
        raise TrustError(
            f"the signature is for the bundle {claim.bundle_digest[:12]}, "
            f"the files are of {package.bundle_digest[:12]}",
            hint="fetch it again from its publisher; there is no way to install it as it is",
            code="trust.digest",
            expected=claim.bundle_digest,
            actual=package.bundle_digest,
        )


def _check_claim(claim: BundleClaim, manifest: Manifest) -> None:
    said = (claim.name, claim.version, claim.variant, claim.min_runloop)
    if said != (manifest.name, manifest.version, manifest.variant, manifest.min_runloop):
        raise TrustError(
            f"the statement names {claim.name} {claim.version}, "
            f"the manifest {manifest.name} {manifest.version}",
            hint="its author must build and sign it again",
            code="trust.claim",
        )


def _check_bounds(anchor: Anchor, manifest: Manifest, policy: Policy) -> None:
    if not any(pattern_matches(pattern, manifest.name) for pattern in anchor.names):
        raise TrustError(
            f"{anchor.publisher} may publish {', '.join(anchor.names)} here, not {manifest.name}",
            hint=f"if that is meant, add the name to anchors.{anchor.publisher}.names in trust.toml",
            code="trust.name",
            publisher=anchor.publisher,
        )
    if anchor.capabilities is None:
        return
    beyond = [name for name in policy.grants if name not in anchor.capabilities]
    if beyond:
        raise TrustError(
            f"{manifest.name} asks for {', '.join(beyond)}, "
            f"which agents of {anchor.publisher} may not have here",
            hint=f"if that is meant, add it to anchors.{anchor.publisher}.capabilities in trust.toml",
            code="trust.capability",
            publisher=anchor.publisher,
            capabilities=beyond,
        )


def _day(at_ms: int) -> str:
    return datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC).date().isoformat()


# --- the files ------------------------------------------------------------------------------------


def combine(user: Trust, system: Trust | None) -> Trust:
    """What both files leave. The operator's system file wins: with ``only`` its anchors are all there are;
    without, the user's are added, except under a publisher or with a key the system file speaks of.
    Revocations of both always count."""
    if system is None:
        return replace(user, only=False)
    revoked = (*system.revoked, *user.revoked)
    anchors = {name: replace(anchor, system=True) for name, anchor in system.anchors.items()}
    if not system.only:
        taken = {key for anchor in anchors.values() for key in anchor.keys}
        for name, anchor in user.anchors.items():
            if name not in anchors and not taken & set(anchor.keys):
                anchors[name] = anchor
    return Trust(anchors=anchors, revoked=revoked, only=system.only)


def parse_trust(text: str | bytes, *, origin: str = "trust.toml", system: bool = False) -> Trust:
    """Read a trust file strictly; raises :class:`TrustFileError` with every mistake. ``only`` is the system
    file's alone."""
    try:
        plain = text.decode() if isinstance(text, bytes) else text
        if len(plain) > MAX_TRUST_BYTES:
            raise TrustFileError(origin, [f"it is longer than {MAX_TRUST_BYTES} characters; shorten it"])
        top = toml.loads(plain)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise TrustFileError(origin, [f"it is not TOML: {error}; see https://toml.io"]) from error
    reader = _Reader()
    made = reader.trust(top, system)
    if reader.findings:
        raise TrustFileError(origin, reader.findings)
    return made


class _Reader:
    """Collects findings while it reads."""

    def __init__(self) -> None:
        self.findings: list[str] = []

    def trust(self, top: Mapping[str, Any], system: bool) -> Trust:
        self._known("", top, ("version", "anchors", "revoked", *(["only"] if system else [])))
        if top.get("version") != 1 or type(top.get("version")) is not int:
            self._wrong("'version' must be 1", "write version = 1 in the first line")
        only = top.get("only", False)
        if type(only) is not bool:
            self._wrong(f"'only' cannot be {only!r}", "write only = true or leave it out")
        anchors = top.get("anchors", {})
        if not isinstance(anchors, dict):
            self._wrong("'anchors' must be a table", "write [anchors.<publisher>]")
            anchors = {}
        made = {name: self._anchor(name, table) for name, table in anchors.items()}
        self._one_owner(made)
        return Trust(anchors=made, revoked=self._revoked(top.get("revoked", [])), only=only is True)

    def _anchor(self, name: str, table: Any) -> Anchor:
        where = f"anchors.{name}"
        if not _is_publisher(name):
            self._wrong(f"{name!r} cannot be a publisher", _PUBLISHER_FIX)
        if not isinstance(table, dict):
            self._wrong(f"{where} must be a table", f"write [{where}]")
            table = {}
        self._known(f"{where}.", table, ("keys", "names", "capabilities", "expires"))
        return Anchor(
            publisher=name,
            keys=self._keys(where, table.get("keys")),
            names=self._names(where, table.get("names")),
            capabilities=self._capabilities(where, table),
            expires_ms=self._expires(where, table.get("expires")),
        )

    def _keys(self, where: str, value: Any) -> tuple[PublicKey, ...]:
        keys: list[PublicKey] = []
        for text in self._texts(f"{where}.keys", value, 'keys = ["ed25519:<base64>"]'):
            try:
                key = PublicKey.parse(text)
            except UsageError as error:
                self._wrong(f"{where}.keys: {error.message}", str(error.hint))
                continue
            if key in keys:
                self._wrong(f"{where}.keys lists {key.key_id} twice", "keep one")
            keys.append(key)
        if len(keys) > MAX_KEYS:
            self._wrong(f"{where}.keys lists {len(keys)} keys", f"keep at most {MAX_KEYS}")
        return tuple(keys)

    def _names(self, where: str, value: Any) -> tuple[str, ...]:
        names = self._texts(f"{where}.names", value, 'names = ["acme_*"]')
        for name in names:
            if not _PATTERN.match(name):
                self._wrong(f"{where}.names: {name!r} fits no agent name", "use a-z, 0-9, '_' and '*'")
        return tuple(names)

    def _capabilities(self, where: str, table: Mapping[str, Any]) -> frozenset[str] | None:
        if "capabilities" not in table:
            return None
        value = table["capabilities"]
        if value == []:
            return frozenset()
        names = self._texts(f"{where}.capabilities", value, 'capabilities = ["net", "time"]')
        for name in names:
            if name not in CAPABILITIES:
                self._wrong(
                    f"{where}.capabilities: there is no capability {name!r}",
                    f"known: {', '.join(CAPABILITIES)}",
                )
        return frozenset(names)

    def _expires(self, where: str, value: Any) -> int | None:
        if value is None:
            return None
        if isinstance(value, datetime.datetime) and value.tzinfo is not None:
            return int(value.timestamp() * 1000)
        if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
            return int(datetime.datetime.combine(value, datetime.time(), datetime.UTC).timestamp() * 1000)
        self._wrong(
            f"{where}.expires cannot be {str(value)!r}",
            "write a date, as 2027-01-31, or a time with its offset",
        )
        return None

    def _revoked(self, value: Any) -> tuple[Revocation, ...]:
        if not isinstance(value, list):
            self._wrong("'revoked' must be a list of tables", "write [[revoked]]")
            return ()
        return tuple(row for number, item in enumerate(value, 1) if (row := self._revocation(number, item)))

    def _revocation(self, number: int, item: Any) -> Revocation | None:
        where = f"revoked entry {number}"
        if not isinstance(item, dict):
            self._wrong(f"{where} must be a table", "write [[revoked]]")
            return None
        self._known(f"{where}: ", item, ("key", "bundle", "reason"))
        reason, key, bundle = item.get("reason"), item.get("key"), item.get("bundle")
        if not isinstance(reason, str) or not reason.strip():
            self._wrong(f"{where} has no reason", 'write reason = "…": a person will read it')
            reason = ""
        if (key is None) == (bundle is None):
            self._wrong(f"{where} must name a key or a bundle, and one of them", "split it in two")
            return None
        if bundle is not None and not (isinstance(bundle, str) and _DIGEST.match(bundle)):
            self._wrong(f"{where}: {bundle!r} is no bundle digest", "write its 64 hex digits")
        key_id = None if key is None else self._key_id(where, key)
        return Revocation(reason=reason, key_id=key_id, bundle=bundle)

    def _key_id(self, where: str, value: Any) -> str:
        """A key id as it is, or the id of a public key written out."""
        if isinstance(value, str) and _KEY_ID.match(value):
            return value
        try:
            return PublicKey.parse(value if isinstance(value, str) else "").key_id
        except UsageError:
            self._wrong(
                f"{where}: {value!r} is neither a key nor a key id", "write ed25519:… as 'rlp' showed it"
            )
            return ""

    def _one_owner(self, anchors: Mapping[str, Anchor]) -> None:
        seen: dict[PublicKey, str] = {}
        for name, anchor in anchors.items():
            for key in anchor.keys:
                if seen.setdefault(key, name) != name:
                    self._wrong(
                        f"{seen[key]} and {name} share the key {key.key_id}", "a key belongs to one publisher"
                    )

    def _texts(self, where: str, value: Any, example: str) -> list[str]:
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return value
        self._wrong(f"{where} must be a list of texts with at least one", f"write {example}")
        return []

    def _known(self, where: str, table: Mapping[str, Any], known: Sequence[str]) -> None:
        for key in table:
            if key not in known:
                self._wrong(f"unknown key {where + key!r}", f"known: {', '.join(known)}")

    def _wrong(self, what: str, fix: str) -> None:
        self.findings.append(f"{what}; {fix}")

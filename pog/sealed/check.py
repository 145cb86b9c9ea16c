"""Is a sealed file what was sealed? Every byte of it is looked at, and what is wrong is named by its place.

Knows: the order in which a stranger's file may be believed: first its form, then the manifest by its
signature, then each member by its digest, then each event by its own hash and link, then the head they lie
under. Holds everything in memory, writes nothing, executes nothing, asks no ledger and no trust store. Does
not know: whether the guests would do the same again (``runloopd.verify``), or whose key it is: it says which
one.

What a good file proves: these are the bytes that the holder of the key sealed; every event has the content
its hash was taken of, and names the event before it; the head was signed with that key. What it does not
prove: that the events in between, of which only hashes are here, say what their owner says they do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from pog.chain import GENESIS, Row, decode_row, head_statement
from pog.errors import LedgerCorruptError
from pog.sealed.lines import column_line, columns_of, read_line, relinked
from pog.sealed.seal import MAX_CHAIN, Content, manifest_of, named_blobs, seal_statement
from runloop.digest import blob_digest, canonical
from runloop.errors import NotFoundError, RunloopError
from runloop.events import Event, RunStarted
from runloop.sealed.container import (
    BLOBS,
    BUNDLES,
    CHAIN,
    COLUMNS,
    EVENTS,
    FORMAT,
    MANIFEST,
    SIGNATURE,
    VERSION,
    Manifest,
    SealedError,
    Signature,
    Slices,
    bundle_files,
    read_strict,
    take_apart,
)

__all__ = ["Examined", "Finding", "Sealed", "examine", "fingerprint", "opened"]

MAX_FINDINGS = 100
MAX_LOCATED = 1_000_000
"""Lines in which damage is looked for column by column."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that is not as it was sealed, and where."""

    what: str
    member: str = ""
    """Empty: the container."""
    offset: int | None = None
    """Of the file; in a damaged member the first bad block of 4096 bytes begins there."""
    event: int | None = None
    column: str | None = None
    blob: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Every field."""
        return {name: getattr(self, name) for name in Finding.__dataclass_fields__}


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A file without findings."""

    manifest: Manifest
    content: Content
    key: str
    """The public key that sealed it, in hex."""

    def blob(self, digest: str) -> bytes:
        """The bytes behind a digest; raises :class:`NotFoundError`."""
        found = self.content.blobs.get(digest)
        if found is None:
            raise NotFoundError(f"the sealed file has no bytes {digest[:16]}", code="blob.absent")
        return found


@dataclass(frozen=True, kw_only=True)
class Examined:
    """How it went."""

    findings: Sequence[Finding]
    sealed: Sealed | None
    """None as soon as anything was found."""


def fingerprint(key: str) -> str:
    """What people compare: 32 hex digits in groups of four."""
    text = blob_digest(bytes.fromhex(key))[:32]
    return ":".join(text[at : at + 4] for at in range(0, len(text), 4))


def opened(data: bytes) -> Sealed:
    """The file, if all of it is good. Raises :class:`SealedError` with the first finding."""
    examined = examine(data)
    if examined.sealed is None:
        first = examined.findings[0]
        raise SealedError(first.what, hint="rlp verify FILE", **first.to_json())
    return examined.sealed


def examine(data: bytes) -> Examined:
    """Look at every byte. Never raises for anything a file can hold."""
    check = _Check()
    try:
        sealed = check.whole(take_apart(data))
    except SealedError as error:
        place = {name: error.data.get(name) for name in ("offset", "event", "column", "blob")}
        check.found(error.message, member=str(error.data.get("member", "")), **place)
        sealed = None
    return Examined(findings=check.findings, sealed=sealed if not check.findings else None)


class _Check:
    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def found(self, what: str, **place: Any) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(what=what, **place))

    def whole(self, slices: Slices) -> Sealed | None:
        manifest, key = self._manifest(slices)
        if manifest is None:
            return None
        self._members(manifest, slices)
        if self.findings:
            return None
        rows, events = self._events(slices)
        if self.findings:
            return None
        content = Content(
            run=manifest.run,
            runs=manifest.runs,
            rows=rows,
            events=events,
            blobs={name: bytes(body) for name, body in _below(slices, BLOBS)},
            bundles={
                name.removesuffix(".tar"): bundle_files(body, BUNDLES + name, slices.offsets[BUNDLES + name])
                for name, body in _below(slices, BUNDLES)
            },
            chain=_hashes(slices.bodies[CHAIN]),
            head=manifest.head,
            prices=manifest.prices,
            redacted=manifest.redacted,
        )
        self._links(content, key)
        self._blobs(content)
        self._agrees(content, manifest)
        return None if self.findings else Sealed(manifest=manifest, content=content, key=key)

    # --- whom to believe --------------------------------------------------------------------------

    def _manifest(self, slices: Slices) -> tuple[Manifest | None, str]:
        """The manifest, by its signature. Which of the two was changed is told where it can be."""
        if [*slices.bodies][:2] != [MANIFEST, SIGNATURE]:
            raise SealedError(f"the file does not begin with {MANIFEST} and {SIGNATURE}", offset=0)
        signature: Signature = read_strict(slices, SIGNATURE, Signature)
        body = bytes(slices.bodies[MANIFEST])
        at = slices.offsets
        holds = _signed(signature.public_key, signature.signature, seal_statement(body))
        if not holds:
            if signature.manifest == blob_digest(body):
                self.found(
                    "the signature, or the key it names, was changed", member=SIGNATURE, offset=at[SIGNATURE]
                )
            else:
                self.found(
                    "the manifest is not the one that was signed", member=MANIFEST, offset=at[MANIFEST]
                )
            return None, ""
        if signature.manifest != blob_digest(body):
            self.found("it names another manifest", member=SIGNATURE, offset=at[SIGNATURE])
            return None, ""
        manifest: Manifest = read_strict(slices, MANIFEST, Manifest)
        if (manifest.format, manifest.version) != (FORMAT, VERSION):
            raise SealedError(
                f"it is {manifest.format} {manifest.version}; this build reads {FORMAT} {VERSION}",
                member=MANIFEST,
                code="sealed.version",
            )
        return manifest, signature.public_key

    def _members(self, manifest: Manifest, slices: Slices) -> None:
        named = [entry.name for entry in manifest.members]
        there = [*slices.bodies][2:]
        if named[-3:] != [CHAIN, COLUMNS, EVENTS]:
            self.found("it does not list the members that a sealed run has", member=MANIFEST)
            return
        if named != there:
            odd = next((have for have, want in zip(there, named, strict=False) if have != want), None)
            odd = odd or (there[len(named)] if len(there) > len(named) else "")
            what = f"{odd} is not the member that belongs there" if odd else "members are missing at its end"
            self.found(what, member=odd, offset=slices.offsets.get(odd))
            return
        for entry in manifest.members:
            body = slices.bodies[entry.name]
            if len(body) != entry.size or blob_digest(bytes(body)) != entry.digest:
                offset = slices.offsets[entry.name] + entry.damage(body)
                self._locate(entry.name, body, offset, slices)

    def _locate(self, name: str, body: memoryview, offset: int, slices: Slices) -> None:
        """Where in a member whose digest is wrong the damage is, as well as its content tells."""
        if name == EVENTS:
            self._locate_event(body, offset, slices)
        elif name.startswith(BLOBS):
            blob = name.removeprefix(BLOBS)
            self.found("these bytes were changed", member=name, offset=offset, blob=blob)
        else:
            self.found(f"{name} was changed", member=name, offset=offset)

    def _locate_event(self, body: memoryview, offset: int, slices: Slices) -> None:
        """Which column of which event differs from what ``columns.txt`` says of it."""
        before = len(self.findings)
        at = slices.offsets[EVENTS]
        pairs = zip(_lines(bytes(body)), _lines(bytes(slices.bodies[COLUMNS])), strict=False)
        for line, checks in islice(pairs, MAX_LOCATED):
            if len(self.findings) >= MAX_FINDINGS:
                return
            number, _, wanted = checks.partition(b" ")
            event = int(number) if number.isdigit() and len(number) < 20 else None
            try:
                cells = msgspec.json.decode(line) if line else []
                now = columns_of(cells) if isinstance(cells, list) else []
            except (msgspec.DecodeError, RunloopError, ValueError, RecursionError):
                now = []
            want = [wanted[i : i + 8].decode("ascii", "replace") for i in range(0, len(wanted), 8)]
            place = {"member": EVENTS, "offset": at, "event": event}
            if len(now) != len(want):
                self.found("its line is not what was written", **place)
            for column, has, should in zip(Row._fields, now, want, strict=False):
                if len(now) == len(want) and has != should:
                    self.found(f"{column} is not what was written", **place, column=column)
            at += len(line) + 1
        if len(self.findings) == before:
            self.found("its lines are not spelled as they were", member=EVENTS, offset=offset)

    # --- what happened ----------------------------------------------------------------------------

    def _events(self, slices: Slices) -> tuple[list[Row], list[Event]]:
        rows: list[Row] = []
        events: list[Event] = []
        body = bytes(slices.bodies[EVENTS])
        at = slices.offsets[EVENTS]
        if not body.endswith(b"\n"):
            self.found("its last line has no end", member=EVENTS, offset=at)
            return rows, events
        for number, line in enumerate(_lines(body[:-1])):
            row, column = read_line(line)
            if row is None or (rows and row.id <= rows[-1].id):
                what = f"line {number + 1} is no row of a ledger, or not in its place"
                self.found(what, member=EVENTS, offset=at, column=column or None)
                return rows, events
            rows.append(row)
            try:
                events.append(decode_row(row))
            except LedgerCorruptError as error:
                self.found(error.message, member=EVENTS, offset=at, event=row.id, column="payload")
            at += len(line) + 1
        if "".join(map(column_line, rows)).encode() != bytes(slices.bodies[COLUMNS]):
            self.found("it does not fit the events", member=COLUMNS, offset=slices.offsets[COLUMNS])
        return rows, events

    def _links(self, content: Content, key: str) -> None:
        """Each event's hash is that of its content, each names the one before it, and the head is signed."""
        chain, first = content.chain, content.rows[0].id
        redacted = content.redacted is not None
        previous = GENESIS
        for row in content.rows:
            place: dict[str, Any] = {"member": EVENTS, "event": row.id}
            if relinked(row, row.prev_hash) != row.hash:
                self.found("its hash is not that of its content", **place, column="hash")
            if redacted:
                follows = row.prev_hash == previous
                previous = row.hash
            else:
                index = row.id - first
                if index >= len(chain) or chain[index] != row.hash:
                    self.found("the chain has another hash in its place", **place, column="hash")
                    return
                follows = index == 0 or row.prev_hash == chain[index - 1]
            if not follows:
                self.found("it does not follow the event before it", **place, column="prev_hash")
        self._head(content, key)

    def _head(self, content: Content, key: str) -> None:
        head, chain = content.head, content.chain
        if content.redacted is not None:
            if chain or head.signature is not None or head.public_key is not None:
                self.found("a redacted run has no chain and no signed head", member=CHAIN)
            return
        length = head.id - content.rows[0].id + 1
        if len(chain) != length or len(chain) > MAX_CHAIN or chain[-1].hex() != head.hash:
            self.found("the chain does not lead to the head", member=CHAIN)
        elif head.public_key != key:
            self.found("the head was signed with another key than the file", member=MANIFEST)
        else:
            try:
                statement = head_statement(head.id, bytes.fromhex(head.hash), head.ts_ms)
            except (ValueError, OverflowError):
                statement = b""
            if not _signed(key, head.signature or "", statement):
                self.found("the head is not signed with the key it names", member=MANIFEST)

    def _blobs(self, content: Content) -> None:
        named = {name: event for event in content.events for name in named_blobs(event)}
        for name, data in content.blobs.items():
            if blob_digest(data) != name:
                self.found("these bytes have another digest", member=BLOBS + name, blob=name)
            elif name not in named:
                self.found("no event names these bytes", member=BLOBS + name, blob=name)
        for name, event in named.items():
            if name not in content.blobs:
                self.found("the bytes it names are missing", member=EVENTS, event=event.id, blob=name)

    def _agrees(self, content: Content, manifest: Manifest) -> None:
        """The manifest says of the events what they say themselves, and the runs are one tree."""
        if [*dict.fromkeys(event.run for event in content.events)] != manifest.runs:
            self.found("its runs are not those of the events", member=MANIFEST)
            return
        for name in content.bundles.keys() - {agent.bundle for agent in manifest.agents}:
            self.found("no run names this agent", member=f"{BUNDLES}{name}.tar")
        for event in content.events:
            parent = event.payload.parent if isinstance(event.payload, RunStarted) else None
            nested = event.run != manifest.run
            if isinstance(event.payload, RunStarted) and nested != (parent is not None):
                self.found("a run that is not nested in it lies in the file", member=EVENTS, event=event.id)
            elif parent is not None and (parent.root != manifest.run or parent.run not in manifest.runs):
                self.found("a run of another tree lies in the file", member=EVENTS, event=event.id)
        try:
            wanted = msgspec.to_builtins(manifest_of(content, manifest.members, manifest.sealed_by))
        except RunloopError as error:
            self.found(error.message, member=EVENTS)
            return
        said = msgspec.to_builtins(manifest)
        for name, value in wanted.items():
            if canonical(value) != canonical(said[name]):
                self.found(f"its '{name}' is not what the events say", member=MANIFEST)


def _below(slices: Slices, prefix: str) -> list[tuple[str, memoryview]]:
    return [
        (name.removeprefix(prefix), body) for name, body in slices.bodies.items() if name.startswith(prefix)
    ]


def _lines(data: bytes) -> Iterator[bytes]:
    """As ``split`` gives them, one at a time: a file of nothing but line ends would be many gigabytes."""
    at = 0
    while (end := data.find(b"\n", at)) >= 0:
        yield data[at:end]
        at = end + 1
    yield data[at:]


def _hashes(body: memoryview) -> list[bytes]:
    return [bytes(body[at : at + 32]) for at in range(0, len(body), 32)]


def _signed(key: str, signature: str, statement: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        public.verify(bytes.fromhex(signature), statement)
    except (InvalidSignature, ValueError):
        return False
    return bytes.fromhex(key).hex() == key and bytes.fromhex(signature).hex() == signature

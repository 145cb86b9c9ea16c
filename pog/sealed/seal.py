"""A run, and every run nested in it, taken out of the ledger into one file.

Knows: what of the ledger belongs in the file, and which signed head the run lies under. Does not know: the
file's form (``runloop.sealed.container``), where bundles or keys lie (they are handed in). Reads only; the
same ledger gives the same bytes.

What lies between the run's events is not the stranger's to see: of every other event up to the signed head
only its hash goes along. That is a commitment, not a proof: see docs/adr/0017-sealed-run.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from pog.chain import Row, decode_row
from pog.reader import Reader
from pog.sealed.lines import column_line, to_lines
from runloop.digest import blob_digest, blob_hash, canonical, framed
from runloop.errors import FailedError, NotFoundError, UsageError
from runloop.events import AgentPin, Event, ModelCalled, RunFinished, RunStarted, TokenIssued
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
    AgentEntry,
    HeadEntry,
    Manifest,
    MemberEntry,
    Signature,
    bundle_tar,
    write_container,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = [
    "MAX_CHAIN",
    "Bundles",
    "Content",
    "Prices",
    "manifest_of",
    "named_blobs",
    "pack",
    "read_run",
    "seal_statement",
]

MAX_CHAIN = 4_000_000
"""Events from the first of the run to the signed head."""
_DOMAIN = b"runloop.sealed.run.v1"

Bundles = Callable[[str], Mapping[str, bytes] | None]
"""Bundle digest -> its files, or None where they are gone."""
Prices = Callable[[str, str], Mapping[str, Any] | None]
"""Provider and price version -> the price, or None where it is not known (any more)."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """All that goes into the file."""

    run: str
    runs: Sequence[str]
    rows: Sequence[Row]
    """Of all the runs, by id."""
    events: Sequence[Event]
    """``rows``, read."""
    blobs: Mapping[str, bytes]
    bundles: Mapping[str, Mapping[str, bytes]]
    chain: Sequence[bytes]
    """Hash of every event from the first row's to the head; empty in a redacted file."""
    head: HeadEntry
    prices: Sequence[Mapping[str, Any]] = ()
    redacted: Mapping[str, Any] | None = None


def seal_statement(manifest: bytes) -> bytes:
    """What the ledger's key signs: never to be taken for a signed head."""
    return framed(_DOMAIN, blob_hash(manifest))


def read_run(reader: Reader, run: str, *, bundles: Bundles, prices: Prices) -> Content:
    """Everything there is of a finished run, and of the runs nested in it.

    Raises :class:`UsageError` for a run that is nested in another or goes on, :class:`FailedError` where no
    signed head is above it yet or too much lies in between, ``LedgerCorruptError`` where the ledger is
    damaged.
    """
    runs = [run, *reader.runs_below(run)]
    rows = sorted((row for name in runs for row in reader.rows(run=name)), key=lambda row: row.id)
    events = [decode_row(row) for row in rows]
    _check(run, events)
    head = reader.signed_head_above(rows[-1].id)
    if head is None:
        raise FailedError(
            f"no signed head of the ledger is above run {run} yet",
            hint="'rlp daemon stop' signs one; then try again",
            code="seal.head",
        )
    if head.id - rows[0].id >= MAX_CHAIN:
        raise FailedError(
            f"{head.id - rows[0].id} events lie between the run's first and the signed head",
            hint=f"at most {MAX_CHAIN} can go into a sealed file",
            code="seal.chain",
        )
    blobs: dict[str, bytes] = {}
    for event in events:
        for name in named_blobs(event):
            if name not in blobs:
                blobs[name] = _blob(reader, name, event)
    pins = _pins(events)
    carried = {digest: files for digest in sorted(pins) if (files := bundles(digest)) is not None}
    return Content(
        run=run,
        runs=runs,
        rows=rows,
        events=events,
        blobs=blobs,
        bundles=carried,
        chain=[*reader.hashes(rows[0].id, head.id)],
        head=HeadEntry(
            id=head.id,
            hash=head.hash.hex(),
            ts_ms=head.ts_ms,
            public_key=head.public_key.hex(),
            signature=head.signature.hex(),
        ),
        prices=_prices(events, prices),
    )


def named_blobs(event: Event) -> list[str]:
    """Digests of the bytes that an event's payload names."""
    fields = msgspec.to_builtins(event.payload)
    return [
        value
        for name, value in fields.items()
        if (name == "blob" or name.endswith("_blob")) and isinstance(value, str)
    ]


def pack(content: Content, *, build: str, key: Ed25519PrivateKey) -> bytes:
    """The file; ``key`` is the ledger's, which says that this is the run."""
    members = _members(content)
    entries = [MemberEntry.of(name, data) for name, data in members]
    text = canonical(msgspec.to_builtins(manifest_of(content, entries, build)))
    signature = Signature(
        manifest=blob_digest(text),
        public_key=key.public_key().public_bytes_raw().hex(),
        signature=key.sign(seal_statement(text)).hex(),
    )
    signed = canonical(msgspec.to_builtins(signature))
    return write_container([(MANIFEST, text), (SIGNATURE, signed), *members])


def manifest_of(content: Content, members: list[MemberEntry], build: str) -> Manifest:
    """What the manifest says of this content. Raises :class:`UsageError` where the run has no beginning or
    end."""
    own = [event.payload for event in content.events if event.run == content.run]
    started = next((it for it in own if isinstance(it, RunStarted)), None)
    finished = next((it for it in own if isinstance(it, RunFinished)), None)
    if started is None or finished is None:
        raise UsageError(f"run {content.run} does not begin and end", code="seal.unfinished")
    return Manifest(
        format=FORMAT,
        version=VERSION,
        sealed_by=build,
        run=content.run,
        runs=[*content.runs],
        opening=started.opening,
        outcome=finished.outcome,
        events=len(content.rows),
        first=content.rows[0].id,
        head=content.head,
        engine=started.engine,
        policy=started.policy,
        tokens=_tokens(content.events),
        prices=[dict(price) for price in content.prices],
        agents=[
            AgentEntry(
                bundle=digest,
                name=pin.name,
                version=pin.version,
                language=pin.language,
                component=pin.component_digest,
                carried=digest in content.bundles,
            )
            for digest, pin in sorted(_pins(content.events).items())
        ],
        redacted=None if content.redacted is None else dict(content.redacted),
        members=members,
    )


def _members(content: Content) -> list[tuple[str, bytes]]:
    return [
        *((BLOBS + digest, data) for digest, data in sorted(content.blobs.items())),
        *((f"{BUNDLES}{digest}.tar", bundle_tar(files)) for digest, files in sorted(content.bundles.items())),
        (CHAIN, b"".join(content.chain)),
        (COLUMNS, "".join(map(column_line, content.rows)).encode()),
        (EVENTS, to_lines(content.rows)),
    ]


def _check(run: str, events: Sequence[Event]) -> None:
    if not events:
        raise NotFoundError(f"no run {run}", hint="'rlp runs' lists them", code="run.absent")
    first = next(event for event in events if event.run == run)
    if isinstance(first.payload, RunStarted) and first.payload.parent is not None:
        raise UsageError(
            f"run {run} is nested in another and means nothing without it",
            hint=f"rlp export-run {first.payload.parent.root}",
            code="seal.nested",
        )
    if not any(isinstance(event.payload, RunFinished) for event in events if event.run == run):
        raise UsageError(
            f"run {run} is not over",
            hint=f"wait for its end, or end it: rlp cancel {run}",
            code="seal.unfinished",
        )


def _blob(reader: Reader, name: str, event: Event) -> bytes:
    try:
        return reader.blob(name)
    except NotFoundError as error:
        raise FailedError(
            f"the bytes {name[:16]} that event {event.id} ({event.kind}) names are not in this ledger",
            hint="restore a backup that has them, or seal the run where it was made",
            code="seal.blob",
            event=event.id,
        ) from error


def _pins(events: Iterable[Event]) -> dict[str, AgentPin]:
    """Bundle digest -> a pin of it."""
    return {
        pin.bundle_digest: pin
        for event in events
        if isinstance(event.payload, RunStarted)
        for pin in event.payload.agents.values()
    }


def _tokens(events: Iterable[Event]) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(event.payload) for event in events if isinstance(event.payload, TokenIssued)]


def _prices(events: Iterable[Event], prices: Prices) -> list[dict[str, Any]]:
    used = {
        (event.payload.provider, event.payload.price_version)
        for event in events
        if isinstance(event.payload, ModelCalled)
    }
    rows = []
    for provider, version in sorted(used):
        known = prices(provider, version)
        fields = ("input_micro_usd_per_mtok", "output_micro_usd_per_mtok")
        rows.append(
            {"provider": provider, "version": version}
            | {name: None if known is None else known[name] for name in fields}
        )
    return rows

"""The sealed file's outermost form: which members, in which order, under which names, how large.

An uncompressed ustar in the one spelling of ``runloop.bundle.tar``: nothing is ever unpacked, so there is
nothing to blow up, and no byte of it is free: a header has one form, padding is zero, what follows the end is
refused.

    manifest.json              what this is, and the digest of every member behind the signature
    signature.json             the ledger key's word for the manifest
    blobs/<digest>             exact bytes that events name
    bundles/<digest>.tar       every file of a pinned agent, as in the agent's own bundle
    chain.bin                  32 bytes for each event from the first of the run to the signed head
    columns.txt                short digests of every column of every event: says where damage is
    events.jsonl               the stored rows, one canonical JSON array a line

Knows: that, and the bounds. Does not know: what an event is, or whom to believe (``sealed.check``). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from runloop.bundle.archive import content_tar
from runloop.bundle.digest import bundle_digest
from runloop.bundle.tar import BLOCK, ArchiveError, Bounds, Data, read_tar, write_tar
from runloop.digest import blob_digest, canonical
from runloop.errors import DivergenceError, RunloopError

__all__ = [
    "BLOBS",
    "BUNDLES",
    "CHAIN",
    "COLUMNS",
    "EVENTS",
    "FORMAT",
    "MANIFEST",
    "MAX_SEALED_BYTES",
    "SIGNATURE",
    "SUFFIX",
    "VERSION",
    "AgentEntry",
    "HeadEntry",
    "Manifest",
    "MemberEntry",
    "SealedError",
    "Signature",
    "Slices",
    "bundle_files",
    "bundle_tar",
    "read_strict",
    "take_apart",
    "write_container",
]

SUFFIX = ".rlrun"
FORMAT = "runloop.sealed"
VERSION = 1
MANIFEST, SIGNATURE = "manifest.json", "signature.json"
CHAIN, COLUMNS, EVENTS = "chain.bin", "columns.txt", "events.jsonl"
BLOBS, BUNDLES = "blobs/", "bundles/"

MAX_SEALED_BYTES = 512 * 1024 * 1024
CHECKED = 4_096
"""Bytes that damage is narrowed down to."""
MAX_MEMBERS = 200_000
MAX_MANIFEST_BYTES = 64 * 1024 * 1024
_BOUNDS = Bounds(files=MAX_MEMBERS, file_bytes=256 * 1024 * 1024, total_bytes=MAX_SEALED_BYTES)


class SealedError(DivergenceError):
    """This is no sealed run, or not the one that was sealed. ``data`` names the place."""

    code: ClassVar[str] = "sealed.damaged"


class MemberEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A member. The blocks only say where damage is; what is believed rests on the digest."""

    name: str
    size: int
    digest: str
    """BLAKE3 of the whole."""
    blocks: list[str]
    """Eight hex digits for each :data:`CHECKED` bytes; none for a member of one block."""

    @classmethod
    def of(cls, name: str, data: Data) -> MemberEntry:
        """The entry of these bytes."""
        starts = range(0, len(data), CHECKED) if len(data) > CHECKED else ()
        blocks = [blob_digest(bytes(data[at : at + CHECKED]))[:8] for at in starts]
        return cls(name, len(data), blob_digest(bytes(data)), blocks)

    def damage(self, data: Data) -> int:
        """Where in a damaged body the first bad block begins."""
        now = MemberEntry.of(self.name, data).blocks
        pairs = zip(self.blocks, now, strict=False)
        return next((number * CHECKED for number, (was, is_) in enumerate(pairs) if was != is_), 0)


class HeadEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signed checkpoint of the ledger; of a redacted file the one of its original, without the
    signature."""

    id: int
    hash: str
    ts_ms: int
    public_key: str | None
    signature: str | None


class AgentEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pinned agent. Its files are in the file; the runner that executes source is not."""

    bundle: str
    name: str
    version: str
    language: str
    component: str
    """Digest of the WebAssembly component that executes it: who re-executes must have exactly this one."""
    carried: bool
    """Whether its files are members; False: they were gone when the run was sealed."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``manifest.json``, canonical."""

    format: str
    version: int
    sealed_by: str
    """Version of Runloop that made the file."""
    run: str
    runs: list[str]
    """The run and those nested in it, in the order they started."""
    opening: str
    outcome: str
    events: int
    first: int
    """Ledger id of the run's first event."""
    head: HeadEntry
    engine: dict[str, Any]
    policy: dict[str, Any]
    """Effective limits and quotas, as ``run.started`` has them."""
    tokens: list[dict[str, Any]]
    """``{token, parent, holder, grants, expires_ms}`` of every token of the run."""
    prices: list[dict[str, Any]]
    """``{provider, version, input_micro_usd_per_mtok, output_micro_usd_per_mtok}`` of every model that
    answered; null where the configuration of that version was gone."""
    agents: list[AgentEntry]
    redacted: dict[str, Any] | None
    """What was replaced, never by what: see docs/howto/share-a-run.md. None: the exact record."""
    members: list[MemberEntry]
    """Every other member behind ``signature.json``, in order."""


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``signature.json``, canonical."""

    manifest: str
    """BLAKE3 of ``manifest.json``."""
    public_key: str
    signature: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Slices:
    """The members of a container as they lie in it; nothing of them is believed yet."""

    bodies: dict[str, memoryview]
    """In the file's order."""
    offsets: dict[str, int]
    """Name -> where its body begins in the file."""


def write_container(members: Iterable[tuple[str, bytes]]) -> bytes:
    """The one file of these members in this order; raises :class:`SealedError` for what is too much."""
    try:
        return write_tar(members, bounds=_BOUNDS)
    except ArchiveError as error:
        raise _refused(error) from error


def bundle_tar(files: Mapping[str, bytes]) -> bytes:
    """An agent's files as the one member that holds them."""
    return content_tar(files)


def bundle_files(body: memoryview, name: str, at: int) -> dict[str, bytes]:
    """The files of the member ``name``, which begins at byte ``at``; raises :class:`SealedError` when they
    are not the bundle that it is named after."""
    try:
        members = read_tar(body)
        names = [path for path, _ in members]
        if names != sorted(names, key=str.encode):
            raise ArchiveError("archive.order", "files are sorted by name")
    except ArchiveError as error:
        raise _refused(error, inside=name, at=at) from error
    files = {path: bytes(data) for path, data in members}
    if f"{BUNDLES}{bundle_digest(files)}.tar" != name:
        raise SealedError(f"{name} does not hold the bundle it is named after", member=name, offset=at)
    return files


def take_apart(data: bytes) -> Slices:
    """The members. Raises :class:`SealedError` with the offset of the first byte that cannot be."""
    if len(data) > MAX_SEALED_BYTES:
        raise SealedError(
            f"the file has {len(data)} bytes; a sealed run has at most {MAX_SEALED_BYTES}",
            hint="seal a smaller run",
            code="archive.total_size",
        )
    try:
        members = read_tar(data, bounds=_BOUNDS)
    except ArchiveError as error:
        raise _refused(error) from error
    bodies: dict[str, memoryview] = {}
    offsets: dict[str, int] = {}
    at = 0
    for name, body in members:
        bodies[name], offsets[name] = body, at + BLOCK
        at += BLOCK + len(body) + -len(body) % BLOCK
    return Slices(bodies=bodies, offsets=offsets)


def read_strict(slices: Slices, name: str, made: type[msgspec.Struct]) -> Any:
    """A canonical JSON member as its type; raises :class:`SealedError` for every other spelling."""
    body, at = slices.bodies[name], slices.offsets[name]
    try:
        if len(body) > MAX_MANIFEST_BYTES:
            raise ValueError(f"it is larger than {MAX_MANIFEST_BYTES} bytes")
        value = msgspec.json.decode(body, type=made)
        if canonical(msgspec.to_builtins(value)) != body:
            raise ValueError("it is not in canonical form")
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError, RunloopError) as error:
        raise SealedError(
            f"{name} cannot be read: {str(error)[:200]}",
            hint="fetch the file again from whoever sealed it",
            member=name,
            offset=at,
        ) from error
    return value


def _refused(error: ArchiveError, *, inside: str = "", at: int = 0) -> SealedError:
    what = error.message.removeprefix("the archive is refused: ")
    where = f"{inside} is no whole bundle" if inside else "the file is no whole sealed run"
    return SealedError(
        f"{where}: {what}, at byte {at + error.at}",
        hint="fetch the file again from whoever sealed it",
        code=error.named_code,
        offset=at + error.at,
        member=inside or str(error.data.get("member", "")),
    )

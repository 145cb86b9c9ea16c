"""A bundle's one file, ``NAME-VERSION.rlb``: attestations and files, in the only bytes these can have.

An uncompressed ustar with two members: ``attestations.jsonl`` (one DSSE envelope per line) and ``bundle.tar``
(the files, sorted by their UTF-8). Knows: that layout, and that whatever is read is packed again and
compared. Does not know: whether a signature holds (``bundle.signature``) or whom to believe
(``bundle.trust``). Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runloop.bundle.content import check_content
from runloop.bundle.digest import MAX_BUNDLE_BYTES, MAX_FILES, bundle_digest
from runloop.bundle.manifest import Manifest
from runloop.bundle.signature import Envelope, EnvelopeError
from runloop.bundle.tar import ArchiveError, Bounds, Data, is_tar_of, read_tar, write_tar

__all__ = ["MAX_ARCHIVE_BYTES", "SUFFIX", "ArchiveError", "Package", "archive_name", "pack", "unpack"]

SUFFIX = ".rlb"
ATTESTATIONS = "attestations.jsonl"
CONTENT = "bundle.tar"
MAX_ATTESTATIONS = 8
MAX_ATTESTATION_BYTES = 262_144
MAX_TAR_BYTES = MAX_BUNDLE_BYTES + 1024 * (MAX_FILES + 1)
"""Every file, with its header and its padding."""
MAX_ARCHIVE_BYTES = MAX_TAR_BYTES + MAX_ATTESTATION_BYTES + 4096

_OUTER = Bounds(files=2, file_bytes=MAX_TAR_BYTES, total_bytes=MAX_ARCHIVE_BYTES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """What an archive holds, whole and well formed; not yet believed."""

    files: Mapping[str, bytes]
    """Path with ``/`` -> bytes, sorted by UTF-8."""
    bundle_digest: str
    """BLAKE3 over every file: the identity of the bundle (``bundle.digest``)."""
    tar_sha256: str
    """SHA-256 of ``bundle.tar``, for programs that are not ours."""
    envelopes: tuple[Envelope, ...]
    """In the order of the archive; each with no signature or with one."""


def pack(files: Mapping[str, bytes], envelopes: Sequence[Envelope] = ()) -> bytes:
    """The bytes of the ``.rlb``. Equal arguments give equal bytes, everywhere and always.

    Raises :class:`ArchiveError` or :class:`ContentError` for whatever :func:`unpack` would refuse.
    """
    check_content(files)
    lines = b"".join(envelope.to_line() for envelope in envelopes)
    if len(envelopes) > MAX_ATTESTATIONS or len(lines) > MAX_ATTESTATION_BYTES:
        raise ArchiveError("archive.attestations", "too many")
    return write_tar([(ATTESTATIONS, lines), (CONTENT, content_tar(files))], bounds=_OUTER)


def content_tar(files: Mapping[str, bytes]) -> bytes:
    """The bytes of ``bundle.tar``: what the SHA-256 of a statement's subject is taken of."""
    return write_tar(sorted(files.items(), key=_by_utf8))


def unpack(data: bytes, *, bounds: Bounds | None = None) -> Package:
    """Read an archive in memory, strictly; stops at the first fault. ``bounds`` may be lower ones.

    Raises :class:`ArchiveError` with a code of its own for each kind of fault (``bundle.tar.FAULTS``), and
    :class:`ContentError` for contents no bundle may have. Believe nothing of the answer before
    ``bundle.trust.judge`` has spoken.
    """
    if len(data) > MAX_ARCHIVE_BYTES:
        raise ArchiveError("archive.total_size", f"{len(data)} bytes, {MAX_ARCHIVE_BYTES} are allowed")
    attestations, tar = _members(data)
    files = read_tar(tar, bounds=bounds)
    names = [name for name, _ in files]
    if names != sorted(names, key=str.encode):
        raise ArchiveError("archive.order", "files are sorted by name")
    envelopes = _envelopes(attestations)
    made = {name: bytes(body) for name, body in files}
    # Every rule above already forces this; should one of them ever be wrong, this line is not.
    lines = b"".join(envelope.to_line() for envelope in envelopes)
    outer: list[tuple[str, Data]] = [(ATTESTATIONS, lines), (CONTENT, tar)]
    if not is_tar_of(made.items(), tar) or not is_tar_of(outer, data):
        raise ArchiveError("archive.canonical")
    check_content(made)
    return Package(
        files=made,
        bundle_digest=bundle_digest(made),
        tar_sha256=hashlib.sha256(tar).hexdigest(),
        envelopes=envelopes,
    )


def archive_name(manifest: Manifest) -> str:
    """``NAME-VERSION.rlb``, or ``NAME-VERSION-VARIANT.rlb`` for a variant other than ``default``."""
    variant = "" if manifest.variant == "default" else f"-{manifest.variant}"
    return f"{manifest.name}-{manifest.version}{variant}{SUFFIX}"


def _members(data: bytes) -> tuple[bytes, memoryview]:
    members = read_tar(data, bounds=_OUTER)
    names = [name for name, _ in members]
    if names == [CONTENT, ATTESTATIONS]:
        raise ArchiveError("archive.order", f"{ATTESTATIONS} comes first")
    if names != [ATTESTATIONS, CONTENT]:
        raise ArchiveError("archive.members", ", ".join(map(repr, names)) or "it is empty")
    (_, attestations), (_, tar) = members
    if len(attestations) > MAX_ATTESTATION_BYTES:
        raise ArchiveError("archive.attestations", f"more than {MAX_ATTESTATION_BYTES} bytes")
    return bytes(attestations), tar


def _envelopes(attestations: bytes) -> tuple[Envelope, ...]:
    *lines, rest = attestations.split(b"\n")
    if rest or len(lines) > MAX_ATTESTATIONS:
        raise ArchiveError("archive.attestations", f"at most {MAX_ATTESTATIONS} lines, each of them ended")
    try:
        return tuple(Envelope.from_line(line) for line in lines)
    except EnvelopeError as error:
        raise ArchiveError("archive.attestations", error.message) from error


def _by_utf8(item: tuple[str, bytes]) -> bytes:
    return item[0].encode()

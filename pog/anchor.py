"""The last signed head, kept outside the database's directory.

Knows: the anchor's file, and what it says about a ledger. Without it whoever can write the database alone may
change a row, chain everything anew and drop the signed heads: what is left looks like a ledger that was
never signed that far. Does not know: when a head is signed (``ledger``).
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pog.chain import head_statement
from pog.errors import LedgerCorruptError
from runloop.digest import canonical

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["Anchor", "read_anchor", "write_anchor"]

_MAX_BYTES = 4_096


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchor:
    """A signed head: the event's id and hash, when it was signed, and the signature."""

    id: int
    hash: bytes
    ts_ms: int
    signature: bytes

    def signed_by(self, key: Ed25519PublicKey) -> bool:
        """Whether ``key`` signed it."""
        from cryptography.exceptions import InvalidSignature

        try:
            key.verify(self.signature, head_statement(self.id, self.hash, self.ts_ms))
        except InvalidSignature:
            return False
        return True


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: int
    hash: str
    ts_ms: int
    signature: str


def read_anchor(path: Path) -> Anchor | None:
    """The anchor in ``path``; None where there is none.

    Raises :class:`LedgerCorruptError` for a file that is no anchor: it is written whole or not at all.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    try:
        read = msgspec.json.decode(os.read(file, _MAX_BYTES), type=_File)
        anchor = Anchor(
            id=read.id,
            hash=bytes.fromhex(read.hash),
            ts_ms=read.ts_ms,
            signature=bytes.fromhex(read.signature),
        )
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        raise _unreadable(path, error) from error
    finally:
        os.close(file)
    if not 0 < anchor.id < 2**63 or not 0 <= anchor.ts_ms < 2**63 or len(anchor.hash) != 32:
        raise _unreadable(path, "its values are out of range")
    return anchor


def write_anchor(path: Path, anchor: Anchor) -> None:
    """Put ``anchor`` in the place of what is there, whole or not at all; 0600. Raises OSError."""
    passing = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        passing.unlink()
    file = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fields = _File(
            id=anchor.id, hash=anchor.hash.hex(), ts_ms=anchor.ts_ms, signature=anchor.signature.hex()
        )
        os.write(file, canonical(msgspec.to_builtins(fields)) + b"\n")
        os.fsync(file)  # before the rename: a power cut must not leave an empty file under the name
    finally:
        os.close(file)
    passing.rename(path)


def _unreadable(path: Path, why: object) -> LedgerCorruptError:
    return LedgerCorruptError(f"{path} is no anchor of a ledger: {why}", hint="rlp verify")

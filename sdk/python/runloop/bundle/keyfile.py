"""Private keys on disk: PKCS #8 in PEM, which ``openssl`` reads, in a file that is its owner's alone.

Knows: how a key file is made and what makes one unsafe to use. Does not know: what is signed with it. Refuses
rather than repairs: a key that others could read may have leaked, and that is for a person to judge.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from runloop.bundle.signature import SigningKey
from runloop.errors import ConflictError, FailedError, NotFoundError, RefusedError

__all__ = ["DEV_KEY", "KeyFileError", "dev_key", "make_key", "read_key"]

DEV_KEY = "dev-signing.key"
"""Name of the author's own key, in the ``keys`` folder of the home."""

_MAX_BYTES = 4_096


class KeyFileError(RefusedError):
    """The file is not a private key that is safe to sign with. ``data["path"]`` names it."""

    code: ClassVar[str] = "key.unsafe"


def make_key(path: Path) -> SigningKey:
    """Write a fresh key to ``path`` with mode 0600, and return it.

    Raises :class:`ConflictError` when something is there already: a key is never overwritten.
    """
    key = SigningKey.generate()
    pem = key.private().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as out:
            os.fchmod(out.fileno(), 0o600)
            out.write(pem)
            out.flush()
            os.fsync(out.fileno())
    except FileExistsError as error:
        raise ConflictError(
            f"there is a file at {path} already",
            hint="choose another path; keys are never overwritten",
            code="key.exists",
        ) from error
    except OSError as error:
        raise FailedError(
            f"no key can be written to {path}: {error.strerror}",
            hint=f"make {path.parent} writable for yourself",
            code="key.write",
        ) from error
    return key


def read_key(path: Path) -> SigningKey:
    """The key in ``path``.

    Raises :class:`NotFoundError`, or :class:`KeyFileError` for a link, another owner, a mode that lets others
    in, a second name, or anything but an Ed25519 key without a passphrase.
    """
    pem = _read_private(path)
    try:
        found = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unsafe(
            path, "is not a private key in PEM without a passphrase", "see docs/howto/trust.md"
        ) from error
    if not isinstance(found, Ed25519PrivateKey):
        raise _unsafe(path, "is not an Ed25519 key", "make one: 'rlp agent key <file> <publisher>'")
    return SigningKey(found)


def dev_key(keys_dir: Path) -> SigningKey:
    """The author's own key of this home, made on first use. Safe when two programs ask at once.

    Raises like :func:`read_key` and :func:`make_key`.
    """
    path = keys_dir / DEV_KEY
    try:
        keys_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(keys_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _unsafe(
            keys_dir, f"is not a directory of its own: {error.strerror}", f"look at {keys_dir}"
        ) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # released when the descriptor is closed
        with suppress(ConflictError):
            make_key(path)
        return read_key(path)
    finally:
        os.close(folder)


def _read_private(path: Path) -> bytes:
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no key at {path}",
            hint="make one: 'rlp agent key <file> <publisher>'",
            code="key.missing",
        ) from error
    except OSError as error:
        raise _unsafe(path, f"cannot be opened: {error.strerror}", f"look at what {path} is") from error
    with os.fdopen(opened, "rb") as file:
        facts = os.fstat(file.fileno())
        mode = stat.S_IMODE(facts.st_mode)
        if not stat.S_ISREG(facts.st_mode):
            raise _unsafe(path, "is not a plain file", f"look at what {path} is")
        if facts.st_uid != os.geteuid():
            raise _unsafe(path, f"belongs to user {facts.st_uid}, not {os.geteuid()}", f"chown {path}")
        if mode & 0o177:
            raise _unsafe(path, f"has mode {mode:04o}; others may get at it", f"chmod 0600 {path}")
        if facts.st_nlink != 1:
            raise _unsafe(path, "has a second name (hard link)", f"find it: find / -xdev -samefile {path}")
        return file.read(_MAX_BYTES)


def _unsafe(path: Path, what: str, fix: str) -> KeyFileError:
    return KeyFileError(f"{path} {what}", hint=fix, path=str(path))

"""The daemon's own keys: made once, kept in one private directory, never shown.

Knows: where each key lies, who may own it, how it is made and read. Does not know what is signed with it.
Refuses, rather than repairs, a directory or file that somebody else could read or replace: a key that may
have leaked is for a person to judge.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runloop.errors import RefusedError

__all__ = ["KEY_BYTES", "Keyring", "KeyringError"]

KEY_BYTES = 32
_FILES = ("ledger.key", "token.key", "cache.key", "operator.key")


class KeyringError(RefusedError):
    """A key is not safe to use. ``data["path"]`` names it; the hint says how a person puts it right."""

    code: ClassVar[str] = "keyring.unsafe"


class Keyring:
    """Four keys of 32 bytes. Use :meth:`open`; the text form of a keyring shows no key."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        self._keys = keys

    @classmethod
    def open(cls, keys_dir: Path, *, entropy: Callable[[int], bytes] = os.urandom) -> Keyring:
        """Read the keys below ``keys_dir``, making directory (0700) and files (0600) that are missing.

        Safe when two daemons start at once: whoever comes second reads what the first one made. Raises
        :class:`KeyringError` for a symbolic or hard link, another owner, a mode that lets others in, a
        wrong length.
        """
        with suppress(FileExistsError):
            keys_dir.mkdir(mode=0o700, parents=True)
        try:
            directory = os.open(keys_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise KeyringError(
                f"{keys_dir} is not a directory of its own: {error.strerror}",
                hint=f"look at what {keys_dir} points to; keys must lie in a real directory",
                path=str(keys_dir),
            ) from error
        try:
            _refuse_unsafe(os.fstat(directory), keys_dir, directory=True)
            fcntl.flock(directory, fcntl.LOCK_EX)  # released when the descriptor is closed
            return cls({name: _read(directory, name, keys_dir, entropy) for name in _FILES})
        finally:
            os.close(directory)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keys)})"

    def __reduce__(self) -> str:
        raise TypeError("a keyring is not copied to other processes")

    @property
    def ledger_key(self) -> Ed25519PrivateKey:
        """Signs the head of the ledger."""
        return Ed25519PrivateKey.from_private_bytes(self._keys["ledger.key"])

    @property
    def token_key(self) -> bytes:
        """Ed25519 seed: the root of every capability token."""
        return self._keys["token.key"]

    @property
    def token_public(self) -> bytes:
        """32 bytes; all that verifying a token takes."""
        return Ed25519PrivateKey.from_private_bytes(self.token_key).public_key().public_bytes_raw()

    @property
    def cache_key(self) -> bytes:
        """Authenticates compiled modules in the cache."""
        return self._keys["cache.key"]

    def derived(self, purpose: str) -> bytes:
        """32 bytes of this home for one purpose; they tell nothing of any key."""
        return blake3(f"runloop {purpose} v1".encode(), key=self._keys["cache.key"]).digest()

    @property
    def operator_credential(self) -> bytes:
        """What an operator's client proves to hold."""
        return self._keys["operator.key"]


def _read(directory: int, name: str, keys_dir: Path, entropy: Callable[[int], bytes]) -> bytes:
    path = keys_dir / name
    try:
        file = _open(directory, name, path)
    except FileNotFoundError:
        _make(directory, name, entropy)
        file = _open(directory, name, path)
    try:
        facts = os.fstat(file)
        _refuse_unsafe(facts, path, directory=False)
        key = os.read(file, KEY_BYTES + 1)
    finally:
        os.close(file)
    if len(key) != KEY_BYTES:
        raise KeyringError(
            f"{path} has {facts.st_size} bytes instead of {KEY_BYTES}",
            hint="restore it from a backup; a new key would not verify what the old one signed",
            path=str(path),
        )
    return key


def _open(directory: int, name: str, path: Path) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyringError(
            f"{path} cannot be opened as a plain file: {error.strerror}",
            hint=f"look at what {path} points to",
            path=str(path),
        ) from error


def _make(directory: int, name: str, entropy: Callable[[int], bytes]) -> None:
    """Write a fresh key, whole or not at all. The directory is locked: nobody else is making one."""
    passing = f".{name}.new"
    with suppress(FileNotFoundError):
        os.unlink(passing, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(passing, flags, 0o600, dir_fd=directory)
    try:
        os.fchmod(file, 0o600)
        os.write(file, entropy(KEY_BYTES))
        os.fsync(file)
    finally:
        os.close(file)
    os.rename(passing, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def _refuse_unsafe(facts: os.stat_result, path: Path, *, directory: bool) -> None:
    wanted = 0o700 if directory else 0o600
    if not directory and not stat.S_ISREG(facts.st_mode):
        problem, hint = "is not a plain file", f"look at what {path} is"
    elif facts.st_uid != os.geteuid():
        problem, hint = f"belongs to user {facts.st_uid}, not {os.geteuid()}", f"chown {path}"
    elif stat.S_IMODE(facts.st_mode) & ~wanted:
        mode = stat.S_IMODE(facts.st_mode)
        problem, hint = f"has mode {mode:04o}; others may get at it", f"chmod {wanted:04o} {path}"
    elif not directory and facts.st_nlink != 1:
        problem, hint = "has a second name (hard link)", f"find it: find / -xdev -samefile {path}"
    else:
        return
    raise KeyringError(f"{path} {problem}", hint=hint, path=str(path))

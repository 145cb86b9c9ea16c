"""Secrets in one file encrypted with age, for machines without a keyring.

Knows: the file, its format, the identity that opens it. Does not know: which of the secrets are used.

The identity lies in the keys directory of the home (0600), because a daemon starts with nobody there to
type a passphrase. So the encryption protects what leaves the home without its keys: a copy, a backup, a
synchronised folder, a search through files. It does not protect from somebody who can read all of the home as
its owner.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path

from runloop.errors import FailedError
from runloop.secretfile import SecretFileError, new_identity, seal, unseal
from runloopd.broker.vault.private import read_private, unfit, write_private

__all__ = ["AgeFile"]


class AgeFile:
    """Implements :class:`runloopd.broker.vault.Place`."""

    name = "age"
    writable = True

    def __init__(self, file: Path, *, identity: Path) -> None:
        self._file = file
        self._identity_file = identity
        self._changing = threading.Lock()

    def get(self, name: str) -> str | None:
        """See the protocol."""
        return self._read().get(name)

    def names(self) -> Collection[str]:
        """See the protocol."""
        return self._read().keys()

    def put(self, name: str, value: str) -> None:
        """See the protocol. The first secret makes the identity."""
        with self._changing:
            self._write({**self._read(), name: value})
            if self._read().get(name) != value:  # a full disk or a broken cipher must not be found out later
                raise FailedError(
                    f"{self._file} does not give back what was put in", hint="look at that disk",
                    code="secret.place",
                )  # fmt: skip

    def drop(self, name: str) -> bool:
        """See the protocol."""
        with self._changing:
            kept = self._read()
            if kept.pop(name, None) is None:
                return False
            self._write(kept)
            return True

    def _read(self) -> dict[str, str]:
        sealed = read_private(self._file)
        if sealed is None:
            return {}
        identity = self._identity()
        if identity is None:
            raise unfit(
                self._file,
                f"its key {self._identity_file} is missing",
                hint="restore that key from a backup, or move the file away and set the secrets again",
            )
        try:
            return unseal(sealed, identity)
        except SecretFileError as error:
            raise unfit(
                self._file,
                str(error),
                hint="restore it and its key from one backup, or move it away and set the secrets again",
            ) from None

    def _write(self, secrets: dict[str, str]) -> None:
        identity = self._identity()
        if identity is None:
            identity = new_identity()
            write_private(self._identity_file, f"{identity}\n".encode())
        try:
            content = seal(secrets, identity)
        except SecretFileError as error:
            raise unfit(self._identity_file, str(error), hint="restore it from a backup") from None
        write_private(self._file, content)

    def _identity(self) -> str | None:
        text = read_private(self._identity_file)
        return None if text is None else text.decode("ascii", "replace")

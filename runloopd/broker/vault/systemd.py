"""Secrets that systemd hands to the service (``LoadCredential=``, ``LoadCredentialEncrypted=``): read only.

Knows: ``$CREDENTIALS_DIRECTORY`` and how our names are written as names of credentials, which hold no slash:
``runloop/models/openai`` is the credential ``runloop.models.openai``. A scope holds no dot, so this is exact.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from runloop.errors import RefusedError
from runloopd.broker.vault.private import read_private, unfit

__all__ = ["Credentials"]

_PARTS = 3


class Credentials:
    """Implements :class:`runloopd.broker.vault.Place`."""

    name = "systemd"
    writable = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str) -> str | None:
        """See the protocol."""
        path = self._folder / name.replace("/", ".")
        content = read_private(path, handed=True)
        if content is None:
            return None
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise unfit(path, "it is not text") from None

    def put(self, name: str, value: str) -> None:
        """Never: systemd sets them."""
        raise _fixed(name)

    def drop(self, name: str) -> bool:
        """Never: systemd sets them."""
        raise _fixed(name)

    def names(self) -> Collection[str]:
        """See the protocol."""
        found = []
        with suppress(OSError):
            for entry in self._folder.iterdir():
                parts = entry.name.split(".", _PARTS - 1)
                if len(parts) == _PARTS and parts[0] == "runloop":
                    found.append("/".join(parts))
        return found


def _fixed(name: str) -> RefusedError:
    return RefusedError(
        f"{name} is a credential that systemd hands to the daemon",
        hint="change LoadCredential= in the unit and restart it",
        code="secret.fixed",
    )

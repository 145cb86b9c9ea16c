"""Secrets that systemd hands to the service (``LoadCredential=``, ``LoadCredentialEncrypted=``): read only.

Knows: ``$CREDENTIALS_DIRECTORY`` and how our names are written as names of credentials, which hold no slash:
``runloop/models/openai`` is the credential ``runloop.models.openai``. A scope holds no dot, so this is exact.
A unit has to name each credential. So that nobody edits units for a key, ours names two documents of many:
``runloop.secrets`` and, encrypted for this machine, ``runloop.sealed``; TOML, one line for each secret.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from runloop.errors import RefusedError
from runloopd.broker.vault.private import read_private, unfit

__all__ = ["Credentials"]

_PARTS = 3
_DOCUMENTS = ("runloop.sealed", "runloop.secrets")
"""The encrypted one first: whoever moves a secret there need not take it out of the other at once."""


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
            return self._documents().get(name)
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise unfit(path, "it is not text") from None

    def _documents(self) -> dict[str, str]:
        """Every secret of both documents."""
        found: dict[str, str] = {}
        for document in _DOCUMENTS:
            path = self._folder / document
            content = read_private(path, handed=True)
            try:
                table = tomllib.loads(content.decode()) if content is not None else {}
            except (tomllib.TOMLDecodeError, UnicodeDecodeError):
                # Without the cause on purpose: a parser may quote the document.
                raise unfit(path, "it is not TOML", hint=_HINT) from None
            for name, value in table.items():
                if not isinstance(value, str):
                    raise unfit(path, f'"{name}" is not a string', hint=_HINT)
                found.setdefault(name, value)
        return found

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
        return [*found, *(name for name in self._documents() if name not in found)]


_HINT = 'each line of it is "runloop/<scope>/<name>" = "value"; then restart the daemon'


def _fixed(name: str) -> RefusedError:
    return RefusedError(
        f"{name} is a credential that systemd hands to the daemon",
        hint="change it where systemd has it from (/etc/credstore), and restart the daemon",
        code="secret.fixed",
    )

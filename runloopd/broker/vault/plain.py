"""The old ``secrets.toml``: read, with a warning, until its secrets are moved over.

Knows: the file. Never writes it; :meth:`PlainFile.remove` ends it once every secret lies elsewhere.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import structlog

from runloop.errors import RefusedError
from runloopd.broker.vault.private import read_private, remove_private, unfit

__all__ = ["PlainFile"]

log = structlog.get_logger(__name__)


class PlainFile:
    """Implements :class:`runloopd.broker.vault.Place`."""

    name = "file"
    writable = False

    def __init__(self, file: Path) -> None:
        self._file = file
        self._warned = False

    def get(self, name: str) -> str | None:
        """See the protocol."""
        value = self._table().get(name)
        if value is not None and not isinstance(value, str):
            raise unfit(self._file, f'"{name}" is not a string')
        return value

    def put(self, name: str, value: str) -> None:
        """Never."""
        raise _moving(name)

    def drop(self, name: str) -> bool:
        """Never, one by one."""
        raise _moving(name)

    def names(self) -> Collection[str]:
        """See the protocol."""
        return [name for name, value in self._table().items() if isinstance(value, str)]

    def entries(self) -> dict[str, Any]:
        """Everything in it, values included: for moving it over."""
        return self._table()

    def remove(self) -> None:
        """The file itself."""
        remove_private(self._file)

    def _table(self) -> dict[str, Any]:
        content = read_private(self._file)
        if content is None:
            return {}
        if not self._warned:
            self._warned = True
            log.warning("secrets_in_clear", file=str(self._file), hint="'rlp secret import' encrypts them")
        try:
            return tomllib.loads(content.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            # Without the cause on purpose: a parser may quote the document.
            raise unfit(self._file, "it is not TOML") from None


def _moving(name: str) -> RefusedError:
    return RefusedError(
        f"{name} lies in the old secrets.toml, which is not written any more",
        hint="move it over first: rlp secret import",
        code="secret.fixed",
    )

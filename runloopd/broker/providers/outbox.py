"""The outbox: a Maildir that stands for the recipients. The default door, which needs no network.

Knows: Maildir's promise (a file in ``new`` is complete), durability, and one name per idempotency key, so
that sending twice is sending once and a dead daemon's dispatch can be told apart from none. Does not know:
what is in a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from runloop.digest import blob_digest
from runloop.durable import sync_folder
from runloop.errors import RefusedError
from runloopd.broker.ports import MailReceipt, Outcome, PreparedMail, ProviderError

__all__ = ["Outbox"]

_FOLDERS = ("tmp", "new", "cur")


class Outbox:
    """A Maildir at ``path``, made on first use, readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def resource(self) -> str:
        """``outbox:<path>``."""
        return f"outbox:{self._path}"

    async def dispatch(self, prepared: PreparedMail) -> MailReceipt:
        """Put the message into ``new``, durably; putting the same one twice is once.

        Raises :class:`ProviderError` (``mail.outbox``; nothing was left behind) and :class:`RefusedError`
        (``mail.duplicate``) when another message already has this key.
        """
        return await asyncio.to_thread(self._dispatch, prepared)

    async def reconcile(self, prepared: PreparedMail) -> Outcome:
        """``done`` when the message is there, ``absent`` when it is not, ``unknown`` when in doubt."""
        return await asyncio.to_thread(self._reconcile, prepared)

    def _dispatch(self, prepared: PreparedMail) -> MailReceipt:
        name = file_name(prepared.key)
        try:
            self._prepare_folders()
            there = self._find(name)
            if there is None:
                there = self._write(name, prepared.content)
            elif there.read_bytes() != prepared.content:
                raise RefusedError(
                    "another message was already put into the outbox under this key",
                    hint=f"look at {there}",
                    code="mail.duplicate",
                )
        except OSError as error:
            raise ProviderError(
                f"the outbox {self._path} cannot take the message: {error.strerror or error}",
                hint="check free space and permissions of that folder",
                code="mail.outbox",
                retryable=True,
            ) from error
        return MailReceipt(location=str(there), provider="outbox")

    def _reconcile(self, prepared: PreparedMail) -> Outcome:
        try:
            there = self._find(file_name(prepared.key))
            if there is None:
                return "absent"
            return "done" if there.read_bytes() == prepared.content else "unknown"
        except OSError:
            return "unknown"

    def _prepare_folders(self) -> None:
        for folder in (self._path, *(self._path / name for name in _FOLDERS)):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                raise RefusedError(
                    f"the outbox folder {folder} is a link, or not yours",
                    hint="move it away; Runloop makes its own",
                    code="mail.outbox",
                )

    def _find(self, name: str) -> Path | None:
        """The message under this name, in ``new`` or, once a mail program saw it, in ``cur`` with flags."""
        new = self._path / "new" / name
        if new.is_file():
            return new
        seen = self._path / "cur"
        if not seen.is_dir():
            return None
        with os.scandir(seen) as entries:
            return next((Path(entry.path) for entry in entries if entry.name.partition(":")[0] == name), None)

    def _write(self, name: str, content: bytes) -> Path:
        temporary, final = self._path / "tmp" / name, self._path / "new" / name
        temporary.unlink(missing_ok=True)  # what a daemon that died left half written
        try:
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(final)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(final.parent)
        return final


def file_name(key: str) -> str:
    """Name of the file for an idempotency key; nothing of the key but its digest reaches the file system."""
    return f"runloop.{blob_digest(key.encode())[:40]}"

"""Puts another ledger in the place of the present one; what a crash interrupts is finished, never guessed.

A mark says which folder holds the new files and which one takes the old ones. It is on the disk before the
first file moves and goes after the last; while it lies there nobody becomes the writer (``pog.lock``). Every
step may be repeated. Nothing is deleted: what was in place is kept aside.

Knows: which files make a ledger. Does not know: why it is exchanged (``pog.maintain.restore``).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from pog.anchor import read_anchor, write_anchor
from pog.errors import LedgerUncertainError
from pog.lock import exchange_mark
from pog.maintain.files import copy_new, sync, write_new
from runloop.digest import canonical

__all__ = ["NEW_ANCHOR", "NEW_LEDGER", "begin", "finish", "pending"]

NEW_LEDGER, NEW_ANCHOR = "events.db", "ledger.head"
"""Names in the folder of the new files."""
_MAX_MARK = 4_096


class Mark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names of two folders beside the ledger."""

    new: str
    aside: str


def pending(ledger: Path) -> Mark | None:
    """The exchange that was interrupted; None when there is none."""
    try:
        text = exchange_mark(ledger).read_bytes()[:_MAX_MARK]
    except FileNotFoundError:
        return None
    try:
        mark = msgspec.json.decode(text, type=Mark)
    except ValueError as error:
        raise _unclear(ledger, error) from error
    if any(Path(name).name != name or name in {"", ".", ".."} for name in (mark.new, mark.aside)):
        raise _unclear(ledger, "its names lead elsewhere")
    return mark


def begin(ledger: Path, new: Path, aside: str) -> None:
    """Note what is to be exchanged; ``new`` is a folder beside the ledger, all of it on the disk."""
    mark = Mark(new=new.name, aside=aside)
    passing = exchange_mark(ledger).with_name(f".{exchange_mark(ledger).name}.new")
    passing.unlink(missing_ok=True)
    write_new(passing, canonical(msgspec.to_builtins(mark)) + b"\n")
    passing.rename(exchange_mark(ledger))
    sync(ledger.parent)


def finish(ledger: Path, anchor: Path | None, derived: Sequence[Path] = ()) -> Path | None:
    """Do what is noted, or what is left of it. Returns the folder of the old files, if there were any.

    ``derived`` are files made from the old ledger, its views: they go with it. The caller holds the writer's
    lock.
    """
    mark = pending(ledger)
    if mark is None:
        return None
    new, aside = ledger.parent / mark.new, ledger.parent / mark.aside
    if (new / NEW_LEDGER).exists():  # else the last step was done already
        aside.mkdir(mode=0o700, exist_ok=True)
        for path in (*derived, ledger):
            for suffix in ("", "-wal", "-shm", "-journal"):
                old = path.with_name(path.name + suffix)
                if old.exists():
                    old.rename(aside / old.name)
        if anchor is not None:
            _exchange_anchor(anchor, aside, new / NEW_ANCHOR)
        sync(aside)
        sync(ledger.parent)
        (new / NEW_LEDGER).rename(ledger)
        sync(ledger.parent)
    exchange_mark(ledger).unlink()
    sync(ledger.parent)
    shutil.rmtree(new, ignore_errors=True)
    with suppress(OSError):
        aside.rmdir()  # there was nothing to keep
    return aside if aside.exists() else None


def _exchange_anchor(anchor: Path, aside: Path, new: Path) -> None:
    kept = aside / anchor.name
    if anchor.exists() and not kept.exists():
        passing = kept.with_name(f".{kept.name}.new")
        passing.unlink(missing_ok=True)
        copy_new(anchor, passing)
        passing.rename(kept)
        sync(aside)
    found = read_anchor(new)
    if found is not None:
        write_anchor(anchor, found)
    else:
        anchor.unlink(missing_ok=True)
    sync(anchor.parent)


def _unclear(ledger: Path, why: object) -> LedgerUncertainError:
    return LedgerUncertainError(
        f"{exchange_mark(ledger)} cannot be read: {why}",
        hint="look into the folders beside it; each holds a whole ledger",
        code="ledger.exchange",
    )

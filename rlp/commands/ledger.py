"""``rlp kb backup``, ``restore``, ``salvage``, ``migrate``, ``vacuum``, ``rebuild``, ``write-event``.

Backups are read from the files, beside a daemon or without one. What replaces or rewrites the ledger is done
here, with the daemon stopped and its lock held; what states a fact is the daemon's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlp.moments import event_number
from rlp.session import Session
from runloop.credential import read_key
from runloop.errors import UsageError
from runloop.exits import Exit
from runloop.quantities import moment, size

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from pog.maintain.backup import Backup

__all__ = ["backup", "migrate", "rebuild", "restore", "salvage", "vacuum", "verify", "write_event"]

MAX_PAYLOAD = 1024 * 1024
_WAIT_S = 600.0
"""Longest wait for a rebuild: folding a million events takes minutes."""


def backup(session: Session, *, folder: str) -> Exit:
    """Write a backup: whole, verified, signed, or not at all."""
    from pog.maintain import backup as backups
    from runloop.clock import SystemClock

    paths = session.paths
    made = backups.write(
        paths.events_db,
        Path(folder).expanduser(),
        key=_key(session),
        clock=SystemClock(),
        anchor=paths.ledger_anchor,
    )
    _show_backup(session, made, "written")
    session.console.say(f"the keys are not in it: keep {paths.keys_dir} as well, and elsewhere")
    return Exit.OK


def verify(session: Session, *, backup: str | None, chain_only: bool) -> Exit:
    """Check the ledger in place, or every byte of a backup; exit 6 when something differs."""
    from rlp.commands.verify import show_report
    from rlp.commands.verify import verify as verify_ledger

    if backup is None:
        return verify_ledger(session, file=None, chain_only=chain_only, reexecute=False, key=None)
    from pog.maintain import backup as backups
    from pog.maintain.rotate import backup_of

    own = _key(session).public_key()
    found, signer = backup_of(Path(backup).expanduser(), session.paths.events_db, own)
    return show_report(session, backups.check(found, signer))


def restore(session: Session, *, folder: str | None, accept_loss: bool, resume: bool) -> Exit:
    """Put a backup in the ledger's place; the files before it are kept aside."""
    from pog.maintain import restore as restoring
    from pog.maintain.rotate import backup_of
    from runloop.clock import SystemClock

    paths = session.paths
    if resume:
        kept = restoring.resume(paths.events_db, paths.ledger_anchor, _derived(session))
        return _told(session, {"aside": str(kept) if kept else None}, f"finished{_aside(kept)}")
    if folder is None:
        raise UsageError("name the backup's folder", hint="'rlp kb restore FOLDER'", code="cli.argument")
    key = _key(session)
    found, signer = backup_of(Path(folder).expanduser(), paths.events_db, key.public_key())
    session.console.say(
        f"{found.path}: {found.manifest.events} events up to {moment(found.manifest.head_ms)}"
    )
    done = restoring.restore(
        paths.events_db,
        found,
        key=key,
        signer=signer,
        clock=SystemClock(),
        principal=f"operator:{os.getuid()}",
        anchor=paths.ledger_anchor,
        accept_loss=accept_loss,
        derived=_derived(session),
    )
    lost = done.loss.to_json()
    answer = {
        "head": done.head_id, "fact": done.fact, "lost": lost, "cancelled": done.cancelled,
        "aside": str(done.aside) if done.aside else None,
    }  # fmt: skip
    if done.loss.first is not None:
        session.console.note(f"rlp: lost are events {done.loss.first} to {done.loss.last}", "yellow")
    if not done.loss.known:
        session.console.note(f"rlp: nobody can tell what else: {done.loss.why_unknown}", "yellow")
    for run in done.cancelled:
        session.console.note(f"rlp: run {run} was under way then; it is asked to end", "yellow")
    return _told(session, answer, f"restored, and recorded as event {done.fact}{_aside(done.aside)}")


def salvage(session: Session, *, damaged: str | None, to: str | None) -> Exit:
    """Save what can be proven of a damaged ledger; exit 6 when something is known to be lost."""
    from pog.maintain import salvage as salvaging
    from runloop.clock import SystemClock

    if to is None:
        raise UsageError("name a folder to write", hint="'rlp kb salvage --to FOLDER'", code="cli.option")
    paths = session.paths
    own = damaged is None
    done = salvaging.salvage(
        paths.events_db if damaged is None else Path(damaged).expanduser().absolute(),
        Path(to).expanduser(),
        key=_key(session),
        clock=SystemClock(),
        anchor=paths.ledger_anchor if own else None,
    )
    if session.json:
        session.console.json(done.to_json())
        return Exit.OK if done.whole else Exit.DIVERGED
    console = session.console
    console.data(f"saved     events 1 to {done.events}, {done.blobs} blobs", "green")
    console.data(f"signed    up to event {done.signed_up_to} by the ledger itself")
    if done.lost_to is not None:
        console.data(f"lost      events {done.events + 1} to {done.lost_to}, as far as is known", "red")
    if done.blobs_missing:
        console.data(f"lost      the bytes of {len(done.blobs_missing)} blobs", "red")
    if done.beyond:
        console.data(
            f"readable  {done.beyond} events that no longer chain: {done.path / salvaging.QUARANTINE}"
        )
    console.say(f"the damaged files are as they were; 'rlp kb restore {done.path}' puts this in their place")
    return Exit.OK if done.whole else Exit.DIVERGED


def migrate(session: Session) -> Exit:
    """Bring the ledger's file to this build's version."""
    from pog.maintain import migrate as migrating
    from runloop.clock import SystemClock

    paths = session.paths
    migrating.version_of(paths.events_db)  # is there a ledger at all, and one of ours?
    done = migrating.migrate(
        paths.events_db, key=_key(session), clock=SystemClock(), anchor=paths.ledger_anchor
    )
    answer = {"before": done.before, "after": done.after, "kept": str(done.kept) if done.kept else None}
    if done.kept is None:
        return _told(session, answer, f"the ledger is of version {done.after} already")
    return _told(session, answer, f"version {done.before} is now {done.after}; as it was: {done.kept}")


def vacuum(session: Session) -> Exit:
    """Give unused space back."""
    from pog.maintain import vacuum as vacuuming

    done = vacuuming.vacuum(session.paths.events_db, session.paths.views_db)
    rows = [{"file": each.path.name, "before": each.before, "after": each.after} for each in done]
    shown = [{"file": r["file"], **{n: size(int(str(r[n]))) for n in ("before", "after")}} for r in rows]
    session.console.rows(rows if session.json else shown, ("file", "before", "after"))
    return Exit.OK


def rebuild(session: Session) -> Exit:
    """Fold the views anew: by the daemon that has them open, or here when none runs."""
    if session.running() is not None:
        answer = session.ask("kb.rebuild", _WAIT_S)
    else:
        from pog.maintain.rebuild import rebuild as fold_anew

        done = fold_anew(session.paths.events_db, session.paths.views_db)
        answer = {"events": done.events, "quarantined": done.quarantined}
    held = f"; {answer['quarantined']} did not fit and are held" if answer["quarantined"] else ""
    return _told(session, answer, f"folded {answer['events']} events anew{held}")


def write_event(session: Session, *, kind: str, payload: str, causes: tuple[str, ...]) -> Exit:
    """State one fact as the operator; the daemon validates and stamps it."""
    from runloop.events import decode_payload

    value = _payload(session, payload)
    decode_payload(kind, value)  # a mistake costs nothing, and is said before a daemon is started
    answer = session.ask(
        "kb.write_event",
        kind=kind,
        payload=value,
        causes=[event_number(cause, hint="--cause 1234") for cause in causes],
    )
    return _told(session, answer, f"stated as event {answer['event']}")


# --- small hands ----------------------------------------------------------------------------------


def _key(session: Session) -> Ed25519PrivateKey:
    from pog.maintain.rotate import ledger_key

    return ledger_key(session.paths.keys_dir / "ledger.key", read_key)


def _derived(session: Session) -> tuple[Path, ...]:
    """Files that are made from the ledger and can be made again."""
    folder = session.paths.pog_dir
    return session.paths.views_db, folder / "trace.db", *sorted(folder.glob("vectors*.db"))


def _show_backup(session: Session, made: Backup, word: str) -> None:
    if session.json:
        session.console.json(made.to_json())
        return
    manifest = made.manifest
    console = session.console
    console.data(f"{word}   {made.path}", "green")
    console.data(f"  events  {manifest.events}, head #{manifest.head_id} {manifest.head_hash[:16]}")
    console.data(f"  signed  up to #{manifest.signed_up_to}; the manifest covers all of it")
    console.data(f"  blobs   {manifest.blobs}")


def _told(session: Session, answer: dict[str, Any], words: str) -> Exit:
    if session.json:
        session.console.json(answer)
    else:
        session.console.data(words)
    return Exit.OK


def _aside(kept: Path | None) -> str:
    return f"; the files before it: {kept}" if kept else ""


def _payload(session: Session, text: str) -> dict[str, Any]:
    import json

    if text == "-":
        text = (session.stdin or sys.stdin).read(MAX_PAYLOAD + 1)
    if len(text) > MAX_PAYLOAD:
        raise UsageError(f"the payload is longer than {MAX_PAYLOAD} characters", code="kb.payload")
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"the payload is not JSON: {error}", hint="one JSON object, or - for stdin", code="kb.payload"
        ) from error
    if not isinstance(value, dict):
        raise UsageError("the payload is not a JSON object", code="kb.payload")
    return value

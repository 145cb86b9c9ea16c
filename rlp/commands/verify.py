"""``rlp verify``: is the ledger, or a sealed run, what was written? Reads the files; needs no daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlp.output import words
from rlp.session import Session
from runloop.credential import read_key
from runloop.errors import UsageError
from runloop.exits import Exit

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from pog.maintain import Report

__all__ = ["show_report", "verify"]


def verify(
    session: Session,
    *,
    file: str | None,
    chain_only: bool,
    reexecute: bool,
    key: str | None,
    timeout: int | None = None,
) -> Exit:
    """Check chain, signatures, blobs and views, or a sealed run; exit 6 when something differs."""
    from pog import maintain

    if file is not None:
        from rlp.commands.seal import REEXECUTE_S, verify_file

        limit_s = REEXECUTE_S if timeout is None else timeout
        if limit_s < 1:
            raise UsageError(f"--timeout {limit_s} is no time to wait", hint="give seconds, 1 or more")
        return verify_file(session, Path(file), reexecute=reexecute, key=key, limit_s=limit_s)
    if reexecute or key is not None:
        raise UsageError(
            "--reexecute and --key are for sealed runs", hint="name the file: rlp verify --reexecute FILE"
        )

    paths = session.paths
    public = _public_key(session)
    views = None if chain_only or not paths.views_db.exists() else paths.views_db
    report = maintain.verify(
        paths.events_db, public_key=public, views_path=views, anchor_path=paths.ledger_anchor
    )
    return show_report(session, report)


def show_report(session: Session, report: Report) -> Exit:
    """Say what was found; exit 6 when something differs."""
    if session.json:
        session.console.json(report.to_json())
    else:
        _show(session, report.to_json())
    return Exit.OK if report.ok else Exit.DIVERGED


def _show(session: Session, report: dict[str, Any]) -> None:
    console = session.console
    for finding in report["findings"]:
        place = f"event {finding['event']}" if finding["event"] is not None else finding["where"]
        column = f", column {finding['field']}" if finding["field"] else ""
        console.data(f"BAD  {place}{column}: {finding['what']}", "red")
    head = report["head"]
    console.data(
        f"{'verified' if report['ok'] else 'damaged'}  {report['path']}", "green" if report["ok"] else "red"
    )
    console.data(f"  events   {report['events']}, head #{head['id']} {head['hash'][:16]}")
    signed = f"{report['signed_heads']} heads, up to #{report['signed_up_to']}"
    console.data(
        f"  signed   {signed}{'' if report['authenticated'] else ' (no key here to check them with)'}"
    )
    if report["unsigned"]:
        console.data(f"  unsigned {report['unsigned']} events not yet signed")
    console.data(f"  blobs    {report['blobs']}")
    console.data(f"  views    {_views(report)}")
    if report["quarantined"]:
        console.data(f"  held     {words(report['quarantined'])} events the views could not take")
    for warning in report["warnings"]:
        console.note(f"rlp: {warning}", "yellow")
    if not report["ok"]:
        console.note(
            "rlp: do not go on writing; 'rlp kb salvage' saves what can be proven, or restore a backup",
            "red",
        )


def _public_key(session: Session) -> Ed25519PublicKey | None:
    """The ledger's public key; None where this home has none (yet)."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    secret = read_key(session.paths.keys_dir / "ledger.key")
    return Ed25519PrivateKey.from_private_bytes(secret).public_key() if secret else None


def _views(report: dict[str, Any]) -> str:
    if not report["views_checked"]:
        return "not checked"
    differ = any(finding["where"] == "views" for finding in report["findings"])
    return "differ from the fold of the ledger" if differ else "equal the fold of the ledger"

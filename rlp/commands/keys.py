"""``rlp keys``: the key that signs this home's ledger, exchanged for another one."""

from __future__ import annotations

import os

from rlp.session import Session
from runloop.credential import read_key
from runloop.exits import Exit

__all__ = ["rotate"]


def rotate(session: Session) -> Exit:
    """Give the ledger another signing key; what the old one signed stays proven."""
    from pog.maintain.rotate import rotate as exchange
    from runloop.clock import SystemClock

    paths = session.paths
    done = exchange(
        paths.events_db,
        key_file=paths.keys_dir / "ledger.key",
        anchor=paths.ledger_anchor,
        clock=SystemClock(),
        principal=f"operator:{os.getuid()}",
        read=read_key,
    )
    if session.json:
        session.console.json({"before": done.before, "after": done.after, "event": done.event})
        return Exit.OK
    session.console.data(f"the ledger is signed with {done.after[:16]}… from event {done.event} on")
    session.console.say(
        f"the key before it ({done.before[:16]}…) is gone; what it signed up to event {done.event - 1} is "
        "believed, and nothing else"
    )
    session.console.say(f"back up {paths.keys_dir} anew, elsewhere; 'rlp verify' checks the ledger")
    return Exit.OK

"""``runloopd`` that kills itself with SIGKILL at one ledger commit: the product's code, plus one murder.

Usage: python -m tests.e2e.crashing_daemon --home DIR --kind KIND --nth N --moment before|after
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterable, Sequence

import runloopd.assembly.ground
from pog.ledger import Ledger, Prepared
from runloop.events import Event
from runloopd.__main__ import main


class MortalLedger(Ledger):
    """A ledger whose commit of the N-th event of a kind is the last thing its daemon does, or fails to do."""

    kind = ""
    left = 0
    moment = "after"

    def commit(self, prepared: Sequence[Prepared], blobs: Iterable[bytes] = ()) -> list[Event]:
        of_kind = sum(item.draft.payload.kind == self.kind for item in prepared)
        fatal = 0 < MortalLedger.left <= of_kind
        MortalLedger.left -= of_kind
        if fatal and self.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        events = super().commit(prepared, blobs)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return events


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", required=True)
    parser.add_argument("--kind", required=True)
    parser.add_argument("--nth", type=int, default=1)
    parser.add_argument("--moment", choices=["before", "after"], required=True)
    arguments = parser.parse_args()
    MortalLedger.kind, MortalLedger.left = arguments.kind, arguments.nth
    MortalLedger.moment = arguments.moment
    runloopd.assembly.ground.Ledger = MortalLedger  # type: ignore[misc]
    sys.exit(main(["--home", arguments.home]))

"""``runloopd`` that kills itself with SIGKILL at its N-th ledger commit: the product's code, plus one murder.

Usage: python -m tests.e2e.crashing_daemon --home DIR --commit N --moment before|after
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterable, Sequence

from pog.ledger import Ledger, Prepared
from runloop.events import Event
from runloopd.__main__ import main


class MortalLedger(Ledger):
    """A ledger whose N-th commit is the daemon's last act, or the act it did not live to see."""

    commits = 0
    fatal = 0
    moment = "after"

    def commit(self, prepared: Sequence[Prepared], blobs: Iterable[bytes] = ()) -> list[Event]:
        MortalLedger.commits += 1
        if MortalLedger.commits == self.fatal and self.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        events = super().commit(prepared, blobs)
        if MortalLedger.commits == self.fatal and self.moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return events


if __name__ == "__main__":
    import runloopd.daemon

    parser = argparse.ArgumentParser()
    parser.add_argument("--home", required=True)
    parser.add_argument("--commit", type=int, required=True)
    parser.add_argument("--moment", choices=["before", "after"], required=True)
    arguments = parser.parse_args()
    MortalLedger.fatal, MortalLedger.moment = arguments.commit, arguments.moment
    runloopd.daemon.Ledger = MortalLedger  # type: ignore[attr-defined]
    sys.exit(main(["--home", arguments.home]))

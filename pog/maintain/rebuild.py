"""The views folded anew while no daemon runs; with one, its own materializer does it.

Knows: that the writer's lock also means nobody folds. Does not know: what an event does to a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pog.lock import held
from pog.materializer import Materializer

__all__ = ["Rebuilt", "rebuild"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebuilt:
    """What was folded."""

    events: int
    quarantined: int


def rebuild(ledger: Path, views: Path) -> Rebuilt:
    """Throw the views away and fold the whole ledger; who reads them sees the old ones or the new.

    Raises :class:`LedgerLockedError` while a daemon runs, :class:`NotFoundError` without a ledger.
    """
    with held(ledger, what="rebuilding"), Materializer.open(views, ledger) as materializer:
        return Rebuilt(events=materializer.rebuild(), quarantined=len(materializer.quarantined()))

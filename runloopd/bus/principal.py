"""Who a publisher is: decided by the daemon from kernel credentials, never from the client's word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["DAEMON", "Principal"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """The stamped identity of a publisher."""

    kind: Literal["daemon", "operator", "peer", "agent", "schedule", "face"]
    """``operator``: the owning user, having proved the operator credential. ``peer``: same user, no proof.
    ``agent``: the host speaking for a guest. ``schedule``: what starts runs by itself; it says nothing on the
    bus and decides nothing (attacks.md C10). ``face``: a program outside, which does as little."""
    name: str
    """Unique among live publishers: ``daemon``, ``operator:<uid>#<session>``, ``agent:<name>#<instance>``,
    ``schedule:<trigger>``, ``face:<client>``."""
    uid: int = -1
    pid: int = -1

    @property
    def label(self) -> str:
        """The stable part, fit for the ledger: ``operator:1000``."""
        return self.name.split("#", 1)[0]


DAEMON = Principal(kind="daemon", name="daemon")

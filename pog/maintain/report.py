"""What a verification found: findings, located as far as can be, and what the proof rests on.

Knows: its shape for programs and people. Does not know: how anything is checked (``pog.maintain.checks``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pog.chain import GENESIS

__all__ = ["Finding", "Report"]

_MAX_FINDINGS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is not as it was written."""

    where: str
    """``events``, ``heads``, ``anchor``, ``blobs``, ``file``, ``log`` or ``views``."""
    event: int | None
    """The event it concerns."""
    field: str | None
    """The column, when it is known."""
    what: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"where": self.where, "event": self.event, "field": self.field, "what": self.what}


@dataclass(kw_only=True, slots=True)
class Report:
    """What ``verify`` found."""

    path: str
    events: int = 0
    head_id: int = 0
    head_hash: str = GENESIS.hex()
    signed_heads: int = 0
    signed_up_to: int = 0
    """Newest event under a signed head; what follows is chained, and not yet signed."""
    anchored_at: int | None = None
    """Event that the anchor names; None without one."""
    authenticated: bool = False
    """Whether signatures were checked against a key the caller trusts."""
    blobs: int = 0
    views_checked: bool = False
    views_cursor: int | None = None
    quarantined: int = 0
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """What weakens the proof and is no damage."""

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return not self.findings

    @property
    def unsigned(self) -> int:
        """Events after the last signed head: a living daemon signs them in time."""
        return max(0, self.head_id - self.signed_up_to)

    @property
    def first_bad(self) -> Finding | None:
        """The finding about the earliest event, else the first."""
        return min(
            self.findings, key=lambda found: found.event if found.event is not None else 2**63, default=None
        )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        first = self.first_bad
        return {
            "ok": self.ok,
            "path": self.path,
            "events": self.events,
            "head": {"id": self.head_id, "hash": self.head_hash},
            "signed_heads": self.signed_heads,
            "signed_up_to": self.signed_up_to,
            "unsigned": self.unsigned,
            "anchored_at": self.anchored_at,
            "authenticated": self.authenticated,
            "blobs": self.blobs,
            "views_checked": self.views_checked,
            "views_cursor": self.views_cursor,
            "quarantined": self.quarantined,
            "first_bad": first.to_json() if first else None,
            "findings": [found.to_json() for found in self.findings],
            "warnings": list(self.warnings),
        }

    def add(self, where: str, what: str, *, event: int | None = None, column: str | None = None) -> None:
        """Note a finding; beyond a bound they are only more of the same."""
        if len(self.findings) < _MAX_FINDINGS:
            self.findings.append(Finding(where=where, event=event, field=column, what=what))

"""Keeping a ledger over years: verify, back up, restore, salvage, migrate, vacuum, rebuild.

One module per noun. What only reads works beside a living writer; what replaces or rewrites a file takes the
writer's lock first, and is refused while a daemon holds it.
"""

from __future__ import annotations

from pog.maintain.checks import verify
from pog.maintain.report import Finding, Report

__all__ = ["Finding", "Report", "verify"]

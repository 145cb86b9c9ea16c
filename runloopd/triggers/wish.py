"""What somebody wants to have run by itself, before it is a fact.

Knows: the shape of a wish, what a trigger may be called, the one parameter a watch fills in. Does not know:
whether the opening makes sense (``runs`` does), or who may wish (``orders``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from runloop.errors import UsageError

__all__ = ["CHANGED", "TriggerWish"]

CHANGED = "changed"
"""The parameter that hears which files changed, if the opening declares it as a list. Nothing else ever
reaches a run from what set it off."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class TriggerWish:
    """What is to be set. Raises :class:`UsageError` when it cannot be meant."""

    trigger: str
    source: str
    name: str
    """File or name of the opening, for messages."""
    path: str | None = None
    agents_dir: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    openings: dict[str, str] = field(default_factory=dict)
    cron: str | None = None
    zone: str | None = None
    watch: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    settle_ms: int = 2_000
    missed: Literal["skip", "once"] = "skip"
    overlap: Literal["skip", "parallel"] = "skip"

    def __post_init__(self) -> None:
        if not _NAME.match(self.trigger):
            raise UsageError(
                f"{self.trigger[:80]!r} is no name of a schedule",
                hint="lower-case letters, digits and underscores, a letter first",
                code="schedule.name",
            )
        if (self.cron is None) == (not self.watch):
            said = "neither a time nor" if self.cron is None else "both a time and"
            raise UsageError(
                f"{self.trigger} has {said} a path to watch",
                hint="give either --cron or --watch",
                code="schedule.when",
            )
        if self.cron is None and self.zone is not None:
            raise UsageError("a watch has no time zone", hint="leave --zone out", code="schedule.when")
        if not self.watch and self.patterns:
            raise UsageError(
                "a time has no pattern of files", hint="leave --pattern out", code="schedule.when"
            )

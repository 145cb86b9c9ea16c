"""What a replay says at its end: identical, or the first difference, or what nobody could check.

Knows: the shape of the answer and how answers about nested runs add up. Does not know: how any of it was
found out (``openings.replay``) or what is compared (``openings.comparers``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

__all__ = ["Coverage", "Diverged", "Divergence", "DivergenceCode", "Mismatch", "ReplayReport"]

DivergenceCode = Literal["replay.missing", "replay.arguments", "replay.result"]
"""Not in the record; asked for something else; came out differently."""


class Mismatch(Protocol):
    """The first place where a guest left its record, as the driver's answerer saw it."""

    @property
    def code(self) -> str: ...
    @property
    def call(self) -> int | None: ...
    @property
    def what(self) -> str: ...
    @property
    def expected(self) -> str: ...
    @property
    def actual(self) -> str: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Divergence:
    """The first difference between the record and its replay."""

    code: str
    """One of :data:`DivergenceCode`."""
    where: str
    """``node <id> attempt <n> call <i>``, ``engine: <fact>``, ``event <id>``; in a nested run behind
    ``node <id> > `` of the node that nests it."""
    what: str
    expected: str
    """What the record has: a hash where there is one."""
    actual: str
    event: int | None = None
    """Ledger id of the recorded event, if one is at fault."""
    call: int | None = None
    """Index of the host call; None when it is none."""
    column: str | None = None
    """Column of the event's row that was changed, where that could be found out."""

    def inside(self, place: str) -> Divergence:
        """The same, seen from the run around it."""
        return replace(self, where=f"{place} > {self.where}")

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "where": self.where,
            "what": self.what,
            "expected": self.expected,
            "actual": self.actual,
            "event": self.event,
            "call": self.call,
            "column": self.column,
        }


class Diverged(Exception):
    """Ends a replay: what follows a difference proves nothing."""

    def __init__(self, divergence: Divergence) -> None:
        super().__init__(divergence.what)
        self.divergence = divergence


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """How many events of the run were checked, and how. The three parts add up to ``recorded``."""

    recorded: int = 0
    reexecuted: int = 0
    """Came out of the engine or of a guest again, and were compared."""
    substituted: int = 0
    """Came from outside and were served from the record: answers, decisions, times, marks of effects."""
    not_covered: int = 0
    """Could not be checked, or never got to an end."""

    def __add__(self, other: Coverage) -> Coverage:
        return Coverage(
            recorded=self.recorded + other.recorded,
            reexecuted=self.reexecuted + other.reexecuted,
            substituted=self.substituted + other.substituted,
            not_covered=self.not_covered + other.not_covered,
        )

    def to_json(self) -> dict[str, int]:
        return {
            "recorded": self.recorded,
            "reexecuted": self.reexecuted,
            "substituted": self.substituted,
            "not_covered": self.not_covered,
        }

    def __str__(self) -> str:
        return (
            f"{self.recorded} recorded / {self.reexecuted} re-executed / {self.substituted} substituted / "
            f"{self.not_covered} not covered"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayReport:
    """How a replay went: of a run and of every run nested in it."""

    coverage: Coverage
    divergence: Divergence | None = None
    gaps: tuple[str, ...] = ()
    """Why something is not covered, in words."""
    attempts: int = 0
    """Guest executions that were compared."""
    messages: int = 0
    """Frames and messages between agents that were made again and compared."""
    runs: int = 1
    """This run and those nested in it."""
    hashes: int = 0
    """Events whose hash was computed again from their stored row. The driver counts them."""
    output_digest: str | None = None
    """Of the re-executed run; None when it did not get to its end."""

    @property
    def identical(self) -> bool:
        """Everything was covered and nothing differed. Impossible with a gap."""
        return self.divergence is None and self.coverage.not_covered == 0

    def to_json(self) -> dict[str, Any]:
        return {
            "identical": self.identical,
            "coverage": self.coverage.to_json(),
            "divergence": None if self.divergence is None else self.divergence.to_json(),
            "gaps": list(self.gaps),
            "attempts": self.attempts,
            "messages": self.messages,
            "runs": self.runs,
            "hashes": self.hashes,
            "output_digest": self.output_digest,
        }

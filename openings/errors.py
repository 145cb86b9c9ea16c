"""What can be wrong with an opening, told so that its author can fix all of it in one go.

Knows: the shape of a finding and how a list of them reads. Does not know: who finds what (``load``,
``validate``) or where it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from runloop.errors import FailedError, UsageError

__all__ = ["EngineError", "Finding", "OpeningError"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong, with its place."""

    code: str
    """Stable: ``opening.<word>``."""
    what: str
    why: str
    fix: str
    """The next thing to change, without a trailing full stop."""
    file: str = "<opening>"
    line: int = 0
    """From 1; 0 where no place is known."""
    column: int = 0
    """From 1; 0 where no place is known."""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.what}; {self.why}; {self.fix}"

    def to_json(self) -> dict[str, Any]:
        """The finding as one JSON object."""
        return asdict(self)


class OpeningError(UsageError):
    """The opening, or what was given to it, is wrong. ``findings`` holds everything that is."""

    code: ClassVar[str] = "opening.invalid"

    def __init__(self, findings: Sequence[Finding]) -> None:
        ordered = tuple(sorted(findings, key=lambda f: (f.file, f.line, f.column, f.code, f.what)))
        errors = [finding for finding in ordered if finding.severity == "error"]
        count = "1 thing is wrong" if len(errors) == 1 else f"{len(errors)} things are wrong"
        lines = "\n".join(f"  {finding}" for finding in ordered)
        super().__init__(
            f"{count} with the opening:\n{lines}",
            hint=errors[0].fix if errors else None,
            findings=[finding.to_json() for finding in ordered],
        )
        self.findings = ordered


class EngineError(FailedError):
    """The events of a run contradict the engine: they were not written by it, or not in this order."""

    code: ClassVar[str] = "engine.illegal"

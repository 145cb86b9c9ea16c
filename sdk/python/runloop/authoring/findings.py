"""What is wrong with an agent's folder, where, and how to mend it.

Knows: the shape of a finding. Does not know: any rule (``lint``, the toolchains), or how it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from runloop.errors import UsageError

__all__ = ["LintError", "LintFinding", "Severity"]

Severity = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LintFinding:
    """One thing to mend in an agent's folder."""

    file: str
    """Relative to the folder, with ``/``."""
    line: int = 0
    """Counts from 1; 0 when it concerns the whole file."""
    what: str
    fix: str
    severity: Severity = "error"

    @property
    def place(self) -> str:
        """``agent.py:12``, or the file alone."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def __str__(self) -> str:
        return f"{self.place}: {self.what}; {self.fix}"

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "line": self.line,
            "severity": self.severity,
            "what": self.what,
            "fix": self.fix,
        }


class LintError(UsageError):
    """The folder cannot become a bundle. ``findings`` holds every mistake."""

    code: ClassVar[str] = "agent.lint"

    def __init__(self, folder: str, findings: list[LintFinding]) -> None:
        self.findings = findings
        first = ". ".join(map(str, findings[:20]))
        more = f" (and {len(findings) - 20} more)" if len(findings) > 20 else ""
        super().__init__(
            f"{folder} has {len(findings)} mistake{'s' if len(findings) > 1 else ''}: {first}{more}",
            hint="'rlp agent lint' lists them all",
            findings=[finding.to_json() for finding in findings],
        )

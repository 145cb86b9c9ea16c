"""Error families, one per reaction of whoever catches them.

Every error says what happened, why, and how to go on; carries a stable ``code``; and maps to one exit
code of the CLI's enum (spec/cli.md). A layer raises only subclasses it owns and keeps foreign errors as
``__cause__``. This module knows nothing of where an error is shown.
"""

from __future__ import annotations

from typing import Any, ClassVar

from runloop.exits import Exit

__all__ = [
    "ConflictError",
    "DivergenceError",
    "FailedError",
    "NotFoundError",
    "ParkedError",
    "RefusedError",
    "RunloopError",
    "UnreachableError",
    "UsageError",
    "from_wire",
]


class RunloopError(Exception):
    """Root of every error Runloop raises on purpose.

    ``hint`` is the next thing to type or change, without a trailing full stop.
    """

    code: ClassVar[str] = "internal"
    exit: ClassVar[Exit] = Exit.FAILED

    def __init__(
        self, message: str, *, hint: str | None = None, code: str | None = None, **data: Any
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.data = data
        self.named_code = code or type(self).code

    def to_wire(self) -> dict[str, Any]:
        """The error as it crosses the bus: ``{code, family, message, hint, data}``."""
        family = next(f for f in type(self).__mro__ if issubclass(f, RunloopError) and f in _FAMILIES)
        return {
            "code": self.named_code,
            "family": _FAMILIES[family],
            "message": self.message,
            "hint": self.hint,
            "data": self.data,
        }


class FailedError(RunloopError):
    """The work was tried and failed. Look at the reason, then try again."""

    code = "failed"


class UsageError(RunloopError):
    """The input is wrong. Nothing was done; correct it."""

    code = "usage"
    exit = Exit.USAGE


class UnreachableError(RunloopError):
    """Nobody answers at the other end. Start it, or look at the address."""

    code = "unreachable"
    exit = Exit.UNREACHABLE


class RefusedError(RunloopError):
    """Policy says no. Asking again changes nothing; the hint says who can change the policy."""

    code = "refused"
    exit = Exit.REFUSED


class ParkedError(RunloopError):
    """A person must decide first."""

    code = "parked"
    exit = Exit.PARKED


class DivergenceError(RunloopError):
    """Two things that must be equal are not: a replay, a chain, a digest."""

    code = "divergence"
    exit = Exit.DIVERGED


class NotFoundError(RunloopError):
    """The named thing does not exist here."""

    code = "not_found"
    exit = Exit.NOT_FOUND


class ConflictError(RunloopError):
    """Somebody else changed it first. Read again, decide again."""

    code = "conflict"
    exit = Exit.CONFLICT


_FAMILIES: dict[type[RunloopError], str] = {
    FailedError: "failed",
    UsageError: "usage",
    UnreachableError: "unreachable",
    RefusedError: "refused",
    ParkedError: "parked",
    DivergenceError: "divergence",
    NotFoundError: "not_found",
    ConflictError: "conflict",
    RunloopError: "internal",
}
_BY_NAME = {name: family for family, name in _FAMILIES.items()}


def from_wire(error: dict[str, Any]) -> RunloopError:
    """Rebuild the error a peer sent with :meth:`RunloopError.to_wire`; unknown families become the root."""
    family = _BY_NAME.get(str(error.get("family")), RunloopError)
    data = error.get("data")
    made = family(
        str(error.get("message", "unknown error")),
        hint=error.get("hint"),
        code=str(error.get("code") or family.code),
    )
    made.data = data if isinstance(data, dict) else {}
    return made

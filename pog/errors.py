"""Errors of the ledger, its views and their readers; each belongs to a family of ``runloop.errors``."""

from __future__ import annotations

from runloop.errors import ConflictError, DivergenceError, FailedError, RefusedError, UsageError

__all__ = [
    "BackupError",
    "ImportProblemsError",
    "LedgerCorruptError",
    "LedgerLockedError",
    "LedgerUncertainError",
    "LedgerVersionError",
    "LedgerWriteError",
    "MemoryBehindError",
    "MemoryConflictError",
    "PromiseError",
    "QueryLimitError",
    "QueryRefusedError",
    "ViewsError",
]


class LedgerWriteError(FailedError):
    """The facts were not recorded, so whatever depended on them must not happen."""

    code = "ledger.write"


class LedgerUncertainError(LedgerWriteError):
    """The file holds something else than this process believes. Only a restart helps."""

    code = "ledger.uncertain"


class LedgerLockedError(ConflictError):
    """Somebody else is the writer of this ledger."""

    code = "ledger.locked"


class LedgerVersionError(UsageError):
    """The file is not a ledger (or not views) that this build can open. It was not touched."""

    code = "ledger.version"


class LedgerCorruptError(DivergenceError):
    """What is in the file is not what was written there. Never repaired in place."""

    code = "ledger.corrupt"


class BackupError(FailedError):
    """The folder is no backup of this ledger, was changed, or could not be written. Use another one."""

    code = "kb.backup"


class ViewsError(FailedError):
    """The views could not be read or brought up to date. The ledger is not affected; rebuild them."""

    code = "views"


class QueryRefusedError(UsageError):
    """The SQL asks for more than reading, or cannot be understood."""

    code = "kb.query"


class QueryLimitError(RefusedError):
    """The query was stopped at a cap of time or size."""

    code = "kb.limit"


class MemoryConflictError(ConflictError):
    """Somebody changed this memory entry first. Read again, decide again, retry."""

    code = "memory.conflict"


class MemoryBehindError(FailedError):
    """The views are too far behind to hold more of what agents remember. Nothing was written."""

    code = "memory.behind"


class PromiseError(ConflictError):
    """Somebody was quicker, or the time is over: a promise is resolved once."""

    code = "promise.conflict"


class ImportProblemsError(UsageError):
    """Some of what was to be imported could not be read. ``data['problems']`` lists what and why."""

    code = "import"

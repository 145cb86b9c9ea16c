"""The CLI's exit codes (spec/cli.md): one enum, documented, never reused for another sense."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """What a finished ``rlp`` command tells the shell."""

    OK = 0
    FAILED = 1
    USAGE = 2
    """Usage or validation: nothing was done."""
    UNREACHABLE = 3
    """No daemon answers."""
    REFUSED = 4
    """Policy said no."""
    PARKED = 5
    """Waiting for a person."""
    DIVERGED = 6
    """A replay diverged or a verification failed."""
    NOT_FOUND = 7
    CONFLICT = 8
    ROUTE_SHELL = 10
    """``rlp route``: the prompt is a shell line."""
    ROUTE_AGENT = 11
    """``rlp route``: the prompt is a wish for an agent or an opening."""
    ROUTE_TIMEOUT = 12
    ROUTE_DENIED = 13
    """``rlp route``: the prompt is on the deny list."""
    INTERRUPTED = 130

"""What was refused at the socket, in the log: always, but never faster than a person reads.

Knows: how often. Does not know: why (the error says it). A peer that floods the bus with what it may not
send must not be able to flood the disk with our indignation.
"""

from __future__ import annotations

import structlog

from runloop.clock import Clock
from runloop.errors import RunloopError
from runloopd.bus.principal import Principal

__all__ = ["RefusalLog"]

log = structlog.get_logger(__name__)

BURST = 20
"""Lines in one window; the rest is counted and told at the start of the next."""
WINDOW_MS = 10_000


class RefusalLog:
    """Writes refusals to the log, at most :data:`BURST` in :data:`WINDOW_MS`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_ms = clock.now_ms()
        self._written = 0
        self._withheld = 0

    def note(self, principal: Principal, error: RunloopError) -> None:
        """One refusal. ``principal`` is who the kernel says it was."""
        now = self._clock.now_ms()
        if now - self._since_ms >= WINDOW_MS:
            self._since_ms, self._written = now, 0
        if self._written >= BURST:
            self._withheld += 1
            return
        self._written += 1
        withheld, self._withheld = self._withheld, 0
        log.warning(
            "bus_refused",
            code=error.named_code,
            reason=error.message,
            publisher=principal.label,
            uid=principal.uid,
            pid=principal.pid,
            withheld=withheld,
        )

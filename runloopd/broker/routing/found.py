"""Which models a server on this machine has at the moment, asked seldom.

Knows: how long an answer holds, that one question at a time is enough for one server, and that different
ones are asked at once. Does not know: how a server is asked (``providers.discovery``), or what is done with
its models (``catalogue``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runloop.clock import Clock
from runloopd.broker.providers.discovery import Listing, LocalServer, ask_server, owned_here
from runloopd.broker.providers.http import Http
from runloopd.broker.routing.patience import Patience

__all__ = ["Found"]


class Found:
    """The models of local servers, kept for a while."""

    def __init__(
        self,
        http: Http,
        clock: Clock,
        patience: Patience,
        ours: Callable[[str], bool] = owned_here,
    ) -> None:
        """``ours`` tells whether a server that nobody named may be trusted."""
        self._http = http
        self._clock = clock
        self._patience = patience
        self._ours = ours
        self._listings: dict[str, tuple[int, Listing]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def models_of(self, server: LocalServer, *, named: bool = True) -> Listing:
        """The models of ``server``; none where nothing answers in time. ``named``: the operator wrote its
        address, so that it need not prove whose it is."""
        async with self._asking.setdefault(server.url, asyncio.Lock()):
            until_ms, listing = self._listings.get(server.url, (0, Listing()))
            if self._clock.now_ms() >= until_ms:
                patience_s = self._patience.detect_ms / 1000
                ours = None if named else self._ours
                listing = await ask_server(self._http, server, timeout_s=patience_s, ours=ours)
                keep_ms = self._patience.detected_for_ms if listing.models else self._patience.absent_for_ms
                self._listings[server.url] = (self._clock.now_ms() + keep_ms, listing)
            return listing
